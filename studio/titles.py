"""What pictures show, in a sentence above each."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr

from grads.api import Coverage, Pool
from studio import words
from studio.language import mark, say

TOGETHER = (  # how two columns go: hardly, clearly
    mark("The two hardly rise together: rank correlation {number:.2f}"),
    mark("The two rise together: rank correlation {number:.2f}"),
)
AGAINST_EACH_OTHER = (
    mark("The two hardly go against each other: rank correlation {number:.2f}"),
    mark("The two go against each other: rank correlation {number:.2f}"),
)


def spread(pool: Pool, kept: np.ndarray | None) -> str:
    """Where on the map the kept ones lie, as a title."""
    if kept is None or pool.cluster is None:
        return say("Map of the texts: alike lies together")
    return say(
        "Map of the texts: kept in {number} of {all} topics",
        number=len(np.unique(pool.cluster[kept])),
        all=len(pool.clusters),
    )


def correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """The rank correlation of two columns (n,), where they have one."""
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < 3 or np.ptp(x[both]) == 0 or np.ptp(y[both]) == 0:
        return None
    return float(spearmanr(x[both], y[both]).statistic)


def together(found: float | None) -> str:
    """How two columns go together, as a title."""
    if found is None:
        return say("One number against another")
    weak, strong = TOGETHER if found > 0 else AGAINST_EACH_OTHER
    return say(strong if abs(found) >= 0.5 else weak, number=found)


def apart(values: np.ndarray, kept: np.ndarray | None, label: str) -> str:
    """How what is kept lies to the rest, as a title."""
    if kept is None or not kept.any() or kept.all():
        return say(
            "{column}: half of all lie below {number:.2g}",
            column=label,
            number=np.nanmedian(values),
        )
    inside, beside = (float(np.nanmedian(values[mask])) for mask in (kept, ~kept))
    return say(
        "{column}: the kept lie at {inside:.2g} (median), the others at {beside:.2g}",
        column=label,
        inside=inside,
        beside=beside,
    )


def lengths(tokens: np.ndarray) -> str:
    """How long the samples are, by their tokens (n,), as a title."""
    return say(
        "Half of the examples have up to {median:,.0f} tokens, the longest {longest:,}",
        median=np.median(tokens),
        longest=int(tokens.max()),
    )


def covered(rows: Sequence[Coverage]) -> str:
    """In how many categories the kept are more or fewer than in random subsets, as a title."""
    unlike = sum(not row.random.low <= row.kept <= row.random.high for row in rows)
    if not unlike:
        return say("Each is kept about as often as by chance")
    return say(
        "{number} of {all} are kept more or less often than by chance", number=unlike, all=len(rows)
    )


def topics(names: Sequence[str], sizes: Sequence[int]) -> str:
    """How many topics there are, and which is the largest, as a title."""
    largest = int(np.argmax(sizes))
    return say(
        "{number} topics, the largest: {name} ({size:,})",
        number=len(names),
        name=words.literal(names[largest]),
        size=sizes[largest],
    )
