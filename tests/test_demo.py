"""The bundled data are what they say, and the stored run fits the current formats."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from grads import api
from grads.errors import RunError
from grads.selection.duplicates import ALIKE
from grads.selection.options import SelectionConfig
from grads.store.runs import Run

DEMO = Path(__file__).parents[1] / "assets" / "demo"


def read(name):
    return [json.loads(line) for line in (DEMO / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def run(tmp_path):
    """A copy of the stored run, so that a test may save selections."""
    import shutil

    shutil.copytree(DEMO / "run", tmp_path / "demo")
    return Run.open(tmp_path / "demo")


def test_medical_set_is_what_it_says():
    rows = read("medical_qa.jsonl")
    kinds = Counter(row["kind"] for row in rows)
    assert kinds == {
        "sound": 190,
        "near-duplicate": 30,
        "boilerplate": 22,
        "terse": 20,
        "off-topic": 14,
        "garbled": 14,
        "wrong-format": 10,
    }
    topics = Counter(row["topic"] for row in rows if row["kind"] == "sound")
    assert len(topics) == 10
    assert min(topics.values()) >= 15
    assert {tuple(row) for row in rows} == {("question", "answer", "topic", "kind")}


def test_no_exact_duplicates_but_the_canned_answers():
    rows = read("medical_qa.jsonl") + read("medical_qa_heldout.jsonl")
    assert len({(row["question"], row["answer"]) for row in rows}) == len(rows)
    repeated = Counter(row["answer"] for row in rows if row["kind"] not in ("boilerplate", "terse"))
    again = [answer for answer, count in repeated.items() if count > 1]
    kinds = {row["kind"] for row in rows if row["answer"] in again}
    assert kinds <= {"sound", "near-duplicate"}  # a reworded question, the same answer
    sound = [row["answer"] for row in rows if row["kind"] == "sound"]
    assert len(set(sound)) == len(sound)


def test_lengths_and_openings_are_spread():
    """Not a template filled 190 times."""
    sound = [row for row in read("medical_qa.jsonl") if row["kind"] == "sound"]
    words = np.array([len(row["answer"].split()) for row in sound])
    assert np.quantile(words, 0.15) < 35
    assert np.quantile(words, 0.9) > 120
    for column in ("question", "answer"):
        openings = Counter(" ".join(row[column].split()[:3]).lower() for row in sound)
        assert max(openings.values()) <= 4, openings.most_common(3)


def test_heldout_rows_are_sound_and_not_in_the_pool():
    """No held-out text is a near-copy of a training text."""
    heldout, pool = read("medical_qa_heldout.jsonl"), read("medical_qa.jsonl")
    assert len(heldout) == 40
    assert {row["kind"] for row in heldout} == {"sound"}

    def grams(row):
        text = row["question"] + " " + row["answer"]
        return {text[i : i + 5] for i in range(len(text) - 4)}

    for row in heldout:
        mine = grams(row)
        overlap = max(len(mine & g) / len(mine | g) for g in map(grams, pool))
        assert overlap < ALIKE / 2, row["question"]


def test_general_set_is_what_it_says():
    rows = read("general.jsonl")
    assert len(rows) == len({row["instruction"] for row in rows}) == 120
    with_options = [row for row in rows if "options" in row]
    assert len(with_options) == 60
    assert Counter(row["answer"] for row in with_options) == dict.fromkeys(range(4), 15)
    for row in with_options:
        assert len(set(row["options"])) == 4
        assert row["output"] == row["options"][row["answer"]]
    assert Counter(row["category"] for row in rows) == dict.fromkeys(
        ("knowledge", "arithmetic", "common sense", "instructions"), 30
    )


def test_stored_run_fits_the_current_formats(run):
    """Finished, whole, of this data, small, without weights or paths of a machine."""
    summary = api.summary(run)
    assert summary.status.state == "finished"
    assert summary.counts["usable"] == len(api.load_pool(run)) + summary.counts["heldout"]
    samples = pq.read_table(run.samples_file)
    lines = (DEMO / "medical_qa.jsonl").read_bytes().splitlines(keepends=True)
    assert samples["raw"].to_pylist() == [lines[i] for i in samples["sample_id"].to_pylist()]
    assert pq.read_table(run.token_signal_file).num_rows == len(api.load_pool(run))
    assert len(summary.selections) >= 5
    size = sum(path.stat().st_size for path in (DEMO / "run").rglob("*") if path.is_file())
    assert size < 4 * 2**20
    assert not list((DEMO / "run").rglob("*.safetensors"))
    manifest = run.read_manifest()
    assert manifest.self_check.largest_relative_difference < 1e-3
    assert manifest.model == "demo"


def test_stored_selections_follow_from_the_stored_scores(run):
    """Nothing was edited by hand: recomputing a selection keeps the same samples."""
    names = run.selection_names()
    assert len(names) >= 5
    for name in names:
        record, table = api.read_selection(run, name)
        again = api.select_samples(run, "again", record.options)
        assert again.samples == record.samples
        assert api.read_selection(run, "again")[1]["kept"].equals(table["kept"]), name


def test_stored_run_exports_its_source_lines(run, tmp_path):
    out = tmp_path / "subset.jsonl"
    manifest = api.export_selection(run, "grads-10", "jsonl", out)
    lines = (DEMO / "medical_qa.jsonl").read_bytes().splitlines(keepends=True)
    _, table = api.read_selection(run, "grads-10")
    kept = table.filter(table["kept"])["sample_id"].to_pylist()
    assert out.read_bytes() == b"".join(lines[i] for i in sorted(kept))
    assert manifest["rows"] == len(kept) == 30


def test_stored_evaluation_is_finished_and_whole(run):
    """Every arm under three seeds, on the bundled held-out and general samples."""
    (name,) = [one.name for one in api.evaluations(run)]
    found = api.read_evaluation(run, name)
    result = found.result
    assert found.status.state == "finished"
    assert result.finished
    seeds = {arm.label: len(arm.seeds) for arm in result.arms}
    assert seeds == {"base": 1, "full": 3, "random": 3, "grads-10": 3, "high-10": 3}
    assert result.heldout.samples == 40
    assert result.general[0].with_options == 60
    assert not result.leaks.near_duplicates
    prompts = found.answers.prompts
    assert len(prompts) == 4
    wrote = {"base", "full", "grads-10", "high-10"}
    assert all(set(prompt.answers) == wrote for prompt in prompts)
    first = result.comparisons[0]
    assert (first.arm, first.against) == ("grads-10", "random")
    low, high = first.metrics["heldout_loss"].low, first.metrics["heldout_loss"].high
    assert (first.learning == "no difference seen") == (low <= 0 <= high)


def test_the_dashboard_puts_the_run_where_there_is_none(tmp_path):
    """Whole at the first start; later whatever is called so stays as it is."""
    root = tmp_path / "runs"
    api.place_demo(root)
    assert len(api.load_pool(Run.open(root / "demo"))) == 300
    assert [path.name for path in root.iterdir()] == ["demo"]
    api.select_samples(Run.open(root / "demo"), "mine", SelectionConfig(count=3))
    api.place_demo(root)
    assert "mine" in Run.open(root / "demo").selection_names()


def test_where_the_run_cannot_be_put_it_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="--runs-dir"):
        api.place_demo(tmp_path / "file" / "runs")
