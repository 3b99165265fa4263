"""The rows of an export, and what a format is."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from grads.config.run import RunConfig

SCORE_PREFIX = "grads_"  # of the score columns that --with-scores adds


@dataclass(frozen=True)
class Subset:
    """The chosen samples, in source order, all columns of one length."""

    name: str
    lines: list[bytes] | None  # the source's own lines, where it has lines
    rows: list[dict[str, Any]]
    table: pa.Table | None  # the rows with their own types, where the source has types
    turns: list[list[dict[str, str]]]
    scores: list[dict[str, Any]] | None  # to add, with --with-scores

    def __len__(self) -> int:
        return len(self.rows)

    def scored_rows(self) -> list[dict[str, Any]]:
        """Rows as objects, with the scores where asked for."""
        return self._with_scores(self.rows)

    def messages(self) -> list[dict[str, Any]]:
        """Conversations as trainers read them, with the scores where asked for."""
        return self._with_scores([{"messages": turns} for turns in self.turns])

    def _with_scores(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self.scores is None:
            return rows
        return [
            row | {SCORE_PREFIX + key: value for key, value in score.items()}
            for row, score in zip(rows, self.scores, strict=True)
        ]


@dataclass(frozen=True)
class Format:
    """A form that selections are exported in, declared once for commands, pages and tests."""

    name: str
    label: str  # for people, in a list to choose from
    write: Callable[[Subset, Path, RunConfig], None]
    """Writes the data to the path, and beside it what belongs to them."""
    count: Callable[[Path], int]
    """Loads the data back and counts their rows."""
    data_name: str = "train.jsonl"
    """Name of the data inside the export's folder; {name} stands for the selection's."""
    alone: bool = False
    """Whether the data can stand alone, as one file with the format's suffix."""


def write_text(path: Path, text: str) -> None:
    """Write text that ends with a line break."""
    path.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")


def dump_lines(rows: list[dict[str, Any]], path: Path) -> None:
    """Write objects as JSON lines."""
    lines = [json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8", newline="")


def count_lines(path: Path) -> int:
    """JSON objects in a file of lines; raises ValueError on a line that is none."""
    with path.open("rb") as file:
        return sum(isinstance(json.loads(line), dict) for line in file if line.strip())
