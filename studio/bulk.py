"""Acting on all that Explore shows: decide about them, save them as a selection, take it back."""

import numpy as np
import streamlit as st

from grads import api
from grads.api import Filter, Pool, Run
from studio import frame, keep, words
from studio.language import mark, say

MOST = 10_000  # decisions at once; more are a range or a topic of a selection
UNDO = "decided together"  # in the session: run, decision, what was said before, and by whom
DONE = {
    "pin": mark("{examples} will be always kept."),
    "exclude": mark("{examples} will be never kept."),
}


def act(pool: Pool, wanted: Filter, shown: np.ndarray) -> None:
    """Keep, exclude or save all samples of a mask (n,) bool, which the filter has made."""
    ids, run = pool.scores.sample_id[shown].tolist(), pool.run
    _offer_undo(run)
    examples = words.count(len(ids), "example")
    with st.expander(say("Do something with all {examples}", examples=examples)):
        # One below the other: the column at the side is narrow.
        why = st.text_input(say("Why (optional)"), key="bulk-reason")
        st.session_state.setdefault("bulk-reviewer", st.session_state.get("reviewer") or "")
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
                    _decide(run, ids, decision, why, reviewer=who)
        if many:
            most = say(
                "People decide about {most:,} examples at most at once: filter further.", most=MOST
            )
            st.caption(most)
        keep.save(pool, lambda: api.all_matching(pool, wanted), len(ids), key="bulk-name")


def _decide(run: Run, ids: list[int], decision: str, why: str, *, reviewer: str) -> None:
    said = api.opinions(run)
    before = {sample: said.get(sample, []) for sample in ids}
    api.decide_all(run, [(decision, sample) for sample in ids], why, reviewer=reviewer)
    st.session_state[UNDO] = (run.id, decision, before, reviewer.strip())
    st.rerun()


def _offer_undo(run: Run) -> None:
    """What was decided last about many, and a button to take it back."""
    done = st.session_state.get(UNDO)
    if done is None or done[0] != run.id:
        return
    _, decision, before, reviewer = done
    note, undo = st.columns([5, 1], vertical_alignment="center")
    note.info(
        say(DONE[decision], examples=words.count(len(before), "example")), icon=":material/gavel:"
    )
    if undo.button(say("Undo"), key="bulk-undo", icon=":material/undo:"):
        with frame.telling():
            api.take_back(run, before, reviewer)
            del st.session_state[UNDO]
            st.rerun()
