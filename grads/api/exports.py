"""Saved selections as files that a trainer reads."""

from pathlib import Path
from typing import Any

from grads.export import saved
from grads.selection.record import kept_of, read_selection
from grads.store.runs import Run

TOLD = ("options", "decisions", "samples", "response_tokens")  # of the record, in the manifest


def export_selection(
    run: Run, name: str, kind: str, out: Path | None = None, *, with_scores: bool = False
) -> dict[str, Any]:
    """Write a saved selection as `kind` to `out`, or into the run; returns the manifest.

    An export into the run replaces an earlier one of the same name and format. Raises RunError
    where there is no such selection, and ExportError where `out` exists already, the format is
    unknown, or what was written does not load back as it should.
    """
    record, table = read_selection(run, name)
    values = {"decisions": []} | record.as_json()
    return saved.export_kept(
        run,
        name,
        kept_of(table),
        kind,
        out=out,
        with_scores=with_scores,
        record={field: values[field] for field in TOLD},
    )
