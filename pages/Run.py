"""What will it cost, and how is it going?"""

from typing import Any

import streamlit as st

from grads import api
from grads.api import ACTIVE, Run, RunConfig
from studio import about, bell, cost, frame, intake, job, probes, queue, setup, share, url, words
from studio.language import mark, say

WATCH, NEW, QUEUE = mark("Watch"), mark("New run"), mark("Queue")
AT_WORK = mark("This run is at work")
STATES = {
    "failed": mark("This run has failed"),
    "stopped": mark("This run is stopped; nothing finished is lost"),
    "interrupted": mark("This run was interrupted; nothing finished is lost"),
}


def fields() -> RunConfig:
    """Four fields, the rest folded."""
    data, model, warmup, longest = st.columns([3, 2, 2, 1])
    values = {
        "dataset": setup.text("dataset", data, placeholder="data/train.jsonl"),
        "model": setup.text("model", model, "demo"),
        "warmup": setup.widget("warmup", warmup),
        "max_length": setup.widget("max_length", longest),
    }
    with st.expander(say("Advanced settings")):
        lines = [st.columns(5, vertical_alignment="bottom") for _ in setup.ADVANCED[::5]]
        places = [place for line in lines for place in line]
        for name, place in zip(setup.ADVANCED, places, strict=False):
            values[name] = setup.widget(name, place)
    with st.expander(say("What I want, and what must stay")):
        values |= probes.given()
    if not values["dataset"]:
        st.info(say("First choose your data."), icon=":material/info:")
        st.page_link("pages/Data.py", label=say("Choose data"), icon=":material/table_rows:")
        st.stop()
    for name in ("limit", "subsample", "clusters"):
        values[name] = values[name] or None  # 0 is no limit
    return setup.config(columns=setup.stored_mapping(), **values)


def new_run(corner: Any) -> None:
    """The settings, their price, and the start, once the data are found right."""
    frame.headline(say("What will it cost?"), say("A warm-up, then one reading of every example."))
    settings = fields()
    wrong = intake.problem(settings)
    if wrong is not None:
        st.error(words.error(str(wrong)), icon=":material/error:")
        st.page_link("pages/Data.py", label=say("Look at the data"), icon=":material/table_rows:")
        st.stop()
    checked = intake.check(settings)
    status = api.observe(checked)
    if status.state in ACTIVE:
        job.wait_for(checked, say("Checking the data"))
        st.stop()
    if status.state != "finished":
        intake.failed(checked, settings)
        st.stop()
    cost.price(settings, checked)
    command = api.run_command(settings)
    share.offer(corner, None, command, say("The command that starts this run:"))
    others = api.busy()
    at_once = False
    if others:
        st.info(queue.before(others))
        at_once = st.toggle(say("Start at once all the same (both will be slower)"))
    start = say("Start{now}", now="")  # a word for itself: the first page is called Start too
    # Not a callback, whose arguments would be those of the last drawing, not of the screen.
    if st.button(start, type="primary", icon=":material/play_arrow:"):
        url.put("run", api.start_new(settings, at_once=at_once).id)
        url.put("view", WATCH)
        url.write()  # a reload while the next drawing is made shows the new run too
        st.rerun()


def watch_run(run: Run, corner: Any) -> None:
    """The run's job."""
    status = api.observe(run)
    config = run.config()
    counts = run.read_manifest().counts
    if status.state != "finished":
        frame.headline(say(STATES.get(status.state, AT_WORK)))
    elif counts.rows:
        size = words.count(counts.usable - counts.heldout, "example")
        frame.headline(say("All {examples} are scored", examples=size))
    else:
        frame.headline(say("All data are scored"))
    warmup = setup.CHOICES["warmup"][config.warmup]
    what = (config.dataset, config.model, say(warmup))
    st.markdown(" · ".join(map(words.literal, what)))
    st.caption(words.literal(" · ".join([frame.called(run), about.made(run.made.isoformat())])))
    about.noted(run)
    if status.error:
        st.error(words.error(status.error), icon=":material/error:")
    if status.state == "finished":
        cost.taken(run)
        icon = ":material/arrow_forward:"
        frame.next_link("pages/Explore.py", say("Explore what the model found"), icon, frame.link())
    job.controls(run)
    bell.bell(run, status, frame.called(run))
    job.live(run)
    about.edit(run)
    with st.expander(say("Settings")):
        st.json(run.config_values())
    share.offer(corner, run, api.run_command(config, run), say("The command that makes this run:"))


with frame.page("Run") as corner:
    view = url.choose(
        st.segmented_control,
        say("View"),
        [WATCH, NEW, QUEUE],
        "view",
        format_func=say,
        default=WATCH if url.get("run") else NEW,
        required=True,
        label_visibility="collapsed",
    )
    if view == WATCH:
        watch_run(frame.chosen_run(), corner)
    elif view == NEW:
        new_run(corner)
    else:
        frame.headline(say("What is at work, and what waits?"))
        share.listed(corner)
        queue.show()
