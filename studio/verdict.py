"""What an evaluation shows: the verdict in words, the picture, the table, answers, the price."""

import html
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from grads import api
from grads.api import ACTIVE
from studio import evaluation_charts as charts
from studio import words

LEARNED = {
    "better": "It learned more than a random subset",
    "worse": "It learned less than a random subset",
    "no difference seen": "No difference seen from a random subset",
}
SENTENCES = 3  # more of them are folded
ANSWERS = 3  # arms whose answers are shown at first
FORGOT = {
    "better": ", and forgot less",
    "worse": ", and forgot more",
    "no difference seen": "",
}


def against_random(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The comparisons that matter most: each chosen subset with a random one of its size."""
    found = [c for c in result["comparisons"] if c["against_kind"].startswith("random")]
    return [c for c in found if not c["kind"].startswith("random")]


def sentence(found: dict[str, Any]) -> str:
    """The headline of an evaluation."""
    result, state = found["result"], found["status"]["state"]
    if result is None or not result["finished"]:
        if state in ACTIVE:
            return "Measuring whether it helped"
        return f"The measurement {'has' if state == 'failed' else 'is'} {words.STATES[state][0]}"
    main = [result["confirmation"]] if result.get("confirmation") else against_random(result)
    main = [one for one in main if not one["kind"].endswith("_steps")] or main  # a subset once
    if not main:
        return "No setting beat random" if result.get("kind") == "tune" else "Measured"
    first = main[0]
    if first["seeds"] < 2:
        return "Compared once only: that tells nothing yet"
    if len(main) > 1:
        return _counted(main)
    return LEARNED[first["learning"]] + FORGOT[first["forgetting"]]


def _counted(compared: list[dict[str, Any]]) -> str:
    """How many of several subsets differ from random ones."""
    said = []
    for what, verdict, phrase in (
        ("learning", "better", "learned more"),
        ("learning", "worse", "learned less"),
        ("forgetting", "better", "forgot less"),
        ("forgetting", "worse", "forgot more"),
    ):
        count = sum(one[what] == verdict for one in compared)
        if count:
            said.append(f"{count} {phrase}")
    if not said:
        none = "Neither" if len(compared) == 2 else "None"
        return f"{none} of {len(compared)} subsets differs from random ones"
    return f"Of {len(compared)} subsets, {', '.join(said)} than random ones"


def verdicts(result: dict[str, Any]) -> None:
    """The verdicts, each in a sentence for people."""
    if result.get("sentence"):
        st.markdown(words.literal(result["sentence"]))
        return
    _listed("Each in a sentence", [one["sentence"] for one in against_random(result)])


def _listed(title: str, lines: list[str]) -> None:
    """Sentences below each other; many of them are folded under a title."""
    with st.expander(title) if len(lines) > SENTENCES else st.container():
        for line in lines:
            st.markdown("- " + words.literal(line))


def against(result: dict[str, Any]) -> None:
    """Each subset's difference from random ones, with its interval."""
    compared = [one for one in against_random(result) if one["seeds"] > 1]
    if not compared:
        return
    compared.sort(key=lambda one: one["metrics"]["heldout_loss"]["difference"])
    rows = [
        [
            (found["difference"], found["low"], found["high"], found["verdict"])
            for found in (one["metrics"][metric] for one in compared)
        ]
        for metric in ("heldout_loss", "general_loss")
    ]
    st.markdown("#### Against random subsets of the same size")
    st.plotly_chart(
        charts.differences([one["arm"] for one in compared], *rows),
        key="against-random",
        alt="Held-out and general loss of each subset minus those of random subsets",
    )
    st.caption("Lines: 95% interval over repetitions. One that crosses zero shows no difference.")


def picture(result: dict[str, Any]) -> go.Figure:
    """Learning against forgetting, one mark an arm with its interval."""
    shown = [arm for arm in result["arms"] if arm["mean"]["heldout_loss"] is not None]
    base = next(arm["mean"]["general_loss"] for arm in shown if arm["kind"] == "base")
    noise = result.get("noise") or {}
    return charts.trade_off(
        [arm["label"] for arm in shown],
        [arm["kind"] for arm in shown],
        [arm["mean"]["heldout_loss"] for arm in shown],
        [arm["mean"]["general_loss"] - base for arm in shown],
        [
            (
                _reach(arm, "heldout_loss", noise.get("learning")),
                _reach(arm, "general_loss", noise.get("forgetting")),
            )
            for arm in shown
        ],
        result.get("front", ()),
    )


def second_test(result: dict[str, Any]) -> None:
    """The winner of a search once more, with fresh seeds, on samples that no pilot saw."""
    if result.get("confirmation_arms"):
        st.markdown("#### The second test of the winner")
        shown = table({**result, "arms": result["confirmation_arms"]}).drop(
            columns=["steps", "seconds"]
        )
        st.dataframe(shown, hide_index=True, alt="The winner and random under fresh seeds")


def _reach(arm: dict[str, Any], metric: str, noise: float | None) -> float:
    interval = arm["interval"][metric]
    if interval:
        return float(interval[1] - interval[0]) / 2
    return float(noise or 0.0) if arm["kind"] == "criterion" else 0.0


def table(result: dict[str, Any]) -> pd.DataFrame:
    """A row an arm: means with half the width of their 95% interval."""
    rows = []
    for arm in result["arms"]:
        row = {"arm": arm["label"], "examples": arm["samples"], "trainings": len(arm["seeds"])}
        for metric, shown in api.METRICS.items():
            mean, interval = arm["mean"].get(metric), arm["interval"].get(metric)
            if mean is not None:
                spread = f" ± {(interval[1] - interval[0]) / 2:.3f}" if interval else ""
                row[shown.label] = f"{mean:.3f}{spread}"
        price = result["price"]["training"].get(arm["label"], {})
        row |= {"steps": round(price.get("steps", 0)), "seconds": round(price.get("seconds", 0))}
        rows.append(row)
    return pd.DataFrame(rows)


def price(result: dict[str, Any]) -> None:
    """What everything took, and when choosing pays for itself."""
    costs = result["price"]
    st.markdown(
        f"Choosing cost a warm-up of {words.duration(costs['warm-up']['seconds'])} and a scoring of"
        f" {words.duration(costs['scoring']['seconds'])}."
    )
    evens = result["break_even"].items()
    _listed("When it pays", [f"{label}: {even['sentence']}." for label, even in evens])


def remarks(result: dict[str, Any]) -> None:
    """What limits the verdict."""
    near = len({pair["heldout"] for pair in result["leaks"]["near_duplicates"]})
    if near:
        st.warning(
            f"{words.count(near, 'held-out example')} nearly repeat examples to train on: they make"
            " every arm look better than it is.",
            icon=":material/warning:",
        )
    measured = [result["heldout"], *result["general"]]
    sets = "; ".join(f"{m['name']}: {words.count(m['samples'], 'example')}" for m in measured)
    st.caption(words.literal(f"Measured on {sets}."))
    for note in result["notes"]:
        st.caption(words.literal(f"Note: {note}."))


def curves(result: dict[str, Any]) -> go.Figure:
    """Training loss of every arm, first seed."""
    return charts.training_curves(
        {arm["label"]: arm["seeds"][0]["curve"] for arm in result["arms"]},
        [arm["kind"] for arm in result["arms"]],
    )


def answers(found: dict[str, Any]) -> None:
    """What the trained models say to held-out questions, side by side."""
    prompts = (found["answers"] or {}).get("prompts", [])
    labels = list(prompts[0]["answers"]) if prompts else []
    if len(labels) > ANSWERS:
        labels = st.multiselect(
            "Answers of", labels, default=labels[:ANSWERS], key="answering", max_selections=4
        )
    for prompt in prompts:
        st.markdown(f"**{words.literal(words.shorten(prompt['prompt'], 300))}**")
        wrote = {label: prompt["answers"].get(label, "") for label in labels}
        said = {"reference": prompt["reference"], **wrote}
        for place, (label, text) in zip(st.columns(len(said)), said.items(), strict=True):
            own = html.escape(text) or "(nothing)"
            place.html(f'<div class="turn"><div class="who">{html.escape(label)}</div>{own}</div>')


def overlaps(found: dict[str, Any]) -> None:
    """How the grid's subsets relate, without any training."""
    labels = found["labels"]
    st.plotly_chart(
        charts.overlap(labels, found["jaccard"]),
        key="overlap",
        alt="Share of examples that each two settings have in common",
    )
    st.caption(
        f"Shared examples in percent of both; two unrelated random subsets would share"
        f" {100 * found['by_chance']:.0f}%. Random draws (random, and all called “sample”) have one"
        " seed here, so they share more."
    )
    rows = [*found["subsets"], {"label": "all examples", **found["pool"]}]
    names = {"label": "setting", "samples": "examples", "response_tokens": "mean answer tokens"}
    shown = pd.DataFrame(rows).rename(columns=names | {"loss": "mean surprise"})
    st.dataframe(shown.round(2), hide_index=True, alt="Length and loss of each setting")
