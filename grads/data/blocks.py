"""Rows of a data set in memory, all of them or a block, and where each stands."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from grads.data.rejects import Spot, spot
from grads.data.rows import Broken

Row = dict[str, Any] | None  # None: the row is valid but no object


@dataclass(frozen=True)
class Source:
    """Rows of a data set, all or a block. `ids[i]` is row i's 0-based place in the source.

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
    def first_row(self) -> Row:
        """A row that has values; None where there is none."""
        return next((row for row in self.rows if row), None)

    @property
    def readable(self) -> int:
        """Rows that could be read."""
        return len(self.rows)

    @property
    def count(self) -> int:
        """Rows read, the broken ones included."""
        return len(self.rows) + len(self.broken)

    def blocks(self) -> Iterator["Source"]:
        """Its rows in one block."""
        yield self

    def drawn(self, count: int, seed: int) -> "Source":
        """The same with `count` of its rows, the broken ones among them, drawn by seed, in order.

        A larger draw by the same seed holds the smaller one.
        """
        return self.among(draw(self.numbers(), count, seed))

    def numbers(self) -> np.ndarray:
        """The ids of all rows, the broken ones included, in order."""
        return np.sort(np.array([*self.ids, *(row.sample_id for row in self.broken)], np.int64))

    def among(self, sample_ids: np.ndarray) -> "Source":
        """The same with these of its rows alone, the broken ones among them."""
        taken = set(sample_ids.tolist())
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


def draw(ids: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` of the ids (n,), drawn by seed; a larger draw by the same seed holds the smaller."""
    return np.asarray(ids[np.random.default_rng(seed).permutation(len(ids))[:count]])
