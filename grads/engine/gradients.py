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

`autograd_norms` is the slow, obvious way, for a run's self-check.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grads.engine.anatomy import HeadReached, describe, tapped

IGNORE = -100  # label of a position that carries no loss, as everywhere in Transformers
# Logits held at a time, response tokens x vocabulary block: 4 MB stay in a CPU's cache, 64 MB
# keep a GPU busy.
BLOCK_ELEMENTS = {"cpu": 2**20, "cuda": 2**24, "mps": 2**24}
MIN_BLOCK = 256  # columns of a block, however many response tokens there are


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


class _Group(NamedTuple):
    """One sample's share of the batch's flattened response tokens."""

    rows: slice  # of the N response tokens
    tokens: Tensor  # (U,) the sample's distinct token ids
    of_token: Tensor  # (T,) index into `tokens` of each token
    of_label: Tensor  # (|R|,) index into `tokens` of each label

    @property
    def size(self) -> int:
        return len(self.of_label)


@dataclass
class _HeadState:
    """Online sums over the vocabulary without each row's label, N = response tokens.

    The label's own entry stays out and is put back at the end as minus the sum of the others:
    1 - p(label), taken directly, loses all its digits once a token is well learned.
    """

    peak: Tensor  # (N,) running maximum m of the other logits
    mass: Tensor  # (N,) sum of u = exp(z - m)
    grad_hidden: Tensor  # (N, d) sum of u * slope * W
    grams: dict[int, Tensor]  # sample -> (|R|, |R|) sum over v of w_s[v] w_t[v], w = u * slope
    squares: Tensor  # (N,) sum of w^2, for the samples without a Gram matrix


class _HeadResult(NamedTuple):
    loss: Tensor  # (N,)
    label_grad: Tensor  # (N,) d_t[y_t]; like all below before the division by |R|
    log_norm: Tensor  # (N,) log of the softmax's normaliser
    grad_hidden: Tensor  # (N, d)
    norms: Tensor  # (B,) head_grad_norm
    token_norms: Tensor  # (N,) |d_t| |h_t|


class GradientScorer:
    """Scores batches with one model, whose embedding, body and head it has checked.

    Raises ModelError by name where the logits are not a known function of a linear head, or the
    embedding is not a plain (or scaled) look-up: then no exact rule is known.
    """

    def __init__(self, model: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        self.embedding, self.embed_scale, self.head = describe(model)

    def score(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> SampleGradients:
        """Gradients of each of B samples, exactly as if it were alone.

        All three are (B, T) integer tensors; padding may be on either side; `labels` are the ids
        of trained tokens and -100 elsewhere. Every sample needs at least one label beyond its
        first token.
        """
        input_ids, lengths, labels = squeeze_padding(input_ids, attention_mask, labels)
        sample, position = torch.nonzero(labels[:, 1:] != IGNORE, as_tuple=True)
        counts = torch.bincount(sample, minlength=len(labels)).tolist()
        if min(counts) == 0:
            raise ValueError(f"sample {counts.index(0)} of the batch has no trained token")
        with torch.enable_grad():
            hidden, leaf = self._forward(input_ids)
        h = hidden.detach()[sample, position]
        h = h.to(_accumulate_in(h.dtype))
        targets = labels[sample, position + 1]
        groups = _groups(input_ids, lengths, targets, counts)
        result = self._head_pass(h, targets, groups)

        per_row = torch.tensor(counts, device=h.device).to(h.dtype)[sample, None]
        grad_hidden = torch.zeros_like(hidden)
        grad_hidden[sample, position] = (result.grad_hidden / per_row).to(hidden.dtype)
        (e,) = torch.autograd.grad(hidden, leaf, grad_hidden)
        return self._collect(h, e.to(h.dtype) * self.embed_scale, groups, result)

    def _forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """What enters the head, (B, T, d), and the embedding output it depends on.

        Padding is on the right, where causal attention never sees it: no mask is needed.
        """
        head = self.model.get_output_embeddings()
        with tapped(self.embedding, head) as tap, suppress(HeadReached):
            self.model(input_ids=input_ids, use_cache=False)
        assert tap.hidden is not None
        return tap.hidden, tap.leaves[0]

    @torch.no_grad()
    def _head_pass(self, h: Tensor, labels: Tensor, groups: list[_Group]) -> _HeadResult:
        # Above |R| = d a second pass that builds blocks of the gradient beats the Gram matrix.
        wide = {i for i, group in enumerate(groups) if group.size > h.shape[1]}
        state = self._walk_vocabulary(h, labels, groups, wide)
        label_z, label_slope = self.head.label_logits(h, labels)
        log_others = state.peak + state.mass.log()
        log_norm = torch.logaddexp(log_others, label_z)
        unit = (state.peak - log_norm).exp()  # u * unit = probability
        label_grad = -(log_others - log_norm).exp() * label_slope
        grad_hidden = state.grad_hidden * unit[:, None]
        grad_hidden += label_grad[:, None] * self.head.weight[labels].to(h.dtype)

        norms = torch.zeros(len(groups), dtype=h.dtype, device=h.device)
        squares = state.squares * unit**2 + label_grad**2
        for i, group in enumerate(groups):
            rows = group.rows
            if i in wide:
                norms[i] = self._norm_by_blocks(
                    h[rows], labels[rows], log_norm[rows], label_grad[rows]
                )
                continue
            off_label = self._probabilities(h[rows], group, log_norm[rows])
            gram = state.grams[i] * unit[rows, None] * unit[None, rows]
            cross = off_label[:, group.of_label].T * label_grad[rows, None]
            same = labels[rows, None] == labels[None, rows]
            gram += cross + cross.T + same * label_grad[rows, None] * label_grad[None, rows]
            squares[rows] = gram.diagonal()
            norms[i] = (gram * (h[rows] @ h[rows].T)).sum().clamp_min(0).sqrt() / group.size
        token_norms = squares.clamp_min(0).sqrt() * h.norm(dim=1)
        loss = F.softplus(log_others - label_z)
        return _HeadResult(loss, label_grad, log_norm, grad_hidden, norms, token_norms)

    def _walk_vocabulary(
        self, h: Tensor, labels: Tensor, groups: list[_Group], wide: set[int]
    ) -> _HeadState:
        n = len(h)
        state = _HeadState(
            peak=h.new_full((n,), -torch.inf),
            mass=h.new_zeros(n),
            grad_hidden=torch.zeros_like(h),
            grams={i: h.new_zeros(g.size, g.size) for i, g in enumerate(groups) if i not in wide},
            squares=h.new_zeros(n),
        )
        for block in _blocks(len(self.head.weight), h):
            z, slope = self.head.logits(h, block)
            inside, column = _labels_in(block, labels)
            z[inside, column] = -torch.inf
            peak = torch.maximum(state.peak, z.amax(1))
            decay = (state.peak - peak).exp()
            w = z.sub_(peak[:, None]).exp_()
            state.mass = state.mass * decay + w.sum(1)
            state.peak = peak
            if isinstance(slope, Tensor) or slope != 1.0:
                w *= slope
            state.grad_hidden *= decay[:, None]
            state.grad_hidden.addmm_(w, self.head.weight[block].to(h.dtype))
            for i, group in enumerate(groups):
                rows = group.rows
                if i in wide:
                    square = (w[rows] ** 2).sum(1)
                    state.squares[rows] = state.squares[rows] * decay[rows] ** 2 + square
                else:
                    state.grams[i] *= decay[rows, None] * decay[None, rows]
                    state.grams[i].addmm_(w[rows], w[rows].T)
        return state

    def _probabilities(self, h: Tensor, group: _Group, log_norm: Tensor) -> Tensor:
        """d_t at the sample's own tokens, (|R|, U), times |R|, with the labels' entries left 0."""
        z, slope = self.head.logits(h, group.tokens)
        p = (z - log_norm[:, None]).exp() * slope
        p[torch.arange(len(h), device=h.device), group.of_label] = 0
        return p

    def _norm_by_blocks(
        self, h: Tensor, labels: Tensor, log_norm: Tensor, label_grad: Tensor
    ) -> Tensor:
        """head_grad_norm of one sample from blocks (C, d) of its weight gradient."""
        total = h.new_zeros(())
        for block in _blocks(len(self.head.weight), h):
            z, slope = self.head.logits(h, block)
            d = (z - log_norm[:, None]).exp_() * slope
            inside, column = _labels_in(block, labels)
            d[inside, column] = label_grad[inside]
            total += (d.T @ h).square().sum()
        return total.sqrt() / len(h)

    def _collect(
        self, h: Tensor, e: Tensor, groups: list[_Group], result: _HeadResult
    ) -> SampleGradients:
        """Put the batch's parts together; h is (N, d), e (B, T, d) the gradients at the weights."""
        loss, embed, dot, mean_hidden = [], [], [], []
        for i, group in enumerate(groups):
            h_i, label_grad = h[group.rows], result.label_grad[group.rows]
            # Gradients of equal token ids fall on the same row of the embedding: add, then norm.
            rows = e.new_zeros(len(group.tokens), e.shape[2])
            rows.index_add_(0, group.of_token, e[i, : len(group.of_token)])
            embed.append(rows.norm())
            d = self._probabilities(h_i, group, result.log_norm[group.rows])
            d[torch.arange(len(h_i), device=h.device), group.of_label] = label_grad
            same_shape = rows.shape[1] == h.shape[1]  # without it there is no inner product
            dot.append(
                (d * (h_i @ rows.T)).sum() / group.size if same_shape else h.new_tensor(torch.nan)
            )
            loss.append(result.loss[group.rows].mean())
            mean_hidden.append(h_i.mean(0))
        return SampleGradients(
            loss=torch.stack(loss),
            embed_grad_norm=torch.stack(embed),
            head_grad_norm=result.norms,
            grad_dot=torch.stack(dot),
            mean_hidden=torch.stack(mean_hidden),
            embed_token_norm=[e[i, : len(g.of_token)].norm(dim=1) for i, g in enumerate(groups)],
            head_token_norm=[result.token_norms[g.rows] / g.size for g in groups],
        )


def squeeze_padding(ids: Tensor, mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each row's real tokens moved to the left: (ids, lengths (B,), labels)."""
    order = mask.argsort(dim=1, descending=True, stable=True)
    lengths = mask.sum(1)
    width = int(lengths.max())
    real = torch.arange(width, device=ids.device) < lengths[:, None]
    ids = ids.gather(1, order)[:, :width]
    labels = labels.gather(1, order)[:, :width].masked_fill(~real, IGNORE)
    return ids, lengths, labels


def _groups(ids: Tensor, lengths: Tensor, labels: Tensor, counts: list[int]) -> list[_Group]:
    groups, start = [], 0
    for row, length, count in zip(ids, lengths.tolist(), counts, strict=True):
        rows = slice(start, start + count)
        tokens, index = torch.cat([row[:length], labels[rows]]).unique(return_inverse=True)
        groups.append(_Group(rows, tokens, index[:length], index[length:]))
        start += count
    return groups


def _blocks(vocabulary: int, h: Tensor) -> Iterator[slice]:
    width = max(BLOCK_ELEMENTS[h.device.type] // len(h), MIN_BLOCK)
    for start in range(0, vocabulary, width):
        yield slice(start, min(start + width, vocabulary))


def _labels_in(block: slice, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows have their label in the block, and its column there."""
    (inside,) = torch.nonzero((labels >= block.start) & (labels < block.stop), as_tuple=True)
    return inside, labels[inside] - block.start


def _accumulate_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


class SampleNorms(NamedTuple):
    """The numbers of one sample."""

    loss: float
    embed_grad_norm: float
    head_grad_norm: float
    grad_dot: float


def autograd_norms(model: Any, input_ids: Tensor, labels: Tensor) -> SampleNorms:
    """The same numbers by plain autograd, one sample (T,) without padding: slow, obvious, V x d.

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
            logits = logits.to(_accumulate_in(logits.dtype))
            loss = F.cross_entropy(logits, labels[1:], ignore_index=IGNORE)
            embed, out = torch.autograd.grad(loss, (embedding.weight, head.weight))
    finally:
        head.weight, embedding.padding_idx = weight, padding_idx
        embedding.weight.requires_grad_(trainable)
    loss, embed, out = loss.detach(), embed.to(logits.dtype), out.to(logits.dtype)
    # Row by row first: one sum over V x d numbers would lose four digits in float32.
    dot = (embed * out).sum(1).sum() if embed.shape == out.shape else torch.nan
    embed_norm, head_norm = (float(gradient.norm(dim=1).norm()) for gradient in (embed, out))
    return SampleNorms(float(loss), embed_norm, head_norm, float(dot))
