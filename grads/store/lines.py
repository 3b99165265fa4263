"""Files that grow by lines of JSON: a line is added whole or not at all."""

import json
import os
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from grads.store.files import JSON_ESCAPES, sync


class Lines(NamedTuple):
    """What a file of lines holds."""

    rows: list[dict[str, Any]]
    unreadable: list[int]
    """Numbers, from 1, of the lines that hold no object: a writer was killed within them."""


def read_lines(path: Path) -> Lines:
    """Every object of a file, one a line; none where the file is not there."""
    found = Lines([], [])
    for number, line in enumerate(path.read_bytes().split(b"\n") if path.exists() else (), start=1):
        row = None
        with suppress(ValueError):
            row = json.loads(line.decode("utf-8"))
        if isinstance(row, dict):
            found.rows.append(row)
        elif line:
            found.unreadable.append(number)
    return found


def broken_lines(numbers: list[int], name: str = "decisions.jsonl") -> list[str]:
    """What is said of lines of that file that cannot be read."""
    return [f"line {n} of {name} was broken off and is passed over" for n in numbers]


def append_line(path: Path, value: dict[str, Any], lasting: bool = False) -> None:
    """Add a line; as `append_lines` does."""
    append_lines(path, [value], lasting)


def append_lines(path: Path, values: list[dict[str, Any]], lasting: bool = False) -> None:
    """Add lines, all of them or none, which outlast a power failure where they are to be lasting.

    Without any, nothing is touched: a file that is empty has lost its lines. Raises OSError where
    they cannot be written, and leaves the file as it was. A half line of a killed writer gets its
    end first, so that it takes nothing of these with it.
    """
    if not values:
        return
    lines = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    with path.open("ab+", buffering=0) as file:  # what a buffer holds would be written at closing
        end = file.seek(0, os.SEEK_END)
        try:
            whole = b"" if _ends_whole(file, end) else b"\n"
            _write(file, whole + lines.encode("utf-8", JSON_ESCAPES))
            if lasting:
                sync(path)
                sync(path.parent)
        except BaseException:
            with suppress(OSError):
                file.truncate(end) if end else path.unlink()
            raise


def _ends_whole(file: FileIO, end: int) -> bool:
    file.seek(max(end - 1, 0))
    return file.read() in (b"", b"\n")


def _write(file: FileIO, text: bytes) -> None:
    """All of it: one call may take a part, before the next one finds the disk full."""
    while text:
        text = text[file.write(text) or 0 :]
