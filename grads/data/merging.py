"""Tokenised blocks -> samples and tokens as the run keeps them, alike over all blocks.

What a column holds is known when all blocks were seen: first each is added, then made tables of.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grads.data.blocks import Source
from grads.data.layouts import Layout
from grads.data.own import OwnColumns, Rows
from grads.data.tokenising import KINDS, Tokenised


class Merged:
    """What all usable samples of a source have in common."""

    def __init__(self, layout: Layout, texts_only: bool) -> None:
        self.own = OwnColumns(layout.roles, texts_only)
        self.truncated = self.response_tokens = self.refused = 0
        self.spelled = 0  # samples whose text spells out a control token, which stays text
        self.unended = 0  # samples whose answers no token ends, as the template shows none
        self._hashes = [np.zeros(0, "S32")]
        self._fields: set[str] = set()
        self._tools = False

    def __len__(self) -> int:
        return sum(map(len, self._hashes))

    @property
    def hashes(self) -> np.ndarray:
        """(n,) the hash of each sample's text."""
        return np.concatenate(self._hashes)

    def add(self, block: Source, done: Tokenised) -> None:
        """Take note of a block of the source and what has become of it."""
        self.own.see(_kept_rows(block, done))
        self._hashes.append(np.array(done.table["hash"].to_pylist(), "S32"))
        self.truncated += _sum(done.table["truncated"])
        self.response_tokens += _sum(done.table["response_tokens"])
        self.spelled += _sum(done.table["spelled"])
        self.unended += done.unended
        self.refused += len(done.rejects)
        self._fields |= set(done.turn_fields)
        self._tools |= done.table["tools"].null_count < len(done.table)

    def samples(self, block: Source, done: Tokenised, heldout: np.ndarray) -> pa.Table:
        """The block's part of samples.parquet; `heldout` (n,) is of its own samples."""
        table = done.table
        names = ["sample_id", "raw", "turns", "prompt_tokens", "response_tokens", "truncated"]
        columns = {name: table[name] for name in names}
        columns["turns"] = self._turns(table["turns"])
        columns |= {"heldout": pa.array(heldout), "hash": table["hash"]}
        if self._tools:
            columns["tools"] = table["tools"]
        own = self.own.array(_kept_rows(block, done))
        return pa.table(columns if own is None else columns | {"columns": own})

    def source(self, block: Source, done: Tokenised) -> pa.Table | None:
        """The block's part of source.parquet: its used rows with their own types."""
        return block.table_of(_kept(block, done).tolist())

    def _turns(self, column: pa.ChunkedArray) -> pa.Array:
        """A list of turns a row; what no turn of any row has is left out."""
        turns = column.combine_chunks()
        said, names = turns.flatten(), [name for name in KINDS if name in self._fields]
        kept = pa.StructArray.from_arrays([said.field(name) for name in names], names=names)
        lengths = pc.list_value_length(turns).to_numpy()
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
        return pa.LargeListArray.from_arrays(offsets, kept)


def _kept(block: Source, done: Tokenised) -> np.ndarray:
    """Places in the block of the rows that are used."""
    return np.flatnonzero(np.isin(block.ids, done.table["sample_id"].to_numpy()))


def _kept_rows(block: Source, done: Tokenised) -> Rows:
    return [block.rows[i] or {} for i in _kept(block, done)]


def _sum(column: pa.ChunkedArray) -> int:
    return int(pc.sum(column, min_count=0).as_py())
