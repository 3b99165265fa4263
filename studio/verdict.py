"""What an evaluation shows: the verdict in words, the picture, the table, answers, the price."""

import html
from typing import Any

import pandas as pd
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
    Means,
    Overlap,
    Spent,
    TuneResult,
)
from studio import evaluation_charts as charts
from studio import words

LEARNED = {
    "better": "It learned more than a random subset",
    "worse": "It learned less than a random subset",
    "no difference seen": "No difference seen from a random subset",
}
SETS = {"heldout": "learning", "general": "forgetting"}  # what a file's verdict is about
SENTENCES = 3  # more of them are folded
ANSWERS = 3  # arms whose answers are shown at first
FORGOT = {
    "better": ", and forgot less",
    "worse": ", and forgot more",
    "no difference seen": "",
}


def against_random(result: EvaluationResult) -> list[Comparison]:
    """The comparisons that matter most: each chosen subset with a random one of its size."""
    return [one for one in result.comparisons if one.theirs.random and not one.ours.random]


def sentence(found: FoundEvaluation) -> str:
    """The headline of an evaluation."""
    result, state = found.result, found.status.state
    if result is None or not result.finished:
        if state in ACTIVE:
            return "Measuring whether it helped"
        return f"The measurement {'has' if state == 'failed' else 'is'} {words.STATES[state][0]}"
    confirmed = result.confirmation if isinstance(result, TuneResult) else None
    main = [confirmed] if confirmed else against_random(result)
    main = [one for one in main if not one.ours.as_long_as_full] or main  # a subset once
    if not main:
        return "No setting beat random" if isinstance(result, TuneResult) else "Measured"
    first = main[0]
    if first.seeds < 2:
        return "Compared once only: that tells nothing yet"
    if len(main) > 1:
        return _counted(main)
    return LEARNED[first.learning] + FORGOT[first.forgetting]


def decision(found: FoundEvaluation) -> str:
    """The headline: what a part of the examples is worth, and whether choosing it beat chance."""
    said = sentence(found)
    worth = gained(found.result) if found.result is not None and found.result.finished else None
    return f"{worth}; {said[0].lower()}{said[1:]}" if worth else said


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
    share = words.share(best.samples, whole[0].samples)
    return f"{share} of the examples gain {(start - learned) / (start - end):.0%} of what all gain"


def _counted(compared: list[Comparison]) -> str:
    """How many of several subsets differ from random ones."""
    said = []
    for what, verdict, phrase in (
        ("learning", "better", "learned more"),
        ("learning", "worse", "learned less"),
        ("forgetting", "better", "forgot less"),
        ("forgetting", "worse", "forgot more"),
    ):
        count = sum(getattr(one, what) == verdict for one in compared)
        if count:
            said.append(f"{count} {phrase}")
    if not said:
        none = "Neither" if len(compared) == 2 else "None"
        return f"{none} of {len(compared)} subsets differs from random ones"
    return f"Of {len(compared)} subsets, {', '.join(said)} than random ones"


def verdicts(result: EvaluationResult) -> None:
    """The verdicts, each in a sentence for people."""
    if isinstance(result, TuneResult):
        st.markdown(words.literal(result.sentence))
        return
    _listed("Each in a sentence", [one.sentence for one in against_random(result)])


def _listed(title: str, lines: list[str]) -> None:
    """Sentences below each other; many of them are folded under a title."""
    with st.expander(title) if len(lines) > SENTENCES else st.container():
        for line in lines:
            st.markdown("- " + words.literal(line))


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
    st.markdown("#### Against random subsets of the same size")
    st.plotly_chart(
        charts.differences([one.arm for one in compared], *rows),
        key="against-random",
        alt="Held-out and general loss of each subset minus those of random subsets",
    )
    st.caption("Lines: 95% interval over repetitions. One that crosses zero shows no difference.")


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
        st.markdown("#### The second test of the winner")
        shown = table(result, result.confirmation_arms, {}).drop(columns=["steps", "seconds"])
        st.dataframe(shown, hide_index=True, alt="The winner and random under fresh seeds")


def _reach(arm: ArmResult, metric: str, noise: float | None) -> float:
    """Half the width of what is drawn around a mark; of a single pilot, the noise of one."""
    reach = arm.reach(metric)
    if reach is not None:
        return reach
    return noise or 0.0 if arm.declared.chosen else 0.0


def table(
    result: EvaluationResult, arms: list[ArmResult], training: dict[str, Spent]
) -> pd.DataFrame:
    """A row an arm: means with half the width of their 95% interval, and the price by label."""
    rows = []
    for arm in arms:
        row: dict[str, Any] = {"arm": arm.label, "examples": arm.samples}
        row |= {"trainings": len(arm.seeds)} | _measured(result, arm)
        price = training.get(arm.label)
        row |= {
            "steps": round(price.steps) if price else 0,
            "seconds": round(price.seconds) if price else 0,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _measured(result: EvaluationResult, arm: Means) -> dict[str, str]:
    """An arm's means by what they are called, with half the width of their interval."""
    found = {}
    for metric, shown in result.shown.items():
        mean, reach = arm.mean.get(metric), arm.reach(metric)
        if mean is not None:
            spread = f" ± {reach:.3f}" if reach is not None else ""
            found[shown.label] = f"{mean:.3f}{spread}"
    return found


def by_file(result: EvaluationResult) -> None:
    """Each file's own table and verdicts, where several are held out, or general."""
    if not result.by_file:
        return
    st.markdown("#### File by file")
    tabs = st.tabs([words.literal(file.name) for file in result.by_file])
    for tab, file in zip(tabs, result.by_file, strict=True):
        with tab:
            rows = [{"arm": arm.label, **_measured(result, arm)} for arm in file.arms]
            st.dataframe(
                pd.DataFrame(rows),
                hide_index=True,
                key=f"{file.probe}-{file.name}",
                column_config=explained(result),
                alt=f"Every arm on {file.name}",
            )
            what = SETS[file.probe]
            told = [one for one in file.comparisons if one.theirs.random and not one.ours.random]
            _listed(
                f"Against random, {what}",
                [f"{one.arm} against {one.against}, {what}: {one.verdict}" for one in told],
            )


def explained(result: EvaluationResult) -> dict[str, Any]:
    """What each measurement in the table says, at its column's head."""
    return {
        shown.label: st.column_config.Column(help=shown.help) for shown in result.shown.values()
    }


def price(result: EvaluationResult) -> None:
    """What everything took, and when choosing pays for itself."""
    costs = result.price
    st.markdown(
        f"Choosing cost a warm-up of {words.duration(costs.warm_up.seconds)} and a scoring of"
        f" {words.duration(costs.scoring.seconds)}."
    )
    evens = result.break_even.items()
    _listed("When it pays", [f"{label}: {even.sentence}." for label, even in evens])


def remarks(result: EvaluationResult) -> None:
    """What limits the verdict."""
    near = result.leaks.samples
    if near:
        st.warning(
            f"{words.count(near, 'held-out example')} nearly repeat examples to train on: they make"
            " every arm look better than it is.",
            icon=":material/warning:",
        )
    sets = "; ".join(
        f"{one.name}: {words.count(one.samples, 'example')}" for one in result.measured_on
    )
    st.caption(words.literal(f"Measured on {sets}."))
    for note in result.notes:
        st.caption(words.literal(f"Note: {note}."))


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
    st.markdown("#### With general examples mixed in")
    paths = {
        label: [(point.share, point.learning, point.forgetting) for point in points]
        for label, points in result.replay.items()
    }
    st.plotly_chart(
        charts.replay(paths, [arm.kind for arm in result.arms if arm.label in paths]),
        key="replay",
        alt="Held-out loss against rise of general loss, by share of replay",
    )
    st.caption(
        "Beside each mark: the share of general examples. Higher up and further left is better."
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
    st.markdown("#### How much is enough?")
    kinds = ["random" if name == "random" else "criterion" for name in names]
    st.plotly_chart(
        charts.budgets(lines, kinds), key="budgets", alt="Held-out loss over the size of the subset"
    )
    gains = [
        f"{point.criterion} {point.budget:g}%: {point.gain:.0%}"
        for point in result.curve
        if point.gain is not None and point not in whole
    ]
    told = f" Of what everything gains: {'; '.join(gains)}." if gains else ""
    st.caption("Bands: 95% interval over repetitions." + words.literal(told))


def answers(found: Answers) -> None:
    """What the trained models say to held-out questions, side by side."""
    labels = list(found.prompts[0].answers) if found.prompts else []
    if len(labels) > ANSWERS:
        labels = st.multiselect(
            "Answers of", labels, default=labels[:ANSWERS], key="answering", max_selections=4
        )
    for prompt in found.prompts:
        st.markdown(f"**{words.literal(words.shorten(prompt.prompt, 300))}**")
        wrote = {label: prompt.answers.get(label, "") for label in labels}
        said = {"reference": prompt.reference, **wrote}
        for place, (label, text) in zip(st.columns(len(said)), said.items(), strict=True):
            own = html.escape(text) or "(nothing)"
            place.html(f'<div class="turn"><div class="who">{html.escape(label)}</div>{own}</div>')


def overlaps(found: Overlap) -> None:
    """How the grid's subsets relate, without any training."""
    st.plotly_chart(
        charts.overlap(found.labels, found.jaccard),
        key="overlap",
        alt="Share of examples that each two settings have in common",
    )
    st.caption(
        f"Shared examples in percent of both; two unrelated random subsets would share"
        f" {100 * found.by_chance:.0f}%. Random draws (random, and all called “sample”) have one"
        " seed here, so they share more."
    )
    everything = {"label": "all examples", **found.pool.as_json()}
    columns = list(everything)
    rows = [*(row.as_json() for row in found.subsets), everything]
    names = {"label": "setting", "samples": "examples", "response_tokens": "mean answer tokens"}
    shown = pd.DataFrame(rows)[columns].rename(columns=names | {"loss": "mean surprise"})
    st.dataframe(shown.round(2), hide_index=True, alt="Length and loss of each setting")
