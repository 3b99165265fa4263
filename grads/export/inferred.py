"""What readers that infer the types of JSON lines make of a file.

`datasets`, by which the trainers read, goes by blocks of 10 MB: texts that are dates in all rows of
a block become dates, and a field that the first block does not know ends the reading.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json

from grads.errors import ExportError
from grads.export.rows import dump_lines

BLOCK = 10 << 20  # bytes, and then to the end of the line


def dump_alike(rows: list[dict[str, Any]], path: Path) -> bool:
    """Write objects as JSON lines, and tell whether such a reader surely gives them back."""
    dump_lines(rows, path)
    try:
        kinds = [*map(_kind, _blocks(path))]
    except pa.ArrowInvalid:  # a field has several kinds
        return False
    return not any(map(_has_dates, kinds)) and all(_holds(kinds[0], kind) for kind in kinds)


def dump_texts(rows: list[dict[str, Any]], path: Path) -> None:
    """Write objects of which every field stands in each; raises ExportError where texts would
    become dates.
    """
    if not dump_alike(rows, path):
        raise ExportError(
            "all its texts are dates, which its reader would write otherwise: use another format"
        )


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block + file.readline()


def _kind(block: bytes) -> pa.DataType:
    """What is inferred of a block."""
    options = pyarrow.json.ReadOptions(block_size=len(block) + 1)
    return pa.struct(pyarrow.json.read_json(io.BytesIO(block), options).schema)


def _has_dates(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(_has_dates(field.type) for field in kind)
    if pa.types.is_list(kind):
        return _has_dates(kind.value_type)
    return bool(pa.types.is_temporal(kind))


def _holds(first: pa.DataType | None, later: pa.DataType) -> bool:
    """Whether what is of the later type has a place in the first one."""
    if first is None:
        return False
    if pa.types.is_struct(first) and pa.types.is_struct(later):
        there = {field.name: field.type for field in first}
        return all(_holds(there.get(field.name), field.type) for field in later)
    if pa.types.is_list(first) and pa.types.is_list(later):
        return _holds(first.value_type, later.value_type)
    return pa.types.is_null(later) or first == later or (first, later) == (pa.float64(), pa.int64())
