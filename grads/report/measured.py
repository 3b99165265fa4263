"""What a report says of an evaluation: the verdict in sentences, and the table of its arms."""

from grads.evaluation.result import EvaluationResult, TuneResult
from grads.report.markup import line, lines, section, table
from grads.store.folders import Evaluation


def measured(found: Evaluation, result: EvaluationResult | None, selection: str | None) -> str:
    """An evaluation, as far as it has got; whether the selection is among what it trained on."""
    title = f"Did it help? The evaluation {found.id}"
    if result is None or not result.arms:
        return section(title, line("Nothing is measured yet."))
    remarks = [] if result.finished else ["It is not finished: this is what there is so far."]
    if selection and selection not in {arm.selection for arm in result.arms}:
        remarks.append(f"It did not train on the selection {selection}.")
    even = [f"{label}: {one.sentence}" for label, one in result.break_even.items()]
    files = ", ".join(f"{one.name} ({one.samples:,} examples)" for one in result.measured_on)
    return section(
        title,
        *map(line, remarks),
        lines(_verdicts(result)),
        _arms(result),
        line("± is half the width of the 95% interval over repetitions.", "soft"),
        line(f"Measured on {files}.", "soft"),
        lines([*result.notes, *even]),
    )


def _verdicts(result: EvaluationResult) -> list[str]:
    """What it says of each chosen subset against random ones of its size."""
    if isinstance(result, TuneResult):
        return [result.sentence]
    compared = [one for one in result.comparisons if one.theirs.random and not one.ours.random]
    return [one.sentence for one in compared]


def _arms(result: EvaluationResult) -> str:
    there = {
        metric: shown.label
        for metric, shown in result.shown.items()
        if any(arm.mean.get(metric) is not None for arm in result.arms)
    }
    rows = []
    for arm in result.arms:
        cells = []
        for metric in there:
            mean, reach = arm.mean.get(metric), arm.reach(metric)
            spread = f"\u00a0±\u00a0{reach:.3f}" if reach is not None else ""
            cells.append("" if mean is None else f"{mean:.3f}{spread}")
        rows.append((arm.label, arm.samples, len(arm.seeds), *cells))
    return table(("arm", "examples", "trainings", *there.values()), rows)
