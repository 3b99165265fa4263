"""The options of a page: held once, in the session, shown by widgets and written to the address.

A link, another page and Back set what is held. At every other drawing the address that comes with
it may be older than what was set last (keys are pressed faster than pages are drawn), so it is not
read then, and no widget is set to it: what is held is what was done last.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import streamlit as st
from streamlit.runtime.scriptrunner import RerunException, StopException, get_script_run_ctx

HELD = "address"  # the key in the session
DIGITS = 20  # of a number in an address: one of more names nothing
# What names something of one run: it goes when another run is chosen.
OF_A_RUN = (
    *("sample", "within", "shape", "search", "topics", "only", "selection", "sort", "up", "page"),
    *(
        "alike",
        "tagged",
        "bound",
        "by",
        "base",
        "first",
        "second",
        "evaluation",
        "other",
        "topic",
        "tag",
        "edge",
        "at",
    ),
)


@dataclass
class Address:
    """What the address of a page is to hold."""

    page: str
    texts: dict[str, list[str]]
    defaults: dict[str, Any] = field(default_factory=dict)  # of the widgets, as drawn last
    followed: set[str] = field(default_factory=set)  # names whose widgets show what is held
    before: dict[str, Any] = field(default_factory=dict)  # what widgets showed that were set
    unseen: dict[str, Any] = field(default_factory=dict)  # what they were set to, last drawing
    once_more: set[str] = field(default_factory=set)  # widgets that the next drawing sets again


def _held() -> Address:
    found: Address = st.session_state[HELD]
    return found


@contextmanager
def opened(page: str) -> Iterator[None]:
    """Around a page: its address is taken where it comes from outside, and written at the end."""
    context = get_script_run_ctx()
    back = context is not None and context.is_history_navigation
    held = st.session_state.get(HELD)
    if held is None or held.page != page or back:
        st.session_state[HELD] = Address(page, _written())
    _set_again_if_unseen()
    _set_once_more()
    try:
        yield
    except StopException:
        write()
        raise
    except RerunException:
        _held().once_more |= _held().before.keys()
        raise
    write()


def _set_again_if_unseen() -> None:
    """Set the widgets again that the browser does not show yet as they were set.

    A button can be pressed before the fields above it show what they hold; what comes with that is
    what they showed empty. Of several that were set, a person changes one at a time; what was set
    empty and holds something now is typed by a person in any case.
    """
    held, state = _held(), st.session_state
    there = {key: value for key, value in held.unseen.items() if key in state}
    changed = {key for key, value in there.items() if state[key] != value}
    typed = {key for key in changed if not there[key] and state[key]}
    telling = {key for key, value in there.items() if value != held.defaults.get(key)}
    emptied = {key for key in changed if not state[key]}  # some may be shown already, some not yet
    if (len(telling) > 1 and telling <= changed) or len(emptied) > 1:
        held.followed -= changed - typed
    elif changed:  # the others have come back from the browser: it shows them
        held.unseen.clear()


def _set_once_more() -> None:
    """Set what the last drawing has set again: a browser may have drawn this one without that one.

    Then a field stays empty that was set in the first. Once only: nobody types in it so early.
    """
    held, state = _held(), st.session_state
    for key in held.once_more:
        if key in state and key in held.unseen and state[key] == held.unseen[key]:
            held.followed.discard(key)


def _written() -> dict[str, list[str]]:
    return {name: st.query_params.get_all(name) for name in st.query_params}


def write() -> None:
    """Write what is held to the address: every change is a step that Back takes back."""
    held = _held()
    held.once_more = held.before.keys() - held.once_more
    held.before.clear()
    if _held().texts != _written():
        st.query_params.from_dict(_held().texts)


def link() -> str:
    """The whole address of the page as it stands, to be copied."""
    held = _held()
    page = "" if held.page == "Start" else held.page
    # What Streamlit gives ends with the page's name or not, by the way that the page was entered.
    base = (st.context.url or "").rstrip("/").removesuffix(f"/{page}")
    query = urlencode(held.texts, doseq=True)
    return f"{base}/{page}" + (f"?{query}" if query else "")


def get(name: str, default: str = "") -> str:
    """What is held under a name; of several, the last."""
    return (_held().texts.get(name) or [default])[-1]


def number(name: str) -> int | None:
    """The whole number from 0 on that is held under a name; None for what is none."""
    text = get(name)
    return int(text) if text.isdecimal() and len(text) <= DIGITS else None


def get_all(name: str) -> list[str]:
    """All that is held under a name."""
    return list(_held().texts.get(name, []))


def held() -> dict[str, list[str]]:
    """All that is held, as the query parameters of a link."""
    return {name: list(texts) for name, texts in _held().texts.items()}


def put(name: str, *texts: str) -> None:
    """Hold these, or nothing; a widget of that name follows."""
    hold(name, list(texts))
    _held().followed.discard(name)


def hold(name: str, texts: list[str]) -> None:
    """Hold what a widget says, which it therefore shows already."""
    if texts:
        _held().texts[name] = texts
    else:
        _held().texts.pop(name, None)


def follows(name: str) -> bool:
    """Whether widgets that show what is held under a name are to be set to it now; asked once."""
    seen = name in _held().followed
    _held().followed.add(name)
    return not seen


def show(key: str, value: Any) -> None:
    """Set a widget."""
    _held().before.setdefault(key, st.session_state.get(key))
    st.session_state[key] = value


def show_again() -> None:
    """Set every widget to what is held once more: a browser goes on showing the words it has."""
    _held().followed.clear()


def outdated(key: str) -> bool:
    """Whether the browser still sends what a widget showed before it was set.

    So it does where it asked for the next drawing before that one came to its end.
    """
    before = _held().before
    return key in before and st.session_state.get(key) == before[key]


def forget_run() -> None:
    """Let go of everything that names something of the run."""
    for name in OF_A_RUN:
        put(name)


def _shown(
    key: str,
    default: Any,
    read: Callable[[list[str]], Any],
    write: Callable[[Any], list[str]],
    *,
    draw: Callable[[], Any],
) -> Any:
    """A widget of the held option `key`: set where it has to follow, and what it says is held.

    `read` gives None for what is no value of it; the default stays out of the address, and a value
    that nobody chose follows a default that changes.
    """
    held, state = _held(), st.session_state
    before = held.defaults.get(key, default)
    unchosen = key not in held.texts and state.get(key) == before != default
    if follows(key) or key not in state or unchosen or outdated(key):
        texts = held.texts.get(key, [])
        found = read(texts) if texts else None
        held.unseen[key] = default if found is None else found
        show(key, held.unseen[key])
    held.defaults[key] = default
    value = draw()
    if value is None and default is not None:
        # What the browser sent is no option any more: it asked before it saw the new ones.
        held.followed.discard(key)
        texts = held.texts.get(key, [])
        found = read(texts) if texts else None
        return default if found is None else found
    hold(key, [] if value == default else write(value))
    return value


def choose(
    widget: Callable[..., Any],
    label: str,
    options: Sequence[Any],
    key: str,
    *,
    default: Any = None,
    always: bool = False,
    **more: Any,
) -> Any:
    """A select box or the like; a value that is no option (any more) counts as the default.

    The default is the first option, unless it is given or `index=None` allows none; it stands in
    the address too if it is to stand there `always`.
    """
    if default is None and "index" not in more:
        default = options[0]
    new = more.get("accept_new_options", False)
    by_text = {str(option): option for option in options}
    if st.session_state.get(key) not in (None, *options) and not new:
        del st.session_state[key]
    chosen = _shown(
        key,
        default,
        lambda texts: by_text.get(texts[-1], texts[-1] if new else None),
        lambda value: [] if value is None else [str(value)],
        draw=lambda: widget(label, options, key=key, **more),
    )
    if always:
        hold(key, [str(chosen)])
    return chosen


def choose_several(label: str, options: Sequence[Any], key: str, **more: Any) -> list[Any]:
    """A multiselect; its choices are repeated in the address."""
    by_text = {str(option): option for option in options}
    if key in st.session_state:
        there = [one for one in st.session_state[key] if one in options]
        if there != st.session_state[key]:
            st.session_state[key] = there
    found: list[Any] = _shown(
        key,
        [],
        lambda texts: [by_text[text] for text in texts if text in by_text],
        lambda value: [str(one) for one in value],
        draw=lambda: st.multiselect(label, options, key=key, **more),
    )
    return found


def slide(
    label: str,
    ends: tuple[float, float],
    default: float,
    step: float,
    *,
    key: str,
    draw: Callable[..., float] | None = None,
    **more: Any,
) -> float:
    """A slider between two ends."""
    found: float = _shown(
        key,
        default,
        lambda texts: _number(texts[-1], *ends),
        lambda value: [f"{value:.10g}"],
        draw=lambda: (draw or st.slider)(label, *ends, step=step, key=key, **more),
    )
    return found


def whole_number(
    widget: Callable[..., Any],
    label: str,
    default: int | None,
    *,
    key: str,
    low: int = 0,
    high: int | None = None,
    **more: Any,
) -> int | None:
    """A field for a whole number, empty where the default is None."""

    def read(texts: list[str]) -> int | None:
        number = _number(texts[-1], low, 2**53 if high is None else high)
        return None if number is None else int(number)

    empty: dict[str, Any] = {"value": None} if default is None else {}
    found: int | None = _shown(
        key,
        default,
        read,
        lambda value: [] if value is None else [str(value)],
        draw=lambda: widget(label, low, high, step=1, key=key, **empty, **more),
    )
    return found


def _number(text: str, low: float, high: float) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return min(max(number, low), high) if number == number else None


def text(widget: Callable[..., Any], label: str, key: str, default: str = "", **more: Any) -> str:
    """A text field."""
    return str(
        _shown(
            key,
            default,
            lambda texts: texts[-1],
            lambda value: [value],
            draw=lambda: widget(label, key=key, **more) or "",
        )
    )


def flag(widget: Callable[..., Any], label: str, key: str, **more: Any) -> bool:
    """A toggle or a checkbox, off unless it is switched on."""
    return bool(
        _shown(
            key,
            False,
            lambda texts: texts[-1] == "true",
            lambda value: ["true"],
            draw=lambda: widget(label, key=key, **more),
        )
    )
