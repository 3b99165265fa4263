"""Saved selections as files that a trainer reads."""

from pathlib import Path
from typing import Any

from grads.errors import ExportError
from grads.export import saved
from grads.selection.decisions import contradictions, decisions, obeyed
from grads.selection.record import kept_of, read_selection
from grads.store.runs import Run

TOLD = ("options", "samples", "response_tokens")  # of the record, in the manifest


def export_selection(
    run: Run, name: str, kind: str, out: Path | None = None, *, with_scores: bool = False
) -> dict[str, Any]:
    """Write a saved selection as `kind` to `out`, or into the run; returns the manifest.

    What people have decided since it was saved is followed: the manifest's `decisions` are those
    that hold, and `decided_since` names the rows that they changed. An export into the run replaces
    an earlier one of the same name and format. Raises RunError where there is no such selection,
    and ExportError where `out` exists already, the format is unknown, nothing is left, or what was
    written does not load back as it should.
    """
    record, table = read_selection(run, name)
    since = contradictions(run, record, kept_of(table))
    ids = obeyed(kept_of(table), since)
    if not len(ids):
        raise ExportError(f"people have decided against all that '{name}' keeps: choose anew")
    kept = set(ids.tolist())
    followed = [
        made
        for made in decisions(run).values()
        if (made.decision == "pin") == (made.sample_id in kept)
    ]
    told = {field: getattr(record, field) for field in TOLD}
    return saved.export_kept(
        run,
        name,
        ids,
        kind,
        out=out,
        with_scores=with_scores,
        record={
            **{field: value.model_dump(mode="json") for field, value in told.items()},
            "decisions": [made.as_json() for made in followed],
            "decided_since": [made.sample_id for made in since],
        },
    )
