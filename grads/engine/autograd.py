"""The numbers of one sample by plain autograd: what the fast way is held against in every run."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grads.data.tokens import IGNORE


class SampleNorms(NamedTuple):
    """The numbers of one sample."""

    loss: float
    embed_grad_norm: float
    head_grad_norm: float
    grad_dot: float


def autograd_norms(model: Any, input_ids: Tensor, labels: Tensor) -> SampleNorms:
    """The same numbers by plain autograd, one sample (T,) without padding: slow, obvious, V x d."""
    loss, embed, out = autograd_gradients(model, input_ids, labels)
    dot = inner(embed, out) if embed.shape == out.shape else torch.nan
    embed_norm, head_norm = (float(gradient.norm(dim=1).norm()) for gradient in (embed, out))
    return SampleNorms(float(loss), embed_norm, head_norm, float(dot))


def autograd_gradients(
    model: Any, input_ids: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean loss of one sample (T,), and its gradients at the embedding and the head, V x d each.

    Tied weights are told apart by giving the head a copy, and the embedding's padding row,
    which autograd would zero, is counted.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    weight, padding_idx, trainable = (
        head.weight,
        embedding.padding_idx,
        embedding.weight.requires_grad,
    )
    head.weight, embedding.padding_idx = nn.Parameter(weight.detach().clone()), None
    embedding.weight.requires_grad_(True)
    try:
        with torch.enable_grad():
            logits = model(input_ids=input_ids[None], use_cache=False).logits[0, :-1]
            logits = logits.to(accumulate_in(logits.dtype))
            loss = F.cross_entropy(logits, labels[1:], ignore_index=IGNORE)
            embed, out = torch.autograd.grad(loss, (embedding.weight, head.weight))
    finally:
        head.weight, embedding.padding_idx = weight, padding_idx
        embedding.weight.requires_grad_(trainable)
    return loss.detach(), embed.to(logits.dtype), out.to(logits.dtype)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b>, row by row first: one sum over V x d numbers would lose four digits in float32."""
    return (a * b).sum(1).sum()


def accumulate_in(dtype: torch.dtype) -> torch.dtype:
    """The format that sums are kept in: never under float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
