"""Models that are refused: by name, before anything is trained, and not for their samples."""

import shutil

import numpy as np
import pytest
import tiny
import torch
from chain import config_for, save_tiny_model, write_data
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from grads.engine import adapters, models
from grads.engine.anatomy import describe, refuse_unknown_tokens
from grads.engine.gradients import GradientScorer
from grads.engine.loss import response_losses
from grads.errors import ModelError
from grads.stages import worker
from grads.store.runs import Run

_SMALL = {"vocab_size": 97, "hidden_size": 32, "num_hidden_layers": 2}
_BERT = {**_SMALL, "num_attention_heads": 4, "intermediate_size": 48}
_MOE = {**tiny._LLAMA, "num_local_experts": 2, "num_experts_per_tok": 1}
_MAMBA = {**_SMALL, "state_size": 8}
BOTH_WAYS = {
    "bert": _BERT,
    "roberta": _BERT,
    "electra": {**_BERT, "embedding_size": 32},
    "xlm": {"vocab_size": 97, "emb_dim": 32, "n_layers": 2, "n_heads": 4},
    "xlnet": {"vocab_size": 97, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
}
ONE_WAY = {"bert": _BERT | {"is_decoder": True}, "xlm": BOTH_WAYS["xlm"] | {"causal": True}}
HARD_FOR_LORA = {
    "mamba": _MAMBA,
    "mamba2": {**_MAMBA, "num_heads": 8, "head_dim": 8, "n_groups": 1, "expand": 2},
    "falcon_h1": {
        **tiny._LLAMA,
        **{"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8},
        **{"mamba_d_state": 8, "mamba_n_groups": 1},
    },
    "llama4_text": {**_MOE, "intermediate_size_mlp": 48, "interleave_moe_layer_step": 2},
    "phimoe": _MOE,
}


def made(kind, settings, noise=0.0):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * noise)
    return model


# -- what is no causal model


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("kind", BOTH_WAYS)
def test_a_model_that_sees_what_comes_is_refused(kind, noise):
    """Though each of its gradients could be computed, and would pass the self-check."""
    model = made(kind, BOTH_WAYS[kind], noise)
    with pytest.raises(ModelError, match=f"{type(model).__name__} is no causal language model"):
        describe(model)


@pytest.mark.parametrize("kind", ONE_WAY)
def test_the_same_models_read_from_left_to_right(kind):
    describe(made(kind, ONE_WAY[kind], 0.1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_causal_models_are_none_of_them(name, dtype):
    describe(tiny.make_model(name, dtype))


# -- LoRA


@pytest.mark.parametrize("kind", HARD_FOR_LORA)
def test_lora_leaves_out_the_layers_that_take_none(kind, tmp_path):
    """It trains, lowers the loss, and is loaded again as it was."""
    ids = torch.arange(3, 15).repeat(2, 1)
    batch = ids, torch.ones_like(ids), ids.clone()
    adapted = adapters.add_lora(made(kind, HARD_FOR_LORA[kind]), 4)
    weights = [p for p in adapted.parameters() if p.requires_grad]
    assert weights
    optimizer, losses = torch.optim.Adam(weights, lr=0.01), []
    for _ in range(5):
        loss = response_losses(adapted, *batch).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    adapted.save_pretrained(tmp_path, save_embedding_layers=False)
    loaded = adapters.load_adapter(made(kind, HARD_FOR_LORA[kind]), tmp_path)
    mine = GradientScorer(adapted.eval().get_base_model()).score(*batch).loss
    torch.testing.assert_close(GradientScorer(loaded).score(*batch).loss, mine)


def test_lora_that_does_not_fit_is_told_with_the_way_out(monkeypatch):
    def fail(model, config):
        raise AttributeError("'tuple' object has no attribute 'dtype'\nmore of it")

    monkeypatch.setattr(adapters, "get_peft_model", fail)
    with pytest.raises(ModelError, match=r"LlamaForCausalLM takes no LoRA .* --warmup full, or no"):
        adapters.add_lora(tiny.make_model("llama-tied"), 4)


# -- weights and tokens


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_the_models_fault(tmp_path, bad):
    save_tiny_model(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    weights[name][3, 5] = bad
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=f"hold NaN or infinite numbers .{name}."):
        models.load_model(str(tmp_path), "cpu", torch.float32)


def test_an_adapter_of_no_numbers_is_the_adapters_fault(tmp_path):
    adapted = adapters.add_lora(tiny.make_model("llama-tied"), 4)
    next(p for p in adapted.parameters() if p.requires_grad).data[0, 0] = torch.nan
    adapted.save_pretrained(tmp_path, save_embedding_layers=False)
    with pytest.raises(ModelError, match="hold NaN or infinite numbers"):
        adapters.load_adapter(tiny.make_model("llama-tied"), tmp_path)


def test_tokens_beyond_the_model_are_told_by_number():
    model = tiny.make_model("llama-untied")
    refuse_unknown_tokens(model, np.array([[0, 96]]))
    refuse_unknown_tokens(model, np.array([], int))
    with pytest.raises(ModelError, match=r"tokens up to number 96, .* has written 97: give"):
        refuse_unknown_tokens(model, np.array([3, 97]))


def test_an_empty_chat_template_is_the_models_fault(tmp_path):
    save_tiny_model(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(" \n")
    with pytest.raises(ModelError, match=r"chat template of .* is empty"):
        models.load_tokenizer(str(tmp_path))


# -- before anything is trained, and with another try


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny model and its data."""
    place = tmp_path_factory.mktemp("refused")
    save_tiny_model(place / "model")
    write_data(place / "data.jsonl", 20)
    return place


def breaking(folder, how):
    """The model of a folder, made unfit."""
    if how == "bidirectional":
        made("bert", _BERT).save_pretrained(folder)
    elif how == "few tokens":
        made("llama", tiny._LLAMA | {"vocab_size": 12}).save_pretrained(folder)
    else:
        model = tiny.make_model("llama-tied")
        model.model.norm.weight.data[0] = torch.nan
        model.save_pretrained(folder)


@pytest.mark.parametrize("warmup", ["lora", "full", "none"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("bidirectional", "BertLMHeadModel is no causal language model"),
        ("few tokens", "knows tokens up to number 11, but its tokenizer has written"),
        ("nan", "hold NaN or infinite numbers"),
    ],
)
def test_a_model_is_refused_before_any_training_and_may_be_mended(
    place, tmp_path, how, message, warmup
):
    folder = shutil.copytree(place / "model", tmp_path / "model")
    breaking(folder, how)
    config = config_for(place, model=str(folder), warmup=warmup, heldout=0, epochs=0.1)
    run = Run.create(config, tmp_path / "run")
    assert worker.main(run, at_once=True) == 1
    assert message in run.read_status().error
    assert "unexpected" not in run.read_status().error
    assert run.read_metrics() == [], "nothing was trained or scored"
    shutil.rmtree(folder)
    shutil.copytree(place / "model", folder)
    assert worker.main(run, at_once=True) == 0, run.read_status().error
    assert run.scores_file.exists()
