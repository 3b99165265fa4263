"""General rows mixed into an export, in the layout of the run's own.

Formats of plain data hold rows as the run's source has them: a general row that has other columns
is written anew in those, and left out where it cannot be read back from them as it was.
"""

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from grads.data.blocks import Source
from grads.data.layouts import Conversation, Layout, conversation
from grads.data.replay import draw_rows, replay_count
from grads.data.turns import Unusable
from grads.errors import ExportError
from grads.export.rows import Fitted, Format, Subset, message, row_count
from grads.export.settings import is_text
from grads.text import Sentence

if TYPE_CHECKING:  # what makes it loads a tokenizer's library, which an export has no need of
    from grads.data.prepare import Prepared


@dataclass(frozen=True)
class Replay:
    """What is to be mixed in."""

    source: Source
    prepared: "Prepared"
    """The usable rows of the source, with tokens by the run's tokenizer."""
    roles: dict[str, str]
    """Which column of the run's own source plays which role."""
    share: float
    """Of the rows of the result, above 0 and below 1."""
    seed: int


def check_replay(file: str | None, share: float | None, weights: str | None) -> None:
    """Raises ExportError where a file has no share that can be, or rows would need a weight."""
    if (file is None) != (share is None) or (share is not None and not 0 < share < 1):
        raise ExportError(
            f"replay is {file}, its share {share}: give a file, and a share above 0 and below 1"
        )
    if file is not None and weights == "sample":
        raise ExportError(
            "weights 'sample' and replay do not go together, as general rows have no weight: use"
            " weights 'repeat'"
        )


def mixed(subset: Subset, replayed: Replay, form: Format) -> tuple[Subset, dict[str, Any]]:
    """The rows with drawn general ones evenly between them, and what the manifest says of it.

    All of the usable ones are taken where the share asks for more. Raises ExportError where the
    target takes none of them.
    """
    source = replayed.source
    fitted = _fitted(_general(subset, replayed, form), subset, replayed.roles, form)
    general = fitted.subset
    if not len(general):
        reason = f": {fitted.refused[0]['reason']}" if fitted.refused else ""
        raise ExportError(f"{form.name} takes none of the rows of {source.name}{reason}")
    wanted = replay_count(len(subset), replayed.share)
    drawn = np.sort(draw_rows(len(general), wanted, replayed.seed)).tolist()
    general = general.only(drawn)
    about = {
        "name": source.name,
        "digest": source.digest,
        "share": replayed.share,
        "wanted": wanted,
        "rows": len(general),
        "drawn": general.ids,
        "refused": [*replayed.prepared.rejects, *fitted.refused],
    }
    places = [(np.arange(len(part)) + 0.5) / len(part) for part in (subset, general)]
    order = np.argsort(np.concatenate(places), kind="stable")
    return _joined(subset, general).only(order.tolist()), about


def replay_lines(about: dict[str, Any] | None, rows: int) -> list[Sentence]:
    """What people should know of the general rows among `rows` in all."""
    if about is None:
        return []
    known = {"name": about["name"], "rows": row_count(about["rows"])}
    share = about["rows"] / rows
    lines = [Sentence("replay: {rows} of {name}, {share:.1%} of all", share=share, **known)]
    if about["rows"] < about["wanted"]:
        told = Sentence(
            "warning: {name} has no more usable rows; {wanted:,} make {percent:g}%",
            name=about["name"],
            wanted=about["wanted"],
            percent=100 * about["share"],
        )
        lines.append(told)
    if about["refused"]:
        first = about["refused"][0]
        told = Sentence(
            "left out of {name}: {rows}, as row {row}: {reason}",
            name=about["name"],
            rows=row_count(len(about["refused"])),
            row=first["sample_id"],
            reason=first["reason"],
        )
        lines.append(told)
    return lines


def _general(subset: Subset, replayed: Replay, form: Format) -> Subset:
    """The usable rows of the general file, as the run would hold them."""
    source, samples = replayed.source, replayed.prepared.samples
    ids = samples["sample_id"].to_pylist()
    place = {sample: i for i, sample in enumerate(source.ids)}
    index = [place[sample] for sample in ids]
    tools = samples["tools"].to_pylist() if "tools" in samples.column_names else [None] * len(ids)
    offered = [json.loads(found) if found else [] for found in tools]
    tokens = None
    if subset.tokens is not None:
        found = replayed.prepared.tokens.append_column("truncated", samples["truncated"])
        tokens = found.select(subset.tokens.column_names).cast(subset.tokens.schema)
    general = replace(
        subset,
        lines=None,
        rows=[source.rows[i] or {} for i in index],
        table=None,
        turns=samples["turns"].to_pylist(),
        scores=None,
        ids=ids,
        tools=offered if any(offered) else None,
        tokens=tokens,
    )
    if not form.plain:  # which makes its rows of the conversations
        return general
    return _as_the_source(general, subset, replayed, index)


def _as_the_source(general: Subset, like: Subset, replayed: Replay, index: list[int]) -> Subset:
    """The rows with the columns, types and lines that those of the run's source have."""
    roles, source = replayed.roles, replayed.source
    rows, lines, table = general.rows, None, None
    same = replayed.prepared.layout.roles.items() <= roles.items()
    if not same:
        rows = [_row(found, roles) for found in general.conversations()]
    if like.lines is not None:
        raw = source.raw if same else None
        lines = [
            raw[i] if raw else (json.dumps(row, ensure_ascii=False, default=str) + "\n").encode()
            for i, row in zip(index, rows, strict=True)
        ]
    if like.table is not None:
        kept = [{name: row.get(name) for name in roles.values()} for row in rows]
        try:
            table = pa.Table.from_pylist(kept, schema=like.table.schema)
        except (pa.ArrowException, OverflowError) as error:
            raise ExportError(
                f"the rows of {source.name} do not fit the types of the run's own ({error}): export"
                " as jsonl from a source of lines, or give rows of those types"
            ) from None
        rows = table.to_pylist()
    return replace(general, rows=rows, lines=lines, table=table)


def _row(found: Conversation, roles: dict[str, str]) -> dict[str, Any]:
    """A row in which these roles hold a conversation, as far as they have a place for it."""
    turns = list(found.turns)
    row: dict[str, Any] = {}
    if "text" in roles:
        return {roles["text"]: turns[0].content}
    if found.tools and "tools" in roles:
        row[roles["tools"]] = found.tools
    if "verdict" in roles:
        row[roles["verdict"]] = True
    if "messages" in roles:
        return {roles["messages"]: [message(turn) for turn in turns]} | row
    if turns[0].role == "system" and "system" in roles:
        row[roles["system"]] = turns.pop(0).content
    if {"prompt", "response"} <= roles.keys():
        return {roles["prompt"]: turns[0].content, roles["response"]: turns[-1].content} | row
    return row


def _fitted(general: Subset, like: Subset, roles: dict[str, str], form: Format) -> Fitted:
    """The rows that the target takes: of plain data, those that say in it what they said."""

    texts = is_text(like)

    def fit(row: Conversation) -> Conversation:
        if texts and row.turns[0].role != "text":
            raise Unusable("it is a conversation, the run's rows are plain texts", "leave it out")
        if not texts and row.turns[0].role == "text":
            raise Unusable("it is a plain text, the run's rows are conversations", "leave it out")
        return form.fit(row) if form.fit else row

    fitted = general.fitted(fit)
    if not form.plain:
        return fitted
    subset, kept, refused = fitted.subset, [], fitted.refused
    for i, said in enumerate(subset.conversations()):
        if _read_back(subset.rows[i], roles) == said:
            kept.append(i)
        else:
            reason = "the columns of the run's own data have no place for all of it"
            refused.append({"sample_id": (subset.ids or [])[i], "reason": reason})
    return Fitted(subset.only(kept), refused, 0)


def _read_back(row: dict[str, Any], roles: dict[str, str]) -> Conversation | None:
    try:
        return conversation(row, Layout("the run's", roles))
    except Unusable:
        return None


def _joined(first: Subset, second: Subset) -> Subset:
    """The rows of both, the second's behind the first's; scores of the second are unknown."""

    def both(a: list[Any] | None, b: list[Any] | None) -> Any:
        return None if a is None or b is None else [*a, *b]

    def tables(a: pa.Table | None, b: pa.Table | None) -> pa.Table | None:
        return None if a is None or b is None else pa.concat_tables([a, b])

    def tools(subset: Subset) -> list[list[dict[str, Any]]]:
        return subset.tools or [[]] * len(subset)

    unknown = dict.fromkeys(first.scores[0]) if first.scores else {}
    return replace(
        first,
        lines=both(first.lines, second.lines),
        rows=[*first.rows, *second.rows],
        table=tables(first.table, second.table),
        turns=[*first.turns, *second.turns],
        scores=both(first.scores, [unknown] * len(second)),
        ids=both(first.ids, second.ids),
        tools=[*tools(first), *tools(second)] if first.tools or second.tools else None,
        tokens=tables(first.tokens, second.tokens),
    )
