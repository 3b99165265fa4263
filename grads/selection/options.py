"""What a selection is: criterion, options, budget, and what people decided by hand.

It stands beside the criteria, since what goes together depends on them.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from grads.config.base import Flag, OneOf, Settings
from grads.selection.criteria import criteria, criterion_named


def usual_draw(criterion: str, auto: bool) -> str:
    """The draw of a selection that names none: the criterion's, or the best with auto."""
    return "top" if auto else criterion_named(criterion).usual_draw


class Bound(Settings):
    """Keep only samples whose `column` lies in [low, high]; an open end is None."""

    column: str
    low: float | None = None
    high: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        """A range, or its text as the command line writes it."""
        if not isinstance(value, str):
            return value
        try:
            column, low, high = value.rsplit(":", 2)
            ends = {"low": float(low) if low else None, "high": float(high) if high else None}
        except ValueError:
            raise ValueError("write COLUMN:LOW:HIGH; an end may be empty") from None
        return {"column": column, **ends}

    def __str__(self) -> str:
        """As the command line writes it."""
        low, high = ("" if end is None else repr(end) for end in (self.low, self.high))
        return f"{self.column}:{low}:{high}"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low is not None and self.high is not None and not self.low <= self.high:
            raise ValueError(f"{self.column}: low {self.low} is above high {self.high}")
        return self


class SelectionConfig(Settings):
    """One selection: criterion, options, budget, and what people decided by hand."""

    criterion: Annotated[str, OneOf(criteria)] = "grads"
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
    towards: float = 0.0
    """Weight of a sample's cosine to the target sets, in robust standard deviations."""
    away: float = 0.0
    """Weight against a sample's cosine to the protected sets; negative prefers those like them."""
    cosine: Literal["embed", "head", "both"] = "embed"
    """Whose gradients `towards` and `away` compare: the embedding's, the LM head's or both."""
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
    deduplicate: bool = False
    """Keep at most one of each group of near-duplicates, the best one; pins all stay."""
    bounds: Annotated[tuple[Bound, ...], Flag("--bound")] = ()
    """Ranges that a sample must lie in, COLUMN:LOW:HIGH; an end may be empty."""
    clusters: Annotated[tuple[int, ...], Flag("--cluster")] = ()
    """Choose only among these clusters; empty means all."""
    pins: Annotated[tuple[int, ...], Flag("--pin")] = ()
    """Sample ids that are always kept."""
    excluded: Annotated[tuple[int, ...], Flag("--exclude")] = ()
    """Sample ids that are never kept."""
    seed: int = Field(0, ge=0)
    """Seed of the random draws."""

    @property
    def directed(self) -> bool:
        """Whether the score looks at probe sets."""
        return self.tilted and bool(self.towards or self.away)

    @property
    def tilted(self) -> bool:
        """Whether typicality, focus, towards and away have a say."""
        criterion = criterion_named(self.criterion)
        return criterion.by_density and criterion.tilt is None

    @property
    def by_lot(self) -> bool:
        """Whether the seed has a say in what is kept."""
        return criterion_named(self.criterion).by_lot or self.draw == "sample"

    @property
    def takes_best(self) -> bool:
        """Whether the budget is a threshold on the score."""
        return self.draw == "top" and not self.by_lot

    @property
    def by_hand(self) -> set[int]:
        """Samples whose fate the options name."""
        return {*self.pins, *self.excluded}

    @model_validator(mode="before")
    @classmethod
    def _with_usual_draw(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        name = values.get("criterion", "grads")
        if name not in criteria():
            return values  # refused below
        usual = usual_draw(name, bool(values.get("auto")))
        return {"draw": usual} | values

    @field_validator("criterion")
    @classmethod
    def _known_criterion(cls, name: str) -> str:
        if name not in criteria():
            raise ValueError(f"there is no such criterion: choose one of {', '.join(criteria())}")
        return name

    @field_validator("bandwidth")
    @classmethod
    def _positive_bandwidth(cls, bandwidth: str | float) -> str | float:
        if not isinstance(bandwidth, str) and not bandwidth > 0:
            raise ValueError("a bandwidth must be above 0, or scott or silverman")
        return bandwidth

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems, criterion = [], criterion_named(self.criterion)
        if (self.ratio is not None) + (self.count is not None) + self.auto != 1:
            problems.append("give exactly one budget: ratio, count or auto")
        if self.auto and not criterion.by_density:
            problems.append(
                f"auto needs a density, criterion '{self.criterion}' has none: give a ratio"
            )
        if self.draw == "sample" and not criterion.has_weights:
            problems.append(
                f"draw 'sample' needs weights, criterion '{self.criterion}' has none: use top or"
                " stratified"
            )
        typicality, focus = criterion.tilt or (self.typicality, self.focus)
        if self.auto and criterion.by_density and (self.draw != "top" or not typicality):
            problems.append("auto needs draw 'top' and a typicality above 0")
        if self.auto and self.directed:
            problems.append("auto goes by the density alone: with towards or away give a ratio")
        ranked = typicality or focus or self.directed
        if criterion.by_density and self.draw == "top" and not ranked:
            problems.append(
                "draw 'top' with typicality 0 and focus 0 ranks nothing: use draw 'sample'"
            )
        both = sorted(set(self.pins) & set(self.excluded))
        if both:
            problems.append(f"sample {both[0]} is both pinned and excluded: choose one")
        if problems:
            raise ValueError("; ".join(problems))
        return self
