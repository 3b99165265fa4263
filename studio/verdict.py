"""What an evaluation shows: the verdict in words, the pictures, the answers."""

import html

import plotly.graph_objects as go
import streamlit as st

from grads import api
from grads.api import (
    ACTIVE,
    Answers,
    ArmResult,
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
    first = main[0]
    if first.seeds < 2:
        return say("Compared once only: that tells nothing yet")
    if len(main) > 1:
        return _counted(main)
    return say(FORGOT[first.forgetting], learned=say(LEARNED[first.learning]))


def decision(found: FoundEvaluation) -> str:
    """The headline: what a part of the examples is worth, and whether choosing it beat chance."""
    said = sentence(found)
    worth = gained(found.result) if found.result is not None and found.result.finished else None
    if not worth:
        return said
    return say("{worth}; {verdict}", worth=worth, verdict=said[0].lower() + said[1:])


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


def _counted(compared: list[Comparison]) -> str:
    """How many of several subsets differ from random ones."""
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
    """Each subset's difference from random ones, with its interval."""
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
    st.markdown("#### " + say("Against random subsets of the same size"))
    st.plotly_chart(
        charts.differences([one.arm for one in compared], *rows),
        key="against-random",
        alt=say("Held-out and general loss of each subset minus those of random subsets"),
    )
    st.caption(
        say("Lines: 95% interval over repetitions. One that crosses zero shows no difference.")
    )


def picture(result: EvaluationResult) -> go.Figure:
    """Learning against forgetting, one mark an arm with its interval."""
    points = {
        arm.label: (learning, forgetting)
        for arm in result.arms
        if (learning := arm.mean.get(api.LEARNING)) is not None
        and (forgetting := arm.mean.get(api.FORGETTING)) is not None
    }
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
        st.markdown("#### " + say("The second test of the winner"))
        shown = measured.table(result, result.confirmation_arms, {}).drop(
            columns=["steps", "seconds"]
        )
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
    st.markdown("#### " + say("With general examples mixed in"))
    paths = {
        label: [(point.share, point.learning, point.forgetting) for point in points]
        for label, points in result.replay.items()
    }
    st.plotly_chart(
        charts.replay(paths, [arm.kind for arm in result.arms if arm.label in paths]),
        key="replay",
        alt=say("Held-out loss against rise of general loss, by share of replay"),
    )
    st.caption(
        say(
            "Beside each mark: the share of general examples. Higher up and further left is better."
        )
    )


def budgets(result: EvaluationResult) -> None:
    """What each way of choosing comes to at each size, where sizes were compared."""
    whole = [point for point in result.curve if point.criterion == "everything"]
    names = dict.fromkeys(point.criterion for point in result.curve if point not in whole)
    if not names:
        return
    lines = {
        name: [
            (point.budget, point.learning, point.learning_interval)
            for point in result.curve
            if point.criterion == name or point in whole
        ]
        for name in names
    }
    st.markdown("#### " + say("How much is enough?"))
    kinds = ["random" if name == "random" else "criterion" for name in names]
    st.plotly_chart(
        charts.budgets(lines, kinds),
        key="budgets",
        alt=say("Held-out loss over the size of the subset"),
    )
    gains = [
        f"{called(point.criterion)} {point.budget:g}%: {point.gain:.0%}"
        for point in result.curve
        if point.gain is not None and point not in whole
    ]
    bands = say("Bands: 95% interval over repetitions.")
    if gains:
        listed = words.literal(say("; ").join(gains))
        bands = say("{bands} Of what everything gains: {gains}.", bands=bands, gains=listed)
    st.caption(bands)


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
