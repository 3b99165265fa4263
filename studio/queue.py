"""The queue: which jobs are at work, which wait in which order, and taking one out."""

from pathlib import Path

import streamlit as st

from grads import api
from grads.api import Draft, Evaluation, JobFolder, QueuedJob
from studio import frame, job, url, words
from studio.language import say


def show() -> None:
    """Every job that is at work or waits; looks again every other second while there is one."""
    if not api.queue():
        st.info(say("No job is at work, and none waits."), icon=":material/check_circle:")
        return
    _live()


@st.fragment(run_every=2.0)
def _live() -> None:
    with frame.guard():
        found = api.queue()
        if not found:
            st.rerun()
        for one in found:
            _line(one)
        st.caption(
            say(
                "Jobs of one runs folder work one at a time, in the order of their starts. What is"
                " taken out can be resumed; nothing finished is lost."
            )
        )


def before(others: list[JobFolder]) -> str:
    """What a new run waits for: the one at work, and how many more."""
    first, more = words.literal(others[0].id), len(others) - 1
    if not more:
        return say("{first} is at work; a new run waits by itself.", first=first)
    return say(
        "{first} is at work, {others} more in the queue; a new run waits by itself.",
        first=first,
        others=words.count(more, "job"),
    )


def _line(one: QueuedJob) -> None:
    what, how, go, out = st.container(border=True).columns(
        [4, 5, 1.2, 1.6], vertical_alignment="center"
    )
    data = Path(str(one.run.config_values().get("dataset"))).name
    called = words.literal(data if isinstance(one.run, Draft) else frame.called(one.run))
    state = words.state(one.status.state)[0]
    place = say("waits, number {number}", number=one.place) if one.place else state
    told = say(one.kind, name=words.literal(one.folder.id))
    what.markdown(say("**{run}**: {what}", run=called, what=told) + f"  \n:gray[{place}]")
    with how:
        if one.place:
            st.caption(job.message(one.status))
        else:
            job.progress(one.folder, one.status)
    with go:
        _watch(one)
    if out.button(
        say("Take out") if one.place else say("Stop"),
        key=f"out-{one.folder.path}",
        icon=":material/stop_circle:",
        disabled=one.status.state == "stopping",
    ):
        with st.spinner(say("Stopping")):
            api.stop_run(one.folder)
        st.rerun()


def _watch(one: QueuedJob) -> None:
    """The way to where the job is watched; the cost of a new run is watched nowhere else."""
    if isinstance(one.folder, Evaluation):
        asked = {"run": one.run.id, "evaluation": one.folder.id}
        st.page_link("pages/Evaluate.py", label=say("Watch"), query_params=asked)
    elif (
        one.folder is one.run
        and not isinstance(one.run, Draft)
        and st.button(say("Watch"), key=f"watch-{one.run.id}", type="tertiary")
    ):
        url.put("run", one.run.id)
        url.put("view")
        url.write()
        st.rerun()
