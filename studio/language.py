"""The words of the pages in the language of who reads them.

English stands in the code, as `say("Keep {count:,} examples", count=30)`. All of it stands once
more in studio/languages/LANGUAGE.po beside its translation, the usual format of translators, which
`make words` brings up to date. What the engine says of an error stays English, as in its log.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st
from babel.messages.pofile import read_po
from streamlit.runtime.scriptrunner import get_script_run_ctx

from grads.api import Sentence
from studio import url

LANGUAGES = {"en": "English", "zh": "中文"}
FOLDER = Path(__file__).parent / "languages"
KEY = "lang"  # in the address, and for the whole tab in the session
# Streamlit's own page says that it is English; who has it read aloud needs to be told otherwise.
JS = "export default ({ data }) => { document.documentElement.lang = data.code; }"
_tell = st.components.v2.component("grads_language", html="<span></span>", js=JS)
_spoken: ContextVar[str] = ContextVar("spoken", default="")


def use() -> None:
    """Take the language of the address, else this tab's, else the browser's; hold what it is."""
    locale = (st.context.locale or "en").partition("-")[0]
    usual = locale if locale in LANGUAGES else "en"
    asked = url.get(KEY)
    chosen = asked if asked in LANGUAGES else st.session_state.get(KEY, usual)
    st.session_state[KEY] = chosen
    url.put(KEY, *([chosen] if chosen != usual else []))
    with st.container(key="spoken"):
        _tell(key="speaks", data={"code": chosen})


def current() -> str:
    """The code of the language that this tab is read in; English where nobody reads a page."""
    if code := _spoken.get():
        return code
    if get_script_run_ctx(suppress_warning=True) is None:
        return "en"
    return str(st.session_state.get(KEY, "en"))


@contextmanager
def speaking(code: str) -> Iterator[None]:
    """This language meanwhile: of what is made for a page when it is asked for, outside of it."""
    before = _spoken.set(code)
    try:
        yield
    finally:
        _spoken.reset(before)


def switch() -> None:
    """A button for every other language, which puts the page into it."""
    for code, name in LANGUAGES.items():
        if code != current():
            st.button(name, key=f"language-{code}", type="tertiary", on_click=_to, args=(code,))


def _to(code: str) -> None:
    st.session_state[KEY] = code
    url.put(KEY)
    url.show_again()
    # A box in the browser holds its choice as a word, and takes the new one when it is set anew.
    for name, value in st.session_state.items():
        chosen = value if isinstance(value, list) else [value]
        if chosen and all(isinstance(one, str) for one in chosen):
            st.session_state[name] = value


def say(text: str, **values: Any) -> str:
    """This text in the language of the reader, with the values put into its braces.

    The text is the key of its translation: a constant, or one that `mark` has marked.
    """
    told = catalogue(current()).get(text, text)
    return told.format(**values) if values else told


def told(text: str) -> str:
    """What the engine says, in the language of the reader; any other text as it is."""
    if not isinstance(text, Sentence) or current() == "en":
        return str(text)  # as it was written
    values = {name: told(one) if isinstance(one, str) else one for name, one in text.values.items()}
    return say(text.text, **values)


def mark(text: str) -> str:
    """A text that stands in a constant and is said later: the same, but found by `make words`."""
    return text


@cache
def catalogue(code: str) -> dict[str, str]:
    """The translations of a language by the English text; none of those that are missing."""
    file = FOLDER / f"{code}.po"
    if not file.exists():  # English
        return {}
    with file.open("rb") as source:
        found = read_po(source, locale=code)
    return {str(one.id): str(one.string) for one in found if one.id and one.string}
