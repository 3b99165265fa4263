"""Gradient norms -> the signal: log, minus the effect of length, in robust standard deviations."""

from dataclasses import dataclass

import numpy as np

from grads.errors import SelectionError
from grads.selection.density import bandwidth_factor, leave_one_out, whiten
from grads.selection.options import SelectionConfig
from grads.selection.scores import Scores
from grads.selection.standard import FEW, drift, robust_z, without_effects
from grads.text import Sentence


@dataclass(frozen=True)
class Signal:
    """What the norms say before typicality and focus: the part of a ranking that takes time."""

    x: np.ndarray  # (n,) unitless signal, in robust standard deviations
    log_density: np.ndarray  # (n,) leave-one-out
    dims: int
    notes: list[Sentence]


def measure_signal(scores: Scores, options: SelectionConfig) -> Signal:
    """Signal and density under the options' signal, length control and bandwidth alone."""
    notes: list[Sentence] = []
    raw = _raw_signals(scores, options)
    axes = [_unitless(signal, scores, options, notes) for signal in raw]
    points = np.stack(axes[:2] if options.signal == "joint" else axes, axis=1)
    return Signal(axes[-1], _log_density(points, options, notes), points.shape[1], notes)


def unitless_signal(scores: Scores, options: SelectionConfig) -> np.ndarray:
    """(n,) the signal x alone, without its density."""
    raw = _raw_signals(scores, options)[-1]
    return _unitless(raw, scores, options, [])


def _raw_signals(scores: Scores, options: SelectionConfig) -> list[np.ndarray]:
    embed, head = scores.embed_grad_norm.astype(float), scores.head_grad_norm.astype(float)
    l2 = np.hypot(embed, head)
    if options.signal == "joint":
        return [embed, head, l2]
    if options.signal == "tied":
        if np.isnan(scores.grad_dot).any():
            raise SelectionError(
                "signal 'tied' needs an embedding and a head of one shape: use joint or l2"
            )
        return [np.sqrt(np.maximum(l2**2 + 2 * scores.grad_dot.astype(float), 0))]
    return [{"l2": l2, "embed": embed, "head": head}[options.signal]]


def _unitless(
    signal: np.ndarray, scores: Scores, options: SelectionConfig, notes: list[Sentence]
) -> np.ndarray:
    """Log, minus the length effect, in robust standard deviations from the median.

    Of samples measured during a warm-up the drift of its weights is removed too.
    """
    positive = signal > 0
    if not positive.all():
        smallest = signal[positive].min() if positive.any() else 1.0
        notes.append(
            Sentence(
                "{number} zero norms were raised to the smallest, {smallest:.3g}",
                number=int((~positive).sum()),
                smallest=float(smallest),
            )
        )
        signal = np.where(positive, signal, smallest)
    r, log_tokens = np.log(signal), np.log(scores.response_tokens.astype(float))
    effects = [] if scores.step is None else list(drift(scores.step))
    if options.length_control == "sqrt":
        r = r + 0.5 * log_tokens
    elif options.length_control == "residual":
        if np.ptp(log_tokens) == 0:
            notes.append(Sentence("all responses have one length: no length effect to remove"))
        else:
            effects.append(log_tokens)
    if effects:
        r = without_effects(r, *effects)
    return robust_z(r, Sentence("signal"), notes)


def _log_density(points: np.ndarray, options: SelectionConfig, notes: list[Sentence]) -> np.ndarray:
    n, dims = points.shape
    if n < FEW:  # normal scores of ranks: their density is the bell's own
        return np.asarray(-0.5 * (points**2).sum(axis=1))
    if (np.ptp(points, axis=0) == 0).all():
        return np.zeros(n)
    if dims == 2:
        points = whiten(points)
    density = leave_one_out(points, bandwidth_factor(options.bandwidth, n, dims))
    if density.outside:
        notes.append(
            Sentence(
                "{number} samples lie far outside the density's grid: taken as zero",
                number=density.outside,
            )
        )
    if not np.isfinite(density.log_density).any():
        notes.append(
            Sentence("no sample has a neighbour within the bandwidth: density says nothing")
        )
        return np.zeros(n)
    return density.log_density
