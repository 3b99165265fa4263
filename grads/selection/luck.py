"""What chance makes of a choice: random subsets as they come, and the same choice by other seeds.

All in closed form, so that it costs a move little: sums and counts over random subsets by their
known mean and spread, and the chance that another seed keeps a sample by the rates of its draw.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from grads.errors import SelectionError
from grads.selection.best import groups
from grads.selection.criteria import criterion_named
from grads.selection.options import SelectionConfig
from grads.selection.scores import Scores
from grads.selection.select import Selection

WITHIN_95 = 1.959964  # standard deviations to either side that hold 95% of a bell shape
RATES = 2**14  # bins of the log-rates of a draw
ROUNDS = 60  # halvings of the time that a draw takes


@dataclass(frozen=True)
class Band:
    """A number over random subsets: its mean, and the range that holds 95% of them."""

    mean: float
    low: float
    high: float

    def of(self, whole: float) -> "Band":
        """The same as shares of a whole."""
        whole = whole or 1.0
        return Band(self.mean / whole, self.low / whole, self.high / whole)


def random_sum(values: np.ndarray, count: int) -> Band:
    """The sum of a column (n,) over random subsets of `count` samples, all equally likely."""
    n = len(values)
    mean = count * float(values.mean())
    spread = float(values.std(ddof=1)) if n > 1 else 0.0
    away = WITHIN_95 * spread * np.sqrt(count * (1 - count / n))
    ordered = np.sort(values) if n <= 1000 else None  # of few samples the bell may reach too far
    least = ordered[:count].sum() if ordered is not None else -np.inf
    most = ordered[n - count :].sum() if ordered is not None else np.inf
    return Band(mean, float(max(mean - away, least)), float(min(mean + away, most)))


def random_count(members: int, pool: int, count: int) -> Band:
    """How many of `members` of a pool are in random subsets of `count` samples of it."""
    mean = count * members / pool
    variance = mean * (1 - members / pool) * (pool - count) / max(pool - 1, 1)
    least, most = max(0, count + members - pool), min(members, count)
    reach = 9 * np.sqrt(variance) + 9  # beyond it nothing is left of the distribution
    x = np.arange(max(least, int(mean - reach)), min(most, int(np.ceil(mean + reach))) + 1)
    log = _log_choose(members, x) + _log_choose(pool - members, count - x)
    chance = np.exp(log - log.max())
    below = np.cumsum(chance) / chance.sum()
    low, high = (int(x[np.searchsorted(below, q)]) for q in (0.025, 0.975))
    return Band(mean, low, high)


def _log_choose(n: int, k: np.ndarray) -> np.ndarray:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def kept_again(
    scores: Scores,
    options: SelectionConfig,
    chosen: Selection,
    *,
    cluster: np.ndarray | None = None,
    duplicate_group: np.ndarray | None = None,
) -> np.ndarray | None:
    """(n,) chance of each sample to be kept under another seed; None where no seed has a say.

    A random draw by weights takes samples in the order in which clocks ring that go at the rates
    exp(score): at time t, a sample has rung with chance 1 - exp(-rate t), and t is when the budget
    is used up (Rosen 1972). Of a group of near-duplicates the first that rings is kept.
    """
    if not options.by_lot:
        return None
    n = len(scores)
    chance = np.zeros(n)
    pinned = np.isin(scores.sample_id, options.pins)
    free = chosen.usable & ~pinned
    group = duplicate_group if options.deduplicate else None
    if group is not None:
        free &= (group < 0) | ~np.isin(group, group[pinned])
    cost = np.ones(n) if options.budget_unit == "samples" else scores.response_tokens.astype(float)
    place = (~chosen.ranking.above_floor).astype(np.int32)
    if options.draw == "stratified":
        if cluster is None:
            raise SelectionError("draw 'stratified' needs clusters, which this run has none of")
        place = place + 2 * cluster
    flat = criterion_named(options.criterion).value is not None
    log_rate = np.zeros(n) if flat else chosen.ranking.score
    drawn_from = np.flatnonzero(free)
    for part in groups(place[drawn_from]):
        member = drawn_from[part]
        costs, mine = cost[member], None if group is None else group[member]
        used = float(costs @ chosen.kept[member])
        chance[member] = _rung(log_rate[member], costs, mine, used)
    chance[pinned] = 1.0
    return chance


def _rung(
    log_rate: np.ndarray, cost: np.ndarray, group: np.ndarray | None, used: float
) -> np.ndarray:
    """(m,) chance of each of m samples to be drawn when `used` of their costs is drawn.

    Of those that `group` (m,) numbers alike one is drawn; -1 is alone.
    """
    if used <= 0:
        return np.zeros(len(log_rate))
    log_rate = log_rate - log_rate.max()
    share: np.ndarray | float = 1.0  # of its group's rate
    total, weighed = log_rate, cost
    if group is not None:
        alike = np.flatnonzero(group >= 0)
        _, place = np.unique(group[alike], return_inverse=True)
        rate = np.exp(log_rate[alike])
        whole = np.maximum(np.bincount(place, rate)[place], 1e-300)
        share, total = np.ones(len(group)), log_rate.copy()
        share[alike], total[alike] = rate / whole, np.log(whole)
        weighed = cost * share
    if used >= weighed.sum() * (1 - 1e-9):
        return np.broadcast_to(share, len(log_rate))
    low, high = float(total.min()), float(total.max())
    width = max(high - low, 1e-9) / RATES
    bins = np.minimum(((total - low) / width).astype(np.int64), RATES - 1)
    costs = np.bincount(bins, weighed, RATES)
    middle = low + width * (np.arange(RATES) + 0.5)
    first, last = -high - 50.0, -low + 50.0  # logs of times when none and when all have rung
    for _ in range(ROUNDS):
        now = (first + last) / 2
        drawn = costs @ -np.expm1(-np.exp(np.minimum(middle + now, 700.0)))
        first, last = (now, last) if drawn < used else (first, now)
    return np.asarray(share * -np.expm1(-np.exp(np.minimum(total + first, 700.0))))
