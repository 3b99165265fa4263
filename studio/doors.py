"""A picture of categories: a click on one looks at its examples alone, once more at all again."""

from collections.abc import Sequence

import plotly.graph_objects as go
import streamlit as st

from grads.api import Pool
from studio import filters


def draw(
    figure: go.Figure, pool: Pool, column: str, names: Sequence[str], *, key: str, alt: str
) -> None:
    """The figure of a column's categories of these names, as the data have them.

    Its marks carry the numbers of their names. It is a new one after each click: in the old one
    the mark stays chosen, and a click on it would only let go of it.
    """
    clicks = st.session_state.setdefault(f"{key}-clicks", 0)
    state = f"{key}-{clicks}"

    def clicked() -> None:
        points = st.session_state[state].selection.points
        if points:
            st.session_state[f"{key}-clicks"] += 1
            filters.look_at(pool, column, names[points[0]["customdata"]])

    with st.container(key=key):
        st.plotly_chart(figure, key=state, alt=alt, on_select=clicked, selection_mode="points")
