"""What a run and a selection are: validated settings, to and from a file.

Every field's docstring is its documentation: the command line shows it as `--help`.
"""

import os
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from grads.errors import ConfigError

DEMO_MODEL = "demo"
DEMO_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
FILE_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".gguf")
ROLES = ("messages", "prompt", "input", "response", "system")


class Settings(BaseModel):
    """Settings that cannot change once made, and refuse unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    PATHS: ClassVar[tuple[str, ...]] = ()  # fields that may name files or folders

    def absolute(self) -> Self:
        """The same settings with every path absolute, so that they mean the same everywhere.

        What names nothing here and may be a hub id stays as it is.
        """
        places = {name: getattr(self, name) for name in self.PATHS}
        return self.model_copy(
            update={
                name: tuple(map(_absolute, value)) if isinstance(value, tuple) else _absolute(value)
                for name, value in places.items()
                if value is not None
            }
        )

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Validate `values`; raises ConfigError that names every problem at once."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(_describe(problem) for problem in error.errors())
            raise ConfigError(problems) from None


def is_path(text: str) -> bool:
    """Whether a data set or model of this name can only be a file or folder, not a hub id."""
    path = Path(text)
    return (
        path.is_absolute()
        or text.startswith((".", "~"))
        or path.suffix.lower() in FILE_SUFFIXES
        or text.count("/") > 1
    )


def _absolute(text: str) -> str:
    path = Path(text).expanduser()
    here = text != DEMO_MODEL and path.exists()
    if not here and not is_path(text):
        return text
    return os.path.abspath(path)  # noqa: PTH100 - a link's target may lack the suffix


def _describe(problem: Any) -> str:
    name = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"unknown setting '{name}': see --help for the settings there are"
    if problem["type"] == "missing":
        return f"{name} is missing: it must be given"
    return f"{name} is {problem['input']!r}: {message}" if name else message


class RunConfig(Settings):
    """One run: data set, model, warm-up, scoring."""

    PATHS = ("dataset", "model", "warmup_from")

    dataset: str
    """JSONL, JSON, CSV or Parquet file, a save_to_disk folder, or a hub id."""
    dataset_config: str | None = None
    """Configuration (subset) name of a hub data set."""
    split: str | None = None
    """Split of a hub data set or a save_to_disk folder that holds several."""
    revision: str | None = None
    """Git revision of a hub data set."""
    columns: dict[str, str] = {}
    """Column mapping by hand, ROLE=COLUMN with ROLE one of messages, prompt, input, response,
    system; without it the layout is recognised."""
    limit: int | None = Field(None, ge=1)
    """Read only the first N rows of the source."""
    heldout: int = Field(0, ge=0)
    """Set N samples aside, before anything else, for evaluation."""
    max_length: int = Field(1024, ge=8)
    """Longest sample, in tokens; longer ones are cut at the end."""
    model: str = DEMO_MODEL
    """Hub id, local folder, GGUF file, or `demo` (SmolLM2-135M-Instruct)."""
    warmup: Literal["lora", "full", "none"] = "lora"
    """What the warm-up trains: LoRA on all linear layers, all parameters, or nothing."""
    warmup_fraction: float = Field(1.0, gt=0, le=1)
    """Share of the pool, drawn by seed, that the warm-up trains on."""
    warmup_from: str | None = None
    """Run directory whose finished warm-up is taken over instead of training one."""
    epochs: float = Field(1.0, gt=0)
    """Epochs of the warm-up."""
    lr: float | None = Field(None, gt=0)
    """Peak learning rate of the warm-up; by default 2e-4 for lora and 2e-5 for full."""
    lora_rank: int = Field(16, ge=1)
    """Rank of the LoRA adapter; its alpha is twice the rank."""
    batch_size: int = Field(16, ge=1)
    """Samples an optimizer step of the warm-up."""
    batch_tokens: int = Field(2048, ge=8)
    """Most tokens, padding included, in one forward pass, of the warm-up and of the scoring;
    optimizer steps with more tokens accumulate gradients over several passes."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the model; auto is bfloat16 where the GPU computes it, else float32."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute; auto takes cuda, then mps, then cpu."""
    seed: int = Field(0, ge=0)
    """Seed of the held-out split, the warm-up, the features and the clusters."""
    token_signals: bool | None = None
    """Keep per-token signals; by default for pools of up to 5,000 samples."""
    clusters: int | None = Field(None, ge=1)
    """Number of topic clusters; by default it follows the pool's size."""

    @field_validator("columns")
    @classmethod
    def _known_roles(cls, columns: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(columns) - set(ROLES))
        if unknown:
            raise ValueError(f"unknown role {', '.join(unknown)}: use {', '.join(ROLES)}")
        if columns and "messages" not in columns and not {"prompt", "response"} <= set(columns):
            raise ValueError("map either messages, or both prompt and response")
        return columns

    @model_validator(mode="after")
    def _warmup_is_one_thing(self) -> Self:
        if self.warmup_from and self.warmup == "none":
            raise ValueError(
                f"warmup_from is {self.warmup_from!r} but warmup is 'none': leave one of them out"
            )
        return self

    @property
    def learning_rate(self) -> float:
        """Peak learning rate with its default filled in."""
        return self.lr or (2e-5 if self.warmup == "full" else 2e-4)


Criterion = Literal[
    "grads", "density", "magnitude", "loss_high", "loss_low", "longest", "shortest", "random"
]


def usual_draw(criterion: str, auto: bool) -> str:
    """The draw of a selection that names none: by weight for grads with a budget, else the best."""
    return "sample" if criterion == "grads" and not auto else "top"


class Bound(Settings):
    """Keep only samples whose `column` lies in [low, high]; an open end is None."""

    column: str
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low is not None and self.high is not None and not self.low <= self.high:
            raise ValueError(f"{self.column}: low {self.low} is above high {self.high}")
        return self


class SelectionConfig(Settings):
    """One selection: criterion, options, budget, and what people decided by hand."""

    criterion: Criterion = "grads"
    """What ranks the samples; grads is ours, the others are for comparison."""
    signal: Literal["joint", "l2", "tied", "embed", "head"] = "joint"
    """Which gradient norms: the pair, their root sum of squares, the tied matrix's, or one."""
    length_control: Literal["residual", "sqrt", "none"] = "residual"
    """How the effect of response length on the norms is removed."""
    bandwidth: Literal["scott", "silverman"] | float = "scott"
    """Bandwidth of the density: scott, silverman, or a number in robust standard deviations."""
    floor: float = Field(2.0, gt=0)
    """Samples whose log density is more than this below the peak come last."""
    typicality: float = Field(1.0, ge=0)
    """Weight a of the log density: how much typical samples are preferred."""
    focus: float = -1.0
    """Weight lambda of the signal: positive towards more learning signal, negative towards less."""
    draw: Literal["top", "sample", "stratified"] = "sample"
    """Best scores, random draw weighted by exp(score), or best scores within each cluster; unless
    given, auto and every criterion but grads take the best scores."""
    ratio: float | None = Field(None, gt=0, le=1)
    """Budget as a share of the pool."""
    count: int | None = Field(None, ge=1)
    """Budget as a number of samples (or response tokens)."""
    auto: bool = False
    """Let the density decide the budget: all samples near the peak of the tilted density."""
    budget_unit: Literal["samples", "tokens"] = "samples"
    """What the budget counts: samples or response tokens."""
    bounds: tuple[Bound, ...] = ()
    """Ranges that a sample must lie in, COLUMN:LOW:HIGH; an end may be empty."""
    clusters: tuple[int, ...] = ()
    """Choose only among these clusters; empty means all."""
    pins: tuple[int, ...] = ()
    """Sample ids that are always kept."""
    excluded: tuple[int, ...] = ()
    """Sample ids that are never kept."""
    seed: int = Field(0, ge=0)
    """Seed of the random draws."""

    @property
    def by_lot(self) -> bool:
        """Whether the seed has a say in what is kept."""
        return self.criterion == "random" or self.draw == "sample"

    @property
    def by_hand(self) -> set[int]:
        """Samples whose fate the options name."""
        return {*self.pins, *self.excluded}

    @model_validator(mode="before")
    @classmethod
    def _with_usual_draw(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        usual = usual_draw(values.get("criterion", "grads"), bool(values.get("auto")))
        return {"draw": usual} | values

    @field_validator("bandwidth")
    @classmethod
    def _positive_bandwidth(cls, bandwidth: str | float) -> str | float:
        if not isinstance(bandwidth, str) and not bandwidth > 0:
            raise ValueError("a bandwidth must be above 0, or scott or silverman")
        return bandwidth

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if (self.ratio is not None) + (self.count is not None) + self.auto != 1:
            problems.append("give exactly one budget: ratio, count or auto")
        if self.auto and self.criterion not in ("grads", "density"):
            problems.append(
                f"auto needs a density, criterion '{self.criterion}' has none: give a ratio"
            )
        if self.draw == "sample" and self.criterion not in ("grads", "density", "random"):
            problems.append(
                f"draw 'sample' needs weights, criterion '{self.criterion}' has none: use top or"
                " stratified"
            )
        if self.auto and self.criterion == "grads" and (self.draw != "top" or not self.typicality):
            problems.append("auto needs draw 'top' and a typicality above 0")
        if self.criterion == "grads" and self.draw == "top" and not (self.typicality or self.focus):
            problems.append(
                "draw 'top' with typicality 0 and focus 0 ranks nothing: use draw 'sample'"
            )
        both = sorted(set(self.pins) & set(self.excluded))
        if both:
            problems.append(f"sample {both[0]} is both pinned and excluded: choose one")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def read_yaml(path: Path) -> dict[str, Any]:
    """Settings from a YAML file; raises ConfigError with the line of a syntax error."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}" if mark else ""
        kind = type(error).__name__
        raise ConfigError(f"config {path}{place} is not valid YAML ({kind}): correct it") from None
    if not isinstance(values, dict):
        raise ConfigError(f"config {path} must hold 'setting: value' lines")
    return values
