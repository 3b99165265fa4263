"""What arms of one family have in common: their way over the shares of replay."""

from grads.evaluation.arms import BASE, Arm
from grads.evaluation.metrics import FORGETTING, LEARNING
from grads.evaluation.result import ArmResult, ReplayPoint


def replays(shown: list[Arm], found: dict[str, ArmResult]) -> dict[str, list[ReplayPoint]]:
    """The way of each arm from none to all of the shares of replay, as far as it is measured."""
    base = found[BASE].mean[FORGETTING] if BASE in found else None
    paths: dict[str, list[ReplayPoint]] = {}
    for arm in shown:
        mean = found[arm.label].mean
        learning, general = mean[LEARNING], mean[FORGETTING]
        if base is None or learning is None or general is None or not arm.declared.once:
            continue
        share = arm.replay.share if arm.replay else 0.0
        point = ReplayPoint(share=share, learning=learning, forgetting=general - base)
        paths.setdefault(arm.alone or arm.label, []).append(point)
    return {label: points for label, points in paths.items() if len(points) > 1}
