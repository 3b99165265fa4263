"""Any supported data set -> validated samples, and the rows refused with reasons."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grads.config.run import RunConfig
from grads.data.chat import Encoded, encode
from grads.data.layouts import OPTIONAL, Conversation, Layout, conversation, recognise_in, unused
from grads.data.rejects import place
from grads.data.sources import Source
from grads.data.turns import Turn, Unusable
from grads.errors import DataError

Kept = tuple[int, Conversation, Encoded]  # a usable row by its place in the source
FEWEST_TO_HOLD_OUT, MOST_HELD_OUT = 50, 200  # samples, where nobody says how many
TEXT = pa.large_string()  # the plain kind cuts what exceeds 2 GiB into chunks


@dataclass(frozen=True)
class Prepared:
    """The usable samples of a data set, as the run keeps them, and the rows refused."""

    layout: Layout
    samples: pa.Table  # samples.parquet
    tokens: pa.Table  # tokens.parquet
    source: pa.Table | None  # source.parquet: the same rows with their own types, for typed sources
    rejects: list[dict[str, Any]]
    unused: list[str]  # columns of text, lists or labels that nothing uses
    unended: int  # samples whose answers no token ends, as the template shows none
    spelled: int  # samples whose text spells out a control token, which stays text


def prepare(
    source: Source,
    config: RunConfig,
    tokenizer: Any,
    max_length: int,
    *,
    progress: Callable[[int], None] = lambda done: None,
    refused: Callable[[list[dict[str, Any]]], None] = lambda rejects: None,
) -> Prepared:
    """Validate and tokenise every row, and set the held-out samples aside.

    `refused` is given the rows that cannot be used, also where an error follows. Raises DataError
    if the layout is unknown, nothing is usable, or no sample is left beside the held-out ones.
    """
    rejects = source.refused()
    kept: list[Kept] = []
    try:
        if not source.rows:
            raise _nothing_usable(source, rejects)
        layout = recognise_in(source, config)
        for i, row in enumerate(source.rows):
            try:
                found = conversation(row, layout)
                kept.append((i, found, encode(found.turns, tokenizer, max_length, found.tools)))
            except Unusable as verdict:
                why = {"reason": verdict.reason, "advice": verdict.advice}
                rejects.append(source.spot(i) | why)
            progress(i + 1)
    finally:
        rejects.sort(key=lambda reject: reject["sample_id"])
        refused(rejects)
    if not kept:
        _refuse_empty_columns(source, layout)
        raise _nothing_usable(source, rejects)
    hashes = [_digest(found) for _, found, _ in kept]
    heldout = hold_out(hashes, config.heldout, config.seed)
    return Prepared(
        layout=layout,
        samples=_samples_table(source, layout, kept, hashes=hashes, heldout=heldout),
        tokens=_tokens_table(source, kept),
        source=source.table_of([i for i, _, _ in kept]),
        rejects=rejects,
        unused=unused([source.rows[i] or {} for i, _, _ in kept], layout),
        unended=sum(not sample.ends for _, _, sample in kept),
        spelled=sum(sample.spelled for _, _, sample in kept),
    )


def hold_out(hashes: list[str], count: int | Literal["auto"], seed: int) -> np.ndarray:
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


def _nothing_usable(source: Source, rejects: list[dict[str, Any]]) -> DataError:
    first = rejects[0]
    return DataError(
        f"none of the {source.count} rows of {source.name} can be used; {place(first)}:"
        f" {first['reason']}; {first['advice']}"
    )


def _refuse_empty_columns(source: Source, layout: Layout) -> None:
    for role, column in layout.roles.items():
        if role in OPTIONAL:
            continue
        if all(row is None or row.get(column) in (None, "", []) for row in source.rows):
            raise DataError(
                f"column '{column}' ({role}) of {source.name} is empty in all {len(source.rows)}"
                " rows: map another column with --map"
            )


def _digest(found: Conversation) -> str:
    text = json.dumps(found.identity(), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _tokens_table(source: Source, kept: list[Kept]) -> pa.Table:
    lengths = [len(sample.input_ids) for _, _, sample in kept]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
    ids = pa.array(np.concatenate([sample.input_ids for _, _, sample in kept]), pa.int32())
    trained = pa.array(np.concatenate([sample.trained for _, _, sample in kept]))
    pieces = [piece for _, _, sample in kept for piece in sample.pieces]
    return pa.table(
        {
            "sample_id": pa.array([source.ids[i] for i, _, _ in kept], pa.int64()),
            "input_ids": pa.LargeListArray.from_arrays(offsets, ids),
            "trained": pa.LargeListArray.from_arrays(offsets, trained),
            "pieces": pa.LargeListArray.from_arrays(offsets, pa.array(pieces, TEXT)),
            "spelled": pa.array([sample.spelled for _, _, sample in kept]),
        }
    )


def _samples_table(
    source: Source,
    layout: Layout,
    kept: list[Kept],
    *,
    hashes: list[str],
    heldout: np.ndarray,
) -> pa.Table:
    """Every usable row: its bytes (its line, or the row as JSON), its turns, its other columns."""
    rows = [source.rows[i] or {} for i, _, _ in kept]
    raw: list[bytes | None] = [None] * len(rows)  # typed rows are kept in source.parquet
    if source.raw is not None:
        raw = [source.raw[i] for i, _, _ in kept]
    elif source.table is None:
        raw = [json.dumps(row, ensure_ascii=False).encode() for row in rows]
    samples = [sample for _, _, sample in kept]
    columns = {
        "sample_id": pa.array([source.ids[i] for i, _, _ in kept], pa.int64()),
        "raw": pa.array(raw, pa.large_binary()),
        "turns": _turns_column([found.turns for _, found, _ in kept]),
        "prompt_tokens": pa.array([sample.prompt_tokens for sample in samples], pa.int32()),
        "response_tokens": pa.array([sample.response_tokens for sample in samples], pa.int32()),
        "truncated": pa.array([sample.truncated for sample in samples], pa.bool_()),
        "heldout": pa.array(heldout),
        "hash": pa.array(hashes, TEXT),
    }
    if any(found.tools for _, found, _ in kept):
        tools = [json.dumps(f.tools, ensure_ascii=False) if f.tools else None for _, f, _ in kept]
        columns["tools"] = pa.array(tools, TEXT)
    extra = _scalar_columns(rows, set(layout.roles.values()), source.texts_only)
    if extra:
        columns["columns"] = pa.StructArray.from_arrays(list(extra.values()), names=list(extra))
    return pa.table(columns)


def _turns_column(rows: list[list[Turn]]) -> pa.Array:
    """A list of turns a row; what no turn of any row has is left out."""
    plain, turns = Turn("", ""), [turn for row in rows for turn in row]
    kinds = {field.name: pa.bool_() if field.name == "trained" else TEXT for field in fields(Turn)}
    names = [
        name
        for name in kinds
        if name in ("role", "content")
        or any(getattr(turn, name) != getattr(plain, name) for turn in turns)
    ]
    values = [[{name: getattr(turn, name) for name in names} for turn in row] for row in rows]
    return pa.array(values, pa.large_list(pa.struct([(name, kinds[name]) for name in names])))


def _scalar_columns(
    rows: list[dict[str, Any]], skip: set[str], texts_only: bool
) -> dict[str, pa.Array]:
    """The source's other columns that hold single values, for bounds, colours and tables.

    Where the source holds text alone, what reads as numbers throughout counts as numbers.
    """
    names = dict.fromkeys(key for row in rows for key in row if key not in skip)
    found = {}
    for name in names:
        values = [row.get(name) for row in rows]
        if any(isinstance(value, list | dict) for value in values):
            continue
        try:
            found[name] = _numbers(values) if texts_only else _inferred(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # mixed kinds
            found[name] = pa.array([None if v is None else str(v) for v in values], TEXT)
    return found


def _inferred(values: list[Any]) -> pa.Array:
    """An array of the type that Arrow infers, for text and bytes the one without a limit."""
    kind = pa.infer_type(values)
    large = {pa.string(): TEXT, pa.binary(): pa.large_binary()}
    return pa.array(values, large.get(kind, kind))


def _numbers(texts: list[str | None]) -> pa.Array:
    """Texts as whole numbers or floats, where all that are not empty are such; else as texts."""
    column = pa.array(texts, TEXT)
    trimmed = pc.utf8_trim_whitespace(column)
    filled = pc.if_else(pc.equal(trimmed, ""), None, trimmed)
    for kind in (pa.int64(), pa.float64()):
        with suppress(pa.ArrowInvalid):
            if filled.null_count < len(filled):
                return filled.cast(kind)
    return column
