"""A pass over all samples: batches by token budget, parts on disk, resume.

Samples are sorted by length, so padding is small, and cut into parts of about `PART_TOKENS`
tokens. A part is written whole or not at all; a resume computes only the missing ones. The plan
depends on the lengths and the budget alone, so an interrupted pass ends as an undisturbed one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grads.data.tokens import TokenPool, token_batches
from grads.engine.joining import joined
from grads.engine.room import Room
from grads.engine.team import ALONE, Team, in_step
from grads.errors import ScoringError, Stopped
from grads.store.files import read_table, write_table

PART_TOKENS = 32_768
MADE_FROM = "made_from"  # in a part's metadata: the digest of all that decides its numbers


@dataclass(frozen=True)
class Progress:
    """How far the pass is."""

    done: int  # samples
    total: int
    tokens: int  # of this attempt, padding not counted
    tokens_left: int
    loss: float  # mean of the last batch, nats per token


@dataclass(frozen=True)
class Parts:
    """The pass over one pool whose parts lie in one folder."""

    folder: Path
    pool: TokenPool
    batch_tokens: int
    made_from: str
    team: Team = ALONE  # who share the work
    room: Room | None = None  # for the passes; that of batch_tokens unless given
    in_step: bool = False  # whether each pass is one of all processes, as layers are spread

    def plan(self) -> list[list[np.ndarray]]:
        """Batches (positions in the pool), gathered into parts of about PART_TOKENS tokens."""
        parts: list[list[np.ndarray]] = []
        room = 0
        for batch in token_batches(self.pool.lengths, self.batch_tokens):
            if room <= 0:
                parts.append([])
                room = PART_TOKENS
            parts[-1].append(batch)
            room -= int(self.pool.lengths[batch].sum())
        return parts

    def file(self, number: int) -> Path:
        """Where one part lies."""
        return self.folder / f"part-{number:05d}.parquet"

    def write(
        self,
        measure: Callable[[np.ndarray], pa.Table],
        *,
        report: Callable[[Progress], None] = lambda progress: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Write every missing part; raises Stopped between batches when asked to.

        Of a team, each process takes every size-th part; the parts are the same for any size.
        `measure` makes a batch's table, with sample_id and loss. A part that is damaged, or was
        made from something else than `made_from`, is missing.
        """
        passes = self._passes(measure, report)
        if self.in_step:
            least = self.plan()[0][0][:1]
            in_step(passes, idle=lambda: measure(least), should_stop=should_stop)
            return
        for _ in passes:
            if should_stop():
                raise Stopped

    def _passes(
        self, measure: Callable[[np.ndarray], pa.Table], report: Callable[[Progress], None]
    ) -> Iterator[None]:
        """Write every missing part of this process; yields before each pass."""
        pool, plan, mine = self.pool, self.plan(), self.team
        self.folder.mkdir(exist_ok=True)
        others, room = _Others(self, plan, mine), self.room or Room(self.batch_tokens)
        own = plan[mine.rank :: mine.size]
        done, tokens = 0, 0
        left = sum(int(pool.lengths[batch].sum()) for batches in own for batch in batches)
        for place, batches in enumerate(own):
            number = mine.rank + place * mine.size
            if self._holds(self.file(number)):
                done += sum(len(batch) for batch in batches)
                left -= sum(int(pool.lengths[batch].sum()) for batch in batches)
                continue
            tables: list[pa.Table] = []
            rest = np.concatenate(batches)  # sorted by length: cut as planned, or as memory allows
            while len(rest):
                yield
                batch = rest[token_batches(pool.lengths[rest], room.tokens)[0]]
                # One process alone cannot make a pass of all once more.
                largest = 1 if self.in_step else len(batch)
                table = room.tried(partial(measure, batch), largest)
                if table is None:
                    continue
                tables.append(table)
                rest = rest[len(batch) :]
                done += len(batch)
                tokens += int(pool.lengths[batch].sum())
                left -= int(pool.lengths[batch].sum())
                loss = float(pc.mean(tables[-1]["loss"]).as_py())
                report(Progress(done + others.done, len(pool), tokens, left, loss))
            part = pa.concat_tables(tables).replace_schema_metadata({MADE_FROM: self.made_from})
            write_table(self.file(number), part)
            others.look()

    def _holds(self, file: Path) -> bool:
        """Whether a part is there, whole, and made from this."""
        if not file.exists():
            return False
        try:
            part = read_table(file)
        except (pa.ArrowException, OSError):
            return False
        return (part.schema.metadata or {}).get(MADE_FROM.encode()) == self.made_from.encode()

    def read(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The parts one by one, or some of their columns; raises ScoringError if one is missing."""
        for number in range(len(self.plan())):
            try:
                part = read_table(self.file(number), columns)
            except (pa.ArrowException, OSError) as error:
                raise ScoringError(f"{error}: resume, which makes that part anew") from None
            yield part

    def merged(self, columns: list[str] | None = None) -> pa.Table:
        """All parts as one table sorted by sample id, or some of its columns; lists as `joined` has
        them. Raises ScoringError as `read` does.
        """
        ids = np.concatenate([part["sample_id"].to_numpy() for part in self.read(["sample_id"])])
        order = np.argsort(ids)
        if not np.array_equal(ids[order], np.sort(self.pool.sample_ids)):
            raise ScoringError(
                f"the parts in {self.folder} do not hold each sample once: remove the folder and"
                " resume"
            )
        return joined(partial(self.read, columns), order, self.folder)


class _Others:
    """How many samples the other processes of a team have written."""

    def __init__(self, parts: Parts, plan: list[list[np.ndarray]], mine: Team) -> None:
        self.done, self._parts = 0, parts
        samples = [sum(map(len, batches)) for batches in plan]
        ranks = (rank for rank in range(mine.size) if rank != mine.rank)
        # Each goes through its own in order: only its first unwritten one needs a look.
        self._left = [
            [(number, samples[number]) for number in range(rank, len(plan), mine.size)][::-1]
            for rank in ranks
        ]
        self.look()

    def look(self) -> None:
        for left in self._left:
            while left and self._parts.file(left[-1][0]).exists():
                self.done += left.pop()[1]
