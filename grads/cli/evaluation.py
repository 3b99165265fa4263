"""The commands that train and measure: evaluate and tune."""

from typing import Annotated, Any

import typer

from grads import api
from grads.api import EvaluationConfig, Run, TuneConfig
from grads.cli.options import Json, RunDir, with_settings
from grads.cli.terminal import estimate_line, say, work


@with_settings(EvaluationConfig)
def evaluate(
    run_dir: RunDir,
    given: dict[str, Any],
    name: Annotated[
        str | None, typer.Option(help="Name of the evaluation [default: its selections].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train selections, random subsets and everything, and measure what is learned and forgotten.

    Options that take several values are given several times.
    """
    settings = EvaluationConfig.parse(given)
    named = name or "-".join(settings.selections) or "evaluation"
    _compare(Run.open(run_dir), named, settings, as_json)


@with_settings(TuneConfig)
def tune(
    run_dir: RunDir,
    given: dict[str, Any],
    name: Annotated[str, typer.Option(help="Name of the search.")] = "tune",
    as_json: Json = False,
) -> None:
    """Try a fixed grid of settings in short trainings, and test the best one again.

    Options that take several values are given several times.
    """
    _compare(Run.open(run_dir), name, TuneConfig.parse(given), as_json)


def _compare(run: Run, name: str, settings: EvaluationConfig | TuneConfig, as_json: bool) -> None:
    """Say what an evaluation will take, and work at it."""
    made = api.create_evaluation(run, name, settings)
    if not as_json and api.observe(made).state != "finished":
        say(estimate_line(api.estimate_evaluation(run, settings)))
    work(made, as_json)
