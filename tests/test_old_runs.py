"""Run folders that 0.1 to 0.4 have written are opened, chosen from, exported and shown.

tests/old_runs/VERSION was written by the last state of that version: `run` on 30 rows of
chain.write_data with the tiny model and 4 held-out samples, the selections `fifth` (with a pin) and
`drawn` (with a bound), two decisions and the selection `reviewed`, an evaluation of all arms under
two seeds, and a search. Left out are weights, logs, locks and the evaluations' metrics; the JSON
files are written without spaces.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from chain import command
from run_dirs import LATER_OPTIONS, assert_sound, everything, headline, open_page

from grads import api
from grads.evaluation.trials import read_trials
from grads.store.columns import DURING, EXTRAS
from grads.store.folders import Evaluation
from grads.store.runs import Run

OLD = Path(__file__).parent / "old_runs"
VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.4.0")
SELECTIONS = ["drawn", "fifth", "reviewed"]
EVALUATIONS = ["compared", "search"]


@pytest.fixture(params=VERSIONS)
def run(request, tmp_path, monkeypatch):
    """A copy of a run of that version, in the runs folder that the pages use."""
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    shutil.copytree(OLD / request.param, tmp_path / "old")
    return Run.open(tmp_path / "old")


def stored(path):
    """What a JSON file of that time holds, which has no format yet."""
    values = json.loads(path.read_text(encoding="utf-8"))
    assert "format" not in values
    return values


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_stored_is_small_and_tells_nothing_of_a_machine(version):
    files = [path for path in (OLD / version).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 150_000
    assert stored(OLD / version / "selections" / "fifth.json")["version"] == version
    config = stored(OLD / version / "config.json")
    assert (config["dataset"], config["model"]) == ("data.jsonl", "model")
    for path in files:
        assert b"/home/" not in path.read_bytes(), path
        assert b"/tmp/" not in path.read_bytes(), path


def test_the_run_is_summed_up(run):
    manifest = stored(run.manifest_file)
    found = api.summary(run)
    assert found.status.state == "finished"
    assert found.scored
    assert found.counts == manifest["counts"]
    assert found.selections == SELECTIONS
    read = run.read_manifest()
    assert read.as_json() == manifest | {"format": 1}
    assert read.self_check.largest_relative_difference < 1e-4
    assert (read.model_digest, read.made) == (None, {})
    steps = {step.name: step for step in api.watch.stages(run, found.status)}
    assert {name: step.seconds for name, step in steps.items()} == manifest["seconds"]
    assert {step.state for step in steps.values()} == {"done"}


def test_what_is_added_to_its_manifest_leaves_the_rest(run):
    before = stored(run.manifest_file)
    run.update_manifest(device="another")
    after = json.loads(run.manifest_file.read_text())
    assert after == before | {"device": "another", "format": 1}


def test_its_samples_are_read(run):
    pool, counts = api.load_pool(run), run.read_manifest().counts
    assert len(pool) == counts.usable - counts.heldout == 24
    table = pq.read_table(run.scores_file)
    np.testing.assert_array_equal(pool.scores.loss, table["loss"])
    missing = set(api.COLUMNS) - set(pool.numbers)
    assert missing == {
        "truncated",
        *EXTRAS,
        *DURING,
    }  # the first is no number, the others came later
    assert set(pool.numbers) - set(api.COLUMNS) == {"age"}
    assert sum(topic.size for topic in pool.clusters) == 24
    sample = int(pool.scores.sample_id[3])
    signal, tokens = run.read_token_signal(sample), run.read_tokens(sample)
    assert len(signal["embed_token_norm"]) == len(tokens["pieces"])
    assert [reject["row"] for reject in run.read_rejects()] == [4, 9]


@pytest.mark.parametrize("name", SELECTIONS)
def test_its_selections_say_what_they_said_and_keep_what_they_kept(run, name):
    values = stored(run.selection_file(name))
    values["options"] |= LATER_OPTIONS
    record, table = api.read_selection(run, name)
    assert record.as_json() == values | {"format": 1}
    pool = api.load_pool(run)
    assert table["kept"].to_numpy().sum() == pool.kept(name).sum() == record.samples.kept
    shown = api.preview(pool, record.options)
    assert (shown.kept == pool.kept(name)).all()
    one_draw = values["response_tokens"].pop("random")  # by now it is what they hold on average
    assert shown.response_tokens == values["response_tokens"]
    if name == "reviewed":  # the others were saved before the decisions
        again = api.select_samples(run, "again", record.options)
        assert again.samples == record.samples
        found = dict(again.response_tokens)
        assert found.pop("random") == pytest.approx(one_draw, rel=0.6)
        assert found == values["response_tokens"]


def test_its_decisions_hold(run):
    made = api.decisions(run)
    assert sorted(row.decision for row in made.values()) == ["exclude", "pin"]
    record = api.read_record(run, "reviewed")
    assert record.decisions == list(made.values())
    (excluded,) = (row for row in made.values() if row.decision == "exclude")
    assert (excluded.reason, excluded.reviewer) == ("wrong dose", "Dr Ada")
    assert record.options.excluded == (excluded.sample_id,)


@pytest.mark.parametrize("kind", ["jsonl", "trl"])
def test_its_selections_are_exported(run, kind):
    manifest = api.export_selection(run, "reviewed", kind)
    values = stored(run.selection_file("reviewed"))
    values["options"] |= LATER_OPTIONS
    for name in ("options", "decisions", "samples", "response_tokens"):
        assert manifest[name] == values[name]
    assert manifest["rows"] == values["samples"]["kept"]
    assert manifest["source"] == stored(run.manifest_file)["source"]
    if kind == "jsonl":
        table = api.read_selection(run, "reviewed")[1]
        kept = table.filter(table["kept"])["sample_id"].to_pylist()
        samples = pq.read_table(run.samples_file).to_pylist()
        lines = [row["raw"] for row in samples if row["sample_id"] in kept]
        file = next(Path(manifest["path"]).glob("*.jsonl"))
        assert file.read_bytes() == b"".join(lines)


def test_its_evaluations_say_what_they_said(run):
    assert sorted(one.name for one in api.evaluations(run)) == EVALUATIONS
    for name in EVALUATIONS:
        folder = run.evaluations / name
        found = api.read_evaluation(run, name).as_dict()
        assert found["status"]["state"] == "finished"
        assert found["config"] == stored(folder / "config.json")
        assert found["result"] == stored(folder / "result.json") | {"format": 1}
        assert api.open_folder(folder).config().general == ("general.jsonl",)
    answers = stored(run.evaluations / "compared" / "answers.json")
    assert api.read_evaluation(run, "compared").answers.as_json() == answers | {"format": 1}


def test_what_its_evaluation_found_can_be_asked(run):
    result = api.read_evaluation(run, "compared").result
    kinds = [arm.declared for arm in result.arms]
    assert {kind.name for kind in kinds} == set(api.ARM_KINDS)
    trials = read_trials(Evaluation.open(run, "compared"))
    for arm in result.arms:
        assert arm.label in {trial.arm for trial in trials.values()}
        for row in arm.seeds:
            trial = trials[f"{arm.label}-{row.seed}"]
            assert row.value(api.LEARNING) == pytest.approx(trial.value(api.LEARNING))
            assert (row.steps, row.tokens) == (trial.steps, trial.tokens)
    search = api.read_evaluation(run, "search").result
    assert isinstance(search, api.TuneResult)
    assert search.confirmation.against == "random"
    assert {trial.phase for trial in read_trials(Evaluation.open(run, "search")).values()} == {
        "pilot",
        "final",
    }


def test_the_pages_show_it(run):
    at = open_page("Explore", run="old", selection="fifth", sample="7")
    assert headline(at) == "What the model finds in 24 examples"
    at = open_page("Select", run="old", base="fifth")
    assert headline(at).endswith("of 24 examples")
    for name in EVALUATIONS:
        at = open_page("Evaluate", run="old", evaluation=name)
        assert_sound(at)
        assert len(at.dataframe) == 1 + (name == "search")
        told = everything(at).replace("\\", "")
        assert "Measured on the run's held-out split: 4 examples; general.jsonl: 6 examples" in told
    at = open_page("Run", run="old", view="Watch")
    assert headline(at) == "All 24 examples are scored"


@pytest.mark.job
def test_the_commands_tell_of_it(run):
    listed = json.loads(command("list", "--runs-dir", str(run.root), "--json").stdout)
    counts = stored(run.manifest_file)["counts"]
    assert [(row["id"], row["counts"], row["selections"]) for row in listed] == [
        ("old", counts, SELECTIONS)
    ]
    told = command("status", "--run-dir", str(run.path))
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("old: finished")
    folder = str(run.evaluations / "search")
    assert "search: finished" in command("status", "--run-dir", folder).stdout
