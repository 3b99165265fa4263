"""What a run will cost, measured before the start, and what it took."""

import streamlit as st

from grads import api
from grads.api import ACTIVE, Run, RunConfig, RunCost
from studio import job, words


def price(settings: RunConfig, data: Run) -> None:
    """The estimate of these settings: a rough one at once, a measured one on demand."""
    draft = api.draft(settings, "cost")
    status = api.observe(draft)
    if draft.estimate_file.exists():
        st.markdown(sentence(draft.read_estimate()))
        st.caption("Measured on this machine with a few of your own examples.")
        return
    rough = api.rough_cost(settings, data)
    if rough is not None:
        name, seconds = rough
        st.markdown(
            f"Roughly **{words.duration(seconds)}**, at the speed of {words.literal(name)}."
        )
    if status.state in ACTIVE:
        job.wait_for(draft, "Measuring with your model and data")
    else:
        if status.state == "failed":
            st.error(words.error(status.error or ""), icon=":material/error:")
        if st.button("Estimate time, memory and disk", icon=":material/timer:"):
            api.check(settings, "cost", again=True)
            st.rerun()


def sentence(estimate: RunCost) -> str:
    """An estimate in a sentence."""
    total = sum(estimate.seconds.values())
    parts = ", ".join(
        words.literal(f"{name} {words.duration(seconds)}")
        for name, seconds in estimate.seconds.items()
    )
    return (
        f"About **{words.duration(total)}** ({parts}),"
        f" **{words.size(estimate.memory_bytes)}** of memory and"
        f" **{words.size(estimate.disk_bytes)}** of disk for"
        f" {words.count(estimate.samples, 'example')} on {words.literal(estimate.device)}."
    )


def taken(run: Run) -> None:
    """What the run took, beside what was estimated."""
    manifest = run.read_manifest()
    seconds = sum(manifest.seconds.values())
    text = f"It took {words.duration(seconds)}"
    if run.estimate_file.exists():
        estimated = run.read_estimate().seconds
        expected = sum(estimated.values())
        alike = sum(manifest.seconds.get(stage, 0.0) for stage in estimated)
        text += f"; {words.duration(expected)} were estimated ({alike / expected - 1:+.0%})"
    if manifest.self_check:
        worst = manifest.self_check.largest_relative_difference
        text += f". Gradients checked against the slow exact way: off by {worst:.1e} at most"
    st.caption(f"{text}.")
