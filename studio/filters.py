"""Which samples Explore looks at: brushed in a picture, searched, or a topic; kept in the URL."""

import itertools
import json
from math import isfinite
from typing import Any, Literal

import numpy as np
import streamlit as st

from grads import api
from grads.api import MAP, TOPIC, Bound, Categories, Filter, Pool, outline
from studio import tags, url, words
from studio.language import mark, say, told

WITHIN = "within"  # query parameter: COLUMN:LOW:HIGH, repeated
FATE = mark("kept or set aside")
NOTHING = mark("nothing")
SHAPE = "shape"  # query parameter: two columns and the corners of what was drawn, repeated
GROUPS = 500  # of near-duplicates that can be chosen one by one, the largest
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


def clear() -> None:
    """Show everything again."""
    for name in (WITHIN, SHAPE, "search", "topics", "only", "alike", tags.TAGGED):
        url.put(name)


Shape = tuple[str, str, tuple[tuple[float, float], ...]]


def shapes(pool: Pool) -> tuple[Shape, ...]:
    """The shapes in the address that are of this run's columns; one a pair of columns."""
    found = {}
    for text in url.get_all(SHAPE):
        shape = _read(text)
        if shape and all(name in pool.numbers or name in pool.map for name in shape[:2]):
            found[shape[:2]] = shape
    return tuple(found.values())


def _read(text: str) -> Shape | None:
    try:
        x, y, *ends = json.loads(text)
        corners = tuple((float(a), float(b)) for a, b in zip(ends[::2], ends[1::2], strict=True))
    except (ValueError, TypeError, OverflowError, RecursionError):  # no JSON, or no numbers
        return None
    there = all(isfinite(end) for corner in corners for end in corner)
    return (str(x), str(y), corners) if len(corners) > 2 and there else None


def set_shape(x: str, y: str, corners: tuple[tuple[float, float], ...]) -> None:
    """Hold a shape that was drawn in a plane of two columns."""
    ends = [float(f"{end:.4g}") for corner in outline(corners, CORNERS) for end in corner]
    url.put(SHAPE, *_of_other_planes(x, y), json.dumps([x, y, *ends], separators=(",", ":")))


def drop_shape(x: str, y: str) -> None:
    """Take the shape off that was drawn in a plane of two columns."""
    url.put(SHAPE, *_of_other_planes(x, y))


def _of_other_planes(x: str, y: str) -> list[str]:
    found = [(text, _read(text)) for text in url.get_all(SHAPE)]
    return [text for text, shape in found if shape and shape[:2] != (x, y)]


def bar(pool: Pool) -> Filter:
    """Search box, topics and what was brushed, each to be taken off again; the filter they make."""
    names = dict(enumerate(map(told, pool.cluster_names()))) if pool.cluster is not None else {}
    own = [name for name in pool.categories if name != TOPIC]
    groups = pool.duplicate_groups
    tagged = bool(api.tags(pool.run))
    widths = [2, 3, 3 if own else 0.01, 2 if groups else 0.01, 2 if tagged else 0.01]
    search, topics, only, twins, named = st.columns(widths)
    hidden: dict[str, Any] = {"label_visibility": "collapsed"}
    text = url.text(
        search.text_input,
        say("Search in the texts"),
        "search",
        placeholder=say("Search in the texts: a word"),
        **hidden,
    )
    with topics:
        chosen = url.choose_several(
            say("Topics"),
            list(names),
            "topics",
            format_func=lambda c: names[c],
            placeholder=say("All topics"),
            **hidden,
        )
    facets: dict[str, list[str]] = {}
    with only:
        for facet in _facets(pool, own) if own else ():
            column, name = json.loads(facet)
            facets.setdefault(column, []).append(name)
    alike = _alike(groups, twins) if groups else None
    with named:
        has = tags.wanted(pool.run) if tagged else ()
    known = tuple(b for b in bounds() if b.column in pool.numbers)
    lassos = shapes(pool)
    if known or lassos:
        with st.container(horizontal=True):
            chips(known, WITHIN)
            for x, y, _ in lassos:
                st.button(
                    say("Drawn on the map") if x == MAP[0] else say("Drawn in the plane"),
                    key=f"drop-shape-{x}-{y}",
                    icon=":material/close:",
                    help=say("Take this shape off"),
                    on_click=drop_shape,
                    args=(x, y),
                )
            st.button(say("Show everything"), on_click=clear, type="tertiary")
    categories = tuple((column, tuple(names)) for column, names in facets.items())
    return Filter(
        bounds=known,
        lassos=lassos,
        clusters=tuple(chosen),
        categories=categories,
        text=text,
        alike=alike,
        tags=has,
    )


def _alike(groups: dict[int, int], place: Any) -> int | Literal["any"] | None:
    """Near-duplicates: all that have some, or one group, told by the row of its first."""
    total = say(
        "Near-duplicates: {number:,} in {groups}",
        number=sum(groups.values()),
        groups=words.count(len(groups), "group"),
    )
    found: int | Literal["any"] | None = url.choose(
        place.selectbox,
        say("Near-duplicates"),
        ["any", *list(groups)[:GROUPS]],
        "alike",
        index=None,
        placeholder=say("Near-duplicates"),
        label_visibility="collapsed",
        format_func=lambda one: (
            total
            if one == "any"
            else say("Like row {row}: {number:,}", row=one, number=groups[one])
        ),
        help=say("Examples that share most of their text. Select can keep one of each group."),
    )
    return found


def chips(ranges: tuple[Bound, ...], parameter: str) -> None:
    """A button for each range, which takes it off."""
    for bound in ranges:
        st.button(
            say(
                "{column} {low:.3g} to {high:.3g}",
                column=words.literal(words.label(bound.column)),
                low=bound.low,
                high=bound.high,
            ),
            key=f"drop-{parameter}-{bound.column}",
            icon=":material/close:",
            help=say("Take this range off"),
            on_click=drop_bound,
            args=(bound.column, parameter),
        )


def chosen_from(parameter: str) -> None:
    """The ranges that a choice keeps to, each to be taken off."""
    if ranges := bounds(parameter):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(say("Chosen only from:"), width="content")
            chips(ranges, parameter)


def _facets(pool: Pool, own: list[str]) -> list[str]:
    """The chosen values of the data's own columns, each with its column as JSON."""
    names = {
        json.dumps([column, name]): f"{column}: {told(name)}"
        for column in own
        for name in pool.categories[column].names
    }
    return url.choose_several(
        say("Columns of your data"),
        list(names),
        "only",
        format_func=names.__getitem__,
        placeholder=say("All columns of your data"),
        label_visibility="collapsed",
    )


def look_at(pool: Pool, column: str, name: str) -> None:
    """Show one category of a column alone; all again where it is shown alone already."""
    number = pool.categories[column].names.index(name)
    topics, only = ("topics", str(number)), ("only", json.dumps([column, name]))
    parameter, text = topics if column == TOPIC else only
    url.put(parameter, *([] if url.get_all(parameter) == [text] else [text]))


def range_of(ranges: tuple[Bound, ...], column: str) -> tuple[float, float] | None:
    """The range that a column is limited to."""
    for bound in ranges:
        if bound.column == column and bound.low is not None and bound.high is not None:
            return bound.low, bound.high
    return None


def colours(pool: Pool, kept: np.ndarray | None) -> list[str]:
    """What the points can be coloured by: fate, categories, then quarters of numbers."""
    fate = [] if kept is None else [FATE]
    quarters = [name for name in pool.numbers if name not in pool.categories]
    return [*fate, *pool.categories, *quarters, NOTHING]


def called(by: str) -> str:
    """What a colour is called."""
    return say(by) if by in (FATE, NOTHING) else words.label(by)


def named(column: str) -> str:
    """What a column of categories is called: the data's own by its name."""
    return told(TOPIC) if column == TOPIC else column


def groups(pool: Pool, by: str, kept: np.ndarray | None) -> Categories:
    """The group that colours each point, as the reader calls it."""
    if by == FATE and kept is not None:
        return Categories([say("set aside"), say("kept")], kept.astype(int))
    if by in pool.categories:
        found = pool.categories[by]
        return Categories(list(map(told, found.names)), found.code)
    if by in pool.numbers:
        values = pool.numbers[by]
        cuts = np.unique(np.nanquantile(values, [0.25, 0.5, 0.75]))
        ends = [say("lowest"), *(f"{cut:.3g}" for cut in cuts), say("highest")]
        steps = [say("{low} to {high}", low=a, high=b) for a, b in itertools.pairwise(ends)]
        names = [*steps, say("(none)")]
        place = np.searchsorted(cuts, values, side="right")
        return Categories(names, np.where(np.isnan(values), len(names) - 1, place))
    return Categories([say("examples")], np.zeros(len(pool), int))
