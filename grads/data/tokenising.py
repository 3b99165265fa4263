"""A block of rows -> its usable samples with their tokens, and the rows refused with reasons."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from grads.data.blocks import Source
from grads.data.chat import Encoded, encode
from grads.data.layouts import Conversation, Layout, conversation
from grads.data.own import TEXT
from grads.data.turns import Turn, Unusable

Kept = tuple[int, Conversation, Encoded]  # a usable row by its place in the block
PLAIN = Turn("", "")
KINDS = {field.name: pa.bool_() if field.name == "trained" else TEXT for field in fields(Turn)}
TOKENS = ["sample_id", "input_ids", "trained", "pieces", "spelled"]  # what tokens.parquet takes
SCHEMA = pa.schema(  # of a block that is tokenised
    {
        "sample_id": pa.int64(),
        "raw": pa.large_binary(),
        "turns": pa.large_list(pa.struct(list(KINDS.items()))),
        "prompt_tokens": pa.int32(),
        "response_tokens": pa.int32(),
        "truncated": pa.bool_(),
        "hash": TEXT,
        "tools": TEXT,
        "input_ids": pa.large_list(pa.int32()),
        "trained": pa.large_list(pa.bool_()),
        "pieces": pa.large_list(TEXT),
        "spelled": pa.bool_(),
    }
)


@dataclass(frozen=True)
class Tokenised:
    """What has become of a block's rows."""

    table: pa.Table  # a row a usable sample, in their order; columns of SCHEMA
    rejects: list[dict[str, Any]]  # as rejects.jsonl holds them, by sample id
    turn_fields: list[str]  # what any turn has
    unended: int  # samples whose answers no token ends, as the template shows none


def tokenise(
    block: Source,
    layout: Layout,
    tokenizer: Any,
    max_length: int,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> Tokenised:
    """Validate and tokenise every row of a block; `progress` is told how many are done."""
    rejects, kept = block.refused(), list[Kept]()
    for i, row in enumerate(block.rows):
        try:
            found = conversation(row, layout)
            kept.append((i, found, encode(found.turns, tokenizer, max_length, found.tools)))
        except Unusable as verdict:
            rejects.append(block.spot(i) | {"reason": verdict.reason, "advice": verdict.advice})
        progress(i + 1)
    turns = [turn for _, found, _ in kept for turn in found.turns]
    return Tokenised(
        table=pa.table(
            _sample_columns(block, kept) | _token_columns([s for _, _, s in kept]), SCHEMA
        ),
        rejects=sorted(rejects, key=lambda reject: reject["sample_id"]),
        turn_fields=[
            name
            for name in KINDS
            if name in ("role", "content")
            or any(getattr(turn, name) != getattr(PLAIN, name) for turn in turns)
        ],
        unended=sum(not sample.ends for _, _, sample in kept),
    )


def _sample_columns(block: Source, kept: list[Kept]) -> dict[str, Any]:
    """Every usable row: its bytes (its line, or the row as JSON), its turns and tools."""
    raw: list[bytes | None] = [None] * len(kept)  # typed rows are kept with their types
    if block.raw is not None:
        raw = [block.raw[i] for i, _, _ in kept]
    elif block.table is None:
        raw = [json.dumps(block.rows[i] or {}, ensure_ascii=False).encode() for i, _, _ in kept]
    turns = [[{name: getattr(t, name) for name in KINDS} for t in f.turns] for _, f, _ in kept]
    tools = [json.dumps(f.tools, ensure_ascii=False) if f.tools else None for _, f, _ in kept]
    samples = [sample for _, _, sample in kept]
    return {
        "sample_id": [block.ids[i] for i, _, _ in kept],
        "raw": raw,
        "turns": turns,
        "prompt_tokens": [sample.prompt_tokens for sample in samples],
        "response_tokens": [sample.response_tokens for sample in samples],
        "truncated": [sample.truncated for sample in samples],
        "hash": [_digest(found) for _, found, _ in kept],
        "tools": tools,
    }


def _token_columns(samples: list[Encoded]) -> dict[str, Any]:
    lengths = [len(sample.input_ids) for sample in samples]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
    ids = np.concatenate([np.zeros(0, np.int32), *(sample.input_ids for sample in samples)])
    trained = np.concatenate([np.zeros(0, bool), *(sample.trained for sample in samples)])
    pieces = pa.array([piece for sample in samples for piece in sample.pieces], TEXT)
    return {
        "input_ids": pa.LargeListArray.from_arrays(offsets, pa.array(ids, pa.int32())),
        "trained": pa.LargeListArray.from_arrays(offsets, pa.array(trained)),
        "pieces": pa.LargeListArray.from_arrays(offsets, pieces),
        "spelled": [sample.spelled for sample in samples],
    }


def _digest(found: Conversation) -> str:
    text = json.dumps(found.identity(), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
