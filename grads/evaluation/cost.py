"""What an evaluation will take, from the run's own measured speed; no model is loaded."""

import json
from dataclasses import dataclass
from statistics import median

import numpy as np

from grads.config.evaluation import EvaluationConfig, Recipe
from grads.data.sources import read_source
from grads.evaluation.arms import TRAINED, Trial, training_passes
from grads.store.bundled import DEMO
from grads.store.runs import Run

GENERAL = DEMO / "general.jsonl"
ANSWER_TOKENS = 80  # at most, of a written answer
PROMPTS = 4  # held-out prompts whose answers are shown side by side
SHORT_TOKENS = 64  # at most, of a reference that written answers are compared with
# Token passes that writing one token takes: 24 with two free CPU cores, up to 100 on busy ones
# (2026-11-25, SmolLM2-135M); not measured on a GPU, where a batch is faster still.
WRITTEN = 30
SERVING_S = 15.0  # to start vLLM for a model: 12 to 16 s on two CPU cores (0.32, SmolLM2-135M)
SCORED = 2  # passes of a scored token: one forward, one backward through activations alone
CHARACTERS = 4  # of a token, about; the files are not tokenised for an estimate
# How far off an estimate may be: with a speed measured in the same kind of training, and without.
LIKE, UNLIKE = (0.7, 1.6), (0.4, 2.5)


def general_files(recipe: Recipe) -> list[str]:
    """The files of general samples: the recipe's, or the bundled one."""
    return list(recipe.general) or [str(GENERAL)]


@dataclass(frozen=True)
class Work:
    """Something that is asked of one model."""

    count: int
    passes: int  # of a token through the model, about


NOTHING = Work(0, 0)


@dataclass(frozen=True)
class EvaluationCost:
    """What an evaluation will take."""

    seconds: float | None  # None where the run has measured no speed; so are low and high
    low: float | None
    high: float | None
    tokens: int  # that pass through a training or a measurement
    arms: int  # models that are loaded, trained and measured, each seed counted
    answers: int  # that they write, at most
    requests: int  # of tasks to them


def answer_passes(sample: int, reference: int) -> int:
    """Token passes of writing an answer to a sample, both in tokens: as long as its reference."""
    return sample + WRITTEN * reference


def estimate(
    run: Run, recipe: Recipe, trials: list[Trial], tasks: Work = NOTHING
) -> EvaluationCost:
    """What these trials will take; a training that several arms share counts once.

    `tasks` are the requests of tasks to one model. Loading it counts, as long as the run has told
    that it takes (those of before 0.5 have not), and so does starting vLLM for it.

    Raises RunError where the run is not scored, and DataError where a file cannot be read.
    """
    table = run.read_table(run.scores_file, ["sample_id", "prompt_tokens", "response_tokens"])
    ids, prompt, response = (table[name].to_numpy() for name in table.column_names)
    lengths = prompt + response
    unique = {trial.key: trial for trial in trials}
    heldout = _heldout(run, recipe)
    general = [_read(run, file, recipe.general_limit) for file in general_files(recipe)]
    measured = sum(part.tokens for part in heldout + general)
    compared, mixed_in = _compared(heldout, recipe), _replay_tokens(run, recipe)
    shown, showing = _shown(heldout), len({t.key for t in trials if t.answers})
    training = 0
    for trial in unique.values():
        mixed = np.full(min(trial.replay_rows, len(mixed_in)), np.mean(mixed_in or [0.0]))
        own = lengths[np.isin(ids, trial.sample_ids)]
        training += training_passes(np.concatenate([own, mixed]), trial, recipe)
    passes = training + (measured + compared.passes + tasks.passes) * len(unique)
    passes += shown.passes * showing
    rate, (low, high) = passes_a_second(run, recipe)
    if compared.count or tasks.count:
        low, high = UNLIKE
    loading = run.read_manifest().load_seconds
    if tasks.count and isinstance(recipe, EvaluationConfig) and recipe.tasks_with == "vllm":
        loading += SERVING_S
    seconds = passes / rate + loading * len(unique) if rate else None
    return EvaluationCost(
        seconds=seconds,
        low=seconds and seconds * low,
        high=seconds and seconds * high,
        tokens=round(training / TRAINED) + measured * len(unique),
        arms=len(unique),
        answers=compared.count * len(unique) + shown.count * showing,
        requests=tasks.count * len(unique),
    )


def passes_a_second(run: Run, recipe: Recipe) -> tuple[float | None, tuple[float, float]]:
    """Token passes a second in the warm-up, else in the scoring, and how sure that is."""
    rates: dict[str, list[float]] = {"warm-up": [], "score": []}
    for row in run.read_metrics():
        if row.get("stage") in rates and row.get("tokens_per_s"):
            rates[row["stage"]].append(row["tokens_per_s"])
    if rates["warm-up"]:
        alike = run.config().warmup == recipe.training
        return TRAINED * median(rates["warm-up"]), LIKE if alike else UNLIKE
    return (SCORED * rates["score"][-1] if rates["score"] else None), UNLIKE


@dataclass(frozen=True)
class _Part:
    """A file of test samples, or the run's own split."""

    rows: int
    tokens: int  # that one measurement passes through the model


def _shown(heldout: list[_Part]) -> Work:
    """Answers to the prompts that are shown side by side, each of the greatest length."""
    rows = sum(part.rows for part in heldout)
    count = min(PROMPTS, rows)
    length = sum(part.tokens for part in heldout) // max(rows, 1)
    return Work(count, count * answer_passes(length, ANSWER_TOKENS))


def _compared(heldout: list[_Part], recipe: Recipe) -> Work:
    """Answers that are compared with short references, as if the first rows of each file all had
    one, of half the longest length."""
    limit = recipe.answers if isinstance(recipe, EvaluationConfig) else 0
    counts = [min(limit, part.rows) for part in heldout]
    lengths = [part.tokens // max(part.rows, 1) for part in heldout]
    passes = [
        count * answer_passes(length, SHORT_TOKENS // 2)
        for count, length in zip(counts, lengths, strict=True)
    ]
    return Work(sum(counts), sum(passes))


def _heldout(run: Run, recipe: Recipe) -> list[_Part]:
    if recipe.heldout:
        return [_read(run, file, recipe.heldout_limit) for file in recipe.heldout]
    columns = ["heldout", "prompt_tokens", "response_tokens"]
    samples = run.read_table(run.samples_file, columns)
    tokens = samples["prompt_tokens"].to_numpy() + samples["response_tokens"].to_numpy()
    heldout = samples["heldout"].to_numpy(zero_copy_only=False)
    own = tokens[heldout][: recipe.heldout_limit]
    return [_Part(len(own), int(own.sum()))]


def _replay_tokens(run: Run, recipe: Recipe) -> list[float]:
    """Tokens of each general row that may be mixed in, about."""
    file = recipe.replay if isinstance(recipe, EvaluationConfig) else None
    return _row_tokens(run, file, None) if file else []


def _read(run: Run, file: str, limit: int | None) -> _Part:
    """A file's first rows and their tokens, about."""
    tokens = _row_tokens(run, file, limit)
    return _Part(len(tokens), round(sum(tokens)))


def _row_tokens(run: Run, file: str, limit: int | None) -> list[float]:
    """Tokens of each row of a file about, each option with its prompt once more."""
    source = read_source(run.config().for_file(file, limit))
    longest, tokens = run.read_manifest().longest, []
    for row in source.rows:
        options = (row or {}).get("options")
        copies = 1 + (len(options) if isinstance(options, list) else 0)
        text = json.dumps(row, ensure_ascii=False, default=str)
        tokens.append(copies * min(len(text) / CHARACTERS, longest))
    return tokens
