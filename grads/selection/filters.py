"""Which samples to look at or choose from: ranges, drawn shapes, topics, words."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from grads.errors import SelectionError
from grads.selection.options import Bound


@dataclass(frozen=True)
class Filter:
    """Which samples to look at; every part narrows."""

    bounds: tuple[Bound, ...] = ()
    lassos: tuple[tuple[str, str, tuple[tuple[float, float], ...]], ...] = ()
    """(x column, y column, corners) of polygons drawn in a plane."""
    clusters: tuple[int, ...] = ()
    text: str = ""
    """Words that must occur together, upper or lower case alike."""
    categories: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(column, names) of which a sample has one."""
    alike: int | Literal["any"] | None = None
    """Near-duplicates of the sample with this id, it included; any: all that have some."""
    tags: tuple[str, ...] = ()
    """Tags by people of which a sample has one."""


def within_bound(columns: dict[str, np.ndarray], bound: Bound) -> np.ndarray:
    """(n,) bool: the column lies within the bound; missing values lie outside."""
    if bound.column not in columns:
        there = ", ".join(columns)
        raise SelectionError(f"no number column '{bound.column}' to bound: there are {there}")
    values = columns[bound.column].astype(float)
    low = -np.inf if bound.low is None else bound.low
    high = np.inf if bound.high is None else bound.high
    return np.asarray((values >= low) & (values <= high))


def inside_polygon(x: np.ndarray, y: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(n,) bool: points within a polygon (k, 2), by the even-odd rule."""
    inside = np.zeros(len(x), bool)
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        crosses = (y1 > y) != (y2 > y)
        if y1 != y2:
            inside ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
    return inside


def outline(corners: tuple[tuple[float, float], ...], most: int) -> tuple[tuple[float, float], ...]:
    """A polygon of at most `most` of these corners, those that its form needs most.

    From two corners far apart on, the one farthest from the line between its kept neighbours is
    added (Ramer 1972, Douglas and Peucker 1973), each axis in its own extent.
    """
    if len(corners) <= most:
        return corners
    points = np.array(corners)
    points = (points - points.min(axis=0)) / np.maximum(np.ptp(points, axis=0), 1e-300)
    far = int(np.argmax(((points - points[0]) ** 2).sum(axis=1)))
    closed = np.vstack([points, points[:1]])
    kept = sorted({0, far, len(points)})
    while len(kept) - 1 < most:
        found = [_farthest(closed, a, b) for a, b in pairwise(kept) if b - a > 1]
        kept = sorted({*kept, max(found)[1]})
    return tuple(corners[i] for i in kept[:-1])


def _farthest(points: np.ndarray, first: int, last: int) -> tuple[float, int]:
    """How far the farthest point between two lies from the line through them, and which it is."""
    along = points[last] - points[first]
    inner = points[first + 1 : last] - points[first]
    length = float(np.hypot(*along))
    if length:
        distance = np.abs(along[0] * inner[:, 1] - along[1] * inner[:, 0]) / length
    else:
        distance = np.hypot(inner[:, 0], inner[:, 1])
    return float(distance.max()), first + 1 + int(np.argmax(distance))
