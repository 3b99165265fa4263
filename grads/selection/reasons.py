"""Why a sample is kept or set aside, in a line for people."""

import numpy as np

from grads.selection.criteria import criterion_named
from grads.selection.decisions import decisions, disagreements, why_in_words
from grads.selection.pool import Pool
from grads.selection.preview import Preview
from grads.selection.record import Decision
from grads.selection.select import AUTO_DROP
from grads.text import Sentence

USUAL = {
    "residual": Sentence("its length's usual"),
    "sqrt": Sentence("the usual, scaled by length"),
    "none": Sentence("the usual"),
}


def reasons(pool: Pool, shown: Preview, positions: np.ndarray) -> list[Sentence]:
    """A line for each of these positions: what the sample is like; what became of it."""
    made, apart = decisions(pool.run), disagreements(pool.run)
    lines = []
    for position in positions.tolist():
        line = _by_hand(pool, shown, position, made)
        if line is None:
            like, became = (of(pool, shown, position) for of in (_like, _became))
            line = Sentence("{like}; {became}", like=like, became=became)
        elif int(pool.scores.sample_id[position]) in apart:
            line = Sentence("{said}; reviewers disagree", said=line)
        lines.append(line)
    return lines


def _by_hand(
    pool: Pool, shown: Preview, position: int, made: dict[int, Decision]
) -> Sentence | None:
    """What people decided about it, where they did."""
    sample = int(pool.scores.sample_id[position])
    if sample in shown.options.pins:
        said = Sentence("always kept")
    elif sample in shown.options.excluded:
        said = Sentence("never kept")
    else:
        return None
    decision = made.get(sample)
    if decision is None:
        return Sentence("{said}, by the options", said=said)
    if decision.reviewer:
        said = Sentence("{said} by {reviewer}", said=said, reviewer=decision.reviewer)
    if decision.reason:
        said = Sentence("{said}: {reason}", said=said, reason=why_in_words(decision.reason))
    return said


def _like(pool: Pool, shown: Preview, position: int) -> Sentence:
    """What the criterion sees in it."""
    options, ranking = shown.options, shown.ranking
    criterion = criterion_named(options.criterion)
    if criterion.by_lot:
        return Sentence("any example alike")
    if not criterion.by_density:
        return Sentence(
            "number {place:,} of {total:,} by “{criterion}”",
            place=int((ranking.score > ranking.score[position]).sum()) + 1,
            total=len(pool),
            criterion=Sentence(criterion.label),
        )
    x = float(ranking.x[position])
    said = {"typical": _typical(shown, position), "usual": USUAL[options.length_control]}
    if not round(abs(x), 1):
        return Sentence("{typical}, signal at {usual}", **said)
    if x > 0:
        return Sentence("{typical}, signal {size:.1f} above {usual}", size=x, **said)
    return Sentence("{typical}, signal {size:.1f} below {usual}", size=-x, **said)


def _typical(shown: Preview, position: int) -> Sentence:
    ranking = shown.ranking
    peak = float(np.nanmax(ranking.log_density))
    drop = peak - float(ranking.log_density[position])
    if drop <= AUTO_DROP[ranking.dims]:
        return Sentence("typical")
    return Sentence("less typical") if drop <= shown.options.floor else Sentence("unusual")


def _became(pool: Pool, shown: Preview, position: int) -> Sentence:
    """What the draw, the ranges and the budget made of it."""
    options, kept = shown.options, bool(shown.kept[position])
    if not kept:
        if outside := _outside(pool, shown, position):
            return outside
        if options.deduplicate and (twin := _kept_twin(pool, shown, position)) is not None:
            return Sentence("a near-duplicate of row {row}, which is kept", row=twin)
    said = {"share": 100 * shown.count / len(pool)}
    if shown.again is not None:
        said["again"] = 100 * float(shown.again[position])
        if kept:
            return Sentence("in the draw's {share:.3g}% ({again:.0f}% of seeds keep it)", **said)
        return Sentence("not in the draw's {share:.3g}% ({again:.0f}% of seeds keep it)", **said)
    if options.draw == "stratified":
        if kept:
            return Sentence("among the best {share:.3g}% of its topic", **said)
        return Sentence("not among the best {share:.3g}% of its topic", **said)
    if kept:
        return Sentence("among the best {share:.3g}%", **said)
    return Sentence("not among the best {share:.3g}%", **said)


def _outside(pool: Pool, shown: Preview, position: int) -> Sentence | None:
    """Which range or topic of the options leaves it out."""
    for bound in shown.options.bounds:
        value = float(pool.numbers[bound.column][position])
        said = {"column": bound.column, "value": value}
        if np.isnan(value):
            return Sentence("it has no {column}", column=bound.column)
        if bound.low is not None and value < bound.low:
            return Sentence("its {column} of {value:.3g} is below {end:.3g}", end=bound.low, **said)
        if bound.high is not None and value > bound.high:
            return Sentence(
                "its {column} of {value:.3g} is above {end:.3g}", end=bound.high, **said
            )
    topics = shown.options.clusters
    if topics and pool.cluster is not None and int(pool.cluster[position]) not in topics:
        return Sentence("of a topic that is not chosen")
    return None


def _kept_twin(pool: Pool, shown: Preview, position: int) -> int | None:
    twins = [p for p in pool.near_duplicates(position) if shown.kept[p]]
    return int(pool.scores.sample_id[twins[0]]) if twins else None
