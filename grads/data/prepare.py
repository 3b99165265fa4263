"""Any supported data set -> validated samples, and the rows refused with reasons."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grads.config.run import RunConfig
from grads.data.chat import Encoded, Turn, Unusable, encode
from grads.data.sources import Row, Source
from grads.errors import DataError

# A layout is recognised by its columns; the first that fits wins. Roles -> column names.
LAYOUTS: dict[str, dict[str, str]] = {
    "chat messages": {"messages": "messages"},
    "ShareGPT conversations": {"messages": "conversations"},
    "Alpaca": {"prompt": "instruction", "response": "output"},
    "prompt/completion": {"prompt": "prompt", "response": "completion"},
    "prompt/response": {"prompt": "prompt", "response": "response"},
    "question/answer": {"prompt": "question", "response": "answer"},
    "question/response": {"prompt": "question", "response": "response"},
}
OPTIONAL = {"input": "input", "system": "system"}  # joined to any layout that has a prompt

TEXT = pa.large_string()  # the plain kind cuts what exceeds 2 GiB into chunks
SPEAKERS = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}


@dataclass(frozen=True)
class Layout:
    """Which column plays which role (messages, or prompt, input, response, system)."""

    name: str
    roles: dict[str, str]


@dataclass(frozen=True)
class Prepared:
    """The usable samples of a data set, as the run keeps them, and the rows refused."""

    layout: Layout
    samples: pa.Table  # samples.parquet
    tokens: pa.Table  # tokens.parquet
    source: pa.Table | None  # source.parquet: the same rows with their own types, for typed sources
    rejects: list[dict[str, Any]]


def recognise(columns: list[str], mapping: dict[str, str]) -> Layout:
    """The layout of these columns, or the mapping by hand; raises DataError if there is none."""
    if mapping:
        missing = sorted(set(mapping.values()) - set(columns))
        if missing:
            raise DataError(
                f"column '{missing[0]}' is mapped but not there: the columns are"
                f" {', '.join(columns)}"
            )
        return Layout("mapped by hand", dict(mapping))
    for name, roles in LAYOUTS.items():
        if set(roles.values()) <= set(columns):
            extra = {} if "messages" in roles else OPTIONAL
            return Layout(name, roles | {r: c for r, c in extra.items() if c in columns})
    known = "; ".join(f"{name}: {', '.join(roles.values())}" for name, roles in LAYOUTS.items())
    raise DataError(
        f"the columns {', '.join(columns) or '(none)'} fit no known layout ({known}): map them by"
        " hand, --map prompt=COLUMN --map response=COLUMN or --map messages=COLUMN"
    )


def conversation(row: Row, layout: Layout) -> list[Turn]:
    """The turns of a row; raises Unusable with the reason and what to do."""
    if row is None:
        raise Unusable("the row is not an object with columns", "write it as {column: value, ...}")
    try:
        json.dumps(row, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise Unusable("it holds half a character (a lone surrogate)", "correct its text") from None
    roles = layout.roles
    if "messages" in roles:
        turns = _turns(row.get(roles["messages"]), roles["messages"])
    else:
        turns = _prompt_and_response(row, roles)
    system = _text(row.get(roles["system"]), roles["system"], False) if "system" in roles else ""
    return [Turn("system", system), *turns] if system else turns


def _prompt_and_response(row: dict[str, Any], roles: dict[str, str]) -> list[Turn]:
    prompt, response = row.get(roles["prompt"]), row.get(roles["response"])
    if isinstance(prompt, list) and isinstance(response, list):
        _turns(response, roles["response"])  # the completion itself must answer
        return _turns(prompt + response, roles["prompt"])
    parts = [_text(prompt, roles["prompt"])]
    if "input" in roles:
        parts.append(_text(row.get(roles["input"]), roles["input"], required=False))
    return [
        Turn("user", "\n\n".join(part for part in parts if part)),
        Turn("assistant", _text(response, roles["response"])),
    ]


def _text(value: Any, column: str, required: bool = True) -> str:
    # A missing number reads as NaN, which is the one value that is not equal to itself.
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        if required:
            raise Unusable(f"column '{column}' is empty", "fill it in, or remove the row")
        return ""
    if not isinstance(value, str | int | float):
        kind = type(value).__name__
        raise Unusable(f"column '{column}' holds a {kind}, not text", "write it as text")
    return str(value)


def _turns(messages: Any, column: str) -> list[Turn]:
    if not isinstance(messages, list) or not messages:
        raise Unusable(f"column '{column}' holds no list of messages", "fill it in, or remove it")
    turns = []
    for message in messages:
        if not isinstance(message, dict):
            raise Unusable("a message is not an object", "write it as {role: ..., content: ...}")
        speaker = message.get("role", message.get("from"))
        if not isinstance(speaker, str) or speaker not in SPEAKERS:
            known = ", ".join(SPEAKERS)
            raise Unusable(f"a message has the role '{speaker}'", f"use one of {known}")
        role, content = SPEAKERS[speaker], message.get("content", message.get("value"))
        text = _text(content, "content", required=role != "system")
        if text:
            turns.append(Turn(role, text))
    if not any(turn.role == "assistant" for turn in turns):
        raise Unusable("no message comes from the assistant", "add the answer to learn")
    while turns[-1].role != "assistant":  # an unanswered question teaches nothing
        turns.pop()
    return turns


def prepare(
    source: Source,
    config: RunConfig,
    tokenizer: Any,
    max_length: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Prepared:
    """Validate and tokenise every row, and set the held-out samples aside.

    Raises DataError if the layout is unknown, a needed column is empty throughout, nothing is
    usable, or fewer samples than `heldout` + 1 are.
    """
    layout = recognise(source.columns, config.columns)
    _refuse_empty_columns(source, layout)
    kept: list[tuple[int, list[Turn], Encoded]] = []
    rejects = []
    for i, row in enumerate(source.rows):
        try:
            turns = conversation(row, layout)
            kept.append((i, turns, encode(turns, tokenizer, max_length)))
        except Unusable as verdict:
            rejects.append(
                {
                    "sample_id": source.ids[i],
                    "row": source.ids[i] + 1,
                    "reason": verdict.reason,
                    "advice": verdict.advice,
                }
            )
        progress(i + 1)
    if not kept:
        first = rejects[0]
        raise DataError(
            f"none of the {len(source.rows)} rows of {source.name} can be used; row {first['row']}:"
            f" {first['reason']}; {first['advice']}"
        )
    hashes = [_digest(turns) for _, turns, _ in kept]
    heldout = hold_out(hashes, config.heldout, config.seed)
    return Prepared(
        layout=layout,
        samples=_samples_table(source, layout, kept, hashes, heldout),
        tokens=_tokens_table(source, kept),
        source=_rows_of(source, [i for i, _, _ in kept]),
        rejects=rejects,
    )


def _rows_of(source: Source, index: list[int]) -> pa.Table | None:
    """The typed rows at these places; `take` would first join texts that may exceed 2 GiB."""
    if source.table is None:
        return None
    mask = np.zeros(len(source.table), bool)
    mask[index] = True
    return source.table.filter(pa.array(mask))


def hold_out(hashes: list[str], count: int, seed: int) -> np.ndarray:
    """(n,) bool: `count` samples drawn by seed, none of whose text occurs in the rest."""
    mask = np.zeros(len(hashes), dtype=bool)
    if count == 0:
        return mask
    _, index, copies = np.unique(hashes, return_inverse=True, return_counts=True)
    single = np.flatnonzero(copies[index] == 1)
    if len(single) < count or len(hashes) == count:
        raise DataError(
            f"cannot hold out {count} samples: {len(hashes)} are usable, {len(single)} of them"
            " without a copy; lower --heldout"
        )
    mask[np.random.default_rng(seed).permutation(single)[:count]] = True
    return mask


def _refuse_empty_columns(source: Source, layout: Layout) -> None:
    for role, column in layout.roles.items():
        if role in OPTIONAL:
            continue
        if all(row is None or row.get(column) in (None, "", []) for row in source.rows):
            raise DataError(
                f"column '{column}' ({role}) of {source.name} is empty in all {len(source.rows)}"
                " rows: map another column with --map"
            )


def _digest(turns: list[Turn]) -> str:
    text = json.dumps(turns, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _tokens_table(source: Source, kept: list[tuple[int, list[Turn], Encoded]]) -> pa.Table:
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
        }
    )


def _samples_table(
    source: Source,
    layout: Layout,
    kept: list[tuple[int, list[Turn], Encoded]],
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
        "turns": pa.array(
            [[turn._asdict() for turn in turns] for _, turns, _ in kept],
            pa.large_list(pa.struct([("role", TEXT), ("content", TEXT)])),
        ),
        "prompt_tokens": pa.array([sample.prompt_tokens for sample in samples], pa.int32()),
        "response_tokens": pa.array([sample.response_tokens for sample in samples], pa.int32()),
        "truncated": pa.array([sample.truncated for sample in samples], pa.bool_()),
        "heldout": pa.array(heldout),
        "hash": pa.array(hashes, TEXT),
    }
    extra = _scalar_columns(rows, set(layout.roles.values()), source.texts_only)
    if extra:
        columns["columns"] = pa.StructArray.from_arrays(list(extra.values()), names=list(extra))
    return pa.table(columns)


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
