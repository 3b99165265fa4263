"""What does the model find in my data?"""

import numpy as np
import streamlit as st

from grads import api
from studio import (
    agreement,
    bulk,
    charts,
    filters,
    frame,
    keep,
    listing,
    probes,
    reader,
    url,
    words,
)

PICTURES = (
    ("Distribution of", "column", "signal"),
    ("Plane: across", "x", "embed_signal"),
    ("Plane: up", "y", "head_signal"),
)

with frame.page("Explore"):
    run = frame.scored_run()
    pool = api.load_pool(run)
    title = st.container()
    wanted = filters.bar(pool)
    shown = pool.matching(wanted)
    with title:
        matching = "" if shown.all() else f": {shown.sum():,} match"
        frame.headline(f"What the model finds in {words.count(len(pool), 'example')}{matching}")
        st.caption(
            "Every example gets a learning signal: how strongly the model would change by learning"
            " it. Draw in a picture to narrow down; choose a row to read."
        )

    numbers, names = list(pool.numbers), run.selection_names()
    settings = st.columns(5)
    column, x, y = (
        url.choose(place.selectbox, title, numbers, key, default=default, format_func=words.label)
        for place, (title, key, default) in zip(settings, PICTURES, strict=False)
    )
    selection = url.choose(
        settings[3].selectbox, "Saved selection", names, "selection", index=None, placeholder="none"
    )
    if selection:
        keep.warn_of_stale(run, [selection])
    colours = filters.colours(pool, selection)
    by = url.choose(settings[4].selectbox, "Colour", colours, "colour", format_func=words.label)
    kept = pool.kept(selection) if selection else None

    if not shown.any():
        st.info("No example matches. Take a filter off.", icon=":material/filter_alt_off:")
    group = filters.groups(pool, by, kept)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        labels = (words.label(x), words.label(y))
        figure, points = charts.plane(
            pool.numbers[x],
            pool.numbers[y],
            shown,
            names=group.names,
            code=group.code,
            sample_id=pool.scores.sample_id,
            labels=labels,
        )
        filters.mark(figure, wanted, x, y)
        st.plotly_chart(
            figure,
            key="plane",
            on_select=filters.brushed("plane", x, y),
            selection_mode=("box", "lasso"),
            alt=f"{labels[0]} against {labels[1]} of {shown.sum():,} examples",
        )
        st.caption(
            f"Showing {points:,} of {shown.sum():,} examples as points; the grey background is all"
            f" {len(pool):,}. A drawn shape applies to all."
        )
    with right:
        st.plotly_chart(
            charts.distribution(
                pool.numbers[column],
                shown,
                words.label(column),
                kept,
                brush=filters.range_of(wanted, column),
            ),
            key="distribution",
            on_select=filters.brushed("distribution", column, tails=pool.numbers[column]),
            selection_mode="box",
            alt=f"Distribution of {words.label(column)} over {shown.sum():,} examples",
        )
        st.caption(words.meaning(column))
        if pool.cluster is not None:
            with st.expander(f"{len(pool.clusters)} topics, by their own terms", expanded=True):
                sizes = np.bincount(pool.cluster[shown], minlength=len(pool.clusters))
                st.plotly_chart(
                    charts.topics(
                        pool.cluster_names(), sizes.tolist(), [c.size for c in pool.clusters]
                    ),
                    key="topic-sizes",
                    alt="Number of examples in each topic",
                )

    heading, controls, go = st.columns([2, 4, 1], vertical_alignment="bottom")
    heading.markdown(f"#### {words.count(int(shown.sum()), 'example')}")
    reader.go_to(go)
    listing.table(pool, shown, "list", told=listing.fate(kept), beside=controls)
    sample = reader.chosen_sample()
    if sample is not None and reader.read(pool, sample, kept):
        keep.decide(run, sample)
    if shown.any():
        bulk.act(pool, wanted, shown)
    if 0 < shown.sum() <= min(probes.MOST_ROWS, len(pool) - 1):
        with st.expander(f"Use these {words.count(int(shown.sum()), 'example')} as a set"):
            probes.offer(pool, pool.scores.sample_id[shown].tolist())
    with st.expander("Does another run find the same?", expanded=bool(url.get("other"))):
        agreement.compare(run)
    with st.expander("Show the maths"):
        st.markdown(words.SIGNAL_MATHS)
