"""What will it cost, and how is it going?"""

from typing import Any

import streamlit as st

from grads import api
from grads.api import ACTIVE, Run, RunConfig
from studio import about, bell, cost, frame, intake, job, probes, queue, setup, share, url, words

WATCH, NEW, QUEUE = "Watch", "New run", "Queue"


def fields() -> RunConfig:
    """Four fields, the rest folded."""
    data, model, warmup, longest = st.columns([3, 2, 2, 1])
    values = {
        "dataset": setup.text("dataset", data, placeholder="data/train.jsonl"),
        "model": setup.text("model", model, "demo"),
        "warmup": setup.widget("warmup", warmup),
        "max_length": setup.widget("max_length", longest),
    }
    with st.expander("Advanced settings"):
        places = [place for _ in setup.ADVANCED[::5] for place in st.columns(5)]
        for name, place in zip(setup.ADVANCED, places, strict=False):
            values[name] = setup.widget(name, place)
    with st.expander("What I want, and what must stay"):
        values |= probes.given()
    if not values["dataset"]:
        st.info("First choose your data.", icon=":material/info:")
        st.page_link("pages/Data.py", label="Choose data", icon=":material/table_rows:")
        st.stop()
    for name in ("limit", "subsample", "clusters"):
        values[name] = values[name] or None  # 0 is no limit
    return setup.config(columns=setup.stored_mapping(), **values)


def new_run(corner: Any) -> None:
    """The settings, their price, and the start, once the data are found right."""
    frame.headline("What will it cost?", "A warm-up, then one reading of every example.")
    settings = fields()
    wrong = intake.problem(settings)
    if wrong is not None:
        st.error(words.error(str(wrong)), icon=":material/error:")
        st.page_link("pages/Data.py", label="Look at the data", icon=":material/table_rows:")
        st.stop()
    checked = intake.check(settings)
    status = api.observe(checked)
    if status.state in ACTIVE:
        job.wait_for(checked, "Checking the data")
        st.stop()
    if status.state != "finished":
        intake.failed(checked, settings)
        st.stop()
    cost.price(settings, checked)
    share.offer(corner, None, api.run_command(settings), "The command that starts this run:")
    others = api.busy()
    at_once = False
    if others:
        first, more = words.literal(others[0].id), len(others) - 1
        waiting = f", {words.count(more, 'job')} more in the queue" if more else ""
        st.info(f"{first} is at work{waiting}; a new run waits by itself.")
        at_once = st.toggle("Start at once all the same (both will be slower)")
    # Not a callback, whose arguments would be those of the last drawing, not of the screen.
    if st.button("Start", type="primary", icon=":material/play_arrow:"):
        url.put("run", api.start_new(settings, at_once=at_once).id)
        url.put("view", WATCH)
        url.write()  # a reload while the next drawing is made shows the new run too
        st.rerun()


def watch_run(run: Run, corner: Any) -> None:
    """The run's job."""
    status = api.observe(run)
    config = run.config()
    counts = run.read_manifest().counts
    size = words.count(counts.usable - counts.heldout, "example") if counts.rows else "data"
    sentence = {
        "finished": f"All {size} are scored",
        "failed": "This run has failed",
        "stopped": "This run is stopped; nothing finished is lost",
        "interrupted": "This run was interrupted; nothing finished is lost",
    }.get(status.state, "This run is at work")
    frame.headline(sentence)
    what = (config.dataset, config.model, setup.CHOICES["warmup"][config.warmup])
    st.markdown(" · ".join(map(words.literal, what)))
    st.caption(words.literal(" · ".join([frame.called(run), about.made(run.made.isoformat())])))
    about.noted(run)
    if status.error:
        st.error(words.error(status.error), icon=":material/error:")
    if status.state == "finished":
        cost.taken(run)
        icon = ":material/arrow_forward:"
        frame.next_link("pages/Explore.py", "Explore what the model found", icon, frame.link())
    job.controls(run)
    bell.bell(run, status, frame.called(run))
    job.live(run)
    about.edit(run)
    with st.expander("Settings"):
        st.json(run.config_values())
    share.offer(corner, run, api.run_command(config, run), "The command that makes this run:")


with frame.page("Run") as corner:
    view = url.choose(
        st.segmented_control,
        "View",
        [WATCH, NEW, QUEUE],
        "view",
        default=WATCH if url.get("run") else NEW,
        required=True,
        label_visibility="collapsed",
    )
    if view == WATCH:
        watch_run(frame.chosen_run(), corner)
    elif view == NEW:
        new_run(corner)
    else:
        frame.headline("What is at work, and what waits?")
        queue.show()
