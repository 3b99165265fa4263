"""The arms of an evaluation: which subsets are trained, for how long, and against what.

Knows the run's files and the selection criteria, but no model: an estimate needs no more.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from grads.config.evaluation import ARM_KINDS, ArmKind, EvaluationConfig, Recipe
from grads.data.replay import draw_rows, replay_count
from grads.errors import EvaluationError
from grads.selection.options import SelectionConfig
from grads.selection.pool import Pool
from grads.selection.record import kept_ids, read_record
from grads.store.files import digest, digest_of
from grads.store.runs import Run

BASE, CRITERION = "base", ARM_KINDS["criterion"]
TRAINED = 3  # passes of a trained token: one forward, and a backward that costs two


@dataclass(frozen=True)
class Replay:
    """General rows that are mixed into a subset."""

    share: float  # of all that is trained on, above 0 and below 1
    digest: str  # of the file that they are drawn from

    def rows(self, samples: int) -> int:
        """How many go with that many samples of a subset, at least one."""
        return replay_count(samples, self.share)

    def drawn(self, available: int, samples: int, seed: int) -> np.ndarray:
        """Positions of the rows that a training on that many samples takes, of those there are."""
        return draw_rows(available, self.rows(samples), seed)


@dataclass(frozen=True)
class Arm:
    """One arm: a subset and how long it is trained."""

    label: str
    kind: str  # a name of ARM_KINDS
    selection: str | None = None  # name of the saved selection
    options: SelectionConfig | None = None  # how the subset is drawn; None takes everything
    rival: str | None = None  # label of the random arm of the same size
    replay: Replay | None = None
    alone: str | None = None  # label of the same arm without replay
    budget: float | None = None  # size in percent of the pool, where sizes are compared

    @property
    def declared(self) -> ArmKind:
        """What its kind means."""
        return ARM_KINDS[self.kind]

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
    replay: Replay | None = None
    answers: bool = False  # whether it answers a few held-out prompts for people to read

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
        if self.replay is not None:
            what += [self.replay.digest, self.replay_rows]
        return digest_of(what)[:24]

    @property
    def replay_rows(self) -> int:
        """How many general rows are mixed in, as far as the file has them."""
        return self.replay.rows(len(self.sample_ids)) if self.replay else 0


def plan(run: Run, config: EvaluationConfig, pool: int) -> list[Arm]:
    """The arms of an evaluation over a pool of `pool` samples. `base` is always among them.

    Raises RunError where a selection is missing, and EvaluationError where the file of general rows
    cannot be read.
    """
    if config.budgets:
        arms = _over_budgets(config, pool)
        return arms + _with_replay(config, arms)
    records = {name: read_record(run, name) for name in config.selections}
    counts = {name: record.samples.kept for name, record in records.items()}
    criteria_count = _criteria_count(config, counts, pool)
    sizes = list(dict.fromkeys([*counts.values(), *([criteria_count] if criteria_count else [])]))
    randoms = {size: "random" if len(sizes) == 1 else f"random-{size}" for size in sizes}
    kinds = [kind for kind in ARM_KINDS.values() if kind.name in config.arms]
    rivals = {kind.as_long_as_full: kind for kind in kinds if kind.random}
    reserved = {BASE, "full"}
    reserved |= {k.called(r) for k in ARM_KINDS.values() if k.random for r in randoms.values()}
    arms = [Arm(BASE, BASE)]

    def choose(kind: ArmKind, name: str, options: SelectionConfig, size: int) -> Arm:
        rival = rivals.get(kind.as_long_as_full)
        return Arm(
            label=_unused(kind.called(name), reserved | {arm.label for arm in arms}),
            kind=kind.name,
            selection=None if kind is CRITERION else name,
            options=options,
            rival=rival.called(randoms[size]) if rival else None,
        )

    for kind in kinds:
        if kind.trains_on == "everything":
            arms.append(Arm("full", kind.name))
        for size, label in randoms.items() if kind.random else ():
            options = SelectionConfig(criterion="random", count=size)
            arms.append(Arm(kind.called(label), kind.name, options=options))
        for name, record in records.items() if kind.chosen else ():
            arms.append(choose(kind, name, record.options, counts[name]))
    for criterion in config.criteria:
        assert criteria_count is not None
        options = SelectionConfig.parse({"criterion": criterion, "count": criteria_count})
        arms.append(choose(CRITERION, criterion, options, criteria_count))
    return arms + _with_replay(config, arms)


def _over_budgets(config: EvaluationConfig, pool: int) -> list[Arm]:
    """Each criterion and random at each budget; everything is the budget of 100."""
    arms = [Arm(BASE, BASE)]
    if "full" in config.arms or 100 in config.budgets:
        arms.append(Arm("full", "full", budget=100))
    for budget in config.budgets:
        if budget == 100:
            continue
        count = max(1, round(pool * budget / 100))
        rival = f"random-{budget:g}" if "random" in config.arms else None
        if rival:
            drawn = SelectionConfig(criterion="random", count=count)
            arms.append(Arm(rival, "random", options=drawn, budget=budget))
        for name in config.criteria:
            options = SelectionConfig.parse({"criterion": name, "count": count})
            label = f"{name}-{budget:g}"
            arms.append(Arm(label, CRITERION.name, None, options, rival=rival, budget=budget))
    return arms


def _with_replay(config: EvaluationConfig, plain: list[Arm]) -> list[Arm]:
    """Every arm that is trained, with general rows mixed in."""
    if config.replay is None:
        return []
    try:
        file = digest(Path(config.replay).expanduser())
    except OSError as error:
        raise EvaluationError(
            f"cannot read the replay file {config.replay} ({error.strerror}): check the path"
        ) from None
    return [
        replace(
            arm,
            label=f"{arm.label}+replay{100 * share:g}",
            rival=arm.rival and f"{arm.rival}+replay{100 * share:g}",
            replay=Replay(share, file),
            alone=arm.label,
        )
        for share in config.shares
        for arm in plain
        if arm.kind != BASE
    ]


def _criteria_count(config: EvaluationConfig, counts: dict[str, int], pool: int) -> int | None:
    if not config.criteria:
        return None
    if config.ratio is not None:
        return max(1, round(config.ratio * pool))
    return counts[config.selections[0]]


def _unused(label: str, taken: set[str]) -> str:
    """The label, or one that is free: a selection may be called `full`."""
    while label in taken:
        label = f"selection-{label}"
    return label


def members(pool: Pool, arm: Arm, seed: int) -> np.ndarray:
    """Sorted ids of the samples that an arm trains on under a seed; none for the base model."""
    if arm.kind == BASE:
        return np.zeros(0, dtype=np.int64)
    if arm.options is None:
        return pool.scores.sample_id
    if arm.selection and not (arm.redrawn and seed):
        return kept_ids(pool.run, arm.selection)
    options = arm.options
    if arm.redrawn:
        options = options.model_copy(update={"seed": options.seed + seed})
    chosen: np.ndarray = pool.scores.sample_id[pool.select(options).kept]
    return chosen


def steps(samples: int, recipe: Recipe) -> int:
    """Optimizer steps of a training on that many samples."""
    return math.ceil(recipe.epochs * math.ceil(samples / recipe.batch_size))


def trials(
    pool: Pool, arms: list[Arm], recipe: Recipe, seeds: range, *, phase: str = ""
) -> list[Trial]:
    """Every arm under every seed, seed by seed, so that each arm soon has a first value.

    Under the first seed some kinds of arms answer prompts, but in the phases of a search.
    """
    full = steps(len(pool), recipe)
    found = []
    for seed in seeds:
        for arm in arms:
            if arm.kind == BASE and seed != seeds.start:
                continue  # nothing in it varies
            ids = members(pool, arm, seed)
            longer = arm.declared.as_long_as_full and steps(len(ids), recipe) != full
            longest = full if longer else None
            answers = arm.declared.answers and seed == seeds.start and not phase
            found.append(Trial(arm.label, seed, ids, longest, phase, arm.replay, answers))
    return found


def training_passes(lengths: np.ndarray, trial: Trial, recipe: Recipe) -> int:
    """Work of a training on samples of these lengths (n,), in passes of a token.

    The lengths are those of the general rows that are mixed in, too.
    """
    if not len(lengths):
        return 0
    epochs = recipe.epochs
    if trial.max_steps:
        epochs = trial.max_steps / math.ceil(len(lengths) / recipe.batch_size)
    return round(TRAINED * epochs * float(lengths.sum()))
