"""Passes that memory refuses are halved and made again, and the numbers stay the same."""

import numpy as np
import pytest
import tiny
import torch
from test_directions import pool_of
from test_during import LENGTHS, train

from grads.config.run import RunConfig
from grads.engine import scoring, training
from grads.engine.gradients import GradientScorer
from grads.engine.passes import Parts
from grads.engine.room import MOST, Room

ERRORS = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    "cpu": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"),
    "python": MemoryError(),
}


def refusing(work, most, error):
    """`work` on a batch, begun and then refused where that has more than `most` samples."""

    def limited(*args):
        result = work(*args)
        if len(next(arg for arg in args if isinstance(arg, torch.Tensor))) > most:
            raise error
        return result

    return limited


def scores(folder):
    pool = pool_of(tiny.make_samples(lengths=LENGTHS))
    parts = Parts(folder, pool, batch_tokens=120, made_from="")
    scorer = GradientScorer(tiny.make_model("llama-tied"))
    scoring.score_pool(parts, scorer, device="cpu", seed=0, with_tokens=False)
    return parts.merged()


@pytest.mark.parametrize("kind", ERRORS)
def test_a_scoring_pass_is_halved(tmp_path, monkeypatch, kind, capsys):
    whole = scores(tmp_path / "whole")
    work = GradientScorer.flow
    monkeypatch.setattr(
        GradientScorer,
        "flow",
        lambda self, ids, *rest: refusing(lambda i: work(self, i, *rest), 2, ERRORS[kind])(ids),
    )
    found = scores(tmp_path / "halved")
    for name in ("sample_id", "loss", "embed_grad_norm", "head_grad_norm", "grad_dot"):
        np.testing.assert_allclose(found[name].to_numpy(), whole[name].to_numpy(), rtol=1e-4)
    assert "ran out of memory: going on with" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_a_step_of_the_training_is_made_again(tmp_path, monkeypatch, kind):
    """What the refused pass has left of gradients, and of samples read, does not count."""
    weights, whole, _ = train(tmp_path / "whole", warmup=kind)
    work = training.response_losses
    monkeypatch.setattr(
        training,
        "response_losses",
        lambda model, *batch: refusing(lambda *b: work(model, *b), 1, ERRORS["gpu"])(*batch),
    )
    halved, found, _ = train(tmp_path / "halved", warmup=kind)
    for name in weights:
        torch.testing.assert_close(halved[name], weights[name], rtol=1e-3, atol=1e-4)
    assert found.merged()["sample_id"].equals(whole.merged()["sample_id"])


def test_one_sample_cannot_be_halved_and_other_errors_are_no_matter_of_memory():
    room = Room(100)
    with pytest.raises(torch.OutOfMemoryError):
        room.tried(lambda: (_ for _ in ()).throw(ERRORS["gpu"]), 1)
    with pytest.raises(RuntimeError, match="shape"):
        room.tried(lambda: (_ for _ in ()).throw(RuntimeError("shape mismatch")), 9)
    assert room.tokens == 100


def test_auto_grows_until_memory_says_no():
    settings = RunConfig.parse({"dataset": "x.jsonl", "batch_tokens": "auto"})
    room = Room.of(settings, "cuda")
    sizes = []

    def work():
        sizes.append(room.tokens)
        if room.tokens > 20_000:
            raise ERRORS["gpu"]
        return 1

    while len(sizes) < 8:
        room.tried(work, 4)
    assert sizes == [2048, 4096, 8192, 16384, 32768, 16384, 16384, 16384]
    assert Room.of(settings, "cpu").tried(lambda: 1, 4) == 1
    assert Room.of(settings, "cpu").tokens == 2048
    large = Room(MOST, growing=True)
    large.tried(lambda: 1, 4)
    assert large.tokens == MOST


def test_no_growth_towards_a_pass_that_cannot_be_cut():
    """As those of several processes that go on together: a refusal would end the run."""
    room = Room(2048, growing=True)
    room.tried(lambda: 1, 1)
    assert room.tokens == 2048
