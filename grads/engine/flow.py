"""One batch's way through the model and back: what every number of its samples is made of."""

from dataclasses import dataclass

import torch
from torch import Tensor

from grads.data.tokens import IGNORE
from grads.engine.head import Group, HeadSignals


@dataclass(frozen=True)
class Flow:
    """A batch of B samples with T tokens at most and N response tokens in all."""

    ids: Tensor  # (B, T), padding on the right
    lengths: Tensor  # (B,)
    hidden: Tensor  # (B, T, d) what enters the head
    h: Tensor  # (N, d) the same at the response positions, in the format that sums are kept in
    labels: Tensor  # (N,)
    groups: list[Group]  # B: which rows of h are whose
    head: HeadSignals
    e: Tensor  # (B, T, d_e) gradient of each sample's mean loss at its token embeddings


@dataclass(frozen=True)
class WalkedFlow(Flow):
    """One whose logits were made block by block, and can be again."""

    log_norm: Tensor  # (N,) log of the softmax's normaliser
    label_grad: Tensor  # (N,) d_t[y_t] before the division by |R|


def squeeze_padding(ids: Tensor, mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each row's real tokens moved to the left: (ids, lengths (B,), labels)."""
    order = mask.argsort(dim=1, descending=True, stable=True)
    lengths = mask.sum(1)
    width = int(lengths.max())
    real = torch.arange(width, device=ids.device) < lengths[:, None]
    ids = ids.gather(1, order)[:, :width]
    labels = labels.gather(1, order)[:, :width].masked_fill(~real, IGNORE)
    return ids, lengths, labels
