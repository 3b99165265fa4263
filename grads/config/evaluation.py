"""What an evaluation and a search for a setting are: validated settings, to and from a file."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from grads.config.base import Flag, Settings
from grads.config.run import RunConfig


@dataclass(frozen=True)
class ArmKind:
    """A kind of arm, declared once: for what is trained, said, drawn and offered."""

    name: str
    label: str  # for people
    trains_on: Literal["nothing", "everything", "a random subset", "a chosen subset"]
    as_long_as_full: bool = False
    """Whether it is trained for as many optimizer steps as everything, not as many epochs."""
    answers: bool = False
    """Whether it writes answers to held-out prompts, under the first seed."""
    by_name: bool = True
    """Whether `arms` can name it; else a setting of its own brings it in."""

    @property
    def random(self) -> bool:
        """Whether it is what the chosen subsets must beat."""
        return self.trains_on == "a random subset"

    @property
    def chosen(self) -> bool:
        """Whether it trains on samples that a selection or a criterion has chosen."""
        return self.trains_on == "a chosen subset"

    @property
    def once(self) -> bool:
        """Whether it passes over a subset as often as the recipe says: a usual training."""
        return (self.random or self.chosen) and not self.as_long_as_full

    def called(self, subset: str) -> str:
        """The label of its arm on a subset of this name."""
        return f"{subset}-steps" if self.as_long_as_full else subset


ARM_KINDS = {
    kind.name: kind
    for kind in (
        ArmKind("base", "untrained", "nothing", answers=True),
        ArmKind("full", "everything", "everything", answers=True),
        ArmKind("random", "random subset", "a random subset"),
        ArmKind("selection", "the chosen subsets", "a chosen subset", answers=True),
        ArmKind(
            "random_steps",
            "random subset, trained as long as everything",
            "a random subset",
            as_long_as_full=True,
        ),
        ArmKind(
            "selection_steps",
            "chosen subsets, trained as long as everything",
            "a chosen subset",
            as_long_as_full=True,
        ),
        ArmKind("criterion", "subsets by further criteria", "a chosen subset", by_name=False),
    )
}
ARMS = tuple(kind.name for kind in ARM_KINDS.values() if kind.by_name)


def _known_arm(name: str) -> str:
    if name not in ARMS:
        raise ValueError(f"there is no such arm: choose among {', '.join(ARMS)}")
    return name


def _several(value: Any) -> Any:
    """Before 0.5 there was one held-out file, or null."""
    return (value,) if isinstance(value, str) else () if value is None else value


def _one_by_one(given: Any) -> Any:
    """Numbers or names as they may be typed: 2.5,5,10 or one at a time."""
    several = given if isinstance(given, list | tuple) else [given] if given else []
    apart = [one.split(",") if isinstance(one, str) else [one] for one in several]
    return [part for parts in apart for part in parts if part != ""]


def _in_order(budgets: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sorted(set(budgets)))


class Recipe(Settings):
    """How every arm is trained and what it is measured on."""

    PATHS: ClassVar[tuple[str, ...]] = ("heldout", "general")

    heldout: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
    """Files of held-out samples to measure learning on; by default the run's own held-out split."""
    general: tuple[str, ...] = ()
    """Files of general samples to measure forgetting on; by default 120 bundled questions."""
    heldout_limit: int | None = Field(None, ge=1)
    """Measure on the first N rows of each held-out file only."""
    general_limit: int | None = Field(None, ge=1)
    """Measure on the first N rows of each general file only."""
    training: Annotated[Literal["lora", "full"], Flag("--warmup")] = "lora"
    """What every arm trains, from the base model: LoRA on all linear layers, or all parameters."""
    epochs: float = Field(3.0, gt=0)
    """Epochs of every arm, whatever its size."""
    lr: float | None = Field(None, gt=0)
    """Peak learning rate; by default 2e-4 for lora and 2e-5 for full."""
    lora_rank: int = Field(16, ge=1)
    """Rank of the LoRA adapter; its alpha is twice the rank."""
    batch_size: int = Field(16, ge=1)
    """Samples an optimizer step."""
    batch_tokens: int | None = Field(None, ge=8)
    """Most tokens, padding included, in one forward pass; by default the run's."""
    seeds: int = Field(3, ge=1)
    """Repetitions with another initialisation, order and random subset; under 3 say little."""
    dtype: Literal["auto", "float32", "bfloat16"] | None = None
    """Number format of the model, auto, float32 or bfloat16; by default the run's."""
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None
    """Where to compute, auto, cpu, cuda or mps; by default as the run."""

    def for_training(self, run: RunConfig, seed: int) -> RunConfig:
        """The run's settings with this recipe in the place of the warm-up's."""
        changed = {
            "warmup": self.training,
            "warmup_from": None,
            "epochs": self.epochs,
            "lr": self.lr,
            "lora_rank": self.lora_rank,
            "batch_size": self.batch_size,
            "batch_tokens": self.batch_tokens or run.pass_tokens,
            "dtype": self.dtype or run.dtype,
            "device": self.device or run.device,
            "seed": seed,
        }
        return run.model_copy(update=changed)


class EvaluationConfig(Recipe):
    """One evaluation: saved selections and criteria against base, full and random."""

    PATHS = (*Recipe.PATHS, "tasks_dir", "replay")

    selections: Annotated[tuple[str, ...], Flag("--selection")] = ()
    """Names of saved selections to compare."""
    criteria: Annotated[tuple[str, ...], Flag("--criterion")] = ()
    """Further comparison criteria, each with its own subset."""
    ratio: float | None = Field(None, gt=0, le=1)
    """Size of the criteria's subsets as a share of the pool; by default the first selection's."""
    budgets: Annotated[
        tuple[Annotated[float, Field(gt=0, le=100)], ...],
        BeforeValidator(_one_by_one),
        AfterValidator(_in_order),
    ] = ()
    """Sizes to try each criterion and random at, in percent of the pool, such as 2.5,10,50,100."""
    replay: str | None = None
    """File of general rows to mix into every arm, each of which is trained without them too."""
    replay_share: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = ()
    """Shares of those rows among what is trained on, such as 0.05; each is an arm of its own."""
    first_seed: int = Field(0, ge=0)
    """Number of the first repetition: others make a fresh test of what was found under 0, 1, 2."""
    answers: int = Field(0, ge=0)
    """Let every arm answer the first N samples of each held-out file whose reference has at most 64
    tokens, and compare what it writes; slow."""
    tasks: Annotated[tuple[str, ...], BeforeValidator(_one_by_one)] = ()
    """Names of tasks or groups of lm-evaluation-harness to ask every arm too, with commas between
    them; needs the extra tasks."""
    tasks_dir: str | None = None
    """Folder with YAML files of further tasks."""
    task_limit: int | None = Field(None, ge=1)
    """Ask the first N samples of each task only."""
    tasks_with: Literal["transformers", "vllm"] = "transformers"
    """What runs the models that tasks are asked of: transformers, or vllm where it is installed."""
    arms: tuple[Annotated[str, AfterValidator(_known_arm)], ...] = ARMS
    """Which arms to train: base, full, random, selection, random_steps, selection_steps; with
    budgets base, full and random count."""

    @property
    def shares(self) -> list[float]:
        """The shares of general rows that are tried besides none, each once."""
        return sorted({share for share in self.replay_share if share})

    @property
    def repetitions(self) -> range:
        """The seeds of this evaluation."""
        return range(self.first_seed, self.first_seed + self.seeds)

    @model_validator(mode="after")
    def _something_to_compare(self) -> Self:
        problems = []
        if "random" in self.criteria:
            problems.append("criteria holds 'random', which is an arm by itself: leave it out")
        if self.criteria and not (self.selections or self.ratio or self.budgets):
            problems.append("criteria need a size: give a selection, a ratio or budgets")
        if self.budgets and not self.criteria:
            problems.append("budgets need something to try: give at least one criterion")
        if self.budgets and (self.selections or self.ratio):
            problems.append("budgets are the sizes: leave out selections and the ratio")
        named = {"selection": self.selections, "criterion": self.criteria, "task": self.tasks}
        for what, values in named.items():
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                problems.append(f"{what} '{twice[0]}' is named twice: name it once")
        if (self.replay is None) != (not self.replay_share):
            problems.append("replay and replay_share go together: give both, or neither")
        if not self.arms and not self.criteria:
            problems.append("there is no arm to train: name at least one")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class TuneConfig(Recipe):
    """One search for a setting: a grid of subsets in short pilots, the winner once more."""

    kind: Literal["tune"] = "tune"
    """Tells the settings of a search from those of an evaluation."""
    ratio: float = Field(0.1, gt=0, le=1)
    """Size of every subset as a share of the pool."""
    settings: Annotated[tuple[str, ...], Flag("--setting")] = ()
    """Names of the grid's settings to try; by default all of them."""
    save_as: str = "tuned"
    """Name that the winner is saved under, as a selection, once it has stood its second test."""
