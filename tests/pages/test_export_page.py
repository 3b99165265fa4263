"""The page Select: what is exported, and how selections are compared."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from run_dirs import (
    DEMO,
    assert_sound,
    choose,
    demo_run,
    downloads,
    everything,
    has_button,
    kept_ids,
    messages,
    open_page,
    press,
    save_as,
)

from grads import api
from grads.export.write import FORMATS
from grads.selection.options import SelectionConfig
from studio import words


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


def test_general_rows_are_mixed_in_where_a_file_is_named(run):
    at = choose(open_page("Select"), "Saved selection", "grads-10")
    (field,) = [one for one in at.text_input if one.label == "General rows to mix in"]
    assert not [one for one in at.number_input if one.label.startswith("Their share of all")]
    field.set_value(str(DEMO / "general.jsonl")).run()
    (share,) = [one for one in at.number_input if one.label.startswith("Their share of all")]
    share.set_value(25).run()
    press(at, "Make the files")
    assert_sound(at)
    assert "40 rows written, loaded back and counted" in messages(at)
    manifest = json.loads((run.exports / "grads-10/jsonl-replay/manifest.json").read_text())
    assert (manifest["replay"]["share"], manifest["replay"]["rows"]) == (0.25, 10)
    (field,) = [one for one in at.text_input if one.label == "General rows to mix in"]
    field.set_value("no.jsonl").run()
    press(at, "Make the files")
    assert "no.jsonl" in messages(at)


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
