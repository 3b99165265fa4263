"""Which ones, and what changes if I move?"""

import streamlit as st

from grads import api
from grads.api import preview
from studio import choice, frame, keep, options, probes, reader, words

with frame.page("Select"):
    run = frame.scored_run()
    pool = api.load_pool(run)
    title = st.empty()
    with title.container():
        frame.headline("Which examples to keep?")
    moves, result = st.columns([3, 7], gap="large")
    with moves:
        chosen = options.chosen(pool)
    shown = None
    with result, frame.telling():
        if chosen is not None:
            shown = preview(pool, api.with_decisions(run, chosen))
    if shown is not None:
        with title.container():
            frame.headline(f"Keep {shown.count:,} of {words.count(len(pool), 'example')}")
            st.caption(
                "What a setting picks is shown here; whether it helps, only the page Evaluate"
                " tells."
            )
        with result:
            choice.numbers(pool, shown)
            choice.remarks(shown)
            choice.picture(pool, shown)
            choice.covered(pool, shown)
    with moves:
        if shown is not None:
            keep.save(pool, shown)
        with st.expander("Examples of what I want, and of what must stay"):
            probes.offer(pool)
        keep.decided(run)
        with st.expander("Export a saved selection", expanded=True):
            keep.export(run)
    heading, go = st.columns([5, 1], vertical_alignment="bottom")
    heading.markdown("#### Example by example")
    reader.go_to(go)
    if shown is not None:
        choice.lists(pool, shown)
    kept = None if shown is None else shown.kept
    sample = reader.chosen_sample()
    if sample is not None and reader.read(pool, sample, kept):
        keep.decide(run, sample)
    with st.expander("Compare two saved selections"):
        keep.compare(pool)
    with st.expander("Show the maths"):
        st.markdown(words.SIGNAL_MATHS + words.CHOICE_MATHS)
