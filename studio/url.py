"""Choices kept in the URL by their own values, where Streamlit's binding would write labels."""

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st


def choose(
    widget: Callable[..., Any],
    label: str,
    options: Sequence[Any],
    key: str,
    *,
    default: Any = None,
    **more: Any,
) -> Any:
    """A select box or radio whose choice is the query parameter `key`; `default` stays out of it.

    A value that is no option (any more) counts as the default.
    """
    default = options[0] if default is None else default

    def write() -> None:
        chosen = st.session_state[box]
        if chosen == default:
            st.query_params.pop(key, None)
        else:
            st.query_params[key] = str(chosen)

    box = f"{key}-choice"
    by_text = {str(option): option for option in options}
    chosen = by_text.get(st.query_params.get(key, ""), default)
    # The address is the truth; a widget that is there already is set to what it says.
    st.session_state[box] = chosen
    return widget(label, options, key=box, on_change=write, **more)


def choose_several(label: str, options: Sequence[Any], key: str, **more: Any) -> list[Any]:
    """A multiselect whose choices are the repeated query parameter `key`."""

    def write() -> None:
        chosen = st.session_state[box]
        if chosen:
            st.query_params[key] = [str(one) for one in chosen]
        else:
            st.query_params.pop(key, None)

    box = f"{key}-choice"
    texts = st.query_params.get_all(key)
    st.session_state[box] = [option for option in options if str(option) in texts]
    found: list[Any] = st.multiselect(label, options, key=box, on_change=write, **more)
    return found
