"""What an evaluation will take, from the run's own measured speed; no model is loaded."""

import json
from dataclasses import dataclass
from statistics import median

import numpy as np

from grads.config.evaluation import Recipe
from grads.config.run import RunConfig
from grads.data.sources import read_source
from grads.evaluation.arms import TRAINED, Trial, training_passes
from grads.store.bundled import DEMO
from grads.store.runs import Run

GENERAL = DEMO / "general.jsonl"
SCORED = 2  # passes of a scored token: one forward, one backward through activations alone
CHARACTERS = 4  # of a token, about; the files are not tokenised for an estimate
# How far off an estimate may be: with a speed measured in the same kind of training, and without.
LIKE, UNLIKE = (0.7, 1.6), (0.4, 2.5)


def general_files(recipe: Recipe) -> list[str]:
    """The files of general samples: the recipe's, or the bundled one."""
    return list(recipe.general) or [str(GENERAL)]


@dataclass(frozen=True)
class EvaluationCost:
    """What an evaluation will take."""

    seconds: float | None  # None where the run has measured no speed; so are low and high
    low: float | None
    high: float | None
    tokens: int  # that pass through a training or a measurement
    arms: int  # models that are trained and measured, each seed counted


def estimate(
    run: Run, recipe: Recipe, trials: list[Trial], *, replay: str | None = None
) -> EvaluationCost:
    """What these trials will take; a training that several arms share counts once.

    `replay` is the file of what some of them mix in.
    Raises RunError where the run is not scored, and DataError where a file cannot be read.
    """
    table = run.read_table(run.scores_file, ["sample_id", "prompt_tokens", "response_tokens"])
    ids, prompt, response = (table[name].to_numpy() for name in table.column_names)
    lengths = prompt + response
    unique = {trial.key: trial for trial in trials}
    measured = sum(_file_tokens(run, recipe, file) for file in general_files(recipe))
    measured += _heldout_tokens(run, recipe)
    general = _row_tokens(run, replay, None) if replay else []
    training = 0
    for trial in unique.values():
        mixed = np.full(min(trial.replay_rows, len(general)), np.mean(general or [0.0]))
        own = lengths[np.isin(ids, trial.sample_ids)]
        training += training_passes(np.concatenate([own, mixed]), trial, recipe)
    passes = training + measured * len(unique)
    rate, (low, high) = _passes_a_second(run, recipe)
    seconds = passes / rate if rate else None
    return EvaluationCost(
        seconds=seconds and round(seconds, 1),
        low=seconds and round(seconds * low, 1),
        high=seconds and round(seconds * high, 1),
        tokens=round(training / TRAINED) + measured * len(unique),
        arms=len(unique),
    )


def _passes_a_second(run: Run, recipe: Recipe) -> tuple[float | None, tuple[float, float]]:
    """Token passes a second in the warm-up, else in the scoring, and how sure that is."""
    rates: dict[str, list[float]] = {"warm-up": [], "score": []}
    for row in run.read_metrics():
        if row.get("stage") in rates and row.get("tokens_per_s"):
            rates[row["stage"]].append(row["tokens_per_s"])
    if rates["warm-up"]:
        alike = run.config().warmup == recipe.training
        return TRAINED * median(rates["warm-up"]), LIKE if alike else UNLIKE
    return (SCORED * rates["score"][-1] if rates["score"] else None), UNLIKE


def _heldout_tokens(run: Run, recipe: Recipe) -> int:
    if recipe.heldout is not None:
        return _file_tokens(run, recipe, recipe.heldout)
    columns = ["heldout", "prompt_tokens", "response_tokens"]
    samples = run.read_table(run.samples_file, columns)
    tokens = samples["prompt_tokens"].to_numpy() + samples["response_tokens"].to_numpy()
    heldout = samples["heldout"].to_numpy(zero_copy_only=False)
    return int(tokens[heldout][: recipe.heldout_limit].sum())


def _file_tokens(run: Run, recipe: Recipe, file: str) -> int:
    """Tokens of a file that is measured on, about."""
    limit = recipe.heldout_limit if file == recipe.heldout else recipe.general_limit
    return round(sum(_row_tokens(run, file, limit)))


def _row_tokens(run: Run, file: str, limit: int | None) -> list[float]:
    """Tokens of each row of a file about, each option with its prompt once more."""
    source = read_source(settings_for(run, file, limit))
    longest, tokens = run.read_manifest().longest, []
    for row in source.rows:
        options = (row or {}).get("options")
        copies = 1 + (len(options) if isinstance(options, list) else 0)
        text = json.dumps(row, ensure_ascii=False, default=str)
        tokens.append(copies * min(len(text) / CHARACTERS, longest))
    return tokens


def settings_for(run: Run, file: str, limit: int | None) -> RunConfig:
    """The run's settings for another file: what was said of its own data does not hold there."""
    own = ("dataset_config", "split", "revision", "layout", "heldout")
    defaults = {name: RunConfig.model_fields[name].default for name in own}
    return run.config().model_copy(update=defaults | {"dataset": file, "limit": limit})
