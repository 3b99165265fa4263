"""Every page in every state of a run, as AppTest draws it: what it says, saves and refuses.

Brushes, tables and dialogs need a browser: test_browser.py.
"""

import ast
import dataclasses
import json
import os
import re
import shutil
import time
from pathlib import Path

import chain
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import run_dirs
from run_dirs import (
    DEMO,
    ERROR,
    PAGES,
    ROOT,
    STATES,
    assert_sound,
    choose,
    dead_pid,
    demo_run,
    everything,
    has_button,
    headline,
    headlines,
    kept_ids,
    links,
    messages,
    open_page,
    press,
    rewrite_sample,
    run_in,
    set_source_columns,
    set_state,
)
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from grads import api
from grads.__main__ import app
from grads.errors import RunError
from grads.export.write import FORMATS
from grads.jobs import processes as jobs
from grads.selection import preview
from grads.selection import select as selection
from grads.selection.filters import Filter
from grads.selection.options import Bound, SelectionConfig
from grads.selection.pool import Pool
from grads.store.folders import Evaluation
from grads.store.runs import ACTIVE, Run, Status, list_runs
from studio import charts, evaluation_charts, filters, frame, verdict, words

SCORED = ("finished", "clustering")  # the examples are scored
MANY_DIGITS = "9" * 5_000  # more than Python reads as a number
PERCENTS = (2.5, 5.0, 10.0, 25.0, 50.0)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty runs folder, which the pages use; data may lie below it."""
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    monkeypatch.setenv("GRADS_DATA_DIRS", str(tmp_path))
    return tmp_path


@pytest.fixture
def run(root):
    """A copy of the demo's finished run."""
    return demo_run(root)


@pytest.fixture
def pool(run):
    return Pool(run)


@pytest.fixture(scope="module")
def tiny_place(tmp_path_factory):
    """A tiny local model and a data file with two rows that cannot be used."""
    folder = tmp_path_factory.mktemp("place")
    chain.save_tiny_model(folder / "model")
    chain.write_data(folder / "data.jsonl")
    return folder


@pytest.fixture
def tiny_link(tiny_place, root, monkeypatch):
    """Query parameters of a page that sets up a run of them."""
    monkeypatch.setenv("GRADS_DATA_DIRS", str(tiny_place))
    return {
        "dataset": str(tiny_place / "data.jsonl"),
        "model": str(tiny_place / "model"),
        "max_length": "64",
        "heldout": "5",
    }


@pytest.fixture(scope="module")
def checked_data(tiny_place, tmp_path_factory):
    """The folder of drafts after the real job has read these data."""
    config = chain.config_for(tiny_place)
    draft = api.check(config, "data", str(tmp_path_factory.mktemp("checked")))
    assert chain.wait_for(draft, "finished", "failed").state == "finished"
    return draft.path.parent


@pytest.fixture
def new_link(checked_data, tiny_link, root):
    """The same, where the data were looked at already; of the page Run."""
    shutil.copytree(checked_data, root / ".drafts")
    return tiny_link | {"view": "New run"}


def downloads(at) -> list:
    """What the page offers to download, besides the report that every page offers."""
    return [one for one in at.get("download_button") if one.proto.label != "Download the report"]


# -- every page in every state


def make_state(root: Path, state: str) -> None:
    """A runs folder whose one run is in `state`; `clustering` runs, with its scores written."""
    if state == "finished":
        demo_run(root, state)
    elif state == "clustering":
        run = demo_run(root, state)
        run.clusters_file.unlink()
        run.features_file.unlink()
        set_state(run, "running", stage="cluster", total=0)
    elif state != "none":
        run_in(root, state)


@pytest.fixture(scope="module")
def visited(tmp_path_factory):
    """Pages as drawn, by page and state; each is drawn once."""
    roots: dict[str, Path] = {}
    drawn = {}

    def visit(page: str, state: str):
        if state not in roots:
            roots[state] = tmp_path_factory.mktemp(state)
            make_state(roots[state], state)
        if state in ACTIVE:  # the heart beats
            set_state(Run(roots[state] / state), state)
        if (page, state) not in drawn:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("GRADS_RUNS_DIR", str(roots[state]))
                drawn[page, state] = open_page(page)
        return drawn[page, state]

    return visit


ALL_STATES = ("none", *STATES, *SCORED)


@pytest.mark.parametrize("state", ALL_STATES)
@pytest.mark.parametrize("page", PAGES)
def test_page_is_drawn_in_every_state(visited, page, state):
    assert_sound(visited(page, state))


@pytest.mark.parametrize("state", ALL_STATES)
@pytest.mark.parametrize("page", PAGES)
def test_page_has_one_headline_in_every_state(visited, page, state):
    assert len(headlines(visited(page, state))) == 1


@pytest.mark.parametrize("page", PAGES)
def test_every_page_links_to_every_other(visited, page):
    assert links(visited(page, "none"))[: len(PAGES)] == list(PAGES)


@pytest.mark.parametrize(
    ("state", "taken"),
    [
        ("none", set()),
        ("running", {"Data", "Evaluate"}),  # what the demo measured still lies there
        ("clustering", {"Data", "Run", "Select", "Evaluate"}),
        ("finished", {"Data", "Run", "Select", "Evaluate"}),
    ],
)
def test_steps_that_are_taken_have_a_tick(visited, state, taken):
    shown = visited("Explore", state).get("page_link")[: len(PAGES)]
    assert {one.proto.label for one in shown if one.proto.icon == frame.DONE} == taken


@pytest.mark.parametrize("page", ["Explore", "Select"])
def test_without_a_run_the_page_says_where_to_begin(visited, page):
    at = visited(page, "none")
    assert headline(at) == "There is no run yet"
    assert "Choose data" in links(at)
    assert not at.selectbox, "there is nothing to choose from"


def test_without_a_run_the_first_page_offers_data_and_demo(visited):
    assert {"Choose data", "Explore the demo"} <= set(links(visited("Start", "none")))


def test_without_a_run_the_page_run_asks_for_data(visited):
    at = visited("Run", "none")
    assert headline(at) == "What will it cost?"
    assert "First choose your data" in messages(at)
    assert not has_button(at, "Start")


@pytest.mark.parametrize("state", [*STATES, "finished"])
def test_start_names_each_runs_state(visited, state):
    at = visited("Start", state)
    word = words.STATES[state][0]
    (line,) = [m.value for m in at.markdown if m.value.startswith(f"**{words.literal(state)}**")]
    assert line.endswith(f" {word}]")
    assert ("Explore it" if state == "finished" else "Watch it") in links(at)


@pytest.mark.parametrize(
    ("state", "expected", "button"),
    [
        ("queued", "at work", "Stop"),
        ("running", "at work", "Stop"),
        ("stopping", "at work", "Stop"),
        ("stopped", "is stopped; nothing finished is lost", "Resume"),
        ("failed", "has failed", "Resume"),
        ("interrupted", "was interrupted; nothing finished is lost", "Resume"),
        ("finished", "All 300 examples are scored", "Delete"),
    ],
)
def test_run_says_the_state_and_what_can_be_done(visited, state, expected, button):
    at = visited("Run", state)
    assert expected in headline(at)
    assert f"**{words.STATES[state][0]}**" in everything(at)
    assert has_button(at, button)
    assert has_button(at, "Stop") == (state in ACTIVE)
    assert has_button(at, "Delete") == (state not in ACTIVE)


@pytest.mark.parametrize("where", ["Evaluate", "the queue"])
@pytest.mark.parametrize(
    ("status", "told"),
    [
        (
            {"stage": "evaluate", "message": "full, seed 0", "eta_s": 250.0, "left_s": 250.0},
            "Full, seed 0; about 4 min to the end of the evaluation",
        ),
        (
            {"stage": "pilots", "message": "full, seed 0", "eta_s": 250.0, "left_s": 610.0},
            "Full, seed 0, about 4 min left; about 10 min to the end of the evaluation",
        ),
        ({"stage": "evaluate", "message": "full, seed 0"}, "Full, seed 0"),
    ],
)
def test_the_end_of_an_evaluation_is_told_where_it_is_watched(run, where, status, told):
    made = Evaluation(run, "going")
    made.path.mkdir(parents=True)
    made.config_file.write_text('{"kind": "evaluation"}')
    numbers = {"done": 4000, "total": 10000, "unit": "token passes"}
    set_state(made, "running", **numbers, **status)
    address = {"run": run.id, "evaluation": "going"} if where == "Evaluate" else {"view": "Queue"}
    at = open_page("Evaluate" if where == "Evaluate" else "Run", **address)
    (bar,) = at.get("progress")
    assert bar.proto.text == told


def test_the_queue_tells_the_end_of_a_run(root):
    run_in(root, "running")
    (bar,) = open_page("Run", view="Queue").get("progress")
    assert bar.proto.text.endswith("to the end of the run")


@pytest.mark.parametrize("page", ["Explore", "Select"])
@pytest.mark.parametrize("state", STATES)
def test_unscored_runs_say_their_state_and_where_to_go(visited, page, state):
    at = visited(page, state)
    assert f"This run is {words.STATES[state][0]}" in messages(at)
    assert "Go to Run" in links(at)


def test_a_failed_run_shows_what_went_wrong(visited):
    assert words.error(ERROR) == words.literal(ERROR.replace("--lr", "“lr”"))
    assert ERROR.replace("--lr", "“lr”") in messages(visited("Run", "failed"))
    assert ERROR.replace("--lr", "“lr”") in messages(visited("Explore", "failed"))


def test_a_running_run_shows_stage_and_progress(visited):
    at = visited("Run", "running")
    (bar,) = at.get("progress")
    told, _, end = bar.proto.text.partition("; ")
    assert told == "Score every sample: 120 of 300 samples"
    left = 0.8 * 95.0  # nobody has estimated this run, whose warm-up took 95 s
    assert end == f"about {words.duration(left)} to the end of the run"
    spent = time.time() - psutil.Process().create_time()
    # Of all that it takes, as it was when the page was drawn, which other tests look at too.
    assert 0 < bar.proto.value <= 100 * spent / (spent + left) + 1
    assert {"Memory", "Processor"} <= {metric.label for metric in at.metric}
    steps = [m.value for m in at.markdown if "material/" in m.value]
    assert sum("play_circle" in step for step in steps) == 2  # the run's state and its stage
    assert any("Warm up the model" in step and "2 min" in step for step in steps)


def test_the_bar_is_of_the_stage_where_the_end_of_the_run_is_not_foreseen(run):
    run.update_manifest(seconds={})
    set_state(run, "running", stage="prepare", done=30, total=100, unit="rows")
    (bar,) = open_page("Run", run="demo").get("progress")
    assert (bar.proto.text, bar.proto.value) == ("Read the data: 30 of 100 rows", 30)


def test_a_queued_run_says_what_it_waits_for(visited):
    (bar,) = visited("Run", "queued").get("progress")
    assert bar.proto.text == "Waiting for another job to end"


def test_a_stopping_run_cannot_be_stopped_twice(visited):
    (stop,) = [b for b in visited("Run", "stopping").button if b.label == "Stop"]
    assert stop.disabled


def test_before_its_topics_a_run_can_be_explored_and_selected(visited):
    assert "300 examples" in headline(visited("Explore", "clustering"))
    assert headline(visited("Select", "clustering")) == "Keep 30 of 300 examples"


def test_a_finished_run_that_lost_its_scores_is_told_apart(run):
    run.scores_file.unlink()
    at = open_page("Explore")
    assert "before its examples were scored" not in messages(at)
    assert "This run's scores are gone" in messages(at)


@pytest.mark.parametrize("page", ["Explore", "Select"])
def test_lost_files_are_named(run, page):
    """Not a trace, but which file is missing."""
    run.samples_file.unlink()
    at = open_page(page)
    assert not at.exception
    text = everything(at)
    assert "Traceback" not in text
    assert "samples.parquet" in text


@pytest.mark.parametrize("text", ["{", '{"state": "odd"}'])
@pytest.mark.parametrize("page", ["Start", "Explore"])
def test_a_damaged_run_does_not_take_the_others_down(run, root, page, text):
    demo_run(root, "damaged").status_file.write_text(text)
    at = open_page(page, run="demo")
    assert_sound(at)
    assert len(headlines(at)) == 1
    assert not at.error


@pytest.mark.job
@pytest.mark.parametrize("name", ["config.json", "manifest.json"])
def test_runs_with_damaged_settings_are_left_out_of_the_list(run, root, name, new_link):
    (demo_run(root, "damaged").path / name).write_text("")
    at = open_page("Start")
    assert_sound(at)
    assert "Explore it" in links(at)
    assert not at.error
    assert [summary.id for summary in api.summaries()] == ["demo"]
    assert "cannot be read" in messages(open_page("Run", run="damaged"))
    started = press(open_page("Run", **new_link), "Start")
    assert_sound(started)
    new = Run.open(root / started.query_params["run"])
    api.stop_run(new)


def test_an_unknown_run_in_the_link_gives_the_newest(run):
    at = open_page("Explore", run="gone")
    assert "300 examples" in headline(at)


def test_the_chosen_run_is_the_one_shown(run, root):
    run_in(root, "failed")
    assert "300 examples" in headline(open_page("Explore", run="demo"))
    assert ERROR.replace("--lr", "“lr”") in messages(open_page("Explore", run="failed"))
    assert "has failed" in headline(open_page("Run", run="failed"))


def test_a_run_removed_behind_the_pages_back(run):
    at = open_page("Run")
    shutil.rmtree(run.path)
    at.run()
    assert not at.exception
    assert "Traceback" not in everything(at)
    assert headline(at) == "There is no run yet"


# -- Run, of a finished run


def test_a_finished_run_says_how_long_it_took(run):
    seconds = sum(run.read_manifest().seconds.values())
    text = everything(open_page("Run"))
    assert f"It took {words.duration(seconds)}." in text
    assert "estimated" not in text
    assert "Explore what the model found" in links(open_page("Run"))


def test_the_estimate_is_held_against_what_it_took(run):
    """Only the stages that were estimated count in how far it was off."""
    spent = run.read_manifest().seconds
    half = (spent["score"] + spent["warm-up"]) / 2
    run.estimate_file.write_text(json.dumps({"seconds": {"score": half, "warm-up": 0.0}}))
    text = everything(open_page("Run"))
    assert f"It took {words.duration(sum(spent.values()))}; {words.duration(half)} were" in text
    assert "(+100%)" in text


def test_the_warmups_loss_is_drawn(run):
    charts = [c.proto.alt for c in open_page("Run").get("plotly_chart")]
    assert any("Loss by training step" in alt for alt in charts)
    assert any("Loss by batch" in alt for alt in charts)


# -- Run, a new one


NEW = {"view": "New run", "dataset": str(DEMO / "medical_qa.jsonl")}


def test_a_new_run_without_data_asks_for_data(run):
    at = open_page("Run", view="New run")
    assert headline(at) == "What will it cost?"
    assert "First choose your data" in messages(at)
    assert "Choose data" in links(at)
    assert not has_button(at, "Start")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"lr": "abc"}, "lr is 'abc'"),
        ({"max_length": "2"}, "max_length is 2"),
        ({"epochs": "0"}, "epochs is '0'"),
        ({"warmup_fraction": "1.5"}, "warmup_fraction is '1.5'"),
        ({"batch_size": "0", "lora_rank": "0"}, "lora_rank is 0"),
        ({"batch_tokens": "many"}, "batch_tokens is 'many': Input should be 'auto'"),
        ({"dataset": "/etc/passwd"}, "lies outside the folders"),
        ({"model": "/etc"}, "/etc lies outside the folders"),
        ({"warmup_from": "/etc"}, "/etc lies outside the folders"),
    ],
)
def test_an_invalid_setting_is_named_and_nothing_starts(root, settings, expected):
    at = open_page("Run", **(NEW | settings))
    assert headline(at) == "What will it cost?"
    assert expected in messages(at)
    assert not has_button(at, "Start")
    assert list_runs(root) == []


@pytest.mark.job
def test_valid_settings_can_be_started_and_measured(root, new_link):
    at = open_page("Run", **new_link, lr="1e-3", warmup="full")
    assert headline(at) == "What will it cost?"
    assert not at.error
    assert has_button(at, "Start")
    assert has_button(at, "Estimate")
    assert list_runs(root) == [], "looking starts nothing"


@pytest.mark.job
def test_the_tokens_of_a_pass_are_a_number_or_left_to_the_memory(new_link):
    """What a link says, and what is chosen; the command says the same."""
    at = open_page("Run", **new_link, batch_tokens="512")
    assert any("--batch-tokens 512" in code.value for code in at.code)
    choose(at, "batch tokens", "auto")
    assert_sound(at)
    assert at.query_params["batch_tokens"] == "auto"
    assert any("--batch-tokens auto" in code.value for code in at.code)
    assert has_button(at, "Start")


@pytest.mark.job
def test_a_new_run_is_told_of_the_one_at_work(root, new_link):
    run_in(root, "running")
    at = open_page("Run", **new_link)
    assert "running is at work" in messages(at).replace("`", "")
    assert [toggle.value for toggle in at.toggle] == [False]


@pytest.mark.job
def test_a_start_that_fails_leaves_the_page_standing(new_link, monkeypatch):
    def refuse(*args, **more):
        raise RunError("the disk is full: make room")

    monkeypatch.setattr(api, "start_new", refuse)
    at = press(open_page("Run", **new_link), "Start")
    assert "the disk is full" in messages(at)
    assert headline(at) == "What will it cost?"


# -- Explore


def matching(at) -> int:
    """How many examples the headline says match."""
    text = headline(at).split(": ")[1]
    assert text.endswith(" match")
    return int(text.split()[0].replace(",", ""))


def listed(at) -> list[int]:
    """Rows of the page's table of examples."""
    return [
        row
        for table in at.dataframe
        if "question" in table.value.columns
        for row in table.value["row"].tolist()
    ]


@pytest.mark.parametrize("text", ["insulin", "BLOOD pressure", "(", "<b>", "no such words"])
def test_search_narrows_to_what_a_plain_search_finds(run, pool, text):
    source = (DEMO / "medical_qa.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {i: json.loads(source[i]) for i in pool.scores.sample_id.tolist()}
    found = {
        i
        for i, row in rows.items()
        if any(text.lower() in row[key].lower() for key in ("question", "answer"))
    }
    at = open_page("Explore", search=text)
    assert matching(at) == len(found)
    rows_of_a_page = 50
    assert ("Take a filter off" in messages(at)) == (not found)
    if len(found) <= rows_of_a_page:
        assert set(listed(at)) == found
    else:
        assert set(listed(at)) < found


def test_a_range_in_the_link_narrows(run, pool):
    signal = pool.numbers["signal"]
    at = open_page("Explore", within="signal:0:1")
    assert matching(at) == ((signal >= 0) & (signal <= 1)).sum()
    (chip,) = [b for b in at.button if b.key == "drop-within-signal"]
    chip.click().run()
    assert headline(at) == "What the model finds in 300 examples"


def test_several_ranges_and_a_search_narrow_together(run, pool):
    loss, tokens = pool.numbers["loss"], pool.numbers["response_tokens"]
    both = (loss >= 2) & (loss <= 3) & (tokens >= 50) & (tokens <= 100)
    at = open_page("Explore", within=["loss:2:3", "response_tokens:50:100"])
    assert matching(at) == both.sum() > 0
    at.text_input(key="search").set_value("the").run()
    assert 0 < matching(at) < both.sum()
    press(at, "Show everything")
    assert headline(at) == "What the model finds in 300 examples"
    assert at.text_input(key="search").value == ""


def test_topics_narrow(run, pool):
    at = open_page("Explore", topics=["0", "2"])
    assert matching(at) == np.isin(pool.cluster, [0, 2]).sum()
    (box,) = [box for box in at.multiselect if box.label == "Topics"]
    box.set_value([1]).run()
    assert matching(at) == (pool.cluster == 1).sum()


def test_a_saved_selection_tells_kept_from_set_aside(run):
    at = open_page("Explore", selection="grads-10", search="pain")
    (table,) = [t.value for t in at.dataframe if "question" in t.value.columns]
    kept = set(kept_ids(run, "grads-10"))
    fates = dict(zip(table["row"], table["fate"], strict=True))
    assert fates == {row: "kept" if row in kept else "set aside" for row in fates}
    assert set(fates.values()) == {"kept", "set aside"}
    (colour,) = [box for box in at.selectbox if box.label == "Colour"]
    assert colour.options[0] == "kept or set aside"


def test_a_sample_in_the_link_is_open(run):
    row = json.loads((DEMO / "medical_qa.jsonl").read_text(encoding="utf-8").splitlines()[5])
    at = open_page("Explore", sample="5")
    text = everything(at)
    assert "#### Example in row 5" in text
    bodies = "".join(block.proto.body for block in at.get("html"))
    assert row["question"].split("?")[0][:40].replace("'", "&#x27;") in bodies
    assert any(button.key.startswith("near-") for button in at.button if button.key)


def test_a_neighbour_opens_in_its_turn(run):
    at = open_page("Explore", sample="5")
    near = next(button for button in at.button if (button.key or "").startswith("near-"))
    other = near.key.rsplit("-", 1)[1]
    near.click().run()
    assert f"#### Example in row {other}" in everything(at)


def test_percentiles_of_the_open_sample(run, pool):
    (table,) = [
        t.value for t in open_page("Explore", sample="5").dataframe if "percentile" in t.value
    ]
    position = int(pool.positions(np.array([5]))[0])
    found = dict(zip(table["number"], table["percentile"], strict=True))
    for column in ("signal", "loss", "response_tokens"):
        assert found[words.label(column)] == pytest.approx(pool.percentile(column, position))


@pytest.mark.parametrize("page", ["Explore", "Select"])
def test_the_heat_of_a_sample_is_drawn(run, page):
    at = open_page(page, sample="5")
    (view,) = [g for g in at.button_group if g.label == "View"]
    view.set_value("Where the signal lies").run()
    assert_sound(at)
    heat = [b.proto.body for b in at.get("html") if "rgba(224,123,31" in b.proto.body]
    assert len(heat) == 1
    assert '<span class="learned"' in heat[0]


@pytest.mark.parametrize(
    "parameters",
    [
        {"within": "nope:0:1"},
        {"within": "signal"},
        {"within": "signal:a:b"},
        {"within": "signal:nan:1"},
        {"within": "signal:100:200"},
        {"sample": "9999"},
        {"sample": "99999999999999999999"},
        {"sample": "-1"},
        {"sample": "abc"},
        {"selection": "nope"},
        {"selection": "../../etc/passwd"},
        {"topics": "no such topic"},
        {"column": "nope", "x": "nope", "y": "nope", "colour": "nope"},
        {"within": "signal:1:0"},
        {"shape": "no shape"},
        {"shape": '["nope","signal",0,0,1,1,0,1]'},
        {"shape": '["loss","signal",0,0,1]'},
        {"shape": '{"a":1}'},
        {"shape": '["loss","signal",0,0,1,0,1,' + "9" * 400 + "]"},
        {"shape": '["loss","signal",0,0,Infinity,0,0,1]'},
        {"shape": '["loss","signal",0,0,NaN,0,0,1]'},
        {"shape": "[" * 100_000},
        {"x": ""},
        {"page": "abc"},
        {"page": "1.5"},
        {"page": "-1"},
        {"page": "nan"},
        {"page": MANY_DIGITS},
        {"sample": MANY_DIGITS},
    ],
    ids=lambda parameters: str(parameters)[:60],
)
def test_what_a_link_says_wrongly_is_ignored_or_told(run, parameters):
    """Told is what could have been meant so: a range of no example, an example that is not here."""
    told = {
        "signal:100:200": "No example matches",
        "9999": "There is no example 9999 in this run",
        "99999999999999999999": "There is no example 99999999999999999999 in this run",
    }
    (value, *_) = parameters.values()
    at = open_page("Explore", **parameters)
    found = ": 0 match" if parameters == {"within": "signal:100:200"} else ""
    assert headline(at) == f"What the model finds in 300 examples{found}"
    assert not at.error
    assert told[value] in messages(at) if value in told else messages(at) == ""


@pytest.mark.parametrize("value", ["abc", "1.5", "-1", "nan", MANY_DIGITS], ids=lambda v: v[:9])
def test_a_place_in_the_queue_that_is_none_is_ignored(run, value):
    at = open_page("Review", at=value, sample=value)
    assert_sound(at)
    assert headline(at) == headline(open_page("Review"))


def test_a_sample_that_is_not_there_is_said(run):
    assert "There is no example 9999" in messages(open_page("Explore", sample="9999"))


def test_columns_of_the_data_can_be_drawn(run):
    """Also one with missing values."""
    ages = pa.array([None if i % 5 == 0 else float(i) for i in range(300)])
    set_source_columns(run, age=ages, sure=pa.array([i % 2 == 0 for i in range(300)]))
    at = open_page("Explore", column="age", x="age", y="age", colour="sure", within="age:10:90")
    assert matching(at) == sum(10 <= i <= 90 and i % 5 > 0 for i in range(300))


def test_colours_by_quarters_leave_missing_values_apart(run):
    set_source_columns(run, age=pa.array([None if i < 3 else i + 0.5 for i in range(300)]))
    group = filters.groups(Pool(run), "age", None)
    assert not set(group.code[:3].tolist()) & set(group.code[3:].tolist())


def test_every_colour_is_offered_once(run):
    set_source_columns(run, stars=pa.array([i % 5 for i in range(300)]))
    (box,) = [box for box in open_page("Explore").selectbox if box.label == "Colour"]
    assert len(set(box.options)) == len(box.options)


def test_a_row_is_opened_by_its_number(run):
    at = open_page("Explore")
    at.number_input(key="row").set_value(7).run()
    assert "#### Example in row 7" in everything(at)


# -- what samples say is text


EVIL = (
    '<script>alert("1")</script> <b>bold</b> **strong** [x](javascript:alert(1)) $y$ :red[z] &lt;'
)


def assert_shown_as_text(bodies: list[str]) -> None:
    """The page's HTML holds the text escaped, and no element that it asked for."""
    text = "".join(bodies)
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &lt;b&gt;bold&lt;/b&gt;" in text
    assert "&amp;lt;" in text
    for tag in ("<script", "<b>", "<a ", "<strong"):
        assert tag not in text


def assert_literal(markdown: str) -> None:
    """The evil text is there, and each of its marks has a backslash before it."""
    assert "script" in markdown
    assert not set(re.sub(r"\\.", "", markdown)) & set("<>*[]$:&"), markdown


@pytest.mark.parametrize("page", ["Explore", "Select"])
@pytest.mark.parametrize("view", ["Text", "Where the signal lies"])
def test_a_samples_text_is_never_html(run, page, view):
    rewrite_sample(run, 5, f"Question {EVIL}", f"Answer {EVIL}")
    at = open_page(page, sample="5")
    (box,) = [g for g in at.button_group if g.label == "View"]
    box.set_value(view).run()
    assert_shown_as_text([b.proto.body for b in at.get("html")])


def test_a_samples_text_is_never_markdown(run, pool):
    """On the buttons of its neighbours and among its columns."""
    position = int(pool.positions(np.array([5]))[0])
    near = int(pool.scores.sample_id[pool.neighbours(position, np.ones(300, bool), 1)[0]])
    rewrite_sample(run, near, EVIL, EVIL)
    at = open_page("Explore", sample="5")
    found = [b for b in at.button if (b.key or "").endswith(f"-{near}")]
    assert found
    for button in found:
        assert_literal(button.label.split(": ", 1)[1])


def test_a_column_of_the_data_is_never_markdown(run):
    set_source_columns(run, note=pa.array([EVIL] * 300))
    at = open_page("Explore", sample="5")
    assert_sound(at)
    (caption,) = [c.value for c in at.caption if "note" in c.value]
    assert_literal(caption)


# What Streamlit's pages look for in a text after its marks are understood, as they do (1.67).
READ_LATER = (
    r":material[/_]\w+:",
    r":[\w+-][\w_+-]*:",
    r"(?i)(https?://|www(?=\.))[-.\w]+",
    r"[-.\w+]+@[-\w]+(\.[-\w]+)+",
    r"(^|\s)(<->|->|<-|--|>=|<=|~=)(\s|$)",
)
MARKED = (
    ":material/home: and :material_home:",
    ":smile: :+1: a:smile:b",
    ":red[x] :blue-background[x] :small[x] :streamlit:",
    "see https://a.bc/d?e=f or HTTP://a.bc, www.a.bc, WWW.a.bc",
    "mail a.b+c@d-e.fg now",
    "a -> b <- c <-> d -- e >= f <= g ~= h",
    "->",
    "$x$ $$y$$ **b** _i_ ~~s~~ `c` [a](b) ![a](b) <b>x</b> <!-- c --> &lt; &#60;",
    "# no heading",
    "1. no list",
    "1) no list",
    "- no list",
    "> no quote",
    "| no | table |",
    "    no code",
    "no heading\n===\n\n    no code\n- no list\n",
    "half \ud800 of a character, \x1b[31m and \u202egnp",
)


@pytest.mark.parametrize("text", MARKED)
def test_literal_text_is_shown_as_it_stands(text):
    made = words.literal(text)
    assert not set(re.sub(r"\\.", "", made)) & set(words.MARKS), made
    assert "\n" not in made
    assert not made.startswith(" ")
    for source in (made, re.sub(r"\\(.)", r"\1", made)):  # some look before, some after
        for found in READ_LATER:
            assert not re.search(found, source), (found, source)
    shown = re.sub(r"\\([^\w]|_)", r"\1", made).replace(words.JOINER, "")
    assert shown == api.visible(" ".join(text.split()))


HOSTILE = ":red[evil] :material:home: $x$ `c` **b** ->"  # a folder may be called so


def markdown_of(at) -> list[str]:
    """Every text of a page that Streamlit reads as Markdown: bodies, labels, helps."""
    texts, left = [], [at._tree]
    while left:
        node = left.pop()
        left += getattr(node, "children", {}).values()
        proto = getattr(node, "proto", None)
        if getattr(node, "type", "") in ("html", "code", "json", "plotly_chart"):
            continue
        texts += [str(getattr(proto, name, "")) for name in ("body", "label", "help", "text")]
    return texts


@pytest.mark.parametrize("state", ["finished", "failed", "running"])
def test_no_name_and_no_message_is_markdown_on_any_page(root, state):
    run = demo_run(root, HOSTILE) if state == "finished" else run_in(root, state, HOSTILE)
    config = run.config_values() | {"dataset": f"/x/{HOSTILE}", "model": HOSTILE}
    run.config_file.write_text(json.dumps(config))
    if state == "finished":
        columns = {HOSTILE: pa.array([f"{HOSTILE} {i % 9}" for i in range(300)])}
        set_source_columns(run, **columns | {f"n{HOSTILE}": pa.array(np.arange(300.0))})
        topics = run.clusters_file.read_text()
        terms = json.loads(topics)["clusters"][0]["terms"]
        run.clusters_file.write_text(topics.replace(terms[0], HOSTILE))
        api.decide(run, 5, "pin", HOSTILE, reviewer=HOSTILE)
        rewrite_sample(run, 5, HOSTILE, HOSTILE)
        within = f"n{HOSTILE}:0:200"
    else:
        set_state(run, state, error=HOSTILE, message=HOSTILE, stage=HOSTILE, unit=HOSTILE)
        within = ""
    told = set()
    for page in PAGES:
        asked = {"run": HOSTILE, "sample": "5", "within": within, "bound": within}
        at = open_page(page, **asked, by=HOSTILE, colour=HOSTILE, dataset=str(root / HOSTILE))
        assert_sound(at)
        texts = markdown_of(at)
        assert len(texts) > 10
        for text in texts:
            for mark in (":red[evil]", ":material:home:", "$x$", "`c`", "**b**", " ->"):
                assert mark not in text, (page, text)
        told |= {page} if any("evil" in text for text in texts) else set()
    assert {"Start", "Run", "Explore" if state == "finished" else "Run"} <= told


@pytest.mark.parametrize("figure", ["topics", "coverage", "curves", "overlap"])
def test_no_name_is_a_language_of_plotly(figure):
    name = "<b>a</b> %{x} $y$ &amp;"
    made = {
        "topics": lambda: charts.topics([name], [1], [1]),
        "coverage": lambda: charts.coverage([name], [1.0], [1.0], [(0.5, 1.5)]),
        "curves": lambda: evaluation_charts.training_curves({name: [(1, 1.0)]}, ["selection"]),
        "overlap": lambda: evaluation_charts.overlap([name], [[1.0]]),
    }[figure]()
    text = json.dumps(made.to_plotly_json(), default=str)
    assert "&lt;b>a&lt;/b> &#37;{x} &#36;y&#36; &amp;amp;" in text
    assert not re.search(r"<b>|%\{x\} \$|\$y\$", text)


def test_errors_of_a_job_are_never_markdown(root):
    run = run_in(root, "failed")
    run.write_status(Status(state="failed", error=f"bad row {EVIL}"))
    (box,) = open_page("Run").error
    assert_literal(box.value)


# -- Select


def shown_count(at) -> int:
    """How many examples the headline keeps."""
    found = re.fullmatch(r"Keep ([\d,]+) of 300 examples", headline(at))
    return int(found[1].replace(",", ""))


def save_as(at, name: str):
    at.text_input(key="name").set_value(name).run()
    return press(at, "Save these")


@pytest.mark.parametrize("percent", PERCENTS)
def test_the_budget_in_the_link_is_kept(run, percent):
    at = open_page("Select", budget=str(percent))
    assert headline(at) == f"Keep {round(percent / 100 * 300)} of 300 examples"
    (metric,) = [m for m in at.metric if m.label == "Examples"]
    assert metric.value == str(round(percent / 100 * 300))
    assert at.slider(key="budget").value == percent


def pressed_preset(at) -> list[str]:
    """The presets that are marked as what stands."""
    presets = [b for b in at.button if (b.key or "").startswith("preset-")]
    assert [b.label for b in presets] == [*(f"{p:g}%" for p in PERCENTS), "auto"]
    return [b.label for b in presets if b.proto.type == "secondary"]


@pytest.mark.parametrize("percent", PERCENTS)
def test_presets_set_the_budget(run, percent):
    at = open_page("Select", budget="7.5")
    assert pressed_preset(at) == []
    at.button(key=f"preset-{percent}").click().run()
    assert headline(at) == f"Keep {round(percent / 100 * 300)} of 300 examples"
    assert at.slider(key="budget").value == percent
    assert pressed_preset(at) == [f"{percent:g}%"]


def test_the_preset_auto_lets_the_data_decide(run, pool):
    expected = preview.preview(pool, SelectionConfig(auto=True)).count
    at = open_page("Select")
    at.button(key="preset-auto").click().run()
    assert shown_count(at) == expected
    assert at.toggle(key="auto").value
    assert at.slider(key="budget").disabled
    at.button(key="preset-25.0").click().run()
    assert shown_count(at) == 75
    assert not at.toggle(key="auto").value


def test_auto_in_the_link(run, pool):
    expected = preview.preview(pool, SelectionConfig(auto=True)).count
    assert shown_count(open_page("Select", auto="true")) == expected


@pytest.mark.parametrize(
    ("parameters", "preset"), [({"budget": "25.0"}, "25%"), ({"auto": "true"}, "auto")], ids=str
)
def test_a_link_marks_its_own_preset(run, parameters, preset):
    assert pressed_preset(open_page("Select", **parameters)) == [preset]


def test_what_is_chosen_is_held_whatever_the_address_still_says(run):
    """The next interaction may come with an address from before the last: nothing goes back."""
    at = open_page("Select")
    at.slider(key="budget").set_value(50.0).run()
    at.selectbox(key="criterion").set_value("magnitude").run()
    at.query_params.clear()
    at.query_params["run"] = "demo"
    at.slider(key="budget").set_value(25.0).run()
    assert shown_count(at) == 75
    assert at.selectbox(key="criterion").value == "magnitude"
    assert at.query_params["criterion"] in ("magnitude", ["magnitude"])
    assert at.query_params["budget"] in ("25", ["25"])


def test_options_that_do_not_go_together_leave_page_and_sliders_standing(run):
    at = open_page("Select")
    at.slider(key="focus").set_value(0.5).run()
    at.selectbox(key="criterion").set_value("magnitude").run()
    at.toggle(key="auto").set_value(True).run()
    assert "auto needs a density" in messages(at)
    assert has_button(at, "Make the files")
    assert listed(at)
    at.toggle(key="auto").set_value(False).run()
    at.selectbox(key="criterion").set_value("grads").run()
    assert at.slider(key="focus").value == 0.5
    assert at.query_params["focus"] in ("0.5", ["0.5"])


def test_a_bad_name_leaves_the_page_standing(run):
    at = save_as(open_page("Select", sample="5"), "a b")
    assert "is no name for a selection" in messages(at)
    assert has_button(at, "Make the files")
    assert "#### Example in row 5" in everything(at)


def test_another_run_takes_no_filter_and_no_example_along(run, root):
    demo_run(root, "other")
    link = {"within": "signal:0:1", "search": "pain", "topics": "1", "sample": "5", "x": "loss"}
    link |= {"selection": "grads-10", "shape": '["loss","signal",1,-9,9,-9,9,9,1,9]'}
    at = open_page("Explore", run="demo", **link)
    assert 0 < matching(at) < 300
    at.selectbox(key="run").set_value("other").run()
    assert headline(at) == "What the model finds in 300 examples"
    assert at.query_params.keys() == {"run", "x"}
    assert at.text_input(key="search").value == ""
    assert "#### Example in row" not in everything(at)
    at = open_page("Select", run="demo", bound="loss:2:3", budget="50", sample="5")
    at.selectbox(key="run").set_value("other").run()
    assert at.query_params.keys() == {"run", "budget"}
    assert shown_count(at) == 150


def test_a_drawn_shape_is_in_the_link(run, pool):
    corners = ((1.0, -9.0), (2.5, -9.0), (2.5, 9.0), (1.0, 9.0))
    inside = pool.matching(Filter(lassos=(("loss", "signal", corners),)))
    assert 0 < inside.sum() < 300
    text = json.dumps(["loss", "signal", *(end for corner in corners for end in corner)])
    at = open_page("Explore", shape=text)
    assert matching(at) == inside.sum()
    press(at, "Drawn in the plane")
    assert headline(at) == "What the model finds in 300 examples"
    assert "shape" not in at.query_params


LINKS = [
    ({"budget": "25.0"}, {"ratio": 0.25}),
    ({"auto": "true"}, {"auto": True}),
    ({"focus": "-1.5", "typicality": "0.5"}, {"ratio": 0.1, "focus": -1.5, "typicality": 0.5}),
    ({"budget": "20", "unit": "tokens"}, {"ratio": 0.2, "budget_unit": "tokens"}),
    ({"criterion": "magnitude"}, {"ratio": 0.1, "criterion": "magnitude"}),
    (
        {"criterion": "random", "seed": "3"},
        {"ratio": 0.1, "criterion": "random", "seed": 3},
    ),
    (
        {"criterion": "density", "draw": "sample"},
        {"ratio": 0.1, "criterion": "density", "draw": "sample"},
    ),
    ({"draw": "stratified"}, {"ratio": 0.1, "draw": "stratified"}),
    ({"draw": "top", "focus": "1.0"}, {"ratio": 0.1, "draw": "top", "focus": 1.0}),
    ({"draw": "sample", "seed": "5"}, {"ratio": 0.1, "draw": "sample", "seed": 5}),
    (
        {"signal": "head", "length_control": "none"},
        {"ratio": 0.1, "signal": "head", "length_control": "none"},
    ),
    (
        {"bound": ["loss:2:3", "response_tokens:20:90"]},
        {
            "ratio": 0.1,
            "bounds": [
                {"column": "loss", "low": 2.0, "high": 3.0},
                {"column": "response_tokens", "low": 20.0, "high": 90.0},
            ],
        },
    ),
]


@pytest.mark.parametrize(("parameters", "values"), LINKS, ids=str)
def test_options_in_the_link_keep_what_the_engine_keeps(run, pool, parameters, values):
    """Saved through the page, the subset is selection.select's, and as large as it said."""
    options = SelectionConfig.parse(values)
    expected = selection.select(pool.scores, options, pool.numbers, pool.cluster).kept
    at = open_page("Select", **parameters)
    assert shown_count(at) == expected.sum()
    save_as(at, "mine")
    assert_sound(at)
    assert kept_ids(run, "mine") == pool.scores.sample_id[expected].tolist()
    record = api.read_record(run, "mine")
    assert record.options == options
    assert record.samples.kept == shown_count(at)


def test_a_budget_in_tokens_is_not_exceeded(run, pool):
    at = open_page("Select", budget="10.0", unit="tokens")
    (metric,) = [m for m in at.metric if m.label == "Answer tokens"]
    kept, tokens = int(metric.value.replace(",", "")), pool.scores.response_tokens
    budget = round(0.1 * tokens.sum())
    assert budget - tokens.max() < kept <= budget


def test_moving_a_slider_moves_the_choice(run, pool):
    at = open_page("Select")
    before = set(listed_changes(at))
    at.slider(key="focus").set_value(-2.0).run()
    assert shown_count(at) == 30
    assert set(listed_changes(at)) != before
    at.slider(key="budget").set_value(40.0).run()
    assert shown_count(at) == 120


def listed_changes(at) -> list[int]:
    """Rows of the list that is shown."""
    (table,) = [t.value for t in at.dataframe if "question" in t.value.columns]
    return table["row"].tolist()


def test_lists_of_who_is_kept_and_who_enters_and_leaves_against_a_saved_selection(run, pool):
    """Each example once, with its reason; all of them, page by page, the best scores first."""
    shown = preview.preview(pool, SelectionConfig(ratio=0.1))
    ids = pool.scores.sample_id
    kept, saved = set(ids[shown.kept].tolist()), set(kept_ids(run, "random-10"))
    expected = {
        "kept": kept,
        "entering": kept - saved,
        "leaving": saved - kept,
        "decided": set(),
    }
    at = open_page("Select", base="random-10")
    (box,) = [group for group in at.button_group if group.label == "List"]
    told = ["All 300", "Kept 30", "Set aside 270", f"Entering {len(kept - saved)}"]
    assert box.options[:4] == told
    for name, rows in expected.items():
        at = open_page("Select", base="random-10", show=name)
        if rows:
            assert sorted(listed_changes(at)) == sorted(rows)
        else:
            assert "Nobody has decided" in everything(at)
    aside: list[int] = []
    at = open_page("Select", show="aside")
    for page in range(1, 7):
        at.number_input(key="page").set_value(page).run()
        aside += listed_changes(at)
        (table,) = [t.value for t in at.dataframe if "reason" in t.value.columns]
        places = pool.positions(np.array(table["row"]))
        assert table["reason"].tolist() == api.reasons(pool, shown, places)
    scores = shown.ranking.score[pool.positions(np.array(aside))]
    assert (np.diff(scores) <= 0).all()
    assert sorted(aside) == sorted(set(ids.tolist()) - kept)
    assert "No example enters." in everything(open_page("Select", base="grads-10", show="entering"))


def test_any_column_sorts_all_rows_and_pages_go_on(run, pool):
    """Also the data's own; a page beyond the last is the first."""
    set_source_columns(run, note=pa.array([f"n{i * 7 % 300:03}" for i in range(300)]))
    at = open_page("Explore", sort="loss", up="true")
    order = np.argsort(pool.numbers["loss"], kind="stable")
    assert listed_changes(at) == pool.scores.sample_id[order][:50].tolist()
    at.number_input(key="page").set_value(6).run()
    assert listed_changes(at) == pool.scores.sample_id[order][250:].tolist()
    at.text_input(key="search").set_value("insulin").run()
    assert 0 < len(listed_changes(at)) < 50, "a filter that leaves fewer pages shows the first"
    at = open_page("Explore", sort="note")
    (table,) = [t.value for t in at.dataframe if "question" in t.value.columns]
    assert table["note"].tolist() == [f"n{i:03}" for i in range(299, 249, -1)]


def test_columns_of_the_data_filter(run, pool):
    kinds = pool.categories["kind"]
    names = kinds.names[:2]
    at = open_page("Explore", only=[json.dumps(["kind", name]) for name in names])
    assert matching(at) == np.isin(kinds.code, [0, 1]).sum()
    (table,) = [t.value for t in at.dataframe if "question" in t.value.columns]
    assert set(table["kind"]) <= set(names)
    (box,) = [box for box in at.multiselect if box.label == "Columns of your data"]
    box.set_value([]).run()
    assert headline(at) == "What the model finds in 300 examples"


def test_random_is_a_range_and_the_seeds_part_is_said(run, pool):
    """Not one draw: what random subsets hold, and how much another seed would keep again."""
    shown = preview.preview(pool, SelectionConfig(ratio=0.1))
    at = open_page("Select")
    deltas = {metric.label: metric.delta for metric in at.metric}
    luck = shown.random_tokens
    assert luck.low < luck.mean < luck.high
    assert deltas["Answer tokens"] == f"random: {luck.low:,.0f} to {luck.high:,.0f}"
    again = words.share(shown.stability, 1)
    assert f"another seed would keep **{again}** of these" in everything(at)
    assert 0.1 < shown.stability < 0.9
    assert "another seed" not in everything(open_page("Select", draw="top"))


def test_what_becomes_empty_is_said(run, pool):
    options = SelectionConfig(ratio=0.1, criterion="longest")
    shown = preview.preview(pool, options)
    gone = preview.emptied(preview.coverage(pool, shown, "kind"))
    assert gone
    at = open_page("Select", criterion="longest", by="kind")
    named = ", ".join(f"{name} ({expected:.1f})" for name, expected in gone.items())
    assert f"Nothing is kept of: {named}." in messages(at)


def test_auto_without_a_density_says_what_to_do(run):
    at = open_page("Select", auto="true", criterion="magnitude")
    assert_sound(at)
    assert "auto needs a density" in messages(at)
    assert "give a ratio" in messages(at)
    at.toggle(key="auto").set_value(False).run()
    assert headline(at) == "Keep 30 of 300 examples"


def test_a_draw_that_a_criterion_cannot_make_says_what_to_do(run):
    at = open_page("Select", draw="sample", criterion="magnitude")
    assert_sound(at)
    assert "use top or stratified" in messages(at)


def test_the_draw_follows_what_counts_until_it_is_chosen(run):
    """What a criterion cannot draw is never its default, and the address stays short."""
    at = open_page("Select")
    assert at.selectbox(key="draw").value == "sample"
    at.selectbox(key="criterion").set_value("magnitude").run()
    assert_sound(at)
    assert at.selectbox(key="draw").value == "top"
    assert "draw" not in at.query_params
    at.selectbox(key="draw").set_value("stratified").run()
    at.selectbox(key="criterion").set_value("grads").run()
    assert at.selectbox(key="draw").value == "stratified"
    assert at.query_params["draw"] == "stratified"


def test_even_then_there_is_a_headline(run):
    assert headline(open_page("Select", auto="true", criterion="magnitude"))


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "a b", "é", "x" * 70])
def test_a_bad_name_saves_nothing(run, name):
    before = run.selection_names()
    at = save_as(open_page("Select"), name)
    assert_sound(at)
    assert "is no name for a selection" in messages(at)
    assert run.selection_names() == before
    assert not (run.path / "x.json").exists()


def test_without_a_name_there_is_nothing_to_save(run):
    (button,) = [b for b in open_page("Select").button if b.label.startswith("Save these")]
    assert button.disabled


def test_a_saved_selection_is_offered_for_export(run):
    at = save_as(open_page("Select", budget="5.0"), "first-try")
    assert api.read_record(run, "first-try").samples.as_json() == {"kept": 15, "pool": 300}
    (box,) = [box for box in at.selectbox if box.label == "Saved selection"]
    assert box.value == "first-try"


# -- Select: people decide


def test_a_person_pins_an_example(run, pool):
    """Recorded, chosen, and carried into the saved record and the export's manifest."""
    before = pool.select(SelectionConfig(ratio=0.1)).kept
    sample = int(pool.scores.sample_id[np.argmax(~before)])
    at = open_page("Select", sample=str(sample))
    assert "set aside" in everything(at).split(f"#### Example in row {sample}")[1][:40]
    at.text_input(key=f"reason-{sample}").set_value("a **rare** case")
    at.text_input(key="reviewer").set_value("Dr Ada")
    press(at, "Always keep")
    assert shown_count(at) == 30
    assert f"Row {sample} is always kept by Dr Ada: a **rare** case" in messages(at)
    assert f"#### Example in row {sample}, :blue[**kept**]" in everything(at)
    (line,) = run.read_decisions()
    assert line.pop("time")
    assert line == {
        "sample_id": sample,
        "decision": "pin",
        "reason": "a **rare** case",
        "reviewer": "Dr Ada",
    }
    save_as(at, "reviewed")
    assert sample in kept_ids(run, "reviewed")
    assert len(kept_ids(run, "reviewed")) == 30
    record = api.read_record(run, "reviewed")
    assert record.options.pins == (sample,)
    assert record.decisions[0].reviewer == "Dr Ada"
    press(at, "Make the files")
    manifest = json.loads((run.exports / "reviewed" / "jsonl" / "manifest.json").read_text())
    assert manifest["decisions"] == [made.as_json() for made in record.decisions]
    assert manifest["options"]["pins"] == [sample]


def test_a_selection_that_decisions_contradict_is_marked(run):
    """Where it is exported, compared with, shown on Explore and offered for a test."""
    sample = int(kept_ids(run, "grads-10")[0])
    api.decide(run, sample, "exclude")
    told = f"grads-10 is stale: people have decided otherwise about row {sample}"
    for page, more in (("Select", {"base": "grads-10"}), ("Explore", {"selection": "grads-10"})):
        assert told in messages(open_page(page, run="demo", **more)), page
    shutil.rmtree(run.evaluations)  # then the form for the first one stands open
    at = open_page("Evaluate", run="demo")
    at.multiselect(key="tested").set_value(["grads-10"]).run()
    assert told in messages(at)
    at = open_page("Select", run="demo", first="grads-10", second="random-10")
    assert told in messages(at)
    api.decide(run, sample, "clear")
    assert "stale" not in messages(open_page("Select", base="grads-10"))


def test_a_selection_that_decisions_contradict_is_marked_wherever_it_is_named(run):
    """In every box of selections, and where the list of runs counts them."""
    api.decide(run, int(kept_ids(run, "grads-10")[0]), "exclude")
    ways = [
        ("Explore", {}, {"Kept and set aside", "Entering, against", "Selection"}),
        ("Select", {}, {"Entering, against", "Saved selection", "First", "Second", "Selection"}),
        ("Review", {"queue": "borderline"}, {"Saved selection"}),
    ]
    for page, more, labels in ways:
        at = open_page(page, run="demo", **more)
        for label in labels:
            (box,) = [box for box in at.selectbox if box.label == label]
            assert "grads-10 (stale)" in box.options, (page, label)
            assert "grads-10" not in box.options, (page, label)
    (summary,) = api.summaries()
    assert f"({len(summary.stale)} stale)" in everything(open_page("Start")).replace("\\", "")
    count = f"{len(summary.selections)} ({len(summary.stale)} stale)"
    listed = CliRunner().invoke(app, ["list"], env={"COLUMNS": "200"})
    assert "grads-10" in summary.stale
    assert count in listed.stdout


def test_a_damaged_selection_is_no_reason_to_leave_its_run_out(run):
    """Where selections are named alone."""
    api.decide(run, 0, "exclude")
    run.selection_file("grads-10").with_suffix(".parquet").write_bytes(b"")
    (summary,) = api.summaries()
    assert "grads-10" in summary.selections
    assert "grads-10" not in summary.stale
    assert headline(open_page("Explore", base="random-10")).startswith("What the model finds in")


def test_the_selection_saved_last_is_what_a_choice_is_held_against(run):
    """As its record says: in a copy of a run all files are as new."""
    first, last = run.selection_names()[1:3]
    values = json.loads(run.selection_file(last).read_text())
    run.selection_file(last).write_text(json.dumps(values | {"made": "2999-01-01T00:00:00+00:00"}))
    for number, name in enumerate(run.selection_names()):
        os.utime(run.selection_file(name), (1e9 + (name == first), 1e9 + number))
    at = open_page("Select")
    (box,) = [box for box in at.selectbox if box.label == "Entering, against"]
    assert box.value == last


def test_the_open_example_is_marked_in_the_list_and_nothing_else_is(run, pool):
    """Wherever it was opened; a filter moves the rows under the mark."""

    def marked(at) -> list[int]:
        (table,) = [one for one in at.dataframe if "question" in one.value.columns]
        if not table.proto.selection_state:
            return []
        rows = json.loads(table.proto.selection_state)["selection"]["rows"]
        return table.value["row"].iloc[rows].tolist()

    loss = pool.numbers["loss"]
    top = pool.scores.sample_id[pool.ordered("signal", np.ones(len(pool), bool))].tolist()
    at = open_page("Explore", run="demo", sort="signal", sample=str(top[3]))
    assert marked(at) == [top[3]]
    shift = loss[pool.positions(np.array(top[:1]))][0]
    at = open_page("Explore", sort="signal", sample=str(top[3]), within=f"loss:{shift + 1e-4}:99")
    assert marked(at) == ([top[3]] if loss[pool.positions([top[3]])][0] > shift else [])
    at = open_page("Explore", run="demo", sort="signal", sample=str(top[3]))
    press(at, "Close")
    assert marked(at) == []


def test_the_legend_names_the_selection_that_the_views_show(run):
    """Where it is not the choice that headline and numbers are of."""
    named = "Views show the selection random-10:"
    assert named in everything(open_page("Select", run="demo", selection="random-10"))
    assert "Views show the selection" not in everything(open_page("Select", run="demo"))


def test_a_person_excludes_an_example_and_takes_it_back(run, pool):
    before = pool.select(SelectionConfig(ratio=0.1)).kept
    sample = int(pool.scores.sample_id[np.argmax(before)])
    at = press(open_page("Select", sample=str(sample)), "Never keep")
    assert shown_count(at) == 30, "another takes its place"
    assert f"Row {sample} is never kept" in messages(at)
    assert f"#### Example in row {sample}, :gray[**set aside**]" in everything(at)
    assert not has_button(at, "Always keep")
    save_as(at, "without")
    assert sample not in kept_ids(run, "without")
    press(at, "Undo")
    assert api.decisions(run) == {}
    assert has_button(at, "Always keep")
    assert f"#### Example in row {sample}, :blue[**kept**]" in everything(at)
    save_as(at, "again")
    assert kept_ids(run, "again") == pool.scores.sample_id[before].tolist()


def test_everything_decided_is_listed(run):
    api.decide(run, 5, "pin", "good", reviewer="Ada")
    api.decide(run, 6, "exclude")
    api.decide(run, 7, "exclude")
    api.decide(run, 7, "clear")
    at = open_page("Select")
    assert any(e.label == "2 examples decided by people" for e in at.expander)
    (table,) = [t.value for t in at.dataframe if "decision" in t.value]
    found = dict(zip(table["sample_id"], table["decision"], strict=True))
    assert found == {5: "always keep", 6: "never keep"}


def test_no_decision_about_what_is_not_there(run):
    at = open_page("Select", sample="9999")
    assert "There is no example 9999" in messages(at)
    assert not has_button(at, "Always keep")


# -- Select: ranges


@pytest.mark.parametrize("bound", ["nope:0:1", "signal", "signal:a:b", "signal:1:0"])
def test_a_wrong_range_in_the_link(run, bound):
    """What is no range is ignored: the choice is that without it."""
    at = open_page("Select", bound=bound)
    assert_sound(at)
    assert headline(at) == "Keep 30 of 300 examples"
    assert sorted(listed_changes(at)) == sorted(listed_changes(open_page("Select")))
    assert not [slider.key for slider in at.slider if slider.key.startswith("range-")]


def test_a_range_that_holds_nothing_is_told(run):
    """It is no accident either: what to do is said, and the range can be widened again."""
    at = open_page("Select", bound="signal:100:200")
    assert_sound(at)
    assert "nothing is left to choose from: widen the bounds" in messages(at)
    assert "Save this selection" not in everything(at), "there are some, and none to be saved"
    assert "range-signal" in [slider.key for slider in at.slider]


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        ("loss:2.5:3", (2.5, 3.0)),
        pytest.param("signal:0:1", (0.0, 1.0)),
        pytest.param("signal:-1:0", (-1.0, 0.0)),
    ],
)
def test_a_range_in_the_link_stands_on_its_slider(run, bound, expected):
    column = bound.split(":")[0]
    assert open_page("Select", bound=bound).slider(key=f"range-{column}").value == expected


def test_a_range_is_added_moved_and_taken_off(run, pool):
    loss = pool.numbers["loss"]
    at = open_page("Select", budget="50.0")
    at.multiselect(key="limited").set_value(["loss"]).run()
    assert shown_count(at) == 150
    at.slider(key="range-loss").set_value((2.5, 3.0)).run()
    inside = ((loss >= 2.5) & (loss <= 3.0)).sum()
    assert shown_count(at) == min(150, inside)
    assert at.query_params["bound"] in ("loss:2.5:3", ["loss:2.5:3"])
    at.multiselect(key="limited").set_value([]).run()
    assert shown_count(at) == 150


def test_a_column_with_missing_values_can_be_limited(run):
    set_source_columns(run, age=pa.array([None if i < 3 else float(i) for i in range(300)]))
    at = open_page("Select")
    at.multiselect(key="limited").set_value(["age"]).run()
    assert_sound(at)
    assert at.slider(key="range-age").value == pytest.approx((3, 299), rel=1e-3)


# -- Select: export and compare


@pytest.mark.parametrize(
    "kind", ["jsonl", "csv", "parquet", "llamafactory", "trl", "axolotl", "hf"]
)
def test_the_export_holds_as_many_rows_as_shown(run, kind):
    at = choose(open_page("Select"), "Saved selection", "density-50")
    choose(at, "Format", kind)
    assert not downloads(at)
    press(at, "Make the files")
    assert_sound(at)
    assert "150 rows written, loaded back and counted" in messages(at)
    folder = run.exports / "density-50" / kind
    assert FORMATS[kind].count(folder / FORMATS[kind].data_name.format(name="density-50")) == 150
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["rows"] == 150 == len(kept_ids(run, "density-50"))
    (button,) = downloads(at)
    assert button.proto.label == f"Download demo-density-50-{kind}.zip"


def test_the_export_is_the_sources_own_lines(run):
    at = choose(open_page("Select"), "Saved selection", "grads-10")
    press(at, "Make the files")
    lines = (DEMO / "medical_qa.jsonl").read_bytes().splitlines(keepends=True)
    written = (run.exports / "grads-10" / "jsonl" / "grads-10.jsonl").read_bytes()
    assert written == b"".join(lines[i] for i in kept_ids(run, "grads-10"))


def test_the_scores_are_added_where_asked_for(run):
    at = open_page("Select")
    (box,) = [c for c in at.checkbox if "scores" in c.label]
    box.check().run()
    choose(at, "Saved selection", "grads-10")
    choose(at, "Format", "parquet")
    press(at, "Make the files")
    table = pq.read_table(run.exports / "grads-10" / "parquet" / "grads-10.parquet")
    assert {"question", "grads_loss"} <= set(table.column_names)
    assert table["grads_sample_id"].to_pylist() == kept_ids(run, "grads-10")


def test_all_rows_by_weight_are_offered_where_the_selection_gives_weights(run):
    at = choose(open_page("Select"), "Saved selection", "grads-10")
    (box,) = [box for box in at.selectbox if box.label == "Rows"]
    assert len(box.options) == 3
    box.set_value("sample").run()
    press(at, "Make the files")
    assert "300 rows written, loaded back and counted" in messages(at)
    lines = (run.exports / "grads-10" / "jsonl-sample" / "grads-10.jsonl").read_bytes().splitlines()
    assert len(lines) == 300
    assert all("grads_weight" in json.loads(line) for line in lines)
    choose(at, "Rows", "repeat")
    assert not downloads(at)
    (number,) = [one for one in at.number_input if one.label == "Rows in all"]
    assert number.value == 300
    number.set_value(450).run()
    press(at, "Make the files")
    assert "450 rows written, loaded back and counted" in messages(at)
    assert "of 300 rows stand there" in everything(at)
    choose(at, "Format", "trl")  # which has no place for a weight
    (box,) = [box for box in at.selectbox if box.label == "Rows"]
    assert len(box.options) == 2
    assert_sound(at)


def test_no_weights_are_offered_of_a_selection_that_has_none(run):
    api.select_samples(run, "hard", SelectionConfig.parse({"criterion": "loss_high", "count": 5}))
    at = choose(open_page("Select"), "Saved selection", "hard")
    assert not [box for box in at.selectbox if box.label == "Rows"]
    press(at, "Make the files")
    assert "5 rows written" in messages(at)


def test_files_of_other_options_are_not_offered(run):
    at = press(open_page("Select"), "Make the files")
    assert downloads(at)
    (box,) = [c for c in at.checkbox if "scores" in c.label]
    box.check().run()
    assert not downloads(at)


def test_files_of_an_earlier_selection_of_that_name_are_not_offered(run):
    at = save_as(open_page("Select", budget="5.0"), "mine")
    press(at, "Make the files")
    assert "15 rows" in messages(at)
    at.slider(key="budget").set_value(50.0).run()
    press(at, "Save these 150")
    assert "15 rows" not in messages(at)


def test_an_unsaved_choice_is_not_exported(root):
    run = demo_run(root)
    shutil.rmtree(run.selections)
    at = open_page("Select")
    assert "Save a selection first" in everything(at)
    assert not has_button(at, "Make the files")


def test_two_selections_are_compared(run, pool):
    at = open_page("Select", first="grads-10", second="random-50")
    one, two = set(kept_ids(run, "grads-10")), set(kept_ids(run, "random-50"))
    text = everything(at).replace("\\", "")
    assert f"They share **{words.count(len(one & two), 'example')}**" in text
    assert f"{len(one - two)} are only in grads-10, {len(two - one)} only in random-50" in text
    assert (
        "would share about 15; these two were drawn with one seed, which makes them share more."
        in text
    )
    (table,) = [t.value for t in at.dataframe if "mean of" in t.value]
    means = table.set_index("mean of")["grads-10"]
    expected = pool.numbers["loss"][pool.kept("grads-10")].mean()
    assert means[words.label("loss")] == pytest.approx(expected)


def test_only_draws_of_one_seed_share_their_luck(run):
    text = everything(open_page("Select", first="magnitude-10", second="random-50"))
    assert "would share about 15." in text


def test_a_selection_is_compared_with_itself(run):
    at = open_page("Select", first="auto", second="auto")
    assert_sound(at)
    assert not at.error


# -- Data


def drafts(root: Path, purpose: str) -> list[Run]:
    return [Run(path) for path in (root / ".drafts").glob(f"{purpose}-*")]


def test_without_data_the_page_asks_for_them(root):
    at = open_page("Data")
    assert headline(at) == "Which examples do you have?"
    assert [button.key for button in at.button] == ["language-zh"]
    assert "Continue: what will it cost?" not in links(at)
    assert words.literal(str(root)) in everything(at), "where data may lie is said"
    assert drafts(root, "data") == []


def test_data_outside_the_allowed_folders_are_refused(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "secret.jsonl"
    other.write_text('{"question": "hidden words", "answer": "hidden words"}\n')
    at = open_page("Data", dataset=str(other))
    assert_sound(at)
    assert "lies outside the folders this dashboard may read" in messages(at)
    assert "GRADS_DATA_DIRS" in messages(at)
    assert "hidden words" not in everything(at)
    assert drafts(root, "data") == []


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([("better", "worse")], "It learned more than a random subset, and forgot more"),
        ([("no difference seen",) * 2] * 2, "Neither of 2 subsets differs from random ones"),
        ([("no difference seen",) * 2] * 3, "None of 3 subsets differs from random ones"),
        (
            [("better", "no difference seen"), ("worse", "better"), ("worse", "worse")],
            "Of 3 subsets, 1 learned more, 2 learned less, 1 forgot less, 1 forgot more than random"
            " ones",
        ),
    ],
)
def test_the_headline_counts_several_subsets(run, verdicts, expected):
    compared = [
        {"kind": "selection", "against_kind": "random", "seeds": 3, "arm": f"s{i}"}
        | {"learning": learning, "forgetting": forgetting}
        for i, (learning, forgetting) in enumerate(verdicts)
    ]
    assert verdict.sentence(found_with(run, compared)) == expected


def found_with(run, compared):
    """The demo's evaluation as if these were its comparisons, other fields as they were."""
    found = api.read_evaluation(run, "tenth")
    pair = found.result.comparisons[0]
    result = found.result.model_copy(
        update={"comparisons": [pair.model_copy(update=values) for values in compared]}
    )
    return dataclasses.replace(found, result=result)


def test_one_subset_with_its_longer_twin_is_one_subset(run):
    """A selection trained as long as everything is no further subset."""
    compared = [
        {"kind": kind, "against_kind": kind.replace("selection", "random"), "seeds": 3, "arm": kind}
        | {"learning": "worse", "forgetting": "no difference seen"}
        for kind in ("selection", "selection_steps")
    ]
    assert verdict.sentence(found_with(run, compared)) == "It learned less than a random subset"


def several(run, copies=4):
    """The demo's evaluation as if it had tested more subsets, each with what `tenth` got."""
    file = run.evaluations / "tenth" / "result.json"
    result = json.loads(file.read_text())
    answers = json.loads(file.with_name("answers.json").read_text())
    tenth = next(arm for arm in result["arms"] if arm["kind"] == "selection")
    pair = next(c for c in result["comparisons"] if c["against_kind"] == "random")
    for i in range(copies):
        label = f"other-{i}"
        result["arms"].append(tenth | {"label": label})
        result["comparisons"].append(pair | {"arm": label, "learning": "worse"})
        result["break_even"][label] = {"trainings": 2.0, "sentence": "it pays after two"}
        for prompt in answers["prompts"]:
            prompt["answers"][label] = f"said by {label}"
    file.write_text(json.dumps(result))
    file.with_name("answers.json").write_text(json.dumps(answers))


def test_many_subsets_are_counted_pictured_and_folded(run):
    several(run)
    at = open_page("Evaluate", run="demo")
    assert_sound(at)
    assert headline(at).endswith("of what all gain; of 6 subsets, 4 learned less than random ones")
    assert "#### full learned most and forgot least, on average" in everything(at)
    found = "At the same size: of 6 subsets, 4 learned less than random ones"
    assert found in [box.label for box in at.expander]
    folded = {box.label: [line.value for line in box.markdown] for box in at.expander}
    assert len(folded["Each in a sentence"]) == len(folded["When it pays"]) == 6
    assert folded["When it pays"][-1] == "- " + words.literal("other-3: it pays after two.")
    (shown,) = [box for box in at.multiselect if box.label == "Answers of"]
    assert len(shown.value) == verdict.ANSWERS
    assert "said by other-3" not in everything(at)
    at = shown.set_value(["other-3"]).run()
    assert "said by other-3" in everything(at)
    assert_sound(at)


def measured_at(share, criterion, gain):
    """A point of the curve over sizes."""
    learned, forgotten = 4.0 - gain, 0.1 * gain
    return {
        "criterion": criterion,
        "budget": share,
        "arm": f"{criterion}-{share}",
        "samples": 3 * int(share),
        "learning": learned,
        "learning_interval": [learned - 0.1, learned + 0.1],
        "forgetting": forgotten,
        "forgetting_interval": None,
        "gain": gain,
    }


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ((0.5, 0.92, 0.95), "10% by grads gain 92% of what all gain"),
        ((0.5, 0.7, 0.8), "At most 80% of what all gain was reached, at 25% by grads"),
    ],
)
def test_of_several_sizes_the_decision_and_the_curve_are_open(run, gains, said):
    file = run.evaluations / "tenth" / "result.json"
    result = json.loads(file.read_text())
    points = zip((5.0, 10.0, 25.0), gains, strict=True)
    result["curve"] = [measured_at(share, "grads", gain) for share, gain in points]
    result["curve"].append(measured_at(100.0, "everything", 1.0))
    file.write_text(json.dumps(result))
    at = open_page("Evaluate", run="demo")
    assert f"#### How much is enough? {said}" in everything(at)
    folded = {box.label for box in at.expander if not box.proto.expanded}
    assert len(folded) == len(at.expander), "nothing stands open but the decision and the curve"
    assert "full learned most and forgot least, on average" in folded


def test_several_files_are_shown_one_by_one(run):
    """Each with its own table and its own verdict, of learning or of forgetting."""
    file = run.evaluations / "tenth" / "result.json"
    result = json.loads(file.read_text())
    assert "File by file" not in everything(open_page("Evaluate", run="demo"))
    pair = next(c for c in result["comparisons"] if c["against_kind"] == "random")
    result["by_file"] = [
        {
            "probe": probe,
            "name": name,
            "arms": [
                {"label": arm["label"], "mean": {f"{probe}_loss": 1.25}, "interval": {}}
                for arm in result["arms"]
            ],
            "comparisons": [pair | {"verdict": verdict}],
        }
        for probe, name, verdict in (
            ("heldout", "a_b_.jsonl", "better"),
            ("general", "a_b_.jsonl", "worse"),
        )
    ]
    file.write_text(json.dumps(result))
    at = open_page("Evaluate", run="demo")
    assert_sound(at)
    assert [tab.label for tab in at.tabs] == [words.literal("a_b_.jsonl")] * 2
    told = everything(at).replace("\\", "")
    assert f"{pair['arm']} against random, learning: better" in told
    assert f"{pair['arm']} against random, forgetting: worse" in told
    (shown,) = [t.value for t in at.dataframe if list(t.value.columns) == ["arm", "Held-out loss"]]
    assert shown["Held-out loss"].unique().tolist() == ["1.250"]


def test_tasks_stand_in_the_table_with_what_they_say(run):
    file = run.evaluations / "tenth" / "result.json"
    result = json.loads(file.read_text())
    key = "task:heart:acc"
    told = {"task": "heart", "metric": "acc", "higher_is_better": True, "samples": 6}
    result["tasks"] = [told | {"key": key}]
    for arm in result["arms"]:
        arm["mean"][key], arm["interval"][key] = 0.5, [0.25, 0.75]
    file.write_text(json.dumps(result))
    at = open_page("Evaluate", run="demo")
    assert_sound(at)
    (table,) = [t.value for t in at.dataframe if "heart acc" in t.value.columns]
    assert set(table["heart acc"]) == {"0.500 ± 0.250"}


@pytest.fixture
def started(monkeypatch):
    """Settings of the evaluations that a page wants to start."""
    wanted = []

    def start(run, name, config):
        wanted.append(config)
        return Evaluation.open(run, "tenth")

    monkeypatch.setattr(api, "start_evaluation", start)
    return wanted


def fill(at, label, value):
    boxes = [box for box in (*at.text_input, *at.multiselect) if box.label == label]
    boxes[0].set_value(value)
    return at


def test_several_sizes_and_general_rows_can_be_asked_for(run, started):
    """The form's curve of budgets, with replay and tasks, as the command line has them."""
    at = open_page("Evaluate", run="demo")
    at.session_state["Test a selection"] = True
    at.session_state["way"] = "sizes"
    at.run()
    general = "assets/demo/general.jsonl"
    fill(at, "Held-out examples", "assets/demo/medical_qa_heldout.jsonl")
    fill(at, "Sizes, in percent of the pool", "5, 20")
    fill(at, "Criteria", ["grads", "magnitude"])
    fill(at, "General rows to mix in", general)
    fill(at, "Their share of what is trained on, in percent", "10")
    at.run()
    assert_sound(at)
    press(at, "Start the evaluation")
    (config,) = started
    assert config.budgets == (5.0, 20.0)
    assert config.criteria == ("grads", "magnitude")
    assert config.replay.endswith(general)
    assert config.replay_share == (0.1,)
    fill(at, "Their share of what is trained on, in percent", "a lot").run()
    assert "replay_share" in messages(at)
    assert not has_button(at, "Start the evaluation")


def test_tasks_that_are_not_there_are_named(run, started):
    at = open_page("Evaluate", run="demo")
    at.session_state["Test a selection"] = True
    at.run()
    fill(at, "Held-out examples", "assets/demo/medical_qa_heldout.jsonl")
    fill(at, "Tasks of lm-evaluation-harness", "no_such_task").run()
    assert "no_such_task" in messages(at)
    assert not has_button(at, "Start the evaluation")


def test_a_running_evaluation_shows_what_it_has_found_and_a_failed_one_its_log(run):
    evaluation = Evaluation.open(run, "tenth")
    result = json.loads(evaluation.result_file.read_text())
    evaluation.result_file.write_text(json.dumps(result | {"finished": False}))
    set_state(evaluation, "running")
    at = open_page("Evaluate", run="demo")
    assert headline(at) == "Measuring whether it helped"
    assert len(at.dataframe) == 1
    assert has_button(at, "Stop")
    set_state(evaluation, "failed")
    evaluation.log_file.write_text("the last words\n")
    at = open_page("Evaluate", run="demo")
    assert_sound(at)
    assert headline(at) == "The measurement has failed"
    assert any("the last words" in block.value for block in at.code)
    assert has_button(at, "Resume")


def test_the_demo_can_be_evaluated_as_it_is(run):
    """Its run sets none aside: the file that lies beside its data is there at first."""
    assert not run.read_manifest().counts.heldout
    at = open_page("Evaluate", run="demo")
    for title in ("Test a selection", "Find a setting"):
        at.session_state[title] = True
    at.run()
    assert_sound(at)
    held = [box.value for box in at.text_input if box.label == "Held-out examples"]
    assert held == ["assets/demo/medical_qa_heldout.jsonl"] * 2
    assert has_button(at, "Start the evaluation")
    assert has_button(at, "Start the search")


def test_the_demos_file_is_not_offered_to_a_run_of_other_data(run):
    assert api.demo_heldout(run)
    rewritten = run.config_values() | {"dataset": "mine/medical_qa.jsonl"}
    run.config_file.write_text(json.dumps(rewritten))
    assert api.demo_heldout(run) is None


def test_nothing_can_be_started_without_samples_to_measure_on(run):
    """What to do is said in the words of the page."""
    at = open_page("Evaluate", run="demo")
    assert not has_button(at, "Start the")
    for title in ("Test a selection", "Find a setting"):
        at.session_state[title] = True
    at.run()
    for box in [box for box in at.text_input if box.label == "Held-out examples"]:
        box.set_value("")
    at.run()
    assert "give a file with “heldout”" in messages(at)
    assert not has_button(at, "Start the")
    held = [box for box in at.text_input if box.label == "Held-out examples"]
    for box in held:
        box.set_value("no/such/file.jsonl")
    at.run()
    assert "no/such/file.jsonl: check the path" in messages(at)
    for box in [box for box in at.text_input if box.label == "Held-out examples"]:
        box.set_value("assets/demo/medical_qa_heldout.jsonl; assets/demo/general.jsonl")
    at.run()
    assert_sound(at)
    assert has_button(at, "Start the evaluation")
    assert has_button(at, "Start the search")


@pytest.mark.parametrize("page", ["Explore", "Select"])
def test_a_person_decides_wherever_an_example_is_open(root, page):
    """Without any saved selection too; the open example goes along to the other pages."""
    run = demo_run(root)
    shutil.rmtree(run.selections)
    shutil.rmtree(run.evaluations)
    at = open_page(page, run="demo")
    (row,) = [box for box in at.number_input if box.label == "Open row"]
    at = row.set_value(7).run()
    assert at.query_params["sample"] == "7"
    at = press(at, "Never keep")
    assert_sound(at)
    assert api.decisions(run)[7].decision == "exclude"
    (explore,) = [link for link in at.get("page_link") if link.proto.label == "Start"]
    assert "sample=7" in explore.proto.query_string
    at = press(at, "Undo")
    assert api.decisions(run) == {}


def test_a_brushed_range_is_seen_on_select_and_taken_off(run):
    at = open_page("Select", bound="loss:2:3")
    (chip,) = [b for b in at.button if b.key == "drop-bound-loss"]
    assert words.label("loss").split()[0] in chip.label
    at = chip.click().run()
    assert "bound" not in at.query_params
    assert at.multiselect(key="limited").value == []


def test_all_that_is_filtered_is_decided_about_and_taken_back(run, pool):
    """At once, with one reason; undo leaves what had been decided before."""
    found = pool.scores.sample_id[pool.matching(Filter(text="insulin"))].tolist()
    assert 2 < len(found) < 50
    api.decide(run, found[0], "pin", "a rare case", reviewer="Ada")
    at = open_page("Explore", search="insulin")
    at.text_input(key="bulk-reason").set_value("outdated")
    at = press(at, "Exclude all of them")
    assert f"{len(found)} examples will be never kept" in messages(at)
    made = api.decisions(run)
    assert {sample: one.decision for sample, one in made.items()} == dict.fromkeys(found, "exclude")
    assert {one.reason for one in made.values()} == {"outdated"}
    at.button(key="bulk-undo").click().run()
    assert_sound(at)
    (left,) = api.decisions(run).values()
    assert (left.sample_id, left.decision, left.reason) == (found[0], "pin", "a rare case")
    assert "will be never kept" not in messages(at)


@pytest.mark.parametrize(
    ("link", "wanted"),
    [
        ({"search": "insulin"}, Filter(text="insulin")),
        ({"topics": ["0", "2"]}, Filter(clusters=(0, 2))),
        ({"within": "signal:0:1"}, Filter(bounds=(Bound(column="signal", low=0, high=1),))),
    ],
    ids=str,
)
def test_all_that_is_filtered_is_saved_as_a_selection_without_what_people_veto(
    run, pool, link, wanted
):
    found = pool.scores.sample_id[pool.matching(wanted)].tolist()
    api.decide(run, found[1], "exclude")
    at = open_page("Explore", **link)
    at.text_input(key="bulk-name").set_value("mine").run()
    press(at, "Save these")
    assert kept_ids(run, "mine") == [sample for sample in found if sample != found[1]]


@pytest.mark.parametrize(("page", "key"), [("Select", "name"), ("Explore", "bulk-name")])
def test_a_page_says_before_it_replaces_a_selection(run, page, key):
    at = open_page(page, run="demo")
    at.text_input(key=key).set_value("new").run()
    assert "would be replaced" not in everything(at)
    at.text_input(key=key).set_value("grads-10").run()
    assert "grads\\-10 is saved already and would be replaced." in everything(at)


def test_what_fails_in_a_callback_goes_to_the_log(root, monkeypatch):
    """Streamlit itself catches it, before any page: the trace is kept, and none is shown."""
    demo_run(root, "finished")
    at = open_page("Explore", within="signal:0:1")

    def fail():
        raise ZeroDivisionError("in a callback")

    monkeypatch.setattr(filters, "clear", fail)
    at.run()
    press(at, "Show everything")
    log = frame.log_file().read_text(encoding="utf-8")
    assert log.count("ZeroDivisionError: in a callback") == 1
    assert "Traceback" in log
    assert "Traceback" not in everything(at)


def test_a_model_outside_the_allowed_folders_is_refused(root):
    chain.write_data(root / "data.jsonl")
    at = open_page("Data", dataset=str(root / "data.jsonl"), model="/etc")
    assert_sound(at)
    assert "/etc lies outside the folders this dashboard may read" in messages(at)
    assert drafts(root, "data") == []


@pytest.mark.job
def test_a_broken_file_names_the_line(root):
    """Also where it holds nothing else, which is an error: the refused rows are shown still."""
    (root / "a.jsonl").write_text('\n{"question": \n')
    open_page("Data", dataset=str(root / "a.jsonl"))
    (draft,) = drafts(root, "data")
    assert chain.wait_for(draft, "failed", "finished").state == "failed"
    at = open_page("Data", dataset=str(root / "a.jsonl"))
    assert headline(at) == "This data cannot be used yet"
    assert "none of the 1 rows of a.jsonl can be used; row 1 (line 2): it ends" in messages(at)
    (table,) = [t.value for t in at.dataframe]
    assert (table["row"].tolist(), table["line"].tolist()) == ([1], [2])


@pytest.mark.job
def test_a_folder_of_files_is_read_anew_when_one_has_changed(root, tiny_link):
    """Its columns can be mapped, and rows are named with their file."""
    folder = root / "parts"
    folder.mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        chain.write_data(folder / name, 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADS_DATA_DIRS", os.pathsep.join([str(root), tiny_link["model"]]))
        link = tiny_link | {"dataset": str(folder), "heldout": "0"}
        at = open_page("Data", **link)
        boxes = [box for box in at.selectbox if box.label == "Question column"]
        assert all("age" in box.options for box in boxes)
        assert boxes
        (draft,) = drafts(root, "data")
        assert chain.wait_for(draft, "finished", "failed").state == "finished"
        at = open_page("Data", **link)
        assert headline(at) == "36 of 40 rows can be used, 4 cannot"
        (table,) = [t.value for t in at.dataframe]
        places = table[["row", "line", "file"]].to_numpy().tolist()
        assert places[1:3] == [[8, 9, "a.jsonl"], [23, 4, "b.jsonl"]]
        chain.write_data(folder / "c.jsonl", 20)
        assert headline(open_page("Data", **link)) == "Reading your data"


def test_a_link_out_of_the_allowed_folders_is_refused_in_a_folder_too(root, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "secret.jsonl"
    other.write_text('{"question": "hidden words", "answer": "hidden words"}\n')
    (root / "folder").mkdir()
    (root / "folder" / "a.jsonl").symlink_to(other)
    for place in (root / "folder", root / "folder" / "*.jsonl", root / "no" / ".." / ".." / "*"):
        at = open_page("Data", dataset=str(place))
        assert "lies outside the folders this dashboard may read" in messages(at), place
        assert "hidden words" not in everything(at)
    assert drafts(root, "data") == []


def test_no_file_is_told_at_once(root):
    at = open_page("Data", dataset=str(root / "no.jsonl"))
    assert headline(at) == "This data cannot be used yet"
    assert "no.jsonl: check the path" in messages(at)
    assert drafts(root, "data") == []


def test_refused_data_have_a_headline(root):
    assert headline(open_page("Data", dataset="/etc/passwd"))


def test_who_rates_is_who_decides(run):
    """A name is given once in a session."""
    at = open_page("Evaluate", run="demo")
    at.session_state["rate"] = True
    at.session_state["reviewer"] = "Dr Ada"
    at.run()
    (name,) = [box for box in at.text_input if box.label == "Your name (optional)"]
    assert name.value == "Dr Ada"


@pytest.mark.parametrize(("rows", "shown"), [(500, 500), (501, 500)])
def test_of_many_refused_rows_it_is_said_how_many_are_shown(rows, shown):
    def page(rows):
        from studio import intake

        intake.refused([{"sample_id": i, "reason": "empty", "advice": "fill"} for i in range(rows)])

    at = AppTest.from_function(page, default_timeout=run_dirs.PATIENCE, args=(rows,)).run()
    assert len(at.dataframe[0].value) == shown
    said = [line.value for line in at.caption]
    assert said == (["The first 500 of 501 rows; the download holds all."] if rows > 500 else [])


def test_the_percent_beside_a_stage_is_of_that_stage_whatever_is_known_of_the_end(run):
    def page(path, name):
        import streamlit as st

        from grads.api import Evaluation, Run, Status
        from studio import job

        for left in (None, 1e6):
            status = Status(state="running", stage="score", done=4, total=10, left_s=left)
            st.text(job.progress(Evaluation.open(Run.open(path), name), status))

    name = run.evaluation_names()[0]
    patience = run_dirs.PATIENCE
    at = AppTest.from_function(page, args=(str(run.path), name), default_timeout=patience).run()
    assert [line.value for line in at.text] == ["40% · Score every sample"] * 2


@pytest.mark.job
def test_data_are_checked_and_shown(root, tiny_link):
    """The real job: its counts, refused rows and preview; a second look starts nothing."""
    at = open_page("Data", **tiny_link)
    assert headline(at) == "Reading your data"
    (draft,) = drafts(root, "data")
    assert chain.wait_for(draft, "finished", "failed").state == "finished"
    began = draft.read_status().process_started
    at = open_page("Data", **tiny_link)
    assert headline(at) == "58 of 60 rows can be used, 2 cannot"
    metrics = {metric.label: metric.value for metric in at.metric}
    samples = pq.read_table(draft.samples_file)
    pool = samples.filter(pc.invert(samples["heldout"]))
    assert metrics["Examples to choose from"] == "53"
    assert metrics["Set aside for evaluation"] == "5"
    assert metrics["Tokens to learn"] == f"{pc.sum(pool['response_tokens']).as_py():,}"
    (table,) = [t.value for t in at.dataframe]
    assert table["row"].tolist() == [3, 8]
    assert table["line"].tolist() == [4, 9]
    assert table["advice"].str.len().min() > 0
    bodies = "".join(b.proto.body for b in at.get("html"))
    assert 'class="turn assistant"' in bodies
    assert 'class="learned"' in bodies
    assert "Continue: what will it cost?" in links(at)
    assert draft.read_status().process_started == began, "checked once"
    assert list_runs(root) == [], "no run was made"


@pytest.mark.job
def test_data_of_no_known_layout_are_mapped_by_hand(root, tiny_link):
    """What is wrong, the first rows, and the boxes to map by stand open; then the data are read."""
    (root / "odd.jsonl").write_text('{"alpha": "Why?", "beta": "So."}\n' * 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADS_DATA_DIRS", os.pathsep.join([str(root), tiny_link["model"]]))
        link = tiny_link | {"dataset": str(root / "odd.jsonl"), "heldout": "0"}
        at = open_page("Data", **link)
        assert headline(at) == "This data cannot be used yet"
        assert "alpha" in messages(at)
        assert "map them by" in messages(at)
        (table,) = [t.value for t in at.dataframe]
        assert table.to_dict("records") == [{"alpha": "Why?", "beta": "So."}] * 3
        assert [e.proto.expanded for e in at.expander if "Columns" in e.label] == [True]
        assert drafts(root, "data") == []
        at = choose(at, "Question column", "alpha")
        assert [e.proto.expanded for e in at.expander if "Columns" in e.label] == [True]
        assert "map either messages" in messages(at), "half a mapping says what is missing"
        at = choose(at, "Answer column", "beta")
        assert headline(at) == "Reading your data"
        (draft,) = drafts(root, "data")
        assert chain.wait_for(draft, "finished", "failed").state == "finished"


@pytest.mark.job
def test_what_was_killed_is_not_tried_again_by_itself(root, tiny_link):
    """A look at data that its memory has killed would be killed at every drawing."""
    open_page("Data", **tiny_link)
    (draft,) = drafts(root, "data")
    chain.wait_for(draft, "finished", "failed")
    now = draft.read_status()
    now.state, now.pid = "running", dead_pid()
    draft.write_status(now)
    shutil.rmtree(draft.path / "scores", ignore_errors=True)
    for _ in range(2):
        at = open_page("Data", **tiny_link)
        assert headline(at) == "This data cannot be used yet"
        assert draft.read_status().pid == now.pid, "nothing was started"
    press(at, "Try again")
    assert chain.wait_for(draft, "finished", "failed").state == "finished"


@pytest.mark.job
def test_other_settings_give_up_the_look_before(root, tiny_link):
    """One page looks at one data set: what nobody sees any more ends."""
    at = open_page("Data", **tiny_link)
    (first,) = drafts(root, "data")
    (box,) = [one for one in at.number_input if one.label.startswith("Longest")]
    box.set_value(32).run()
    assert chain.wait_for(first, "stopped", "finished").state in ("stopped", "finished")
    (second,) = [draft for draft in drafts(root, "data") if draft.path != first.path]
    assert chain.wait_for(second, "finished", "failed").state == "finished"


# -- Run: a real one


@pytest.mark.job
def test_a_run_is_measured_started_once_and_stopped(root, new_link):
    """Estimate, Start, a second start of the same, Stop: by the page's own buttons."""
    link = new_link | {"epochs": "500", "batch_size": "4"}
    at = press(open_page("Run", **link), "Estimate")
    (draft,) = drafts(root, "cost")
    assert chain.wait_for(draft, "finished", "failed").state == "finished"
    at = open_page("Run", **link)
    assert "of memory and" in everything(at)
    assert "for 53 examples" in everything(at)
    press(at, "Start")
    assert_sound(at)
    (run,) = list_runs(root)
    try:
        assert headline(at) == "This run is at work"
        assert api.start_new(run.config()).path == run.path, "a double start finds the first"
        press(open_page("Run", **link), "Start")
        assert [r.path for r in list_runs(root)] == [run.path]
        assert run.read_estimate() == draft.read_estimate()
        chain.wait_for(run, "running")

        def warming_up():
            status = jobs.observe(run)
            return status.stage == "warm-up" and status.done

        chain.until(warming_up, "a step of the warm-up", during=lambda: chain.at_work(run))
        at = open_page("Run", run=run.id)
        (bar,) = at.get("progress")
        assert bar.proto.text.startswith("Warm up the model")
        press(at, "Stop")
    finally:
        if jobs.observe(run).state in ACTIVE:
            api.stop_run(run)
    assert jobs.observe(run).state == "stopped"
    assert "is stopped" in headline(at)
    assert has_button(at, "Resume")


# -- structure


PAGE_FILES = [ROOT / "app.py", *sorted((ROOT / "pages").glob("*.py"))]
FORBIDDEN = {"torch", "transformers", "peft", "datasets", "sklearn", "scipy", "plotly"}
ENGINE_FORBIDDEN = {"grads.engine", "grads.stages", "grads.bench", "grads.data", "grads.export"}


@pytest.mark.parametrize("path", PAGE_FILES, ids=lambda path: path.stem)
def test_pages_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 135


@pytest.mark.parametrize("path", PAGE_FILES, ids=lambda path: path.stem)
def test_pages_hold_no_logic(path):
    """They import widgets, the facade and figures, never what computes."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {node.module or ""} | {f"{node.module}.{a.name}" for a in node.names}
    assert not {name.split(".")[0] for name in imported} & FORBIDDEN
    assert not imported & ENGINE_FORBIDDEN


def test_every_page_is_known_to_the_tests():
    assert {path.stem for path in PAGE_FILES} == {"app", *run_dirs.PAGES[1:]}
