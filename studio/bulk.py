"""Acting on all that Explore shows: decide about them, tag them, save them as a selection.

What was decided or tagged last is taken back by a button.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import streamlit as st

from grads import api
from grads.api import Filter, Pool, Run
from studio import frame, keep, reviewer, words
from studio.language import mark, say

MOST = 10_000  # decisions at once; more are a range or a topic of a selection
UNDO = "done together"  # in the session
DONE = {
    "pin": mark("{examples} will be always kept."),
    "exclude": mark("{examples} will be never kept."),
}

TAGGING = (  # label, what is said when it is done, icon, and whether the tag comes off
    (mark("Tag all of them"), mark("{examples} got the tag {tag}."), ":material/new_label:", False),
    (
        mark("Take the tag off all of them"),
        mark("{examples} lost the tag {tag}."),
        ":material/label_off:",
        True,
    ),
)


class Done(NamedTuple):
    """What was done last about many."""

    run: str
    told: str
    take_back: Callable[[], object]


def act(pool: Pool, wanted: Filter, shown: np.ndarray) -> None:
    """Keep, exclude or save all samples of a mask (n,) bool, which the filter has made."""
    ids, run = pool.scores.sample_id[shown].tolist(), pool.run
    _offer_undo(run)
    examples = words.count(len(ids), "example")
    with st.expander(say("Do something with what is shown: {examples}", examples=examples)):
        # One below the other: the column at the side is narrow.
        why = st.text_input(say("Why (optional)"), key="bulk-reason")
        st.session_state.setdefault("bulk-reviewer", reviewer.known())
        who = st.text_input(
            say("Your name (optional)"), key="bulk-reviewer", persist_state="session"
        )
        many = len(ids) > MOST
        for label, icon, decision in (
            (say("Keep all of them"), ":material/push_pin:", "pin"),
            (say("Exclude all of them"), ":material/block:", "exclude"),
        ):
            if st.button(label, icon=icon, disabled=many, width="stretch"):
                with frame.telling():
                    _decide(run, ids, decision, why, who=who)
        if many:
            most = say(
                "People decide about {most:,} examples at most at once: filter further.", most=MOST
            )
            st.caption(most)
        _tag(run, ids, who)
        keep.save(pool, lambda: api.all_matching(pool, wanted), len(ids), key="bulk-name")


def _decide(run: Run, ids: list[int], decision: str, why: str, *, who: str) -> None:
    said = api.opinions(run)
    before = {sample: said.get(sample, []) for sample in ids}
    api.decide_all(run, [(decision, sample) for sample in ids], why, reviewer=who)
    done = say(DONE[decision], examples=words.count(len(ids), "example"))
    _note(run, done, partial(api.take_back, run, before, who.strip()))


def _tag(run: Run, ids: list[int], who: str) -> None:
    """A tag for all of them, one that is there or a new one; or taken off them."""
    name = st.selectbox(
        say("Tag"),
        list(api.tags(run)),
        index=None,
        key="bulk-tag",
        accept_new_options=True,
        placeholder=say("Choose a tag or type a new one"),
    )
    for label, told, icon, off in TAGGING:
        if st.button(say(label), icon=icon, disabled=not name, width="stretch") and name:
            with frame.telling():
                changed = api.tag(run, name, ids, off=off, reviewer=who)
                examples = words.count(len(changed), "example")
                back = partial(api.tag, run, name, changed, off=not off, reviewer=who)
                _note(run, say(told, examples=examples, tag=words.literal(name)), back)


def _note(run: Run, told: str, take_back: Callable[[], object]) -> None:
    st.session_state[UNDO] = Done(run.id, told, take_back)
    st.rerun()


def _offer_undo(run: Run) -> None:
    """What was done last about many, and a button to take it back."""
    done = st.session_state.get(UNDO)
    if done is None or done.run != run.id:
        return
    note, undo = st.columns([5, 1], vertical_alignment="center")
    note.info(done.told, icon=":material/gavel:")
    if undo.button(say("Undo"), key="bulk-undo", icon=":material/undo:"):
        with frame.telling():
            done.take_back()
            del st.session_state[UNDO]
            st.rerun()
