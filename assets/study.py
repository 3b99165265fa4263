"""The study of docs/benchmarks.md: which setting learns more or forgets less than random?

    make study DATA=FOLDER     # FOLDER/medicine, FOLDER/finance, FOLDER/general
    make study                 # only print what has been found so far

It takes hours on a CPU and can be ended and started again at any time. docs/study/PART.json holds a
finished part; docs/study/unfinished/PART/ the arms of a part at work, which a later start takes
over, in a fresh checkout too. The runs themselves lie in build/study.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from grads import api, jobs
from grads.config import RunConfig, SelectionConfig
from grads.evaluation_config import EvaluationConfig
from grads.files import write_json
from grads.folders import Evaluation
from grads.runs import ACTIVE, JobFolder, Run
from grads.tuning import GRID

BUILD = Path("build/study")
RESULTS = Path("docs/study")
BUDGETS = {"5": 0.05, "10": 0.1, "50": 0.5}
GENERAL = ("gsm8k.jsonl", "instructions.jsonl")
# The same for every arm; steps of 8 samples, so that 30 samples still take a dozen of them.
RECIPE = {"epochs": 3.0, "batch_size": 8, "seeds": 3, "heldout_limit": 100, "general_limit": 50}
FORGETFUL = {"training": "full", "lr": 2e-4, "epochs": 5.0}
ALL = tuple(name for name in GRID if name != "random")
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
    """Every part in order; later parts take the two settings that were best in the first."""
    part("medicine-10", data, "10", ALL, ("base", "full", "random", "selection"))
    best = best_settings("medicine-10", 2)
    part("medicine-10-steps", data, "10", best[:1], ("random_steps", "selection_steps"))
    part("medicine-5", data, "5", best, ("random", "selection"))
    part("medicine-50", data, "50", best, ("random", "selection"))
    part("finance-10", data, "10", best[:1], ("random", "selection"))
    arms = ("full", "random", "selection")
    part("medicine-10-forgetful", data, "10", best[:1], arms, **FORGETFUL)


def part(
    name: str,
    data: Path,
    budget: str,
    settings: tuple[str, ...],
    arms: tuple[str, ...],
    **recipe: Any,
) -> None:
    """One evaluation, unless its result is there."""
    if (RESULTS / f"{name}.json").exists():
        return
    field = name.split("-")[0]
    run = scored_run(data / field, field)
    for setting in settings:
        options = SelectionConfig(**GRID[setting], ratio=BUDGETS[budget])
        api.select_samples(run, f"{setting}-{budget}", options)
    config = EvaluationConfig.parse(
        RECIPE
        | {
            "heldout": str(data / field / "heldout.jsonl"),
            "general": [str(data / "general" / file) for file in GENERAL],
            "selections": [f"{setting}-{budget}" for setting in settings],
            "arms": arms,
        }
        | recipe
    )
    cost = api.estimate_evaluation(run, config)["seconds"]
    print(f"{name}: about {(cost or 0) / 60:.0f} minutes in all", flush=True)
    evaluation = api.create_evaluation(run, name, config)
    kept = RESULTS / "unfinished" / name
    if kept.is_dir():
        shutil.copytree(kept, evaluation.arms, dirs_exist_ok=True)
    work(evaluation, kept)
    found = api.read_evaluation(run, name)
    write_json(RESULTS / f"{name}.json", stored(found, settings, recipe))
    shutil.rmtree(kept)


def scored_run(folder: Path, field: str) -> Run:
    """600 rows up to 192 tokens, scored with the demo model."""
    config = RunConfig(dataset=str(folder / "train.jsonl"), limit=600, max_length=192)
    run = api.create_run(config, str(BUILD / field))
    work(run)
    return run


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


def stored(found: dict[str, Any], settings: tuple[str, ...], recipe: dict[str, Any]) -> Any:
    """What is kept of an evaluation: no paths, no loss curves."""
    result = found["result"]
    for arm in result["arms"]:
        for row in arm["seeds"]:
            del row["curve"]
    return {"settings": list(settings), "recipe": RECIPE | recipe, "result": result}


def best_settings(name: str, count: int) -> tuple[str, ...]:
    """The settings of a part whose arms have the lowest mean held-out loss."""
    found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    arms = [arm for arm in found["result"]["arms"] if arm["kind"] == "selection"]
    arms.sort(key=lambda arm: arm["mean"]["heldout_loss"])
    return tuple(arm["selection"].rpartition("-")[0] for arm in arms[:count])


def report() -> str:
    """Every finished part as a Markdown table, one row an arm."""
    parts = [table(path) for path in sorted(RESULTS.glob("*.json"))]
    return "\n\n".join(parts) or "nothing has been found yet"


def table(path: Path) -> str:
    found = json.loads(path.read_text(encoding="utf-8"))
    result, recipe = found["result"], found["recipe"]
    training = recipe.get("training", "lora")
    against = {
        pair["arm"]: pair
        for pair in result["comparisons"]
        if pair["against_kind"] in ("random", "random_steps")
    }
    head = ["arm", "samples", *COLUMNS.values(), "learning", "forgetting"]
    lines = [
        f"### {path.stem}: {training}, {recipe['epochs']:g} epochs, {recipe['seeds']} seeds",
        "",
        "| " + " | ".join(head) + " |",
        "|---" * len(head) + "|",
    ]
    for arm in result["arms"]:
        pair = against.get(arm["label"], {})
        cells = [arm["label"], str(arm["samples"]), *(cell(arm, metric) for metric in COLUMNS)]
        cells += [pair.get("learning", ""), pair.get("forgetting", "")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(arm: dict[str, Any], metric: str) -> str:
    mean, interval = arm["mean"][metric], arm["interval"][metric]
    return f"{mean:.3f}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")


if __name__ == "__main__":
    main()
