"""What the linked views show: which columns and colours, where a shape or a range was drawn."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import streamlit as st
from scipy.stats import spearmanr

from grads.api import MAP, Bound, Categories, Filter, Pool, Preview
from studio import charts, choice, filters, keep, options, reader, url, views, words
from studio.views import data

PICTURES = {"column": "Distribution of", "x": "Plane: across", "y": "Plane: up"}
DEFAULTS = {"column": "signal", "x": "embed_signal", "y": "head_signal"}
NOW = "as set now"
MOST_KEPT = 16  # of what a pool's views are drawn from
MOST_READ = 20_000  # samples of a pool whose first words go to the browser with their points


_of_pool: WeakKeyDictionary[Pool, dict[tuple[str, ...], Any]] = WeakKeyDictionary()


def _once(pool: Pool, key: tuple[str, ...], make: Callable[[], Any]) -> Any:
    """What hangs on a pool's columns alone, worked out once and not at every redraw."""
    found = _of_pool.setdefault(pool, {})
    if key not in found:
        if len(found) >= MOST_KEPT:
            found.pop(next(iter(found)), None)
        found[key] = make()
    return found[key]


@dataclass(frozen=True)
class Look:
    """What the views go by."""

    column: str
    x: str
    y: str
    group: Categories  # what colours the points
    ordered: bool  # whether its groups are quarters of a number
    kept: np.ndarray | None  # (n,) bool

    @classmethod
    def by(cls, pool: Pool, by: str, kept: np.ndarray | None, **columns: str) -> "Look":
        """With the colours of a column, of fate, or of nothing."""
        ordered = by in pool.numbers and by not in pool.categories
        return cls(group=filters.groups(pool, by, kept), ordered=ordered, kept=kept, **columns)

    def samples(self, pool: Pool, shown: np.ndarray) -> data.Samples:
        """What all views go by, where these (n,) are shown."""
        return data.Samples(pool.scores.sample_id, shown, self.kept, self.group, self.ordered)


def controls(pool: Pool, shown: Preview | None) -> Look:
    """The columns and the colour as widgets behind a button; the legend beside it."""
    run, numbers = pool.run, list(pool.numbers)
    first = DEFAULTS | ({} if shown is None else {"column": choice.goes_by(pool, shown.options)})
    row = st.container(horizontal=True, vertical_alignment="center", key="looks")
    with row, st.popover("Views", icon=":material/visibility:"):
        chosen = {
            key: url.choose(
                st.selectbox, title, numbers, key, default=first[key], format_func=words.label
            )
            for key, title in PICTURES.items()
        }
        selection = url.choose(
            st.selectbox,
            "Kept and set aside",
            run.selection_names(),
            "selection",
            index=None,
            placeholder=NOW,
        )
        kept = pool.kept(selection) if selection else None if shown is None else shown.kept
        colours = filters.colours(pool, kept)
        by = url.choose(st.selectbox, "Colour", colours, "colour", format_func=words.label)
    look = Look.by(pool, by, kept, **chosen)
    with row:
        _legend(look.samples(pool, np.ones(len(pool), bool)), of_fate=by == filters.FATE)
    if selection:
        keep.warn_of_stale(run, [selection])
    return look


def _legend(samples: data.Samples, *, of_fate: bool) -> None:
    marks = [(name, colour, "full") for name, colour in data.legend(samples)]
    if samples.kept is not None:
        ring = ("set aside", data.MUTED, "ring")
        marks = [ring if name == "set aside" else (name, colour, m) for name, colour, m in marks]
        marks += [] if of_fate else [("set aside: a ring", data.MUTED, "ring")]
    st.html(
        "".join(
            f'<span class="key"><i class="{mark}" style="--colour:{colour}"></i>'
            f"{escape(name)}</span>"
            for name, colour, mark in marks
        )
    )


def views_of(
    pool: Pool,
    look: Look,
    wanted: Filter,
    matching: np.ndarray,
    *,
    limits: tuple[Bound, ...] | None = None,
    opened: int | None = None,
) -> dict[str, Any]:
    """The data of the views; `limits` are ranges that say what may be kept, `opened` a position.

    Without limits a range narrows what is shown.
    """
    samples = look.samples(pool, matching)
    drawn = samples.drawn()
    shapes = {(x, y): corners for x, y, corners in wanted.lassos}
    found = []
    if pool.map:
        ground = _plane(pool, MAP)
        places = data.scatter(
            "map",
            ground,
            drawn,
            title=_spread(pool, look.kept),
            alt=f"Map of {len(pool):,} texts; those that the model reads alike lie together",
            shape=shapes.get(MAP),
            opened=opened,
        )
        if pool.cluster is not None:
            topics = Categories(pool.cluster_names(), pool.cluster)
            middles = _once(pool, ("middles",), lambda: data.middles(*_along(pool, MAP), topics))
            at = [ground.place(middle) for middle in middles.tolist()]
            places = data.named(places, at, samples, topics)
        found.append(places)
    labels = (words.label(look.x), words.label(look.y))
    pair = (look.x, look.y)
    found.append(
        data.scatter(
            "plane",
            _plane(pool, pair),
            drawn,
            title=_once(pool, ("together", *pair), lambda: _together(*_along(pool, pair))),
            alt=f"{labels[0]} against {labels[1]} of {matching.sum():,} examples",
            labels=labels,
            shape=shapes.get(pair),
            opened=opened,
        )
    )
    ranged = wanted.bounds if limits is None else limits
    values = pool.numbers[look.column]
    found.append(
        data.distribution(
            values,
            samples,
            drawn,
            label=words.label(look.column),
            title=_apart(values, look.kept, words.label(look.column)),
            alt=f"Distribution of {words.label(look.column)} over {matching.sum():,} examples",
            limits=filters.range_of(ranged, look.column),
            chooses=limits is not None,
            opened=opened,
        )
    )
    return data.page(samples, drawn, _texts(pool, drawn), found)


def _along(pool: Pool, pair: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Two columns (n,) of numbers, or of the map."""
    return pool.place_along(pair[0]), pool.place_along(pair[1])


def _plane(pool: Pool, pair: tuple[str, str]) -> data.Plane:
    found: data.Plane = _once(pool, ("plane", *pair), lambda: data.Plane.of(*_along(pool, pair)))
    return found


def _texts(pool: Pool, drawn: np.ndarray) -> list[str] | None:
    if len(pool) > MOST_READ:
        return None
    first = pool.first_words
    return [first[i] for i in drawn]


def _spread(pool: Pool, kept: np.ndarray | None) -> str:
    """Where on the map the kept ones lie, as a title."""
    if kept is None or pool.cluster is None:
        return "Map of the texts: alike lies together"
    there = len(np.unique(pool.cluster[kept]))
    return f"Map of the texts: kept in {there} of {len(pool.clusters)} topics"


def _together(x: np.ndarray, y: np.ndarray) -> str:
    """How two columns go together, as a title."""
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < 3 or np.ptp(x[both]) == 0 or np.ptp(y[both]) == 0:
        return "One number against another"
    found = float(spearmanr(x[both], y[both]).statistic)
    how = "rise together" if found > 0 else "go against each other"
    weight = "The two " if abs(found) >= 0.5 else "The two hardly "
    return f"{weight}{how}: rank correlation {found:.2f}"


def _apart(values: np.ndarray, kept: np.ndarray | None, label: str) -> str:
    """How what is kept lies to the rest, as a title."""
    if kept is None or not kept.any() or kept.all():
        return f"{label}: half of all lie below {np.nanmedian(values):.2g}"
    inside, beside = (float(np.nanmedian(values[mask])) for mask in (kept, ~kept))
    return f"{label}: the kept lie at {inside:.2g} (median), the others at {beside:.2g}"


def draw(pool: Pool, look: Look, wanted: Filter, matching: np.ndarray, *, chooses: bool) -> None:
    """The linked views; what is drawn or chosen in them is held."""

    def hear(gesture: dict[str, Any]) -> None:
        heard(pool, look, gesture, matching, parameter=options.BOUND if chooses else filters.WITHIN)

    sample = reader.chosen_sample()
    place = [] if sample is None else pool.positions(np.array([sample])).tolist()
    found = views_of(
        pool,
        look,
        wanted,
        matching,
        limits=filters.bounds(options.BOUND) if chooses else None,
        opened=place[0] if place else None,
    )
    views.draw(found, hear)
    drawn = min(charts.MOST_POINTS, int(matching.sum()))
    if drawn < matching.sum():
        st.caption(
            f"Showing {drawn:,} of {matching.sum():,} examples as points; the grey background is"
            f" all {len(pool):,}. A drawn shape applies to all."
        )


def heard(
    pool: Pool, look: Look, gesture: dict[str, Any], matching: np.ndarray, *, parameter: str
) -> None:
    """Hold what a gesture asks for; one that makes no sense is passed over."""
    planes = {"map": MAP, "plane": (look.x, look.y)}
    what, where = gesture.get("do"), str(gesture.get("view"))
    if what == "open" and isinstance(gesture.get("id"), int):
        reader.open_sample(gesture["id"])
    elif what == "nearest" and _number(gesture.get("value")):
        values = np.where(matching, pool.numbers[look.column], np.nan)
        if np.isfinite(values).any():
            nearest = int(np.nanargmin(np.abs(values - gesture["value"])))
            reader.open_sample(int(pool.scores.sample_id[nearest]))
    elif what == "range" and _number(gesture.get("low")) and _number(gesture.get("high")):
        ends = data.brushed_range(pool.numbers[look.column], gesture["low"], gesture["high"])
        filters.set_bound(look.column, *ends, parameter)
    elif what == "shape" and where in planes:
        corners = _plane(pool, planes[where]).in_units(gesture.get("corners", []))
        if len(corners) > 2:
            filters.set_shape(*planes[where], corners)
    elif what == "clear":
        if where in planes:
            filters.drop_shape(*planes[where])
        else:
            filters.drop_bound(look.column, parameter)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def topics(pool: Pool, matching: np.ndarray) -> None:
    """How many examples each topic has, and how many of them are shown."""
    if pool.cluster is None:
        return
    with st.expander(f"{len(pool.clusters)} topics, by their own terms", expanded=True):
        sizes = np.bincount(pool.cluster[matching], minlength=len(pool.clusters))
        st.plotly_chart(
            charts.topics(pool.cluster_names(), sizes.tolist(), [c.size for c in pool.clusters]),
            key="topic-sizes",
            alt="Number of examples in each topic",
        )
