"""Decisions as files for people without the tool: CSV and JSON lines, out and in again."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from grads.data.csv_rows import read_csv
from grads.data.json_rows import read_json
from grads.data.reading import DataFile
from grads.data.rows import Part
from grads.errors import DataError, RunError
from grads.selection.decisions import decidable, now, opinions
from grads.selection.record import Decision
from grads.store.files import JSON_ESCAPES, write_out
from grads.store.runs import Run
from grads.text import FORMULA, brief

COLUMNS = ("sample_id", "decision", "reason", "reviewer", "time", "settles", "hash")
KINDS = {".csv": "csv", ".jsonl": "jsonl"}
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass
class TakenIn:
    """What became of a file's rows."""

    taken: int = 0
    """Decisions that are noted now."""
    known: int = 0
    """Rows that say what their reviewer said last of that sample."""
    refused: list[dict[str, Any]] = field(default_factory=list)
    """Of every other row its `line` in the file and the `reason`."""


def write_decisions(run: Run, path: Path) -> int:
    """Write what each reviewer said last of each sample; how many decisions that are.

    Raises RunError where the suffix is neither .csv nor .jsonl, or it cannot be written.
    """
    write_out(path, decisions_as(run, _kind(path)))
    return len(_rows(run))


def decisions_as(run: Run, kind: str) -> bytes:
    """The same as the content of a file: `csv`, with the mark that spreadsheets know UTF-8 by,
    or `jsonl`."""
    rows = _rows(run)
    if kind == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(
            errors=JSON_ESCAPES
        )
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in rows:
        cells = [row.get(name, "") for name in COLUMNS]
        writer.writerow([_guarded(cell) if isinstance(cell, str) else cell for cell in cells])
    return text.getvalue().encode("utf-8-sig", errors=JSON_ESCAPES)


def _kind(path: Path) -> str:
    if path.suffix.lower() not in KINDS:
        raise RunError(f"decisions are read and written as .csv or .jsonl, not as {path.name}")
    return KINDS[path.suffix.lower()]


def _rows(run: Run) -> list[dict[str, Any]]:
    said = [one for here in opinions(run).values() for one in here]
    text = _hashes(run) if said else {}
    return [one.as_json() | {"hash": text.get(one.sample_id, "")} for one in said]


def _hashes(run: Run) -> dict[int, str]:
    """What tells the text of a sample from another one's, by sample."""
    table = run.read_table(run.samples_file, ["sample_id", "hash"])
    return dict(zip(table["sample_id"].to_pylist(), table["hash"].to_pylist(), strict=True))


def _guarded(cell: str) -> str:
    """A cell that no spreadsheet obeys; `_bare` gives the text back."""
    marked = cell.startswith(FORMULA) or (cell[:1] == "'" and cell[1:2] in ("'", *FORMULA))
    return f"'{cell}" if marked else cell


def _from_cells(row: dict[str, Any]) -> dict[str, Any]:
    return {key: _bare(cell) for key, cell in row.items()}


def _bare(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and cell[1:2] in ("'", *FORMULA) else cell


def take_in(run: Run, content: bytes, name: str) -> TakenIn:
    """Note the decisions of a file of that name; each row is checked, and told where refused.

    A row is refused where its sample is not in the pool or has another text, the decision is none,
    or its reviewer has said otherwise since, or someone has settled it. So taking a file in again
    changes nothing. Raises DataError where the file is none of decisions, and RunError where what
    it says cannot be kept; then nothing is.
    """
    with TemporaryDirectory() as folder:
        place = Path(folder) / f"{Path(name).stem}{Path(name).suffix.lower()}"
        place.write_bytes(content)
        read = read_csv if _kind(place) == "csv" else read_json
        parts = list(read(DataFile.of(place), None))
    found = TakenIn()
    columns = {key for part in parts for row in part.rows for key in row}
    if columns and not {"sample_id", "decision"} <= columns:
        raise DataError(f"{name} has no columns sample_id and decision: it is no file of decisions")
    for part in parts:
        found.refused += [{"line": one.line, "reason": one.reason} for one in part.broken]
    made = _checked(run, parts, found)
    if made:
        run.decide(*(one.as_json() for one in made))
    found.taken = len(made)
    found.refused.sort(key=lambda row: row["line"] or 0)
    return found


def _checked(run: Run, parts: list[Part], found: TakenIn) -> list[Decision]:
    """The rows that say something new; the others are counted or told in `found`."""
    pool, text, before = decidable(run), _hashes(run), _LastWords(run)
    made: dict[tuple[int, str], Decision] = {}
    for line, row in (one for part in parts for one in _numbered(part)):
        try:
            one = _decision(run, row)
            if one.sample_id not in pool:
                raise ValueError(f"there is no sample {one.sample_id} to decide about in this run")
            if row.get("hash") and row["hash"] != text[one.sample_id]:
                raise ValueError(f"sample {one.sample_id} has another text in this run")
            if (one.sample_id, one.reviewer) in made:
                raise ValueError(f"sample {one.sample_id} stands in it twice for one reviewer")
            if before.holds(one):
                found.known += 1
                continue
            before.refuse_older(one)
        except ValueError as problem:
            found.refused.append({"line": line, "reason": str(problem)})
        else:
            made[one.sample_id, one.reviewer] = one
    return [
        one if one.time else Decision(**one.as_json() | {"time": now()}) for one in made.values()
    ]


def _numbered(part: Part) -> Iterator[tuple[int | None, dict[str, Any]]]:
    """Each row with its line."""
    lines: list[int | None] = [*part.lines] or [None] * len(part.rows)
    for line, row in zip(lines, part.rows, strict=True):
        yield line, _from_cells(row) if part.texts_only else row


def _decision(run: Run, row: dict[str, Any]) -> Decision:
    """A row as a decision; raises ValueError with what is wrong."""
    values = {key: "" if row.get(key) is None else str(row[key]).strip() for key in COLUMNS}
    if not values["sample_id"].isdecimal():
        raise ValueError(f"its sample_id is {brief(row.get('sample_id'))}, no number of a row")
    decision = values["decision"].lower()
    if decision not in ("pin", "exclude", "clear"):
        raise ValueError(f"its decision is {brief(row.get('decision'))}: use pin, exclude or clear")
    if values["settles"].lower() not in ("", "true", "false"):
        raise ValueError(f"its settles is {brief(row['settles'])}: use true or false")
    reviewer = values["reviewer"]
    if decision == "clear" and not reviewer:
        raise ValueError("it takes a decision back and names no reviewer")
    made: dict[str, Any] = {
        "sample_id": int(values["sample_id"]),
        "decision": decision,
        "reason": values["reason"],
        "reviewer": reviewer,
        "time": _normal(values["time"]),
    }
    settles = {"settles": True} if values["settles"].lower() == "true" else {}
    return Decision.checked(made | settles, run.decisions_file)


def _normal(time: str) -> str:
    """A time as decisions hold it, or none."""
    if not time:
        return ""
    try:
        found = datetime.fromisoformat(time)
    except ValueError:
        found = NEVER.replace(tzinfo=None)
    if found.tzinfo is None:
        raise ValueError(f"its time is {brief(time)}: write it as 2026-01-31T15:45:00+00:00")
    return found.astimezone(UTC).isoformat(timespec="seconds")


class _LastWords:
    """What each reviewer said last of each sample, cleared ones too, and what settled it."""

    def __init__(self, run: Run) -> None:
        rows = [Decision.checked(row, run.decisions_file) for row in run.read_decisions()]
        self.said = {(row.sample_id, row.reviewer): row for row in rows}
        self.settled = {row.sample_id: row for row in rows if row.settles}
        self.standing = opinions(run)

    def holds(self, one: Decision) -> bool:
        """Whether that is what stands there of its reviewer, alone if it settles."""
        standing = self.standing.get(one.sample_id, [])
        return (len(standing) == 1 or not one.settles) and any(
            (there.decision, there.reason, there.reviewer)
            == (one.decision, one.reason, one.reviewer)
            for there in standing
        )

    def refuse_older(self, one: Decision) -> None:
        """Raise ValueError where something newer was said; a row without a time is of now."""
        if not one.time:
            return
        said = self.said.get((one.sample_id, one.reviewer))
        settled = self.settled.get(one.sample_id)
        who = one.reviewer or "someone without a name"
        if said and _moment(said.time) >= _moment(one.time):
            raise ValueError(f"{who} has said otherwise of sample {one.sample_id} since")
        if settled and _moment(settled.time) >= _moment(one.time):
            raise ValueError(f"{settled.reviewer or 'someone'} has settled it since")


def _moment(time: str) -> datetime:
    try:
        found = datetime.fromisoformat(time)
    except ValueError:  # of an early version, or written by hand
        return NEVER
    return found if found.tzinfo else found.replace(tzinfo=UTC)
