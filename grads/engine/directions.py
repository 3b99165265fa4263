"""The mean gradient of a probe set, and how each sample's own gradients lie to it.

With G the mean of the set's gradients, one matrix for the embedding and one for the head,

    embed_dot = <G_embed, G_P_embed> = sum_t <e_t, G_P_embed[x_t]>
    head_dot  = <G_head, G_P_head>   = sum_{t in R} <d_t, G_P_head h_t>

are exact and build no gradient of a sample: a look-up, and one more head-sized product in the walk
over the vocabulary. What is held a set, in float32: at the embedding the rows of the tokens that
the set holds, U x d, and at the head V x d; with a sketch V x k, exact no more: the hidden states
pass a random map of d to k numbers that keeps inner products on average, off by about
|G| |G_P| / sqrt(k).

`rds` is a similarity that needs no gradient: of the position-weighted mean of a sample's hidden
states to those of the set's samples, the mean of their cosines (RDS+: Ivison et al. 2025,
arXiv 2503.01807, there with the model before any training).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grads.engine.autograd import accumulate_in
from grads.engine.flow import Flow, WalkedFlow
from grads.engine.head import Head, HeadDirection, logit_gradients

TINY = 1e-30


class Towards(NamedTuple):
    """How B samples lie to a probe set; dots are of gradients of mean losses."""

    embed_dot: Tensor  # (B,)
    head_dot: Tensor  # (B,)
    embed_cosine: Tensor  # (B,)
    head_cosine: Tensor  # (B,)
    cosine: Tensor  # (B,) of both layers as one vector
    rds: Tensor  # (B,) mean cosine of what the model reads in the sample and in the set's samples


@dataclass(frozen=True)
class Direction:
    """The mean gradient of a probe set, and the mean of what the model reads in its samples."""

    embed: Tensor  # (U + 1, d_e) rows of the tokens that the set holds, then one of zeros
    row_of: Tensor  # (V,) the row of each token
    head: Tensor  # (V, k)
    sketch: Tensor | None  # (d, k)
    reading: Tensor  # (d,)

    def at_head(self, h: Tensor) -> HeadDirection:
        """What the walk over the vocabulary needs for response tokens h (N, d)."""
        return HeadDirection(self.head, h if self.sketch is None else h @ self.sketch)

    def towards(self, flow: Flow, head_dots: Tensor, embed: Tensor, head: Tensor) -> Towards:
        """How a batch lies to the set.

        `head_dots` (N,) are the walk's, `embed` and `head` (B,) the samples' own norms.
        """
        at_token = self.embed[self.row_of[flow.ids]]
        embed_dot = (flow.e * at_token).sum((1, 2))
        head_dot = torch.stack([head_dots[g.rows].mean() for g in flow.groups])
        mine, theirs = (embed, head), (self.embed.norm(), self.head.norm())
        both = torch.hypot(*mine) * torch.hypot(*theirs)
        return Towards(
            embed_dot,
            head_dot,
            embed_dot / (embed * theirs[0]).clamp_min(TINY),
            head_dot / (head * theirs[1]).clamp_min(TINY),
            (embed_dot + head_dot) / both.clamp_min(TINY),
            readings(flow) @ self.reading,
        )


class MeanGradient:
    """Adds up the gradients of a probe set, batch by batch."""

    def __init__(
        self, tokens: Tensor, embedding: nn.Embedding, head: Head, sketch: Tensor | None = None
    ) -> None:
        """`tokens` (U,) are the set's distinct ids."""
        (vocabulary, hidden), device = head.weight.shape, head.weight.device
        dtype = accumulate_in(head.weight.dtype)
        width = hidden if sketch is None else sketch.shape[1]
        self._model_head, self._samples = head, 0
        self._row_of = torch.full((embedding.num_embeddings,), len(tokens), device=device)
        self._row_of[tokens] = torch.arange(len(tokens), device=device)
        rows = (len(tokens) + 1, embedding.embedding_dim)
        self._embed = torch.zeros(rows, dtype=dtype, device=device)
        self._head = torch.zeros(vocabulary, width, dtype=dtype, device=device)
        self._reading = torch.zeros(hidden, dtype=dtype, device=device)
        self._sketch = sketch

    @torch.no_grad()
    def add(self, flow: WalkedFlow) -> None:
        """Add the gradients of a batch's samples."""
        for i, group in enumerate(flow.groups):
            length = len(group.of_token)
            rows = self._row_of[flow.ids[i, :length]]
            self._embed.index_add_(0, rows, flow.e[i, :length])
        size = torch.cat([flow.h.new_full((g.size, 1), g.size) for g in flow.groups])
        inputs = (flow.h if self._sketch is None else flow.h @ self._sketch) / size
        for block, d in logit_gradients(
            self._model_head, flow.h, flow.labels, flow.log_norm, label_grad=flow.label_grad
        ):
            self._head[block].addmm_(d.T, inputs)
        self._reading += readings(flow).sum(0)
        self._samples += len(flow.groups)

    def direction(self) -> Direction:
        """The mean of all that was added."""
        sums = (self._embed, self._head, self._reading)
        embed, head, reading = (total / self._samples for total in sums)
        return Direction(embed, self._row_of, head, self._sketch, reading)


def sketch_map(hidden: int, width: int, seed: int) -> Tensor:
    """(hidden, width) seeded map with orthogonal columns that keeps inner products on average."""
    gauss = torch.randn(hidden, width, generator=torch.Generator().manual_seed(seed))
    orthogonal: Tensor = torch.linalg.qr(gauss).Q
    return orthogonal * math.sqrt(hidden / width)


def readings(flow: Flow) -> Tensor:
    """(B, d) of length 1: mean of the hidden states over all tokens, the t-th with weight t."""
    place = torch.arange(1, flow.ids.shape[1] + 1, device=flow.ids.device)
    weight = (place * (place <= flow.lengths[:, None])).to(flow.h.dtype)
    weight /= weight.sum(1, keepdim=True)
    mean: Tensor = torch.einsum("bt,btd->bd", weight, flow.hidden.to(flow.h.dtype))
    return F.normalize(mean, dim=1)
