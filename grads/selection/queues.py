"""Queues: which samples people are to look at, and in which order."""

import numpy as np

from grads.config.queue import QueueConfig
from grads.errors import SelectionError
from grads.selection.decisions import disagreements
from grads.selection.pool import Pool
from grads.selection.record import read_selection
from grads.selection.select import gumbel
from grads.selection.tags import tags

Entry = tuple[int, ...]  # ids of what is looked at together: one sample, or near-duplicates
TOGETHER = 25  # near-duplicates of an entry; a larger group is looked at in parts


def queue(pool: Pool, config: QueueConfig) -> list[Entry]:
    """The entries of a queue, at most `count` of them.

    Raises SelectionError where the run has no such topic or tag, and RunError where it has no such
    selection.
    """
    if config.kind == "duplicates":
        return _groups(pool)[: config.count]
    ids = pool.scores.sample_id[_order(pool, config)[: config.count]]
    return [(sample,) for sample in ids.tolist()]


def _order(pool: Pool, config: QueueConfig) -> np.ndarray:
    """(<= n,) positions in the order of a queue of single samples."""
    everything = np.ones(len(pool), bool)
    match config.kind:
        case "highest" | "lowest":
            return pool.ordered("signal", everything, config.kind == "highest")
        case "borderline":
            return _around_the_cut(pool, config.selection or "")
        case "disagreements":
            return pool.positions(np.array(sorted(disagreements(pool.run)), dtype=np.int64))
    lots = np.argsort(-gumbel(pool.scores.sample_id, config.seed), kind="stable")
    if config.kind == "random":
        return lots
    if config.kind == "tag":
        return np.asarray(lots[_tagged(pool, config.tag or "")[lots]])
    if pool.cluster is None or config.topic not in pool.cluster:
        raise SelectionError(
            f"no topic {config.topic}: the run has {len(pool.clusters)}, numbered from 0"
        )
    return np.asarray(lots[pool.cluster[lots] == config.topic])


def _tagged(pool: Pool, name: str) -> np.ndarray:
    found = pool.tagged((name,))
    if not found.any():
        there = ", ".join(tags(pool.run)) or "none yet"
        raise SelectionError(f"no sample has the tag '{name}': there are {there}")
    return found


def _around_the_cut(pool: Pool, name: str) -> np.ndarray:
    """(n,) positions by the distance of their scores from where as many as are kept would end."""
    _, table = read_selection(pool.run, name)
    score, kept = table["score"].to_numpy(), table["kept"].to_numpy(zero_copy_only=False)
    last = np.sort(score)[::-1][: max(int(kept.sum()), 1)].min()
    near = np.argsort(np.abs(score - last), kind="stable")
    return pool.positions(table["sample_id"].to_numpy()[near])


def _groups(pool: Pool) -> list[Entry]:
    """Groups of near-duplicates, the largest first."""
    found: dict[int, list[int]] = {}
    group = pool.duplicate_group
    for place in np.flatnonzero(group >= 0).tolist():
        found.setdefault(int(group[place]), []).append(int(pool.scores.sample_id[place]))
    groups = sorted(found.values(), key=lambda group: (-len(group), group[0]))
    return [
        tuple(group[start : start + TOGETHER])
        for group in groups
        for start in range(0, len(group), TOGETHER)
    ]
