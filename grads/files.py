"""Files that are replaced as a whole, so that a reader at any moment sees a valid one."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grads.errors import RunError

# Rows of a Parquet file's groups: one sample is found fast in small ones, all samples in large.
SINGLE_SAMPLES, WHOLE_COLUMNS = 1_000, 100_000


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or folder at, moved into place on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        yield draft
        if draft.is_dir() and path.is_dir():
            shutil.rmtree(path)
        draft.replace(path)
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file."""
    with replacing(path) as draft:
        draft.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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
    with replacing(path) as draft:
        pq.write_table(table, draft, compression="zstd", row_group_size=group)


def read_rows(path: Path, sample_ids: list[int]) -> dict[int, dict[str, Any]]:
    """Rows of a Parquet file by sample id, reading only the row groups that may hold them."""
    if not path.exists() or not sample_ids:
        return {}
    file, wanted = pq.ParquetFile(path), np.unique(sample_ids)
    column = file.schema_arrow.get_field_index("sample_id")
    groups = []
    for group in range(file.num_row_groups):
        reach = file.metadata.row_group(group).column(column).statistics
        if np.searchsorted(wanted, reach.min) < np.searchsorted(wanted, reach.max, side="right"):
            groups.append(group)
    table = file.read_row_groups(groups)
    rows = table.filter(pc.is_in(table["sample_id"], pa.array(wanted))).to_pylist()
    return {row["sample_id"]: row for row in rows}
