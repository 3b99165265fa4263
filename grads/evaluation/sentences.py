"""A comparison for a reader who knows the field of the data, not machine learning."""

from grads.evaluation.arms import Arm
from grads.evaluation.intervals import NONE, Verdict
from grads.evaluation.metrics import FORGETTING, LEARNING
from grads.evaluation.result import MetricResult

_LEARNED: dict[Verdict, str] = {
    "better": "has learned more",
    "worse": "has learned less",
    NONE: "shows no difference in what was learned",
}
_KEPT: dict[Verdict, str] = {
    "better": "on general questions it does better",
    "worse": "on general questions it does worse",
    NONE: "on general questions no difference is seen",
}


def comparison(
    arm: Arm, other: Arm, metrics: dict[str, MetricResult], *, seeds: int, samples: int
) -> str:
    """What `seeds` trainings on `samples` samples show against as many of the other arm."""
    ours, theirs = _called(arm, samples), _called(other, samples)
    ours = ours[0].upper() + ours[1:]
    if not seeds or LEARNING not in metrics or FORGETTING not in metrics:
        return f"{ours} and {theirs} have not been trained under the same seed yet."
    if seeds == 1:
        return (
            f"{ours} and {theirs} have been compared once only; one training of each cannot tell"
            " a difference from chance. Repeat it with at least three seeds."
        )
    learning = _said(metrics[LEARNING], " on held-out questions", _LEARNED)
    forgetting = _said(metrics[FORGETTING], "", _KEPT)
    return f"{ours}, compared with {theirs}, {learning}; {forgetting}."


def _said(metric: MetricResult, where: str, words: dict[Verdict, str]) -> str:
    size, low, high = metric.difference, metric.low, metric.high
    assert low is not None
    assert high is not None
    if metric.verdict == NONE:
        return (
            f"{words[NONE]} (error{where} {size:+.3f}, with 95% confidence between {low:+.3f}"
            f" and {high:+.3f}: chance alone can explain it)"
        )
    low, high = sorted((abs(low), abs(high)))
    direction = "lower" if size < 0 else "higher"
    return (
        f"{words[metric.verdict]} (error{where} {direction} by {abs(size):.3f}, with 95%"
        f" confidence by {low:.3f} to {high:.3f})"
    )


def _called(arm: Arm, samples: int) -> str:
    if arm.declared.trains_on == "nothing":
        return "the untrained model"
    if arm.declared.trains_on == "everything":
        return "the model trained on all samples"
    longer = ", trained as long as on everything" if arm.declared.as_long_as_full else ""
    if arm.declared.random:
        mixed = f" and {100 * arm.replay.share:g}% general ones" if arm.replay else ""
        return f"the model trained on {samples:,} random samples{mixed}{longer}"
    return f"the model trained on the {samples:,} samples of '{arm.label}'{longer}"
