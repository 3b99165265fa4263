"""Why a sample is kept or set aside, in a line for people."""

import numpy as np

from grads.selection.criteria import criterion_named
from grads.selection.decisions import decisions, disagreements
from grads.selection.pool import Pool
from grads.selection.preview import Preview
from grads.selection.record import Decision
from grads.selection.select import AUTO_DROP
from grads.text import Tell, in_english


def reasons(
    pool: Pool, shown: Preview, positions: np.ndarray, tell: Tell = in_english
) -> list[str]:
    """A line for each of these positions: what the sample is like; what became of it."""
    made, apart = decisions(pool.run), disagreements(pool.run)
    lines = []
    for position in positions.tolist():
        sample = int(pool.scores.sample_id[position])
        said = _by_hand(shown, sample, made.get(sample), tell)
        if said and sample in apart:
            said = tell("{said}; reviewers disagree", said=said)
        if not said:
            like, became = (find(pool, shown, position, tell) for find in (_like, _became))
            said = tell("{like}; {became}", like=like, became=became)
        lines.append(said)
    return lines


def _by_hand(shown: Preview, sample: int, decision: Decision | None, tell: Tell) -> str:
    """What people decided about it, where they did."""
    if sample in shown.options.pins:
        said = tell("always kept")
    elif sample in shown.options.excluded:
        said = tell("never kept")
    else:
        return ""
    if decision is None:
        return tell("{said}, by the options", said=said)
    if decision.reviewer:
        said = tell("{said} by {reviewer}", said=said, reviewer=decision.reviewer)
    if decision.reason:
        said = tell("{said}: {reason}", said=said, reason=decision.reason)
    return said


def _like(pool: Pool, shown: Preview, position: int, tell: Tell) -> str:
    """What the criterion sees in it."""
    options, ranking = shown.options, shown.ranking
    criterion = criterion_named(options.criterion)
    if criterion.by_lot:
        return tell("any example alike")
    if not criterion.by_density:
        place = int((ranking.score > ranking.score[position]).sum()) + 1
        known = {"place": place, "count": len(pool), "criterion": tell(criterion.label)}
        return tell("number {place:,} of {count:,} by “{criterion}”", **known)
    usual = {
        "residual": tell("its length's usual"),
        "sqrt": tell("the usual, scaled by length"),
        "none": tell("the usual"),
    }[options.length_control]
    x = float(ranking.x[position])
    known = {"typical": _typical(shown, position, tell), "usual": usual, "distance": abs(x)}
    if not round(abs(x), 1):
        return tell("{typical}, signal at {usual}", **known)
    if x > 0:
        return tell("{typical}, signal {distance:.1f} above {usual}", **known)
    return tell("{typical}, signal {distance:.1f} below {usual}", **known)


def _typical(shown: Preview, position: int, tell: Tell) -> str:
    ranking = shown.ranking
    peak = float(np.nanmax(ranking.log_density))
    drop = peak - float(ranking.log_density[position])
    if drop <= AUTO_DROP[ranking.dims]:
        return tell("typical")
    return tell("less typical") if drop <= shown.options.floor else tell("unusual")


def _became(pool: Pool, shown: Preview, position: int, tell: Tell) -> str:
    """What the draw, the ranges and the budget made of it."""
    options, kept = shown.options, bool(shown.kept[position])
    share = f"{100 * shown.count / len(pool):.3g}%"
    if not kept:
        if outside := _outside(pool, shown, position, tell):
            return outside
        if options.deduplicate and (twin := _kept_twin(pool, shown, position)) is not None:
            return tell("a near-duplicate of row {row}, which is kept", row=twin)
    if shown.again is not None:
        known = {"share": share, "again": 100 * float(shown.again[position])}
        if kept:
            return tell("in the draw's {share} ({again:.0f}% of seeds keep it)", **known)
        return tell("not in the draw's {share} ({again:.0f}% of seeds keep it)", **known)
    if options.draw == "stratified":
        if kept:
            return tell("among the best {share} of its topic", share=share)
        return tell("not among the best {share} of its topic", share=share)
    if kept:
        return tell("among the best {share}", share=share)
    return tell("not among the best {share}", share=share)


def _outside(pool: Pool, shown: Preview, position: int, tell: Tell) -> str:
    """Which range or topic of the options leaves it out."""
    for bound in shown.options.bounds:
        column, value = bound.column, float(pool.numbers[bound.column][position])
        known: dict[str, object] = {"column": column, "value": value}
        if np.isnan(value):
            return tell("it has no {column}", column=column)
        if bound.low is not None and value < bound.low:
            return tell("its {column} of {value:.3g} is below {end:.3g}", end=bound.low, **known)
        if bound.high is not None and value > bound.high:
            return tell("its {column} of {value:.3g} is above {end:.3g}", end=bound.high, **known)
    topics = shown.options.clusters
    if topics and pool.cluster is not None and int(pool.cluster[position]) not in topics:
        return tell("of a topic that is not chosen")
    return ""


def _kept_twin(pool: Pool, shown: Preview, position: int) -> int | None:
    twins = [p for p in pool.near_duplicates(position) if shown.kept[p]]
    return int(pool.scores.sample_id[twins[0]]) if twins else None
