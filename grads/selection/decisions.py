"""What people decided about single samples: kept or left out, why, and by whom.

Several reviewers may decide about one sample: the last word of each counts.
"""

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from grads.errors import GradsError, RunError
from grads.selection.options import SelectionConfig
from grads.selection.record import Decision, SelectionRecord, kept_ids, read_record
from grads.store.runs import Run
from grads.text import Sentence, Written

REASONS = ("wrong", "outdated", "unclear", "duplicate")  # that are offered everywhere
STAYS = Sentence("near-duplicates: row {row} stays")  # of those decided about together
TWIN = Sentence("duplicate of row {row}")  # of those that go
WRITTEN = Written((*REASONS, STAYS, TWIN))  # reasons that are not a person's own words


def decide(
    run: Run,
    sample_id: int,
    decision: str,
    reason: str = "",
    *,
    reviewer: str = "",
    settles: bool = False,
) -> None:
    """Note that a person wants a sample always kept, never kept, or left to the numbers again.

    Raises RunError where the sample is held out, or the run has none of this id.
    """
    decide_all(run, [(decision, sample_id)], reason, reviewer=reviewer, settles=settles)


def decide_all(
    run: Run,
    wanted: list[tuple[str, int]],
    reason: str = "",
    *,
    reviewer: str = "",
    settles: bool = False,
) -> None:
    """Several decisions (pin, exclude or clear, and a sample) with one reason.

    Each is one reviewer's; one that `settles` stands in the place of all that was said of the
    sample before. All are noted or none. Raises as `decide` does, and where a sample is named
    twice.
    """
    samples = [sample for _, sample in wanted]
    for sample, times in Counter(samples).items():
        if times > 1:
            raise RunError(f"sample {sample} is named twice: decide one thing about it")
    require_in_pool(run, samples)
    same: dict[str, Any] = {
        "reason": reason.strip(),
        "reviewer": reviewer.strip(),
        "time": now(),
    } | ({"settles": True} if settles else {})
    made = [
        Decision.checked({"sample_id": sample, "decision": decision} | same, run.decisions_file)
        for decision, sample in wanted
    ]
    run.decide(*(one.as_json() for one in made))


def require_in_pool(run: Run, samples: Iterable[int]) -> None:
    """Raise RunError where one of these samples is held out, or the run has none of its id."""
    for sample in sorted(set(samples) - decidable(run)):
        run.read_sample(sample)  # says so where there is none
        raise RunError(f"sample {sample} is held out: it is in no subset")


def decidable(run: Run) -> set[int]:
    """The samples that people can decide about: all that are not held out."""
    table = run.read_table(run.samples_file, ["sample_id", "heldout"])
    return set(table.filter(pc.invert(table["heldout"]))["sample_id"].to_pylist())


def now() -> str:
    """The time as decisions hold it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def opinions(run: Run) -> dict[int, list[Decision]]:
    """The last word of each reviewer on each sample, the latest of them last.

    A reviewer who clears a sample takes the own word back; one without a name, and a decision that
    settles, all that was said of it before.
    """
    if not run.decisions_file.exists():
        return {}
    stamp = run.decisions_file.stat()
    return dict(_opinions(run.path, (stamp.st_mtime_ns, stamp.st_size)))


@lru_cache(maxsize=8)  # a page asks several times at each redraw
def _opinions(path: Path, stamp: tuple[int, int]) -> dict[int, list[Decision]]:
    run = Run(path)
    said: dict[int, dict[str, Decision]] = {}
    for row in run.read_decisions():
        made = Decision.checked(row, run.decisions_file)
        here = said.setdefault(made.sample_id, {})
        if made.settles or (made.decision == "clear" and not made.reviewer):
            here.clear()
        here.pop(made.reviewer, None)
        if made.decision != "clear":
            here[made.reviewer] = made
    return {sample: list(here.values()) for sample, here in said.items() if here}


def decisions(run: Run) -> dict[int, Decision]:
    """What holds of each sample that people decided about.

    Where reviewers disagree, the sample is left out until that is settled: what is wrongly left
    out costs a sample, what is wrongly kept is trained.
    """
    return {sample: _holding(said) for sample, said in opinions(run).items()}


def _holding(said: list[Decision]) -> Decision:
    excluding = [one for one in said if one.decision == "exclude"]
    return (excluding or said)[-1]


def disagreements(run: Run) -> dict[int, list[Decision]]:
    """The samples that one reviewer keeps and another leaves out, with what each said."""
    return {
        sample: said
        for sample, said in opinions(run).items()
        if len({one.decision for one in said}) > 1
    }


def in_words(said: Decision) -> Sentence:
    """What a reviewer says of a sample: Ada keeps it: a rare case."""
    who = said.reviewer or Sentence("someone without a name")
    keeps, leaves = Sentence("{reviewer} keeps it"), Sentence("{reviewer} leaves it out")
    told = (keeps if said.decision == "pin" else leaves).filled(reviewer=who)
    why = why_in_words(said.reason)
    return Sentence("{said}: {reason}", said=told, reason=why) if why else told


def why_in_words(reason: str) -> str:
    """A stored reason: of its parts, those that are no person's own words can be told otherwise."""
    parts = map(WRITTEN.found, reason.split(", "))
    return reduce(lambda one, other: Sentence("{one}, {other}", one=one, other=other), parts)


def take_back(run: Run, before: dict[int, list[Decision]], reviewer: str = "") -> None:
    """Have said of these samples what was said `before` (as `opinions` gave it) by this reviewer.

    What that reviewer's decision settled is said again. What others have said since stays.
    """
    there, rows = opinions(run), []
    for sample, then in before.items():
        since = there.get(sample, [])
        standing = {one.reviewer for one in since} if reviewer else set()
        others = {one.reviewer: one for one in [*then, *since] if one.reviewer != reviewer}
        again = [one for name, one in others.items() if name not in standing]
        again += [one for one in then if one.reviewer == reviewer]
        clear = {"sample_id": sample, "decision": "clear", "reviewer": reviewer, "time": now()}
        rows += [clear, *(one.as_json() | {"settles": False} for one in again)]
    run.decide(*rows)


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

    They were made since it was saved.
    """
    there = set(kept.tolist())
    return [
        made
        for made in _binding(run, record)
        if (made.decision == "exclude") == (made.sample_id in there)
    ]


def unheeded(run: Run, record: SelectionRecord) -> list[Decision]:
    """The decisions that a saved selection's options do not hold, though its subset may.

    They were made since it was saved, and count where its options are used anew on the whole pool.
    """
    named = {"pin": record.options.pins, "exclude": record.options.excluded}
    return [m for m in _binding(run, record) if m.sample_id not in named[m.decision]]


def _binding(run: Run, record: SelectionRecord) -> list[Decision]:
    """What holds, without what was decided before the selection was saved and overruled by its
    options, which name the sample themselves."""
    typed = record.options.by_hand - {made.sample_id for made in record.decisions}
    return [
        made
        for sample, made in decisions(run).items()
        if not (sample in typed and made.time <= record.made)
    ]


def stale(run: Run, name: str) -> list[Decision]:
    """The decisions that a saved selection does not follow, by its name; then it is to be saved
    again. Raises RunError where there is none, or it is damaged."""
    read_record(run, name)
    if not run.decisions_file.exists():
        return []
    stamp = (run.selection_saved(name), run.decisions_file.stat().st_mtime_ns)
    return list(_stale(run.path, name, stamp))


def stale_names(run: Run) -> list[str]:
    """The saved selections that are stale; of one that is damaged, reading it tells."""
    found = []
    for name in run.selection_names():
        with suppress(GradsError):
            found += [name] if stale(run, name) else []
    return found


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
