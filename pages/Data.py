"""Is my data right?"""

import json

import numpy as np
import pandas as pd
import streamlit as st

from grads import api, charts, jobs
from grads.config import ROLES, RunConfig
from grads.runs import ACTIVE, Draft
from studio import frame, job, reader, setup, words

KINDS = ["jsonl", "json", "csv", "parquet"]


def take_upload() -> None:
    """Keep the uploaded file and put its place into the field."""
    file = st.session_state["upload"]
    if file is not None:
        st.session_state["dataset"] = api.save_upload(file.name, file.getvalue())


def show(draft: Draft, settings: RunConfig) -> None:
    """What was found in the data."""
    manifest, rejects = draft.read_manifest(), draft.read_rejects()
    counts = manifest["counts"]
    usable = f"{counts['usable']:,} of {words.count(counts['rows'], 'row')} can be used"
    with title:
        frame.headline(usable + (f", {counts['refused']:,} cannot" if rejects else ""))
    roles = ", ".join(f"{role} = `{column}`" for role, column in manifest["columns"].items())
    st.markdown(f"Recognised as **{manifest['source']['layout']}**: {roles}.")
    facts = {
        "Examples to choose from": counts["usable"] - counts["heldout"],
        "Set aside for evaluation": counts["heldout"],
        "Cut at the longest length": counts["truncated"],
        "Tokens to learn": counts["response_tokens"],
    }
    for place, (name, value) in zip(st.columns(len(facts)), facts.items(), strict=True):
        place.metric(name, f"{value:,}")
    params = {"view": "New run", **setup.as_link(settings)}
    frame.next_link(
        "pages/Run.py", "Continue: what will it cost?", ":material/arrow_forward:", params
    )
    left, right = st.columns([3, 2], gap="large")
    with left:
        preview(draft)
    with right:
        st.markdown("#### How long the examples are")
        tokens = api.lengths(draft)
        st.plotly_chart(
            charts.lengths(
                tokens["prompt_tokens"], tokens["response_tokens"], manifest["max_length"]
            ),
            key="lengths",
            alt=f"Lengths; the median is {np.median(sum(list(tokens.values())[:2])):.0f} tokens",
        )
        refused(rejects)


def preview(draft: Draft) -> None:
    """The first examples, as the model sees them."""
    st.markdown("#### What the model will see")
    rows = api.examples(draft)
    number = st.select_slider("Example", range(1, len(rows) + 1)) if len(rows) > 1 else 1
    row = rows[number - 1]
    reader.conversation(row["turns"])
    with st.expander("As tokens: what is underlined is learned, the rest only read", expanded=True):
        reader.tokens(row["pieces"], row["trained"])


def refused(rejects: list[dict[str, object]]) -> None:
    """Rows that cannot be used, with the reason and what to do."""
    if not rejects:
        st.success("Every row can be used.", icon=":material/check_circle:")
        return
    st.markdown(f"#### {words.count(len(rejects), 'row')} refused")
    table = pd.DataFrame(rejects)[["row", "reason", "advice"]]
    st.dataframe(table.head(500), hide_index=True, alt="Refused rows with their reasons")
    lines = "".join(json.dumps(reject, ensure_ascii=False) + "\n" for reject in rejects)
    st.download_button(
        "Download the list", lines, "refused.jsonl", icon=":material/download:", on_click="ignore"
    )


with frame.page("Data"):
    title = st.container()
    field, upload = st.columns(2, gap="medium")
    upload.file_uploader(
        "Or upload a file (JSONL, JSON, CSV or Parquet, up to 200 MB)",
        KINDS,
        key="upload",
        on_change=take_upload,
    )
    dataset = setup.text("dataset", field, placeholder="data/train.jsonl")
    field.caption("A path below: " + ", ".join(f"`{root}`" for root in api.allowed_roots()))
    with st.expander("Columns, model and limits"):
        model, longest, limit, heldout, split = st.columns(5)
        chosen = {
            "model": setup.text("model", model, value="demo"),
            "max_length": setup.widget("max_length", longest),
            "limit": setup.widget("limit", limit) or None,
            "heldout": setup.widget("heldout", heldout),
            "split": setup.widget("split", split),
        }
        place = api.data_place(dataset)
        chosen["columns"] = setup.mapping(api.columns_of(place)) if dataset else {}
        st.caption(f"Roles: {', '.join(ROLES)}. Left empty, the layout is recognised by itself.")
    if not dataset:
        with title:
            frame.headline("Which examples do you have?")
        st.stop()
    settings = setup.config(dataset=dataset, **chosen)
    draft = api.check(settings, "data")
    status = jobs.observe(draft)
    if status.state in ACTIVE:
        with title:
            frame.headline("Reading your data")
        job.wait_for(draft, "Reading the data")
    elif status.state == "finished":
        show(draft, settings)
    else:
        with title:
            frame.headline("This data cannot be used yet")
        st.error(words.literal(status.error or "It could not be read."), icon=":material/error:")
        job.log(draft)
