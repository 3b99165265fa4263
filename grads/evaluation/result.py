"""What an evaluation has found: result.json and answers.json.

Losses are in nats per response token. Intervals are 95% t intervals over seeds, low end first.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from grads.config.evaluation import ARM_KINDS, ArmKind
from grads.evaluation.about import Leaks, MeasuredOn
from grads.evaluation.intervals import Verdict
from grads.evaluation.metrics import SHOWN, Shown
from grads.evaluation.points import BudgetPoint, Noise, Point, ReplayPoint
from grads.evaluation.trials import Curve, TaskMetric
from grads.store.files import read_json
from grads.store.records import Part, Stored


def _known_kind(name: str) -> str:
    if name not in ARM_KINDS:
        raise ValueError(f"there is no such kind of arm: there are {', '.join(ARM_KINDS)}")
    return name


Kind = Annotated[str, AfterValidator(_known_kind)]
Probe = Literal["heldout", "general"]

# -- what result.json says of the arms


class SeedResult(Part):
    """One training and its measurement. Each metric is a further field by its name."""

    seed: int
    steps: int
    tokens: int
    seconds: float
    curve: Curve = Field(default_factory=list)

    def value(self, metric: str) -> float | None:
        """A metric; None where it was not measured."""
        found: float | None = (self.model_extra or {}).get(metric)
        return found


class Means(Part):
    """The metrics of one arm over its seeds."""

    label: str
    mean: dict[str, float | None]
    """Of each metric, None where it was not measured."""
    interval: dict[str, tuple[float, float] | None]
    """Of each metric, None where there is one seed only."""

    def reach(self, metric: str) -> float | None:
        """Half the width of a metric's interval, where it has one."""
        interval = self.interval.get(metric)
        return (interval[1] - interval[0]) / 2 if interval else None


class ArmResult(Means):
    """One arm over its seeds."""

    arm: str
    """The same as `kind`."""
    selection: str | None = None
    """Name of the saved selection that it trains on."""
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

    @property
    def declared(self) -> ArmKind:
        """What its kind means."""
        return ARM_KINDS[self.kind]


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


class Compared(Part):
    """The metrics of one arm against those of another."""

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

    @property
    def ours(self) -> ArmKind:
        """What the kind of the one means."""
        return ARM_KINDS[self.kind]

    @property
    def theirs(self) -> ArmKind:
        """What the kind of the other means."""
        return ARM_KINDS[self.against_kind]


class Comparison(Compared):
    """One arm against another, on all that was measured."""

    learning: Verdict
    forgetting: Verdict
    sentence: str


class FileComparison(Compared):
    """One arm against another on a single file."""

    verdict: Verdict
    """By the loss: learning on a held-out file, forgetting on a general one."""


class FileResult(Part):
    """What a single file shows, where several are held out, or general."""

    probe: Probe
    name: str
    arms: list[Means]
    comparisons: list[FileComparison]


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
    """All held-out files together."""
    heldout_files: list[MeasuredOn] = Field(default_factory=list)
    """Each of them; before 0.5 there was one."""
    general: list[MeasuredOn]
    by_file: list[FileResult] = Field(default_factory=list)
    """The files one by one, where several are held out, or general."""
    tasks: list[TaskMetric] = Field(default_factory=list)
    """The metrics of the tasks that were asked."""
    tasks_digest: str = ""
    """Changes with what was asked of them and how it is judged; empty without tasks."""
    replay: dict[str, list[ReplayPoint]] = Field(default_factory=dict)
    """By the label of the arm alone, in order of the shares; empty without replay."""
    curve: list[BudgetPoint] = Field(default_factory=list)
    """What each size comes to, in order of the budgets; empty where sizes are not compared."""
    finished: bool

    @property
    def shown(self) -> dict[str, Shown]:
        """Every metric that there may be a value of, in the order of showing."""
        return SHOWN | {metric.key: metric.shown for metric in self.tasks}

    @property
    def measured_on(self) -> list[MeasuredOn]:
        """Every file of test samples, the held-out ones first."""
        return [*(self.heldout_files or [self.heldout]), *self.general]


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

    file: str = ""
    """The held-out file that it is of; before 0.5 there was one."""
    row: int
    """Its row there, counted from 0."""
    prompt: str
    reference: str
    answers: dict[str, str] = Field(default_factory=dict)
    """By the label of the arm."""


class Answers(Stored):
    """What trained models say to held-out prompts."""

    prompts: list[Prompt]
