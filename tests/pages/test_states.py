"""Every page in every state of a run, as AppTest draws it."""

import shutil
import time
from pathlib import Path

import psutil
import pytest
from run_dirs import (
    ERROR,
    PAGES,
    STATES,
    assert_sound,
    demo_run,
    everything,
    has_button,
    headline,
    headlines,
    links,
    messages,
    open_page,
    press,
    run_in,
    set_state,
)

from grads import api
from grads.store.folders import Evaluation
from grads.store.runs import ACTIVE, Run
from studio import frame, words

SCORED = ("finished", "clustering")  # the examples are scored


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
