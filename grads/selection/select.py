"""From scores to a subset: signal, density, tilt, draw, budget. NumPy in, indices out.

The signal is the log of a gradient norm with the effect of length removed, in robust standard
deviations (x). A sample's score is `typicality * log f(x) + focus * x + towards * z(cosine to the
target sets) - away * z(cosine to the protected sets)`, with f the leave-one-out density of the
pool's signals and z in robust standard deviations. The first two terms are our reading of GrADS
(arXiv 2511.08620), whose code is not public; every choice is an option.
"""

from dataclasses import dataclass, field

import numpy as np

from grads.errors import SelectionError
from grads.selection.best import best_within, descending, groups
from grads.selection.criteria import criterion_named
from grads.selection.cut import Cut
from grads.selection.direction import COSINES, pull
from grads.selection.filters import within_bound
from grads.selection.options import SelectionConfig
from grads.selection.scores import Scores
from grads.selection.signal import Signal, measure_signal
from grads.text import Sentence

AUTO_DROP = {1: 0.5, 2: 1.148}  # from the peak: holds 68% of a bell shape, in one or two dimensions


@dataclass(frozen=True)
class Ranking:
    """What a criterion says of each sample, before any budget."""

    x: np.ndarray  # (n,) unitless signal
    log_density: np.ndarray  # (n,) nan for criteria without a density
    score: np.ndarray  # (n,) higher is better
    above_floor: np.ndarray  # (n,) bool
    dims: int
    notes: list[Sentence] = field(default_factory=list)


@dataclass(frozen=True)
class Selection:
    """The chosen subset."""

    kept: np.ndarray  # (n,) bool
    ranking: Ranking
    usable: np.ndarray  # (n,) bool: within bounds and topics and not excluded, or pinned
    single: np.ndarray  # (n,) bool: usable, without near-duplicates of others where that is asked
    warnings: list[Sentence]
    cut: Cut | None  # where the budget ends; None where no score alone tells who is kept


def select(
    scores: Scores,
    options: SelectionConfig,
    columns: dict[str, np.ndarray] | None = None,
    cluster: np.ndarray | None = None,
    *,
    duplicate_group: np.ndarray | None = None,
    signal: Signal | None = None,
    value: np.ndarray | None = None,
    noise: np.ndarray | None = None,
) -> Selection:
    """Choose the subset. `columns` are what bounds name, `cluster` (n,) labels, both optional.

    `duplicate_group` (n,) numbers near-duplicates alike, -1 for none. `signal` is measure_signal's
    answer for the same scores and options, `value` (n,) the criterion's, `noise` (n,) gumbel's,
    where they are at hand.

    The same scores and options always give the same subset. Raises SelectionError for unknown
    columns, clusters or ids, and where a draw by cluster has no clusters.
    """
    ranking = rank(scores, options, signal, value)
    pinned = _members(scores, options.pins, "pin")
    allowed = _allowed(scores, options, columns or {}, cluster) & ~pinned
    allowed &= ~_members(scores, options.excluded, "exclude")
    keys = ranking.score
    if options.by_lot:
        keys = keys + (gumbel(scores.sample_id, options.seed) if noise is None else noise)
    cost = np.ones(len(scores)) if options.budget_unit == "samples" else scores.response_tokens
    usable, free = allowed | pinned, allowed
    if options.deduplicate:
        above = ranking.above_floor
        free = _one_of_each(allowed, pinned, duplicate_group, keys=keys, above_floor=above)
    budget = _budget(options, ranking, free | pinned, cost)
    left = budget - cost[pinned].sum()
    if options.draw == "stratified":
        if cluster is None:
            raise SelectionError("draw 'stratified' needs clusters, which this run has none of")
        chosen = _by_cluster(free, cluster, keys, ranking.above_floor, cost=cost, budget=left)
    else:
        chosen = _best(np.flatnonzero(free), keys, ranking.above_floor, cost=cost, budget=left)
    kept = pinned.copy()
    kept[chosen] = True
    if not kept.any():
        if not free.any():
            raise SelectionError(
                "nothing is left to choose from: widen the bounds, clusters or exclusions"
            )
        tier = free & ranking.above_floor if (free & ranking.above_floor).any() else free
        best = np.flatnonzero(tier)[descending(keys[tier])[0]]
        raise SelectionError(
            f"a budget of {budget:.0f} tokens does not hold the best sample, which has"
            f" {cost[best]}: raise it"
        )
    return Selection(
        kept,
        ranking,
        usable=usable,
        single=free | pinned,
        warnings=_warnings(kept, pinned, ranking, spare=left - cost[free].sum(), left=left),
        cut=_cut(ranking, free, kept & ~pinned, cost=cost, pinned=budget - left)
        if options.takes_best
        else None,
    )


def _cut(
    ranking: Ranking, free: np.ndarray, taken: np.ndarray, *, cost: np.ndarray, pinned: float
) -> Cut | None:
    """Where the budget ends; None where it holds none of what is free, or goes below the floor."""
    above = ranking.above_floor
    if not taken.any() or (taken & ~above).any():
        return None
    return Cut(
        ranking.score, free & above, taken, cost, pinned=pinned, more=bool((free & ~above).any())
    )


def _warnings(
    kept: np.ndarray, pinned: np.ndarray, ranking: Ranking, *, spare: float, left: float
) -> list[Sentence]:
    """What the user should know of a selection that is not what was asked for.

    Of the budget, `left` is what pinned samples leave, and `spare` what nothing is there for.
    """
    warnings = []
    if left < 0:
        warnings.append(
            Sentence(
                "the {number} pinned samples alone exceed the budget", number=int(pinned.sum())
            )
        )
    if spare > 0:
        warnings.append(
            Sentence(
                "only {number} samples are left after bounds, clusters and exclusions: fewer than"
                " the budget, so all of them are kept",
                number=int(kept.sum()),
            )
        )
    below = int((kept & ~ranking.above_floor & ~pinned).sum())
    if below:
        warnings.append(
            Sentence(
                "{number} kept samples lie below the density floor: the budget asked for more than"
                " lie above it",
                number=below,
            )
        )
    return warnings


def _best(
    among: np.ndarray, keys: np.ndarray, above_floor: np.ndarray, *, cost: np.ndarray, budget: float
) -> np.ndarray:
    """Those of the samples at the positions `among` that the budget holds: by key, the ones above
    the floor before the ones below it, without leaving one out for its size. Ties by position.
    """
    chosen = []
    for tier in (among[above_floor[among]], among[~above_floor[among]]):
        costs = cost[tier]
        taken = best_within(keys[tier], costs, budget)
        chosen.append(tier[taken])
        if len(taken) < len(tier):
            break
        budget -= costs.sum()
    return np.concatenate(chosen)


def needs_signal(options: SelectionConfig) -> bool:
    """Whether the criterion ranks by the signal's density."""
    return criterion_named(options.criterion).by_density


def rank(
    scores: Scores,
    options: SelectionConfig,
    signal: Signal | None = None,
    value: np.ndarray | None = None,
) -> Ranking:
    """Signal, density and score of every sample under a criterion."""
    n, criterion = len(scores), criterion_named(options.criterion)
    if criterion.value is not None:
        ranking = _by_value(criterion.value(scores) if value is None else value)
        if not criterion.by_lot and n > 1 and np.ptp(ranking.score) == 0:
            ranking.notes.append(Sentence("all samples are alike in this: none is preferred"))
        return ranking
    a, focus = criterion.tilt or (options.typicality, options.focus)
    signal = signal or measure_signal(scores, options)
    x, log_density, notes = signal.x, signal.log_density, list(signal.notes)
    with np.errstate(invalid="ignore"):
        above = log_density >= log_density.max() - options.floor
    if a == focus == 0:  # by direction alone, or a uniform draw: nothing is left out
        above = np.ones(n, bool)
    score = focus * x + (a * log_density if a else 0.0) + _direction(scores, options, notes)
    score = np.where(above, score, log_density)  # below the floor only density counts
    return Ranking(x, log_density, score, above, signal.dims, notes)


def _by_value(value: np.ndarray) -> Ranking:
    """Higher is better; samples without a value come last."""
    value, missing = np.asarray(value, dtype=float), np.isnan(value)
    notes = []
    if missing.any():
        notes.append(
            Sentence(
                "{number} samples have no such number: they come last", number=int(missing.sum())
            )
        )
        lowest = value[~missing].min() if not missing.all() else 0.0
        value = np.where(missing, lowest - 1, value)
    n = len(value)
    return Ranking(value, np.full(n, np.nan), value, np.ones(n, bool), dims=1, notes=notes)


def _direction(scores: Scores, options: SelectionConfig, notes: list[Sentence]) -> np.ndarray:
    """What the probe sets add to every sample's score."""
    if not options.directed:
        return np.zeros(len(scores))
    column = COSINES[options.cosine]
    towards = options.towards and options.towards * pull(scores, "target", column, notes)
    away = options.away and options.away * pull(scores, "protect", column, notes)
    return np.asarray(towards - away)


def _one_of_each(
    allowed: np.ndarray,
    pinned: np.ndarray,
    group: np.ndarray | None,
    *,
    keys: np.ndarray,
    above_floor: np.ndarray,
) -> np.ndarray:
    """(n,) bool: `allowed` without near-duplicates of a better sample, or of a pinned one."""
    if group is None:
        raise SelectionError(
            "deduplicate needs near-duplicate groups, which this run has not looked for yet"
        )
    alike = np.flatnonzero(allowed & (group >= 0))
    alike = alike[~np.isin(group[alike], group[pinned])]
    best_first = alike[np.lexsort((-keys[alike], ~above_floor[alike]))]
    found = allowed & (group < 0)
    found[best_first[np.unique(group[best_first], return_index=True)[1]]] = True
    return found


def gumbel(sample_ids: np.ndarray, seed: int) -> np.ndarray:
    """(n,) standard Gumbel noise that depends on (seed, sample id) alone, so that draws nest."""
    state = np.asarray(sample_ids).astype(np.uint64) + np.uint64(1)
    with np.errstate(over="ignore"):
        state = _mix(state * np.uint64(0x9E3779B97F4A7C15))
        state = _mix(
            state ^ _mix(np.full(1, seed, np.uint64) * np.uint64(0xD1B54A32D192ED03) + np.uint64(1))
        )
    uniform = (state >> np.uint64(11)).astype(float) / 2**53 + 2.0**-54
    return np.asarray(-np.log(-np.log(uniform)))


def _mix(z: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def _budget(
    options: SelectionConfig, ranking: Ranking, usable: np.ndarray, cost: np.ndarray
) -> float:
    """How much may be kept, in the budget's unit."""
    if options.count is not None:
        return float(options.count)
    if options.ratio is not None:
        total = options.ratio * cost.sum()
        return float(max(1, round(total)))
    candidates = usable & ranking.above_floor
    if not candidates.any():
        return 0.0
    peak = ranking.score[candidates].max()
    near = candidates & (ranking.score >= peak - AUTO_DROP[ranking.dims])
    return float(cost[near].sum())


def _by_cluster(
    free: np.ndarray,
    cluster: np.ndarray,
    keys: np.ndarray,
    above_floor: np.ndarray,
    *,
    cost: np.ndarray,
    budget: float,
) -> np.ndarray:
    """The budget shared over the clusters by size; what one cannot use goes to the others."""
    there = np.flatnonzero(free)
    if not len(there):
        return there
    members = [there[group] for group in groups(cluster[there])]
    sizes = np.array([cost[group].sum() for group in members])
    if sizes.sum() <= budget:
        return there
    exact = budget * sizes / sizes.sum()
    shares = np.floor(exact)
    spare = round(budget - shares.sum())
    largest = np.argsort(-(exact - shares), kind="stable")[:spare]
    shares[largest] += 1
    chosen = [
        _best(group, keys, above_floor, cost=cost, budget=share)
        for group, share in zip(members, shares, strict=True)
    ]
    taken = np.concatenate(chosen)
    left = budget - cost[taken].sum()
    if left < 1:
        return taken
    rest = free.copy()  # with a budget in tokens, shares leave a remainder
    rest[taken] = False
    more = _best(np.flatnonzero(rest), keys, above_floor, cost=cost, budget=left)
    return np.concatenate([taken, more])


def _members(scores: Scores, ids: tuple[int, ...], what: str) -> np.ndarray:
    unknown = sorted(set(ids) - set(scores.sample_id[np.isin(scores.sample_id, ids)].tolist()))
    if unknown:
        raise SelectionError(
            f"cannot {what} sample {unknown[0]}: the pool has no such id (it may be refused or"
            " held out)"
        )
    return np.isin(scores.sample_id, ids)


def _allowed(
    scores: Scores,
    options: SelectionConfig,
    columns: dict[str, np.ndarray],
    cluster: np.ndarray | None,
) -> np.ndarray:
    """(n,) bool: inside every bound and in a chosen cluster; missing values are outside."""
    allowed = np.ones(len(scores), bool)
    for bound in options.bounds:
        allowed &= within_bound(columns, bound)
    if options.clusters:
        if cluster is None:
            raise SelectionError("this run has no clusters to choose among")
        known = set(np.unique(cluster).tolist())
        unknown = sorted(set(options.clusters) - known)
        if unknown:
            raise SelectionError(f"no cluster {unknown[0]}: there are {sorted(known)}")
        allowed &= np.isin(cluster, options.clusters)
    return allowed
