"""What CONTRIBUTING.md adds, at work; test_contributing.py runs this in a copy that has it."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import test_evaluation
import tiny
import torch
from chain import command
from run_dirs import demo_run, headline, kept_ids, open_page

from grads import api
from grads.cli.terminal import evaluation_lines
from grads.engine.gradients import GradientScorer
from grads.engine.scoring import scores_table
from grads.evaluation.measure import measure
from grads.store.columns import SCORES
from grads.store.folders import Evaluation


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    return demo_run(tmp_path)


def box(at, label):
    (found,) = [box for box in at.selectbox if box.label == label]
    return found


def by_total_loss(run, count):
    """Ids of the samples with the highest loss summed over the answer, by plain sorting."""
    scores = pq.read_table(run.scores_file).to_pylist()
    best = sorted(scores, key=lambda row: -row["loss"] * row["response_tokens"])[:count]
    return sorted(row["sample_id"] for row in best)


def test_criterion(run):
    assert "loss_total" in command("select", "--help").stdout
    select = ["select", "--run-dir", str(run.path), "--name", "most", "--criterion", "loss_total"]
    done = command(*select, "--count", "20")
    assert done.returncode == 0, done.stderr
    assert kept_ids(run, "most") == by_total_loss(run, 20)
    at = open_page("Select", run="demo", criterion="loss_total")
    assert headline(at) == "Keep 30 of 300 examples"
    assert "Most to learn in all" in box(at, "What counts").options


def test_format(run, tmp_path):
    assert "messages" in command("export", "--help").stdout
    out = tmp_path / "out"
    export = ["export", "--run-dir", str(run.path), "--selection", "grads-10"]
    done = command(*export, "--format", "messages", "--out", str(out))
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    kept = run.read_samples(kept_ids(run, "grads-10"))
    assert rows == [{"messages": sample["turns"]} for sample in kept.values()]
    assert "Conversations: data alone" in box(open_page("Select", run="demo"), "Format").options


def test_metric(run):
    model = tiny.make_model("llama-tied")
    probe, samples = test_evaluation.make_probe()
    hits, tokens = measure(model, probe, 60, "cpu")["among_five"]
    for i, sample in enumerate(samples):
        log_probs, targets = test_evaluation.by_hand(model, sample)
        ranks = (log_probs > log_probs.gather(1, targets.long()[:, None])).sum(dim=1)
        assert hits[i] == (ranks < 5).sum()
        assert tokens[i] == len(targets)
    evaluation = Evaluation.open(run, "tenth")
    result = json.loads(evaluation.result_file.read_text())
    for arm in result["arms"]:  # as if it had been measured then
        arm["mean"]["heldout_among_five"], arm["interval"]["heldout_among_five"] = 0.625, None
    evaluation.result_file.write_text(json.dumps(result))
    assert "words among the likeliest five" in evaluation_lines(api.read_evaluation(run, "tenth"))[0]
    tables = [table.value for table in open_page("Evaluate", run="demo").dataframe]
    (shown,) = [t for t in tables if "Words among the likeliest five" in t.columns]
    assert "0.625" in str(shown["Words among the likeliest five"].iloc[0])


def test_score_column(run):
    """Scored and stored with its type; the demo, scored before, opens without it."""
    scorer = GradientScorer(tiny.make_model("llama-tied"))
    sample = tiny.make_samples()[1]
    ids = torch.from_numpy(sample.ids)[None].long()
    labels = torch.where(torch.from_numpy(sample.trained)[None], ids, -100)
    found = scorer.score(ids, torch.ones_like(ids), labels)
    with torch.no_grad():
        hidden = scorer.model.model(input_ids=ids).last_hidden_state[0]
    mean = hidden[np.flatnonzero(sample.trained[1:])].mean(dim=0)
    assert found.hidden_norm.item() == pytest.approx(mean.norm().item(), rel=1e-5)
    merged = {name: pa.array([1.0]) for name, column in SCORES.items() if column.measured}
    row = {"sample_id": pa.array([0]), "truncated": pa.array([False])}
    row |= {name: pa.array([3]) for name in ("prompt_tokens", "response_tokens")}
    table = scores_table(pa.table({"sample_id": row["sample_id"], **merged}), pa.table(row))
    assert table.schema.field("hidden_norm").type == pa.float32()
    assert api.COLUMNS["hidden_norm"].label == "Hidden state"
    assert "hidden_norm" not in api.load_pool(run).numbers


def test_page(run):
    tokens = np.median(api.load_pool(run).scores.response_tokens)
    assert (
        headline(open_page("Lengths", run="demo")) == f"The median answer has {tokens:.0f} tokens"
    )
