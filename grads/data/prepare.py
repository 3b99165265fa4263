"""Any supported data set -> validated samples, and the rows refused with reasons."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from grads.config.run import RunConfig
from grads.data.blocks import Source
from grads.data.layouts import OPTIONAL, Layout, recognise_in
from grads.data.merging import Merged
from grads.data.rejects import place
from grads.data.stream import Stream
from grads.data.tokenising import TOKENS, tokenise
from grads.errors import DataError

Reject = dict[str, Any]  # a refused row, as rejects.jsonl holds it
FEWEST_TO_HOLD_OUT, MOST_HELD_OUT = 50, 200  # samples, where nobody says how many


@dataclass(frozen=True)
class Prepared:
    """The usable samples of a data set, as the run keeps them, and the rows refused."""

    layout: Layout
    samples: pa.Table  # samples.parquet
    tokens: pa.Table  # tokens.parquet
    source: pa.Table | None  # source.parquet: the same rows with their own types, for typed sources
    rejects: list[Reject]
    unused: list[str]  # columns of text, lists or labels that nothing uses
    unended: int  # samples whose answers no token ends, as the template shows none


def prepare(
    source: Source,
    config: RunConfig,
    tokenizer: Any,
    max_length: int,
    *,
    progress: Callable[[int], None] = lambda done: None,
    refused: Callable[[list[Reject]], None] = lambda rejects: None,
) -> Prepared:
    """Validate and tokenise every row, and set the held-out samples aside.

    `refused` is given the rows that cannot be used, also where an error follows. Raises DataError
    if the layout is unknown, nothing is usable, or no sample is left beside the held-out ones.
    """
    rejects = source.refused()
    try:
        layout = layout_of(source, config)
        done = tokenise(source, layout, tokenizer, max_length, progress=progress)
        rejects = done.rejects
    finally:
        refused(rejects)
    if not len(done.table):
        raise nothing_usable(source, layout, rejects[0])
    merged = Merged(layout, source.texts_only)
    merged.add(source, done)
    heldout = hold_out(merged.hashes, config.heldout, config.seed)
    return Prepared(
        layout=layout,
        samples=merged.samples(source, done, heldout),
        tokens=done.table.select(TOKENS),
        source=merged.source(source, done),
        rejects=rejects,
        unused=merged.own.unused,
        unended=done.unended,
    )


def layout_of(source: Source | Stream, config: RunConfig) -> Layout:
    """The layout of a data set; raises DataError where there is none, or no row can be read."""
    if not source.readable:
        raise nothing_usable(source, None, next(source.blocks()).refused()[0])
    return recognise_in(source, config)


def nothing_usable(source: Source | Stream, layout: Layout | None, first: Reject) -> DataError:
    """Why no row is usable: a column of the layout that is empty in all, or the first refusal."""
    empty = _empty_column(source, layout) if layout else None
    if empty:
        return DataError(
            f"column '{empty[1]}' ({empty[0]}) of {source.name} is empty in all"
            f" {source.readable} rows: map another column with --map"
        )
    return DataError(
        f"none of the {source.count} rows of {source.name} can be used; {place(first)}:"
        f" {first['reason']}; {first['advice']}"
    )


def _empty_column(source: Source | Stream, layout: Layout) -> tuple[str, str] | None:
    """A role, and its column that is empty in every row."""
    empty = {role: name for role, name in layout.roles.items() if role not in OPTIONAL}
    for block in source.blocks():
        empty = {
            role: name
            for role, name in empty.items()
            if all(row is None or row.get(name) in (None, "", []) for row in block.rows)
        }
    return next(iter(empty.items()), None)


def hold_out(
    hashes: Sequence[str] | np.ndarray, count: int | Literal["auto"], seed: int
) -> np.ndarray:
    """(n,) bool: `count` samples drawn by seed, none of whose text occurs in the rest.

    `auto` takes a tenth, at most 200 and no more than occur once; none of under 50 samples.
    """
    mask = np.zeros(len(hashes), dtype=bool)
    if count == 0:
        return mask
    _, index, copies = np.unique(hashes, return_inverse=True, return_counts=True)
    single = np.flatnonzero(copies[index] == 1)
    wanted = _tenth(len(hashes), len(single)) if count == "auto" else count
    if len(single) < wanted or len(hashes) == wanted:
        raise DataError(
            f"cannot hold out {count} samples: {len(hashes)} are usable, {len(single)} of them"
            " without a copy; lower --heldout"
        )
    mask[np.random.default_rng(seed).permutation(single)[:wanted]] = True
    return mask


def _tenth(samples: int, single: int) -> int:
    """How many are held out where nobody says."""
    tenth = samples // 10 if samples >= FEWEST_TO_HOLD_OUT else 0
    return min(tenth, MOST_HELD_OUT, single)
