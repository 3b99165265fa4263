"""Examples of what is wanted and of what must stay: which a run has, and giving it more."""

from typing import Any

import streamlit as st

from grads import api
from grads.api import ACTIVE, Pool, ProbeConfig, ProbeRequest, Run
from studio import job, uploads, url, words
from studio.language import mark, say

ROLES = {"targets": mark("like what I want"), "protected": mark("of what must not be lost")}
NAMED = {
    "targets": mark("Examples like what I want"),
    "protected": mark("Examples of what must not be lost"),
}
KNOWN = {
    "target": mark("{name}, wanted: {examples}"),
    "protect": mark("{name}, to protect: {examples}"),
}
MOST_ROWS = 500  # of a pool that are offered as a set
HELP = mark(
    "A few good examples are enough to start with: 8 to 100 questions with answers as you want them"
    " to be. Every example of your data is then held against them: would learning it change the"
    " model the same way?"
)


def given() -> dict[str, Any]:
    """The sets that a new run starts with, and whether questions are measured."""
    st.caption(say(HELP))
    target, protect = st.columns(2, gap="medium")
    found: dict[str, Any] = {}
    for place, role, name in ((target, "targets", "good"), (protect, "protected", "keep")):
        file = _file(place, say(NAMED[role]), f"new-{role}")
        found[role] = {name: file} if file else {}
    gain = url.flag(
        st.checkbox,
        say("Measure how much each question helps with its answer"),
        "question_gain",
        help=say(
            "Finds answers that do not belong to their questions; reads the answers once more."
        ),
    )
    return found | {"extras": ["question_gain"] if gain else []}


def _file(place: Any, label: str, key: str) -> str:
    """A file by its path or as an upload; nothing where none is named."""
    uploads.offer(place, label, key)
    told = say("or a path")
    text = place.text_input(told, key=key, placeholder=told, label_visibility="collapsed")
    return api.data_place(text or "")


def known(run: Run) -> None:
    """The sets that the run has."""
    for name, one in run.read_manifest().probes.items():
        told = say(KNOWN[one.role], name=name, examples=words.count(one.samples, "example"))
        if one.refused:
            rows = words.count(one.refused, "row")
            told = say("{told}; {rows} could not be used", told=told, rows=rows)
        st.caption(words.literal(told))


def offer(pool: Pool, filtered: list[int] | None = None) -> None:
    """A form for one more set, by file or by rows of the pool; its job while that is at work.

    `filtered` are the sample ids that a page shows now.
    """
    run, request = pool.run, ProbeRequest(pool.run)
    status = api.observe(request) if request.config_file.exists() else None
    if status and status.state in ACTIVE:
        job.wait_for(request, say("Holding every example against them"))
        return
    if status and status.error:
        st.error(words.error(status.error), icon=":material/error:")
    known(run)
    if not run.has_model:
        st.caption(say("This run's model is not stored with it, so nothing more can be measured."))
        return
    st.caption(say(HELP))
    what, called = st.columns(2)
    role = what.selectbox(say("Examples"), list(ROLES), format_func=lambda role: say(ROLES[role]))
    usual = "good" if role == "targets" else "keep"
    name = called.text_input(say("Called"), usual, key=f"name-{role}")
    if filtered is None:
        place = _file(st, say("Upload them"), "probe-file")
        rows = st.text_input(say("or rows of this data"), key="probe-rows", placeholder="3, 17, 40")
        chosen = "rows:" + ",".join(rows.replace(",", " ").split()) if rows.strip() else place
    else:
        chosen = "rows:" + ",".join(map(str, filtered))
    gain = pool.question_gain is None and st.checkbox(
        say("Also measure how much each question helps with its answer"), key="probe-gain"
    )
    if st.button(say("Measure"), icon=":material/straighten:", disabled=not (chosen or gain)):
        sets = {role: {name: chosen}} if chosen else {}
        extras = ["question_gain"] if gain else []
        api.start_probe(run, ProbeConfig.parse({**sets, "extras": extras}))
        st.rerun()
