"""Every usable row by its weight, instead of a subset: repeated, or with its weight as a column.

No trainer that is exported for draws rows by a weight of their own: they mix files by shares. A
row that stands in the data several times is what all of them read.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from grads.errors import ExportError
from grads.export.rows import Format, Subset, row_count
from grads.text import Sentence

Way = Literal["repeat", "sample"]
WAYS: tuple[Way, ...] = get_args(Way)


@dataclass(frozen=True)
class Weighting:
    """What is to be done with the weights of n samples."""

    by: Way
    sample_ids: np.ndarray  # (n,) sorted
    share: np.ndarray  # (n,) float, sums to 1
    pinned: np.ndarray  # (n,) bool: at least once among repeated rows
    rows: int | None = None  # repeated rows in all; None: as many as there are samples


def check_way(by: str | None, rows: int | None) -> Way | None:
    """The way of this name; raises ExportError where there is none, or `rows` has no meaning."""
    way = next((way for way in WAYS if way == by), None)
    if by is not None and way is None:
        raise ExportError(f"no weights '{by}': use one of {', '.join(WAYS)}")
    if rows is not None and (by != "repeat" or rows < 1):
        raise ExportError(
            f"rows is {rows}: give a number above 0, and together with weights 'repeat'"
        )
    return way


def weighted(subset: Subset, weighting: Weighting, form: Format) -> tuple[Subset, dict[str, Any]]:
    """The rows by their weights, and what the manifest says of it.

    Weights are shares among the rows that the target takes. Raises ExportError where none of them
    has a weight, the format has no place for it, or more rows are pinned than there may be.
    """
    if weighting.by == "sample" and not form.plain:
        raise ExportError(
            f"{form.name} has no place for the weight of a row: use weights 'repeat', or a format"
            " of plain data"
        )
    place = np.searchsorted(weighting.sample_ids, np.array(subset.ids))
    share, pinned = weighting.share[place], weighting.pinned[place]
    if not share.sum():
        raise ExportError("no row that the target takes has a weight: use another format")
    share = share / share.sum()
    about = {
        "by": weighting.by,
        "pool": len(subset),
        "effective_samples": round(float(1 / np.square(share).sum()), 1),
    }
    if weighting.by == "sample":
        scores = subset.scores or [{}] * len(subset)
        columns = [row | {"weight": float(w)} for row, w in zip(scores, share, strict=True)]
        return replace(subset, scores=columns), about
    times = repeats(share, weighting.rows or len(subset), pinned)
    counts = sorted(Counter(times.tolist()).items())
    return subset.only(passes(times).tolist()), about | {
        "times": {str(n): rows for n, rows in counts}
    }


def repeats(share: np.ndarray, rows: int, pinned: np.ndarray) -> np.ndarray:
    """(n,) int how often each row stands among `rows`: pinned ones once, the rest by share.

    `share` (n,) sums to 1. What is left of whole numbers goes to the largest remainders, ties to
    the first rows. Raises ExportError where `rows` does not hold the pinned (n,) bool ones.
    """
    left = rows - int(pinned.sum())
    if left < 0:
        raise ExportError(f"{rows} rows do not hold the {pinned.sum()} pinned ones: allow more")
    exact = share * left
    times = np.floor(exact).astype(int)
    largest = np.argsort(-(exact - times), kind="stable")[: left - int(times.sum())]
    times[largest] += 1
    return np.asarray(times + pinned)


def passes(times: np.ndarray) -> np.ndarray:
    """(rows,) places of rows that stand there so often (n,) each.

    Pass by pass, so that a trainer that keeps the order sees no row twice in a row.
    """
    places = np.repeat(np.arange(len(times)), times)
    first = np.repeat(np.cumsum(times) - times, times)
    return places[np.argsort(np.arange(len(places)) - first, kind="stable")]


def weight_lines(about: dict[str, Any] | None) -> list[Sentence]:
    """What people should know of an export by weight."""
    if about is None:
        return []
    known = {"rows": row_count(about["pool"]), "worth": about["effective_samples"]}
    if about["by"] == "sample":
        told = Sentence("weights: {rows}, as good as {worth:,.0f} rows of one weight", **known)
        return [told]
    times = {int(n): rows for n, rows in about["times"].items()}
    there = sum(rows for n, rows in times.items() if n)
    told = Sentence(
        "weights: {there:,} of {rows} stand there, each up to {times} times; as good as"
        " {worth:,.0f} rows of one weight",
        there=there,
        times=max(times),
        **known,
    )
    return [told]
