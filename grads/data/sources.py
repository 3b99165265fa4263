"""Files, folders and hub data sets -> rows as they are, with the place of whatever is wrong."""

import hashlib
import json
from bisect import bisect_right
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from grads.config.base import is_path
from grads.config.run import RunConfig
from grads.data import tables
from grads.data.csv_rows import read_csv
from grads.data.json_rows import read_json
from grads.data.places import data_files, relative_names
from grads.data.reading import KINDS, content, digest, suffix_of
from grads.data.rejects import Spot, spot
from grads.data.rows import Broken, Part
from grads.errors import DataError

Row = dict[str, Any] | None  # None: the row is valid but no object


@dataclass(frozen=True)
class Source:
    """The rows of a data set. `ids[i]` is row i's 0-based place in the source.

    That is its line where rows are lines, else its number; over several files they run on.
    """

    name: str
    ids: list[int]
    rows: list[Row]
    raw: list[bytes] | None  # the lines as they stand, for line formats only
    digest: str  # SHA-256 of the file or files, or the fingerprint of a data set
    table: pa.Table | None = None  # the rows with their own types, where the source has types
    texts_only: bool = False  # a format that holds text alone, numbers too
    lines: list[int] | None = None  # each row's 1-based line in its file, for formats with lines
    files: dict[str, int] = field(default_factory=dict)  # where several: the id each begins with
    broken: list[Broken] = field(default_factory=list)  # rows that could not be read

    @property
    def columns(self) -> list[str]:
        """Every column that occurs, in order of appearance."""
        return list(dict.fromkeys(key for row in self.rows if row for key in row))

    @property
    def count(self) -> int:
        """Rows read, the broken ones included."""
        return len(self.rows) + len(self.broken)

    def drawn(self, count: int, seed: int) -> "Source":
        """The same with `count` of its rows, the broken ones among them, drawn by seed, in order.

        A larger draw by the same seed holds the smaller one.
        """
        ids = np.sort([*self.ids, *(row.sample_id for row in self.broken)])
        taken = set(ids[np.random.default_rng(seed).permutation(len(ids))[:count]].tolist())
        kept = [i for i, sample_id in enumerate(self.ids) if sample_id in taken]
        return replace(
            self,
            ids=[self.ids[i] for i in kept],
            rows=[self.rows[i] for i in kept],
            raw=[self.raw[i] for i in kept] if self.raw is not None else None,
            table=self.table_of(kept),
            lines=[self.lines[i] for i in kept] if self.lines is not None else None,
            broken=[row for row in self.broken if row.sample_id in taken],
        )

    def table_of(self, index: list[int]) -> pa.Table | None:
        """The typed rows at these places; `take` would first join texts that may exceed 2 GiB."""
        if self.table is None:
            return None
        mask = np.zeros(len(self.table), bool)
        mask[index] = True
        return self.table.filter(pa.array(mask))

    def spot(self, i: int) -> Spot:
        """Where row i stands."""
        line = self.lines[i] if self.lines else None
        return spot(self.ids[i], line, self._file_of(self.ids[i]))

    def refused(self) -> list[dict[str, Any]]:
        """The rows that could not be read, as rejects.jsonl holds them."""
        return [
            spot(row.sample_id, row.line, self._file_of(row.sample_id))
            | {"reason": row.reason, "advice": row.advice}
            for row in self.broken
        ]

    def _file_of(self, sample_id: int) -> str | None:
        """The file that a row is from, where there are several."""
        if not self.files:
            return None
        return list(self.files)[bisect_right(list(self.files.values()), sample_id) - 1]


def read_source(config: RunConfig) -> Source:
    """Read a run's data set, at most `limit` rows, and of these the `subsample` that is drawn.

    Raises DataError with the place.
    """
    path = Path(config.dataset).expanduser()
    if not is_path(config.dataset):
        if path.exists():  # datasets would take it; stored paths are absolute
            raise DataError(
                f"the data set '{config.dataset}' is a hub id, but {Path.cwd()} holds something of"
                " that name: work from another folder, or give its absolute path"
            )
        part, fingerprint = tables.from_hub(config)
        source = _joined(config.dataset, {"": part}, fingerprint)
    elif path.is_dir() and tables.is_saved(path):
        part, fingerprint = tables.from_saved(path, config)
        source = _joined(path.name, {"": part}, fingerprint)
    else:
        source = _from_files(path, data_files(config.dataset, config.split), config.limit)
    if not source.count:
        raise DataError(f"{config.dataset} holds no rows: give a data set with at least one sample")
    if config.subsample is None:
        return source
    return source.drawn(config.subsample, config.subsample_seed)


def _from_files(path: Path, files: list[Path], limit: int | None) -> Source:
    """Files one after the other; those behind the limit count in the digest alone."""
    parts: dict[str, Part] = {}
    digests = []
    names = relative_names(files)
    for name, file in zip(names, files, strict=True):
        left = None if limit is None else limit - sum(map(len, parts.values()))
        if left == 0:
            digests.append(digest(file))
            continue
        data, found = content(file)
        parts[name] = _read(data, file, left)
        digests.append(found)
    if len(files) == 1:
        return _joined(files[0].name, parts, digests[0])
    named = json.dumps(list(zip(names, digests, strict=True)))
    whole = hashlib.sha256(named.encode()).hexdigest()
    return _joined(f"{path.name} ({len(files)} files)", parts, whole, several=True)


def _read(data: bytes, file: Path, limit: int | None) -> Part:
    suffix = suffix_of(file)
    if suffix == ".parquet":
        return tables.from_parquet(data, file.name, limit)
    if KINDS[suffix] in ("CSV", "TSV"):
        return read_csv(data, file.name, limit, "\t" if suffix == ".tsv" else None)
    return read_json(data, limit)


def _joined(name: str, parts: dict[str, Part], digest: str, several: bool = False) -> Source:
    """The parts as one: ids run on from file to file, lines begin anew."""
    files: dict[str, int] = {}
    ids: list[int] = []
    broken: list[Broken] = []
    size = 0
    for file, part in parts.items():
        files[file] = size
        ids += [size + number for number in part.ids]
        broken += [Broken(size + b.sample_id, b.line, b.reason, b.advice) for b in part.broken]
        size += part.size
    rows: list[Row] = [row for part in parts.values() for row in part.rows]
    lines = [line for part in parts.values() for line in part.lines]
    raw = [line for part in parts.values() for line in part.raw]
    typed = {file: part.table for file, part in parts.items() if part.table is not None}
    keys = dict.fromkeys(part.key for part in parts.values() if part.key)
    return Source(
        name + "".join(f"[{json.dumps(key, ensure_ascii=False)}]" for key in keys),
        ids,
        rows,
        raw if len(raw) == len(rows) else None,
        digest,
        tables.joined(typed) if typed else None,
        texts_only=any(part.texts_only for part in parts.values()),
        lines=lines if len(lines) == len(rows) else None,
        files=files if several else {},
        broken=broken,
    )
