"""Acting on all that Explore shows: decide about them, save them as a selection, take it back."""

import numpy as np
import streamlit as st

from grads import api
from grads.api import Filter, Pool, Run
from studio import frame, words

MOST = 10_000  # decisions at once; more are a range or a topic of a selection
UNDO = "decided together"  # in the session: run, what was done, what was said before, and by whom


def act(pool: Pool, wanted: Filter, shown: np.ndarray) -> None:
    """Keep, exclude or save all samples of a mask (n,) bool, which the filter has made."""
    ids, run = pool.scores.sample_id[shown].tolist(), pool.run
    _offer_undo(run)
    with st.expander(f"Do something with all {words.count(len(ids), 'example')}"):
        reason, reviewer, pin, exclude = st.columns([3, 2, 1.2, 1.2], vertical_alignment="bottom")
        why = reason.text_input("Why (optional)", key="bulk-reason")
        st.session_state.setdefault("bulk-reviewer", st.session_state.get("reviewer") or "")
        who = reviewer.text_input(
            "Your name (optional)", key="bulk-reviewer", persist_state="session"
        )
        many = len(ids) > MOST
        for place, label, icon, decision in (
            (pin, "Keep all of them", ":material/push_pin:", "pin"),
            (exclude, "Exclude all of them", ":material/block:", "exclude"),
        ):
            if place.button(label, icon=icon, disabled=many, width="stretch"):
                with frame.telling():
                    _decide(run, ids, decision, why, reviewer=who)
        if many:
            st.caption(f"People decide about {MOST:,} examples at most at once: filter further.")
        name, save = st.columns([3, 2], vertical_alignment="bottom")
        called = name.text_input("Save as a selection", key="bulk-name", placeholder="a name")
        if save.button(
            f"Save these {len(ids):,}", icon=":material/save:", disabled=not called, width="stretch"
        ):
            with frame.telling():
                record = api.select_samples(run, called, api.all_matching(pool, wanted), pool)
                st.success(
                    f"Saved {record.samples.kept:,} examples as {words.literal(called)}.",
                    icon=":material/check_circle:",
                )


def _decide(run: Run, ids: list[int], decision: str, why: str, *, reviewer: str) -> None:
    said = api.opinions(run)
    before = {sample: said.get(sample, []) for sample in ids}
    api.decide_all(run, [(decision, sample) for sample in ids], why, reviewer=reviewer)
    what = "always kept" if decision == "pin" else "never kept"
    told = f"{words.count(len(ids), 'example')} will be {what}."
    st.session_state[UNDO] = (run.id, told, before, reviewer.strip())
    st.rerun()


def _offer_undo(run: Run) -> None:
    """What was decided last about many, and a button to take it back."""
    done = st.session_state.get(UNDO)
    if done is None or done[0] != run.id:
        return
    _, told, before, reviewer = done
    note, undo = st.columns([5, 1], vertical_alignment="center")
    note.info(told, icon=":material/gavel:")
    if undo.button("Undo", key="bulk-undo", icon=":material/undo:"):
        with frame.telling():
            api.take_back(run, before, reviewer)
            del st.session_state[UNDO]
            st.rerun()
