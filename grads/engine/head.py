"""The LM head: how hidden states become logits, and its gradients without a V x d matrix.

The vocabulary is walked in blocks with an online softmax. What is held above the model is one block
of logits (`BLOCK_ELEMENTS`) and, a sample, a |R| x |R| matrix, whatever the vocabulary's size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Logits held at a time, response tokens x vocabulary block: 4 MB stay in a CPU's cache, 64 MB
# keep a GPU busy.
BLOCK_ELEMENTS = {"cpu": 2**20, "cuda": 2**24, "mps": 2**24}
MIN_BLOCK = 256  # columns of a block, however many response tokens there are


@dataclass(frozen=True)
class Head:
    """A linear head and its logits' bend: z = cap tanh(scale (Wh + b) / cap)."""

    weight: Tensor  # (V, d)
    bias: Tensor | None  # (V,)
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, h: Tensor, rows: slice | Tensor) -> tuple[Tensor, Tensor | float]:
        """Logits of h (N, d) at vocabulary `rows`, (N, C), and their slope at the linear map."""
        z = h @ self.weight[rows].to(h.dtype).T
        if self.bias is not None:
            z += self.bias[rows].to(h.dtype)
        return self._bend(z)

    def label_logits(self, h: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | float]:
        """Logit of each row's own label and its slope, both (N,)."""
        z = (h * self.weight[labels].to(h.dtype)).sum(1)
        if self.bias is not None:
            z += self.bias[labels].to(h.dtype)
        return self._bend(z)

    def _bend(self, z: Tensor) -> tuple[Tensor, Tensor | float]:
        if self.scale != 1.0:
            z *= self.scale
        if self.softcap is None:
            return z, self.scale
        z = z.div_(self.softcap).tanh_()
        return z * self.softcap, (1 - z * z) * self.scale


class Group(NamedTuple):
    """One sample's share of the batch's flattened response tokens."""

    rows: slice  # of the N response tokens
    tokens: Tensor  # (U,) the sample's distinct token ids
    of_token: Tensor  # (T,) index into `tokens` of each token
    of_label: Tensor  # (|R|,) index into `tokens` of each label

    @property
    def size(self) -> int:
        return len(self.of_label)


class HeadDirection(NamedTuple):
    """A head gradient G (V, k) that samples' own are held against, and what stands for h in it.

    k is the hidden size, or less where G is a sketch.
    """

    gradient: Tensor  # (V, k)
    inputs: Tensor  # (N, k): the hidden states, or their sketch


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
    dots: Tensor  # (K, N) sum over v of w[v] <G[v], h>, for each direction G


class HeadSignals(NamedTuple):
    """The head's part in the numbers of a batch; but for `norms` before the division by |R|."""

    loss: Tensor  # (N,)
    norms: Tensor  # (B,) head_grad_norm
    token_norms: Tensor  # (N,) |d_t| |h_t|
    own: list[Tensor]  # B of (|R|, U): d_t at the sample's distinct tokens
    dots: Tensor  # (K, N) <d_t, G h_t> for each direction G


class HeadPass(NamedTuple):
    """A walk over the vocabulary, and what another one would begin with."""

    signals: HeadSignals
    label_grad: Tensor  # (N,) d_t[y_t], like grad_hidden before the division by |R|
    log_norm: Tensor  # (N,) log of the softmax's normaliser
    grad_hidden: Tensor  # (N, d)


@torch.no_grad()
def head_pass(
    head: Head,
    h: Tensor,
    labels: Tensor,
    groups: list[Group],
    *,
    directions: Sequence[HeadDirection] = (),
) -> HeadPass:
    """The head's part in the gradients of a batch's N response tokens.

    h is (N, d), labels (N,); each of K directions costs one more head-sized product.
    """
    # Above |R| = d a second pass that builds blocks of the gradient beats the Gram matrix.
    wide = {i for i, group in enumerate(groups) if group.size > h.shape[1]}
    state = _walk_vocabulary(head, h, labels, groups, wide=wide, directions=directions)
    label_z, label_slope = head.label_logits(h, labels)
    log_others = state.peak + state.mass.log()
    log_norm = torch.logaddexp(log_others, label_z)
    unit = (state.peak - log_norm).exp()  # u * unit = probability
    label_grad = -(log_others - log_norm).exp() * label_slope
    grad_hidden = state.grad_hidden * unit[:, None]
    grad_hidden += label_grad[:, None] * head.weight[labels].to(h.dtype)
    dots = state.dots * unit
    for dot, (gradient, inputs) in zip(dots, directions, strict=True):
        dot += label_grad * (gradient[labels] * inputs).sum(1)

    norms, own = torch.zeros(len(groups), dtype=h.dtype, device=h.device), []
    squares = state.squares * unit**2 + label_grad**2
    for i, group in enumerate(groups):
        rows = group.rows
        off_label = _off_label(head, h[rows], group, log_norm[rows])
        own.append(_with_labels(off_label, group, label_grad[rows]))
        if i in wide:
            norms[i] = _norm_by_blocks(
                head, h[rows], labels[rows], log_norm[rows], label_grad=label_grad[rows]
            )
            continue
        gram = state.grams[i] * unit[rows, None] * unit[None, rows]
        cross = off_label[:, group.of_label].T * label_grad[rows, None]
        same = labels[rows, None] == labels[None, rows]
        gram += cross + cross.T + same * label_grad[rows, None] * label_grad[None, rows]
        squares[rows] = gram.diagonal()
        norms[i] = (gram * (h[rows] @ h[rows].T)).sum().clamp_min(0).sqrt() / group.size
    token_norms = squares.clamp_min(0).sqrt() * h.norm(dim=1)
    loss = F.softplus(log_others - label_z)
    signals = HeadSignals(loss, norms, token_norms, own, dots)
    return HeadPass(signals, label_grad, log_norm, grad_hidden)


def _walk_vocabulary(
    head: Head,
    h: Tensor,
    labels: Tensor,
    groups: list[Group],
    *,
    wide: set[int],
    directions: Sequence[HeadDirection],
) -> _HeadState:
    n = len(h)
    state = _HeadState(
        peak=h.new_full((n,), -torch.inf),
        mass=h.new_zeros(n),
        grad_hidden=torch.zeros_like(h),
        grams={i: h.new_zeros(g.size, g.size) for i, g in enumerate(groups) if i not in wide},
        squares=h.new_zeros(n),
        dots=h.new_zeros(len(directions), n),
    )
    for block in _blocks(len(head.weight), h):
        z, slope = head.logits(h, block)
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
        state.grad_hidden.addmm_(w, head.weight[block].to(h.dtype))
        state.dots *= decay
        for dot, (gradient, inputs) in zip(state.dots, directions, strict=True):
            dot += torch.linalg.vecdot(w, inputs @ gradient[block].T)
        for i, group in enumerate(groups):
            rows = group.rows
            if i in wide:
                square = (w[rows] ** 2).sum(1)
                state.squares[rows] = state.squares[rows] * decay[rows] ** 2 + square
            else:
                state.grams[i] *= decay[rows, None] * decay[None, rows]
                state.grams[i].addmm_(w[rows], w[rows].T)
    return state


def _off_label(head: Head, h: Tensor, group: Group, log_norm: Tensor) -> Tensor:
    """d_t at the sample's own tokens, (|R|, U), times |R|, with the labels' entries left 0."""
    z, slope = head.logits(h, group.tokens)
    return _with_labels((z - log_norm[:, None]).exp() * slope, group, h.new_zeros(len(h)))


def _with_labels(d: Tensor, group: Group, label_grad: Tensor) -> Tensor:
    """d (|R|, U) with these entries at the labels."""
    d = d.clone()
    d[torch.arange(len(d), device=d.device), group.of_label] = label_grad
    return d


def _norm_by_blocks(
    head: Head, h: Tensor, labels: Tensor, log_norm: Tensor, *, label_grad: Tensor
) -> Tensor:
    """head_grad_norm of one sample from blocks (C, d) of its weight gradient."""
    total = h.new_zeros(())
    for _, d in logit_gradients(head, h, labels, log_norm, label_grad=label_grad):
        total += (d.T @ h).square().sum()
    return total.sqrt() / len(h)


def logit_gradients(
    head: Head, h: Tensor, labels: Tensor, log_norm: Tensor, *, label_grad: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """d_t of N response tokens before the division by |R|, in blocks (N, C) of the vocabulary."""
    for block in _blocks(len(head.weight), h):
        z, slope = head.logits(h, block)
        d = (z - log_norm[:, None]).exp_() * slope
        inside, column = _labels_in(block, labels)
        d[inside, column] = label_grad[inside]
        yield block, d


@torch.no_grad()
def losses(head: Head, h: Tensor, labels: Tensor) -> Tensor:
    """(N,) negative log-likelihood of the labels alone, in nats; h is (N, d)."""
    peak, mass = h.new_full((len(h),), -torch.inf), h.new_zeros(len(h))
    for block in _blocks(len(head.weight), h):
        z, _ = head.logits(h, block)
        new = torch.maximum(peak, z.amax(1))
        mass = mass * (peak - new).exp() + z.sub_(new[:, None]).exp_().sum(1)
        peak = new
    label_z, _ = head.label_logits(h, labels)
    return peak + mass.log() - label_z


def group_rows(ids: Tensor, lengths: Tensor, labels: Tensor, counts: list[int]) -> list[Group]:
    groups, start = [], 0
    for row, length, count in zip(ids, lengths.tolist(), counts, strict=True):
        rows = slice(start, start + count)
        tokens, index = torch.cat([row[:length], labels[rows]]).unique(return_inverse=True)
        groups.append(Group(rows, tokens, index[:length], index[length:]))
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
