"""What people decide on the pages: pins, vetoes, ranges taken out, and what comes of them."""

import json
import os
import shutil

import numpy as np
import pytest
from run_dirs import (
    assert_sound,
    demo_run,
    everything,
    has_button,
    headline,
    kept_ids,
    messages,
    open_page,
    press,
    save_as,
    shown_count,
)
from typer.testing import CliRunner

from grads import api
from grads.__main__ import app
from grads.selection.filters import Filter
from grads.selection.options import Bound, SelectionConfig
from studio import filters, frame, words


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
