"""What a run will cost, measured before the start, and what it took."""

import streamlit as st

from grads import api
from grads.api import ACTIVE, Run, RunConfig, RunCost
from studio import job, wanted, words
from studio.language import say


def price(settings: RunConfig, data: Run) -> None:
    """The estimate of these settings: a rough one at once, a measured one on demand."""
    draft = api.draft(settings, "cost")
    wanted.want("cost", draft)
    status = api.observe(draft)
    if draft.estimate_file.exists():
        st.markdown(sentence(draft.read_estimate()))
        st.caption(say("Measured on this machine with a few of your own examples."))
        return
    rough = api.rough_cost(settings, data)
    if rough is not None:
        name, seconds = rough
        st.markdown(
            say(
                "Roughly **{time}**, at the speed of {run}.",
                time=words.duration(seconds),
                run=words.literal(name),
            )
        )
    if status.state in ACTIVE:
        job.wait_for(draft, say("Measuring with your model and data"))
    else:
        if status.state == "failed":
            st.error(words.error(status.error or ""), icon=":material/error:")
        if st.button(say("Estimate time, memory and disk"), icon=":material/timer:"):
            api.check(settings, "cost", again=True)
            st.rerun()


def sentence(estimate: RunCost) -> str:
    """An estimate in a sentence."""
    total = sum(estimate.seconds.values())
    parts = ", ".join(
        words.literal(f"{say(name)} {words.duration(seconds)}")
        for name, seconds in estimate.seconds.items()
    )
    return say(
        "About **{time}** ({parts}), **{memory}** of memory and **{disk}** of disk for {examples}"
        " on {device}.",
        time=words.duration(total),
        parts=parts,
        memory=words.size(estimate.memory_bytes),
        disk=words.size(estimate.disk_bytes),
        examples=words.count(estimate.samples, "example"),
        device=words.literal(estimate.device),
    )


def taken(run: Run) -> None:
    """What the run took, beside what was estimated."""
    manifest = run.read_manifest()
    seconds = sum(manifest.seconds.values())
    text = say("It took {time}", time=words.duration(seconds))
    if run.estimate_file.exists():
        estimated = run.read_estimate().seconds
        expected = sum(estimated.values())
        alike = sum(manifest.seconds.get(stage, 0.0) for stage in estimated)
        text = say(
            "{told}; {time} were estimated ({deviation:+.0%})",
            told=text,
            time=words.duration(expected),
            deviation=alike / expected - 1,
        )
    if manifest.self_check:
        worst = manifest.self_check.largest_relative_difference
        text = say(
            "{told}. Gradients checked against the slow exact way: off by {worst:.1e} at most",
            told=text,
            worst=worst,
        )
    st.caption(say("{told}.", told=text))
