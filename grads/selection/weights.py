"""Weights to train by instead of a subset: how often each sample of the pool would be drawn."""

from dataclasses import dataclass

import numpy as np

from grads.errors import SelectionError
from grads.selection.criteria import criteria, criterion_named
from grads.selection.options import SelectionConfig
from grads.selection.pool import Pool


@dataclass(frozen=True)
class Weights:
    """The chance of each of n samples at every draw, with replacement."""

    sample_ids: np.ndarray  # (n,) int64, sorted
    share: np.ndarray  # (n,) float, sums to 1
    pinned: np.ndarray  # (n,) bool: never to be missing


def sampling_weights(pool: Pool, options: SelectionConfig) -> Weights:
    """The weights that the draw `sample` of these options goes by: exp(score), as shares.

    Samples outside of bounds and topics, excluded ones and those below the density floor have 0,
    and so have near-duplicates of a sample that stays, where the options keep one of each group.
    Pinned ones have at least the mean of those that have some. Raises SelectionError where the
    criterion's scores are no log-weights, or nothing is left to weigh.
    """
    if not criterion_named(options.criterion).has_weights:
        those = ", ".join(name for name, one in criteria().items() if one.has_weights)
        raise SelectionError(
            f"criterion '{options.criterion}' ranks samples and gives them no weights: use a"
            f" selection by one of {those}"
        )
    chosen = pool.select(options)
    ranking = chosen.ranking
    pinned = np.isin(pool.scores.sample_id, options.pins)
    drawn = chosen.single & ranking.above_floor
    share = np.zeros(len(pool))
    if drawn.any():
        share[drawn] = np.exp(ranking.score[drawn] - ranking.score[drawn].max())
    elif not pinned.any():
        raise SelectionError("no sample above the density floor is left to weigh: widen the bounds")
    share[pinned] = np.maximum(share[pinned], share[drawn].mean() if drawn.any() else 1.0)
    return Weights(pool.scores.sample_id, share / share.sum(), pinned)
