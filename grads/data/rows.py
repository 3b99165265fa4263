"""What reading one file gives: its rows, and those that could not be read, in the order found."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

BLOCK = 1_000  # rows that are read, and then tokenised, at once
AS_OBJECT = "write it as {column: value, ...}"
KINDS = {list: "a list", bool: "a truth value", int: "a number", float: "a number"}


@dataclass(frozen=True)
class Broken:
    """A row that could not be read: its 0-based id, its line, the reason, and what to do."""

    sample_id: int
    line: int | None
    reason: str
    advice: str


class Found(NamedTuple):
    """A row: its 0-based id, its line where the format has lines, itself where it is a line."""

    sample_id: int
    line: int | None
    row: dict[str, Any]
    raw: bytes | None


Item = Found | Broken | None  # None: a line that holds no row, and counts as a line


def found(sample_id: int, line: int | None, value: Any, raw: bytes | None = None) -> Found | Broken:
    """An object as a row; anything else is refused, with what it is."""
    if isinstance(value, dict):
        return Found(sample_id, line, value, raw)
    return Broken(sample_id, line, *_what_it_is(value))


@dataclass
class Part:
    """Up to BLOCK rows of one file. Lines and raw bytes are those of every row, or of none."""

    ids: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)  # 1-based, where the format has lines
    raw: list[bytes] = field(default_factory=list)  # where a row is a line
    broken: list[Broken] = field(default_factory=list)
    size: int = 0  # ids that the file takes up to here: its lines, or its records
    table: pa.Table | None = None  # the rows with their own types
    key: str | None = None  # of the list that holds the rows, in a JSON object
    texts_only: bool = False

    def __len__(self) -> int:
        """Rows read, the broken ones included."""
        return len(self.rows) + len(self.broken)

    def add(self, item: Item) -> None:
        """Take what was found next."""
        self.size = self.size + 1 if item is None else item.sample_id + 1
        if isinstance(item, Broken):
            self.broken.append(item)
        elif item is not None:
            self.ids.append(item.sample_id)
            self.rows.append(item.row)
            if item.line is not None:
                self.lines.append(item.line)
            if item.raw is not None:
                self.raw.append(item.raw)


def in_parts(items: Iterator[Item], limit: int | None, **about: Any) -> Iterator[Part]:
    """Rows as they come, in parts; nothing behind the limit is asked for. `about` is of each."""
    part, left = Part(**about), limit
    for item in items:
        part.add(item)
        if item is not None and left is not None:
            left -= 1
            if left == 0:
                break
        if len(part) == BLOCK:
            yield part
            part = Part(size=part.size, **about)
    yield part


def excerpt(text: str) -> str:
    """The beginning of a text's first line in quotes, for messages."""
    first = (text.strip().splitlines() or [""])[0]
    return repr(first if len(first) <= 40 else first[:40] + "...")


def _what_it_is(value: Any) -> tuple[str, str]:
    """The kind of a value that is no object, and what to do."""
    if isinstance(value, str):
        try:
            inner = json.loads(value)
        except (ValueError, RecursionError):
            inner = None
        if isinstance(inner, dict):
            return "it holds text that is itself an object", "parse it as JSON once and save that"
        return f"it holds text, {excerpt(value)}", AS_OBJECT
    if value is None:
        return "it holds null", AS_OBJECT
    if isinstance(value, list) and value and all(is_turn(item) for item in value):
        return "it holds a list of messages", 'write it as {"messages": [...]}'
    return f"it holds {KINDS.get(type(value), type(value).__name__)}", AS_OBJECT


def is_turn(value: Any) -> bool:
    """Whether a value is what one side of a conversation says."""
    return isinstance(value, dict) and bool({"role", "from"} & set(value))
