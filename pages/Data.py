"""Is my data right?"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import streamlit as st

from grads import api
from grads.api import ACTIVE, Draft, GradsError, LayoutError, RunConfig
from studio import charts, frame, intake, job, setup, share, titles, uploads, words
from studio.language import mark, say

REFUSED = mark("This data cannot be used yet")


def head(headline: str) -> None:
    """The page's one sentence, put in its place."""
    with title.container():
        frame.headline(headline)


@contextmanager
def refusing() -> Iterator[None]:
    """Put the headline right where the settings are refused; the frame shows why."""
    try:
        yield
    except GradsError:
        head(say(REFUSED))
        raise


def show(draft: Draft, settings: RunConfig) -> None:
    """What was found in the data."""
    manifest, rejects = draft.read_manifest(), draft.read_rejects()
    counts = manifest.counts
    found = {"usable": counts.usable, "rows": words.count(counts.rows, "row")}
    head(
        say("{usable:,} of {rows} can be used, {refused:,} cannot", refused=counts.refused, **found)
        if rejects
        else say("{usable:,} of {rows} can be used", **found)
    )
    roles = ", ".join(f"{say(role)} = {column}" for role, column in manifest.columns.items())
    st.markdown(
        say(
            "Recognised as **{layout}**: {roles}.",
            layout=words.literal(say(manifest.source.layout)),
            roles=words.literal(roles),
        )
    )
    intake.remarks(manifest)
    tokens = api.lengths(draft)
    facts = {
        say("Examples to choose from"): counts.usable - counts.heldout,
        say("Set aside for evaluation"): counts.heldout,
        say("Cut at the longest length"): counts.truncated,
        say("Tokens to learn"): int(tokens["response_tokens"][~tokens["heldout"]].sum()),
    }
    for place, (name, value) in zip(st.columns(len(facts)), facts.items(), strict=True):
        place.metric(name, f"{value:,}")
    link, label = frame.link() | setup.handed_over(settings), say("Continue: what will it cost?")
    frame.next_link("pages/Run.py", label, ":material/arrow_forward:", link)
    left, right = st.columns([3, 2], gap="large")
    with left:
        intake.preview(draft)
    with right:
        before, answer = tokens["prompt_tokens"], tokens["response_tokens"]
        st.markdown("#### " + titles.lengths(before + answer))
        st.plotly_chart(
            charts.lengths(before, answer, manifest.longest),
            key="lengths",
            alt=say("Numbers of examples by length in tokens, before the answer and in it"),
        )
        intake.refused(rejects)


with frame.page("Data") as corner:
    title = st.empty()
    head(say("Which examples do you have?"))
    field, upload = st.columns(2, gap="medium")
    uploads.offer(
        upload,
        say(
            "Or upload a file (JSONL, JSON, CSV, TSV or Parquet, also as .gz or .zst, up to 200 MB)"
        ),
        "dataset",
    )
    dataset = setup.text("dataset", field, placeholder="data/train.jsonl")
    roots = ", ".join(map(str, api.allowed_roots()))
    field.caption(say("A path below: {folders}", folders=words.literal(roots)))
    with refusing():
        place = api.data_place(dataset)
    with st.expander(say("Columns, model and limits"), expanded=intake.to_be_mapped(place)):
        chosen: dict[str, Any] = {
            "columns": setup.mapping(intake.columns(place)) if dataset else {}
        }
        st.caption(say("Left empty, the layout is recognised by itself."))
        model, longest, limit, heldout = st.columns(4, vertical_alignment="bottom")
        chosen |= {
            "model": setup.text("model", model, "demo"),
            "max_length": setup.widget("max_length", longest),
            "limit": setup.widget("limit", limit) or None,
            "heldout": setup.widget("heldout", heldout),
        }
        places = st.columns(4, vertical_alignment="bottom")
        for name, field in zip(("layout", *setup.OF_A_HUB), places, strict=True):
            chosen[name] = setup.widget(name, field)
    if not dataset:
        st.stop()
    with refusing():
        settings = setup.config(dataset=dataset, **chosen)
    wrong = intake.problem(settings)
    if wrong is not None:
        head(say(REFUSED))
        st.error(words.error(str(wrong)), icon=":material/error:")
        if isinstance(wrong, LayoutError):
            intake.first_rows(settings)
        st.stop()
    command = api.run_command(settings)
    share.offer(corner, None, command, say("The command that starts a run on these data:"))
    draft = intake.check(settings)
    status = api.observe(draft)
    if status.state in ACTIVE:
        head(say("Reading your data"))
        job.wait_for(draft, say("Reading the data"))
    elif status.state == "finished":
        show(draft, settings)
    else:
        head(say(REFUSED))
        intake.failed(draft, settings)
