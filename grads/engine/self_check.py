"""A run's own test of its gradients: a few samples scored both ways, fast and by plain autograd."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from grads.data.tokens import TokenPool
from grads.engine.autograd import autograd_gradients, autograd_norms, inner
from grads.engine.during import TrainingTap
from grads.engine.gradients import GradientScorer
from grads.engine.probing import mean_gradient
from grads.errors import ScoringError, Stopped
from grads.store.manifest import SelfCheck

SAMPLES = 4
# Largest relative difference between the fast path and plain autograd that is let pass. Under
# bfloat16 autograd itself rounds every logit to 8 bits.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1}


def self_check(
    scorer: GradientScorer | TrainingTap,
    pool: TokenPool,
    device: str,
    directions: bool = False,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> SelfCheck:
    """Score a few samples, spread over the lengths, both ways; the differences, for the manifest.

    With `directions`, inner products with a mean gradient too. Raises ScoringError if they differ
    by more than the tolerance, and Stopped between samples when asked to.
    """
    order = np.argsort(pool.lengths, kind="stable")
    # The longest samples cost most by autograd and show nothing more: stop at the 90th percentile.
    places = np.linspace(0, 0.9 * (len(order) - 1), SAMPLES).astype(int)
    chosen = order[np.unique(places)]
    worst = 0.0
    for off in _norms_off(scorer, pool, chosen, device):
        worst = _worse(worst, off, should_stop)
    if directions:
        for off in _dots_off(scorer, pool, chosen[:2], device):
            worst = _worse(worst, off, should_stop)
    dtype = next(scorer.model.parameters()).dtype
    tolerance = TOLERANCE[dtype]
    if not worst <= tolerance:
        raise ScoringError(
            f"self-check: the fast gradients differ from plain autograd by {worst:.2%}, allowed are"
            f" {tolerance:.2%}: this model's gradients would be wrong; use another model or"
            " --dtype float32"
        )
    return SelfCheck(
        samples=pool.sample_ids[chosen].tolist(),
        largest_relative_difference=worst,
        tolerance=tolerance,
    )


def _worse(worst: float, off: float, should_stop: Callable[[], bool]) -> float:
    """The larger of two differences, of which one that is no number is the largest."""
    if should_stop():
        raise Stopped
    return worst if worst >= off or np.isnan(worst) else off


def _norms_off(
    scorer: GradientScorer | TrainingTap, pool: TokenPool, chosen: np.ndarray, device: str
) -> Iterator[float]:
    """Relative differences of the samples' own numbers from those of plain autograd."""
    fast = scorer.score(*pool.collate(chosen, device))
    for row in range(len(chosen)):
        ids, _, labels = pool.collate(chosen[row : row + 1], device)
        slow = autograd_norms(scorer.model, ids[0], labels[0])
        scale = slow.embed_grad_norm * slow.head_grad_norm
        pairs = [
            (fast.loss[row], slow.loss, slow.loss),
            (fast.embed_grad_norm[row], slow.embed_grad_norm, slow.embed_grad_norm),
            (fast.head_grad_norm[row], slow.head_grad_norm, slow.head_grad_norm),
            (fast.grad_dot[row], slow.grad_dot, scale),
        ]
        for mine, theirs, unit in pairs:
            if np.isfinite(theirs):
                yield abs(float(mine) - theirs) / max(unit, 1e-30)


def _dots_off(
    scorer: GradientScorer | TrainingTap, pool: TokenPool, chosen: np.ndarray, device: str
) -> Iterator[float]:
    """The same for the samples' inner products with their own mean gradient."""
    batch = pool.collate(chosen, device)
    whole = scorer.scorer if isinstance(scorer, TrainingTap) else scorer
    direction = mean_gradient(whole, pool.subset(chosen), batch_tokens=1, device=device)
    fast = scorer.score(*batch, [direction]).towards[0]

    def slow(row: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids, _, labels = pool.collate(chosen[row : row + 1], device)
        return autograd_gradients(scorer.model, ids[0], labels[0])[1:]

    embed, head = slow(0)
    for row in range(1, len(chosen)):
        embed, head = (a + b for a, b in zip((embed, head), slow(row), strict=True))
    for row in range(len(chosen)):
        for mine, gradient, total in zip(
            (fast.embed_dot[row], fast.head_dot[row]), slow(row), (embed, head), strict=True
        ):
            theirs = float(inner(gradient, total)) / len(chosen)
            scale = float(gradient.norm(dim=1).norm() * total.norm(dim=1).norm()) / len(chosen)
            yield abs(float(mine) - theirs) / max(scale, 1e-30)
