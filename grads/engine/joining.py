"""Tables of samples that come in any order, as one: what is wide lies on disk meanwhile."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grads.store.files import scratch


def joined(read: Callable[[], Iterator[pa.Table]], order: np.ndarray, folder: Path) -> pa.Table:
    """The rows of what `read` gives in this order (n,), by their places one table behind the other.

    Numbers are held in memory. Lists lie in files without names in `folder`, to which the table is
    mapped; for them, the tables are read once more. Raises OSError where the disk has no room.
    """
    narrow = []
    for table in read():
        narrow.append(_narrow(table))
        schema = table.schema
    every = pa.concat_tables(narrow)
    found = every.take(pa.array(order)).combine_chunks()
    place = np.full(len(every), -1)
    place[order] = np.arange(len(order))
    wide = [field for field in schema if _is_wide(field.type)]
    if not wide:
        return found
    offsets = {
        field.name: np.concatenate([[0], np.cumsum(found[field.name].to_numpy(), dtype=np.int64)])
        for field in wide
    }
    values = {
        field.name: scratch(
            folder, offsets[field.name][-1], field.type.value_type.to_pandas_dtype()
        )
        for field in wide
    }
    start = 0
    for table in read():
        rows = place[start : start + len(table)]
        start += len(table)
        kept = table.filter(pa.array(rows >= 0))
        for name in values:
            _put(kept[name].combine_chunks(), offsets[name][rows[rows >= 0]], values[name])
    for field in wide:
        column = _lists(field.type, offsets[field.name], values[field.name])
        found = found.set_column(found.schema.get_field_index(field.name), field.name, column)
    return found


def _is_wide(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind))


def _narrow(table: pa.Table) -> pa.Table:
    """The table with how long its lists are in their place."""
    columns = (
        pc.list_value_length(column) if _is_wide(column.type) else column
        for column in table.columns
    )
    return pa.table(dict(zip(table.column_names, columns, strict=True)))


def _put(lists: pa.Array, starts: np.ndarray, values: np.ndarray) -> None:
    """Write each of n lists to where it starts (n,) among all values."""
    lengths = pc.list_value_length(lists).to_numpy().astype(np.int64)
    before = np.cumsum(lengths) - lengths
    values[np.arange(lengths.sum()) + np.repeat(starts - before, lengths)] = (
        lists.flatten().to_numpy()
    )


def _lists(kind: pa.DataType, offsets: np.ndarray, values: np.ndarray) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(values), type=kind)
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values), type=kind)
