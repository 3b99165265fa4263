"""What is measured of every sample beside its own gradients: where it lies to probe sets."""

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from grads.config.base import Flag, Settings

Role = Literal["target", "protect"]
SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
ROWS = "rows:"  # in the place of a file: samples of the run's own pool
EXTRAS = ("question_gain",)


def pairs(given: Any, what: str) -> Any:
    """A mapping as it is, or one of texts NAME=VALUE, as the command line writes them."""
    if not isinstance(given, list | tuple):
        return given
    split = [str(text).partition("=") for text in given]
    if not all(name and value for name, _, value in split):
        raise ValueError(f"write {what}")
    names = [name for name, _, _ in split]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"'{name}' is given twice: give it once")
    return {name: value for name, _, value in split}


class ProbeConfig(Settings):
    """Probe sets, each a target or to protect, and further columns of every sample."""

    PATHS: ClassVar[tuple[str, ...]] = ("targets", "protected")

    targets: Annotated[dict[str, str], Flag("--target")] = Field(default_factory=dict)
    """Sets of examples like those that you want, NAME=FILE, or NAME=rows:ID,ID for samples of the
    pool; every sample's gradient is held against their mean gradient."""
    protected: Annotated[dict[str, str], Flag("--protect")] = Field(default_factory=dict)
    """Sets of examples of what must not be lost, NAME=FILE or NAME=rows:ID,ID; measured as targets
    are."""
    extras: tuple[Literal["question_gain"], ...] = ()
    """Further columns of every sample: question_gain, the loss that the question saves."""
    sketch: int | None = Field(None, ge=16)
    """Keep the part of a set's mean gradient at the LM head in this many numbers a token instead
    of the hidden size, where vocabulary x hidden size in float32 does not fit; no longer exact."""

    @field_validator("targets", "protected", mode="before")
    @classmethod
    def _sets_from_pairs(cls, given: Any) -> Any:
        return pairs(given, "NAME=FILE, as in good=examples.jsonl")

    @field_validator("targets", "protected")
    @classmethod
    def _can_be_read(cls, sets: dict[str, str]) -> dict[str, str]:
        for name, place in sets.items():
            if not SET_NAME.fullmatch(name):
                raise ValueError(
                    f"'{name}' is no name for a set: use up to 32 letters, digits, dashes and"
                    " underscores"
                )
            if place.startswith(ROWS):
                rows_of(place)
        return sets

    @model_validator(mode="after")
    def _one_role_each(self) -> Self:
        both = sorted(set(self.targets) & set(self.protected))
        if both:
            raise ValueError(f"'{both[0]}' is a target and to be protected: give two names")
        return self

    @property
    def sets(self) -> dict[str, tuple[Role, str]]:
        """Role and place of every set by its name."""
        found: dict[str, tuple[Role, str]] = {n: ("target", p) for n, p in self.targets.items()}
        return found | {name: ("protect", place) for name, place in self.protected.items()}


def rows_of(place: str) -> list[int] | None:
    """The sample ids of a place that names samples of the pool; None where it is a file."""
    if not place.startswith(ROWS):
        return None
    try:
        return [int(text) for text in place.removeprefix(ROWS).split(",")]
    except ValueError:
        raise ValueError(f"'{place}' names no rows: write rows:3,17,40") from None
