"""Tiny randomly initialised models of many architectures, and the slow reference for gradients."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM

VOCAB, HIDDEN = 97, 32

_LLAMA = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_OPT = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "pad_token_id": 1,
    "dropout": 0.0,
}

# name -> (model type, settings)
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"vocab_size": VOCAB, "n_embd": HIDDEN, "n_layer": 2, "n_head": 4}),
    "llama-tied": ("llama", {**_LLAMA, "tie_word_embeddings": True}),
    "llama-untied": ("llama", {**_LLAMA, "tie_word_embeddings": False}),
    "qwen2": ("qwen2", {**_LLAMA, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {**_LLAMA, "tie_word_embeddings": True}),
    "mistral": ("mistral", {**_LLAMA, "sliding_window": 8}),
    "gemma2-softcap": ("gemma2", {**_LLAMA, "final_logit_softcapping": 2.0, "sliding_window": 8}),
    "gemma3-scaled-embedding": ("gemma3_text", {**_LLAMA, "sliding_window": 8}),
    "phi3": ("phi3", {**_LLAMA, "tie_word_embeddings": False}),
    "gpt-neox": ("gpt_neox", {k: v for k, v in _LLAMA.items() if k != "head_dim"}),
    "opt": ("opt", _OPT),
    "opt-projected": ("opt", {**_OPT, "word_embed_proj_dim": 16, "do_layer_norm_before": False}),
    "granite-logit-scaling": ("granite", {**_LLAMA, "logits_scaling": 4.0}),
    "cohere-logit-scale": ("cohere", {**_LLAMA, "logit_scale": 0.25}),
    "mixtral-moe": ("mixtral", {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "phi-head-bias": ("phi", {k: v for k, v in _LLAMA.items() if k != "head_dim"}),
}


def make_model(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A tiny model with weights far larger than the usual initialisation, so that no term hides."""
    kind, settings = ARCHITECTURES[name]
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@dataclass
class Sample:
    """Token ids and the mask of trained tokens, both (T,)."""

    ids: np.ndarray
    trained: np.ndarray


def make_samples(seed: int = 0, lengths: tuple[int, ...] = (5, 12, 30, 23, 9)) -> list[Sample]:
    """Mixed lengths, repeated tokens (a small alphabet), one response or several turns."""
    rng = np.random.default_rng(seed)
    samples = []
    for n, length in enumerate(lengths):
        ids = rng.integers(3, VOCAB if n % 2 else 12, length)
        trained = np.zeros(length, bool)
        trained[length // 2 :] = True
        if n % 3 == 2:  # multi-turn: an earlier trained stretch as well
            trained[2:5] = True
        samples.append(Sample(ids, trained))
    return samples


def collate(samples: list[Sample], pad_id: int, side: str = "right") -> tuple[torch.Tensor, ...]:
    """(input_ids, attention_mask, labels), padded on one side."""
    width = max(len(sample.ids) for sample in samples)
    ids = torch.full((len(samples), width), pad_id)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, sample in enumerate(samples):
        place = slice(0, len(sample.ids)) if side == "right" else slice(-len(sample.ids), None)
        ids[row, place] = torch.from_numpy(sample.ids)
        mask[row, place] = 1
        trained = torch.from_numpy(np.where(sample.trained, sample.ids, -100))
        labels[row, place] = trained
    return ids, mask, labels


@dataclass
class Expected:
    """What plain autograd says of one sample."""

    loss: float
    embed_grad_norm: float
    head_grad_norm: float
    grad_dot: float
    embed_token_norm: np.ndarray
    head_token_norm: np.ndarray


def gradients(model: Any, sample: Sample) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of one sample's mean loss at the embedding and the head; its hidden states (T, d).

    By one backward pass through an untied copy of the head.
    """
    kept: list[Any] = []
    reference(model, sample, kept)
    return kept[0], kept[1], kept[2]


def reference(model: Any, sample: Sample, keep: list[Any] | None = None) -> Expected:
    """One backward pass of one sample through an untied copy of the head, weight by weight.

    `keep` gets the two gradients and the hidden states.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied, padding_idx = head.weight, embedding.padding_idx
    head.weight = torch.nn.Parameter(tied.detach().clone())
    embedding.padding_idx = None
    embedding.weight.requires_grad_(True)
    kept: dict[str, torch.Tensor] = {}

    def keep_embedding(module: Any, args: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        kept["e"] = output

    def keep_hidden(module: Any, args: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        kept["h"], kept["z"] = args[0], output

    hooks = [
        embedding.register_forward_hook(keep_embedding),
        head.register_forward_hook(keep_hidden),
    ]
    try:
        model.zero_grad()
        logits = model(input_ids=torch.from_numpy(sample.ids)[None]).logits[0]
        places = np.flatnonzero(sample.trained[1:])
        targets = torch.from_numpy(sample.ids[1:][places])
        loss = F.cross_entropy(logits[places], targets)
        loss.backward()
        embed, out = embedding.weight.grad, head.weight.grad
        if keep is not None:
            keep += [embed.clone(), out.clone(), kept["h"][0].detach().clone()]
        scale = float(getattr(embedding, "embed_scale", 1.0))
        z, h = kept["z"].grad[0, places], kept["h"][0, places]
        return Expected(
            loss=loss.item(),
            embed_grad_norm=embed.norm().item(),
            head_grad_norm=out.norm().item(),
            grad_dot=(embed * out).sum().item(),
            embed_token_norm=(kept["e"].grad[0].norm(dim=1) * scale).numpy(),
            head_token_norm=(z.norm(dim=1) * h.norm(dim=1)).detach().numpy(),
        )
    finally:
        for hook in hooks:
            hook.remove()
        head.weight, embedding.padding_idx = tied, padding_idx
        model.zero_grad(set_to_none=True)
