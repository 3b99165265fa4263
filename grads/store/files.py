"""Files that are replaced as a whole, so that a reader at any moment sees a valid one.

Tables are Parquet files that tell when a bit of them has changed: each page carries its checksum,
and a seal before the footer holds the footer's. Every Parquet reader reads them.
"""

import errno
import glob
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import DTypeLike

from grads.config.base import is_name
from grads.errors import RunError, is_out_of_memory, of_the_machine
from grads.store.machine import machine

# Rows of a Parquet file's groups: one sample is found fast in small ones, all samples in large.
SINGLE_SAMPLES, WHOLE_COLUMNS = 1_000, 100_000
# Between the last page of a Parquet file and its footer, where no reader looks: the SHA-256 of all
# that follows the seal, then this mark. Files of other writers have none.
SEAL = b"grads-seal"
# Names of files need be no Unicode: what UTF-8 does not know is written as JSON writes it, \udcff.
JSON_ESCAPES = "backslashreplace"
# Beside NAME while it is written: .NAME.MACHINE.PID.LUCK; before 0.5 without the machine.
DRAFT = re.compile(r"\..+?(\.(?P<machine>[0-9a-f]{8}))?\.(?P<pid>\d+)\.[0-9a-f]{8}")
FOREIGN_DRAFT_S = 86_400.0
TRAILER = 8  # bytes behind the footer: its length, and PAR1


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or folder at, moved into place on success.

    What killed writers of the same have left there is removed. Raises FileNotFoundError where its
    folder is not there: to make it would bring back a run that was deleted under its job.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    draft, old = _beside(path), _beside(path)
    _remove_left(path.parent.glob(f".{glob.escape(path.name)}.*"))
    try:
        yield draft
        if draft.is_dir() and path.is_dir():
            path.rename(old)  # whole: who reads it meanwhile, or is killed, has no half of it
        draft.replace(path)
    finally:
        _remove(draft)
        _remove(old)


def _beside(path: Path) -> Path:
    number = f"{_machine_mark()}.{os.getpid()}.{secrets.token_hex(4)}"
    return path.with_name(f".{path.name}.{number}")


def write_out(path: Path, content: str | bytes) -> None:
    """Write a file at a place that a user gives, whose folder is made; an old one is replaced.

    Raises RunError where it cannot be written.
    """
    path = path.expanduser().absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise RunError(f"cannot write {path}: {of_the_machine(error) or error}") from None


def remove_drafts(folder: Path) -> None:
    """Remove what killed writers have left below a folder.

    Of another machine's it cannot be told whether they are still at work: those stay for a day.
    """
    _remove_left(folder.rglob(".*"))


def _remove_left(paths: Iterable[Path]) -> None:
    for path in list(paths):
        draft = DRAFT.fullmatch(path.name)
        with suppress(OSError):  # it went just before, or is not this user's to remove
            if draft and _is_left(path, draft["machine"], int(draft["pid"])):
                _remove(path)


def _is_left(path: Path, mark: str | None, pid: int) -> bool:
    if mark in (None, _machine_mark()):
        return not _can_write(pid)
    return time.time() - path.stat().st_mtime > FOREIGN_DRAFT_S


def _can_write(pid: int) -> bool:
    """Whether the process lives; one that is dead stays listed until its parent takes note."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@cache
def _machine_mark() -> str:
    return digest_of(machine())[:8]


def reserve(path: Path) -> None:
    """Take the disk's room for all of a file; raises OSError where there is too little.

    What is written through memory to a full disk would end the process without a word.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def scratch(folder: Path | None, size: int, dtype: DTypeLike) -> np.ndarray:
    """(size,) zeros that lie in a file without a name on this disk, and may leave memory for it.

    Without a folder it is the disk of the system's temporary files. Raises OSError where it has no
    room for them.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        length = max(size, 1) * np.dtype(dtype).itemsize  # nothing cannot be mapped
        if hasattr(os, "posix_fallocate"):  # as in `reserve`
            os.posix_fallocate(file.fileno(), 0, length)
        return np.memmap(file, dtype, "w+", shape=max(size, 1)).view(np.ndarray)[:size]


def sync(path: Path) -> None:
    """Wait until the disk has a file's content, or the names in a folder."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def member(folder: Path, name: str) -> Path:
    """The place of a name within a folder; raises RunError where it would lie elsewhere."""
    if not is_name(name):
        raise RunError(f"'{name}' is no name of something in {folder}: give one without slashes")
    return folder / name


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8", errors=JSON_ESCAPES)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises RunError where it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} cannot be read: it holds no object")
    return value


def write_table(path: Path, table: pa.Table, group: int = WHOLE_COLUMNS) -> None:
    """Replace a Parquet file; `group` is SINGLE_SAMPLES where samples are read one by one."""
    write_tables(path, [table], group)


def write_tables(path: Path, tables: Iterable[pa.Table], group: int = WHOLE_COLUMNS) -> None:
    """Replace a Parquet file by tables of one schema as they come: the file of all as one."""
    with replacing(path) as draft:
        tables = iter(tables)
        waiting = next(tables)
        with pq.ParquetWriter(
            draft, waiting.schema, compression="zstd", write_page_checksum=True
        ) as writer:
            for table in tables:
                waiting = pa.concat_tables([waiting, table])
                while len(waiting) > group:
                    writer.write_table(waiting.slice(0, group).combine_chunks(), group)
                    waiting = waiting.slice(group)
            writer.write_table(waiting.combine_chunks(), group)
        _seal(draft)


def _seal(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-TRAILER, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-TRAILER - length, os.SEEK_END)
        place = file.tell()
        footer = file.read()
        file.seek(place)
        file.write(hashlib.sha256(footer).digest() + SEAL + footer)


def _check_seal(path: Path) -> None:
    """Raise OSError where the file is sealed and its footer is another."""
    size, before = path.stat().st_size, hashlib.sha256().digest_size + len(SEAL)
    with path.open("rb") as file:
        file.seek(max(size - TRAILER, 0))
        length = int.from_bytes(file.read(4), "little")
        if length + TRAILER + before > size:
            return  # no seal, or no Parquet file: its reader will say so
        file.seek(-TRAILER - length - before, os.SEEK_END)
        digest, mark = file.read(before - len(SEAL)), file.read(len(SEAL))
        if mark == SEAL and hashlib.sha256(file.read()).digest() != digest:
            raise OSError("its footer does not match its checksum")


def open_table(path: Path) -> pq.ParquetFile:
    """A Parquet file, to be read in parts; raises OSError or ArrowInvalid where it is damaged.

    Reading a damaged page raises OSError. With `pre_buffer`, a reader would hold all it has read.
    """
    _check_seal(path)
    return pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A whole Parquet file, or some of its columns; raises as `open_table` where it is damaged.

    Memory that was refused is no damage, whatever Arrow calls it: a MemoryError.
    """
    with _memory_told():
        return open_table(path).read(columns)


def read_batches(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """A Parquet file, or some of its columns, some rows at a time; raises as `read_table` does."""
    with _memory_told():
        for batch in open_table(path).iter_batches(SINGLE_SAMPLES, columns=columns):
            yield pa.Table.from_batches([batch])


@contextmanager
def _memory_told() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if is_out_of_memory(error):
            raise MemoryError(str(error)) from None
        raise


def read_rows(path: Path, sample_ids: list[int]) -> dict[int, dict[str, Any]]:
    """Rows of a Parquet file by sample id, reading only the row groups that may hold them."""
    if not path.exists() or not sample_ids:
        return {}
    file, wanted = open_table(path), np.unique(sample_ids)
    column = file.schema_arrow.get_field_index("sample_id")
    groups = []
    for group in range(file.num_row_groups):
        reach = file.metadata.row_group(group).column(column).statistics
        if np.searchsorted(wanted, reach.min) < np.searchsorted(wanted, reach.max, side="right"):
            groups.append(group)
    table = file.read_row_groups(groups)
    rows = table.filter(pc.is_in(table["sample_id"], pa.array(wanted))).to_pylist()
    return {row["sample_id"]: row for row in rows}


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of n lists of one length d, as (n, d)."""
    whole = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return np.asarray(whole.flatten().to_numpy().reshape(len(whole), -1))


def as_lists(values: np.ndarray) -> pa.FixedSizeListArray:
    """(n, d) as a column of n lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def digest(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files with their names; raises OSError."""
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    members = sorted(member for member in path.rglob("*") if member.is_file())
    return digest_of([(member.relative_to(path).as_posix(), digest(member)) for member in members])


def digest_of(value: Any) -> str:
    """SHA-256 of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
