"""Numbers of any unit -> robust standard deviations from the median."""

import numpy as np
from scipy.special import ndtri

from grads.text import Sentence

FEW = 10  # below this many samples only ranks are used


def robust_z(values: np.ndarray, what: str, notes: list[Sentence]) -> np.ndarray:
    """(n,) distances from the median in robust standard deviations, the quartiles' over 1.349.

    Where the quartiles coincide the standard deviation is the unit, where all are alike every
    distance is 0, and under 10 samples ranks stand in; `notes` says so of `what`.
    """
    if len(values) < FEW:
        notes.append(
            Sentence("under {few} samples: ranks stand in for the {what}", few=FEW, what=what)
        )
        return _normal_scores(values)
    centre = np.median(values)
    low, high = np.quantile(values, [0.25, 0.75])
    scale = (high - low) / 1.349
    if scale <= 1e-9 * max(abs(centre), 1.0):
        scale = values.std()
        notes.append(
            Sentence(
                "the {what}'s quartiles coincide: its standard deviation sets the unit", what=what
            )
        )
    if scale <= 1e-9 * max(abs(centre), 1.0):
        notes.append(Sentence("all {what}s are alike: none is preferred", what=what))
        return np.zeros_like(values)
    return np.asarray((values - centre) / scale)


def without_effects(values: np.ndarray, *effects: np.ndarray) -> np.ndarray:
    """(n,) values minus what they owe to each of `effects` (n,), together, by least squares."""
    centred = np.stack([effect - effect.mean() for effect in effects], axis=1)
    slopes = np.linalg.pinv(centred.T @ centred) @ (centred.T @ values)
    return np.asarray(values - centred @ slopes)


def drift(step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far a training had come at each sample's step: what moves fast at first, and evenly."""
    return np.log1p(step.astype(float)), step.astype(float)


def _normal_scores(values: np.ndarray) -> np.ndarray:
    """Quantiles of the normal distribution at the values' ranks; equal values share their mean."""
    _, index, copies = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(copies) - copies / 2
    return np.asarray(ndtri(middle[index] / len(values)))
