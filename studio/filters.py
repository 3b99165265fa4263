"""Which samples Explore looks at: brushed in a picture, searched, or a topic; kept in the URL."""

import itertools
from typing import Any

import numpy as np
import streamlit as st

from grads.api import Bound, Categories, Filter, Pool
from studio import charts, url, words

WITHIN = "within"  # query parameter: COLUMN:LOW:HIGH, repeated
FATE = "kept or set aside"
LASSOS = "lassos"  # in the session only: a drawn shape is too long for a link


def bounds(parameter: str = WITHIN) -> tuple[Bound, ...]:
    """The ranges in the URL; what is no range there is left out."""
    found = []
    for text in st.query_params.get_all(parameter):
        column, *ends = text.rsplit(":", 2)
        try:
            low, high = (float(end) for end in ends)
            found.append(Bound(column=column, low=low, high=high))
        except ValueError:  # no numbers, or no range
            continue
    return tuple(found)


def set_bound(column: str, low: float, high: float, parameter: str = WITHIN) -> None:
    """Put a range into the URL; one a column."""
    drop_bound(column, parameter)
    text = f"{column}:{low:.10g}:{high:.10g}"
    st.query_params[parameter] = [*st.query_params.get_all(parameter), text]


def drop_bound(column: str, parameter: str = WITHIN) -> None:
    """Take a range out of the URL."""
    left = [t for t in st.query_params.get_all(parameter) if t.rsplit(":", 2)[0] != column]
    st.query_params[parameter] = left


def brushed(
    key: str,
    x: str,
    y: str | None = None,
    *,
    parameter: str = WITHIN,
    tails: np.ndarray | None = None,
) -> Any:
    """A callback that turns a brush in the figure `key` into ranges, or into a drawn shape.

    `tails` are the values of a distribution, whose outermost bars also hold what lies beyond them.
    """

    def callback() -> None:
        selection = st.session_state[key].selection
        for box in selection.get("box", [])[-1:]:
            low, high = min(box["x"]), max(box["x"])
            if tails is not None:
                low, high = charts.brushed_range(tails, low, high)
            set_bound(x, low, high, parameter)
            if y is not None:
                set_bound(y, min(box["y"]), max(box["y"]), parameter)
        for lasso in selection.get("lasso", [])[-1:]:
            corners = tuple(zip(map(float, lasso["x"]), map(float, lasso["y"]), strict=True))
            st.session_state[LASSOS] = {st.query_params.get("run"): ((x, y, corners),)}

    return callback


def clear() -> None:
    """Show everything again."""
    st.query_params.pop(WITHIN, None)
    st.session_state.pop(LASSOS, None)
    st.session_state["search"] = ""
    st.query_params.pop("topics", None)


def bar(pool: Pool) -> Filter:
    """Search box, topics and what was brushed, each to be taken off again; the filter they make."""
    names = dict(enumerate(pool.cluster_names())) if pool.cluster is not None else {}
    search, topics = st.columns([2, 3])
    text = search.text_input(
        "Search in the texts", key="search", bind="query-params", placeholder="a word or phrase"
    )
    with topics:
        chosen = url.choose_several(
            "Topics", list(names), "topics", format_func=lambda c: names[c], placeholder="all"
        )
    known = tuple(b for b in bounds() if b.column in pool.numbers)
    lassos = st.session_state.get(LASSOS, {}).get(st.query_params.get("run"), ())
    if known or lassos:
        with st.container(horizontal=True):
            for bound in known:
                st.button(
                    words.literal(words.label(bound.column))
                    + f" {bound.low:.3g} to {bound.high:.3g}",
                    key=f"drop-{bound.column}",
                    icon=":material/close:",
                    help="Take this range off",
                    on_click=drop_bound,
                    args=(bound.column,),
                )
            if lassos:
                st.button(
                    "Drawn shape",
                    icon=":material/close:",
                    help="Take this shape off",
                    on_click=lambda: st.session_state.pop(LASSOS, None),
                )
            st.button("Show everything", on_click=clear, type="tertiary")
    return Filter(bounds=known, lassos=lassos, clusters=tuple(chosen), text=text or "")


def colours(pool: Pool, selection: str | None) -> list[str]:
    """What the points can be coloured by: fate, categories, then quarters of numbers."""
    fate = [FATE] if selection else []
    quarters = [name for name in pool.numbers if name not in pool.categories]
    return [*fate, *pool.categories, *quarters, "nothing"]


def groups(pool: Pool, by: str, kept: np.ndarray | None) -> Categories:
    """The group that colours each point."""
    if by == FATE and kept is not None:
        return Categories(["set aside", "kept"], kept.astype(int))
    if by in pool.categories:
        return pool.categories[by]
    if by in pool.numbers:
        values = pool.numbers[by]
        cuts = np.unique(np.nanquantile(values, [0.25, 0.5, 0.75]))
        ends = ["lowest", *(f"{cut:.3g}" for cut in cuts), "highest"]
        names = [*(f"{a} to {b}" for a, b in itertools.pairwise(ends)), "(none)"]
        place = np.searchsorted(cuts, values, side="right")
        return Categories(names, np.where(np.isnan(values), len(names) - 1, place))
    return Categories(["examples"], np.zeros(len(pool), int))
