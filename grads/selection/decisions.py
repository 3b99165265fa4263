"""What people decided about single samples: kept or left out, why, and by whom."""

from datetime import UTC, datetime
from typing import Literal

from grads.errors import RunError
from grads.selection.options import SelectionConfig
from grads.selection.record import Decision
from grads.store.runs import Run


def decide(
    run: Run,
    sample_id: int,
    decision: Literal["pin", "exclude", "clear"],
    reason: str = "",
    *,
    reviewer: str = "",
) -> None:
    """Note that a person wants a sample always kept, never kept, or left to the numbers again.

    Raises RunError where the sample is held out, or the run has none of this id.
    """
    if run.read_sample(sample_id)["heldout"]:
        raise RunError(f"sample {sample_id} is held out: it is in no subset")
    made = Decision(
        sample_id=sample_id,
        decision=decision,
        reason=reason.strip(),
        reviewer=reviewer.strip(),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    run.decide(made.as_json())


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
