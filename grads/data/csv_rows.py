"""CSV and TSV text -> rows, with whatever breaks them as refused rows."""

import csv
import io
from typing import Any

from grads.data.reading import ESCAPED, not_utf8, text_of
from grads.data.rows import Part
from grads.errors import DataError

csv.field_size_limit(2**31 - 1)  # the default of 128 KB is less than one long document
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
HEAD = 2**16  # characters in which the header ends


def read_csv(data: bytes, name: str, limit: int | None, delimiter: str | None = None) -> Part:
    """The rows of a CSV file; `delimiter` is told by the header where none is given.

    Raises DataError where the header itself cannot be used.
    """
    text = text_of(data)
    delimiter = delimiter or max(DELIMITERS, key=lambda mark: _columns(text[:HEAD], mark))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    header = _header(reader, name)
    escaped = ESCAPED.search(text) is not None
    part, number = Part(limit, texts_only=True), 0
    while not part.full:
        line = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            part.refuse(number, line, *_why(error, line, reader.line_num))
            number += 1
            continue
        if not values:  # a blank line
            continue
        if escaped and ESCAPED.search("".join(values)):
            part.refuse(number, line, *not_utf8(_bytes_of(values)))
        elif len(values) != len(header):
            reason = f"it has {len(values)} fields where the header has {len(header)}"
            advice = f"quote fields that hold {DELIMITERS[delimiter]} or line breaks"
            part.refuse(number, line, reason, advice)
        else:
            part.take(number, line, dict(zip(header, values, strict=True)))
        number += 1
    return part


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
