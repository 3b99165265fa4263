"""What was found in a data set: its first examples as the model sees them, and refused rows."""

import json

import pandas as pd
import streamlit as st

from grads import api
from grads.api import Draft
from studio import reader, words


def columns(place: str) -> list[str]:
    """The columns to map by hand; read again only after a file of the data has changed."""
    return _columns(place, api.data_stamp(place))


@st.cache_data(max_entries=8, show_spinner=False)
def _columns(place: str, stamp: str) -> list[str]:
    return api.columns_of(place)


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
    table = pd.DataFrame(rejects)
    table["row"] = table["sample_id"]  # runs from before 0.5 counted rows from 1
    names = [name for name in ("row", "line", "file", "reason", "advice") if name in table]
    table = table[names].dropna(axis="columns", how="all")
    st.dataframe(table.head(500), hide_index=True, alt="Refused rows with their reasons")
    lines = "".join(json.dumps(reject, ensure_ascii=False) + "\n" for reject in rejects)
    st.download_button(
        "Download the list", lines, "refused.jsonl", icon=":material/download:", on_click="ignore"
    )
