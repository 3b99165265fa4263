"""Tables with types of their own: Parquet, save_to_disk folders and hub data sets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from grads.config.base import is_name
from grads.config.run import RunConfig
from grads.data.places import choose
from grads.data.rows import Part
from grads.errors import DataError

# What Arrow raises of values that have no meaning: text of other bytes, a date of no calendar.
# A time zone that nobody knows is a LookupError where pytz is there, else one of Arrow's.
UNREADABLE = (ValueError, LookupError, OverflowError, pa.ArrowException, NotImplementedError)


def from_parquet(data: bytes, name: str, limit: int | None) -> Part:
    """The rows of a Parquet file."""
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read()
    except (*UNREADABLE, OSError) as error:
        raise DataError(f"{name} is not a readable Parquet file ({_first_line(error)})") from None
    return _part(table.slice(0, limit), name)


def is_saved(path: Path) -> bool:
    """Whether a folder is one that save_to_disk has written."""
    return (path / "dataset_dict.json").exists() or (
        (path / "dataset_info.json").exists() and (path / "state.json").exists()
    )


def from_saved(path: Path, config: RunConfig) -> tuple[Part, str]:
    """The rows of a save_to_disk folder, and their fingerprint."""
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
    table = loaded.with_format("arrow")[:]
    return _part(table.slice(0, config.limit), path.name), loaded._fingerprint


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


def from_hub(config: RunConfig) -> tuple[Part, str]:
    """The rows of a hub data set, and their fingerprint."""
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
    chosen = loaded[choose(config.dataset, list(loaded), config.split)]
    return _part(chosen.with_format("arrow")[: config.limit], config.dataset), chosen._fingerprint


def joined(tables: dict[str, pa.Table]) -> pa.Table:
    """The tables of several files as one, with the columns of all, by file name."""
    if len(tables) == 1:
        return next(iter(tables.values()))
    try:
        return pa.concat_tables(tables.values(), promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        names, reason = ", ".join(tables), str(error).splitlines()[0]
        raise DataError(
            f"the files {names} have columns of different types ({reason}): give those that are"
            " alike"
        ) from None


def _part(table: pa.Table, name: str) -> Part:
    """The rows of a table; those with a value that has no meaning are refused."""
    names = table.column_names
    if len(set(names)) < len(names):
        raise DataError(f"{name} names a column twice: rename one of {names}")
    part = Part()
    try:
        part.rows = table.to_pylist()
    except UNREADABLE:
        table = _readable(table, part)
    else:
        part.ids = list(range(len(table)))
    part.size, part.table = len(part), table
    return part


def _readable(table: pa.Table, part: Part) -> pa.Table:
    """The rows that can be read one by one, put into the part as the others are."""
    for number in range(len(table)):
        try:
            (row,) = table.slice(number, 1).to_pylist()
        except UNREADABLE:
            part.refuse(number, None, *_unreadable(table.slice(number, 1)))
        else:
            part.take(number, None, row)
    mask = np.zeros(len(table), bool)  # `take` would join texts that may exceed 2 GiB
    mask[part.ids] = True
    return table.filter(pa.array(mask))


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
