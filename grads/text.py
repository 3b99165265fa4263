"""Texts on their way out: sentences that can be told in another language, and texts of others, in
which nothing stands that a terminal obeys, and nothing without end."""

import re
import reprlib
from collections.abc import Callable
from typing import Any

VALUE, MESSAGE = 200, 2_000  # most characters that are repeated of a value, and of a message
# What moves the cursor, sets colours, ends a line, or turns the order of reading, and halves of
# characters, which no file or terminal takes.
UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # what a cell that spreadsheets obey begins with

_brief = reprlib.Repr()
_brief.maxstring = _brief.maxother = VALUE
_brief.maxlevel = 3


class Sentence(str):
    """A text in English that still knows what it was made of, for who tells it in another language.

    `text` is a constant, whose braces hold the `values`; these may be sentences themselves.
    """

    text: str
    values: dict[str, Any]

    def __new__(cls, text: str, **values: Any) -> "Sentence":
        made = super().__new__(cls, text.format(**values) if values else text)
        made.text, made.values = text, values
        return made


Tell = Callable[[str], str]  # a text in a language: `str` tells in English


def visible(text: str) -> str:
    """One line, in which characters that are not to be seen stand as escapes: \\x1b, \\n."""
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def for_spreadsheet(cell: object) -> object:
    """A cell that no spreadsheet takes for a formula: an apostrophe stands before what it would."""
    if not isinstance(cell, str) or not cell.startswith(FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def brief(value: object) -> str:
    """A value as Python writes it, without the most of what is long or deep."""
    return cut(_brief.repr(value), VALUE)


def cut(text: str, most: int) -> str:
    """Text of at most `most` characters: of longer ones, the beginning and the end."""
    if len(text) <= most:
        return text
    end = (most - 3) // 3
    return f"{text[: most - 3 - end]}...{text[-end:]}"
