"""CSV and TSV text -> rows, with whatever breaks them as refused rows."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from grads.data.reading import ESCAPED, DataFile, not_utf8, text_of
from grads.data.rows import Broken, Item, Part, found, in_parts
from grads.errors import DataError

csv.field_size_limit(2**31 - 1)  # the default of 128 KB is less than one long document
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
HEAD = 2**16  # characters in which the header ends


def read_csv(data: DataFile, limit: int | None, delimiter: str | None = None) -> Iterator[Part]:
    """The rows of a CSV file; `delimiter` is told by the header where none is given.

    Raises DataError where the header itself cannot be used.
    """
    if delimiter is None:
        head = text_of(data.head(4 * HEAD))[:HEAD]
        delimiter = max(DELIMITERS, key=lambda mark: _columns(head, mark))
    return in_parts(_records(data, delimiter), limit, texts_only=True)


def _records(data: DataFile, delimiter: str) -> Iterator[Item]:
    number = 0
    with io.TextIOWrapper(data.open(), "utf-8-sig", "surrogateescape", newline="") as text:
        reader = csv.reader(text, strict=True, delimiter=delimiter)
        header = _header(reader, data.path.name)
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Broken(number, line, *_why(error, line, reader.line_num))
                number += 1
                continue
            if not values:  # a blank line
                continue
            if ESCAPED.search("".join(values)):
                yield Broken(number, line, *not_utf8(_bytes_of(values)))
            elif len(values) != len(header):
                reason = f"it has {len(values)} fields where the header has {len(header)}"
                advice = f"quote fields that hold {DELIMITERS[delimiter]} or line breaks"
                yield Broken(number, line, reason, advice)
            else:
                yield found(number, line, dict(zip(header, values, strict=True)))
            number += 1


def _bytes_of(fields: list[str]) -> bytes:
    """The bytes that fields were read from, in a line."""
    return (",".join(fields) + "\n").encode("utf-8", "surrogateescape")


def _columns(head: str, delimiter: str) -> int:
    """How many columns the header has if this stands between them; 1 if it is broken then."""
    reader = csv.reader(io.StringIO(head, newline=""), strict=True, delimiter=delimiter)
    try:
        return len(next((values for values in reader if values), []))
    except csv.Error:
        return 1


def _header(reader: Any, name: str) -> list[str]:
    """The names of the columns."""
    try:
        header: list[str] = next((values for values in reader if values), [])
    except csv.Error as error:
        reason, advice = _why(error, 1, reader.line_num)
        raise DataError(f"{name} line 1, the header: {reason}; {advice}") from None
    place = f"{name} line {reader.line_num}"
    if header and header[0].lstrip().startswith(("{", "[{")):
        raise DataError(f"{name} is JSON: name it {name.partition('.')[0]}.jsonl")
    if ESCAPED.search("".join(header)):
        reason, advice = not_utf8(_bytes_of(header))
        raise DataError(f"{place}, the header: {reason}; {advice}")
    if len(set(header)) < len(header):
        raise DataError(f"{place} names a column twice: rename one of {header}")
    return header


def _why(error: csv.Error, first: int, last: int) -> tuple[str, str]:
    """Why a record of these lines cannot be read, and what to do."""
    if "end of data" in str(error):
        return (
            f"a quote in it is never closed, so all from line {first} on is one field",
            "close the quote; double those inside a field",
        )
    return f"its quotes break in line {last} ({error})", "double the quotes inside a field"
