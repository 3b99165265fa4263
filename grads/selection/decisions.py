"""What people decided about single samples: kept or left out, why, and by whom."""

from collections import Counter
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from grads.errors import RunError
from grads.selection.options import SelectionConfig
from grads.selection.record import Decision, SelectionRecord, kept_ids, read_record
from grads.store.runs import Run


def decide(
    run: Run,
    sample_id: int,
    decision: str,
    reason: str = "",
    *,
    reviewer: str = "",
) -> None:
    """Note that a person wants a sample always kept, never kept, or left to the numbers again.

    Raises RunError where the sample is held out, or the run has none of this id.
    """
    decide_all(run, [(decision, sample_id)], reason, reviewer=reviewer)


def decide_all(
    run: Run,
    wanted: list[tuple[str, int]],
    reason: str = "",
    *,
    reviewer: str = "",
) -> None:
    """Several decisions (pin, exclude or clear, and a sample) with one reason.

    All are noted or none. Raises as `decide` does, and where a sample is named twice.
    """
    samples = [sample for _, sample in wanted]
    for sample, times in Counter(samples).items():
        if times > 1:
            raise RunError(f"sample {sample} is named twice: decide one thing about it")
    table = run.read_table(run.samples_file, ["sample_id", "heldout"])
    inside = table.filter(pc.invert(table["heldout"]))["sample_id"].to_numpy()
    for sample in sorted(set(samples) - set(inside.tolist())):
        run.read_sample(sample)  # says so where there is none
        raise RunError(f"sample {sample} is held out: it is in no subset")
    same = {
        "reason": reason.strip(),
        "reviewer": reviewer.strip(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    made = [
        Decision.checked({"sample_id": sample, "decision": decision} | same, run.decisions_file)
        for decision, sample in wanted
    ]
    run.decide(*(one.as_json() for one in made))


def decisions(run: Run) -> dict[int, Decision]:
    """The last word on each sample that people decided about; cleared ones are left out."""
    rows = [Decision.checked(row, run.decisions_file) for row in run.read_decisions()]
    last = {row.sample_id: row for row in rows}
    return {sample: row for sample, row in last.items() if row.decision != "clear"}


def with_decisions(run: Run, options: SelectionConfig) -> SelectionConfig:
    """The options with people's pins and exclusions; where the options name a sample, they win."""
    made = [row for s, row in decisions(run).items() if s not in options.by_hand]
    if not made:
        return options
    pins = [row.sample_id for row in made if row.decision == "pin"]
    excluded = [row.sample_id for row in made if row.decision == "exclude"]
    values = options.model_dump()
    return SelectionConfig.parse(
        values
        | {
            "pins": sorted({*options.pins, *pins}),
            "excluded": sorted({*options.excluded, *excluded}),
        }
    )


def contradictions(run: Run, record: SelectionRecord, kept: np.ndarray) -> list[Decision]:
    """The decisions that a saved selection, which keeps the samples of these ids, does not follow.

    They were made since it was saved. One made before, which the options overruled by naming the
    sample themselves, does not count.
    """
    typed = record.options.by_hand - {made.sample_id for made in record.decisions}
    there = set(kept.tolist())
    return [
        made
        for sample, made in decisions(run).items()
        if (made.decision == "exclude") == (sample in there)
        and not (sample in typed and made.time <= record.made)
    ]


def stale(run: Run, name: str) -> list[Decision]:
    """The decisions that a saved selection does not follow, by its name; then it is to be saved
    again. Raises RunError where there is none, or it is damaged."""
    read_record(run, name)
    if not run.decisions_file.exists():
        return []
    stamp = (run.selection_saved(name), run.decisions_file.stat().st_mtime_ns)
    return list(_stale(run.path, name, stamp))


@lru_cache(maxsize=256)  # a page asks for every selection at each redraw
def _stale(path: Path, name: str, stamp: tuple[int, int]) -> tuple[Decision, ...]:
    run = Run(path)
    return tuple(contradictions(run, read_record(run, name), kept_ids(run, name)))


def obeyed(kept: np.ndarray, contradicting: list[Decision]) -> np.ndarray:
    """Sorted ids of what is kept once these decisions are followed; nothing else changes."""
    dropped = [made.sample_id for made in contradicting if made.decision == "exclude"]
    added = [made.sample_id for made in contradicting if made.decision == "pin"]
    return np.union1d(np.setdiff1d(kept, dropped), np.array(added, dtype=kept.dtype))


def followed(options: SelectionConfig, contradicting: list[Decision]) -> SelectionConfig:
    """The options with these decisions in the place of what they say of the samples."""
    if not contradicting:
        return options
    named = {made.sample_id: made.decision for made in contradicting}
    lists = {
        field: sorted(
            {sample for sample in getattr(options, field) if sample not in named}
            | {sample for sample, said in named.items() if said == decision}
        )
        for field, decision in (("pins", "pin"), ("excluded", "exclude"))
    }
    return SelectionConfig.parse(options.model_dump() | lists)
