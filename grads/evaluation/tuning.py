"""A fixed grid of settings of the selection family, how their subsets relate, and which one wins.

The grid spans what docs/method.md's two numbers and three draws can do: typical samples with more
signal by each draw, typical ones with less (the default), both ends of the signal, the density
alone, and the two plain criteria that people try first. `random` is what all of them must beat.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.special import stdtrit

from grads.config.evaluation import TuneConfig
from grads.errors import EvaluationError
from grads.evaluation import arms
from grads.evaluation.arms import BASE, Arm, Trial
from grads.evaluation.result import LabelledMeans, Overlap, SubsetMeans
from grads.selection.decisions import with_decisions
from grads.selection.options import SelectionConfig
from grads.selection.pool import Pool
from grads.selection.scores import Scores

GRID: dict[str, dict[str, Any]] = {
    "random": {"criterion": "random"},
    "random-stratified": {"criterion": "random", "draw": "stratified"},
    "typical-high": {"focus": 1.0, "draw": "top"},
    "typical-high-sample": {"focus": 1.0, "draw": "sample"},
    "typical-high-stratified": {"focus": 1.0, "draw": "stratified"},
    "typical-low-sample": {"focus": -1.0, "draw": "sample"},
    "low-sample": {"typicality": 0.0, "focus": -1.0, "draw": "sample"},
    "high-sample": {"typicality": 0.0, "focus": 1.0, "draw": "sample"},
    "density": {"criterion": "density"},
    "magnitude": {"criterion": "magnitude"},
    "loss-low": {"criterion": "loss_low"},
}
PILOT, FINAL = "pilot", "final"  # each measured on a half of its own


def grid(config: TuneConfig) -> dict[str, SelectionConfig]:
    """The settings to try by name, `random` among them; raises EvaluationError on unknown names."""
    unknown = sorted(set(config.settings) - set(GRID))
    if unknown:
        raise EvaluationError(f"no setting '{unknown[0]}' in the grid: there are {', '.join(GRID)}")
    names = [name for name in GRID if not config.settings or name in (*config.settings, "random")]
    return {name: SelectionConfig(**GRID[name], ratio=config.ratio) for name in names}


def planned(config: TuneConfig) -> list[Arm]:
    """The arms of the pilot: base, full, and the grid."""
    found = [Arm(BASE, BASE), Arm("full", "full")]
    for name, options in grid(config).items():
        found.append(
            Arm(
                label=name,
                kind="random" if name == "random" else "criterion",
                options=options,
                rival=None if name == "random" else "random",
            )
        )
    return found


def decided(pool: Pool, planned: list[Arm]) -> list[Arm]:
    """The arms with what people have decided about single samples, random's subsets too.

    The selection that a search saves carries those decisions, so it is tested with them.
    """
    return [
        replace(arm, options=with_decisions(pool.run, arm.options)) if arm.options else arm
        for arm in planned
    ]


def pilot_trials(pool: Pool, config: TuneConfig) -> list[Trial]:
    """Every arm once; random under every seed, for its spread is the noise of a pilot."""
    tried = decided(pool, planned(config))
    once = arms.trials(pool, tried, config, range(1), phase=PILOT)
    random = [arm for arm in tried if arm.declared.random]
    return once + arms.trials(pool, random, config, range(1, config.seeds), phase=PILOT)


def final_trials(pool: Pool, config: TuneConfig, winner: str) -> list[Trial]:
    """The winner and random under seeds that no pilot has had."""
    again = [arm for arm in decided(pool, planned(config)) if arm.label in (BASE, "random", winner)]
    fresh = range(config.seeds, 2 * config.seeds)
    return arms.trials(pool, again, config, fresh, phase=FINAL)


def likely_finals(pool: Pool, config: TuneConfig) -> list[Trial]:
    """The last trials before a winner is known: any setting stands for it, they are of one size."""
    some = next((name for name in grid(config) if name != "random"), "random")
    return final_trials(pool, config, some)


def trials(pool: Pool, config: TuneConfig) -> list[Trial]:
    """All that a search trains."""
    return pilot_trials(pool, config) + likely_finals(pool, config)


def halves(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted positions of two halves of n samples, drawn by a fixed seed."""
    if n < 2:
        raise EvaluationError(
            f"there are {n} samples to measure on, which cannot be halved: a search needs at least"
            " 2 held-out and 2 general samples, better 100 of each"
        )
    order = np.random.default_rng(0).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 :])


def noise(values: np.ndarray) -> float | None:
    """How far one training may lie from the mean of these k values (k,) by chance, at 95%.

    None for a single value, whose spread is unknown.
    """
    k = len(values)
    if k < 2:
        return None
    reach = float(stdtrit(k - 1, 0.975)) * float(np.sqrt(1 + 1 / k))
    return reach * float(np.std(values, ddof=1))


def pareto_front(points: dict[str, tuple[float, float]]) -> list[str]:
    """Labels that no other beats in learning and forgetting both; lower is better in each."""
    return [
        label
        for label, (x, y) in points.items()
        if not any(a <= x and b <= y and (a, b) != (x, y) for a, b in points.values())
    ]


def pick(
    points: dict[str, tuple[float, float]], random: tuple[float, float], allowance: float
) -> str | None:
    """The setting that learns best among those that forget no more than random, noise allowed.

    Points are (held-out loss, general loss). None where no such setting learns more than random.
    """
    able = {
        label: learning
        for label, (learning, forgetting) in points.items()
        if forgetting <= random[1] + allowance and learning < random[0]
    }
    return min(able, key=lambda label: able[label]) if able else None


def overlap(pool: Pool, ratio: float) -> Overlap:
    """How far the grid's subsets overlap, and how each relates to length and loss; no training.

    `jaccard[i][j]` is the share of shared samples in the union of two subsets; two random draws
    share `by_chance`. Response tokens and loss (nats per token) are means over samples.
    """
    options = {name: SelectionConfig(**GRID[name], ratio=ratio) for name in GRID}
    kept = np.array([pool.select(option).kept for option in options.values()])
    shared = kept.astype(float) @ kept.T
    sizes = kept.sum(axis=1)
    jaccard = shared / (sizes[:, None] + sizes[None, :] - shared)
    everything = np.ones(len(pool), bool)
    means = [_means(pool.scores, mask).as_json() for mask in kept]
    return Overlap(
        labels=list(options),
        jaccard=np.round(jaccard, 4).tolist(),
        by_chance=ratio / (2 - ratio),
        subsets=[LabelledMeans(label=n, **m) for n, m in zip(options, means, strict=True)],
        pool=_means(pool.scores, everything),
    )


def _means(scores: Scores, mask: np.ndarray) -> SubsetMeans:
    return SubsetMeans(
        samples=int(mask.sum()),
        response_tokens=float(scores.response_tokens[mask].mean()),
        loss=float(scores.loss[mask].mean()),
    )
