"""The study's second part: does direction choose better than size, and than chance?

    make study-direction DATA=FOLDER     # FOLDER/medicine, finance, law_zh, general
    make study-direction                 # only print what has been found so far

Pools are made of the folder's rows by a seed, with what each row is in columns that only the oracle
looks at. It goes on where it was ended, as the first part does (assets/study.py), and keeps its
results beside that part's. No row is measured on that a selection has seen.
"""

import argparse
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import study

from grads import api
from grads.config.evaluation import EvaluationConfig
from grads.config.run import RunConfig
from grads.selection.pool import Pool
from grads.store.runs import Run

BUILD = study.BUILD / "direction"
TEST, TARGET = slice(200, 300), 128  # of the held-out rows: those measured on, those for targets
RECIPE = study.RECIPE | {"heldout_limit": None, "general_limit": 40}
SIZES = (8, 32, 128)  # of target sets
SOUND = "sound:1:1"
DOMAIN = "domain:1:1"
SUBSETS = ("base", "random", "selection")
ALL = ("full", *SUBSETS)

# What each setting makes of a pool, beside its budget; the oracles know the labels.
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "aligned": {"criterion": "aligned"},
    "rds": {"criterion": "rds"},
    "question-gain": {"criterion": "question_gain"},
    "diverse": {"criterion": "diverse"},
    "magnitude": {"criterion": "magnitude"},
    "loss-low": {"criterion": "loss_low"},
    "union": {
        "criterion": "aligned",
        "bounds": ["question_gain_z:-0.5:"],
        "deduplicate": True,
    },
    "filtered": {
        "criterion": "random",
        "bounds": ["question_gain_z:-0.5:"],
        "deduplicate": True,
    },
    "oracle": {"criterion": "random", "bounds": [SOUND]},
    "oracle-domain": {"criterion": "random", "bounds": [DOMAIN]},
    **{
        f"away-{sign}": {"typicality": 0.0, "focus": 0.0, "away": weight, "draw": "top"}
        for sign, weight in {"minus-1": -1.0, "1": 1.0}.items()
    },
    **{
        f"aligned-away-{sign}": {
            "typicality": 0.0,
            "focus": 0.0,
            "towards": 1.0,
            "away": weight,
            "draw": "top",
        }
        for sign, weight in {"minus-1": -1.0, "0.5": 0.5, "1": 1.0, "2": 2.0}.items()
    },
}
# The best of one column: how many rows does a target need?
BY_SIZE = {
    f"{name}-{size}": (field, f"medicine-{size}")
    for name, field in (("aligned", "embed_cosine"), ("rds", "rds"))
    for size in SIZES
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, help="folder with the data sets")
    data = parser.parse_args().data
    if data is not None:
        conduct_all(data)
    print(study.report())


def conduct_all(data: Path) -> None:
    """Every part, what decides most first."""
    label_free = ("default", "aligned", "rds", "question-gain", "diverse", "union")
    part("flawed-10", data, flawed, 0.1, (*label_free, "filtered", "oracle"))
    for percent in (50, 25):
        compared = ("default", "union", "oracle")
        part(f"flawed-{percent}", data, flawed, percent / 100, compared, arms=ALL, seeds=2)
    steps = ("full", "base", "selection_steps")
    part("flawed-50-steps", data, flawed, 0.5, ("union",), arms=steps, seeds=2)
    for percent in (50, 25):
        criteria = ("aligned", "rds", "question-gain", "diverse")
        part(f"flawed-{percent}-criteria", data, flawed, percent / 100, criteria, arms=ALL, seeds=2)
    # The best of these, for as many steps as everything, and against chance under fresh seeds.
    part("flawed-50-aligned-steps", data, flawed, 0.5, ("aligned",), arms=steps, seeds=2)
    part("flawed-50-aligned-again", data, flawed, 0.5, ("aligned",), first_seed=2, seeds=3)
    part("mixed-10", data, mixed, 0.1, ("default", *BY_SIZE, "oracle-domain"))
    part("clean-10", data, clean, 0.1, ("default", "aligned", "rds", "union"))
    forgetful = {"training": "full", "lr": 2e-4}
    against = [name for name in SETTINGS if "away" in name]
    part("protect-10", data, clean, 0.1, ("aligned", *against), **forgetful)
    replay = {"replay": str(written("replay", general(data))), "replay_share": [0.05, 0.1, 0.25]}
    part("replay-10", data, clean, 0.1, ("aligned",), **forgetful, **replay)
    telling = ("default", "aligned", "question-gain", "union", "oracle")
    part("options-10", data, topics, 0.1, telling, arms=ALL, seeds=5)


def part(
    name: str,
    data: Path,
    pool: Callable[[Path], list[dict[str, Any]]],
    ratio: float,
    settings: tuple[str, ...],
    **recipe: Any,
) -> None:
    """One evaluation on one pool, unless its result is there."""
    if (study.RESULTS / f"{name}.json").exists():
        return
    compared = recipe.pop("arms", SUBSETS)
    run = scored_run(data, pool)
    loaded = api.load_pool(run)
    for setting in settings:
        api.select_samples(run, setting, options(setting, loaded, ratio), loaded)
    recipe = RECIPE | recipe
    config = EvaluationConfig.parse(
        recipe
        | {
            "heldout": str(written(f"heldout-{pool.__name__}", heldout(data, pool)[TEST])),
            "general": [str(data / "general" / file) for file in study.GENERAL],
            "selections": settings,
            "arms": compared,
        }
    )
    cost = api.estimate_evaluation(run, config).seconds
    print(f"{name}: about {(cost or 0) / 60:.0f} minutes in all", flush=True)
    study.conduct(api.create_evaluation(run, name, config), settings, recipe)


def options(setting: str, pool: Pool, ratio: float) -> api.SelectionConfig:
    """A setting at a budget; those best by one target set are pinned."""
    if setting not in BY_SIZE:
        return api.SelectionConfig.parse(SETTINGS[setting] | {"ratio": ratio})
    field, wanted = BY_SIZE[setting]
    values, count = getattr(pool.probes[wanted], field), round(ratio * len(pool))
    best = np.argsort(-values, kind="stable")[:count]
    pins = tuple(pool.scores.sample_id[best].tolist())
    return api.SelectionConfig(draw="top", count=count, pins=pins)


def scored_run(data: Path, pool: Callable[[Path], list[dict[str, Any]]]) -> Run:
    """The pool scored after a warm-up on a quarter, against a target and a protected set."""
    name = pool.__name__
    known = heldout(data, pool)[:TARGET]
    wanted = {f"medicine-{size}": known[:size] for size in SIZES if pool is mixed}
    field = "finance" if pool is topics else "medicine"
    protected = rows(data / "general/gsm8k.jsonl")[-32:]
    config = RunConfig(
        dataset=str(written(name, pool(data))),
        max_length=192,
        heldout=0,
        warmup_fraction=0.25,
        targets={
            name: str(written(f"target-{name}", found))
            for name, found in (wanted or {field: known[:32]}).items()
        },
        protected={"mathematics": str(written("protected", protected))},
        extras=("question_gain",),
    )
    run = api.create_run(config, str(BUILD / f"run-{name}"))
    study.work(run)
    return run


# -- pools


def flawed(data: Path) -> list[dict[str, Any]]:
    """600 medical rows, 40% of them flawed in one of six ways, a sixth each."""
    draw, found = random.Random(0), rows(data / "medicine/train.jsonl")
    draw.shuffle(found)
    sound, spoilt, spare = found[:360], found[360:560], found[560:]
    parts = [marked(sound, "sound", sound=1, domain=1)]
    answers = [row["output"] for row in spoilt[:40]]
    moved = answers[1:] + answers[:1]
    parts.append(altered(spoilt[:40], "mismatched", dict(zip(range(40), moved, strict=True)).get))
    parts.append(altered(spoilt[40:80], "garbled", lambda i: garbled(spoilt[40 + i], draw)))
    parts.append(altered(spoilt[80:120], "truncated", lambda i: truncated(spoilt[80 + i])))
    boilerplate = "Please consult your health care provider for more information on this topic."
    parts.append(altered(spoilt[120:160], "boilerplate", lambda i: boilerplate))
    again = [row | {"instruction": row["instruction"] + " Please explain."} for row in sound[:40]]
    parts.append(marked(again, "near-duplicate", sound=0, domain=1))
    other = [alpaca(row) for row in rows(data / "finance/train.jsonl")[:40]]
    parts.append(marked(other, "other domain", sound=0, domain=0))
    assert len(spare) > 0
    return shuffled(parts)


def mixed(data: Path) -> list[dict[str, Any]]:
    """600 rows of four kinds: medicine, bank messages, Chinese law, instructions."""
    parts = [
        marked(rows(data / "medicine/train.jsonl")[:200], "medicine", sound=1, domain=1),
        marked(
            [alpaca(row) for row in rows(data / "finance/train.jsonl")[:160]],
            "finance",
            sound=1,
            domain=0,
        ),
        marked(rows(data / "law_zh/train.jsonl")[:140], "law", sound=1, domain=0),
        marked(rows(data / "general/instructions.jsonl")[-100:], "instructions", sound=1, domain=0),
    ]
    return shuffled(parts)


def clean(data: Path) -> list[dict[str, Any]]:
    """600 medical rows as they are."""
    return marked(rows(data / "medicine/train.jsonl")[:600], "medicine", sound=1, domain=1)


def topics(data: Path) -> list[dict[str, Any]]:
    """600 bank messages and their topics, 40% of them with another message's."""
    found = [alpaca(row) for row in rows(data / "finance/train.jsonl")[:600]]
    sound, spoilt = found[:360], found[360:]
    named = [row["output"] for row in spoilt]

    def moved(i: int) -> str:
        return next(other for other in named[i:] + named if other != named[i])

    parts = [marked(sound, "sound", sound=1, domain=1), altered(spoilt, "mismatched", moved)]
    return shuffled(parts)


def heldout(data: Path, pool: Callable[[Path], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rows of what a pool is to teach, those of bank messages with four topics to choose from."""
    file = "finance/heldout_options.jsonl" if pool is topics else "medicine/heldout.jsonl"
    return rows(data / file)


def general(data: Path) -> list[dict[str, Any]]:
    """160 rows of what a model should not lose, none of them measured or protected."""
    return (
        rows(data / "general/gsm8k.jsonl")[100:180]
        + rows(data / "general/instructions.jsonl")[60:140]
    )


def garbled(row: dict[str, Any], draw: random.Random) -> str:
    """Its answer with the words in any order."""
    words = row["output"].split()
    draw.shuffle(words)
    return " ".join(words)


def truncated(row: dict[str, Any]) -> str:
    """The first third of its answer, broken off within a word."""
    return row["output"][: max(len(row["output"]) // 3, 20)]


def altered(
    found: list[dict[str, Any]], kind: str, answer: Callable[[int], Any]
) -> list[dict[str, Any]]:
    changed = [row | {"output": answer(i)} for i, row in enumerate(found)]
    return marked(changed, kind, sound=0, domain=1)


def marked(found: list[dict[str, Any]], kind: str, **labels: int) -> list[dict[str, Any]]:
    kept = ("instruction", "input", "output")
    return [{name: row[name] for name in kept} | {"kind": kind} | labels for row in found]


def alpaca(row: dict[str, Any]) -> dict[str, Any]:
    asked, said = (message["content"] for message in row["messages"])
    return {"instruction": asked, "input": "", "output": said}


def shuffled(parts: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    found = [row for part in parts for row in part]
    random.Random(1).shuffle(found)
    return found


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def written(name: str, found: list[dict[str, Any]]) -> Path:
    """A file of these rows, the same as before where they are."""
    path = BUILD / f"{name}.jsonl"
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
