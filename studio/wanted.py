"""What the sessions of this server wait for: what none of them wants any more is given up."""

from typing import Literal

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from grads import api
from grads.api import Draft

Purpose = Literal["data", "cost"]
_wanted: dict[str, dict[Purpose, Draft]] = {}  # by session


def want(purpose: Purpose, draft: Draft) -> None:
    """This session waits for a draft, and for no other of the same purpose."""
    mine = _wanted.setdefault(_session(), {})
    before = mine.get(purpose)
    mine[purpose] = draft
    if before is not None:
        _let_go(before)


def _let_go(draft: Draft) -> None:
    everyone = [one for mine in list(_wanted.values()) for one in list(mine.values())]
    if all(one.path != draft.path for one in everyone):
        api.give_up(draft)


def _left(session: str) -> None:
    """A tab was closed, or its connection is lost: if it comes back, its page asks anew."""
    for draft in _wanted.pop(session, {}).values():
        _let_go(draft)


@st.cache_resource(scope="session", on_release=_left, show_spinner=False)
def _session() -> str:
    """The session that draws a page; its end is told to `_left`."""
    context = get_script_run_ctx()
    assert context is not None
    return context.session_id
