"""Whole runs whose gradients come out of the warm-up: resumed, repaired, chosen by."""

import numpy as np
import psutil
import pytest
import torch
from chain import config_for, save_tiny_model, until, wait_for, write_data
from test_probes import ask, assert_same_tables, write_set

from grads import api
from grads.api import ConfigError, RunConfig, SelectionConfig
from grads.engine import models
from grads.engine.gradients import GradientScorer
from grads.engine.probing import without_questions
from grads.jobs import processes as jobs
from grads.selection.scores import Scores
from grads.selection.select import rank
from grads.stages import loading
from grads.store import pipeline
from grads.store.files import open_table


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    save_tiny_model(folder / "model")
    write_data(folder / "data.jsonl")
    write_set(folder / "good.jsonl", 5, 1)
    write_set(folder / "other.jsonl", 7, 2)
    return folder


def made(place, name, **more):
    settings = {"when": "during", "targets": {"good": str(place / "good.jsonl")}} | more
    return api.create_run(config_for(place, **settings), str(place / "runs" / name))


@pytest.fixture(scope="module")
def run(place):
    run = made(place, "whole")
    api.start_run(run)
    assert wait_for(run, "finished", "failed").error is None
    return run


@pytest.mark.job
def test_a_run_without_a_scoring_pass(run):
    """The first step's samples have the numbers of the model as it came; all files are there."""
    manifest = run.read_manifest()
    assert manifest.gradients_taken == "during the warm-up"
    assert manifest.self_check.largest_relative_difference < 1e-3
    assert pipeline.damaged(run) == []
    scores = open_table(run.scores_file).read()
    pool = api.load_pool(run)
    assert len(scores) == len(pool) == manifest.counts.usable - manifest.counts.heldout
    np.testing.assert_array_equal(pool.numbers["step"], scores["step"])
    first = np.flatnonzero(scores["step"].to_numpy() == 0)
    assert len(first) == run.config().batch_size
    base = models.load_model(run.config().model, "cpu", torch.float32)
    tokens = loading.load_pool(run)
    expected = GradientScorer(base).score(*tokens.collate(first))
    for name in ("loss", "embed_grad_norm", "head_grad_norm", "grad_dot"):
        mine = scores[name].to_numpy()[first]
        np.testing.assert_allclose(mine, getattr(expected, name), rtol=2e-4, atol=1e-6)
    assert len(run.read_clusters()) > 0
    sample = int(scores["sample_id"][0].as_py())
    assert len(run.read_token_signal(sample)["embed_token_norm"]) > 0
    kept = pool.select(SelectionConfig(towards=1.0, draw="top", ratio=0.2)).kept
    assert kept.sum() == round(0.2 * len(pool))


@pytest.mark.job
def test_a_run_in_bfloat16_measures_its_sets_too(place, run):
    """They are measured between the steps, where the training computes in bfloat16."""
    other = made(place, "narrow", dtype="bfloat16")
    api.start_run(other)
    assert wait_for(other, "finished", "failed").error is None
    narrow, wide = (open_table(one.probe_file("good")).read() for one in (other, run))
    assert narrow["sample_id"] == wide["sample_id"]
    for name in ("embed_cosine", "head_cosine"):
        found = [table[name].to_numpy() for table in (narrow, wide)]
        assert np.isfinite(found[0]).all()
        assert np.corrcoef(found)[0, 1] > 0.95


@pytest.mark.job
def test_a_killed_run_ends_as_an_undisturbed_one(place, run):
    other = made(place, "killed")
    api.start_run(other)
    until(lambda: other.metrics_file.exists() and other.read_metrics(), "a step of the warm-up")
    psutil.Process(jobs.observe(other).pid).kill()
    until(lambda: jobs.observe(other).state == "interrupted", "the end of the process")
    api.start_run(other)
    assert wait_for(other, "finished", "failed").error is None
    assert_same_tables(other.scores_file, run.scores_file)
    assert_same_tables(other.probe_file("good"), run.probe_file("good"))


@pytest.mark.job
def test_sets_given_later_survive_a_repair(place, run):
    """They are measured with the final weights, and again where the scores are made anew."""
    _, status = ask(run, protected={"other": str(place / "other.jsonl")})
    assert status.error is None
    scores, later = run.scores_file.read_bytes(), open_table(run.probe_file("other")).read()
    good = open_table(run.probe_file("good")).read()
    run.scores_file.write_bytes(scores[:-30])
    assert "score" in pipeline.damaged(run)
    api.start_run(run)
    assert wait_for(run, "finished", "failed").error is None
    assert run.scores_file.read_bytes() == scores
    assert open_table(run.probe_file("good")).read().equals(good)
    again = open_table(run.probe_file("other")).read()
    np.testing.assert_allclose(again["cosine"].to_numpy(), later["cosine"].to_numpy(), rtol=1e-3)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"warmup": "none"}, "warmup is 'none'"),
        ({"warmup_fraction": 0.5}, "warmup_fraction is 0.5"),
        ({"epochs": 0.5}, "epochs is 0.5"),
        ({"warmup_from": "runs/other"}, "warmup_from is 'runs/other'"),
    ],
)
def test_a_warm_up_that_does_not_see_every_sample_is_refused(values, said):
    with pytest.raises(ConfigError, match=said):
        RunConfig.parse({"dataset": "x.jsonl", "when": "during"} | values)


def drifting(n=400, seed=0):
    """Scores whose norms fall as the training goes on, and the same without that."""
    rng = np.random.default_rng(seed)
    tokens, step = rng.integers(5, 200, n), rng.permutation(np.repeat(np.arange(n // 8), 8))
    true = rng.standard_normal(n)

    def scores(fall, step=None):
        norm = np.exp(0.3 * true - 0.4 * np.log(tokens) - fall).astype(np.float32)
        return Scores(
            sample_id=np.arange(n),
            response_tokens=tokens,
            loss=norm,
            embed_grad_norm=norm,
            head_grad_norm=2 * norm,
            grad_dot=norm,
            step=step,
        )

    fall = 0.5 * np.log1p(step) + 0.01 * step
    return scores(0 * fall), scores(fall), scores(fall, step)


def test_the_drift_of_the_weights_is_no_signal():
    """Removed together with the effect of length; without the steps it hides the signal."""
    options = SelectionConfig(ratio=0.1)
    still, blind, told = (rank(scores, options).x for scores in drifting())
    assert np.corrcoef(still, told)[0, 1] > 0.99
    assert np.corrcoef(still, blind)[0, 1] < 0.9


@pytest.mark.job
def test_what_a_question_saves_is_of_one_set_of_weights(place):
    """Those of the end, for the answer alone and with its question."""
    settings = {"when": "during", "extras": ("question_gain",), "lr": 1e-2}
    run = api.create_run(config_for(place, **settings), str(place / "runs" / "extras"))
    api.start_run(run)
    assert wait_for(run, "finished", "failed").error is None
    scorer = GradientScorer(loading.scoring_model_again(run))
    pool = loading.load_pool(run)
    alone = without_questions(pool)
    places = np.searchsorted(pool.sample_ids, alone.sample_ids)
    expected = scorer.losses(*alone.collate(np.arange(len(alone))))
    expected = expected - scorer.losses(*pool.collate(places))
    found = open_table(run.extras_file).read()["question_gain"].to_numpy(zero_copy_only=False)
    np.testing.assert_allclose(found[places], expected, atol=1e-5)
    during = open_table(run.scores_file).read()["loss"].to_numpy()[places]
    assert np.abs(during - scorer.losses(*pool.collate(places)).numpy()).max() > 0.01
