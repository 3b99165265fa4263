"""A data set read block by block: what all rows have in common, and then the rows."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from grads.config.run import RunConfig
from grads.data import tables
from grads.data.blocks import Row, Source, draw
from grads.data.rows import Broken, Part
from grads.errors import DataError

Placed = tuple[str, int, Part]  # rows, their file's name, and the id with which that file begins


@dataclass
class _Facts:
    """What a first reading of a stream tells."""

    count: int = 0
    readable: int = 0
    keys: dict[str, None] = field(default_factory=dict)  # under which JSON objects hold the rows
    columns: dict[str, None] = field(default_factory=dict)
    first_row: Row = None
    raw: bool = True  # whether each row is a line
    lines: bool = True  # whether each row has a line
    texts_only: bool = False
    schema: pa.Schema | None = None  # of the rows' own types, over all files
    taken: np.ndarray | None = None  # ids of the rows that were drawn

    def see(self, block: Source) -> None:
        """What is in a block's rows."""
        self.count += block.count
        self.readable += block.readable
        self.columns |= dict.fromkeys(block.columns)
        self.first_row = self.first_row or block.first_row


class Stream:
    """A data set that is read block by block, as often as its blocks are asked for.

    What it tells of itself is known after a first reading, which takes place when it is asked.
    """

    def __init__(
        self,
        name: str,
        files: Mapping[str, Callable[[int | None], Iterator[Part]]],
        digest_of: Callable[[], str],
        config: RunConfig,
    ) -> None:
        """`files` by name, each a reader of at most so many rows."""
        self._name, self._files, self._digest_of, self._config = name, files, digest_of, config

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the files, whole under any limit, or the fingerprint of a data set."""
        return self._digest_of()

    def is_unchanged(self) -> bool:
        """Whether what was read is still there: a later reading would else give other rows."""
        return self._digest_of() == self.digest

    @property
    def name(self) -> str:
        """What people call it."""
        return self._named(self._facts.keys)

    @property
    def count(self) -> int:
        """Rows, those that cannot be read included."""
        return self._facts.count

    @property
    def readable(self) -> int:
        """Rows that could be read."""
        return self._facts.readable

    @property
    def columns(self) -> list[str]:
        """Every column that occurs, in order of appearance."""
        return list(self._facts.columns)

    @property
    def first_row(self) -> Row:
        """A row that has values; None where there is none."""
        return self._facts.first_row

    @property
    def has_lines(self) -> bool:
        """Whether each row is a line, which can be given back as it was."""
        return self._facts.raw

    @property
    def typed(self) -> bool:
        """Whether its rows have types of their own."""
        return self._facts.schema is not None

    @property
    def texts_only(self) -> bool:
        """Whether its format holds text alone, numbers too."""
        return self._facts.texts_only

    def blocks(self) -> Iterator[Source]:
        """Its rows in blocks of up to BLOCK, each with what all of them have beside."""
        return self._blocks(self._facts)

    def whole(self) -> Source:
        """All rows at once, after one reading; raises DataError where there are none."""
        source = replace(self._source(list(self._parts())), digest=self.digest)
        if not source.count:
            raise self._without_rows()
        if self._config.subsample is None:
            return source
        return source.drawn(self._config.subsample, self._config.subsample_seed)

    def _parts(self) -> Iterator[Placed]:
        """The rows as they come, at most `limit`; nothing behind it is read."""
        start, left = 0, self._config.limit
        for name, read in self._files.items():
            size = 0
            for part in read(left):
                yield name, start, part
                size = part.size
                left = None if left is None else left - len(part)
            if left == 0:
                return
            start += size

    @cached_property
    def _facts(self) -> _Facts:
        facts, ids = _Facts(), []
        for placed in self._parts():
            block = self._source([placed])
            facts.keys |= _keys(placed)
            facts.raw &= block.raw is not None
            facts.lines &= block.lines is not None
            facts.texts_only |= block.texts_only
            if block.table is not None:
                known = [] if facts.schema is None else [facts.schema.empty_table()]
                facts.schema = self._promoted([*known, block.table.slice(0, 0)]).schema
            ids.append(block.numbers())
            if self._config.subsample is None:
                facts.see(block)
        everything = np.concatenate([*ids, np.zeros(0, np.int64)])
        if not len(everything):
            raise self._without_rows()
        if self._config.subsample is not None:
            facts.taken = draw(everything, self._config.subsample, self._config.subsample_seed)
            for block in self._blocks(facts):
                facts.see(block)
        return facts

    def _blocks(self, facts: _Facts) -> Iterator[Source]:
        for placed in self._parts():
            block = self._source([placed])
            if facts.schema is not None and block.table is not None:
                table = self._promoted([facts.schema.empty_table(), block.table])
                block = replace(block, table=table)
            block = replace(
                block,
                raw=block.raw if facts.raw else None,
                lines=block.lines if facts.lines else None,
                texts_only=facts.texts_only,
            )
            if facts.taken is not None:
                block = block.among(facts.taken)
            if block.count:
                yield block

    def _promoted(self, parts: list[pa.Table]) -> pa.Table:
        return tables.joined(parts, self._files)

    def _source(self, placed: list[Placed]) -> Source:
        """Parts as one: ids run on from file to file, lines begin anew."""
        ids: list[int] = []
        broken: list[Broken] = []
        for _, start, part in placed:
            ids += [start + number for number in part.ids]
            broken += [Broken(start + b.sample_id, b.line, b.reason, b.advice) for b in part.broken]
        parts = [part for _, _, part in placed]
        rows: list[Row] = [row for part in parts for row in part.rows]
        lines = [line for part in parts for line in part.lines]
        raw = [line for part in parts for line in part.raw]
        typed = [part.table for part in parts if part.table is not None]
        return Source(
            self._named(_keys(*placed)),
            ids,
            rows,
            raw if len(raw) == len(rows) else None,
            "",
            self._promoted(typed) if typed else None,
            texts_only=any(part.texts_only for part in parts),
            lines=lines if len(lines) == len(rows) else None,
            files={name: start for name, start, _ in placed} if len(self._files) > 1 else {},
            broken=broken,
        )

    def _without_rows(self) -> DataError:
        return DataError(
            f"{self._config.dataset} holds no rows: give a data set with at least one sample"
        )

    def _named(self, keys: dict[str, None]) -> str:
        return self._name + "".join(f"[{json.dumps(key, ensure_ascii=False)}]" for key in keys)


def _keys(*placed: Placed) -> dict[str, None]:
    """The keys under which the objects of JSON files hold these rows."""
    return dict.fromkeys(part.key for _, _, part in placed if part.key)
