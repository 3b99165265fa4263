"""Decisions out and in as files, and a packet for someone without the tool."""

from functools import partial

import pandas as pd
import streamlit as st

from grads import api
from grads.api import GradsError, QueueConfig, Run
from studio import language, words
from studio.language import say

UPLOAD, TOLD = "decisions-upload", "decisions-told"


def offer(run: Run, config: QueueConfig, empty: bool) -> None:
    """What goes out to others, and what comes back from them; an empty queue makes no packet."""
    out, back = st.columns(2, gap="large")
    with out:
        st.markdown("**" + say("Out") + "**")
        for kind, label in (
            ("csv", say("Decisions as CSV, for a spreadsheet")),
            ("jsonl", say("Decisions as JSONL")),
        ):
            st.download_button(
                label,
                partial(api.decisions_as, run, kind),
                f"decisions-{run.id}.{kind}",
                icon=":material/download:",
                on_click="ignore",
            )
        st.download_button(
            say("This queue as a packet"),
            partial(_packet, run, config, language.current()),
            f"review-{run.id}-{config.kind}.html",
            mime="text/html",
            icon=":material/package_2:",
            on_click="ignore",
            disabled=empty,
        )
        st.caption(
            say(
                "A packet is one file for a reviewer without this tool: a page that works in any"
                " browser without a network, and gives a CSV file back."
            )
        )
    with back:
        st.markdown("**" + say("In") + "**")
        st.file_uploader(
            say("Decisions of others (CSV or JSONL)"), key=UPLOAD, on_change=_take_in, args=(run,)
        )
        _tell(run)


def _packet(run: Run, config: QueueConfig, spoken: str) -> bytes:
    """Made when it is asked for, in the language of the page that offered it."""
    with language.speaking(spoken):
        return api.packet_page(run, config, language.told).encode()


def _take_in(run: Run) -> None:
    file = st.session_state[UPLOAD]
    st.session_state.pop(TOLD, None)
    if file is None:
        return
    try:
        st.session_state[TOLD] = (run.id, file.name, api.take_in(run, file.getvalue(), file.name))
    except GradsError as error:
        st.session_state[TOLD] = (run.id, file.name, str(error))


def _tell(run: Run) -> None:
    """What became of the file that was given last."""
    run_id, name, found = st.session_state.get(TOLD, ("", "", ""))
    if run_id != run.id:
        return
    if isinstance(found, str):
        st.error(words.error(found), icon=":material/error:")
        return
    st.success(
        say(
            "{file}: {decisions} taken in, {known:,} known already.",
            file=words.literal(name),
            decisions=words.count(found.taken, "decision"),
            known=found.known,
        ),
        icon=":material/check_circle:",
    )
    if found.refused:
        rows = words.count(len(found.refused), "row")
        st.warning(say("{rows} refused:", rows=rows), icon=":material/warning:")
        st.dataframe(
            pd.DataFrame(found.refused),
            hide_index=True,
            alt=say("Rows that were refused"),
            column_config={name: say(name) for name in ("line", "reason")},
        )
