"""The page Data: which data are read, what is refused, how columns are mapped."""

import os
import shutil

import chain
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import run_dirs
from run_dirs import (
    assert_sound,
    choose,
    dead_pid,
    drafts,
    everything,
    headline,
    links,
    messages,
    open_page,
    press,
)
from streamlit.testing.v1 import AppTest

from grads.store.runs import list_runs
from studio import words


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


@pytest.mark.parametrize(("rows", "shown"), [(500, 500), (501, 500)])
def test_of_many_refused_rows_it_is_said_how_many_are_shown(rows, shown):
    def page(rows):
        from studio import intake

        intake.refused([{"sample_id": i, "reason": "empty", "advice": "fill"} for i in range(rows)])

    at = AppTest.from_function(page, default_timeout=run_dirs.PATIENCE, args=(rows,)).run()
    assert len(at.dataframe[0].value) == shown
    said = [line.value for line in at.caption]
    assert said == (["The first 500 of 501 rows; the download holds all."] if rows > 500 else [])


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
