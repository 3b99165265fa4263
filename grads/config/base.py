"""What all settings share: validation with every problem named, paths, and their file form.

Every field's docstring is its documentation: the command line shows it as `--help`.
"""

import glob
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from grads.errors import ConfigError
from grads.text import VALUE, brief, cut

DEMO_MODEL = "demo"
DEMO_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
FILE_SUFFIXES = (
    *(".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"),
    *(".gz", ".zst", ".gguf"),
)
# In a problem's place: which kind of value it was held against, of a field that takes two.
OF_A_UNION = re.compile(r"constrained-int|literal\[.*\]")


@dataclass(frozen=True)
class Flag:
    """What the command line calls a field, where that is not its name: --map, --bound."""

    text: str


@dataclass(frozen=True)
class OneOf:
    """Marks a text field whose values are the names of something that can be added to."""

    names: Callable[[], Iterable[str]]


class Settings(BaseModel):
    """Settings that cannot change once made, and refuse unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    PATHS: ClassVar[tuple[str, ...]] = ()  # fields that may name files or folders

    def absolute(self) -> Self:
        """The same settings with every path absolute, so that they mean the same everywhere.

        What names nothing here and may be a hub id stays as it is.
        """
        places = {name: getattr(self, name) for name in self.PATHS}
        return self.model_copy(update={name: _absolute(value) for name, value in places.items()})

    @classmethod
    def parse(cls, values: dict[str, Any]) -> Self:
        """Validate `values`; raises ConfigError that names every problem at once."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(describe(problem) for problem in error.errors())
            raise ConfigError(problems) from None


def is_path(text: str) -> bool:
    """Whether a data set or model of this name can only be a file or folder, not a hub id."""
    path = Path(text)
    return (
        path.is_absolute()
        or text.startswith((".", "~"))
        or path.suffix.lower() in FILE_SUFFIXES
        or is_glob(text)
        or text.count("/") > 1
    )


def is_glob(text: str) -> bool:
    """Whether it holds one of the marks that stand for many names; no hub id does."""
    return any(mark in text for mark in "*?[")


def is_name(text: str) -> bool:
    """Whether it is the name of something in a folder, and leads nowhere else."""
    return Path(text).name == text and text not in ("", "..") and "\0" not in text


def members(place: str) -> list[Path]:
    """The files that a path names: itself, those of a folder and its `data/`, or of a glob.

    In the order of their names, numbers by value: part-2 stands before part-10.
    """
    path = Path(place).expanduser()
    if path.is_dir():
        found = [*path.glob("*"), *path.glob("data/*")]
    elif not path.exists() and is_glob(place):
        found = [Path(name) for name in glob.glob(str(path))]  # noqa: PTH207 - absolute ones too
    else:
        found = [path]
    return sorted((file for file in found if file.is_file()), key=_by_name)


def _by_name(path: Path) -> list[str | int]:
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _absolute(given: Any) -> Any:
    """A path, or several in a tuple or by name."""
    if isinstance(given, tuple):
        return tuple(map(_absolute, given))
    if isinstance(given, dict):
        return {name: _absolute(value) for name, value in given.items()}
    return given if given is None else _absolute_path(given)


def _absolute_path(text: str) -> str:
    path = Path(text).expanduser()
    here = text != DEMO_MODEL and path.exists()
    if not here and not is_path(text):
        return text
    return os.path.abspath(path)  # noqa: PTH100 - a link's target may lack the suffix


def describe(problem: Any) -> str:
    """One problem of a pydantic ValidationError in words: field, value, what is wrong."""
    name = cut(".".join(p for p in map(str, problem["loc"]) if not OF_A_UNION.fullmatch(p)), VALUE)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"unknown setting '{name}': see --help for the settings there are"
    if problem["type"] == "missing":
        return f"{name} is missing: it must be given"
    return f"{name} is {brief(problem['input'])}: {message}" if name else message


def read_yaml(path: Path) -> dict[str, Any]:
    """Settings from a YAML file; raises ConfigError with the line of a syntax error."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        _refuse_repetition(path, root)
        values = loader.construct_document(root) if root else None
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}" if mark else ""
        kind = type(error).__name__
        raise ConfigError(f"config {path}{place} is not valid YAML ({kind}): correct it") from None
    except RecursionError:
        raise ConfigError(f"config {path} is nested too deeply: settings are flat") from None
    if not isinstance(values, dict):
        raise ConfigError(f"config {path} must hold 'setting: value' lines")
    return values


def _refuse_repetition(path: Path, root: yaml.Node | None) -> None:
    """Raise ConfigError where an alias stands for a list or a mapping.

    A few such lines can stand for more values than any memory holds.
    """
    seen: set[int] = set()
    left = [root] if isinstance(root, yaml.CollectionNode) else []
    while left:
        node = left.pop()
        if id(node) in seen:
            raise ConfigError(
                f"config {path} line {node.start_mark.line + 1}: this list or mapping is repeated"
                " by an alias (*): write it out"
            )
        seen.add(id(node))
        inner = [one for part in node.value for one in (part if type(part) is tuple else [part])]
        left += [one for one in inner if isinstance(one, yaml.CollectionNode)]
