"""What an evaluation has found: result.json and answers.json.

Losses are in nats per response token. Intervals are 95% t intervals over seeds, low end first.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from grads.config.evaluation import ARM_KINDS, ArmKind
from grads.evaluation.intervals import Verdict
from grads.evaluation.points import BudgetPoint, Noise, Point, ReplayPoint
from grads.evaluation.trials import Curve
from grads.store.files import read_json
from grads.store.records import Part, Stored


def _known_kind(name: str) -> str:
    if name not in ARM_KINDS:
        raise ValueError(f"there is no such kind of arm: there are {', '.join(ARM_KINDS)}")
    return name


Kind = Annotated[str, AfterValidator(_known_kind)]

# -- what result.json says of the arms


class SeedResult(Part):
    """One training and its measurement. Each metric is a further field by its name."""

    seed: int
    general_losses: list[float] = Field(default_factory=list)
    """On each general file."""
    steps: int
    tokens: int
    seconds: float
    curve: Curve = Field(default_factory=list)

    def value(self, metric: str) -> float | None:
        """A metric; None where it was not measured."""
        found: float | None = (self.model_extra or {}).get(metric)
        return found


class ArmResult(Part):
    """One arm over its seeds."""

    arm: str
    """The same as `kind`."""
    selection: str | None = None
    """Name of the saved selection that it trains on."""
    label: str
    kind: Kind
    samples: int
    replay: float = 0.0
    """Share of general rows among what it trains on, as asked for."""
    replay_rows: int = 0
    """General rows that were mixed in."""
    budget: float | None = None
    """Size in percent of the pool, where sizes are compared."""
    response_tokens: int
    """Mean over seeds."""
    seeds: list[SeedResult]
    mean: dict[str, float | None]
    """Of each metric, None where it was not measured."""
    interval: dict[str, tuple[float, float] | None]
    """Of each metric, None where there is one seed only."""

    @property
    def declared(self) -> ArmKind:
        """What its kind means."""
        return ARM_KINDS[self.kind]

    def reach(self, metric: str) -> float | None:
        """Half the width of a metric's interval, where it has one."""
        interval = self.interval.get(metric)
        return (interval[1] - interval[0]) / 2 if interval else None


class MetricResult(Part):
    """The difference of two arms in a metric, paired by seed."""

    difference: float
    low: float | None
    """None with one seed; so is `high`, and `p`."""
    high: float | None
    p: float | None
    """Two-sided, against no difference."""
    bootstrap: tuple[float, float]
    """95% interval when the measured samples are drawn anew and the trainings stay."""
    verdict: Verdict


class Comparison(Part):
    """One arm against another."""

    arm: str
    """Label of the one."""
    against: str
    """Label of the other."""
    kind: Kind
    against_kind: Kind
    seeds: int
    """That both have."""
    metrics: dict[str, MetricResult]
    """Those that both have been measured by."""
    learning: Verdict
    forgetting: Verdict
    sentence: str

    @property
    def ours(self) -> ArmKind:
        """What the kind of the one means."""
        return ARM_KINDS[self.kind]

    @property
    def theirs(self) -> ArmKind:
        """What the kind of the other means."""
        return ARM_KINDS[self.against_kind]


# -- what it cost


class Spent(Part):
    """The price of one stage, or of one training (the mean over seeds)."""

    tokens: int | float
    steps: int | float
    seconds: float


class Price(Part):
    """What choosing has cost once, and what one training of each arm costs."""

    warm_up: Spent = Field(alias="warm-up")
    scoring: Spent
    training: dict[str, Spent]
    """By the label of the arm; the base model has none."""


class BreakEven(Part):
    """When choosing pays, by time."""

    trainings: float | None
    """None where no number of them does."""
    sentence: str


# -- what it was measured on


class Refused(Part):
    """A row that could not be used."""

    row: int
    """Counted from 0; from 1 before 0.5."""
    line: int | None = None
    """In its file, counted from 1."""
    reason: str
    advice: str


class MeasuredOn(Part):
    """A file of test samples, or the run's own split."""

    name: str
    samples: int
    response_tokens: int
    with_options: int
    refused: int
    first_refused: Refused | None = None


class NearDuplicate(Part):
    """A held-out sample that nearly stands in the pool."""

    heldout: int
    """Its row in the held-out file, counted from 0."""
    sample_id: int
    overlap: float
    """Shared character 5-grams of all, in [0, 1]."""


class Leaks(Part):
    """What of the test samples stands in the pool too; exact copies are refused before."""

    near_duplicates: list[NearDuplicate]


@dataclass(frozen=True)
class About:
    """What is to be said of the test samples, whatever the arms do."""

    heldout: MeasuredOn
    general: list[MeasuredOn]
    leaks: Leaks
    notes: list[str]


# -- result.json


class EvaluationResult(Stored):
    """What an evaluation has found so far."""

    arms: list[ArmResult]
    comparisons: list[Comparison]
    price: Price
    break_even: dict[str, BreakEven]
    """By the label of each chosen subset, where everything was trained on too."""
    leaks: Leaks
    notes: list[str]
    """What limits the verdict."""
    heldout: MeasuredOn
    general: list[MeasuredOn]
    replay: dict[str, list[ReplayPoint]] = Field(default_factory=dict)
    """By the label of the arm alone, in order of the shares; empty without replay."""
    curve: list[BudgetPoint] = Field(default_factory=list)
    """What each size comes to, in order of the budgets; empty where sizes are not compared."""
    finished: bool


class SubsetMeans(Part):
    """The size of a subset or the pool, and what its samples are like."""

    samples: int
    response_tokens: float
    """Mean over samples."""
    loss: float
    """Mean over samples, by the scored model."""


class LabelledMeans(SubsetMeans):
    """The same of a setting of the grid."""

    label: str


class Overlap(Part):
    """How the subsets of a grid relate, without any training."""

    labels: list[str]
    """(k,)"""
    jaccard: list[list[float]]
    """(k, k) share of the shared samples in the union of two subsets."""
    by_chance: float
    """What two random draws share."""
    subsets: list[LabelledMeans]
    """(k,)"""
    pool: SubsetMeans


class TuneResult(EvaluationResult):
    """What a search has found so far: the pilots, then the winner's second test."""

    kind: Literal["tune"]
    points: dict[str, Point] = Field(default_factory=dict)
    """By label, once base and random are measured; so are noise and front."""
    noise: Noise | None = None
    front: list[str] = Field(default_factory=list)
    """Settings that no other beats in learning and forgetting both."""
    winner: str | None
    """The setting that came first; None where none did, or not all pilots are there."""
    confirmation: Comparison | None
    """The winner against random, with fresh seeds, on samples that no pilot saw."""
    confirmation_arms: list[ArmResult]
    selection: str | None
    """What the winner is saved as, where it beats random there too."""
    sentence: str
    overlap: Overlap


def read_result(path: Path) -> EvaluationResult | TuneResult:
    """A result.json; raises RunError where it cannot be read."""
    values = read_json(path)
    kind = TuneResult if "kind" in values else EvaluationResult
    return kind.checked(values, path)


# -- answers.json


class Prompt(Part):
    """A held-out prompt, and what the arms wrote."""

    row: int
    """Of the held-out samples, counted from 0."""
    prompt: str
    reference: str
    answers: dict[str, str] = Field(default_factory=dict)
    """By the label of the arm."""


class Answers(Stored):
    """What trained models say to held-out prompts."""

    prompts: list[Prompt]
