"""What a report says of a run: its data, settings, model and time."""

from collections import Counter
from typing import Any

from pydantic_core import PydanticUndefined

from grads.config.base import Settings
from grads.config.spelling import changed
from grads.data.rejects import place
from grads.report.markup import line, section, table
from grads.store.manifest import Manifest
from grads.store.pipeline import STAGES
from grads.store.runs import Run

REASONS = 20  # for which rows were refused, the most frequent


def data(run: Run, manifest: Manifest) -> str:
    """The rows that were read, and those refused with their reasons."""
    source, counts = manifest.source, manifest.counts
    rows = {
        "data set": run.config().dataset,
        "digest (SHA-256)": source.digest or "not kept",
        "read as": source.layout,
        "columns": ", ".join(f"{role} = {name}" for role, name in manifest.columns.items()),
        "rows": f"{counts.rows:,}",
        "used": f"{counts.usable - counts.heldout:,}",
        "set aside for the evaluation": f"{counts.heldout:,}",
        "refused": f"{counts.refused:,}",
        "cut at the longest length": f"{counts.truncated:,}, at {manifest.max_length} tokens",
        "tokens that carry loss": f"{counts.response_tokens:,}",
        "columns that nothing uses": ", ".join(manifest.unused_columns),
    }
    told = [(name, value) for name, value in rows.items() if value]
    return section("Data", table(("", ""), told), _refused(run))


def _refused(run: Run) -> str:
    rejects = run.read_rejects()
    by_reason = Counter(row["reason"] for row in rejects)
    first = {row["reason"]: row for row in reversed(rejects)}
    rows = [
        (count, reason, first[reason].get("advice", ""), place(first[reason]))
        for reason, count in by_reason.most_common(REASONS)
    ]
    more = len(by_reason) - len(rows)
    return table(("rows refused", "reason", "what to do", "the first"), rows) + (
        line(f"and {more:,} further reasons", "soft") if more else ""
    )


def settings(run: Run) -> str:
    """The settings that somebody has set."""
    found = differing(run.config(), without=("dataset", "model"))
    return section(
        "Settings",
        table(("setting", "here", "by default"), found)
        or line("All settings are those that a run has by default."),
    )


def differing(given: Settings, without: tuple[str, ...] = ()) -> list[tuple[str, Any, Any]]:
    """Settings with their values and defaults, where the two differ."""
    rows = []
    for name, value in changed(given).items():
        if name not in without:
            default = type(given).model_fields[name].get_default(call_default_factory=True)
            shown = "" if default is PydanticUndefined else default
            rows.append((name.replace("_", " "), _plain(value), _plain(shown)))
    return rows


def _plain(value: Any) -> str:
    """A value as people write it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} = {one}" for name, one in value.items()) or "none"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "by itself" if value is None else str(value)


def model(run: Run, manifest: Manifest) -> str:
    """The model, where it was computed, and the run's own test of its gradients."""
    check, warmup = manifest.self_check, manifest.warmup
    rows = {
        "model": run.config().model,
        "digest": manifest.model_digest or "not kept",
        "computed on": f"{manifest.device}, {manifest.dtype}",
        "warm-up": f"{warmup.kind}" if warmup else "none",
        "gradients taken": manifest.gradients_taken or "after the warm-up",
        "self-check": "largest relative difference from plain autograd"
        f" {check.largest_relative_difference:.1e}, of {len(check.samples)} examples"
        if check
        else "",
        "versions": ", ".join(f"{name} {number}" for name, number in manifest.versions.items()),
    }
    return section("Model", table(("", ""), [(n, value) for n, value in rows.items() if value]))


def time_taken(manifest: Manifest) -> str:
    """What each stage has taken."""
    rows = [
        (STAGES[name].label if name in STAGES else name, duration(seconds))
        for name, seconds in manifest.seconds.items()
    ]
    whole = duration(sum(manifest.seconds.values()))
    return section("Time taken", table(("stage", "time"), [*rows, ("in all", whole)]))


def duration(seconds: float) -> str:
    """Seconds as people say them: 4.2 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds) // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {round(seconds) % 60:02d} s"
