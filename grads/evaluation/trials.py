"""The file of one finished training: its price, and what was measured, sample by sample."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from pydantic import Field

from grads.errors import RunError
from grads.evaluation import texts
from grads.evaluation.metrics import SHOWN, Shown
from grads.store.files import digest_of, write_json
from grads.store.folders import Evaluation
from grads.store.records import Part, Stored

Curve = list[tuple[int, float]]  # (step, training loss in nats per response token)


class TaskMetric(Part):
    """A metric of a task, a mean over the task's samples."""

    key: str
    """What it is called among the metrics."""
    task: str
    metric: str
    """By lm_eval's name, with the filter that the answers went through where there is one."""
    higher_is_better: bool
    samples: int

    @property
    def shown(self) -> Shown:
        """As results and pages show it."""
        about = {"task": self.task, "metric": self.metric, "samples": f"{self.samples:,}"}
        return Shown(
            f"{self.task} {self.metric}", self.higher_is_better, texts.TASK.format(**about)
        )


class TrialResult(Stored):
    """A finished arm under one seed: its price, and what was measured, sample by sample."""

    arm: str
    """Its label."""
    seed: int
    key: str
    """The same for trials that are one and the same training."""
    phase: str = ""
    measured_on: str = ""
    """What tells recipe, model and test samples from others."""
    samples: int
    """That it trained on."""
    replay_rows: int = 0
    """General rows that were mixed in."""
    response_tokens: int
    steps: int
    """Of the optimizer."""
    tokens: int
    """That passed through the training, padding not counted."""
    seconds: float
    """Of the training alone."""
    curve: Curve
    sums: dict[str, tuple[list[float], list[float]]]
    """Of each metric, a value a measured sample: its sum, and what divides the sums."""
    files: dict[str, list[int]] = Field(default_factory=dict)
    """By the set of samples, heldout or general: which of its files each measured sample is of."""
    taken_from: str | None = None
    """The evaluation that it was trained in, where that is another."""
    answers: list[str] | None = None
    """To the first held-out prompts, where it wrote some."""
    written: dict[int, str] = Field(default_factory=dict)
    """What it answered to held-out samples with a short reference, by their position."""

    tasks: list[TaskMetric] = Field(default_factory=list)
    """What it was measured by in tasks; their sums stand among the others."""

    @classmethod
    def checked(cls, values: dict[str, Any], place: Path) -> Self:
        """As for any record; raises RunError too where the file does not hold what was written.

        `sha256` stands beside the fields in the file, of all else that it holds; not before 0.5.
        """
        content = {name: value for name, value in values.items() if name != "sha256"}
        if values.get("sha256", _digest(content)) != _digest(content):
            raise RunError(f"{place} cannot be read: it does not hold what was written")
        return super().checked(content, place)

    def write(self, path: Path) -> None:
        """Replace the file."""
        content = self.as_json()
        write_json(path, content | {"sha256": _digest(content)})

    @property
    def shown(self) -> dict[str, Shown]:
        """Every metric that it may have a value of."""
        return SHOWN | {metric.key: metric.shown for metric in self.tasks}

    def value(self, metric: str) -> float | None:
        """A metric over all measured samples; None where it was not measured."""
        if metric not in self.sums:
            return None
        over, under = (sum(part) for part in self.sums[metric])
        return over / under if under else None

    def on_file(self, probe: str, number: int) -> Self:
        """The same training as measured on one file of a set of samples alone."""
        kept = [i for i, file in enumerate(self.files.get(probe, [])) if file == number]
        sums = {
            name: ([over[i] for i in kept], [under[i] for i in kept])
            for name, (over, under) in self.sums.items()
            if kept and name.startswith(f"{probe}_")
        }
        return self.model_copy(update={"sums": sums})


def _digest(content: dict[str, Any]) -> str:
    return digest_of(json.loads(json.dumps(content)))  # as a file holds it: names are texts


def read_trials(evaluation: Evaluation) -> dict[str, TrialResult]:
    """Every finished arm and seed by the name of its file; raises RunError on a damaged one."""
    return {name: TrialResult.read(path) for name, path in evaluation.arm_files().items()}


def finished_elsewhere(evaluation: Evaluation, measured_on: str) -> dict[str, TrialResult]:
    """Trainings of the run's other evaluations that were measured on the same, by their key.

    The base model is not among them: it is measured anew, for its predictions. Other evaluations
    with damaged files are passed over.
    """
    run, found = evaluation.run, {}
    for name in run.evaluation_names():
        if name == evaluation.id:
            continue
        with suppress(RunError):
            for trial in read_trials(Evaluation(run, name)).values():
                if trial.measured_on == measured_on and trial.samples:
                    found[trial.key] = trial.model_copy(
                        update={"taken_from": trial.taken_from or name}
                    )
    return found
