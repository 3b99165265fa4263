"""Jobs of every kind that tests disturb, and whether they ended as undisturbed ones."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from chain import config_for, save_tiny_model, write_data

from grads import api
from grads.config.evaluation import EvaluationConfig, TuneConfig
from grads.config.probe import ProbeConfig
from grads.selection.options import SelectionConfig
from grads.store import pipeline
from grads.store.columns import MEASURED
from grads.store.files import open_table
from grads.store.folders import Evaluation, ProbeRequest, TokenRequest
from grads.store.runs import JobFolder, Run

RECIPE = {"epochs": 1.0, "batch_size": 4, "lora_rank": 4, "lr": 5e-3}
RUNS = {  # their settings
    "LoRA run": {},
    "full-parameter run": {"warmup": "full"},
    "run with gradients during": {"when": "during"},
    "run with sets": {},  # which lie where the data do
}
REQUESTS = ("evaluation", "search", "request for sets", "request for words")
WORDS_OF = [9, 20, 31]  # samples


def lay_out(folder: Path) -> None:
    """A tiny model, a data set, and what else these jobs read."""
    save_tiny_model(folder / "model")
    write_data(folder / "data.jsonl")
    lines = (folder / "data.jsonl").read_text().splitlines()
    (folder / "good.jsonl").write_text("\n".join(lines[20:25]) + "\n")
    general = ['{"instruction": "the heart?", "output": "rest and water."}'] * 4
    (folder / "general.jsonl").write_text("\n".join(general) + "\n")


def made(kind: str, place: Path, scored: Run, root: Path) -> JobFolder:
    """A job of a kind that has not begun, in a runs folder of its own.

    `scored` is a finished run with the selection `fifth`, which is copied where one is asked of.
    """
    sets = {"targets": {"good": str(place / "good.jsonl")}, "extras": ("question_gain",)}
    if kind in RUNS:
        values = sets if kind == "run with sets" else RUNS[kind]
        return Run.create(config_for(place, **values), root / "run")
    run = Run(shutil.copytree(scored.path, root / "run"))
    if kind == "request for sets":
        return api.create_probe(run, ProbeConfig.parse(sets))
    if kind == "request for words":
        request = TokenRequest(run)
        shutil.rmtree(request.path)
        request.ask(WORDS_OF)
        return request
    recipe = RECIPE | {"general": [str(place / "general.jsonl")]}
    if kind == "search":
        chosen = {"ratio": 0.2, "seeds": 2, "settings": ("typical-high", "loss-low")}
        return api.create_evaluation(run, "one", TuneConfig.parse(recipe | chosen))
    chosen = {"selections": ["fifth"], "arms": ["base", "random", "selection"], "seeds": 2}
    return api.create_evaluation(run, "one", EvaluationConfig.parse(recipe | chosen))


def assert_same_tables(mine: Path, theirs: Path, names) -> None:
    a, b = (open_table(path).read() for path in (mine, theirs))
    assert a["sample_id"].equals(b["sample_id"])
    for name in names:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5, atol=1e-6)


def assert_same_run(mine: Run, theirs: Run) -> None:
    """The same scores, topics and sets, and so the same selections."""
    assert_same_tables(mine.scores_file, theirs.scores_file, MEASURED)
    features = [pq.read_table(run.features_file) for run in (mine, theirs)]
    for name in ("cluster", "duplicate_group"):
        assert features[0][name].equals(features[1][name])
    for file in theirs.probes.glob("*.parquet"):
        columns = [name for name in pq.read_schema(file).names if name != "sample_id"]
        assert_same_tables(mine.probes / file.name, file, columns)
    if theirs.extras_file.exists():
        assert_same_tables(mine.extras_file, theirs.extras_file, ["question_gain"])
    assert mine.read_manifest().counts == theirs.read_manifest().counts
    assert pipeline.damaged(mine) == []
    kept = []
    for run in (mine, theirs):
        api.select_samples(run, "compared", SelectionConfig(ratio=0.2))
        kept.append(api.read_selection(run, "compared")[1]["kept"])
    assert kept[0].equals(kept[1])


def assert_same_result(mine: Evaluation, theirs: Evaluation) -> None:
    """The same arms with the same numbers and verdicts; of a search the same winner."""
    a, b = (api.read_evaluation(one.run, one.id).result for one in (mine, theirs))
    assert a.finished
    assert [arm.label for arm in a.arms] == [arm.label for arm in b.arms]
    for one, other in zip(a.arms, b.arms, strict=True):
        numbers = {name: value for name, value in other.mean.items() if value is not None}
        found = {name: one.mean[name] for name in numbers}
        assert found == pytest.approx(numbers, rel=1e-4, abs=1e-6)
        assert [seed.steps for seed in one.seeds] == [seed.steps for seed in other.seeds]
    assert [(c.learning, c.forgetting) for c in a.comparisons] == [
        (c.learning, c.forgetting) for c in b.comparisons
    ]
    assert getattr(a, "winner", None) == getattr(b, "winner", None)
    assert mine.run.selection_names() == theirs.run.selection_names()


def assert_same(mine: JobFolder, theirs: JobFolder) -> None:
    if isinstance(mine, Evaluation):
        assert_same_result(mine, theirs)
    elif isinstance(mine, TokenRequest):
        signals = [open_table(one.run.token_signal_file).read() for one in (mine, theirs)]
        assert signals[0]["sample_id"].to_pylist() == WORDS_OF
        assert signals[0].equals(signals[1])
    elif isinstance(mine, ProbeRequest):
        assert_same_run(mine.run, theirs.run)
    else:
        assert_same_run(mine, theirs)


def arguments_of(name: str, run: Path) -> list[str]:
    """What a command that starts no job is called with, upon a scored run."""
    at = ["--run-dir", str(run)]
    return {
        "select": ["select", *at, "--name", "new", "--ratio", "0.3"],
        "select anew": ["select", *at, "--name", "fifth", "--ratio", "0.5"],
        "export": ["export", *at, "--selection", "fifth"],
        "decide": ["decide", *at, "--exclude", "9", "--reason", "wrong"],
    }[name]


def same_command(mine: Run, theirs: Run) -> bool:
    """Whether both have the same selections, exports and decisions.

    Raises RunError where one of the selections is told to be damaged.
    """
    return _made_by_commands(mine) == _made_by_commands(theirs)


def _made_by_commands(run: Run) -> list[Any]:
    selections = {}
    for name in run.selection_names():
        record, table = api.read_selection(run, name)
        selections[name] = (record.model_copy(update={"made": ""}), table.to_pydict())
    exported = {
        place: (run.exports / place).read_bytes()
        for place in (path.relative_to(run.exports) for path in run.exports.rglob("*.jsonl"))
        if not place.parts[1].startswith(".")  # what a killed writer has left
    }
    said = [(one.sample_id, one.decision, one.reason) for one in api.decisions(run).values()]
    return [selections, exported, said]
