"""Who reviews: asked for once, and kept by the tab of the browser; no link holds it."""

from typing import Any

import streamlit as st

from studio import words
from studio.language import say

NAME = "reviewer"  # in the session, as on the pages where an example is open
FORGOTTEN = "forgotten reviewer"  # in the session: the tab is to keep no name
KEEPER = "keeper"
# What the tab's session storage holds outlives a reload and goes with the tab.
JS = """
const KEY = "grads-reviewer";
export default function ({ data, setTriggerValue }) {
  const kept = sessionStorage.getItem(KEY);
  if (data.name) sessionStorage.setItem(KEY, data.name);
  else if (data.forgotten) sessionStorage.removeItem(KEY);
  else if (kept) setTriggerValue("name", kept);
}
"""
_keeper = st.components.v2.component("grads_reviewer", html="<span></span>", js=JS)


def known() -> str:
    """Who has said a name, on any page; "" where nobody has."""
    return str(st.session_state.get(NAME) or "").strip()


def name(place: Any) -> str:
    """Who decides, or "" as long as nobody has said; in a field for it, keys are letters."""
    said = known()
    with st.container(key="kept"):
        forgotten = bool(st.session_state.get(FORGOTTEN))
        told = {"name": said, "forgotten": forgotten}
        _keeper(key=KEEPER, data=told, on_name_change=_remember)
    if not said:
        place.text_input(say("Your name"), key=NAME, persist_state="session")
        return ""
    with place.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f":material/person: **{words.literal(said)}**", width="content")
        st.button(say("Someone else"), type="tertiary", on_click=_forget)
    return said


def _remember() -> None:
    if kept := st.session_state[KEEPER].get("name"):
        st.session_state[NAME] = str(kept)


def _forget() -> None:
    st.session_state[NAME] = ""
    st.session_state[FORGOTTEN] = True
