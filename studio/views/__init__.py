"""Linked views of samples in one component: plain JavaScript on canvases, its files beside this.

A gesture (a shape drawn, a range dragged, a point chosen) comes back as one small message.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

HERE = Path(__file__).parent
KEY = "views"
_html, _css, _js = ((HERE / f"views.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
_mount = st.components.v2.component("grads.views", html=_html, css=_css, js=_js)


def draw(data: dict[str, Any], hear: Callable[[dict[str, Any]], None]) -> None:
    """The views of `data` (studio.views.data); `hear` is called with each gesture."""

    def heard() -> None:
        gesture = st.session_state[KEY].gesture
        if isinstance(gesture, dict):
            hear(gesture)

    _mount(key=KEY, data=data, on_gesture_change=heard)
