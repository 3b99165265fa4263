"""The gradients of a training's own passes, gathered step by step, kept with each checkpoint.

Each file holds the samples from one checkpoint to the next, so a training that goes on from one of
them goes on with what was read until then, and with no more.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from grads.data.tokens import TokenPool
from grads.engine import team
from grads.engine.directions import Direction
from grads.engine.during import PassReading, TrainingTap
from grads.engine.joining import joined
from grads.engine.probing import mean_gradient
from grads.engine.scoring import batch_table, random_projection
from grads.errors import ScoringError
from grads.store.files import read_batches, read_table, write_table

FROM = "from_step"  # in a file's metadata: where the one before it ends
# A set's mean gradient is taken anew whenever this many times its tokens have been trained on.
RENEWED_AFTER = 20


class Collector:
    """What a training shows of the samples of `pool`, in the files of one folder."""

    def __init__(
        self,
        folder: Path,
        tap: TrainingTap,
        pool: TokenPool,
        *,
        seed: int,
        with_tokens: bool,
        sets: Mapping[str, tuple[TokenPool, int | None]],
        batch_tokens: int,
    ) -> None:
        """`sets` are probe sets by name: their rows, and the width of their sketch if any."""
        self.folder, self.pool, self._tap, self._sets = folder, pool, tap, sets
        self._seed, self._with_tokens, self._batch_tokens = seed, with_tokens, batch_tokens
        hidden = tap.scorer.head.weight.shape[1]
        self._projection = random_projection(hidden, seed)
        self._tables: list[pa.Table] = []
        self._flushed = 0
        self._directions: dict[str, Direction] = {}
        self._tokens_since = 0

    def go_on_from(self, step: int) -> bool:
        """Drop what was read after `step`; False where what was read until then is not all there.

        Then everything is dropped, and the training has to begin anew.
        """
        self.folder.mkdir(exist_ok=True)
        end = 0
        for file in self._files():
            if _until(file) > step or end != _begin(file):
                file.unlink()
            else:
                end = _until(file)
        self._flushed = end
        if end == step:
            return True
        self.go_on_from(0)
        return False

    def before_step(self, tokens: int) -> None:
        """Take the sets' mean gradients anew where it is time; `tokens` are those of the step."""
        of_sets = sum(int(rows.lengths.sum()) for rows, _ in self._sets.values())
        if self._sets and (not self._directions or self._tokens_since >= RENEWED_AFTER * of_sets):
            self._renew()
            self._tokens_since = 0
        self._tokens_since += tokens

    def _renew(self) -> None:
        model = self._tap.scorer.model
        device, training = model.device.type, model.training
        model.eval()  # no dropout
        for name, (rows, sketch) in self._sets.items():
            self._directions[name] = mean_gradient(
                self._tap.scorer,
                rows,
                batch_tokens=self._batch_tokens,
                device=device,
                sketch=sketch,
                seed=self._seed,
            )
        model.train(training)

    def reading(
        self, batch: tuple[torch.Tensor, ...], share: float
    ) -> AbstractContextManager[PassReading]:
        """Within the block goes one pass of the training, as `TrainingTap.reading` takes it."""
        ids, mask, labels = batch
        return self._tap.reading((ids, mask, labels), share, list(self._directions.values()))

    def table(self, reading: PassReading, positions: np.ndarray, step: int) -> pa.Table:
        """What a pass has shown of the samples at these positions, after `step` steps."""
        table = batch_table(
            reading.result(),
            self.pool.sample_ids[positions],
            projection=self._projection,
            with_tokens=self._with_tokens,
            sets=list(self._directions),
        )
        steps = pa.array(np.full(len(positions), step, np.int32))
        return table.append_column("step", steps)

    def keep(self, tables: list[pa.Table]) -> None:
        """Note what the passes of a step have shown, once all of them are done."""
        self._tables += tables

    def flush(self, step: int) -> None:
        """Write what was read until now, at the end of step number `step`; all of a team do so."""
        mine = team.current()
        tables = [table for part in mine.gathered(self._tables) for table in part]
        self._tables = []
        if tables and mine.leads:
            table = pa.concat_tables(tables)
            marked = table.replace_schema_metadata({FROM: str(self._flushed)})
            write_table(self.folder / f"until-{step:08d}.parquet", marked)
            self._flushed = step

    def merged(self) -> pa.Table:
        """Every sample once, as it was last read, sorted by id; lists as `joined` has them.

        Raises ScoringError where one is missing.
        """
        ids = np.concatenate([table["sample_id"].to_numpy() for table in self._read(["sample_id"])])
        found, behind = np.unique(ids[::-1], return_index=True)
        if not np.array_equal(found, np.sort(self.pool.sample_ids)):
            raise ScoringError(
                f"{self.folder} does not hold every sample: resume, which trains anew"
            )
        return joined(self._read, len(ids) - 1 - behind, self.folder)

    def _read(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        try:
            for file in self._files():
                yield from read_batches(file, columns)
        except (pa.ArrowException, OSError) as error:
            raise ScoringError(f"{error}: resume, which trains anew") from None

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("until-*.parquet"))


def _until(file: Path) -> int:
    return int(file.stem.rpartition("-")[2])


def _begin(file: Path) -> int:
    """The step where a file begins; -1 for one that cannot be read."""
    try:
        metadata = read_table(file).schema.metadata or {}
    except (pa.ArrowException, OSError):
        return -1
    return int(metadata.get(FROM.encode(), -1))
