"""What a report says of an evaluation: the verdict in sentences, and the table of its arms."""

from grads.evaluation.result import EvaluationResult, TuneResult
from grads.evaluation.texts import arm as called
from grads.evaluation.texts import sentence
from grads.report.markup import line, lines, section, table, told
from grads.store.folders import Evaluation
from grads.text import Sentence


def measured(found: Evaluation, result: EvaluationResult | None, selection: str | None) -> str:
    """An evaluation, as far as it has got; whether the selection is among what it trained on."""
    title = Sentence("Did it help? The evaluation {name}", name=found.id)
    if result is None or not result.arms:
        return section(title, line(Sentence("Nothing is measured yet.")))
    remarks = []
    if not result.finished:
        remarks.append(Sentence("It is not finished: this is what there is so far."))
    if selection and selection not in {arm.selection for arm in result.arms}:
        remarks.append(Sentence("It did not train on the selection {name}.", name=selection))
    even = [
        Sentence("{arm}: {sentence}", arm=called(label), sentence=sentence(one.sentence))
        for label, one in result.break_even.items()
    ]
    counted = Sentence("{name} ({number:,} examples)")
    files = [counted.filled(name=one.name, number=one.samples) for one in result.measured_on]
    return section(
        title,
        *map(line, remarks),
        lines(_verdicts(result)),
        _arms(result),
        line(Sentence("± is half the width of the 95% interval over repetitions."), "soft"),
        line(Sentence("Measured on {files}.", files=", ".join(map(told, files))), "soft"),
        lines([*map(sentence, result.notes), *even]),
    )


def _verdicts(result: EvaluationResult) -> list[Sentence]:
    """What it says of each chosen subset against random ones of its size."""
    if isinstance(result, TuneResult):
        return [sentence(result.sentence)]
    compared = [one for one in result.comparisons if one.theirs.random and not one.ours.random]
    return [sentence(one.sentence) for one in compared]


def _arms(result: EvaluationResult) -> str:
    there = {
        metric: Sentence(shown.label)
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
        rows.append((called(arm.label), arm.samples, len(arm.seeds), *cells))
    head = (Sentence("arm"), Sentence("examples"), Sentence("trainings"))
    return table((*head, *there.values()), rows)
