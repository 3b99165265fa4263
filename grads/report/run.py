"""What a report says of a run: its data, settings, model and time."""

from collections import Counter
from typing import Any

from pydantic_core import PydanticUndefined

from grads.config.base import Settings
from grads.config.spelling import changed
from grads.data.rejects import place
from grads.report.markup import line, section, table, told
from grads.store.manifest import Manifest
from grads.store.pipeline import STAGES
from grads.store.runs import Run
from grads.text import Sentence

AFTER = Sentence("after the warm-up")
TAKEN = (AFTER, Sentence("during the warm-up"), Sentence("before any warm-up"))  # of gradients
REASONS = 20  # for which rows were refused, the most frequent


def data(run: Run, manifest: Manifest) -> str:
    """The rows that were read, and those refused with their reasons."""
    source, counts = manifest.source, manifest.counts
    rows = {
        Sentence("data set"): run.config().dataset,
        Sentence("digest (SHA-256)"): source.digest or Sentence("not kept"),
        Sentence("read as"): Sentence(source.layout),
        Sentence("columns"): ", ".join(
            f"{told(Sentence(role))} = {name}" for role, name in manifest.columns.items()
        ),
        Sentence("rows"): f"{counts.rows:,}",
        Sentence("used"): f"{counts.usable - counts.heldout:,}",
        Sentence("set aside for the evaluation"): f"{counts.heldout:,}",
        Sentence("refused"): f"{counts.refused:,}",
        Sentence("cut at the longest length"): Sentence(
            "{number:,}, at {most} tokens", number=counts.truncated, most=manifest.max_length
        ),
        Sentence("tokens that carry loss"): f"{counts.response_tokens:,}",
        Sentence("columns that nothing uses"): ", ".join(manifest.unused_columns),
    }
    there = [(name, value) for name, value in rows.items() if value]
    return section(Sentence("Data"), table(("", ""), there), _refused(run))


def _refused(run: Run) -> str:
    rejects = run.read_rejects()
    by_reason = Counter(row["reason"] for row in rejects)
    first = {row["reason"]: row for row in reversed(rejects)}
    rows = [
        (count, reason, first[reason].get("advice", ""), place(first[reason]))
        for reason, count in by_reason.most_common(REASONS)
    ]
    more = len(by_reason) - len(rows)
    head = (
        *(Sentence("rows refused"), Sentence("reason")),
        *(Sentence("what to do"), Sentence("the first")),
    )
    rest = line(Sentence("and {number:,} further reasons", number=more), "soft") if more else ""
    return table(head, rows) + rest


def settings(run: Run) -> str:
    """The settings that somebody has set."""
    found = differing(run.config(), without=("dataset", "model"))
    return section(
        Sentence("Settings"),
        table((Sentence("setting"), Sentence("here"), Sentence("by default")), found)
        or line(Sentence("All settings are those that a run has by default.")),
    )


def differing(given: Settings, without: tuple[str, ...] = ()) -> list[tuple[str, Any, Any]]:
    """Settings with their values and defaults, where the two differ."""
    rows: list[tuple[str, Any, Any]] = []
    for name, value in changed(given).items():
        if name not in without:
            default = type(given).model_fields[name].get_default(call_default_factory=True)
            shown = "" if default is PydanticUndefined else default
            rows.append((Sentence(name.replace("_", " ")), _plain(value), _plain(shown)))
    return rows


def _plain(value: Any) -> str:
    """A value as people write it."""
    if isinstance(value, dict):
        return ", ".join(f"{name} = {one}" for name, one in value.items()) or Sentence("none")
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or Sentence("none")
    if isinstance(value, bool):
        return Sentence("yes") if value else Sentence("no")
    return Sentence("by itself") if value is None else str(value)


def model(run: Run, manifest: Manifest) -> str:
    """The model, where it was computed, and the run's own test of its gradients."""
    check, warmup = manifest.self_check, manifest.warmup
    taken = manifest.gradients_taken or AFTER  # runs from before know no other way
    rows = {
        Sentence("model"): run.config().model,
        Sentence("digest"): manifest.model_digest or Sentence("not kept"),
        Sentence("computed on"): f"{manifest.device}, {manifest.dtype}",
        Sentence("warm-up"): warmup.kind if warmup else Sentence("none"),
        Sentence("gradients taken"): {str(one): one for one in TAKEN}.get(taken, taken),
        Sentence("self-check"): Sentence(
            "largest relative difference from plain autograd {difference:.1e},"
            " of {number} examples",
            difference=check.largest_relative_difference,
            number=len(check.samples),
        )
        if check
        else "",
        Sentence("versions"): ", ".join(
            f"{name} {number}" for name, number in manifest.versions.items()
        ),
    }
    return section(
        Sentence("Model"), table(("", ""), [(n, value) for n, value in rows.items() if value])
    )


def time_taken(manifest: Manifest) -> str:
    """What each stage has taken."""
    rows = [
        (Sentence(STAGES[name].label) if name in STAGES else name, duration(seconds))
        for name, seconds in manifest.seconds.items()
    ]
    whole = duration(sum(manifest.seconds.values()))
    head = (Sentence("stage"), Sentence("time"))
    return section(Sentence("Time taken"), table(head, [*rows, (Sentence("in all"), whole)]))


def duration(seconds: float) -> Sentence:
    """Seconds as people say them: 4.2 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return Sentence("{seconds:.1f} s", seconds=seconds)
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return Sentence("{minutes} min {seconds:02d} s", minutes=minutes, seconds=rest)
    return Sentence("{hours} h {minutes:02d} min", hours=minutes // 60, minutes=minutes % 60)
