"""Corrected texts of samples: kept beside the originals, and put into exports in their place.

A correction names a text of the source's row by its path, so that the row and the conversation
that is read of it are corrected alike. What was scored stays what it was.
"""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from grads.data.layouts import Conversation, Layout, conversation
from grads.data.turns import Turn, Unusable
from grads.errors import ExportError, RunError
from grads.export.rows import Subset, row_count
from grads.store.records import Part
from grads.store.runs import Run
from grads.text import Sentence

Where = tuple[
    str | int, ...
]  # keys and places from the row to the text: ("messages", 1, "content")
Encoder = Callable[[Conversation], dict[str, Any]]  # a row of Subset.tokens; raises Unusable
UNREAD = ("rejected", "verdict", "tools")  # roles whose columns hold no text of the conversation
NO_TEXT = ("role", "from", "speaker", "name", "id", "tool_call_id", "type")  # keys in a message


class Correction(Part):
    """Another text in the place of one."""

    sample_id: int
    field: list[str | int]
    """Where it stands in the source's row: keys and places, as ["messages", 1, "content"]."""
    before: str
    """The text of the source."""
    after: str
    reviewer: str = ""
    reason: str = ""
    time: str = ""
    """ISO 8601, UTC."""


def correct(
    run: Run, sample_id: int, field: Where, text: str, *, reason: str = "", reviewer: str = ""
) -> None:
    """Note another text in the place of one of a sample's; the source's own takes it back.

    Raises RunError where the sample is not in the pool or has no such text, where nothing changes,
    or the row could not be used with it.
    """
    row, said = _read(run, sample_id)
    there = dict(_leaves(row, _layout(run)))
    if field not in there:
        names = ", ".join(map(name_of, there))
        raise RunError(f"sample {sample_id} has no text '{name_of(field)}': there are {names}")
    corrected_row = _corrected_row(run, row, corrections(run).get(sample_id, []))
    if text == dict(_leaves(corrected_row, _layout(run))).get(field):
        raise RunError(f"the text '{name_of(field)}' of sample {sample_id} is that already")
    try:
        new = conversation(_with(corrected_row, {field: text}), _layout(run)).turns
    except Unusable as verdict:
        raise RunError(
            f"sample {sample_id} could not be used with that text: {verdict.reason}"
        ) from None
    if [turn.role for turn in new] != [turn.role for turn in said]:
        raise RunError(f"with that text, others would speak in sample {sample_id}: keep the turns")
    noted = Correction(
        sample_id=sample_id,
        field=list(field),
        before=there[field],
        after=text,
        reviewer=reviewer.strip(),
        reason=reason.strip(),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    run.correct(noted.as_json())


def corrections(run: Run) -> dict[int, list[Correction]]:
    """By sample, the last correction of each of its texts; those taken back are left out."""
    last: dict[tuple[int, Where], Correction] = {}
    for row in run.read_corrections():
        made = Correction.checked(row, run.corrections_file)
        last[made.sample_id, tuple(made.field)] = made
    found: dict[int, list[Correction]] = {}
    for made in last.values():
        if made.after != made.before:
            found.setdefault(made.sample_id, []).append(made)
    return found


def name_of(field: Where) -> str:
    """What a text is called: messages.1.content."""
    return ".".join(map(str, field))


def texts_of(run: Run, sample_id: int) -> dict[Where, str]:
    """The texts of a sample that can be corrected, as they are now; raises as `correct` does."""
    row, _ = _read(run, sample_id)
    corrected_row = _corrected_row(run, row, corrections(run).get(sample_id, []))
    return dict(_leaves(corrected_row, _layout(run)))


def corrected_turns(run: Run, sample_ids: list[int]) -> dict[int, list[dict[str, Any]]]:
    """The conversations of these samples as corrected; those without a correction are left out."""
    made = corrections(run)
    found = {}
    for sample_id in set(sample_ids) & set(made):
        row = _corrected_row(run, _read(run, sample_id)[0], made[sample_id])
        found[sample_id] = [vars(turn) for turn in conversation(row, _layout(run)).turns]
    return found


def corrected(
    subset: Subset, run: Run, encode: Encoder | None = None
) -> tuple[Subset, list[Correction]]:
    """The rows with their corrections, and which those are.

    Corrected rows get new tokens by `encode`; without it, the subset has none. Raises ExportError
    where a row is not the one that was corrected, or could not be used.
    """
    made, ids = corrections(run), subset.ids or []
    places = [place for place, sample in enumerate(ids) if sample in made]
    if not places:
        return subset, []
    rows, turns, lines = list(subset.rows), list(subset.turns), list(subset.lines or ())
    tokens: list[dict[str, Any]] = []
    for place in places:
        sample, here = ids[place], made[ids[place]]
        rows[place] = _corrected_row(run, rows[place], here)
        try:
            said = conversation(rows[place], _layout(run))
            if encode is not None:
                tokens.append({"sample_id": sample, **encode(said)})
        except Unusable as verdict:
            raise ExportError(
                f"sample {sample} cannot be trained as corrected: {verdict.reason}"
            ) from None
        turns[place] = [vars(turn) for turn in said.turns]
        if lines:
            lines[place] = (json.dumps(rows[place], ensure_ascii=False) + "\n").encode()
    new = [rows[place] for place in places]
    changed = replace(
        subset,
        rows=rows,
        turns=turns,
        lines=lines or subset.lines,
        table=_with_rows(subset.table, places, new),
        tokens=_with_rows(subset.tokens, places, tokens) if encode else None,
    )
    return changed, [one for place in places for one in made[ids[place]]]


def _corrected_row(run: Run, row: dict[str, Any], made: list[Correction]) -> dict[str, Any]:
    """The row with its corrections; raises ExportError where they are of another one."""
    there = dict(_leaves(row, _layout(run)))
    if any(there.get(tuple(one.field)) != one.before for one in made):
        raise ExportError(
            f"sample {made[0].sample_id} is not the one that was corrected: correct it again, or"
            f" remove its lines from {run.corrections_file}"
        )
    return _with(row, {tuple(one.field): one.after for one in made})


def correction_lines(manifest: dict[str, Any]) -> list[Sentence]:
    """What people should know of an export's corrected rows."""
    ids = manifest.get("corrected") or []
    if not ids:
        return []
    told = Sentence(
        "corrected by people: {rows}, not scored as such (the manifest has the earlier text, which"
        " was): row {ids}",
        rows=row_count(len(ids)),
        ids=", ".join(map(str, ids)),
    )
    return [told]


def _with_rows(
    table: pa.Table | None, places: list[int], rows: list[dict[str, Any]]
) -> pa.Table | None:
    """The table with these rows in the places of others."""
    if table is None:
        return None
    order = list(range(len(table)))
    for number, place in enumerate(places):
        order[place] = len(table) + number
    new = pa.Table.from_pylist(rows, schema=table.schema)
    return pa.concat_tables([table, new]).take(pa.array(order, pa.int64()))


def _layout(run: Run) -> Layout:
    return Layout("the run's", dict(run.read_manifest().columns))


def _read(run: Run, sample_id: int) -> tuple[dict[str, Any], list[Turn]]:
    """A sample's row in the source, and its turns; raises RunError where the pool has none."""
    sample = run.read_sample(sample_id)
    said = [Turn.of(turn) for turn in sample["turns"]]
    if sample["heldout"]:
        raise RunError(f"sample {sample_id} is held out: it is in no subset")
    if sample["raw"] is not None:
        row = json.loads(sample["raw"])
    else:
        ids = run.read_table(run.samples_file, ["sample_id"])["sample_id"]
        row = run.read_table(run.source_file).filter(pc.equal(ids, sample_id)).to_pylist()[0]
    with suppress(Unusable):
        if conversation(row, _layout(run)).turns == said:
            return row, said
    raise RunError(f"run {run.id} read its rows otherwise than this version: start a new run")


def _leaves(row: dict[str, Any], layout: Layout) -> Iterator[tuple[Where, str]]:
    """The texts of a row that its conversation is read from."""
    for column in (name for role, name in layout.roles.items() if role not in UNREAD):
        yield from _texts(row.get(column), (column,))


def _texts(value: Any, path: Where) -> Iterator[tuple[Where, str]]:
    if isinstance(value, str) and value.strip():
        yield path, value
    inner: dict[Any, Any] = value if isinstance(value, dict) else {}
    if isinstance(value, list):
        inner = dict(enumerate(value))
    for key, one in inner.items():
        if key not in NO_TEXT:
            yield from _texts(one, (*path, key))


def _with(row: dict[str, Any], texts: dict[Where, str]) -> dict[str, Any]:
    """A copy of a row with other texts at these paths."""
    new = copy.deepcopy(row)
    for (*path, last), text in texts.items():
        at: Any = new
        for key in path:
            at = at[key]
        at[last] = text
    return new
