"""What reading one file gives: its rows, and those that could not be read, in the order found."""

import json
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

AS_OBJECT = "write it as {column: value, ...}"
KINDS = {list: "a list", bool: "a truth value", int: "a number", float: "a number"}


@dataclass(frozen=True)
class Broken:
    """A row that could not be read: its 0-based id, its line, the reason, and what to do."""

    sample_id: int
    line: int | None
    reason: str
    advice: str


@dataclass
class Part:
    """One file's rows. Lines and raw bytes are those of every row, or of none."""

    limit: int | None = None
    ids: list[int] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)  # 1-based, where the format has lines
    raw: list[bytes] = field(default_factory=list)  # where a row is a line
    broken: list[Broken] = field(default_factory=list)
    size: int = 0  # ids that the file takes: its lines, or its records
    table: pa.Table | None = None  # the rows with their own types
    key: str | None = None  # of the list that holds the rows, in a JSON object
    texts_only: bool = False

    def __len__(self) -> int:
        """Rows read, the broken ones included."""
        return len(self.rows) + len(self.broken)

    @property
    def full(self) -> bool:
        """Whether no further row is wanted."""
        return self.limit is not None and len(self) >= self.limit

    def take(self, sample_id: int, line: int | None, value: Any, raw: bytes | None = None) -> None:
        """Keep an object as a row; anything else is refused, with what it is."""
        self.size = sample_id + 1
        if not isinstance(value, dict):
            self.refuse(sample_id, line, *_what_it_is(value))
            return
        self.ids.append(sample_id)
        self.rows.append(value)
        if line is not None:
            self.lines.append(line)
        if raw is not None:
            self.raw.append(raw)

    def refuse(self, sample_id: int, line: int | None, reason: str, advice: str) -> None:
        """Note a row that cannot be used."""
        self.size = sample_id + 1
        self.broken.append(Broken(sample_id, line, reason, advice))


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
