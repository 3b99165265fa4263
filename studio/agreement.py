"""A second run on the same data beside the chosen one: do they find the same examples?"""

from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from grads import api
from grads.api import SCORE, Ranks, Run, RunAgreement, list_runs, runs_root
from studio import charts, url, words

TOLD_APART = 0.1  # the highest of each run that the picture marks


def compare(run: Run) -> None:
    """Choose another run, and see how far it ranks the same examples alike."""
    others = {other.id: other for other in list_runs(runs_root()) if _scored(other, run)}
    if not others:
        st.caption("There is no other scored run. Score these data with another model, or seed.")
        return
    seeds = {other.id: other for other in api.second_seeds(run)}
    places = st.columns(3)
    chosen = url.choose(
        places[0].selectbox,
        "Other run",
        list(others),
        "other",
        index=None,
        placeholder="choose",
        help="A run on the same data, with another model, other settings or another seed.",
    )
    if not chosen:
        return
    beside = [name for name in seeds if name != chosen]
    again = places[1].selectbox(
        "Second seed",
        beside,
        index=0 if beside else None,
        placeholder="none",
        help="A run with the settings of the chosen one and another seed: how much of the"
        " difference is chance.",
    )
    found = _agree(run, others[chosen], seeds[again] if again else None)
    _told(found)
    column = url.choose(
        places[2].selectbox, "Ranked by", list(found.columns), "ranked", format_func=label
    )
    left, right = st.columns(2, gap="medium")
    with left:
        picture, points = figure(found, column)
        st.plotly_chart(
            picture,
            key="ranks",
            alt=f"Places of {found.samples:,} examples in both runs by {label(column)}",
        )
        st.caption(f"Showing {points:,} of {words.count(found.samples, 'example')} as points.")
    with right:
        st.dataframe(_table(found), hide_index=True)
        st.caption(
            "Rank correlation is Spearman's. Below 5%, how much of the highest 5% of this run is"
            " also in that of the other; of two random rankings it would be 5%. So with the others."
            + (f" After the stroke: {_seed_run(found)}." if found.again else "")
        )


def figure(found: RunAgreement, column: str) -> tuple[go.Figure, int]:
    """The places of the shared examples in both runs by a column, and how many are points."""
    first, second = found.values[column]
    known = np.isfinite(first) & np.isfinite(second)
    first, second = first[known], second[known]
    names = [Path(path).name for path in (found.first, found.second)]
    return charts.ranks(
        first,
        second,
        highest=(api.highest(first, TOLD_APART), api.highest(second, TOLD_APART)),
        sample_id=found.sample_id[known],
        labels=(
            f"{label(column)} in {names[0]}: examples below, %",
            f"{label(column)} in {names[1]}: examples below, %",
        ),
    )


def label(column: str) -> str:
    """A compared column's name for people."""
    return "Score of the default selection" if column == SCORE else words.label(column)


def _scored(other: Run, run: Run) -> bool:
    return other.path != run.path and other.scores_file.exists()


def _agree(first: Run, second: Run, again: Run | None) -> RunAgreement:
    runs = [run for run in (first, second, again) if run is not None]
    stamps = tuple(run.scores_file.stat().st_mtime_ns for run in runs)
    return _remembered(tuple(str(run.path) for run in runs), stamps)


@st.cache_data(max_entries=8, show_spinner="Comparing the runs")
def _remembered(paths: tuple[str, ...], stamps: tuple[int, ...]) -> RunAgreement:
    return api.agree(*map(Run, paths))


def _told(found: RunAgreement) -> None:
    """What the runs share, and in what they differ."""
    same = {"row": "rows and texts", "text": "texts"}[found.joined_by]
    shared = f"{words.count(found.samples, 'example')} with the same {same}"
    only = f"{found.only_first:,} are scored here alone, {found.only_second:,} there alone"
    named = ", ".join(words.literal(name.replace("_", " ")) for name in found.differ)
    st.markdown(f"{shared}; {only}. " + (f"The runs differ in {named}." if named else ""))
    if not found.again:
        st.caption(
            "How much a second seed alone changes is not known: run these settings again with"
            " another seed."
        )


def _table(found: RunAgreement) -> list[dict[str, str]]:
    rows = []
    for name, one in found.columns.items():
        cells, beside = _cells(one), found.by_seed.get(name)
        if beside is not None:
            cells = {title: f"{cells[title]} / {cell}" for title, cell in _cells(beside).items()}
        rows.append({"Column": label(name)} | cells)
    return rows


def _cells(one: Ranks) -> dict[str, str]:
    overlap = {f"{share:.0%}": f"{value:.0%}" for share, value in one.overlap.items()}
    return {"Rank correlation": f"{one.rank_correlation:.2f}"} | overlap


def _seed_run(found: RunAgreement) -> str:
    return f"the same against the second seed, {words.literal(Path(str(found.again)).name)}"
