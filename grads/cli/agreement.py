"""What the command `agree` shows of two runs: a table, and a picture in a file."""

import subprocess
import sys
from pathlib import Path

from grads.api import APP, ConfigError, GradsError, Ranks, RunAgreement
from grads.cli.terminal import columns_of


def draw(found: RunAgreement, file: Path) -> None:
    """Have the pages' own picture written to a file, by a process: commands load no Plotly."""
    if file.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"picture is {file}: give the name of an HTML file")
    target = str(file.expanduser().absolute())
    runs = [found.first, found.second, *([found.again] if found.again else [])]
    command = [sys.executable, "-m", "studio.picture", target, *runs]
    done = subprocess.run(command, cwd=APP.parent, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise GradsError(f"the picture {file} could not be written: {said}")


def lines_of(found: RunAgreement) -> list[str]:
    """What `agree` says: the samples, a table of columns, and what it leaves open."""
    by = {"row": "the same row and text", "text": "the same text"}[found.joined_by]
    told = [
        f"{found.samples:,} samples are in {'all three' if found.again else 'both'} ({by});"
        f" {found.only_first:,} scored by the first alone, {found.only_second:,} by the second"
    ]
    if found.differ:
        pairs = (f"{name} {a} and {b}" for name, (a, b) in found.differ.items())
        told.append(f"the runs differ in {', '.join(pairs)}")
    told += ["", *columns_of(_table(found))]
    if found.again:
        told.append(f"in brackets: the first run against {found.again}, on the same samples")
    told.append("two random rankings share as much of their highest part as that part is large")
    return told + [f"note: {note}" for note in found.notes]


def _table(found: RunAgreement) -> list[tuple[str, ...]]:
    shares = next(iter(found.columns.values())).overlap if found.columns else {}
    rows = [("column", "rank correlation", *(f"highest {share:.0%}" for share in shares))]
    for name, one in found.columns.items():
        beside = found.by_seed.get(name)
        rows.append((name, *map(_cell, _numbers(one), _numbers(beside, len(shares) + 1))))
    return rows


def _numbers(one: Ranks | None, count: int = 0) -> list[str]:
    if one is None:
        return [""] * count
    return [f"{one.rank_correlation:.3f}", *(f"{value:.1%}" for value in one.overlap.values())]


def _cell(number: str, beside: str) -> str:
    return f"{number} ({beside})" if beside else number
