"""What an evaluation shows: the verdict in words, the pictures, the answers."""

import html

import plotly.graph_objects as go
import streamlit as st

from grads import api
from grads.api import (
    ACTIVE,
    Answers,
    ArmResult,
    BudgetPoint,
    Comparison,
    EvaluationResult,
    FoundEvaluation,
    TuneResult,
)
from studio import evaluation_charts as charts
from studio import measured, words
from studio.language import mark, say
from studio.stored import arm as called
from studio.stored import told

LEARNED = {
    "better": mark("It learned more than a random subset"),
    "worse": mark("It learned less than a random subset"),
    "no difference seen": mark("No difference seen from a random subset"),
}
ANSWERS = 3  # arms whose answers are shown at first
WHOLE = "everything"  # as the curve over sizes calls all examples
ENOUGH = 0.9  # of what everything gains
FORGOT = {
    "better": mark("{learned}, and forgot less"),
    "worse": mark("{learned}, and forgot more"),
    "no difference seen": "{learned}",
}
COUNTED = (  # of several subsets
    ("learning", "better", mark("{count} learned more")),
    ("learning", "worse", mark("{count} learned less")),
    ("forgetting", "better", mark("{count} forgot less")),
    ("forgetting", "worse", mark("{count} forgot more")),
)


def against_random(result: EvaluationResult) -> list[Comparison]:
    """The comparisons that matter most: each chosen subset with a random one of its size."""
    return [one for one in result.comparisons if one.theirs.random and not one.ours.random]


def sentence(found: FoundEvaluation) -> str:
    """The headline of an evaluation."""
    result, state = found.result, found.status.state
    if result is None or not result.finished:
        if state in ACTIVE:
            return say("Measuring whether it helped")
        if state == "failed":
            return say("The measurement has failed")
        return say("The measurement is {state}", state=words.state(state)[0])
    confirmed = result.confirmation if isinstance(result, TuneResult) else None
    main = [confirmed] if confirmed else against_random(result)
    main = [one for one in main if not one.ours.as_long_as_full] or main  # a subset once
    if not main:
        return say("No setting beat random") if isinstance(result, TuneResult) else say("Measured")
    if main[0].seeds < 2:
        return say("Compared once only: that tells nothing yet")
    return _found(main)


def decision(found: FoundEvaluation) -> str:
    """The headline: what a part of the examples is worth, and whether choosing it beat chance."""
    said = sentence(found)
    worth = gained(found.result) if found.result is not None and found.result.finished else None
    if not worth:
        return said
    return say("{worth}; {verdict}", worth=worth, verdict=_begun_small(said))


def _begun_small(sentence: str) -> str:
    """A sentence as it stands behind another."""
    return sentence[0].lower() + sentence[1:]


def gained(result: EvaluationResult) -> str | None:
    """What the chosen subsets gain of what everything gains, where both were measured."""
    whole = [arm for arm in result.arms if arm.declared.trains_on == "everything"]
    base = [arm for arm in result.arms if arm.declared.trains_on == "nothing"]
    chosen = {one.arm for one in against_random(result) if not one.ours.as_long_as_full}
    arms = [arm for arm in result.arms if arm.label in chosen]
    if not (whole and base and arms):
        return None
    start, end = base[0].mean.get(api.LEARNING), whole[0].mean.get(api.LEARNING)
    found = [(arm, arm.mean.get(api.LEARNING)) for arm in arms]
    if start is None or end is None or not start > end:
        return None
    best, learned = min(((a, v) for a, v in found if v is not None), key=lambda pair: pair[1])
    return say(
        "{share} of the examples gain {gain:.0%} of what all gain",
        share=words.share(best.samples, whole[0].samples),
        gain=(start - learned) / (start - end),
    )


def _found(compared: list[Comparison]) -> str:
    """How these subsets differ from random ones: the one, or how many of several."""
    if len(compared) == 1:
        (one,) = compared
        return say(FORGOT[one.forgetting], learned=say(LEARNED[one.learning]))
    counts = [
        (sum(getattr(one, what) == verdict for one in compared), text)
        for what, verdict, text in COUNTED
    ]
    said = [say(text, count=count) for count, text in counts if count]
    if said:
        text = mark("Of {count} subsets, {found} than random ones")
    elif len(compared) == 2:
        text = mark("Neither of {count} subsets differs from random ones")
    else:
        text = mark("None of {count} subsets differs from random ones")
    return say(text, count=len(compared), found=say(", ").join(said))


def verdicts(result: EvaluationResult) -> None:
    """The verdicts, each in a sentence for people."""
    if isinstance(result, TuneResult):
        st.markdown(words.literal(told(result.sentence)))
        return
    measured.listed(
        say("Each in a sentence"), [told(one.sentence) for one in against_random(result)]
    )


def against(result: EvaluationResult) -> None:
    """Each subset's difference from random ones, with its interval, folded under what it shows."""
    compared = [one for one in against_random(result) if one.seeds > 1]
    if not compared:
        return
    compared.sort(key=lambda one: one.metrics[api.LEARNING].difference)
    rows = [
        [
            (found.difference, found.low or 0.0, found.high or 0.0, found.verdict)
            for found in (one.metrics[metric] for one in compared)
        ]
        for metric in (api.LEARNING, api.FORGETTING)
    ]
    with st.expander(say("At the same size: {finding}", finding=_begun_small(_found(compared)))):
        st.plotly_chart(
            charts.differences([one.arm for one in compared], *rows),
            key="against-random",
            alt=say("Held-out and general loss of each subset minus those of random subsets"),
        )
        st.caption(
            say("Lines: 95% interval over repetitions. One that crosses zero shows no difference.")
        )


def _points(result: EvaluationResult) -> dict[str, tuple[float, float]]:
    """Held-out and general loss of each arm by its label, where both were measured."""
    return {
        arm.label: (learning, forgetting)
        for arm in result.arms
        if (learning := arm.mean.get(api.LEARNING)) is not None
        and (forgetting := arm.mean.get(api.FORGETTING)) is not None
    }


def most(result: EvaluationResult) -> str:
    """Which training learned most, and which forgot least, as a title."""
    untrained = {arm.label for arm in result.arms if arm.declared.trains_on == "nothing"}
    points = {label: point for label, point in _points(result).items() if label not in untrained}
    if len(points) < 2:
        return say("Learning against forgetting")
    learned = min(points, key=lambda label: points[label][0])
    kept = min(points, key=lambda label: points[label][1])
    if learned == kept:
        return say("{arm} learned most and forgot least, on average", arm=called(learned))
    return say(
        "{arm} learned most, {other} forgot least, on average",
        arm=called(learned),
        other=called(kept),
    )


def picture(result: EvaluationResult) -> go.Figure:
    """Learning against forgetting, one mark an arm with its interval."""
    points = _points(result)
    shown = [arm for arm in result.arms if arm.label in points]
    base = next(points[arm.label][1] for arm in shown if arm.declared.trains_on == "nothing")
    noise, front = None, []
    if isinstance(result, TuneResult):
        noise, front = result.noise, result.front
    return charts.trade_off(
        [arm.label for arm in shown],
        [arm.kind for arm in shown],
        learning=[points[arm.label][0] for arm in shown],
        forgetting=[points[arm.label][1] - base for arm in shown],
        reach=[
            (
                _reach(arm, api.LEARNING, noise.learning if noise else None),
                _reach(arm, api.FORGETTING, noise.forgetting if noise else None),
            )
            for arm in shown
        ],
        front=front,
    )


def second_test(result: EvaluationResult) -> None:
    """The winner of a search once more, with fresh seeds, on samples that no pilot saw."""
    if isinstance(result, TuneResult) and result.confirmation_arms:
        shown = measured.table(result, result.confirmation_arms, {}).drop(
            columns=["steps", "seconds"]
        )
        with st.expander(say("The second test of the winner")):
            st.dataframe(
                shown.assign(arm=shown["arm"].map(called)),
                hide_index=True,
                column_config=measured.explained(result),
                alt=say("The winner and random under fresh seeds"),
            )


def _reach(arm: ArmResult, metric: str, noise: float | None) -> float:
    """Half the width of what is drawn around a mark; of a single pilot, the noise of one."""
    reach = arm.reach(metric)
    if reach is not None:
        return reach
    return noise or 0.0 if arm.declared.chosen else 0.0


def curves(result: EvaluationResult) -> go.Figure:
    """Training loss of every arm, first seed."""
    return charts.training_curves(
        {arm.label: arm.seeds[0].curve for arm in result.arms},
        [arm.kind for arm in result.arms],
    )


def replay(result: EvaluationResult) -> None:
    """What mixing general rows in does to learning and forgetting, where it was tried."""
    if not result.replay:
        return
    paths = {
        label: [(point.share, point.learning, point.forgetting) for point in points]
        for label, points in result.replay.items()
    }
    with st.expander(say("With general examples mixed in")):
        st.plotly_chart(
            charts.replay(paths, [arm.kind for arm in result.arms if arm.label in paths]),
            key="replay",
            alt=say("Held-out loss against rise of general loss, by share of replay"),
        )
        st.caption(
            say(
                "Beside each mark: the share of general examples. Higher up and further left is"
                " better."
            )
        )


def compares_sizes(result: EvaluationResult) -> bool:
    """Whether a curve over sizes was measured."""
    return any(point.criterion != WHOLE for point in result.curve)


def budgets(result: EvaluationResult) -> None:
    """What each way of choosing learns and forgets at each size."""
    whole = [point for point in result.curve if point.criterion == WHOLE]
    parts = [point for point in result.curve if point.criterion != WHOLE]
    lines = {
        name: [
            (
                point.budget,
                (point.learning, point.learning_interval),
                (point.forgetting, point.forgetting_interval),
            )
            for point in result.curve
            if point.criterion == name or point in whole
        ]
        for name in dict.fromkeys(point.criterion for point in parts)
    }
    gains = [(point, point.gain) for point in parts if point.gain is not None]
    st.markdown("#### " + words.literal(_enough(gains)))
    kinds = ["random" if name == "random" else "criterion" for name in lines]
    st.plotly_chart(
        charts.budgets(lines, kinds),
        key="budgets",
        alt=say("Held-out loss, and rise of general loss, over the size of the subset"),
    )
    bands = say("Bands: 95% interval over repetitions. Higher up is better in both.")
    if gains:
        listed = words.literal(
            say("; ").join(
                f"{called(point.criterion)} {point.budget:g}%: {gain:.0%}" for point, gain in gains
            )
        )
        bands = say("{bands} Of what everything gains: {gains}.", bands=bands, gains=listed)
    st.caption(bands)


def _enough(gains: list[tuple[BudgetPoint, float]]) -> str:
    """The smallest size that gains nearly what everything does, or the one that gains most."""
    if not gains:
        return say("How much is enough?")
    enough = [(point, gain) for point, gain in gains if gain >= ENOUGH]
    if enough:
        point, gain = min(enough, key=lambda found: (found[0].budget, -found[1]))
        text = mark("How much is enough? {size:g}% by {way} gain {gain:.0%} of what all gain")
    else:
        point, gain = max(gains, key=lambda found: found[1])
        text = mark(
            "How much is enough? At most {gain:.0%} of what all gain was reached, at {size:g}% by"
            " {way}"
        )
    return say(text, size=point.budget, way=called(point.criterion), gain=gain)


def answers(found: Answers) -> None:
    """What the trained models say to held-out questions, side by side."""
    labels = list(found.prompts[0].answers) if found.prompts else []
    if len(labels) > ANSWERS:
        labels = st.multiselect(
            say("Answers of"),
            labels,
            default=labels[:ANSWERS],
            format_func=called,
            key="answering",
            max_selections=4,
        )
    for prompt in found.prompts:
        st.markdown(f"**{words.literal(words.shorten(prompt.prompt, 300))}**")
        wrote = {label: prompt.answers.get(label, "") for label in labels}
        said = [(say("reference"), prompt.reference)]
        said += [(called(label), text) for label, text in wrote.items()]
        for place, (label, text) in zip(st.columns(len(said)), said, strict=True):
            own = html.escape(text or say("(nothing)"))
            place.html(f'<div class="turn"><div class="who">{html.escape(label)}</div>{own}</div>')
