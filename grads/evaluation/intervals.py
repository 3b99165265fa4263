"""What measurements over seeds and samples show: intervals, paired differences, verdicts.

A training with another seed is another draw, so intervals over seeds answer "would it come out
this way again?". The bootstrap over the measured samples, with the trainings as they are, is a
second look: "does it hang on a few samples?". The verdict follows the first alone.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy.stats import t as student

LEVEL = 0.95
DRAWS = 2_000  # of the bootstrap
Verdict = Literal["better", "worse", "no difference seen"]
NONE: Verdict = "no difference seen"


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95% interval; one value has none."""

    mean: float
    low: float | None
    high: float | None
    p: float | None  # two-sided, against zero


def estimate(values: np.ndarray) -> Estimate:
    """Mean and 95% t interval of k values (k,), and the p of their mean being zero.

    Values that are all the same have an interval of no width.
    """
    k, mean = len(values), float(np.mean(values))
    if k < 2:
        return Estimate(mean, None, None, None)
    error = float(np.std(values, ddof=1)) / np.sqrt(k)
    reach = float(student.ppf(0.5 + LEVEL / 2, k - 1)) * error
    if error == 0:
        p = 1.0 if mean == 0 else 0.0
    else:
        p = 2 * float(student.sf(abs(mean) / error, k - 1))
    return Estimate(mean, mean - reach, mean + reach, p)


def paired(ours: dict[int, float], theirs: dict[int, float]) -> Estimate:
    """The mean difference ours - theirs over the seeds that both have, by a paired t.

    An arm that was measured once, without a seed (the base model), is given under every seed.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    return estimate(np.array([ours[seed] - theirs[seed] for seed in seeds]))


def bootstrap(ours: np.ndarray, theirs: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """95% interval of the difference of two ratios when the n measured samples are drawn anew.

    `ours` and `theirs` are (seeds, n) sums of each sample, `weight` (n,) what they are divided by
    (tokens, positions or questions). Samples are drawn with replacement by a fixed seed; the
    trainings stay as they are.
    """
    gap = (ours - theirs).mean(axis=0)
    times = _times(len(gap))
    total = times @ weight
    drawn = np.divide(times @ gap, total, out=np.zeros(DRAWS), where=total > 0)
    low, high = np.quantile(drawn, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(low), float(high)


@lru_cache(maxsize=4)
def _times(n: int) -> np.ndarray:
    """(DRAWS, n) how often each of n samples is drawn when n are drawn with replacement."""
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=DRAWS)
    return counts.astype(np.float32)


def verdict(difference: Estimate, higher_is_better: bool) -> Verdict:
    """Better or worse only where the whole interval lies on one side of zero."""
    low, high = difference.low, difference.high
    if low is None or high is None or low <= 0 <= high:
        return NONE
    return "better" if (low > 0) == higher_is_better else "worse"


def break_even(choosing: float, training_on_all: float, training_on_subset: float) -> float | None:
    """How many trainings pay for choosing, all in seconds; None where none ever does."""
    saved = training_on_all - training_on_subset
    return choosing / saved if saved > 0 else None
