"""The evaluations of a run: made, listed, read, and what one will cost before it starts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from grads.api.runs import load_pool
from grads.config.evaluation import EvaluationConfig, TuneConfig
from grads.errors import EvaluationError, RunError
from grads.evaluation import arms, cost, tasks, tuning
from grads.evaluation.result import Answers, EvaluationResult, Overlap, TuneResult, read_result
from grads.evaluation.trials import read_trials
from grads.jobs import processes as jobs
from grads.selection.subsets import NAME, check_name
from grads.store.files import digest
from grads.store.folders import Evaluation
from grads.store.records import LaterFormatError
from grads.store.runs import ACTIVE, Run, Status


def create_evaluation(run: Run, name: str, config: EvaluationConfig | TuneConfig) -> Evaluation:
    """The folder of an evaluation (or of a search for a setting) with its config.

    Raises RunError where a selection is missing, the run is not scored, or the folder holds
    another config, and EvaluationError where there is nothing to measure on.
    """
    config = config.absolute()
    if not NAME.fullmatch(name):
        raise EvaluationError(
            f"'{name}' is no name for an evaluation: use letters, digits, dot, dash and underscore"
        )
    if isinstance(config, TuneConfig):
        check_name(config.save_as)
    _refuse_without_samples(run, config)
    if isinstance(config, EvaluationConfig):
        tasks.check_names(config)
        tasks.check_server(config, run.config())
    trials = _planned_trials(run, config)
    made = Evaluation.create(run, name, config)
    if jobs.observe(made).state == "finished":
        _refuse_if_changed(made, config, trials)
    return made


def start_evaluation(run: Run, name: str, config: EvaluationConfig | TuneConfig) -> Evaluation:
    """A new evaluation in the background; raises as `create_evaluation` does.

    Where one with these very settings is at work already (a double click, a second tab), that one
    is the answer.
    """
    values = config.absolute().model_dump(mode="json")
    with FileLock(run.path / ".start-evaluation.lock"):
        for other in (Evaluation(run, known) for known in run.evaluation_names()):
            if other.config_values() == values and jobs.observe(other).state in ACTIVE:
                return other
        made = create_evaluation(run, name, config)
        jobs.start(made)
        return made


def _refuse_without_samples(run: Run, config: EvaluationConfig | TuneConfig) -> None:
    if not run.scores_file.exists():
        return  # that is said first, where the scores are read
    if not config.heldout and not run.read_manifest().counts.heldout:
        raise EvaluationError(
            f"run {run.id} has no held-out samples: give a file with --heldout FILE, or score the"
            " data again with --heldout N"
        )
    replay = config.replay if isinstance(config, EvaluationConfig) else None
    for files in (config.heldout, config.general, (replay,) if replay else ()):
        for file in files:
            if not Path(file).expanduser().exists():
                raise EvaluationError(f"no file at {file}: check the path")
            if files.count(file) > 1:
                raise EvaluationError(f"{file} is named twice: name it once")


def _refuse_if_changed(
    made: Evaluation, config: EvaluationConfig | TuneConfig, trials: list[arms.Trial]
) -> None:
    """A finished evaluation must not speak of subsets, files or tasks that are others since."""
    stored = read_trials(made)
    for trial in trials:
        if trial.name in stored and stored[trial.name].key != trial.key:
            raise RunError(
                f"evaluation '{made.id}' measured other samples of '{trial.arm}', which was saved"
                " anew since: give another --name"
            )
    result = read_evaluation(made.run, made.id).result
    if result is None:
        return
    files = [*config.heldout, *cost.general_files(config)]
    for file, known in zip(files, result.measured_on[-len(files) :], strict=True):
        if known.digest and digest(Path(file).expanduser()) != known.digest:
            raise RunError(
                f"evaluation '{made.id}' measured on another {file}, which has changed since: give"
                " another --name"
            )
    if isinstance(config, EvaluationConfig) and result.tasks_digest:
        asked = tasks.load(config, made.run.read_manifest().longest)
        if asked is None or asked.digest != result.tasks_digest:
            raise RunError(
                f"evaluation '{made.id}' asked other tasks, which have changed since: give another"
                " --name"
            )


@dataclass(frozen=True)
class EvaluationSummary:
    """What a list of evaluations shows of each."""

    name: str
    kind: str  # evaluation or tune
    status: Status


def evaluations(run: Run) -> list[EvaluationSummary]:
    """Each evaluation of a run, newest first; raises RunError where one's config is damaged."""
    found = [Evaluation(run, name) for name in run.evaluation_names()]
    found.sort(key=lambda one: one.config_file.stat().st_mtime, reverse=True)
    return [
        EvaluationSummary(
            name=one.id,
            kind=one.config_values().get("kind", "evaluation"),
            status=jobs.observe(one),
        )
        for one in found
    ]


@dataclass(frozen=True)
class FoundEvaluation:
    """One evaluation or search, as far as it has got."""

    name: str
    config: dict[str, Any]  # config.json as it stands
    status: Status
    result: EvaluationResult | TuneResult | None  # None before the first training; so are answers
    answers: Answers | None

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "name": self.name,
            "config": self.config,
            "status": self.status.model_dump(mode="json"),
            "result": self.result and self.result.as_json(),
            "answers": self.answers and self.answers.as_json(),
        }


def read_evaluation(run: Run, name: str) -> FoundEvaluation:
    """An evaluation by its name; raises RunError where there is none, or a file is damaged."""
    found = Evaluation.open(run, name)
    try:
        result = read_result(found.result_file) if found.result_file.exists() else None
        answers = Answers.read(found.answers_file) if found.answers_file.exists() else None
    except LaterFormatError:
        raise
    except RunError as error:
        raise RunError(
            f"{error}: it is made anew by python -m grads resume --run-dir {found.path}"
        ) from None
    return FoundEvaluation(
        name=name,
        config=found.config_values(),
        status=jobs.observe(found),
        result=result,
        answers=answers,
    )


def estimate_evaluation(run: Run, config: EvaluationConfig | TuneConfig) -> cost.EvaluationCost:
    """What it will take, before it starts, by the speed that the run itself has measured.

    Raises as `create_evaluation` does.
    """
    config = config.absolute()
    _refuse_without_samples(run, config)
    trials = _planned_trials(run, config)
    asked = None
    if isinstance(config, EvaluationConfig):
        asked = tasks.load(config, run.read_manifest().longest)
    return cost.estimate(run, config, trials, asked.work if asked else cost.NOTHING)


def _planned_trials(run: Run, config: EvaluationConfig | TuneConfig) -> list[arms.Trial]:
    pool = load_pool(run)
    if isinstance(config, TuneConfig):
        return tuning.trials(pool, config)
    planned = arms.plan(run, config, len(pool))
    return arms.trials(pool, planned, config, config.repetitions)


def subset_overlap(run: Run, ratio: float = 0.1) -> Overlap:
    """How far the subsets of the tune grid overlap, and their length and loss; no training."""
    return tuning.overlap(load_pool(run), ratio)
