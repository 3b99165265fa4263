"""Per-sample gradients at the embedding layer and at the LM head: exact, batched, V-free.

For one sample with tokens x_1..x_T, response positions R and mean loss L over R, let e_t be the
gradient of L at the embedding of token t, h_t the hidden state that enters the head and d_t the
gradient of L at the logits of response position t. Then (method: arXiv 2511.08620, our reading)

    embed_grad_norm = || sum_t onehot(x_t) e_t' ||_F
    head_grad_norm  = || sum_{t in R} d_t h_t' ||_F = sqrt( sum_{s,t in R} <d_s, d_t> <h_s, h_t> )
    grad_dot        = < G_embed, G_head >           = sum_{s in R, t} d_s[x_t] <h_s, e_t>

are the norms of the two weight gradients and their inner product. No weight gradient is built:
the body runs once with frozen weights, the head is walked in blocks of the vocabulary with an
online softmax, and one backward pass of activations leads to the embeddings. What is held above
the model and its body's activations is one block of logits (`BLOCK_ELEMENTS`) and, a sample, a
|R| x |R| matrix, whatever the vocabulary's size.

Against the mean gradient of a probe set (`directions.py`) the same pass gives inner products.
`during.py` finds the same numbers in a training's own pass.
`autograd.py` is the slow, obvious way, for a run's self-check.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import nan
from typing import Any, Self

import torch
from torch import Tensor

from grads.data.tokens import IGNORE
from grads.engine.anatomy import HeadReached, describe, tapped
from grads.engine.autograd import accumulate_in
from grads.engine.directions import Direction, Towards
from grads.engine.flow import Flow, WalkedFlow, squeeze_padding
from grads.engine.head import group_rows, head_pass, losses


@dataclass(frozen=True)
class SampleGradients:
    """What one batch of B samples yields. Norms are of the gradient of the sample's mean loss."""

    loss: Tensor  # (B,) nats per response token
    embed_grad_norm: Tensor  # (B,)
    head_grad_norm: Tensor  # (B,)
    grad_dot: Tensor  # (B,)
    mean_hidden: Tensor  # (B, d) mean over response positions of what enters the head
    embed_token_norm: list[Tensor]  # B of (T_i,): norm of e_t at each token
    head_token_norm: list[Tensor]  # B of (|R_i|,): |d_t| |h_t| at each response token
    towards: list[Towards] = field(default_factory=list)  # one for each direction asked for


class GradientScorer:
    """Scores batches with one model, whose embedding, body and head it has checked.

    Raises ModelError by name where the logits are not a known function of a linear head, or the
    embedding is not a plain (or scaled) look-up: then no exact rule is known.
    """

    def __init__(self, model: Any) -> None:
        self.model, self._mixed = model.eval().requires_grad_(False), False
        self.embedding, self.embed_scale, self.head = describe(model)

    @classmethod
    def beside_training(cls, model: Any, dtype: torch.dtype) -> Self:
        """One of a model whose weights go on being trained: it scores with those of the moment.

        The body computes in `dtype`, as in the training; the head as always.
        """
        scorer = cls.__new__(cls)
        scorer.model, scorer._mixed = model.eval(), dtype == torch.bfloat16
        scorer.embedding, scorer.embed_scale, scorer.head = describe(model)
        return scorer

    def score(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        directions: Sequence[Direction] = (),
    ) -> SampleGradients:
        """Gradients of each of B samples, exactly as if it were alone.

        The first three are (B, T) integer tensors; padding may be on either side; `labels` are the
        ids of trained tokens and -100 elsewhere. Every sample needs at least one label beyond its
        first token. Each of `directions` adds how the samples lie to it.
        """
        return collected(self.flow(input_ids, attention_mask, labels, directions), directions)

    def flow(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        directions: Sequence[Direction] = (),
    ) -> WalkedFlow:
        """The batch's way through body and head and back to the embeddings; as `score` takes it."""
        ids, lengths, labels = squeeze_padding(input_ids, attention_mask, labels)
        with torch.enable_grad():
            hidden, leaf = self.to_head(ids)
        h, targets, sample, position = _responses(hidden, labels)
        counts = torch.bincount(sample, minlength=len(ids)).tolist()
        groups = group_rows(ids, lengths, targets, counts)
        at_head = [direction.at_head(h) for direction in directions]
        result = head_pass(self.head, h, targets, groups, directions=at_head)

        per_row = torch.tensor(counts, device=h.device).to(h.dtype)[sample, None]
        grad_hidden = torch.zeros_like(hidden)
        grad_hidden[sample, position] = (result.grad_hidden / per_row).to(hidden.dtype)
        (e,) = torch.autograd.grad(hidden, leaf, grad_hidden)
        e = e.to(h.dtype) * self.embed_scale
        return WalkedFlow(
            ids,
            lengths,
            hidden.detach(),
            h,
            targets,
            groups,
            result.signals,
            e,
            log_norm=result.log_norm,
            label_grad=result.label_grad,
        )

    @torch.no_grad()
    def losses(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Tensor:
        """(B,) mean loss of each sample in nats per response token, by a forward pass alone."""
        ids, _, labels = squeeze_padding(input_ids, attention_mask, labels)
        h, targets, sample, _ = _responses(self.to_head(ids)[0], labels)
        each = losses(self.head, h, targets)
        summed = each.new_zeros(len(ids)).index_add_(0, sample, each)
        return summed / torch.bincount(sample, minlength=len(ids))

    def to_head(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """What enters the head, (B, T, d), and the embedding output it depends on.

        Padding is on the right, where causal attention never sees it: no mask is needed.
        """
        head = self.model.get_output_embeddings()
        mixed = torch.autocast(input_ids.device.type, torch.bfloat16, enabled=self._mixed)
        with tapped(self.embedding, head) as tap, suppress(HeadReached), mixed:
            self.model(input_ids=input_ids, use_cache=False)
        assert tap.hidden is not None
        return tap.hidden, tap.leaves[0]


def collected(flow: Flow, directions: Sequence[Direction] = ()) -> SampleGradients:
    """The numbers of a batch's samples; `directions` are those that the flow was made with."""
    embed, dot, head, e = [], [], flow.head, flow.e
    for i, group in enumerate(flow.groups):
        # Gradients of equal token ids fall on the same row of the embedding: add, then norm.
        rows = e.new_zeros(len(group.tokens), e.shape[2])
        rows.index_add_(0, group.of_token, e[i, : len(group.of_token)])
        embed.append(rows.norm())
        h = flow.h[group.rows]
        same_shape = rows.shape[1] == h.shape[1]  # without it there is no inner product
        dot.append(
            (head.own[i] * (h @ rows.T)).sum() / group.size if same_shape else h.new_tensor(nan)
        )
    embed_norm = torch.stack(embed)
    return SampleGradients(
        loss=torch.stack([head.loss[g.rows].mean() for g in flow.groups]),
        embed_grad_norm=embed_norm,
        head_grad_norm=head.norms,
        grad_dot=torch.stack(dot),
        mean_hidden=torch.stack([flow.h[g.rows].mean(0) for g in flow.groups]),
        embed_token_norm=[e[i, : len(g.of_token)].norm(dim=1) for i, g in enumerate(flow.groups)],
        head_token_norm=[head.token_norms[g.rows] / g.size for g in flow.groups],
        towards=[
            direction.towards(flow, dots, embed_norm, head.norms)
            for direction, dots in zip(directions, head.dots, strict=True)
        ],
    )


def _responses(hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the N response tokens: hidden state (N, d), label, sample and position; (N,) each."""
    sample, position = torch.nonzero(labels[:, 1:] != IGNORE, as_tuple=True)
    counts = torch.bincount(sample, minlength=len(labels)).tolist()
    if min(counts) == 0:
        raise ValueError(f"sample {counts.index(0)} of the batch has no trained token")
    h = hidden.detach()[sample, position]
    return h.to(accumulate_in(h.dtype)), labels[sample, position + 1], sample, position
