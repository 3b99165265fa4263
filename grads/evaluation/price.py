"""What choosing and training cost, and when choosing has paid for itself."""

import math

import numpy as np

from grads.evaluation import intervals, texts
from grads.evaluation.arms import BASE, Arm
from grads.evaluation.result import BreakEven, Price, Spent
from grads.evaluation.trials import TrialResult
from grads.store.pipeline import STAGES
from grads.store.runs import Run


def prices(run: Run, shown: list[Arm], done: dict[str, dict[int, TrialResult]]) -> Price:
    """Tokens, steps and seconds of the warm-up, the scoring, and one training of each arm."""
    training = {arm.label: _training_price(done[arm.label]) for arm in shown if arm.kind != BASE}
    return Price(warm_up=_warm_up_price(run), scoring=_scoring_price(run), training=training)


def _training_price(trials: dict[int, TrialResult]) -> Spent:
    """Tokens, steps and seconds of one training, the mean over seeds."""
    return Spent(
        tokens=float(np.mean([trial.tokens for trial in trials.values()])),
        steps=float(np.mean([trial.steps for trial in trials.values()])),
        seconds=float(np.mean([trial.seconds for trial in trials.values()])),
    )


def _warm_up_price(run: Run) -> Spent:
    """Of the run's warm-up; nothing where there was none or it was taken over."""
    lines = {row["step"]: row for row in run.read_metrics() if row["stage"] == "warm-up"}
    config, seconds = run.config(), run.read_manifest().seconds
    share = config.warmup_fraction * config.epochs if lines else 0.0
    return Spent(
        tokens=round(share * pool_tokens(run)),
        steps=len(lines),
        seconds=seconds.get("warm-up", 0.0) if lines else 0.0,
    )


def _scoring_price(run: Run) -> Spent:
    seconds = run.read_manifest().seconds
    chooses = [name for name, stage in STAGES.items() if stage.chooses and name != "warm-up"]
    spent = sum(seconds.get(name, 0.0) for name in chooses)
    return Spent(tokens=pool_tokens(run), steps=0, seconds=round(spent, 1))


def pool_tokens(run: Run) -> int:
    """Tokens of all scored samples."""
    table = run.read_table(run.scores_file, ["prompt_tokens", "response_tokens"])
    return int(sum(table[name].to_numpy().sum() for name in table.column_names))


def break_evens(shown: list[Arm], price: Price) -> dict[str, BreakEven]:
    """When each chosen subset pays, by its arm's label; empty without a training on everything."""
    full = next((arm.label for arm in shown if arm.declared.trains_on == "everything"), None)
    if full is None:
        return {}
    choosing = price.warm_up.seconds + price.scoring.seconds
    whole = price.training[full].seconds
    found = {}
    for arm in shown:
        if not (arm.declared.chosen and arm.declared.once):
            continue
        subset = price.training[arm.label].seconds
        trainings = intervals.break_even(choosing, whole, subset)
        told = _sentence(choosing, whole, subset, trainings)
        found[arm.label] = BreakEven(trainings=trainings, sentence=told)
    return found


def _sentence(choosing: float, whole: float, subset: float, trainings: float | None) -> str:
    seconds = {"choosing": choosing, "whole": whole, "subset": subset}
    told = {name: f"{value:,.0f}" for name, value in seconds.items()}
    if trainings is None:
        return texts.NEVER_PAYS.format(**told)
    often = max(1, math.ceil(trainings))
    if often == 1:
        return texts.PAYS_AT_ONCE.format(**told)
    return texts.PAYS.format(**told, trainings=often)
