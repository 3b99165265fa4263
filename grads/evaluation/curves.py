"""Arms of one family as a line: over the shares of replay, and over the budgets."""

from grads.evaluation.arms import BASE, Arm
from grads.evaluation.metrics import FORGETTING, LEARNING
from grads.evaluation.points import BudgetPoint, ReplayPoint
from grads.evaluation.result import ArmResult


def replays(shown: list[Arm], found: dict[str, ArmResult]) -> dict[str, list[ReplayPoint]]:
    """The way of each arm from none to all of the shares of replay, as far as it is measured."""
    base = found[BASE].mean[FORGETTING] if BASE in found else None
    paths: dict[str, list[ReplayPoint]] = {}
    for arm in shown:
        mean = found[arm.label].mean
        learning, general = mean[LEARNING], mean[FORGETTING]
        if base is None or learning is None or general is None or arm.kind == BASE:
            continue
        share = arm.replay.share if arm.replay else 0.0
        point = ReplayPoint(share=share, learning=learning, forgetting=general - base)
        paths.setdefault(arm.alone or arm.label, []).append(point)
    return {label: points for label, points in paths.items() if len(points) > 1}


def over_budgets(shown: list[Arm], found: dict[str, ArmResult]) -> list[BudgetPoint]:
    """What each criterion, random and everything come to at each size, as far as it is measured."""
    base = found[BASE].mean if BASE in found else {}
    untrained, before = base.get(LEARNING), base.get(FORGETTING)
    whole = found["full"].mean[LEARNING] if "full" in found else None
    if untrained is None or before is None:
        return []
    gain = untrained - whole if whole is not None else 0.0
    points = []
    for arm in shown:
        of = found[arm.label]
        learning, after = of.mean[LEARNING], of.mean[FORGETTING]
        if arm.budget is None or arm.replay or learning is None or after is None:
            continue
        rise = of.interval[FORGETTING]
        points.append(
            BudgetPoint(
                criterion=arm.options.criterion if arm.options else "everything",
                budget=arm.budget,
                arm=arm.label,
                samples=of.samples,
                learning=learning,
                learning_interval=of.interval[LEARNING],
                forgetting=after - before,
                forgetting_interval=rise and (rise[0] - before, rise[1] - before),
                gain=(untrained - learning) / gain if gain > 0 else None,
            )
        )
    return sorted(points, key=lambda point: point.budget)
