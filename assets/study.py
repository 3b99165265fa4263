"""The study of docs/benchmarks.md: which setting learns more or forgets less than random?

    make study DATA=FOLDER     # FOLDER/medicine, FOLDER/finance, FOLDER/general
    make study                 # only print what has been found so far

It takes hours on a CPU and can be ended and started again at any time. docs/study/PART.json holds a
finished part; docs/study/unfinished/PART/ the arms of a part at work, which a later start takes
over, in a fresh checkout too. The runs themselves lie in build/study.

The first part ranks the settings; of many, the first is partly lucky. So the best two are trained
once more under fresh seeds and measured on held-out samples that had no part in the ranking.
Training is in bfloat16, which needs a processor with instructions for it: with another one, set
RECIPE["dtype"] to float32.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grads import api
from grads.config.evaluation import EvaluationConfig
from grads.config.run import RunConfig
from grads.evaluation import arms, results
from grads.evaluation.intervals import NONE
from grads.evaluation.result import About, ArmResult, Comparison, EvaluationResult
from grads.evaluation.trials import TrialResult, read_trials
from grads.evaluation.tuning import GRID
from grads.jobs import processes as jobs
from grads.selection.options import SelectionConfig
from grads.selection.pool import Pool
from grads.store.files import read_json, write_json
from grads.store.folders import Evaluation
from grads.store.runs import ACTIVE, JobFolder, Run

BUILD = Path("build/study")
RESULTS = Path("docs/study")
BUDGETS = {"5": 0.05, "10": 0.1, "50": 0.5}
GENERAL = ("gsm8k.jsonl", "instructions.jsonl")
HELDOUT = 100  # held-out samples that a result is of
# The same for every arm; steps of 8 samples, so that 30 samples still take a dozen of them.
RECIPE: dict[str, Any] = {
    "epochs": 3.0,
    "batch_size": 8,
    "batch_tokens": 640,
    "seeds": 3,
    "dtype": "bfloat16",
    "heldout_limit": HELDOUT,
    "general_limit": 50,
}
FORGETFUL = {"training": "full", "lr": 2e-4}
AGAIN = {"first_seed": 3, "seeds": 5, "heldout_limit": 2 * HELDOUT}  # the second hundred counts
ONE_END = {
    "no-high": {"criterion": "random", "bounds": [{"column": "signal", "high": 1.0}]},
    "no-low": {"criterion": "random", "bounds": [{"column": "signal", "low": -1.0}]},
}
COLUMNS = {
    "heldout_loss": "held-out loss",
    "heldout_accuracy": "token accuracy",
    "general_loss": "general loss",
    "general_kl": "KL",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, help="folder with the data sets")
    data = parser.parse_args().data
    if data is not None:
        conduct_all(data)
    print(report())


def conduct_all(data: Path) -> None:
    """Every part in order: the two settings that rank best in the first go through the others."""
    subsets = ("random", "selection")
    part("medicine-10", data, "10", tuple(SETTINGS), ("base", "full", *subsets))
    best = best_settings("medicine-10", 2)
    part("medicine-10-again", data, "10", best, subsets, **AGAIN)
    part("medicine-5", data, "5", best, subsets)
    part("finance-10", data, "10", best, subsets)
    part("medicine-10-forgetful", data, "10", best, ("full", *subsets), **FORGETFUL)
    part("medicine-50", data, "50", best, subsets)
    steps = ("random_steps", "selection_steps")
    part("medicine-10-steps", data, "10", best_settings("medicine-10-again", 1), steps)


def part(
    name: str,
    data: Path,
    budget: str,
    settings: tuple[str, ...],
    compared: tuple[str, ...],
    **recipe: Any,
) -> None:
    """One evaluation, unless its result is there."""
    if not (RESULTS / f"{name}.json").exists():
        values = RECIPE | recipe | {"arms": compared}
        conduct(prepared(name, data, budget, settings, values), settings, RECIPE | recipe)


def conduct(evaluation: Evaluation, settings: tuple[str, ...], recipe: dict[str, Any]) -> None:
    """Work at an evaluation to its end, its arms kept on the way, and keep its result."""
    name = evaluation.id
    kept = RESULTS / "unfinished" / name
    if kept.is_dir():
        shutil.copytree(kept, evaluation.arms, dirs_exist_ok=True)
    work(evaluation, kept)
    write_json(RESULTS / f"{name}.json", stored(evaluation, settings, recipe))
    shutil.rmtree(kept)


def prepared(
    name: str, data: Path, budget: str, settings: tuple[str, ...], values: dict[str, Any]
) -> Evaluation:
    """The evaluation of a part, its run scored and its selections saved."""
    field = name.split("-")[0]
    run = scored_run(data, field)
    pool = api.load_pool(run)
    for setting in settings:
        options = SETTINGS[setting](data, pool, BUDGETS[budget])
        api.select_samples(run, f"{setting}-{budget}", options, pool)
    config = EvaluationConfig.parse(
        values
        | {
            "heldout": str(data / field / "heldout.jsonl"),
            "general": [str(data / "general" / file) for file in GENERAL],
            "selections": [f"{setting}-{budget}" for setting in settings],
        }
    )
    cost = api.estimate_evaluation(run, config).seconds
    print(f"{name}: about {(cost or 0) / 60:.0f} minutes in all", flush=True)
    return api.create_evaluation(run, name, config)


def scored_run(data: Path, field: str, **settings: Any) -> Run:
    """600 rows up to 192 tokens, scored with the demo model."""
    config = RunConfig(
        dataset=str(data / field / "train.jsonl"), limit=600, max_length=192, **settings
    )
    run = api.create_run(config, str(BUILD / "-".join([field, *settings.values()])))
    work(run)
    return run


# -- settings: what each makes of a pool at a ratio


def _of_grid(name: str) -> Callable[[Path, Pool, float], SelectionConfig]:
    def options(data: Path, pool: Pool, ratio: float) -> SelectionConfig:
        return SelectionConfig(**(GRID | ONE_END)[name], ratio=ratio)

    return options


def _both_ends(data: Path, pool: Pool, ratio: float) -> SelectionConfig:
    """Half of the budget drawn from the low end of the signal, half from the high end."""
    low = kept_ids(pool, SelectionConfig(**GRID["low-sample"], ratio=ratio / 2))
    count = round(ratio * len(pool))
    rest = SelectionConfig(**GRID["high-sample"], count=count - len(low), excluded=low)
    return SelectionConfig(draw="top", count=count, pins=(*low, *kept_ids(pool, rest)))


def _before(name: str) -> Callable[[Path, Pool, float], SelectionConfig]:
    """A setting of the grid by the gradients before any warm-up, from a run of its own."""

    def options(data: Path, pool: Pool, ratio: float) -> SelectionConfig:
        field = Path(pool.run.config().dataset).parent.name
        other = api.load_pool(scored_run(data, field, warmup="none"))
        ids = kept_ids(other, SelectionConfig(**GRID[name], ratio=ratio))
        return SelectionConfig(draw="top", count=len(ids), pins=ids)

    return options


def kept_ids(pool: Pool, options: SelectionConfig) -> tuple[int, ...]:
    """Ids of the samples that the options choose."""
    return tuple(pool.scores.sample_id[pool.select(options).kept].tolist())


SETTINGS: dict[str, Callable[[Path, Pool, float], SelectionConfig]] = {
    **{name: _of_grid(name) for name in (*GRID, *ONE_END) if name != "random"},
    "both-ends": _both_ends,
    "typical-high-before": _before("typical-high"),
    "low-sample-before": _before("low-sample"),
}


# -- work and what is kept of it


def work(folder: JobFolder, kept: Path | None = None) -> None:
    """Work in a folder to its end, copying finished arms to `kept`; Ctrl-C stops the job."""
    if jobs.observe(folder).state != "finished":
        jobs.start(folder)
    shown = ""
    try:
        while (now := jobs.observe(folder)).state in ACTIVE:
            if now.message != shown and now.stage:
                left = f", {now.eta_s / 60:.0f} minutes left" if now.eta_s else ""
                print(f"{folder.id}: {now.stage} {now.message}{left}", flush=True)
                shown = now.message
            keep(folder, kept)
            time.sleep(2)
    except KeyboardInterrupt:
        jobs.stop(folder)
        sys.exit("stopped; start it again to go on")
    keep(folder, kept)
    if now.state != "finished":
        sys.exit(f"{folder.path} is {now.state}: {now.error}")


def keep(folder: JobFolder, kept: Path | None) -> None:
    """Copy the arms that are new."""
    if kept is None or not isinstance(folder, Evaluation):
        return
    kept.mkdir(parents=True, exist_ok=True)
    for file in folder.arms.glob("[!.]*.json"):
        if not (kept / file.name).exists() or (
            (kept / file.name).stat().st_mtime < file.stat().st_mtime
        ):
            shutil.copy2(file, kept / file.name)


def stored(
    evaluation: Evaluation, settings: tuple[str, ...], recipe: dict[str, Any]
) -> dict[str, Any]:
    """What is kept of an evaluation: its last HELDOUT samples; no paths, no loss curves."""
    found = api.read_evaluation(evaluation.run, evaluation.id).result
    assert found is not None
    config = evaluation.config()
    assert isinstance(config, EvaluationConfig)
    planned = arms.plan(evaluation.run, config, len(Pool(evaluation.run)))
    about = About(heldout=found.heldout, general=found.general, leaks=found.leaks, notes=[])
    done = results.by_arm(planned, map(last_heldout, read_trials(evaluation).values()))
    result = results.build(evaluation.run, planned, done, about, finished=found.finished)
    values = result.as_json()
    for arm in values["arms"]:
        for row in arm["seeds"]:
            del row["curve"]
    return {"settings": list(settings), "recipe": recipe, "result": values}


def last_heldout(trial: TrialResult) -> TrialResult:
    """A finished training as measured on the last HELDOUT held-out samples alone."""
    sums = {
        name: (over[-HELDOUT:], under[-HELDOUT:]) if name.startswith("heldout") else (over, under)
        for name, (over, under) in trial.sums.items()
    }
    return trial.model_copy(update={"sums": sums})


def read_part(name: str) -> tuple[dict[str, Any], EvaluationResult]:
    """The recipe and the result of a finished part."""
    path = RESULTS / f"{name}.json"
    values = read_json(path)
    return values["recipe"], EvaluationResult.checked(values["result"], path)


def best_settings(name: str, count: int) -> tuple[str, ...]:
    """The settings of a part whose arms have the lowest mean held-out loss."""
    _, result = read_part(name)
    ranked = [arm for arm in result.arms if arm.selection and arm.declared.once]
    ranked.sort(key=lambda arm: arm.mean[results.LEARNING])
    return tuple(arm.selection.rpartition("-")[0] for arm in ranked[:count])


def report() -> str:
    """Every finished part as a Markdown table, one row an arm."""
    parts = [table(path) for path in sorted(RESULTS.glob("*.json"))]
    return "\n\n".join(parts) or "nothing has been found yet"


def table(path: Path) -> str:
    """A part: each arm's means, and its differences from random's under the same seeds."""
    recipe, result = read_part(path.stem)
    training = recipe.get("training", "lora")
    against = {pair.arm: pair for pair in result.comparisons if pair.theirs.random}
    head = ["arm", "samples", *COLUMNS.values(), "held-out loss - random's", "general - random's"]
    lines = [
        f"### {path.stem}: {training}, {recipe['epochs']:g} epochs, {recipe['seeds']} seeds",
        "",
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
    ]
    for arm in result.arms:
        pair = against.get(arm.label)
        cells = [arm.label, str(arm.samples), *(cell(arm, metric) for metric in COLUMNS)]
        cells += [difference(pair, metric) for metric in (results.LEARNING, results.FORGETTING)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(arm: ArmResult, metric: str) -> str:
    mean, interval = arm.mean[metric], arm.interval[metric]
    return f"{mean:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


def difference(pair: Comparison | None, metric: str) -> str:
    """A difference with its interval, and the verdict where there is one."""
    if pair is None:
        return ""
    found = pair.metrics[metric]
    verdict = "" if found.verdict == NONE else f" **{found.verdict}**"
    return f"{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f}){verdict}"


if __name__ == "__main__":
    main()
