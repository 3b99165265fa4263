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
from studio.language import mark, say
from studio.told import arm as called
from studio.told import told

LEARNED = {
    "better": mark("It learned more than a random subset"),
    "worse": mark("It learned less than a random subset"),
    "no difference seen": mark("No difference seen from a random subset"),
}
# What a file's verdict is about.
SETS = {"heldout": mark("learning"), "general": mark("forgetting")}
SENTENCES = 3  # more of them are folded
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
COLUMNS = {  # of the tables, as they stand in a file, beside the measurements
    "arm": mark("arm"),
    "examples": mark("examples"),
    "trainings": mark("trainings"),
    "steps": mark("steps"),
    "seconds": mark("seconds"),
}
MEANS = {  # of the grid's settings
    "label": mark("setting"),
    "samples": mark("examples"),
    "response_tokens": mark("mean answer tokens"),
    "loss": mark("mean surprise"),
}


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
    _listed(say("Each in a sentence"), [told(one.sentence) for one in against_random(result)])


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
        shown = table(result, result.confirmation_arms, {}).drop(columns=["steps", "seconds"])
        st.dataframe(
            shown.assign(arm=shown["arm"].map(called)),
            hide_index=True,
            column_config=explained(result),
            alt=say("The winner and random under fresh seeds"),
        )


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
    st.markdown("#### " + say("File by file"))
    tabs = st.tabs([words.literal(file.name) for file in result.by_file])
    for tab, file in zip(tabs, result.by_file, strict=True):
        with tab:
            rows = [{"arm": called(arm.label), **_measured(result, arm)} for arm in file.arms]
            st.dataframe(
                pd.DataFrame(rows),
                hide_index=True,
                key=f"{file.probe}-{file.name}",
                column_config=explained(result),
                alt=say("Every arm on {file}", file=file.name),
            )
            what = say(SETS[file.probe])
            chosen = [one for one in file.comparisons if one.theirs.random and not one.ours.random]
            lines = [
                say(
                    "{arm} against {other}, {what}: {verdict}",
                    arm=called(one.arm),
                    other=called(one.against),
                    what=what,
                    verdict=say(one.verdict),
                )
                for one in chosen
            ]
            _listed(say("Against random, {what}", what=what), lines)


def explained(result: EvaluationResult) -> dict[str, Any]:
    """What the columns of a table are called, and what each measurement says, at its head."""
    named: dict[str, Any] = {name: say(text) for name, text in COLUMNS.items()}
    return named | {
        shown.label: st.column_config.Column(say(shown.label), help=told(shown.help))
        for shown in result.shown.values()
    }


def price(result: EvaluationResult) -> None:
    """What everything took, and when choosing pays for itself."""
    costs = result.price
    st.markdown(
        say(
            "Choosing cost a warm-up of {warm_up} and a scoring of {scoring}.",
            warm_up=words.duration(costs.warm_up.seconds),
            scoring=words.duration(costs.scoring.seconds),
        )
    )
    lines = [
        say("{name}: {sentence}.", name=label, sentence=told(even.sentence))
        for label, even in result.break_even.items()
    ]
    _listed(say("When it pays"), lines)


def remarks(result: EvaluationResult) -> None:
    """What limits the verdict."""
    near = result.leaks.samples
    if near:
        st.warning(
            say(
                "{examples} nearly repeat examples to train on: they make every arm look better"
                " than it is.",
                examples=words.count(near, "held-out example"),
            ),
            icon=":material/warning:",
        )
    sets = [
        say("{name}: {examples}", name=told(one.name), examples=words.count(one.samples, "example"))
        for one in result.measured_on
    ]
    st.caption(words.literal(say("Measured on {sets}.", sets=say("; ").join(sets))))
    for note in result.notes:
        st.caption(words.literal(say("Note: {note}.", note=told(note))))


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


def overlaps(found: Overlap) -> None:
    """How the grid's subsets relate, without any training."""
    st.plotly_chart(
        charts.overlap(found.labels, found.jaccard),
        key="overlap",
        alt=say("Share of examples that each two settings have in common"),
    )
    st.caption(
        say(
            "Shared examples in percent of both; two unrelated random subsets would share"
            " {share:.0f}%. Random draws (random, and all called “sample”) have one seed here, so"
            " they share more.",
            share=100 * found.by_chance,
        )
    )
    everything = {"label": say("all examples"), **found.pool.as_json()}
    columns = list(everything)
    rows = [*(row.as_json() for row in found.subsets), everything]
    shown = pd.DataFrame(rows)[columns]
    shown["label"] = shown["label"].map(called)
    shown = shown.rename(columns={name: say(MEANS[name]) for name in columns})
    st.dataframe(shown.round(2), hide_index=True, alt=say("Length and loss of each setting"))
