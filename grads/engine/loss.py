"""The loss that a model is trained on: of the response tokens, and of nothing else."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from grads.data.tokens import IGNORE


def response_losses(model: Any, ids: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """(N,) negative log-likelihood at each response position of a batch, in nats."""
    logits, targets = response_logits(model, ids, mask, labels)
    return F.cross_entropy(logits.float(), targets, reduction="none")


def response_logits(model: Any, ids: Tensor, mask: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, V) at the N response positions of a batch, and their labels (N,).

    Only those positions are let into the model's own head: the logits of prompts and padding,
    often most of the memory, are never made.
    """
    sample, position = torch.nonzero(labels[:, 1:] != IGNORE, as_tuple=True)

    def responses_only(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (args[0][sample, position][None],)

    inner = getattr(model, "module", model)  # of what is wrapped to train with others
    with inner.get_output_embeddings().register_forward_pre_hook(responses_only):
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[0]
    return logits, labels[sample, position + 1]
