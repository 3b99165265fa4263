"""Is my data right?"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import streamlit as st

from grads import api
from grads.api import ACTIVE, Draft, GradsError, LayoutError, RunConfig
from studio import charts, frame, intake, job, setup, uploads, words

REFUSED = "This data cannot be used yet"


def say(headline: str) -> None:
    """The page's one sentence, put in its place."""
    with title.container():
        frame.headline(headline)


@contextmanager
def refusing() -> Iterator[None]:
    """Put the headline right where the settings are refused; the frame shows why."""
    try:
        yield
    except GradsError:
        say(REFUSED)
        raise


def show(draft: Draft, settings: RunConfig) -> None:
    """What was found in the data."""
    manifest, rejects = draft.read_manifest(), draft.read_rejects()
    counts = manifest.counts
    refused = f", {counts.refused:,} cannot" if rejects else ""
    say(f"{counts.usable:,} of {words.count(counts.rows, 'row')} can be used{refused}")
    roles = ", ".join(f"{role} = {column}" for role, column in manifest.columns.items())
    layout = words.literal(manifest.source.layout)
    st.markdown(f"Recognised as **{layout}**: {words.literal(roles)}.")
    intake.remarks(manifest)
    tokens = api.lengths(draft)
    facts = {
        "Examples to choose from": counts.usable - counts.heldout,
        "Set aside for evaluation": counts.heldout,
        "Cut at the longest length": counts.truncated,
        "Tokens to learn": int(tokens["response_tokens"][~tokens["heldout"]].sum()),
    }
    for place, (name, value) in zip(st.columns(len(facts)), facts.items(), strict=True):
        place.metric(name, f"{value:,}")
    link, label = frame.link() | setup.handed_over(settings), "Continue: what will it cost?"
    frame.next_link("pages/Run.py", label, ":material/arrow_forward:", link)
    left, right = st.columns([3, 2], gap="large")
    with left:
        intake.preview(draft)
    with right:
        st.markdown("#### How long the examples are")
        st.plotly_chart(
            charts.lengths(tokens["prompt_tokens"], tokens["response_tokens"], manifest.longest),
            key="lengths",
            alt="Numbers of examples by length in tokens, questions and answers apart",
        )
        intake.refused(rejects)


with frame.page("Data"):
    title = st.empty()
    say("Which examples do you have?")
    field, upload = st.columns(2, gap="medium")
    uploads.offer(
        upload,
        "Or upload a file (JSONL, JSON, CSV, TSV or Parquet, also as .gz or .zst, up to 200 MB)",
        "dataset",
    )
    dataset = setup.text("dataset", field, placeholder="data/train.jsonl")
    field.caption(words.literal(f"A path below: {', '.join(map(str, api.allowed_roots()))}"))
    with refusing():
        place = api.data_place(dataset)
    with st.expander("Columns, model and limits", expanded=intake.to_be_mapped(place)):
        chosen: dict[str, Any] = {
            "columns": setup.mapping(intake.columns(place)) if dataset else {}
        }
        st.caption("Left empty, the layout is recognised by itself.")
        model, longest, limit, heldout = st.columns(4)
        chosen |= {
            "model": setup.text("model", model, "demo"),
            "max_length": setup.widget("max_length", longest),
            "limit": setup.widget("limit", limit) or None,
            "heldout": setup.widget("heldout", heldout),
        }
        for name, field in zip(("layout", *setup.OF_A_HUB), st.columns(4), strict=True):
            chosen[name] = setup.widget(name, field)
    if not dataset:
        st.stop()
    with refusing():
        settings = setup.config(dataset=dataset, **chosen)
    wrong = intake.problem(settings)
    if wrong is not None:
        say(REFUSED)
        st.error(words.error(str(wrong)), icon=":material/error:")
        if isinstance(wrong, LayoutError):
            intake.first_rows(settings)
        st.stop()
    draft = intake.check(settings)
    status = api.observe(draft)
    if status.state in ACTIVE:
        say("Reading your data")
        job.wait_for(draft, "Reading the data")
    elif status.state == "finished":
        show(draft, settings)
    else:
        say(REFUSED)
        intake.failed(draft, settings)
