"""What an evaluation has measured: by arm, by file, what it cost, and what limits it."""

from typing import Any

import pandas as pd
import streamlit as st

from grads.api import ArmResult, EvaluationResult, Means, Overlap, Spent
from studio import evaluation_charts as charts
from studio import words
from studio.language import mark, say
from studio.stored import arm as called
from studio.stored import told

SETS = {  # what a file's verdict is about
    "heldout": mark("learning"),
    "general": mark("forgetting"),
}
SENTENCES = 3  # more of them are folded
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


def listed(title: str, lines: list[str]) -> None:
    """Sentences below each other; many of them are folded under a title."""
    with st.expander(title) if len(lines) > SENTENCES else st.container():
        for line in lines:
            st.markdown("- " + words.literal(line))


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


def explained(result: EvaluationResult) -> dict[str, Any]:
    """What the columns of a table are called, and what each measurement says, at its head."""
    named: dict[str, Any] = {name: say(text) for name, text in COLUMNS.items()}
    return named | {
        shown.label: st.column_config.Column(say(shown.label), help=told(shown.help))
        for shown in result.shown.values()
    }


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
            listed(say("Against random, {what}", what=what), lines)


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
    listed(say("When it pays"), lines)


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
    with st.expander(say("What it was measured on, and what limits it")):
        sets = [
            say(
                "{name}: {examples}",
                name=told(one.name),
                examples=words.count(one.samples, "example"),
            )
            for one in result.measured_on
        ]
        st.caption(words.literal(say("Measured on {sets}.", sets=say("; ").join(sets))))
        for note in result.notes:
            st.caption(words.literal(say("Note: {note}.", note=told(note))))


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
