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

`autograd.py` is the slow, obvious way, for a run's self-check.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grads.data.tokens import IGNORE
from grads.engine.anatomy import HeadReached, describe, tapped
from grads.engine.autograd import accumulate_in
from grads.engine.head import Group, HeadResult, group_rows, head_pass, probabilities


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
        h = h.to(accumulate_in(h.dtype))
        targets = labels[sample, position + 1]
        groups = group_rows(input_ids, lengths, targets, counts)
        result = head_pass(self.head, h, targets, groups)

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

    def _collect(
        self, h: Tensor, e: Tensor, groups: list[Group], result: HeadResult
    ) -> SampleGradients:
        """Put the batch's parts together; h is (N, d), e (B, T, d) the gradients at the weights."""
        loss, embed, dot, mean_hidden = [], [], [], []
        for i, group in enumerate(groups):
            h_i, label_grad = h[group.rows], result.label_grad[group.rows]
            # Gradients of equal token ids fall on the same row of the embedding: add, then norm.
            rows = e.new_zeros(len(group.tokens), e.shape[2])
            rows.index_add_(0, group.of_token, e[i, : len(group.of_token)])
            embed.append(rows.norm())
            d = probabilities(self.head, h_i, group, result.log_norm[group.rows])
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
