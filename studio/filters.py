"""Which samples Explore looks at: brushed in a picture, searched, or a topic; kept in the URL."""

import itertools
import json
from typing import Any

import numpy as np
import streamlit as st

from grads.api import TOPIC, Bound, Categories, Filter, Pool, outline
from studio import charts, url, words

WITHIN = "within"  # query parameter: COLUMN:LOW:HIGH, repeated
FATE = "kept or set aside"
SHAPE = "shape"  # query parameter: the two columns and the corners of what was drawn
CORNERS = 40  # of a drawn shape in an address


def bounds(parameter: str = WITHIN) -> tuple[Bound, ...]:
    """The ranges in the URL; what is no range there is left out."""
    found = []
    for text in url.get_all(parameter):
        column, *ends = text.rsplit(":", 2)
        try:
            low, high = (float(end) for end in ends)
            found.append(Bound(column=column, low=low, high=high))
        except ValueError:  # no numbers, or no range
            continue
    return tuple(found)


def with_bound(parameter: str, column: str, low: float, high: float) -> list[str]:
    """The ranges as texts, with this one for its column."""
    return [*_of_others(parameter, column), f"{column}:{low:.10g}:{high:.10g}"]


def _of_others(parameter: str, column: str) -> list[str]:
    return [text for text in url.get_all(parameter) if text.rsplit(":", 2)[0] != column]


def set_bound(column: str, low: float, high: float, parameter: str = WITHIN) -> None:
    """Hold a range; one a column."""
    url.put(parameter, *with_bound(parameter, column, low, high))


def drop_bound(column: str, parameter: str = WITHIN) -> None:
    """Take a range off."""
    url.put(parameter, *_of_others(parameter, column))


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
            url.put(SHAPE, _as_text(x, str(y), corners))

    return callback


def clear() -> None:
    """Show everything again."""
    for name in (WITHIN, SHAPE, "search", "topics", "only"):
        url.put(name)


Shape = tuple[str, str, tuple[tuple[float, float], ...]]


def shape(pool: Pool) -> tuple[Shape, ...]:
    """The shape in the address, if it is one of this run's columns."""
    try:
        x, y, *ends = json.loads(url.get(SHAPE))
        corners = tuple((float(a), float(b)) for a, b in zip(ends[::2], ends[1::2], strict=True))
    except (ValueError, TypeError):  # no JSON, or no numbers
        return ()
    there = x in pool.numbers and y in pool.numbers and len(corners) > 2
    return ((x, y, corners),) if there else ()


def _as_text(x: str, y: str, corners: tuple[tuple[float, float], ...]) -> str:
    ends = [float(f"{end:.4g}") for corner in outline(corners, CORNERS) for end in corner]
    return json.dumps([x, y, *ends], separators=(",", ":"))


def bar(pool: Pool) -> Filter:
    """Search box, topics and what was brushed, each to be taken off again; the filter they make."""
    names = dict(enumerate(pool.cluster_names())) if pool.cluster is not None else {}
    own = [name for name in pool.categories if name != TOPIC]
    search, topics, only = st.columns([2, 3, 3] if own else [2, 3, 0.01])
    label, hint = "Search in the texts", "a word or phrase"
    text = url.text(search.text_input, label, "search", placeholder=hint)
    with topics:
        chosen = url.choose_several(
            "Topics", list(names), "topics", format_func=lambda c: names[c], placeholder="all"
        )
    facets: dict[str, list[str]] = {}
    with only:
        for facet in _facets(pool, own) if own else ():
            column, name = json.loads(facet)
            facets.setdefault(column, []).append(name)
    known = tuple(b for b in bounds() if b.column in pool.numbers)
    lassos = shape(pool)
    if known or lassos:
        with st.container(horizontal=True):
            chips(known, WITHIN)
            if lassos:
                st.button(
                    "Drawn shape",
                    icon=":material/close:",
                    help="Take this shape off",
                    on_click=url.put,
                    args=(SHAPE,),
                )
            st.button("Show everything", on_click=clear, type="tertiary")
    categories = tuple((column, tuple(names)) for column, names in facets.items())
    return Filter(
        bounds=known, lassos=lassos, clusters=tuple(chosen), categories=categories, text=text
    )


def chips(ranges: tuple[Bound, ...], parameter: str) -> None:
    """A button for each range, which takes it off."""
    for bound in ranges:
        st.button(
            words.literal(words.label(bound.column)) + f" {bound.low:.3g} to {bound.high:.3g}",
            key=f"drop-{bound.column}",
            icon=":material/close:",
            help="Take this range off",
            on_click=drop_bound,
            args=(bound.column, parameter),
        )


def _facets(pool: Pool, own: list[str]) -> list[str]:
    """The chosen values of the data's own columns, each with its column as JSON."""
    options = [
        json.dumps([column, name]) for column in own for name in pool.categories[column].names
    ]
    return url.choose_several(
        "Columns of your data",
        options,
        "only",
        format_func=lambda facet: ": ".join(json.loads(facet)),
        placeholder="all",
    )


def range_of(wanted: Filter, column: str) -> tuple[float, float] | None:
    """The range that a column is limited to."""
    for bound in wanted.bounds:
        if bound.column == column and bound.low is not None and bound.high is not None:
            return bound.low, bound.high
    return None


def mark(figure: Any, wanted: Filter, x: str, y: str) -> None:
    """Mark in a plane of two columns what they are limited to."""
    for axis, column in (("x", x), ("y", y)):
        if found := range_of(wanted, column):
            charts.mark_range(figure, *found, axis)
    for across, up, corners in wanted.lassos:
        if (across, up) == (x, y):
            charts.mark_shape(figure, corners)


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
