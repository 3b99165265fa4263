"""The same config, data and machine give the same scores, twice; what differs is told."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from chain import command, config_for, save_tiny_model, wait_for, write_data
from run_dirs import demo_run

from grads import api
from grads.api.reproduce import _largest
from grads.engine import device
from grads.errors import RunError
from grads.selection.options import SelectionConfig
from grads.stages import loading
from grads.store.files import write_table
from grads.store.runs import Run

EXTRAS = ("question_gain",)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    save_tiny_model(place / "model")
    write_data(place / "data.jsonl")
    run = api.create_run(config_for(place, extras=EXTRAS), str(place / "runs" / "first"))
    api.start_run(run)
    assert wait_for(run, "finished", "failed").error is None
    return run


@pytest.mark.job
def test_a_run_gives_identical_scores_twice(finished):
    done = command("reproduce", str(finished.manifest_file), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["identical"]
    assert found["samples"] == len(api.load_pool(finished))
    assert set(found["differences"].values()) == {0.0}
    again = Run.open(found["second"])
    for file in ("scores.parquet", "features.parquet", "extras.parquet", "tokens.parquet"):
        a, b = (pq.read_table(run.path / file) for run in (finished, again))
        assert a.equals(b), file
    table = pq.read_table(again.scores_file)
    loss = table["loss"].to_numpy().copy()
    loss[3] *= 1.5
    index = table.column_names.index("loss")
    write_table(again.scores_file, table.set_column(index, "loss", [loss]))
    told = api.compared(finished.manifest_file)
    assert (told.agrees, told.identical) == (False, False)
    assert told.differences["loss"] == pytest.approx(0.5, rel=0.2)
    write_table(again.scores_file, table.slice(1))
    assert api.compared(finished.path).only_first == table["sample_id"].to_pylist()[:1]


@pytest.mark.parametrize("chosen", ["float32", "bfloat16"])
def test_the_number_format_of_the_beginning_is_kept(tmp_path, monkeypatch, chosen):
    """On a resume, and in a repetition, also where `auto` would be another one by now."""
    run = demo_run(tmp_path)
    assert run.config().dtype == "auto"
    other = torch.bfloat16 if chosen == "float32" else torch.float32
    monkeypatch.setattr(device, "_bfloat16_pays", lambda *_: other == torch.bfloat16)
    run.update_manifest(dtype="")
    assert loading.number_format(run, "cpu") == other
    run.update_manifest(dtype=chosen)
    assert loading.number_format(run, "cpu") == getattr(torch, chosen)
    assert api.repetition(run.path).config().dtype == chosen


def test_what_has_changed_since_is_named(tmp_path):
    """Other data or another model under the same name; runs from before 0.5 tell no digests."""
    run = demo_run(tmp_path)
    again = demo_run(tmp_path, "demo-again")
    source = run.read_manifest().source
    for one in (run, again):
        one.update_manifest(source=source.model_copy(update={"digest": "d"}), model_digest="m")
    assert api.compared(run.path).notes == []
    again.update_manifest(source=source.model_copy(update={"digest": "e"}), model_digest="n")
    assert api.compared(run.path).notes == [
        "its data set is another: 'e', then 'd'",
        "its model is another: 'n', then 'm'",
    ]
    run.update_manifest(source=source.model_copy(update={"digest": None}), model_digest=None)
    assert api.compared(run.path).notes == []


def test_every_call_repeats_the_run(tmp_path):
    """One that has finished is not taken for a new one; one that was stopped goes on."""
    run = demo_run(tmp_path)
    run.update_manifest(dtype="")
    for name in ("demo-again", "demo-again-2", "demo-again-3"):
        made = api.repetition(run.path)
        assert made.id == name
        assert api.repetition(run.path).path == made.path
        shutil.copytree(run.path, made.path, dirs_exist_ok=True)
        assert api.compared(run.path).second == str(made.path)


def test_a_selection_is_chosen_again(tmp_path):
    run = demo_run(tmp_path)
    for name in run.selection_names():
        record = run.selection_file(name)
        assert api.repetition(record) is None
        assert api.compared(record).identical, name
    options = SelectionConfig(ratio=0.1, seed=1)
    api.select_samples(run, "grads-10", options)
    path = run.selection_file("grads-10")
    values = json.loads(path.read_text())
    values["options"]["seed"] = 2
    path.write_text(json.dumps(values))
    done = command("reproduce", str(path))
    assert done.returncode == 1
    assert "not the same" in done.stdout
    assert "only in the first" in done.stdout


def test_what_is_no_manifest_is_refused(tmp_path):
    with pytest.raises(RunError, match="no run at"):
        api.repetition(tmp_path / "manifest.json")
    run = demo_run(tmp_path)
    with pytest.raises(RunError):
        api.compared(run.selection_file("nothing"))


def test_differences_are_relative_to_the_column():
    a = np.array([1.0, 2.0, 1e-9])
    assert _largest(a, a) == 0
    assert _largest(a, a + np.array([0, 0.02, 0])) == pytest.approx(0.01)
    assert _largest(a, a + np.array([0, 0, 1e-9])) < 1e-8
    assert _largest(a, np.array([1.0, 2.0, np.nan])) == float("inf")
