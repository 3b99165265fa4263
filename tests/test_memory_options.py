"""What saves memory or time changes no number: gradient checkpointing, ways of attention."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import tiny
import torch
from test_warmup import assert_same, config

from grads.data.tokens import TokenPool
from grads.engine import device, models, training
from grads.engine.device import refuse_attention
from grads.engine.gradients import GradientScorer
from grads.errors import ModelError, WarmupError


@pytest.fixture
def calls(monkeypatch):
    """How often layers were computed in training, by whether gradients were wanted."""
    counted = Counter()
    layer = type(tiny.make_model("llama-tied").model.layers[0].mlp)
    forward = layer.forward

    def spied(self, *args, **kwargs):
        counted[self.training] += 1
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(layer, "forward", spied)
    return counted


def pool_of():
    samples = tiny.make_samples(lengths=(5, 12, 30, 23, 9, 17, 8, 21))
    columns = [[s.ids.tolist() for s in samples], [s.trained.tolist() for s in samples]]
    kinds = (pa.large_list(pa.int32()), pa.large_list(pa.bool_()))
    ids, trained = (pa.array(c, kind) for c, kind in zip(columns, kinds, strict=True))
    table = {"sample_id": np.arange(len(samples)), "input_ids": ids, "trained": trained}
    return TokenPool.from_table(pa.table(table))


def trained(folder, dtype=torch.float32, attention=None, **values):
    """A tiny model and its weights after a training."""
    model = tiny.make_model("llama-tied").to(dtype)
    if attention:
        model.set_attn_implementation(attention)
        values["attention"] = attention
    after = training.train(
        model, pool_of(), config(**values), dtype=dtype, device="cpu", checkpoints=folder
    )
    return after, {k: v.detach().clone() for k, v in after.named_parameters() if v.requires_grad}


def scores(model):
    """The numbers of a few samples, as arrays."""
    found = GradientScorer(model.eval()).score(*tiny.collate(tiny.make_samples(), pad_id=0))
    names = ("loss", "embed_grad_norm", "head_grad_norm", "grad_dot", "mean_hidden")
    return {name: getattr(found, name).detach().numpy() for name in names}


def assert_same_scores(a, b):
    for name, values in scores(a).items():
        np.testing.assert_allclose(scores(b)[name], values, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("warmup", ["lora", "full"])
def test_checkpointing_changes_no_weight_and_no_score(tmp_path, calls, warmup):
    plain, before = trained(tmp_path / "a", warmup=warmup)
    once = calls[True]
    saving, after = trained(tmp_path / "b", warmup=warmup, gradient_checkpointing=True)
    assert calls[True] - once == 2 * once, "each layer is computed again on the way back"
    assert_same(before, after, 1e-5)
    assert not saving.is_activation_checkpointing, "for training alone"
    assert_same_scores(plain, saving)


def test_a_model_that_knows_no_checkpointing_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        type(tiny.make_model("llama-tied")), "supports_gradient_checkpointing", False
    )
    with pytest.raises(WarmupError, match="llama models know no gradient checkpointing"):
        trained(tmp_path, gradient_checkpointing=True)


def test_ways_of_attention_give_the_same_weights_and_scores(tmp_path):
    eager, before = trained(tmp_path / "a", attention="eager")
    fused, after = trained(tmp_path / "b", attention="sdpa")
    assert eager.config._attn_implementation == "eager"
    assert fused.config._attn_implementation == "sdpa"
    assert_same(before, after, 1e-5)
    assert_same_scores(eager, fused)


def test_the_chosen_way_is_loaded_and_kept_in_training(tmp_path, monkeypatch):
    """Plain products for short samples in bfloat16 are for who has not chosen."""
    tiny.make_model("llama-tied").save_pretrained(tmp_path / "model")
    for attention in ("eager", "sdpa"):
        loaded = models.load_model(
            str(tmp_path / "model"), "cpu", torch.float32, attention=attention
        )
        assert loaded.config._attn_implementation == attention
    seen = set()
    layer = type(tiny.make_model("llama-tied").model.layers[0].self_attn)
    forward = layer.forward

    def spied(self, *args, **kwargs):
        seen.add(self.config._attn_implementation)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(layer, "forward", spied)
    trained(tmp_path / "a", torch.bfloat16, attention="sdpa")
    assert seen == {"sdpa"}


def test_flash_attention_is_refused_where_it_cannot_be_computed(monkeypatch):
    for attention in ("auto", "eager", "sdpa"):
        refuse_attention(attention, "cpu", torch.float32)
    flash = "flash_attention_2"
    monkeypatch.setattr(device, "is_flash_attn_2_available", lambda: False)
    with pytest.raises(ModelError, match=r"flash-attn and a CUDA GPU.* use --attention sdpa"):
        refuse_attention(flash, "cuda", torch.bfloat16)
    monkeypatch.setattr(device, "is_flash_attn_2_available", lambda: True)
    refuse_attention(flash, "cuda", torch.bfloat16)
    for kind, dtype in (("cuda", torch.float32), ("cpu", torch.bfloat16)):
        with pytest.raises(ModelError, match="bfloat16 on a CUDA GPU"):
            refuse_attention(flash, kind, dtype)
