"""The rows of an export, and what a format is."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grads.config.run import RunConfig
from grads.data.layouts import Conversation
from grads.data.turns import Turn, Unusable
from grads.errors import ExportError
from grads.text import Sentence

SCORE_PREFIX = "grads_"  # of the score columns that --with-scores adds
TEMPLATE_NAME = "chat_template.jinja"  # of a template inside an export's folder


@dataclass(frozen=True)
class Template:
    """The chat template that the samples were written with when they were scored."""

    source: str
    of_the_model: bool  # its tokenizer brings it; else it is the one for models without
    marks: dict[str, str]  # bos_token and the other special tokens by name


@dataclass(frozen=True)
class Subset:
    """The chosen samples, in source order, all columns of one length."""

    name: str
    lines: list[bytes] | None  # the source's own lines, where it has lines
    rows: list[dict[str, Any]]
    table: pa.Table | None  # the rows with their own types, where the source has types
    turns: list[list[dict[str, Any]]]  # as samples.parquet holds them
    scores: list[dict[str, Any]] | None  # to add, with --with-scores
    ids: list[int] | None = None
    tools: list[list[dict[str, Any]]] | None = None  # that a row offers, where any does
    template: Template | None = None  # unknown in runs from before 0.5
    tokens: pa.Table | None = None  # of tokens.parquet, always with `spelled`, and `truncated`

    def __len__(self) -> int:
        return len(self.rows)

    def scored_rows(self) -> list[dict[str, Any]]:
        """Rows as objects, with the scores where asked for."""
        return self.with_scores(self.rows)

    def conversations(self) -> list[Conversation]:
        """What each row says, and the tools it offers."""
        tools = self.tools or [[]] * len(self)
        return [
            Conversation([Turn.of(turn) for turn in turns], offered)
            for turns, offered in zip(self.turns, tools, strict=True)
        ]

    def messages(self) -> list[dict[str, Any]]:
        """Conversations as trainers read them: `messages`, and `tools` where any row has some."""
        found = self.conversations()
        rows: list[dict[str, Any]] = [{"messages": [message(t) for t in c.turns]} for c in found]
        if any(c.tools for c in found):
            for row, c in zip(rows, found, strict=True):
                row["tools"] = json.dumps(c.tools, ensure_ascii=False) if c.tools else None
        return rows

    def with_scores(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """These rows, one a sample, with the scores where asked for."""
        if self.scores is None:
            return rows
        return [
            row | {SCORE_PREFIX + key: value for key, value in score.items()}
            for row, score in zip(rows, self.scores, strict=True)
        ]

    def fitted(self, fit: Callable[[Conversation], Conversation]) -> "Fitted":
        """The rows as a target takes them, and those that it does not take."""
        kept: dict[int, Conversation] = {}
        refused, converted = [], 0
        for n, row in enumerate(self.conversations()):
            try:
                kept[n] = fit(row)
            except Unusable as verdict:
                sample = n if self.ids is None else self.ids[n]
                refused.append({"sample_id": sample, "reason": verdict.reason})
            else:
                converted += kept[n] != row
        turns = [[vars(turn) for turn in row.turns] for row in kept.values()]
        return Fitted(replace(self.only(list(kept)), turns=turns), refused, converted)

    def only(self, index: list[int]) -> "Subset":
        """The rows at these positions, in this order; a row may stand there several times."""

        def some(column: list[Any] | None) -> Any:
            return None if column is None else [column[i] for i in index]

        places = pa.array(index, pa.int64())  # of an empty list, no kind would be known
        return replace(
            self,
            lines=some(self.lines),
            rows=some(self.rows),
            table=None if self.table is None else self.table.take(places),
            turns=some(self.turns),
            scores=some(self.scores),
            ids=some(self.ids),
            tools=some(self.tools),
            tokens=None if self.tokens is None else self.tokens.take(places),
        )


@dataclass(frozen=True)
class Fitted:
    """The rows that a target takes, those that it does not, and how many were changed for it."""

    subset: Subset
    refused: list[dict[str, Any]]  # sample_id and reason
    converted: int


def message(turn: Turn) -> dict[str, Any]:
    """A turn as chat templates read it; `train` is there where an answer carries no loss."""
    made: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.reasoning:
        made["reasoning_content"] = turn.reasoning
    if turn.tool_calls:
        made["tool_calls"] = json.loads(turn.tool_calls)
    made |= {key: value for key, value in turn.about().items() if value}
    return made if learned(turn) or turn.role != "assistant" else made | {"train": False}


def learned(turn: Turn) -> bool:
    """Whether the turn carries loss."""
    return turn.role == "text" or (turn.role == "assistant" and turn.trained)


def token_table(subset: Subset) -> pa.Table:
    """What was scored, token for token, as every trainer takes it: untrained labels are -100."""
    if subset.tokens is None:
        raise ExportError("the run keeps no tokens: score the data again")
    tokens = subset.tokens.select(["input_ids", "trained"]).combine_chunks()
    lengths = pc.list_value_length(tokens["input_ids"]).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
    ids = pc.list_flatten(tokens["input_ids"]).combine_chunks()
    trained = pc.list_flatten(tokens["trained"]).combine_chunks()
    columns = {
        "input_ids": ids,
        "attention_mask": pa.array(np.ones(len(ids), np.int8)),
        "labels": pc.if_else(trained, ids, pa.scalar(-100, ids.type)),
    }
    lists = {
        name: pa.LargeListArray.from_arrays(offsets, values) for name, values in columns.items()
    }
    return pa.table(lists)


@dataclass(frozen=True)
class Format:
    """A form that selections are exported in, declared once for commands, pages and tests."""

    name: str
    label: str  # for people, in a list to choose from
    help: str
    """A sentence for people: what comes out, and what it is good for."""
    write: Callable[[Subset, Path, RunConfig], None]
    """Writes the data to the path, and beside it what belongs to them."""
    count: Callable[[Path], int]
    """Loads the data back and counts their rows."""
    data_name: str = "train.jsonl"
    """Name of the data inside the export's folder; {name} stands for the selection's."""
    alone: bool = False
    """Whether the data can stand alone, as one file with the format's suffix."""
    plain: bool = False
    """Whether it is data alone, in which a further column has a place."""
    fit: Callable[[Conversation], Conversation] | None = None
    """A row as the target takes it; raises Unusable where its meaning would not stay."""


def row_count(count: int) -> Sentence:
    """A number of rows for people."""
    if count == 1:
        return Sentence("{number:,} row", number=count)
    return Sentence("{number:,} rows", number=count)


def write_text(path: Path, text: str) -> None:
    """Write text that ends with a line break."""
    path.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")


def dump_lines(rows: list[dict[str, Any]], path: Path) -> None:
    """Write objects as JSON lines."""
    lines = [json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8", newline="")


def count_lines(path: Path) -> int:
    """JSON objects in a file of lines; raises ValueError on a line that is none."""
    with path.open("rb") as file:
        return sum(isinstance(json.loads(line), dict) for line in file if line.strip())
