"""How long the trainings to come will take, by those that this evaluation has finished."""

from dataclasses import dataclass
from statistics import mean

from grads.config.evaluation import Recipe
from grads.evaluation.arms import TRAINED
from grads.evaluation.cost import passes_a_second
from grads.evaluation.trials import TrialResult
from grads.store.runs import Run


@dataclass(frozen=True)
class Ahead:
    """The work of a training to come, in passes of a token through the model."""

    training: int
    measured: int  # what is measured after it, written answers and tasks included
    done: int = 0  # of both, the training first

    @property
    def passes(self) -> int:
        """All of it, what is done included."""
        return self.training + self.measured

    @property
    def training_left(self) -> int:
        """What is not trained yet."""
        return max(self.training - self.done, 0)

    @property
    def measured_left(self) -> int:
        """What is not measured yet."""
        return min(max(self.passes - self.done, 0), self.measured)


class Pace:
    """Seconds of finished trainings and of what comes beside them; before any, the run's own speed.

    Beside a training the model is loaded and measured, which takes each arm about as long.
    """

    def __init__(self, run: Run, recipe: Recipe) -> None:
        rate, _ = passes_a_second(run, recipe)
        self._of_the_run = 1 / rate if rate else None  # seconds a pass
        self._loading = run.read_manifest().load_seconds
        self._trained = self._seconds = 0.0  # passes, and what they took
        self._beside: list[float] = []

    def finished(self, trial: TrialResult, seconds: float | None = None) -> None:
        """Take in a training that was made here; of an earlier attempt all the `seconds` of the arm
        are not known.
        """
        if trial.taken_from is None:
            self._trained += TRAINED * trial.tokens
            self._seconds += trial.seconds
        if seconds is not None:
            self._beside.append(max(seconds - trial.seconds, 0.0))

    def left(self, ahead: list[Ahead]) -> float | None:
        """Seconds that these take; None where nothing tells yet."""
        a_pass = self._seconds / self._trained if self._trained else self._of_the_run
        if a_pass is None or not (self._beside or self._of_the_run):
            return None
        return sum(a_pass * one.training_left + self._beside_of(one) for one in ahead)

    def _beside_of(self, one: Ahead) -> float:
        if self._beside:
            return mean(self._beside) * one.measured_left / max(one.measured, 1)
        loading = 0.0 if one.done else self._loading
        return loading + (self._of_the_run or 0.0) * one.measured_left
