"""Beside the signal's size: where a sample pulls, what its question saves, how far it spreads."""

import numpy as np

from grads.config.probe import Role
from grads.errors import SelectionError
from grads.selection.scores import Scores
from grads.selection.standard import FEW, drift, robust_z, without_effects
from grads.text import Sentence

COSINES = {"embed": "embed_cosine", "head": "head_cosine", "both": "cosine"}
CENTRES = 2_000  # samples that spread() orders exactly


def pull(scores: Scores, role: Role, column: str, notes: list[Sentence]) -> np.ndarray:
    """(n,) how the samples lie to the sets of a role: a column's robust z, its mean over the sets.

    Raises SelectionError where the run has no such set.
    """
    sets = [
        getattr(one, column).astype(float) for one in scores.probes.values() if one.role == role
    ]
    if scores.step is not None:
        sets = [without_effects(values, *drift(scores.step)) for values in sets]
    if not sets:
        option = "--target" if role == "target" else "--protect"
        what = "target" if role == "target" else "protected"
        raise SelectionError(
            f"this run has no {what} set: give it one with `grads probe {option} NAME=FILE`"
        )
    return np.asarray(
        np.mean([robust_z(values, Sentence("cosine"), notes) for values in sets], axis=0)
    )


def gain_within_topics(
    gain: np.ndarray, response_tokens: np.ndarray, topic: np.ndarray | None
) -> np.ndarray:
    """(n,) robust z of what the question saves, within topic and without the effect of length.

    It differs by kind of text, so samples are compared with those of their topic; topics of under
    10 samples are compared with all. nan stays nan.
    """
    there = np.isfinite(gain)
    z = np.full(len(gain), np.nan)
    z[there] = _without_length(gain[there], response_tokens[there])
    if topic is None:
        return z
    for label in np.unique(topic[there]):
        member = there & (topic == label)
        if member.sum() >= FEW:
            z[member] = _without_length(gain[member], response_tokens[member])
    return z


def _without_length(gain: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    gain, length = gain.astype(float), np.log(tokens.astype(float))
    centred = length - length.mean() if len(length) else length
    spread = centred @ centred
    slope = (centred @ gain) / spread if spread > 0 else 0.0  # least squares
    return robust_z(gain - slope * centred, "gain", [])


def spread(features: np.ndarray, sample_id: np.ndarray) -> np.ndarray:
    """(n,) k-centre order of the samples, higher is earlier: each next is farthest from all before.

    Greedy (Gonzalez 1985), from the sample nearest the mean, so that budgets nest; ties go to the
    smaller id. The first 2,000 are exact, the rest follow by their distance to those.
    """
    points = features.astype(float)
    squares = np.einsum("ij,ij->i", points, points)
    nearest = np.full(len(points), np.inf)
    order: list[int] = []
    start = squares - 2 * points @ points.mean(0)
    ids = np.argsort(sample_id, kind="stable")
    current = int(ids[np.argmin(start[ids])])
    while len(order) < min(CENTRES, len(points)):
        order.append(current)
        away = squares - 2 * points @ points[current] + squares[current]
        nearest = np.minimum(nearest, np.maximum(away, 0))
        nearest[current] = -1.0
        current = int(ids[np.argmax(nearest[ids])])
    value = np.zeros(len(points))
    value[order] = len(points) - np.arange(len(order))
    rest = np.setdiff1d(np.arange(len(points)), order)
    ranked = rest[np.argsort(-nearest[rest], kind="stable")]
    value[ranked] = len(rest) - np.arange(len(rest))
    return value
