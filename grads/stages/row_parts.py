"""Blocks of rows tokenised, each kept as a part on disk: by this process, or by all cores.

A part is written whole or not at all, so that a resume tokenises only the missing ones. The
processes that help import this module, so it loads no torch.
"""

import json
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from grads.data.blocks import Source
from grads.data.layouts import Layout
from grads.data.tokenising import SCHEMA, Tokenised, tokenise
from grads.errors import DataError
from grads.store.files import read_table, write_table

MADE_FROM, ABOUT = b"made_from", b"about"  # in a part's metadata
KEPT = ["sample_id", "truncated", "response_tokens", "hash", "tools", "spelled"]  # told of all
AHEAD = 2  # blocks for each process that are read while others are at work

Numbered = tuple[int, Source]  # a block, and its number


@dataclass(frozen=True)
class RowParts:
    """The parts of one data set, read in one way."""

    folder: Path
    made_from: str  # the digest of all that decides what is in them
    layout: Layout
    tokenizer: Any
    max_length: int

    def made(
        self, blocks: Iterator[Source], processes: int, progress: Callable[[int], None]
    ) -> Iterator[Numbered]:
        """Each block, in order, once its part is there; missing ones are made by `processes`.

        Where this process makes them alone, `progress` is told how many of a block's rows are done.
        Raises DataError where one that helps was killed.
        """
        numbered = enumerate(blocks)
        if processes > 1:
            yield from self._made_together(numbered, processes)
            return
        for number, block in numbered:
            if not self.holds(number):
                self.make(number, block, progress)
            yield number, block

    def _made_together(self, blocks: Iterator[Numbered], processes: int) -> Iterator[Numbered]:
        context: Any = multiprocessing.get_context("spawn")
        if "forkserver" in multiprocessing.get_all_start_methods():  # whose libraries all share
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])
        waiting: deque[tuple[Numbered, Future[None] | None]] = deque()
        pool = ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(self,))
        try:
            for numbered in blocks:
                missing = not self.holds(numbered[0])
                waiting.append((numbered, pool.submit(_make, *numbered) if missing else None))
                if len(waiting) > AHEAD * processes:
                    yield _done(*waiting.popleft())
            while waiting:
                yield _done(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def make(self, number: int, block: Source, progress: Callable[[int], None]) -> None:
        """Tokenise a block and write its part; `progress` is told how many rows are done."""
        done = tokenise(block, self.layout, self.tokenizer, self.max_length, progress=progress)
        about = {
            "rejects": done.rejects,
            "turn_fields": done.turn_fields,
            "unended": done.unended,
        }
        metadata = {MADE_FROM: self.made_from, ABOUT: json.dumps(about)}
        write_table(self._file(number), done.table.replace_schema_metadata(metadata))

    def holds(self, number: int) -> bool:
        """Whether a part is there, whole, and made from this."""
        if not self._file(number).exists():
            return False
        try:
            table = read_table(self._file(number))
        except (pa.ArrowException, OSError):
            return False
        return (table.schema.metadata or {}).get(MADE_FROM) == self.made_from.encode()

    def read(self, number: int, columns: list[str] | None = None) -> Tokenised:
        """A part as it was made, or these of its columns; raises OSError where it is damaged."""
        table = read_table(self._file(number), columns)
        about = json.loads(table.schema.metadata[ABOUT])
        kinds = pa.schema([SCHEMA.field(name) for name in table.schema.names])  # Parquet has others
        return Tokenised(table.cast(kinds), **about)

    def _file(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"


def _done(numbered: Numbered, future: Future[None] | None) -> Numbered:
    try:
        if future is not None:
            future.result()
    except BrokenProcessPool:
        raise DataError(
            "a process that tokenised rows was killed, as the system does where memory is short:"
            " free some, then resume, which goes on from there"
        ) from None
    return numbered


# -- in a process that helps

_parts: RowParts


def _begin(parts: RowParts) -> None:
    global _parts
    _parts = parts
    threading.Thread(target=_end_with_the_job, daemon=True).start()


def _end_with_the_job() -> None:
    """A job that is killed leaves nobody at work."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _make(number: int, block: Source) -> None:
    _parts.make(number, block, lambda done: None)
