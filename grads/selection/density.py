"""Leave-one-out kernel density of n points in one or two dimensions, on a grid.

Points are spread over the cells of a grid (linear binning), the counts convolved with a Gaussian
and read back at the points: a million points take about a second. A point's own kernel is
taken off, exactly as the grid sees it: otherwise each outlier would support itself.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import convolve1d

CELLS_PER_BANDWIDTH = {1: 8, 2: 6}
MAX_CELLS = {1: 2**18, 2: 2**11}  # along one axis
REACH = 5.0  # bandwidths after which a kernel counts as zero
BARS = 60  # at most, of a picture


@dataclass(frozen=True)
class Density:
    """The estimate at its own points."""

    log_density: np.ndarray  # (n,) log of the leave-one-out density; -inf where no other reaches
    bandwidth: float
    outside: int  # points beyond the grid, whose density is taken as zero


def bandwidth_factor(rule: str | float, n: int, dims: int) -> float:
    """Bandwidth in standard deviations by Scott's or Silverman's rule, or the number given."""
    if isinstance(rule, str):
        count = n if rule == "scott" else n * (dims + 2) / 4
        return float(count ** (-1 / (dims + 4)))
    return rule


def leave_one_out(points: np.ndarray, bandwidth: float) -> Density:
    """Density at each of the points (n, dims), in units where their spread is about one."""
    n, dims = points.shape
    cell = bandwidth / CELLS_PER_BANDWIDTH[dims]
    margin = int(np.ceil(REACH * CELLS_PER_BANDWIDTH[dims]))
    half = (MAX_CELLS[dims] // 2 - margin) * cell
    centre = np.median(points, axis=0)
    inside = (np.abs(points - centre) < half).all(axis=1)
    near = points[inside]
    low = near.min(axis=0) - margin * cell
    position = (near - low) / cell
    index = np.floor(position).astype(np.int64)
    weight = position - index  # share of the upper cell, (n, dims)
    shape = tuple(index.max(axis=0) + 2 + margin)

    steps = np.arange(-margin, margin + 1) / CELLS_PER_BANDWIDTH[dims]
    kernel = np.exp(-0.5 * steps**2) / (np.sqrt(2 * np.pi) * bandwidth)
    corners = _corners(weight)
    cells = [np.ravel_multi_index(tuple((index + offset).T), shape) for offset, _ in corners]
    size = int(np.prod(shape))
    counts = np.zeros(shape)
    for cell, (_, share) in zip(cells, corners, strict=True):
        counts += np.bincount(cell, share, size).reshape(shape)
    for axis in range(dims):
        counts = convolve1d(counts, kernel, axis=axis, mode="constant")
    flat = counts.ravel()
    total = sum(share * flat[cell] for cell, (_, share) in zip(cells, corners, strict=True))
    # What a point contributes to its own reading: both ends of the kernel are spread over cells.
    own = np.prod(
        ((1 - weight) ** 2 + weight**2) * kernel[margin]
        + 2 * weight * (1 - weight) * kernel[margin + 1],
        axis=1,
    )
    log_density = np.full(n, -np.inf)
    rest = (total - own) / max(n - 1, 1)
    rounding = 1e-12 * float(np.max(total)) / max(n - 1, 1)
    with np.errstate(divide="ignore"):
        log_density[inside] = np.log(np.where(rest > rounding, rest, 0.0))
    return Density(log_density, bandwidth, int((~inside).sum()))


def _corners(weight: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The grid corners around each point, as offsets, and the point's share of each."""
    dims = weight.shape[1]
    corners = []
    for bits in np.ndindex(*([2] * dims)):
        offset = np.array(bits)
        corners.append((offset, np.prod(np.where(offset, weight, 1 - weight), axis=1)))
    return corners


def whiten(points: np.ndarray) -> np.ndarray:
    """(n, 2) points turned and scaled to unit covariance; the covariance ignores far outliers."""
    clipped = np.clip(points, -5, 5)
    values, vectors = np.linalg.eigh(np.cov(clipped, rowvar=False))
    # Two signals that are nearly one: the thin direction is noise and must not be blown up.
    values = np.maximum(values, 1e-4 * max(values.max(), 1e-12))
    result: np.ndarray = (points - np.median(points, axis=0)) @ vectors / np.sqrt(values)
    return result


def number_of_bars(values: np.ndarray, low: float, high: float) -> int:
    """How many bars from `low` to `high` show values (n,): by Freedman and Diaconis (1981), from
    10 to 60; fewer values than that get one each."""
    finite = values[np.isfinite(values)]
    different = len(np.unique(finite))
    if different <= 10:
        return max(different, 1)
    quarter, three = np.quantile(finite, [0.25, 0.75])
    width = 2 * (three - quarter) * len(finite) ** (-1 / 3)
    return int(np.clip((high - low) / width if width > 0 else BARS, 10, BARS))
