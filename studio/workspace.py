"""Explore and Select as one workspace: filters, linked views, a list, a reading pane, the budget.

Both pages draw the same samples and the same choice; what differs is what stands at the side.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import streamlit as st

from grads import api
from grads.api import Pool, Preview, preview
from studio import (
    about,
    choice,
    filters,
    frame,
    keep,
    listing,
    looks,
    options,
    reader,
    share,
    tags,
    url,
    words,
)
from studio.language import mark, say

STEPS = (  # in the list, and the key that takes it
    (-1, "P", mark("Above")),
    (1, "N", mark("Below")),
)


def draw(title: str, aside: Callable[..., None], corner: Any, *, options_aside: bool) -> None:
    """The workspace under a page's title, a text with the braces `kept` and `all`.

    `aside` draws what else stands at its side. It is called with the pool, the choice (None where
    the options make none), the filter and the mask (n,) of what passes it. The options of the
    choice stand there too, or behind a button. What leaves the page is offered in the `corner`.
    """
    run = frame.scored_run()
    pool = api.load_pool(run)
    heading = st.container(key="heading")
    strip = st.container(key="strip")
    chips = st.container(key="chips")
    side, middle, reading = st.columns([5, 13, 9], gap="medium")
    side, middle, reading = (
        place.container(key=key)
        for place, key in ((side, "side"), (middle, "middle"), (reading, "reading"))
    )
    with strip:
        numbers, budget = st.columns([1, 1], gap="large", vertical_alignment="bottom")
    with budget:
        values = options.budget()
    filtered, moves = chips, side
    if not options_aside:
        filtered, more = chips.columns([6, 1])
        moves = more.popover(say("How to choose"), icon=":material/tune:")
    with moves:
        chosen = options.chosen(pool, values)
    shown = _preview(pool, chosen, strip)
    with filtered:
        wanted = filters.bar(pool)
        if options_aside:
            filters.chosen_from(options.BOUND)
    matching = pool.matching(wanted)
    with heading:
        _heading(title, pool, shown, matching)
    with numbers:
        if shown is not None:
            choice.numbers(pool, shown)
    with strip:
        if shown is not None:
            choice.warn(shown)
    with middle:
        look = looks.controls(pool, shown)
        if not matching.any():
            told = say("No example matches. Take a filter off.")
            st.info(told, icon=":material/filter_alt_off:")
        looks.draw(pool, look, wanted, matching, chooses=options_aside)
        choice.lists(pool, shown, matching, first="kept" if options_aside else "shown")
    with reading:
        if not _example(pool, look.kept):
            _meaning(pool, shown, matching, choosing=options_aside)
    with side:
        aside(pool, shown, wanted, matching)
    if options_aside:
        share.selected(corner, run, chosen)
    else:
        share.explored(corner, pool, wanted, matching)


def _preview(pool: Pool, chosen: Any, place: Any) -> Preview | None:
    if chosen is not None:
        with place, frame.telling():
            return preview(pool, api.with_decisions(pool.run, chosen))
    return None


def _heading(title: str, pool: Pool, shown: Preview | None, matching: np.ndarray) -> None:
    """What the page says in a sentence, with the numbers that are now."""
    count = "?" if shown is None else f"{shown.count:,}"
    told = say(title, kept=count, all=words.count(len(pool), "example"))
    if not matching.all():
        told = say("{headline}: {number:,} match", headline=told, number=int(matching.sum()))
    frame.headline(told)


def _example(pool: Pool, kept: np.ndarray | None) -> bool:
    """The open example, or a hint where none is open."""
    sample = reader.chosen_sample()
    said, go = st.columns([3, 2], vertical_alignment="bottom")
    reader.go_to(go)
    if sample is None:
        said.caption(say("Choose a point or a row to read it here."))
        return False
    with said.container(horizontal=True):
        st.button(say("Close"), on_click=url.put, args=("sample",))
        for step, key, meant in STEPS:
            other = listing.beside(sample, step)
            st.button(
                say(meant),
                key=f"step-{key}",
                shortcut=key,
                disabled=other is None,
                on_click=reader.open_sample,
                args=(other,),
            )
    if reader.read(pool, sample, kept):
        keep.decide(pool.run, sample)
        tags.of(pool.run, sample)
    return True


def _meaning(pool: Pool, shown: Preview | None, matching: np.ndarray, *, choosing: bool) -> None:
    """What the choice amounts to, or what the data hold."""
    if shown is not None and choosing:
        choice.remarks(pool, shown)
        choice.covered(pool, shown)
    if not choosing:
        looks.topics(pool, matching)
        if pool.cluster is not None:
            about.name_topics(pool)
