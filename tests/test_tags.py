"""Tags: put on one sample or on many, found again by them, and taken back."""

import json

import pytest
from run_dirs import assert_sound, demo_run, everything, grads, messages, open_page, press

from grads import api
from grads.api import Filter, QueueConfig
from grads.errors import ConfigError, RunError, SelectionError


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    return demo_run(tmp_path)


def has(run):
    return {name: ids.tolist() for name, ids in api.tags(run).items()}


# -- the engine


def test_a_sample_may_have_several_tags_and_a_tag_several_samples(run):
    assert has(run) == {}
    assert api.tag(run, " to  check ", [7, 3, 7], reviewer=" Ada ") == [3, 7]
    assert api.tag(run, "rare", [7]) == [7]
    assert api.tag(run, "rare", [7, 8]) == [8], "only what changes is noted"
    assert api.tag(run, "rare", [7, 9], off=True) == [7]
    assert has(run) == {"rare": [8], "to check": [3, 7]}
    assert api.tags_of(run, 7) == ["to check"]
    api.tag(run, "rare", [8], off=True)
    assert has(run) == {"to check": [3, 7]}, "what no sample has is no tag"
    lines = [json.loads(line) for line in run.tags_file.read_text().splitlines()]
    assert [(one["tag"], one["sample_ids"], one["off"]) for one in lines] == [
        ("to check", [3, 7], False),
        ("rare", [7], False),
        ("rare", [8], False),
        ("rare", [7], True),
        ("rare", [8], True),
    ]
    assert lines[0]["reviewer"] == "Ada"
    assert lines[0]["time"].endswith("+00:00")


def test_a_tag_keeps_and_excludes_nothing(run):
    before = api.select_samples(run, "before", api.SelectionConfig(ratio=0.1))
    api.tag(run, "rare", range(20))
    after = api.select_samples(run, "after", api.SelectionConfig(ratio=0.1))
    assert api.load_pool(run).kept("before").tolist() == api.load_pool(run).kept("after").tolist()
    assert before.options == after.options
    assert not api.stale(run, "before")


@pytest.mark.parametrize("name", ["", "  ", "a" * 61, "a\x1b[31mb", "a\u202eb", "\x00"])
def test_a_name_that_cannot_be_one_is_refused(run, name):
    with pytest.raises(RunError, match="a tag has 1 to 60 characters"):
        api.tag(run, name, [3])
    assert not run.tags_file.exists()


def test_samples_that_the_run_has_not_are_refused_and_none_is_tagged(run):
    with pytest.raises(RunError, match="no sample 99999"):
        api.tag(run, "rare", [3, 99_999])
    assert not run.tags_file.exists()
    samples = run.read_table(run.samples_file, ["sample_id", "heldout"]).to_pylist()
    aside = [one["sample_id"] for one in samples if one["heldout"]]
    for sample in aside[:1]:
        with pytest.raises(RunError, match="is held out"):
            api.tag(run, "rare", [sample])


def test_a_line_that_was_broken_off_is_told_and_passed_over(run):
    api.tag(run, "rare", [3])
    with run.tags_file.open("ab") as file:
        file.write(b'{"tag": "rare", "sample')
    api.tag(run, "odd", [4])
    assert has(run) == {"odd": [4], "rare": [3]}
    shown = grads("tags", "--run-dir", run.path)
    assert "line 2 of tags.jsonl was broken off" in shown.output + shown.stderr
    assert "A tag was broken off while it was written (line 2" in messages(
        open_page("Select", run="demo")
    )


def test_an_emptied_file_is_refused_rather_than_taken_for_none(run):
    run.tags_file.touch()
    done = grads("tags", "--run-dir", run.path)
    assert "is empty, so what was tagged is lost" in str(done.exception)


def test_a_line_of_another_kind_is_named(run):
    run.tags_file.write_text('{"tag": "rare", "sample_ids": "all"}\n')
    with pytest.raises(RunError, match=r"tags.jsonl cannot be read: .*sample_ids"):
        api.tags(run)


# -- the commands


def test_the_commands_tag_list_and_take_off(run):
    done = grads("tag", "rare", "--run-dir", run.path, "--sample", 3, "--sample", 7)
    assert done.output.splitlines() == ["rare (2): 3, 7"]
    done = grads("tag", "rare", "--run-dir", run.path, "--sample", 7, "--remove", "--json")
    assert json.loads(done.output) == {"changed": [7], "tags": {"rare": [3]}}
    assert json.loads(grads("tags", "--run-dir", run.path, "--json").output) == {
        "tags": {"rare": [3]}
    }
    grads("tag", "rare", "--run-dir", run.path, "--sample", 3, "--remove")
    assert grads("tags", "--run-dir", run.path).output == "nobody has tagged anything\n"


# -- found again


def test_a_tag_filters_and_makes_a_queue(run):
    api.tag(run, "rare", [3, 7, 9])
    api.tag(run, "odd", [9, 11])
    pool = api.load_pool(run)
    ids = pool.scores.sample_id
    assert ids[pool.matching(Filter(tags=("rare",)))].tolist() == [3, 7, 9]
    assert ids[pool.matching(Filter(tags=("odd", "rare")))].tolist() == [3, 7, 9, 11]
    assert not pool.matching(Filter(tags=("unknown",))).any()
    entries = api.review_queue(run, QueueConfig(kind="tag", tag="rare"))
    assert sorted(entries) == [(3,), (7,), (9,)]
    with pytest.raises(SelectionError, match="no sample has the tag 'new': there are odd, rare"):
        api.review_queue(run, QueueConfig(kind="tag", tag="new"))
    with pytest.raises(ConfigError, match="give --tag"):
        QueueConfig.parse({"kind": "tag"})


def test_a_packet_holds_what_is_tagged(run, tmp_path):
    api.tag(run, "to <check>", [3, 7])
    out = tmp_path / "packet.html"
    done = grads(
        *("packet", "--run-dir", run.path, "--queue", "tag", "--tag", "to <check>", "--out", out)
    )
    assert "wrote a packet of 2" in done.output
    assert r"tagged to \u003ccheck\u003e" in out.read_text()
    assert "<check>" not in out.read_text()


# -- the pages


def test_all_that_is_shown_is_tagged_at_once_and_that_is_taken_back(run):
    """Those that had the tag before keep it."""
    pool = api.load_pool(run)
    found = pool.scores.sample_id[pool.matching(Filter(text="insulin"))].tolist()
    api.tag(run, "rare", found[:1])
    at = open_page("Explore", search="insulin")
    at.selectbox(key="bulk-tag").set_value("rare").run()
    at = press(at, "Tag all of them")
    assert f"{len(found) - 1} examples got the tag rare." in messages(at)
    assert has(run) == {"rare": found}
    at.button(key="bulk-undo").click().run()
    assert_sound(at)
    assert has(run) == {"rare": found[:1]}
    at.selectbox(key="bulk-tag").set_value("rare").run()
    at = press(at, "Take the tag off all of them")
    assert "1 example lost the tag rare." in messages(at)
    assert has(run) == {}
    at.button(key="bulk-undo").click().run()
    assert has(run) == {"rare": found[:1]}


def test_a_link_filters_by_tags_and_the_list_names_them(run):
    assert not [box for box in open_page("Explore", run="demo").multiselect if box.label == "Tags"]
    api.tag(run, "rare", [3, 7])
    api.tag(run, "odd", [7])
    at = open_page("Explore", run="demo", tagged=["rare", "gone"])
    assert at.multiselect(key="tagged").value == ["rare"]
    (table,) = [one.value for one in at.dataframe if "tags" in one.value]
    assert dict(zip(table["row"], table["tags"], strict=True)) == {3: "rare", 7: "odd, rare"}
    at = open_page("Select", run="demo", tagged="odd", show="shown")
    (table,) = [one.value for one in at.dataframe if "tags" in one.value]
    assert table["row"].tolist() == [7]


@pytest.mark.parametrize("page", ["Explore", "Select", "Review"])
def test_the_open_example_gets_and_loses_tags(run, page):
    api.tag(run, "rare", [3])
    api.tag(run, "odd", [7])
    link = {"queue": "tag", "tag": "odd"} if page == "Review" else {"sample": "7"}
    at = open_page(page, run="demo", **link)
    if page == "Review":
        at = at.text_input(key="reviewer").set_value("Ada").run()
    box = at.multiselect(key="tags-7")
    assert (box.value, box.options) == (["odd"], ["odd", "rare"])
    at = box.set_value(["odd", "rare"]).run()
    assert_sound(at)
    assert api.tags_of(run, 7) == ["odd", "rare"]
    at = at.multiselect(key="tags-7").set_value(["odd"]).run()
    assert api.tags_of(run, 7) == ["odd"]
    api.tag(run, "rare", [7])  # elsewhere, meanwhile
    assert at.run().multiselect(key="tags-7").value == ["odd", "rare"]


def test_a_tag_that_cannot_be_kept_is_said_and_not_shown(run):
    at = open_page("Explore", run="demo", sample="7")
    run.tags_file.touch()
    assert "is empty, so what was tagged is lost" in everything(at.run())
