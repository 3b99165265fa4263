"""What the gradients need to know of a model: its embedding, and how its head makes logits.

What is read off a model's configuration is checked on a few tokens, so a model of an unknown kind
is either handled exactly or refused by name. `tapped` lets a forward pass run from the embedding,
made a leaf of autograd, to the head, and no further.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from grads.engine.head import Head
from grads.errors import ModelError


class HeadReached(Exception):  # noqa: N818 - ends a forward pass, not an error
    """The head has been called: all below it has run, and its logits are not needed."""


class Tap:
    """What flows past the embedding (made a leaf of autograd) and into the head."""

    def __init__(self) -> None:
        self.leaves: list[Tensor] = []
        self.hidden: Tensor | None = None

    def at_embedding(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """Forward hook: what the body sees instead is a leaf."""
        self.leaves.append(output.detach().requires_grad_(torch.is_grad_enabled()))
        return self.leaves[-1]

    def at_head(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Forward pre-hook: keep the head's input and end the pass."""
        self.hidden = args[0]
        raise HeadReached


@contextmanager
def tapped(embedding: nn.Module, head: nn.Module) -> Iterator[Tap]:
    """Within the block, a forward pass fills the tap and raises HeadReached."""
    tap = Tap()
    with (
        embedding.register_forward_hook(tap.at_embedding),
        head.register_forward_pre_hook(tap.at_head),
    ):
        yield tap


def describe(model: Any) -> tuple[nn.Embedding, float, Head]:
    """The model's embedding, the factor of its look-up, and its head with scale and soft-cap.

    What is read off the configuration is checked on a few tokens: the logits must come out of
    the head as described, and may not know what comes after them. Raises ModelError, naming the
    model's class, where they do not or do.
    """
    name = type(model).__name__
    embedding, linear = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(embedding, nn.Embedding) or not isinstance(linear, nn.Linear):
        raise ModelError(
            f"{name} has {type(embedding).__name__} as embedding and {type(linear).__name__} as"
            " head: exact gradients need a plain embedding and a linear head; leave both out of"
            " the adapter, or use another model"
        )
    scale, head = _embed_scale(embedding), _head_of(model.config, linear)
    ids = _few_tokens(embedding)
    with torch.no_grad():
        with tapped(embedding, linear) as tap, suppress(HeadReached):
            model(input_ids=ids, use_cache=False)
        if len(tap.leaves) != 1 or tap.hidden is None:
            raise ModelError(
                f"{name} looks up its embedding {len(tap.leaves)} times in one forward pass: its"
                " gradients cannot be told apart; use another model"
            )
        logits = model(input_ids=ids, use_cache=False).logits
        ours = head.logits(tap.hidden.clone(), slice(None))[0]
        looked_up = embedding.weight[ids] * scale
    # bfloat16 keeps 8 bits, and a scaled embedding rounds once more
    tolerance = 0.05 if logits.dtype == torch.bfloat16 else 1e-3
    _refuse_foresight(model, ids, logits, tolerance)
    pairs = [("embedding", tap.leaves[0], looked_up), ("logits", logits, ours)]
    for what, theirs, mine in pairs:
        error = float((theirs - mine).abs().max() / theirs.abs().max().clamp_min(1e-30))
        if not error < tolerance:
            raise ModelError(
                f"{name}: its {what} do not follow from its weights by a rule known here (off by"
                f" {error:.1%}), so its gradients would be wrong; use another model"
            )
    return embedding, scale, head


def _few_tokens(embedding: nn.Embedding) -> Tensor:
    """(1, 8) ids out of the middle of the vocabulary: marks, such as padding, lie at its ends."""
    known = embedding.num_embeddings
    return (torch.arange(8, device=embedding.weight.device)[None] + known // 2) % known


def _refuse_foresight(model: Any, ids: Tensor, logits: Tensor, tolerance: float) -> None:
    """Raise ModelError where other tokens in the second half change the logits of the first."""
    half = ids.shape[1] // 2
    other = ids.clone()
    other[:, half:] = (other[:, half:] + half) % model.get_input_embeddings().num_embeddings
    with torch.no_grad():
        changed = model(input_ids=other, use_cache=False).logits
    difference = (changed - logits)[:, :half].abs().max() / logits.abs().max().clamp_min(1e-30)
    if float(difference) > tolerance:
        raise ModelError(
            f"{type(model).__name__} is no causal language model: what it says at a token depends"
            " on later ones; give a model that reads from left to right"
        )


def refuse_unknown_tokens(model: Any, input_ids: np.ndarray) -> None:
    """Raise ModelError where the model has no row for one of these tokens, of any shape."""
    layers = model.get_input_embeddings(), model.get_output_embeddings()
    known, most = min(len(layer.weight) for layer in layers), int(input_ids.max(initial=0))
    if most >= known:
        raise ModelError(
            f"{type(model).__name__} knows tokens up to number {known - 1}, but its tokenizer has"
            f" written {most}: give a model and a tokenizer that belong together"
        )


def _embed_scale(embedding: nn.Embedding) -> float:
    """Factor that scaled embeddings (Gemma 3) apply inside the module, as they round it."""
    factor = torch.as_tensor(getattr(embedding, "embed_scale", 1.0))
    return float(factor.to(embedding.weight.dtype))


def _head_of(config: Any, linear: nn.Linear) -> Head:
    config = config.get_text_config()
    scale = getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None)
    divisor = getattr(config, "logits_scaling", None) or 1.0
    return Head(
        linear.weight,
        linear.bias,
        scale=(scale or 1.0) / divisor,
        softcap=getattr(config, "final_logit_softcapping", None),
    )
