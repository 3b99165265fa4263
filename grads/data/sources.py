"""Files, folders and hub data sets -> rows as they are, with the place of whatever is wrong."""

import csv
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from grads.config.base import is_path
from grads.config.run import RunConfig
from grads.errors import DataError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
csv.field_size_limit(2**31 - 1)  # the default of 128 KB is less than one long document
Row = dict[str, Any] | None  # None: the row is valid but no object


@dataclass(frozen=True)
class Source:
    """The rows of a data set. `ids[i]` is row i's 0-based place in the source."""

    name: str
    ids: list[int]
    rows: list[Row]
    raw: list[bytes] | None  # the lines as they stand, for line formats only
    digest: str  # SHA-256 of the file, or the fingerprint of a data set
    table: pa.Table | None = None  # the rows with their own types, where the source has types
    texts_only: bool = False  # a format that holds text alone, numbers too

    @property
    def columns(self) -> list[str]:
        """Every column that occurs, in order of appearance."""
        return list(dict.fromkeys(key for row in self.rows if row for key in row))


def read_source(config: RunConfig) -> Source:
    """Read a run's data set, at most `limit` rows; raises DataError with the place."""
    path = Path(config.dataset).expanduser()
    if not is_path(config.dataset):
        if path.exists():  # datasets would take it; stored paths are absolute
            raise DataError(
                f"the data set '{config.dataset}' is a hub id, but {Path.cwd()} holds something of"
                " that name: work from another folder, or give its absolute path"
            )
        source = _read_hub(config)
    elif path.is_file():
        source = _read_file(path, config.limit)
    elif path.is_dir():
        source = _read_folder(path, config)
    else:
        raise DataError(f"no file at {path}: check the path")
    if not source.rows:
        raise DataError(f"{config.dataset} holds no rows: give a data set with at least one sample")
    return source


def _read_file(path: Path, limit: int | None) -> Source:
    suffix = path.suffix.lower()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    digest = hashlib.sha256(data).hexdigest()
    if suffix == ".parquet":
        table = _parquet(path)
        return _from_table(path.name, table, limit, digest)
    if suffix not in SUFFIXES:
        raise DataError(
            f"{path.name} has an unknown format '{suffix}': use {', '.join(SUFFIXES)}, a"
            " save_to_disk folder or a hub id"
        )
    _decode(data, path)
    if suffix == ".csv":
        return _from_csv(path, data, limit, digest)
    if suffix == ".json" and data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[":
        return _from_array(path, data, limit, digest)
    return _from_lines(path, data, limit, digest)


def _decode(data: bytes, path: Path) -> str:
    """The text, without a byte order mark; names the line of the first byte that is not UTF-8."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        read = error.object  # the bytes behind a byte order mark
        line, byte = read.count(b"\n", 0, error.start) + 1, read[error.start]
        raise DataError(
            f"{path.name} line {line} is not UTF-8 (byte 0x{byte:02x}): save the file as UTF-8"
        ) from None


def _from_lines(path: Path, data: bytes, limit: int | None, digest: str) -> Source:
    ids: list[int] = []
    rows: list[Row] = []
    raw: list[bytes] = []
    for number, line in enumerate(io.BytesIO(data)):  # cuts at \n only, unlike bytes.splitlines
        if limit is not None and len(rows) == limit:
            break
        text = line.decode("utf-8-sig" if number == 0 else "utf-8").strip()
        if not text:
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = str(error).split(":")[0]
            raise DataError(
                f"{path.name} line {number + 1} is not valid JSON ({reason}): correct or remove it"
            ) from None
        ids.append(number)
        rows.append(value if isinstance(value, dict) else None)
        raw.append(line)
    return Source(path.name, ids, rows, raw, digest)


def _from_array(path: Path, data: bytes, limit: int | None, digest: str) -> Source:
    try:
        values = json.loads(_decode(data, path))
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "somewhere"
        raise DataError(f"{path.name} {where} is not valid JSON: correct the array") from None
    rows = [value if isinstance(value, dict) else None for value in values[:limit]]
    return Source(path.name, list(range(len(rows))), rows, None, digest)


def _from_csv(path: Path, data: bytes, limit: int | None, digest: str) -> Source:
    reader = csv.reader(io.StringIO(_decode(data, path), newline=""), strict=True)
    rows: list[Row] = []
    try:
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise DataError(f"{path.name} line 1 names a column twice: rename one of {header}")
        for values in reader:
            if limit is not None and len(rows) == limit:
                break
            if not values:  # a blank line
                continue
            if len(values) != len(header):
                raise DataError(
                    f"{path.name} line {reader.line_num} has {len(values)} fields where the header"
                    f" has {len(header)}: quote fields that hold commas or line breaks"
                )
            rows.append(dict(zip(header, values, strict=True)))
    except csv.Error as error:
        raise DataError(
            f"{path.name} line {reader.line_num} is not valid CSV ({error}): correct it"
        ) from None
    return Source(path.name, list(range(len(rows))), rows, None, digest, texts_only=True)


def _parquet(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path.name} is not a readable Parquet file ({reason})") from None


def _from_table(name: str, table: pa.Table, limit: int | None, digest: str) -> Source:
    table = table.slice(0, limit)
    return Source(name, list(range(len(table))), table.to_pylist(), None, digest, table)


def _read_folder(path: Path, config: RunConfig) -> Source:
    from datasets import DatasetDict, load_from_disk

    if not any((path / name).exists() for name in ("dataset_info.json", "dataset_dict.json")):
        raise DataError(
            f"{path} is no save_to_disk folder (it has no dataset_info.json): give a data file, or"
            " save the data set with save_to_disk"
        )
    try:
        loaded = load_from_disk(str(path))
    except Exception as error:  # datasets raises many kinds
        raise DataError(f"cannot load the data set in {path}: {_first_line(error)}") from error
    if isinstance(loaded, DatasetDict):
        loaded = _choose_split(path.name, loaded, config.split)
    return _from_table(path.name, loaded.with_format("arrow")[:], config.limit, loaded._fingerprint)


def _read_hub(config: RunConfig) -> Source:
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
    chosen = _choose_split(config.dataset, loaded, config.split)
    table = chosen.with_format("arrow")[: config.limit]
    return _from_table(config.dataset, table, config.limit, chosen._fingerprint)


def _choose_split(name: str, splits: Any, split: str | None) -> Any:
    wanted = split or ("train" if "train" in splits else None)
    if wanted is None and len(splits) == 1:
        return next(iter(splits.values()))
    if wanted not in splits:
        there = ", ".join(splits)
        what = f"no split '{wanted}'" if wanted else "several splits"
        raise DataError(f"{name} has {what}: choose one of {there} with --split")
    return splits[wanted]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
