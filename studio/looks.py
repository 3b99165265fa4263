"""What the linked views show: which columns and colours, where a shape or a range was drawn."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import streamlit as st

from grads.api import MAP, TOPIC, Bound, Categories, Cut, Filter, Pool, Preview
from studio import charts, choice, doors, filters, keep, options, reader, titles, url, views, words
from studio.language import mark, say, told
from studio.views import data

PICTURES = {
    "column": mark("Distribution of"),
    "x": mark("Plane: across"),
    "y": mark("Plane: up"),
}
SCORE = mark("Score of the choice")  # a distribution that is of no column
DEFAULTS = {"column": "signal", "x": "embed_signal", "y": "head_signal"}
MOST_KEPT = 16  # of what a pool's views are drawn from


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
    score: np.ndarray | None = None  # (n,) of the choice, where there is one
    cut: Cut | None = None  # where the budget ends, if it is a threshold and what is kept is its
    percent: float | None = None  # of that budget; None where the data decide

    @classmethod
    def by(cls, pool: Pool, by: str, kept: np.ndarray | None, **columns: Any) -> "Look":
        """With the colours of a column, of fate, or of nothing."""
        ordered = by in pool.numbers and by not in pool.categories
        return cls(group=filters.groups(pool, by, kept), ordered=ordered, kept=kept, **columns)

    def values(self, pool: Pool) -> np.ndarray:
        """(n,) what the distribution is of."""
        return self.score if self.of_score and self.score is not None else pool.numbers[self.column]

    @property
    def of_score(self) -> bool:
        """Whether the distribution is of the choice's score."""
        return self.column == SCORE

    def budget(self, pool: Pool) -> data.Budget | None:
        """The budget as a threshold in the distribution, where what that shows is what ranks."""
        way = 0 if self.cut is None else self.cut.way(self.values(pool))
        if self.cut is None or not way:
            return None
        return data.Budget(self.cut, way, self.percent, options.PERCENTS)

    def samples(self, pool: Pool, shown: np.ndarray) -> data.Samples:
        """What all views go by, where these (n,) are shown."""
        return data.Samples(pool.scores.sample_id, shown, self.kept, self.group, self.ordered)


def controls(pool: Pool, shown: Preview | None) -> Look:
    """The columns and the colour as widgets behind a button; the legend beside it."""
    run, numbers = pool.run, list(pool.numbers)
    called = keep.marked(run)
    first = DEFAULTS | ({} if shown is None else {"column": _ranking(pool, shown)})
    of_choice = [] if shown is None else [SCORE]
    row = st.container(horizontal=True, vertical_alignment="center", key="looks")
    with row, st.popover(say("Views"), icon=":material/visibility:"):
        chosen = {
            key: url.choose(
                st.selectbox,
                say(title),
                numbers + (of_choice if key == "column" else []),
                key,
                default=first[key],
                format_func=_label,
            )
            for key, title in PICTURES.items()
        }
        selection = url.choose(
            st.selectbox,
            say("Kept and set aside"),
            run.selection_names(),
            "selection",
            index=None,
            placeholder=say("as set now"),
            format_func=called,
        )
        kept = pool.kept(selection) if selection else None if shown is None else shown.kept
        colours = filters.colours(pool, kept)
        by = url.choose(st.selectbox, say("Colour"), colours, "colour", format_func=filters.called)
    look = Look.by(pool, by, kept, **chosen)
    if shown is not None:
        ratio = shown.options.ratio
        look = replace(
            look,
            score=_score(shown),
            cut=None if selection else shown.cut,
            percent=None if ratio is None else round(100 * ratio, 6),
        )
    with row:
        _legend(
            look.samples(pool, np.ones(len(pool), bool)),
            of_fate=by == filters.FATE,
            by=called(selection) if selection else None,
        )
    if selection:
        keep.warn_of_stale(run, [selection])
    return look


def _ranking(pool: Pool, shown: Preview) -> str:
    """What the choice goes by most: a column, or the score where no column ranks as it does."""
    column = choice.goes_by(pool, shown.options)
    return column if shown.cut is None or shown.cut.way(pool.numbers[column]) else SCORE


def _score(shown: Preview) -> np.ndarray:
    """(n,) the score of a choice; what lies below the floor comes last, and so at the low end."""
    above, score = shown.ranking.above_floor, shown.ranking.score
    return np.where(above, score, score[above].min())


def _label(column: str) -> str:
    return say(SCORE) if column == SCORE else words.label(column)


def _legend(samples: data.Samples, *, of_fate: bool, by: str | None) -> None:
    """What the marks mean, and the saved selection that they are `by`, if not by the choice."""
    marks = [(name, colour, "full") for name, colour in data.legend(samples)]
    if samples.kept is not None:
        aside = say("set aside")
        ring = (aside, data.MUTED, "ring")
        marks = [ring if name == aside else (name, colour, kind) for name, colour, kind in marks]
        marks += [] if of_fate else [(say("set aside: a ring"), data.MUTED, "ring")]
    named = "" if by is None else say("Views show the selection {name}:", name=by)
    st.html(
        escape(named)
        + "".join(
            f'<span class="key"><i class="{kind}" style="--colour:{colour}"></i>'
            f"{escape(name)}</span>"
            for name, colour, kind in marks
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
            title=titles.spread(pool, look.kept),
            alt=say(
                "Map of {number:,} texts; those that the model reads alike lie together",
                number=len(pool),
            ),
            shape=shapes.get(MAP),
            opened=opened,
        )
        if pool.cluster is not None:
            topics = Categories(list(map(told, pool.cluster_names())), pool.cluster)
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
            title=titles.together(
                _once(pool, ("together", *pair), lambda: titles.correlation(*_along(pool, pair)))
            ),
            alt=say(
                "{across} against {up} of {number:,} examples",
                across=labels[0],
                up=labels[1],
                number=matching.sum(),
            ),
            labels=labels,
            shape=shapes.get(pair),
            opened=opened,
        )
    )
    ranged = wanted.bounds if limits is None else limits
    values, label = look.values(pool), _label(look.column)
    found.append(
        data.distribution(
            values,
            samples,
            drawn,
            label=label,
            title=titles.apart(values, look.kept, label),
            alt=say(
                "Distribution of {column} over {number:,} examples",
                column=label,
                number=matching.sum(),
            ),
            limits=filters.range_of(ranged, look.column),
            chooses=limits is not None,
            ranged=not look.of_score,
            budget=look.budget(pool),
            opened=opened,
        )
    )
    return data.page(samples, drawn, pool.first_words(drawn), found)


def _along(pool: Pool, pair: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Two columns (n,) of numbers, or of the map."""
    return pool.place_along(pair[0]), pool.place_along(pair[1])


def _plane(pool: Pool, pair: tuple[str, str]) -> data.Plane:
    found: data.Plane = _once(pool, ("plane", *pair), lambda: data.Plane.of(*_along(pool, pair)))
    return found


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
            say(
                "Showing {drawn:,} of {number:,} examples as points; the grey background is all"
                " {all:,}. A drawn shape applies to all.",
                drawn=drawn,
                number=matching.sum(),
                all=len(pool),
            )
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
        values = np.where(matching, look.values(pool), np.nan)
        if np.isfinite(values).any():
            nearest = int(np.nanargmin(np.abs(values - gesture["value"])))
            reader.open_sample(int(pool.scores.sample_id[nearest]))
    elif what == "budget" and _number(gesture.get("percent")):
        options.set_budget(gesture["percent"])
    elif what == "range" and look.of_score:
        return  # a score is no column, which ranges are of
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
    names = list(map(told, pool.cluster_names()))
    with st.expander(titles.topics(names, [c.size for c in pool.clusters]), expanded=True):
        sizes = np.bincount(pool.cluster[matching], minlength=len(pool.clusters))
        doors.draw(
            charts.topics(names, sizes.tolist(), [c.size for c in pool.clusters]),
            pool,
            TOPIC,
            pool.categories[TOPIC].names,
            key="topic-sizes",
            alt=say("Number of examples in each topic"),
        )
