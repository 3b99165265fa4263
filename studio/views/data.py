"""The data of the linked views, from plain arrays. No widgets, no disk.

Places go to the browser as whole numbers from 0 to 10,000 along an axis. Kept is blue and filled,
set aside is grey and a ring, so that they stay apart without colours too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from grads.api import Categories, Cut, number_of_bars
from studio import charts
from studio.language import mark, say

ACCENT, MUTED, CURVE = charts.KEPT, charts.NEUTRAL, charts.SHOWN
SEQUENTIAL = ("#8fb8e8", "#5c93d6", "#3469b0", "#1d3f7a", MUTED)  # quarters of a number, no number
FINE = 10_000  # steps of an axis
WORDS = {  # with braces for what the browser puts there
    "row": mark("row {number}"),
    "range": mark("{column}: {low} to {high}"),
    "count": mark("{number} {group}"),
    "kept": mark("kept"),
    "aside": mark("set aside"),
    "nothing": mark("no example"),
    "budget": mark("budget {percent}%, down to {value}"),
    "up to": mark("budget {percent}%, up to {value}"),
}


@dataclass(frozen=True)
class Samples:
    """What all views go by."""

    sample_id: np.ndarray  # (n,)
    shown: np.ndarray  # (n,) bool: what passes the filters
    kept: np.ndarray | None  # (n,) bool
    group: Categories  # what colours each
    ordered: bool  # whether the groups are quarters of a number

    def drawn(self) -> np.ndarray:
        """Positions of the samples that are drawn: of those shown, and fewer of the others."""
        code = self.group.code if self.kept is None else 2 * self.group.code + self.kept
        parts = [charts.sample_points(self.shown, code)]
        if not self.shown.all():
            parts.append(charts.sample_points(~self.shown, code, charts.MOST_POINTS // 2))
        return np.sort(np.concatenate(parts))


def page(
    samples: Samples, drawn: np.ndarray, texts: Sequence[str], views: list[dict[str, Any]]
) -> dict[str, Any]:
    """Everything for the browser; `drawn` (m,) are positions, `texts` (m,) their first words."""
    groups, code = _groups(samples)
    return {
        "points": {
            "id": samples.sample_id[drawn].tolist(),
            "shown": samples.shown[drawn].tolist(),
            "kept": None if samples.kept is None else samples.kept[drawn].tolist(),
            "group": code[drawn].tolist(),
            "text": list(texts),
        },
        "groups": groups,
        "accent": ACCENT,
        "neutral": MUTED,
        "curve": CURVE,
        "words": {key: say(text) for key, text in WORDS.items()},
        "views": views,
    }


def legend(samples: Samples) -> list[tuple[str, str]]:
    """Name and colour of each group that is there."""
    return [(group["name"], group["colour"]) for group in _groups(samples)[0]]


def _groups(samples: Samples) -> tuple[list[dict[str, str]], np.ndarray]:
    """The groups as they are drawn, small ones joined, and the place of each sample's."""
    names, code = samples.group.names, samples.group.code
    sizes = np.bincount(code, minlength=len(names))
    place, found = np.zeros(len(names), int), []
    if samples.ordered:
        there = [c for c in range(len(names)) if sizes[c]]
        shades = [SEQUENTIAL[-1] if names[c] == say("(none)") else SEQUENTIAL[c] for c in there]
        rows = [(names[c], [c], shade) for c, shade in zip(there, shades, strict=True)]
    else:
        rows = [
            (name, codes, _colour(name, number))
            for number, (name, codes) in enumerate(charts.joined(names, sizes))
        ]
    for number, (name, codes, colour) in enumerate(rows):
        place[codes] = number
        shown = say(name) if name == charts.OTHERS else name
        found.append({"name": shown, "colour": colour})
    return found, place[code]


def _colour(name: str, number: int) -> str:
    """Of a group; kept and set aside have theirs everywhere, in any language."""
    fates = {say("kept"): ACCENT, say("set aside"): MUTED}
    return fates.get(name) or charts.group_colour(name, number)


@dataclass(frozen=True)
class Plane:
    """Two columns against each other, whatever of them is shown."""

    across: tuple[float, float]  # the ends of the axes
    up: tuple[float, float]
    x: np.ndarray  # (n,) int16 places along the axes
    y: np.ndarray
    density: dict[str, Any]  # of all samples, as opacities (0 to 255) of square cells, row by row

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> "Plane":
        """The plane of two columns (n,)."""
        across, up = (_widened(*charts.spread(values)) for values in (x, y))
        return cls(across, up, _fine(x, *across), _fine(y, *up), _density(x, y, (across, up)))

    def place(self, point: Sequence[float]) -> list[float]:
        """A point in the columns' units as shares of the axes."""
        ends = (self.across, self.up)
        return [_unit(value, *reach) for value, reach in zip(point, ends, strict=True)]

    def in_units(self, corners: Any) -> tuple[tuple[float, float], ...]:
        """A shape drawn here, in shares of the axes, in the columns' units; () if it is none."""
        try:
            drawn = np.array(corners, dtype=float).reshape(-1, 2)
        except (TypeError, ValueError):
            return ()
        if not np.isfinite(drawn).all():
            return ()
        ends = np.array([self.across, self.up])
        placed = ends[:, 0] + drawn * (ends[:, 1] - ends[:, 0])
        return tuple((float(a), float(b)) for a, b in placed)


def scatter(
    name: str,
    plane: Plane,
    drawn: np.ndarray,
    *,
    title: str,
    alt: str,
    labels: tuple[str, str] | None = None,
    shape: Sequence[tuple[float, float]] | None = None,
    opened: int | None = None,
) -> dict[str, Any]:
    """Samples in a plane; without `labels` a map, whose axes mean nothing.

    `shape` are the corners of a polygon in the columns' units, `opened` is a position to mark.
    Behind the points lies the density of all samples, where not all are drawn.
    """
    found = {
        "kind": "scatter",
        "name": name,
        "title": title,
        "alt": alt,
        "bare": labels is None,
        "x": labels[0] if labels else "",
        "y": labels[1] if labels else "",
        "across": plane.across,
        "up": plane.up,
        "px": plane.x[drawn].tolist(),
        "py": plane.y[drawn].tolist(),
        "shape": [plane.place(corner) for corner in shape] if shape else None,
        "open": None if opened is None else [int(plane.x[opened]), int(plane.y[opened])],
    }
    if len(drawn) < len(plane.x):
        found["density"] = plane.density
    return found


def middles(x: np.ndarray, y: np.ndarray, topics: Categories) -> np.ndarray:
    """(k, 2) the median place of each topic's samples; NaN where it has none."""
    order = np.argsort(topics.code, kind="stable")
    ends = np.cumsum(np.bincount(topics.code, minlength=len(topics.names)))[:-1]
    parts = np.split(np.column_stack([x, y])[order], ends)
    return np.array([np.median(part, axis=0) if len(part) else [np.nan] * 2 for part in parts])


def named(
    scatter_data: dict[str, Any],
    places: Sequence[list[float]],
    samples: Samples,
    topics: Categories,
) -> dict[str, Any]:
    """The map with its topics' names at their places, largest first, and how many each keeps."""
    sizes = np.bincount(topics.code, minlength=len(topics.names))
    kept = None
    if samples.kept is not None:
        kept = np.bincount(topics.code[samples.kept], minlength=len(topics.names))
    found = []
    for number in np.argsort(-sizes, kind="stable").tolist():
        if sizes[number]:
            told = "" if kept is None else f" {kept[number]:,}/{sizes[number]:,}"
            none = kept is not None and not kept[number]
            at = places[number]
            found.append({"name": topics.names[number], "told": told, "none": none, "at": at})
    return scatter_data | {"names": found}


@dataclass(frozen=True)
class Budget:
    """A budget that is a threshold on what a distribution shows."""

    cut: Cut
    way: int  # 1 where the highest are kept, -1 where the lowest are
    percent: float | None  # of the pool; None where the data decide
    percents: np.ndarray  # (m,) that it can be set to, rising

    def line(self, values: np.ndarray, low: float, high: float) -> dict[str, Any] | None:
        """Where it cuts the values (n,) along an axis, and where else it would."""
        taken = values[self.cut.taken]
        taken = taken[np.isfinite(taken)]
        if not len(taken):
            return None
        ends = (low, high) if self.way > 0 else (-high, -low)
        steps = self.cut.steps(_fine(self.way * values, *ends), self.percents / 100)
        value = float(taken.min() if self.way > 0 else taken.max())
        return {
            "value": value,
            "at": _unit(value, low, high, clip=True),
            "percent": self.percent,
            "way": self.way,
            "steps": [
                [round(100 * share, 6), (place if self.way > 0 else FINE - place) / FINE]
                for share, place in steps
            ],
        }


def distribution(
    values: np.ndarray,
    samples: Samples,
    drawn: np.ndarray,
    *,
    label: str,
    title: str,
    alt: str,
    limits: tuple[float, float] | None = None,
    chooses: bool = False,
    ranged: bool = True,
    budget: Budget | None = None,
    opened: int | None = None,
) -> dict[str, Any]:
    """Counts of a column (n,) in bins, by kept and set aside, and its density.

    Bars and axes are of all samples, whatever is shown: the others are faint. Values beyond the
    drawn range count in the last bin. `limits` is a range to mark; where it `chooses`, it says
    what may be kept and hides no point; where it is not `ranged`, none can be drawn. `budget` is
    a threshold that can be dragged, `opened` a position to mark.
    """
    low, high = charts.spread(values)
    bins = number_of_bars(values, low, high)
    edges = np.linspace(low, high, bins + 1)
    inside, shown, kept = np.clip(values, low, high), samples.shown, samples.kept
    parts = [(say("examples"), shown, MUTED, True, False)]
    if kept is not None:
        parts = [
            (say("kept"), shown & kept, ACCENT, True, False),
            (say("set aside"), shown & ~kept, MUTED, False, False),
        ]
    if not shown.all():
        parts.append((say("filtered out"), ~shown, MUTED, False, True))
    bars = [
        {
            "name": name,
            "counts": np.histogram(inside[member], edges)[0].tolist(),
            "colour": colour,
            "full": full,
            "faint": faint,
        }
        for name, member, colour, full, faint in parts
    ]
    curve = charts.density_curve(inside, low, high)[1] * (high - low) / bins
    most = np.sum([bar["counts"] for bar in bars], axis=0).max()
    at = _fine(values, low, high)
    return {
        "kind": "distribution",
        "name": "distribution",
        "title": title,
        "alt": alt,
        "x": label,
        "y": say("examples"),
        "across": (low, high),
        "up": (0, int(max(most, 1) * 1.08) + 1),
        "bars": bars,
        "curve": [float(f"{value:.4g}") for value in curve[::4]],
        "at": at[drawn].tolist(),
        "range": None if limits is None else [_unit(end, low, high, clip=True) for end in limits],
        "limits": chooses,
        "ranged": ranged,
        "cut": None if budget is None else budget.line(values, low, high),
        "open": None if opened is None else int(at[opened]) / FINE,
    }


def brushed_range(values: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """What a range from low to high over the bars of a distribution holds of the values (n,).

    The outermost bars also count what lies beyond them, so a range over one reaches to the end.
    """
    low, high = min(low, high), max(low, high)
    first, last = charts.spread(values)
    half = (last - first) / number_of_bars(values, first, last) / 2
    least, most = float(np.nanmin(values)), float(np.nanmax(values))
    margin = 1e-9 * max(abs(least), abs(most))  # ranges travel with ten digits
    low = least - margin if low <= first + half else low
    return low, most + margin if high >= last - half else high


def _density(
    x: np.ndarray, y: np.ndarray, reach: tuple[tuple[float, float], tuple[float, float]]
) -> dict[str, Any]:
    counts = np.histogram2d(x, y, charts.CELLS, reach)[0]
    width = charts.CELLS * max(len(x), 2) ** (-1 / 6) / 6  # Scott's bandwidth, in cells
    smooth = np.sqrt(gaussian_filter(counts, width, mode="constant")).T
    opacity = 150 * smooth / max(float(smooth.max()), 1e-9)
    return {"cells": charts.CELLS, "values": opacity.astype(int).ravel().tolist()}


def _widened(low: float, high: float) -> tuple[float, float]:
    room = 0.06 * (high - low)
    return low - room, high + room


def _unit(value: float, low: float, high: float, clip: bool = False) -> float:
    place = (value - low) / (high - low)
    return min(max(place, 0.0), 1.0) if clip else round(place, 5)


def _fine(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """(n,) int places along an axis; those without a value, or beyond it, at its ends."""
    place = np.nan_to_num((values.astype(float) - low) / (high - low), nan=0.0)
    return np.asarray(np.clip(place, 0, 1) * FINE, dtype=np.int16)
