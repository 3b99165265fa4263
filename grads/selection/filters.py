"""Which samples to look at or choose from: ranges, drawn shapes, topics, words."""

from dataclasses import dataclass

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
