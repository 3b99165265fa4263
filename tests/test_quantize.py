"""A quantised body: what is rounded, what is trained, and what the scores are of."""

import importlib.util

import numpy as np
import pytest
import tiny
import torch
from chain import config_for, save_tiny_model, wait_for, write_data
from test_memory_options import pool_of
from test_warmup import config

from grads import api
from grads.config.run import RunConfig
from grads.engine import models, training
from grads.engine.gradients import GradientScorer
from grads.engine.self_check import self_check
from grads.errors import ConfigError, ModelError, WarmupError

installed = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
BITS = ("4bit", "8bit")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("model")
    tiny.make_model("llama-tied").save_pretrained(place)
    return str(place)


def load(folder, quantize="none"):
    return models.load_model(folder, "cpu", torch.float32, quantize=quantize)


def body(model):
    return {n: p for n, p in model.named_parameters() if "proj" in n and "lora" not in n}


@installed
@pytest.mark.parametrize("bits", BITS)
def test_layers_are_rounded_embedding_and_head_are_not(folder, bits):
    plain, quantised = load(folder), load(folder, bits)
    assert {p.dtype for p in body(plain).values()} == {torch.float32}
    assert {p.dtype for p in body(quantised).values()} == {
        {"4bit": torch.uint8, "8bit": torch.int8}[bits]
    }
    for layer in ("get_input_embeddings", "get_output_embeddings"):
        ours, theirs = getattr(quantised, layer)().weight, getattr(plain, layer)().weight
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert models.fingerprint(quantised) == models.fingerprint(load(folder, bits))


@installed
@pytest.mark.parametrize("bits", BITS)
def test_scores_are_those_of_the_quantised_model(folder, bits):
    """The fast gradients against plain autograd of the same model, beside other samples or not."""
    scorer = GradientScorer(load(folder, bits))
    found = self_check(scorer, pool_of(), "cpu")
    assert found.largest_relative_difference <= found.tolerance == 1e-3
    samples = tiny.make_samples()
    together = scorer.score(*tiny.collate(samples, pad_id=0))
    for i, sample in enumerate(samples):
        alone = scorer.score(*tiny.collate([sample], pad_id=0))
        for name in ("loss", "embed_grad_norm", "head_grad_norm"):
            one, all_ = (float(getattr(s, name)[j]) for s, j in ((alone, 0), (together, i)))
            assert one == pytest.approx(all_, rel=1e-3), name


@installed
def test_eight_bits_are_close_to_all_of_them(folder):
    batch = tiny.collate(tiny.make_samples(), pad_id=0)
    plain, close = (GradientScorer(load(folder, q)).score(*batch) for q in ("none", "8bit"))
    np.testing.assert_allclose(close.loss.numpy(), plain.loss.numpy(), rtol=0.05)


@installed
@pytest.mark.parametrize("bits", BITS)
def test_a_warm_up_trains_the_adapter_alone(folder, tmp_path, bits):
    model = load(folder, bits)
    before = {n: p.detach().clone() for n, p in body(model).items()}
    steps = []
    trained = training.train(
        model,
        pool_of(),
        config(quantize=bits, epochs=6.0),
        dtype=torch.float32,
        device="cpu",
        checkpoints=tmp_path,
        report=steps.append,
    )
    assert steps[-1].loss < steps[0].loss
    learned = [p for n, p in trained.named_parameters() if "lora_B" in n]
    assert learned
    assert all(float(p.detach().abs().max()) > 0 for p in learned)
    after = body(trained)
    assert len(after) == len(before)
    for was, now in zip(before.values(), after.values(), strict=True):
        assert torch.equal(was, now)


@installed
@pytest.mark.job
@pytest.mark.parametrize("bits", BITS)
def test_a_run_with_a_quantised_body(tmp_path, bits):
    """From data to scores; its self-check states how far plain autograd is."""
    save_tiny_model(tmp_path / "model")
    write_data(tmp_path / "data.jsonl")
    run = api.create_run(config_for(tmp_path, quantize=bits), str(tmp_path / "run"))
    api.start_run(run)
    assert wait_for(run, "finished", "failed").error is None
    check = run.read_manifest().self_check
    assert check.largest_relative_difference <= check.tolerance
    assert np.isfinite(api.load_pool(run).l2).all()
    assert "will be cast" not in run.log_file.read_text(), "a line for every layer of every pass"


def test_without_the_package_it_says_what_to_install(folder, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == "bitsandbytes" else find(n)
    )
    with pytest.raises(ModelError, match=r"requirements-quantize\.txt"):
        load(folder, "4bit")


def test_all_parameters_of_a_quantised_model_are_not_trained(folder, tmp_path):
    with pytest.raises(ConfigError, match="use lora"):
        RunConfig.parse({"dataset": "x.jsonl", "quantize": "4bit", "warmup": "full"})
    arm = config(quantize="4bit").model_copy(update={"warmup": "full"})
    with pytest.raises(WarmupError, match="train with lora"):
        training.train(
            load(folder),
            pool_of(),
            arm,
            dtype=torch.float32,
            device="cpu",
            checkpoints=tmp_path,
        )
