"""A comparison for a reader who knows the field of the data, not machine learning."""

from grads.evaluation import texts
from grads.evaluation.arms import Arm
from grads.evaluation.intervals import NONE, Verdict
from grads.evaluation.metrics import FORGETTING, LEARNING
from grads.evaluation.result import MetricResult


def comparison(
    arm: Arm, other: Arm, metrics: dict[str, MetricResult], *, seeds: int, samples: int
) -> str:
    """What `seeds` trainings on `samples` samples show against as many of the other arm."""
    ours, theirs = _called(arm, samples), _called(other, samples)
    ours = ours[0].upper() + ours[1:]
    if not seeds or LEARNING not in metrics or FORGETTING not in metrics:
        return texts.NOT_COMPARED.format(ours=ours, theirs=theirs)
    if seeds == 1:
        return texts.COMPARED_ONCE.format(ours=ours, theirs=theirs)
    return texts.COMPARED.format(
        ours=ours,
        theirs=theirs,
        learning=_said(metrics[LEARNING], texts.LEARNED),
        forgetting=_said(metrics[FORGETTING], texts.KEPT),
    )


def _said(metric: MetricResult, words: dict[Verdict, str]) -> str:
    size, low, high = metric.difference, metric.low, metric.high
    assert low is not None
    assert high is not None
    sign = "+" if metric.verdict == NONE else ""
    if metric.verdict != NONE:
        size, (low, high) = abs(size), sorted((abs(low), abs(high)))
    told = {"size": size, "low": low, "high": high}
    values = {name: f"{value:{sign}.3f}" for name, value in told.items()}
    return words[metric.verdict].format(**values)


def _called(arm: Arm, samples: int) -> str:
    if arm.declared.trains_on == "nothing":
        return texts.UNTRAINED
    share = f"{100 * arm.replay.share:g}" if arm.replay else None
    if arm.declared.trains_on == "everything":
        return texts.ON_ALL_MIXED.format(share=share) if share else texts.ON_ALL
    if not arm.declared.random:
        called = texts.ON_CHOSEN.format(samples=f"{samples:,}", name=arm.label)
    elif share:
        called = texts.ON_RANDOM_MIXED.format(samples=f"{samples:,}", share=share)
    else:
        called = texts.ON_RANDOM.format(samples=f"{samples:,}")
    return texts.LONGER.format(model=called) if arm.declared.as_long_as_full else called
