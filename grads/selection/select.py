"""From scores to a subset: signal, density, tilt, draw, budget. NumPy in, indices out.

The signal is the log of a gradient norm with the effect of length removed, in robust standard
deviations (x). A sample's score is `typicality * log f(x) + focus * x`, with f the leave-one-out
density of the pool's signals. This is our reading of GrADS (arXiv 2511.08620), whose code is not
public; every choice in it is an option.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtri

from grads.config.run import Bound, SelectionConfig
from grads.errors import SelectionError
from grads.selection.density import bandwidth_factor, leave_one_out, whiten

AUTO_DROP = {1: 0.5, 2: 1.148}  # from the peak: holds 68% of a bell shape, in one or two dimensions
FEW = 10  # below this many samples only ranks are used


@dataclass(frozen=True)
class Scores:
    """The scored pool, n samples sorted by id; norms are those of gradients.py."""

    sample_id: np.ndarray  # (n,) int64
    response_tokens: np.ndarray  # (n,)
    loss: np.ndarray  # (n,) nats per token
    embed_grad_norm: np.ndarray  # (n,)
    head_grad_norm: np.ndarray  # (n,)
    grad_dot: np.ndarray  # (n,)

    def __len__(self) -> int:
        return len(self.sample_id)


@dataclass(frozen=True)
class Signal:
    """What the norms say before typicality and focus: the part of a ranking that takes time."""

    x: np.ndarray  # (n,) unitless signal, in robust standard deviations
    log_density: np.ndarray  # (n,) leave-one-out
    dims: int
    notes: list[str]


@dataclass(frozen=True)
class Ranking:
    """What a criterion says of each sample, before any budget."""

    x: np.ndarray  # (n,) unitless signal
    log_density: np.ndarray  # (n,) nan for criteria without a density
    score: np.ndarray  # (n,) higher is better
    above_floor: np.ndarray  # (n,) bool
    dims: int
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Selection:
    """The chosen subset."""

    kept: np.ndarray  # (n,) bool
    ranking: Ranking
    warnings: list[str]


def select(
    scores: Scores,
    options: SelectionConfig,
    columns: dict[str, np.ndarray] | None = None,
    cluster: np.ndarray | None = None,
    signal: Signal | None = None,
) -> Selection:
    """Choose the subset. `columns` are what bounds name, `cluster` (n,) labels, both optional.

    `signal` is measure_signal's answer for the same scores and options, where it is at hand.

    The same scores and options always give the same subset. Raises SelectionError for unknown
    columns, clusters or ids, and where a draw by cluster has no clusters.
    """
    ranking = rank(scores, options, signal)
    pinned = _members(scores, options.pins, "pin")
    allowed = _allowed(scores, options, columns or {}, cluster) & ~pinned
    allowed &= ~_members(scores, options.excluded, "exclude")
    keys = _keys(scores, options, ranking)
    order = _best_first(keys, ranking.above_floor, allowed)
    cost = np.ones(len(scores)) if options.budget_unit == "samples" else scores.response_tokens
    budget = _budget(options, ranking, allowed | pinned, cost)
    left = budget - cost[pinned].sum()
    if options.draw == "stratified":
        if cluster is None:
            raise SelectionError("draw 'stratified' needs clusters, which this run has none of")
        chosen = _by_cluster(order, cluster, cost, left)
    else:
        chosen = _within(order, cost, left)
    kept = pinned.copy()
    kept[chosen] = True
    if not kept.any():
        raise SelectionError(
            "nothing is left to choose from: widen the bounds, clusters or exclusions"
            if not len(order)
            else f"a budget of {budget:.0f} tokens does not hold the best sample, which has"
            f" {cost[order[0]]}: raise it"
        )
    return Selection(kept, ranking, _warnings(kept, pinned, ranking, cost, order, left))


def _warnings(
    kept: np.ndarray,
    pinned: np.ndarray,
    ranking: Ranking,
    cost: np.ndarray,
    order: np.ndarray,
    left: float,
) -> list[str]:
    """What the user should know of a selection that is not what was asked for."""
    warnings = []
    if left < 0:
        warnings.append(f"the {pinned.sum()} pinned samples alone exceed the budget")
    if cost[order].sum() < left:
        warnings.append(
            f"only {kept.sum()} samples are left after bounds, clusters and exclusions: fewer than"
            " the budget, so all of them are kept"
        )
    below = int((kept & ~ranking.above_floor & ~pinned).sum())
    if below:
        warnings.append(
            f"{below} kept samples lie below the density floor: the budget asked for more than"
            " lie above it"
        )
    return warnings


def _best_first(keys: np.ndarray, above_floor: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Allowed samples above the floor by key, then those below it; ties by sample id."""
    parts = []
    for member in (allowed & above_floor, allowed & ~above_floor):
        index = np.flatnonzero(member)
        parts.append(index[np.argsort(-keys[index], kind="stable")])
    return np.concatenate(parts)


def needs_signal(options: SelectionConfig) -> bool:
    """Whether the criterion ranks by the signal's density."""
    return options.criterion in ("grads", "density")


def rank(scores: Scores, options: SelectionConfig, signal: Signal | None = None) -> Ranking:
    """Signal, density and score of every sample under a criterion."""
    n = len(scores)
    plain = {
        "loss_high": scores.loss,
        "loss_low": -scores.loss,
        "longest": scores.response_tokens.astype(float),
        "shortest": -scores.response_tokens.astype(float),
        "magnitude": np.hypot(scores.embed_grad_norm, scores.head_grad_norm),
        "random": np.zeros(n),
    }
    if options.criterion in plain:
        value = np.asarray(plain[options.criterion], dtype=float)
        return Ranking(value, np.full(n, np.nan), value, np.ones(n, bool), dims=1)
    a, focus = (1.0, 0.0) if options.criterion == "density" else (options.typicality, options.focus)
    signal = signal or measure_signal(scores, options)
    x, log_density = signal.x, signal.log_density
    with np.errstate(invalid="ignore"):
        above = log_density >= log_density.max() - options.floor
    if a == focus == 0:  # a uniform draw: nothing is left out
        above = np.ones(n, bool)
    score = focus * x + (a * log_density if a else 0.0)
    score = np.where(above, score, log_density)  # below the floor only density counts
    return Ranking(x, log_density, score, above, signal.dims, signal.notes)


def measure_signal(scores: Scores, options: SelectionConfig) -> Signal:
    """Signal and density under the options' signal, length control and bandwidth alone."""
    notes: list[str] = []
    raw = _raw_signals(scores, options)
    axes = [_unitless(signal, scores.response_tokens, options, notes) for signal in raw]
    points = np.stack(axes[:2] if options.signal == "joint" else axes, axis=1)
    return Signal(axes[-1], _log_density(points, options, notes), points.shape[1], notes)


def unitless_signal(scores: Scores, options: SelectionConfig) -> np.ndarray:
    """(n,) the signal x alone, without its density."""
    raw = _raw_signals(scores, options)[-1]
    return _unitless(raw, scores.response_tokens, options, [])


def _raw_signals(scores: Scores, options: SelectionConfig) -> list[np.ndarray]:
    embed, head = scores.embed_grad_norm.astype(float), scores.head_grad_norm.astype(float)
    l2 = np.hypot(embed, head)
    if options.signal == "joint":
        return [embed, head, l2]
    if options.signal == "tied":
        if np.isnan(scores.grad_dot).any():
            raise SelectionError(
                "signal 'tied' needs an embedding and a head of one shape: use joint or l2"
            )
        return [np.sqrt(np.maximum(l2**2 + 2 * scores.grad_dot.astype(float), 0))]
    return [{"l2": l2, "embed": embed, "head": head}[options.signal]]


def _unitless(
    signal: np.ndarray, tokens: np.ndarray, options: SelectionConfig, notes: list[str]
) -> np.ndarray:
    """Log, minus the length effect, in robust standard deviations from the median."""
    positive = signal > 0
    if not positive.all():
        smallest = signal[positive].min() if positive.any() else 1.0
        notes.append(f"{(~positive).sum()} zero norms were raised to the smallest, {smallest:.3g}")
        signal = np.where(positive, signal, smallest)
    r, log_tokens = np.log(signal), np.log(np.asarray(tokens, dtype=float))
    if options.length_control == "sqrt":
        r = r + 0.5 * log_tokens
    elif options.length_control == "residual":
        if np.ptp(log_tokens) == 0:
            notes.append("all responses have one length: no length effect to remove")
        else:
            centred = log_tokens - log_tokens.mean()
            slope = (centred @ r) / (centred @ centred)  # least squares
            r = r - slope * centred
    if len(r) < FEW:
        notes.append(f"under {FEW} samples: ranks stand in for the signal")
        return _normal_scores(r)
    centre = np.median(r)
    low, high = np.quantile(r, [0.25, 0.75])
    scale = (high - low) / 1.349
    if scale <= 1e-9 * max(abs(centre), 1.0):
        scale = r.std()
        notes.append("the signal's quartiles coincide: its standard deviation sets the unit")
    if scale <= 1e-9 * max(abs(centre), 1.0):
        notes.append("all signals are alike: none is preferred")
        return np.zeros_like(r)
    return np.asarray((r - centre) / scale)


def _normal_scores(values: np.ndarray) -> np.ndarray:
    """Quantiles of the normal distribution at the values' ranks; equal values share their mean."""
    _, index, copies = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(copies) - copies / 2
    return np.asarray(ndtri(middle[index] / len(values)))


def _log_density(points: np.ndarray, options: SelectionConfig, notes: list[str]) -> np.ndarray:
    n, dims = points.shape
    if n < FEW:  # normal scores of ranks: their density is the bell's own
        return np.asarray(-0.5 * (points**2).sum(axis=1))
    if (np.ptp(points, axis=0) == 0).all():
        return np.zeros(n)
    if dims == 2:
        points = whiten(points)
    density = leave_one_out(points, bandwidth_factor(options.bandwidth, n, dims))
    if density.outside:
        notes.append(f"{density.outside} samples lie far outside the density's grid: taken as zero")
    if not np.isfinite(density.log_density).any():
        notes.append("no sample has a neighbour within the bandwidth: density says nothing")
        return np.zeros(n)
    return density.log_density


def _keys(scores: Scores, options: SelectionConfig, ranking: Ranking) -> np.ndarray:
    """What samples are sorted by: their scores, with Gumbel noise where the draw is random."""
    if not options.by_lot:
        return ranking.score
    return np.asarray(ranking.score + gumbel(scores.sample_id, options.seed))


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


def _within(order: np.ndarray, cost: np.ndarray, budget: float) -> np.ndarray:
    """The best samples that fit into the budget, in order, without leaving one out for its size."""
    return order[np.cumsum(cost[order]) <= budget]


def _by_cluster(
    order: np.ndarray, cluster: np.ndarray, cost: np.ndarray, budget: float
) -> np.ndarray:
    """The budget shared over the clusters by size; what one cannot use goes to the others."""
    groups = [order[cluster[order] == label] for label in np.unique(cluster[order])]
    sizes = np.array([cost[group].sum() for group in groups])
    if sizes.sum() <= budget:
        return order
    exact = budget * sizes / sizes.sum()
    shares = np.floor(exact)
    spare = round(budget - shares.sum())
    largest = np.argsort(-(exact - shares), kind="stable")[:spare]
    shares[largest] += 1
    chosen = [_within(group, cost, share) for group, share in zip(groups, shares, strict=True)]
    taken = np.concatenate(chosen)
    rest = order[~np.isin(order, taken)]  # with a budget in tokens, shares leave a remainder
    return np.concatenate([taken, _within(rest, cost, budget - cost[taken].sum())])


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


def within_bound(columns: dict[str, np.ndarray], bound: Bound) -> np.ndarray:
    """(n,) bool: the column lies within the bound; missing values lie outside."""
    if bound.column not in columns:
        there = ", ".join(columns)
        raise SelectionError(f"no number column '{bound.column}' to bound: there are {there}")
    values = columns[bound.column].astype(float)
    low = -np.inf if bound.low is None else bound.low
    high = np.inf if bound.high is None else bound.high
    return np.asarray((values >= low) & (values <= high))
