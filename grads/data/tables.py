"""Tables with types of their own: Parquet, save_to_disk folders and hub data sets."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grads.config.base import is_name
from grads.config.run import RunConfig
from grads.data.places import choose
from grads.data.reading import DataFile
from grads.data.rows import BLOCK, Broken, Found, Part
from grads.errors import DataError

# What Arrow raises of values that have no meaning: text of other bytes, a date of no calendar.
# A time zone that nobody knows is a LookupError where pytz is there, else one of Arrow's.
UNREADABLE = (ValueError, LookupError, OverflowError, pa.ArrowException, NotImplementedError)


def from_parquet(data: DataFile, limit: int | None) -> Iterator[Part]:
    """The rows of a Parquet file; one that is packed is unpacked whole."""
    return _parts(_of_parquet(data), data.path.name, limit)


def _of_parquet(data: DataFile) -> Iterator[pa.Table]:
    try:
        with pa.BufferReader(data.read()) if data.packed else data.path.open("rb") as bytes_:
            file = pq.ParquetFile(bytes_, pre_buffer=False)  # else it holds all that it has read
            yield file.schema_arrow.empty_table()
            for batch in file.iter_batches(BLOCK):
                yield pa.Table.from_batches([batch])
    except (*UNREADABLE, OSError) as error:
        reason = _first_line(error)
        raise DataError(f"{data.path.name} is not a readable Parquet file ({reason})") from None


def is_saved(path: Path) -> bool:
    """Whether a folder is one that save_to_disk has written."""
    return (path / "dataset_dict.json").exists() or (
        (path / "dataset_info.json").exists() and (path / "state.json").exists()
    )


def saved(path: Path, config: RunConfig) -> Any:
    """The data set of a save_to_disk folder."""
    from datasets import DatasetDict, load_from_disk

    try:
        _refuse_files_elsewhere(path)
        loaded = load_from_disk(str(path))
    except DataError:
        raise
    except Exception as error:  # datasets raises many kinds
        raise DataError(f"cannot load the data set in {path}: {_first_line(error)}") from error
    if isinstance(loaded, DatasetDict):
        loaded = loaded[choose(path.name, list(loaded), config.split)]
    return loaded


def _refuse_files_elsewhere(path: Path) -> None:
    """Raise DataError where the folder's own lists name what lies elsewhere: none is saved so.

    Whoever made them could have any table of the reader's machine shown and exported.
    """
    folders = [path]
    if (path / "dataset_dict.json").exists():
        splits = _listed(path / "dataset_dict.json", "splits")
        folders = [_inside(path, str(name)) for name in splits]
    for folder in folders:
        for file in _listed(folder / "state.json", "_data_files"):
            _inside(folder, str(file["filename"]))


def _listed(file: Path, key: str) -> list[Any]:
    found: list[Any] = json.loads(file.read_text(encoding="utf-8"))[key]
    return found


def _inside(folder: Path, name: str) -> Path:
    if not is_name(name):
        raise DataError(f"the data set in {folder} names a file elsewhere, {name}: save it again")
    return folder / name


def on_hub(config: RunConfig) -> Any:
    """A data set of the hub."""
    from datasets import load_dataset

    try:
        loaded = load_dataset(
            config.dataset, config.dataset_config, revision=config.revision, split=None
        )
    except Exception as error:  # datasets raises many kinds
        raise DataError(
            f"cannot load '{config.dataset}', which is no file here, from the hub:"
            f" {_first_line(error)}; check the id, the network, --split and --revision"
        ) from error
    return loaded[choose(config.dataset, list(loaded), config.split)]


def from_dataset(loaded: Any, name: str, limit: int | None) -> Iterator[Part]:
    """The rows of a data set, as the package datasets holds them."""
    rows = loaded.with_format("arrow")
    starts = range(0, max(len(loaded), 1), BLOCK)
    return _parts((rows[start : start + BLOCK] for start in starts), name, limit)


def joined(tables: list[pa.Table], files: Iterable[str]) -> pa.Table:
    """The tables of several files as one, with the columns of all."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        names, reason = ", ".join(files), str(error).splitlines()[0]
        raise DataError(
            f"the files {names} have columns of different types ({reason}): give those that are"
            " alike"
        ) from None


def _parts(tables: Iterator[pa.Table], name: str, limit: int | None) -> Iterator[Part]:
    """The rows of tables, as far as the limit; those with a value that has no meaning are refused.

    Raises DataError where a column is there twice.
    """
    size = 0
    for table in tables:
        names = table.column_names
        if len(set(names)) < len(names):
            raise DataError(f"{name} names a column twice: rename one of {names}")
        part = _part(table.slice(0, None if limit is None else limit - size), size)
        yield part
        size = part.size
        if size == limit:
            return


def _part(table: pa.Table, start: int) -> Part:
    """The rows of a table, whose first has this number."""
    part = Part(size=start)
    try:
        part.rows = table.to_pylist()
    except UNREADABLE:
        return _readable(table, part)
    part.size += len(table)
    part.ids, part.table = list(range(start, part.size)), table
    return part


def _readable(table: pa.Table, part: Part) -> Part:
    """The rows that can be read one by one, put into the part as the others are."""
    start, mask = part.size, np.zeros(len(table), bool)
    for number in range(len(table)):
        try:
            (row,) = table.slice(number, 1).to_pylist()
        except UNREADABLE:
            part.add(Broken(start + number, None, *_unreadable(table.slice(number, 1))))
        else:
            part.add(Found(start + number, None, row, None))
            mask[number] = True
    part.table = table.filter(pa.array(mask))  # `take` would join texts that may exceed 2 GiB
    return part


def _unreadable(row: pa.Table) -> tuple[str, str]:
    """The first column that cannot be read, why, and what to do."""
    for column in row.column_names:
        try:
            row[column].to_pylist()
        except UnicodeDecodeError:
            return f"its column '{column}' is called text and is not UTF-8", "write it as UTF-8"
        except UNREADABLE as error:
            kind = row.schema.field(column).type
            return f"its column '{column}' holds no {kind} ({_first_line(error)})", "correct it"
    raise ValueError("every column of this row can be read")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
