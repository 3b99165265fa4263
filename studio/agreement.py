"""A second run on the same data beside the chosen one: do they find the same examples?"""

from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from grads import api
from grads.api import SCORE, Ranks, Run, RunAgreement, list_runs, runs_root
from studio import charts, url, words
from studio.language import mark, say

TOLD_APART = 0.1  # the highest of each run that the picture marks
COLUMN, CORRELATION = mark("Column"), mark("Rank correlation")
JOINED = {
    "row": mark("{examples} with the same rows and texts"),
    "text": mark("{examples} with the same texts"),
}


def compare(run: Run) -> None:
    """Choose another run, and see how far it ranks the same examples alike."""
    others = {other.id: other for other in list_runs(runs_root()) if _scored(other, run)}
    if not others:
        st.caption(
            say("There is no other scored run. Score these data with another model, or seed.")
        )
        return
    seeds = {other.id: other for other in api.second_seeds(run)}
    chosen = url.choose(
        st.selectbox,
        say("Other run"),
        list(others),
        "other",
        index=None,
        placeholder=say("choose"),
        help=say("A run on the same data, with another model, other settings or another seed."),
    )
    if not chosen:
        return
    beside = [name for name in seeds if name != chosen]
    again = st.selectbox(
        say("Second seed"),
        beside,
        index=0 if beside else None,
        placeholder=say("none"),
        help=say(
            "A run with the settings of the chosen one and another seed: how much of the"
            " difference is chance."
        ),
    )
    found = _agree(run, others[chosen], seeds[again] if again else None)
    _told(found)
    column = url.choose(
        st.selectbox, say("Ranked by"), list(found.columns), "ranked", format_func=label
    )
    _pictured(found, column)
    _in_numbers(found)


def _pictured(found: RunAgreement, column: str) -> None:
    pictures = figures(found, column)
    for title, picture, _ in pictures:
        if title:
            st.markdown(f"**{title}**")
        st.plotly_chart(
            picture,
            key=f"ranks-{title}",
            alt=say(
                "Places of {count:,} examples in both runs by {column}",
                count=found.samples,
                column=label(column),
            ),
        )
    examples = words.count(found.samples, "example")
    st.caption(
        say("Showing {shown:,} of {examples} as points.", shown=pictures[0][2], examples=examples)
    )


def _in_numbers(found: RunAgreement) -> None:
    st.dataframe(
        _table(found),
        hide_index=True,
        column_config={CORRELATION: say(CORRELATION), COLUMN: say(COLUMN)},
    )
    told = say(
        "Rank correlation is Spearman's. Below 5%, how much of the highest 5% of this run is"
        " also in that of the other; of two random rankings it would be 5%. So with the others."
    )
    if found.again:
        told = say(
            "{before} After the stroke: the same against the second seed, {run}.",
            before=told,
            run=words.literal(Path(found.again).name),
        )
    st.caption(told)


def figures(found: RunAgreement, column: str) -> list[tuple[str, go.Figure, int]]:
    """The places of the shared examples in both runs by a column, and how many are points.

    Where a second seed stands beside, what that one alone changes is a second picture; then both
    have a title.
    """
    if column not in found.seed_values or not found.again:
        return [("", *_places(found, found.second, found.values[column], column))]
    return [
        (say("The two runs"), *_places(found, found.second, found.values[column], column)),
        (
            say("What a second seed alone changes"),
            *_places(found, found.again, found.seed_values[column], column),
        ),
    ]


def _places(
    found: RunAgreement, other: str, values: tuple[np.ndarray, np.ndarray], column: str
) -> tuple[go.Figure, int]:
    first, second = values
    known = np.isfinite(first) & np.isfinite(second)
    first, second = first[known], second[known]
    names = [Path(path).name for path in (found.first, other)]
    return charts.ranks(
        first,
        second,
        highest=(api.highest(first, TOLD_APART), api.highest(second, TOLD_APART)),
        sample_id=found.sample_id[known],
        labels=(
            say("{column} in {run}: examples below, %", column=label(column), run=names[0]),
            say("{column} in {run}: examples below, %", column=label(column), run=names[1]),
        ),
    )


def label(column: str) -> str:
    """A compared column's name for people."""
    return say("Score of the default selection") if column == SCORE else words.label(column)


def _scored(other: Run, run: Run) -> bool:
    return other.path != run.path and other.scores_file.exists()


def _agree(first: Run, second: Run, again: Run | None) -> RunAgreement:
    runs = [run for run in (first, second, again) if run is not None]
    stamps = tuple(run.scores_file.stat().st_mtime_ns for run in runs)
    with st.spinner(say("Comparing the runs")):
        return _remembered(tuple(str(run.path) for run in runs), stamps)


@st.cache_data(max_entries=8, show_spinner=False)
def _remembered(paths: tuple[str, ...], stamps: tuple[int, ...]) -> RunAgreement:
    return api.agree(*map(Run, paths))


def _told(found: RunAgreement) -> None:
    """What the runs share, and in what they differ."""
    shared = say(JOINED[found.joined_by], examples=words.count(found.samples, "example"))
    told = say(
        "{shared}; {here:,} are scored here alone, {there:,} there alone.",
        shared=shared,
        here=found.only_first,
        there=found.only_second,
    )
    named = [words.literal(say(name.replace("_", " "))) for name in found.differ]
    if named:
        told = say("{before} The runs differ in {names}.", before=told, names=say(", ").join(named))
    st.markdown(told)
    if not found.again:
        st.caption(
            say(
                "How much a second seed alone changes is not known: run these settings again with"
                " another seed."
            )
        )


def _table(found: RunAgreement) -> list[dict[str, str]]:
    rows = []
    for name, one in found.columns.items():
        cells, beside = _cells(one), found.by_seed.get(name)
        if beside is not None:
            cells = {title: f"{cells[title]} / {cell}" for title, cell in _cells(beside).items()}
        rows.append({COLUMN: label(name)} | cells)
    return rows


def _cells(one: Ranks) -> dict[str, str]:
    overlap = {f"{share:.0%}": f"{value:.0%}" for share, value in one.overlap.items()}
    return {CORRELATION: f"{one.rank_correlation:.2f}"} | overlap
