"""Why a sample is kept or set aside, in a line for people."""

import numpy as np

from grads.selection.criteria import criterion_named
from grads.selection.decisions import decisions, disagreements
from grads.selection.pool import Pool
from grads.selection.preview import Preview
from grads.selection.record import Decision
from grads.selection.select import AUTO_DROP

USUAL = {
    "residual": "its length's usual",
    "sqrt": "the usual, scaled by length",
    "none": "the usual",
}


def reasons(pool: Pool, shown: Preview, positions: np.ndarray) -> list[str]:
    """A line for each of these positions: what the sample is like; what became of it."""
    made, apart = decisions(pool.run), disagreements(pool.run)
    lines = []
    for position in positions.tolist():
        by_hand = _by_hand(pool, shown, position, made)
        if by_hand and int(pool.scores.sample_id[position]) in apart:
            by_hand += "; reviewers disagree"
        lines.append(by_hand or f"{_like(pool, shown, position)}; {_became(pool, shown, position)}")
    return lines


def _by_hand(pool: Pool, shown: Preview, position: int, made: dict[int, Decision]) -> str:
    """What people decided about it, where they did."""
    sample = int(pool.scores.sample_id[position])
    if sample in shown.options.pins:
        said = "always kept"
    elif sample in shown.options.excluded:
        said = "never kept"
    else:
        return ""
    decision = made.get(sample)
    if decision is None:
        return f"{said}, by the options"
    who = f" by {decision.reviewer}" if decision.reviewer else ""
    why = f": {decision.reason}" if decision.reason else ""
    return f"{said}{who}{why}"


def _like(pool: Pool, shown: Preview, position: int) -> str:
    """What the criterion sees in it."""
    options, ranking = shown.options, shown.ranking
    criterion = criterion_named(options.criterion)
    if criterion.by_lot:
        return "any example alike"
    if not criterion.by_density:
        better = int((ranking.score > ranking.score[position]).sum())
        return f"number {better + 1:,} of {len(pool):,} by “{criterion.label}”"
    x = float(ranking.x[position])
    side = "above" if x > 0 else "below"
    size = f"{abs(x):.1f} {side}" if round(abs(x), 1) else "at"
    return f"{_typical(shown, position)}, signal {size} {USUAL[options.length_control]}"


def _typical(shown: Preview, position: int) -> str:
    ranking = shown.ranking
    peak = float(np.nanmax(ranking.log_density))
    drop = peak - float(ranking.log_density[position])
    if drop <= AUTO_DROP[ranking.dims]:
        return "typical"
    return "less typical" if drop <= shown.options.floor else "unusual"


def _became(pool: Pool, shown: Preview, position: int) -> str:
    """What the draw, the ranges and the budget made of it."""
    options, kept = shown.options, bool(shown.kept[position])
    share = f"{100 * shown.count / len(pool):.3g}%"
    if not kept:
        if outside := _outside(pool, shown, position):
            return outside
        if options.deduplicate and (twin := _kept_twin(pool, shown, position)) is not None:
            return f"a near-duplicate of row {twin}, which is kept"
    if shown.again is not None:
        again = f"({100 * shown.again[position]:.0f}% of seeds keep it)"
        return f"{'in' if kept else 'not in'} the draw's {share} {again}"
    of = " of its topic" if options.draw == "stratified" else ""
    return f"among the best {share}{of}" if kept else f"not among the best {share}{of}"


def _outside(pool: Pool, shown: Preview, position: int) -> str:
    """Which range or topic of the options leaves it out."""
    for bound in shown.options.bounds:
        value = float(pool.numbers[bound.column][position])
        if np.isnan(value):
            return f"it has no {bound.column}"
        if bound.low is not None and value < bound.low:
            return f"its {bound.column} of {value:.3g} is below {bound.low:.3g}"
        if bound.high is not None and value > bound.high:
            return f"its {bound.column} of {value:.3g} is above {bound.high:.3g}"
    topics = shown.options.clusters
    if topics and pool.cluster is not None and int(pool.cluster[position]) not in topics:
        return "of a topic that is not chosen"
    return ""


def _kept_twin(pool: Pool, shown: Preview, position: int) -> int | None:
    twins = [p for p in pool.near_duplicates(position) if shown.kept[p]]
    return int(pool.scores.sample_id[twins[0]]) if twins else None
