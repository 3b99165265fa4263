"""A job as people watch it: its steps, progress, speed, machine, log, and stopping it."""

import time
from pathlib import Path

import streamlit as st

from grads import api
from grads.api import ACTIVE, Evaluation, JobFolder, Run, Status
from studio import charts, frame, url, words
from studio.language import mark, say, told

MARKS = {
    "done": ":green[:material/check_circle:]",
    "now": ":blue[:material/play_circle:]",
    "broken off": ":orange[:material/pause_circle:]",
    "waiting": ":gray[:material/radio_button_unchecked:]",
    "skipped": ":gray[:material/remove:]",
}
ENDS = {  # what is said of the end of a job that foresees it
    Run: mark("{told}; about {time} to the end of the run"),
    Evaluation: mark("{told}; about {time} to the end of the evaluation"),
}
# What the status of a job names beside the stages of a run, as its stages call it.
NAMED = (
    *(mark("evaluate"), mark("pilots"), mark("second test"), mark("token signals")),
    *(mark("measure"), mark("token passes"), mark("sets")),
)


def message(status: Status) -> str:
    """What a job says of itself: what it waits for, or trains; mostly nothing."""
    said = told(api.AT_WORK.found(api.watch.WAITS.found(status.message)))
    return words.literal(said[:1].upper() + said[1:])


def progress(folder: JobFolder, status: Status) -> str:
    """A bar with the stage, how far it is, and the time that it and all still take.

    Where the end of all is foreseen, the bar is of all, and moves while a stage only begins. Gives
    the stage and how far it is in a few words; none while it waits.
    """
    known, left = api.watch.STAGES.get(status.stage), api.watch.left(folder, status)
    stage = say(known.label if known else status.stage)
    text = message(status) or words.literal(stage) or say("Starting")
    if status.total and not status.message:
        text = say(
            "{stage}: {done:,} of {total:,} {unit}",
            stage=text,
            done=status.done,
            total=status.total,
            unit=words.literal(say(status.unit)),
        )
    if status.eta_s is not None and status.eta_s != left:
        text = say("{told}, about {time} left", told=text, time=words.duration(status.eta_s))
    share = of_stage = min(status.done / status.total, 1.0) if status.total else 0.0
    if left is not None:
        end = ENDS[type(folder)]
        text = say(end, told=text, time=words.duration(left))
        spent = max(time.time() - (status.process_started or time.time()), 0.0)
        share = spent / max(spent + left, 1e-9)
    st.progress(share, text=text)
    if not status.stage or (status.message and not status.total):
        return ""
    return f"{of_stage:.0%} · {stage}"


def state(status: Status) -> None:
    """The state of a job, as it is now."""
    word, icon, colour = words.state(status.state)
    st.markdown(f":{colour}[{icon} **{word}**]")


def live(run: Run) -> None:
    """Everything about a run's job; looks again every second while it is at work."""
    status = api.observe(run)
    if status.state in ACTIVE:
        _live(run)
    else:
        state(status)
        _picture(run, status)
        log(run)


@st.fragment(run_every=1.0)
def _live(run: Run) -> None:
    with frame.guard(), st.container(key="live"):
        status = api.observe(run)
        if status.state not in ACTIVE:
            st.rerun()
        state(status)
        frame.tab(progress(run, status) or say("waiting"))
        _picture(run, status)
        log(run)


def _picture(run: Run, status: Status) -> None:
    steps = api.watch.stages(run, status)
    for place, step in zip(st.columns(len(steps)), steps, strict=True):
        spent = f"  \n:gray[{words.duration(step.seconds)}]" if step.seconds else ""
        place.markdown(
            f"{MARKS[step.state]} {say(step.label)}{spent}",
            help=say(api.watch.STAGES[step.name].help),
        )
    lines = api.watch.metrics(run)
    _numbers(status, lines)
    shown = [name for name in ("warm-up", "score") if len(lines.get(name, [])) > 1]
    for place, name in zip(st.columns(max(len(shown), 1)), shown, strict=False):
        rows = lines[name]
        unit = say("training step") if name == "warm-up" else say("batch")
        stage = say(api.watch.STAGES[name].label)
        ends = {"first": rows[0]["loss"], "last": rows[-1]["loss"]}
        place.markdown(
            say("**{stage}**: the loss was {first:.2f}, now {last:.2f}", stage=stage, **ends)
        )
        place.plotly_chart(
            charts.loss_curve([r["step"] for r in rows], [r["loss"] for r in rows], unit),
            key=f"loss-{name}",
            alt=say("Loss by {unit}, now {loss:.2f}", unit=unit, loss=rows[-1]["loss"]),
        )


def _numbers(status: Status, lines: dict[str, list[dict[str, float]]]) -> None:
    now = api.watch.machine(status)
    rows = lines.get(status.stage, [])
    if now is None:
        return
    memory = {"used": words.size(now.memory), "total": words.size(now.total_memory)}
    load = {"percent": now.cpu_percent / now.cores, "cores": now.cores}
    speed = {"tokens": rows[-1]["tokens_per_s"]} if rows else {}
    shown = {
        say("Speed"): say("{tokens:,.0f} tokens/s", **speed) if rows else say("not yet"),
        say("Loss"): f"{rows[-1]['loss']:.3f}" if rows else say("not yet"),
        say("Processor"): say("{percent:.0f}% of {cores} cores", **load),
        say("Memory"): say("{used} of {total}", **memory),
    }
    if now.gpu:
        shown["GPU"] = told(now.gpu)
    for place, (name, value) in zip(st.columns(len(shown)), shown.items(), strict=True):
        place.metric(name, value)


def controls(run: Run) -> None:
    """Stop, resume, and delete with a question."""
    status = api.observe(run)
    with st.container(horizontal=True):
        if status.state in ACTIVE:
            if st.button(
                say("Stop"), icon=":material/stop_circle:", disabled=status.state == "stopping"
            ):
                with st.spinner(say("Stopping: the job finishes its step first")):
                    api.stop_run(run)
                st.rerun()
        elif status.state != "finished":
            if st.button(say("Resume"), icon=":material/play_circle:", type="primary"):
                api.resume_run(run)
                st.rerun()
        elif st.button(say("Check the files"), icon=":material/fact_check:"):
            api.resume_run(run)  # says so where nothing is damaged
            st.rerun()
        if status.state not in ACTIVE and st.button(say("Delete"), icon=":material/delete:"):
            st.dialog(say("Delete this run?"))(_delete)(run)


def log(folder: JobFolder) -> None:
    """The end of a job's own output."""
    text = api.watch.log_tail(folder)
    if text:
        with st.expander(say("Log")):
            st.code(text[-6000:], language=None)


def _written(file: Path | None) -> int:
    return file.stat().st_mtime_ns if file is not None and file.exists() else 0


def _delete(run: Run) -> None:
    st.write(
        say(
            "{run} with its scores, saved selections, exports and evaluations will be gone. Your"
            " data file stays.",
            run=words.literal(run.id),
        )
    )
    with frame.guard():
        if st.button(say("Delete it"), type="primary"):
            api.delete_run(run)
            url.put("run")
            st.rerun()


def wait_for(folder: JobFolder, what: str, result: Path | None = None) -> None:
    """A bar while a job is at work; draws the page again when it has ended, or a new result."""
    _wait_for(folder, what, result, _written(result))


@st.fragment(run_every=0.3)  # a look at data takes hardly longer
def _wait_for(folder: JobFolder, what: str, result: Path | None, seen: int) -> None:
    with frame.guard():
        status = api.observe(folder)
        if status.state not in ACTIVE or _written(result) != seen:
            st.rerun()
        status.message = status.message or ("" if status.total else what)
        frame.tab(progress(folder, status) or what)
