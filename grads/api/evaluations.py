"""The evaluations of a run: made, listed, read, and what one will cost before it starts."""

from pathlib import Path
from typing import Any

from filelock import FileLock

from grads.config.evaluation import EvaluationConfig, TuneConfig
from grads.errors import EvaluationError, RunError
from grads.evaluation import arms, cost, tuning
from grads.jobs import processes as jobs
from grads.selection.pool import Pool
from grads.selection.subsets import NAME, check_name
from grads.store.files import read_json
from grads.store.folders import Evaluation
from grads.store.runs import ACTIVE, Run


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
    trials = _planned_trials(run, config)
    made = Evaluation.create(run, name, config)
    if jobs.observe(made).state == "finished":
        _refuse_other_subsets(made, trials)
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
    if config.heldout is None and not run.read_manifest()["counts"]["heldout"]:
        raise EvaluationError(
            f"run {run.id} has no held-out samples: give a file with --heldout FILE, or score the"
            " data again with --heldout N"
        )
    for file in (config.heldout, *config.general):
        if file is not None and not Path(file).expanduser().exists():
            raise EvaluationError(f"no file at {file}: check the path")


def _refuse_other_subsets(made: Evaluation, trials: list[arms.Trial]) -> None:
    """A finished evaluation must not speak of a selection that was saved anew since."""
    stored = made.read_arms()
    for trial in trials:
        if trial.name in stored and stored[trial.name]["key"] != trial.key:
            raise RunError(
                f"evaluation '{made.id}' measured other samples of '{trial.arm}', which was saved"
                " anew since: give another --name"
            )


def evaluations(run: Run) -> list[dict[str, Any]]:
    """Name, kind (evaluation or tune) and status of each evaluation of a run, newest first."""
    found = [Evaluation(run, name) for name in run.evaluation_names()]
    found.sort(key=lambda one: one.config_file.stat().st_mtime, reverse=True)
    return [
        {
            "name": one.id,
            "kind": one.config_values().get("kind", "evaluation"),
            "status": jobs.observe(one).model_dump(mode="json"),
        }
        for one in found
    ]


def read_evaluation(run: Run, name: str) -> dict[str, Any]:
    """Its name, config, status, and so far as they are there result and answers (else None)."""
    found = Evaluation.open(run, name)
    files = {"result": found.result_file, "answers": found.answers_file}
    return {
        "name": name,
        "config": found.config_values(),
        "status": jobs.observe(found).model_dump(mode="json"),
    } | {key: read_json(file) if file.exists() else None for key, file in files.items()}


def estimate_evaluation(
    run: Run, config: EvaluationConfig | TuneConfig, pool: Pool | None = None
) -> dict[str, Any]:
    """What it will take, before it starts, by the speed that the run itself has measured.

    `seconds` with `low` and `high` (None without a measured speed), `tokens`, and `arms`: how many
    models are trained and measured, each seed counted. Raises as `create_evaluation` does.
    """
    config = config.absolute()
    _refuse_without_samples(run, config)
    trials = _planned_trials(run, config, pool)
    return cost.estimate(run, config, trials)


def _planned_trials(
    run: Run, config: EvaluationConfig | TuneConfig, pool: Pool | None = None
) -> list[arms.Trial]:
    pool = pool or Pool(run)
    if isinstance(config, TuneConfig):
        return tuning.trials(pool, config)
    planned = arms.plan(run, config, len(pool))
    return arms.trials(pool, planned, config, config.repetitions)


def subset_overlap(run: Run, ratio: float = 0.1) -> dict[str, Any]:
    """How far the subsets of the tune grid overlap, and their length and loss; no training."""
    return tuning.overlap(Pool(run), ratio)
