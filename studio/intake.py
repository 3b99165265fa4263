"""What was found in a data set: its first examples as the model sees them, and refused rows."""

import json

import pandas as pd
import streamlit as st

from grads import api
from grads.api import DataError, Draft, LayoutError, Manifest, RunConfig
from studio import job, reader, setup, wanted, words
from studio.language import mark, say

SHOWN = 500  # refused rows on the page; more would make it slow
REFUSED = (mark("row"), mark("line"), mark("file"), mark("reason"), mark("advice"))  # its columns


def columns(place: str) -> list[str]:
    """The columns to map by hand; read again only after a file of the data has changed."""
    return _columns(place, api.data_stamp(place))


@st.cache_data(max_entries=8, show_spinner=False)
def _columns(place: str, stamp: str) -> list[str]:
    return api.columns_of(place)


def problem(settings: RunConfig) -> DataError | None:
    """What is plainly wrong with the data; looked at again only after a file has changed."""
    return _problem(settings, api.data_stamp(settings.dataset))


@st.cache_data(max_entries=32, show_spinner=False)
def _problem(settings: RunConfig, stamp: str) -> DataError | None:
    try:
        api.look(settings)
    except DataError as error:
        return error
    return None


def to_be_mapped(place: str) -> bool:
    """Whether a person has to say what the columns are, or is about to."""
    if not place:
        return False
    first = setup.first_look(place)
    return first is None or isinstance(problem(first), LayoutError)


def first_rows(settings: RunConfig) -> None:
    """The first rows as they stand, where a person has to say what the columns are."""
    st.markdown("#### " + say("Your first rows"))
    rows = api.first_rows(settings.dataset)
    table = pd.DataFrame([{name: str(value) for name, value in row.items()} for row in rows])
    st.dataframe(table, hide_index=True, alt=say("The first rows of the data"))
    st.caption(
        say(
            "Say above which column holds the question and which the answer, or which holds the"
            " whole dialogue."
        )
    )


def check(settings: RunConfig) -> Draft:
    """The look at these data, which this session waits for instead of the one before."""
    draft = api.check(settings, "data")
    wanted.want("data", draft)
    return draft


def failed(draft: Draft, settings: RunConfig) -> None:
    """Why the data could not be looked at, and another try: never without a person."""
    st.error(words.error(api.observe(draft).error or say("It could not be read.")))
    if st.button(say("Try again"), icon=":material/refresh:"):
        api.check(settings, "data", again=True)
        st.rerun()
    if rejects := draft.read_rejects():
        refused(rejects)
    job.log(draft)


def preview(draft: Draft) -> None:
    """The first examples, as the model sees them."""
    st.markdown("#### " + say("What the model will see"))
    rows = api.examples(draft)
    several = len(rows) > 1
    number = st.select_slider(say("Example"), range(1, len(rows) + 1)) if several else 1
    row = rows[number - 1]
    reader.conversation(row["turns"])
    told = say("As tokens: what is underlined is learned, the rest only read")
    with st.expander(told, expanded=True):
        reader.tokens(row["pieces"], row["trained"])


def remarks(manifest: Manifest) -> None:
    """What is in the data and not trained, or not as it looks."""
    if manifest.unused_columns:
        names = ", ".join(manifest.unused_columns)
        st.caption(say("Columns that nothing uses: {columns}.", columns=words.literal(names)))
    if manifest.without_end_of_turn:
        count = words.count(manifest.without_end_of_turn, "example")
        st.caption(
            say(
                "The model's chat template shows no end of an answer: {examples} will not teach it"
                " to stop.",
                examples=count,
            )
        )
    if manifest.spelled_out:
        count = words.count(manifest.spelled_out, "example")
        st.caption(
            say(
                "Control tokens of the model that {examples} spell out are read as plain text.",
                examples=count,
            )
        )


def refused(rejects: list[dict[str, object]]) -> None:
    """Rows that cannot be used, with the reason and what to do."""
    if not rejects:
        st.success(say("Every row can be used."), icon=":material/check_circle:")
        return
    rows = words.count(len(rejects), "row")
    st.markdown("#### " + say("{rows} refused", rows=rows))
    table = pd.DataFrame(rejects)
    table["row"] = table["sample_id"]  # runs from before 0.5 counted rows from 1
    names = [name for name in REFUSED if name in table]
    table = table[names].dropna(axis="columns", how="all")
    st.dataframe(
        table.head(SHOWN),
        hide_index=True,
        alt=say("Refused rows with their reasons"),
        column_config={name: say(name) for name in REFUSED},
    )
    if len(table) > SHOWN:
        st.caption(
            say("The first {shown} of {rows}; the download holds all.", shown=SHOWN, rows=rows)
        )
    lines = "".join(json.dumps(reject, ensure_ascii=False) + "\n" for reject in rejects)
    st.download_button(
        say("Download the list"),
        lines,
        "refused.jsonl",
        icon=":material/download:",
        on_click="ignore",
    )
