"""The arms of an evaluation: which subsets are trained, for how long, and against what.

Knows the run's files and the selection criteria, but no model: an estimate needs no more.
"""

import hashlib
import json
import math
from dataclasses import dataclass

import numpy as np

from grads.config.evaluation import EvaluationConfig, Recipe
from grads.selection.options import SelectionConfig
from grads.selection.pool import Pool
from grads.store.runs import Run

BASE = "base"
TRAINED = 3  # passes of a trained token: one forward, and a backward that costs two


@dataclass(frozen=True)
class Arm:
    """One arm: a subset and how long it is trained."""

    label: str
    kind: str  # base, full, random, selection, criterion, random_steps or selection_steps
    selection: str | None = None  # name of the saved selection
    options: SelectionConfig | None = None  # how the subset is drawn; None takes everything
    rival: str | None = None  # label of the random arm of the same size
    as_long_as_full: bool = False  # as many optimizer steps as full

    @property
    def redrawn(self) -> bool:
        """Whether the training's seed draws the subset anew."""
        return self.options is not None and self.options.by_lot


@dataclass(frozen=True)
class Trial:
    """One training and its measurement: an arm under one seed."""

    arm: str
    seed: int
    sample_ids: np.ndarray  # (n,) int64, sorted; empty for the base model
    max_steps: int | None  # None: as many as the epochs give
    phase: str = ""  # what it is measured on, where an evaluation has several parts

    @property
    def name(self) -> str:
        """What its file is called."""
        return "-".join(part for part in (self.phase, self.arm, str(self.seed)) if part)

    @property
    def key(self) -> str:
        """The same for trials that are one and the same training, measured on the same samples."""
        if not len(self.sample_ids):
            return f"{BASE}-{self.phase}"
        what = [self.sample_ids.tolist(), self.seed, self.max_steps, self.phase]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]


def plan(run: Run, config: EvaluationConfig, pool: int) -> list[Arm]:
    """The arms of an evaluation over a pool of `pool` samples. `base` is always among them.

    Raises RunError where a selection is missing.
    """
    records = {name: run.read_selection(name)[0] for name in config.selections}
    counts = {name: int(record["samples"]["kept"]) for name, record in records.items()}
    criteria_count = _criteria_count(config, counts, pool)
    sizes = list(dict.fromkeys([*counts.values(), *([criteria_count] if criteria_count else [])]))
    randoms = {size: "random" if len(sizes) == 1 else f"random-{size}" for size in sizes}
    reserved = {BASE, "full", *randoms.values(), *(_label(r, True) for r in randoms.values())}
    arms = [Arm(BASE, BASE)]
    if "full" in config.arms:
        arms.append(Arm("full", "full"))
    for kind, longer in (("", False), ("_steps", True)):
        if f"random{kind}" in config.arms:
            arms += [_random(size, label, longer) for size, label in randoms.items()]
        if f"selection{kind}" in config.arms:
            for name, record in records.items():
                rival = _label(randoms[counts[name]], longer)
                rival = rival if f"random{kind}" in config.arms else ""
                taken = reserved | {arm.label for arm in arms}
                arms.append(_selection(name, record, longer, rival, taken))
    for criterion in config.criteria:
        options = SelectionConfig.parse({"criterion": criterion, "count": criteria_count})
        assert criteria_count is not None
        arms.append(
            Arm(
                label=_unused(criterion, reserved | {arm.label for arm in arms}),
                kind="criterion",
                options=options,
                rival=randoms[criteria_count] if "random" in config.arms else None,
            )
        )
    return arms


def _criteria_count(config: EvaluationConfig, counts: dict[str, int], pool: int) -> int | None:
    if not config.criteria:
        return None
    if config.ratio is not None:
        return max(1, round(config.ratio * pool))
    return counts[config.selections[0]]


def _label(label: str, longer: bool) -> str:
    return f"{label}-steps" if longer else label


def _unused(label: str, taken: set[str]) -> str:
    """The label, or one that is free: a selection may be called `full`."""
    while label in taken:
        label = f"selection-{label}"
    return label


def _random(size: int, label: str, longer: bool) -> Arm:
    return Arm(
        label=_label(label, longer),
        kind="random_steps" if longer else "random",
        options=SelectionConfig(criterion="random", count=size),
        as_long_as_full=longer,
    )


def _selection(name: str, record: dict, longer: bool, rival: str, taken: set[str]) -> Arm:
    options = SelectionConfig.parse(record["options"])
    return Arm(
        label=_unused(_label(name, longer), taken),
        kind="selection_steps" if longer else "selection",
        selection=name,
        options=options,
        rival=rival or None,
        as_long_as_full=longer,
    )


def members(pool: Pool, arm: Arm, seed: int) -> np.ndarray:
    """Sorted ids of the samples that an arm trains on under a seed; none for the base model."""
    if arm.kind == BASE:
        return np.zeros(0, dtype=np.int64)
    if arm.options is None:
        return pool.scores.sample_id
    if arm.selection and not (arm.redrawn and seed):
        _, table = pool.run.read_selection(arm.selection)
        saved: np.ndarray = table.filter(table["kept"])["sample_id"].to_numpy()
        return saved
    options = arm.options
    if arm.redrawn:
        options = options.model_copy(update={"seed": options.seed + seed})
    chosen: np.ndarray = pool.scores.sample_id[pool.select(options).kept]
    return chosen


def steps(samples: int, recipe: Recipe) -> int:
    """Optimizer steps of a training on that many samples."""
    return math.ceil(recipe.epochs * math.ceil(samples / recipe.batch_size))


def trials(
    pool: Pool, arms: list[Arm], recipe: Recipe, seeds: range, phase: str = ""
) -> list[Trial]:
    """Every arm under every seed, seed by seed, so that each arm soon has a first value."""
    full = steps(len(pool), recipe)
    found = []
    for seed in seeds:
        for arm in arms:
            if arm.kind == BASE and seed != seeds.start:
                continue  # nothing in it varies
            ids = members(pool, arm, seed)
            longer = arm.as_long_as_full and steps(len(ids), recipe) != full
            found.append(Trial(arm.label, seed, ids, full if longer else None, phase))
    return found


def training_passes(lengths: np.ndarray, trial: Trial, recipe: Recipe) -> int:
    """Work of a training on samples of these lengths (n,), in passes of a token."""
    if not len(lengths):
        return 0
    epochs = recipe.epochs
    if trial.max_steps:
        epochs = trial.max_steps / math.ceil(len(lengths) / recipe.batch_size)
    return round(TRAINED * epochs * float(lengths.sum()))
