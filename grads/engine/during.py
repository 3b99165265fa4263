"""Per-sample gradients out of a training's own pass, for next to nothing.

Backward on a batch of `share * sum of the losses of all response tokens` yields, on its way to the
weights, the gradient at the embedding's output and the one at the head's. Divided by the share,
and by a sample's number of response tokens, they are that sample's own: e_t and d_t of
`gradients.py`, exact for the weights (and the dropout) of that step. What the training does not do
anyway is one |R| x |R| product a sample, and the last step of the backward pass where the embedding
is frozen. The training itself is not touched: its weights end up the same to the last bit.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from grads.data.tokens import IGNORE
from grads.engine.autograd import accumulate_in
from grads.engine.directions import Direction
from grads.engine.flow import Flow
from grads.engine.gradients import GradientScorer, SampleGradients, collected
from grads.engine.head import HeadSignals, group_rows
from grads.engine.loss import response_losses


class TrainingTap:
    """Reads the gradients of samples in the passes that train a model."""

    def __init__(self, model: Any, dtype: torch.dtype = torch.float32) -> None:
        """`model` before its training in `dtype`: it is described here, in evaluation mode.

        Raises ModelError where no exact rule is known for its embedding or its head.
        """
        self.scorer, self.model = GradientScorer.beside_training(model, dtype), model

    @contextmanager
    def reading(
        self,
        batch: tuple[Tensor, Tensor, Tensor],
        share: float,
        directions: Sequence[Direction] = (),
    ) -> Iterator["PassReading"]:
        """Within the block goes one pass, forward and backward, of a batch padded on the right.

        `share` is the factor of each response token's loss in what backward is called on.
        """
        reading = PassReading(self.scorer, batch, share, directions)
        head = self.model.get_output_embeddings()
        with (
            self.scorer.embedding.register_forward_hook(reading.at_embedding),
            head.register_forward_pre_hook(reading.before_head),
            head.register_forward_hook(reading.at_head),
        ):
            yield reading

    def score(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        directions: Sequence[Direction] = (),
    ) -> SampleGradients:
        """The numbers of a batch by a pass that trains nothing; as `GradientScorer.score`."""
        model, batch = self.model, (input_ids, attention_mask, labels)
        with torch.enable_grad(), self.reading(batch, 1.0, directions) as reading:
            reading.losses = response_losses(model, *batch)
            reading.losses.sum().backward()
        model.zero_grad(set_to_none=True)
        return reading.result()


class PassReading:
    """What one training pass shows of its samples, once it has gone back to the embeddings."""

    def __init__(
        self,
        scorer: GradientScorer,
        batch: tuple[Tensor, Tensor, Tensor],
        share: float,
        directions: Sequence[Direction],
    ) -> None:
        self._scorer, self._share, self._directions = scorer, share, directions
        self._ids, mask, labels = batch
        self._lengths = mask.sum(1)
        sample, position = torch.nonzero(labels[:, 1:] != IGNORE, as_tuple=True)
        self._labels = labels[sample, position + 1]
        counts = torch.bincount(sample, minlength=len(labels)).tolist()
        self._groups = group_rows(self._ids, self._lengths, self._labels, counts)
        self._hidden = self._h = self._e = self._ids.new_empty(0)
        self._head: HeadSignals | None = None
        self.losses = self._e  # (N,) of the response tokens, given by the training

    def at_embedding(self, module: Any, args: Any, output: Tensor) -> None:
        """Forward hook: autograd is to come as far as here, and to tell what it brings."""
        if not output.requires_grad:
            output.requires_grad_()
        output.register_hook(self._keep_embedding)

    def _keep_embedding(self, gradient: Tensor) -> None:
        self._e = gradient.detach()

    def before_head(self, module: Any, args: tuple[Tensor, ...]) -> None:
        """Forward pre-hook, before the response positions alone are let in."""
        self._hidden = args[0].detach()

    def at_head(self, module: Any, args: tuple[Tensor, ...], output: Tensor) -> None:
        """Forward hook of the head, which sees the N response positions."""
        h = args[0].detach()[0]
        self._h = h.to(accumulate_in(h.dtype))
        output.register_hook(self._read_head)

    def _read_head(self, gradient: Tensor) -> None:
        """The gradient (1, N, V) at the head's output, read at once: it is too large to keep."""
        with torch.no_grad():
            self._head = self._head_signals(gradient.detach()[0])

    def _head_signals(self, gradient: Tensor) -> HeadSignals:
        h, by = self._h, 1 / self._share
        norms, token_norms, own = [], [], []
        sides = [direction.at_head(h) for direction in self._directions]
        dots = h.new_zeros(len(sides), len(h))
        for group in self._groups:
            d, h_i = gradient[group.rows].to(h.dtype), h[group.rows]
            norm, squares = _norms(d, h_i)
            norms.append(norm * by / group.size)
            token_norms.append(squares.sqrt() * h_i.norm(dim=1) * by)
            own.append(d[:, group.tokens] * by)
            for row, (matrix, inputs) in zip(dots, sides, strict=True):
                row[group.rows] = torch.linalg.vecdot(d, inputs[group.rows] @ matrix.T) * by
        loss = h.new_empty(0)  # known after the pass
        return HeadSignals(loss, torch.stack(norms), torch.cat(token_norms), own, dots)

    @torch.no_grad()
    def result(self) -> SampleGradients:
        """The numbers of the batch's samples."""
        assert self._head is not None
        size = self._lengths.new_tensor([group.size for group in self._groups])
        e = self._e.to(self._h.dtype) / (self._share * size[:, None, None])
        flow = Flow(
            self._ids,
            self._lengths,
            self._hidden,
            self._h,
            self._labels,
            self._groups,
            self._head._replace(loss=self.losses.detach().to(self._h.dtype)),
            e * self._scorer.embed_scale,
        )
        return collected(flow, self._directions)


def _norms(d: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    """|| d' h || of one sample, and the squares (|R|,) of d's rows; d is (|R|, V), h (|R|, d)."""
    if len(h) > h.shape[1]:  # blocks of the gradient are smaller than the Gram matrix
        blocks = d.split(max(h.shape[1], 1024), dim=1)
        total = torch.stack([(block.T @ h).square().sum() for block in blocks]).sum()
        return total.sqrt(), d.square().sum(1)
    gram = d @ d.T
    return (gram * (h @ h.T)).sum().clamp_min(0).sqrt(), gram.diagonal().clamp_min(0)
