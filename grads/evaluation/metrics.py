"""What is measured of a trained model, each metric declared once: for results, commands and pages.

A metric is one sum over another: every sample adds to both, so that samples can be drawn anew.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from grads.evaluation.closeness import exact, rouge_l, token_f1

Sums = tuple[np.ndarray, np.ndarray]  # (n,) float64 sums of each sample, (n,) what divides them


class Predictions(Protocol):
    """The base model's predictions, to hold a model's against."""

    def divergence(self, samples: np.ndarray, log_probs: Any) -> tuple[np.ndarray, np.ndarray]:
        """Summed over each sample's compared positions, in nats, and their number."""
        ...


@dataclass(frozen=True)
class Batch:
    """B samples as a model predicts them, N response tokens in all; tensors of torch."""

    samples: np.ndarray  # (B,) positions among all that is measured
    owner: np.ndarray  # (N,) which of the B samples each token belongs to
    log_probs: Any  # (N, V) float32
    targets: Any  # (N,)
    reference: Predictions | None

    def summed(self, values: Any) -> Sums:
        """Sums and numbers of the tokens' values (N,) by sample."""
        count = len(self.samples)
        sums = np.bincount(self.owner, values.double().cpu().numpy(), count)
        return sums, np.bincount(self.owner, minlength=count).astype(float)


@dataclass(frozen=True)
class Metric:
    """A number that tells how good a model is, measured on the sets of samples that it names."""

    name: str
    higher_is_better: bool
    help: str
    """A sentence for people: what the number says, with its unit."""
    labels: dict[str, str] = field(default_factory=dict)
    """What it is called on the held-out and on the general samples; it is shown on these alone."""
    of_batch: Callable[[Batch], Sums] | None = None
    """(B,) sums and (B,) divisors of a batch's samples, by their response tokens."""
    of_question: Callable[[np.ndarray, int], float] | None = None
    """By the mean log-likelihood of each option and the number of the right one, where samples
    carry options."""
    of_answer: Callable[[str, str], float] | None = None
    """By what the model wrote and the reference, where answers are written."""
    against_base: bool = False
    """Whether it needs the base model's predictions."""


def _negative_log_likelihood(batch: Batch) -> Sums:
    return batch.summed(-batch.log_probs.gather(1, batch.targets[:, None])[:, 0])


def _hits(batch: Batch) -> Sums:
    return batch.summed(batch.log_probs.argmax(dim=-1) == batch.targets)


def _divergence(batch: Batch) -> Sums:
    assert batch.reference is not None
    return batch.reference.divergence(batch.samples, batch.log_probs)


def _right_option(scores: np.ndarray, right: int) -> float:
    """1 where the likeliest option is the right one; of equally likely ones the first counts."""
    return float(np.argmax(scores) == right)


METRICS = (
    Metric(
        "loss",
        higher_is_better=False,
        labels={"heldout": "Held-out loss", "general": "General loss"},
        help="How unexpected the right answers are, in nats per token; lower is better.",
        of_batch=_negative_log_likelihood,
    ),
    Metric(
        "accuracy",
        higher_is_better=True,
        labels={"heldout": "Words right", "general": "General words right"},
        help="Share of the answers' tokens that the model would have written first.",
        of_batch=_hits,
    ),
    Metric(
        "kl",
        higher_is_better=False,
        labels={"general": "Drift from base (KL)"},
        help="How far the predictions moved from the untrained model's, in nats per token.",
        of_batch=_divergence,
        against_base=True,
    ),
    Metric(
        "option_accuracy",
        higher_is_better=True,
        labels={"heldout": "Held-out options right", "general": "General options right"},
        help="Share of the questions with options whose right option is the likeliest.",
        of_question=_right_option,
    ),
    Metric(
        "exact",
        higher_is_better=True,
        labels={"heldout": "Answers exact"},
        help="Share of the written answers that are the short reference, but for case and blanks.",
        of_answer=exact,
    ),
    Metric(
        "f1",
        higher_is_better=True,
        labels={"heldout": "Answers' words (F1)"},
        help="How many words a written answer shares with its short reference, from 0 to 1.",
        of_answer=token_f1,
    ),
    Metric(
        "rouge_l",
        higher_is_better=True,
        labels={"heldout": "Answers' order (ROUGE-L)"},
        help="The longest run of words, gaps allowed, that a written answer shares with its short"
        " reference, from 0 to 1.",
        of_answer=rouge_l,
    ),
)
PROBES = ("heldout", "general")
LEARNING, FORGETTING = "heldout_loss", "general_loss"  # what the two verdicts go by
DECIDES = {"heldout": LEARNING, "general": FORGETTING}


@dataclass(frozen=True)
class Shown:
    """A metric on one set of samples, as results hold it."""

    label: str
    higher_is_better: bool
    help: str


SHOWN = {
    f"{probe}_{metric.name}": Shown(metric.labels[probe], metric.higher_is_better, metric.help)
    for probe in PROBES
    for metric in METRICS
    if probe in metric.labels
}
