"""Examples of what is wanted and of what must stay: which a run has, and giving it more."""

from typing import Any

import streamlit as st

from grads import api
from grads.api import ACTIVE, Pool, ProbeConfig, ProbeRequest, Run
from studio import job, uploads, url, words

ROLES = {"targets": "like what I want", "protected": "of what must not be lost"}
MOST_ROWS = 500  # of a pool that are offered as a set
HELP = (
    "A few good examples are enough to start with: 8 to 100 questions with answers as you want them"
    " to be. Every example of your data is then held against them: would learning it change the"
    " model the same way?"
)


def given() -> dict[str, Any]:
    """The sets that a new run starts with, and whether questions are measured."""
    st.caption(HELP)
    target, protect = st.columns(2, gap="medium")
    found: dict[str, Any] = {}
    for place, role, name in ((target, "targets", "good"), (protect, "protected", "keep")):
        file = _file(place, f"Examples {ROLES[role]}", f"new-{role}")
        found[role] = {name: file} if file else {}
    gain = url.flag(
        st.checkbox,
        "Measure how much each question helps with its answer",
        "question_gain",
        help="Finds answers that do not belong to their questions; reads the answers once more.",
    )
    return found | {"extras": ["question_gain"] if gain else []}


def _file(place: Any, label: str, key: str) -> str:
    """A file by its path or as an upload; nothing where none is named."""
    uploads.offer(place, label, key)
    text = place.text_input(
        "or a path", key=key, placeholder="or a path", label_visibility="collapsed"
    )
    return api.data_place(text or "")


def known(run: Run) -> None:
    """The sets that the run has."""
    for name, one in run.read_manifest().probes.items():
        role = "wanted" if one.role == "target" else "to protect"
        note = f"; {words.count(one.refused, 'row')} could not be used" if one.refused else ""
        st.caption(words.literal(f"{name}, {role}: {words.count(one.samples, 'example')}{note}"))


def offer(pool: Pool, filtered: list[int] | None = None) -> None:
    """A form for one more set, by file or by rows of the pool; its job while that is at work.

    `filtered` are the sample ids that a page shows now.
    """
    run, request = pool.run, ProbeRequest(pool.run)
    status = api.observe(request) if request.config_file.exists() else None
    if status and status.state in ACTIVE:
        job.wait_for(request, "Holding every example against them")
        return
    if status and status.error:
        st.error(words.error(status.error), icon=":material/error:")
    known(run)
    if not run.has_model:
        st.caption("This run's model is not stored with it, so nothing more can be measured.")
        return
    st.caption(HELP)
    what, called = st.columns(2)
    role = what.selectbox("Examples", list(ROLES), format_func=ROLES.__getitem__, key="probe-role")
    name = called.text_input("Called", "good" if role == "targets" else "keep", key=f"name-{role}")
    if filtered is None:
        place = _file(st, "Upload them", "probe-file")
        rows = st.text_input("or rows of this data", key="probe-rows", placeholder="3, 17, 40")
        chosen = "rows:" + ",".join(rows.replace(",", " ").split()) if rows.strip() else place
    else:
        chosen = "rows:" + ",".join(map(str, filtered))
    gain = pool.question_gain is None and st.checkbox(
        "Also measure how much each question helps with its answer", key="probe-gain"
    )
    if st.button("Measure", icon=":material/straighten:", disabled=not (chosen or gain)):
        sets = {role: {name: chosen}} if chosen else {}
        extras = ["question_gain"] if gain else []
        api.start_probe(run, ProbeConfig.parse({**sets, "extras": extras}))
        st.rerun()
