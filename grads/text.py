"""Texts on their way out: sentences that can be told in another language, and texts of others, in
which nothing stands that a terminal obeys, and nothing without end."""

import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from string import Formatter
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

    def filled(self, **values: Any) -> "Sentence":
        """The same text with these values in its braces."""
        return Sentence(self.text, **values)


class Written:
    """Sentences that files hold in English, to be found again with what stands in their braces.

    Under a name of `parts` that is one of its texts, else anything; `words` are values that are
    words of ours themselves.
    """

    def __init__(
        self,
        texts: Iterable[str],
        parts: Mapping[str, Iterable[str]] | None = None,
        words: Iterable[str] = (),
    ) -> None:
        self.texts, self.parts, self.words = tuple(texts), parts or {}, frozenset(words)
        self._patterns: dict[str, re.Pattern[str]] = {}

    def found(self, said: str) -> str:
        """The sentence that was written as `said`; a text that is none of these as it stands."""
        return self._among(said, self.texts)

    def _among(self, said: str, texts: Iterable[str]) -> str:
        for text in sorted(texts, key=len, reverse=True):  # of several the longest fits best
            if match := self._pattern(text).fullmatch(said):
                known = match.groupdict().items()
                values = {name: self._among(one, self.parts.get(name, ())) for name, one in known}
                found = str.__new__(Sentence, said)
                found.text, found.values = text, values
                return found
        return Sentence(said) if said in self.words else said

    def _pattern(self, text: str) -> re.Pattern[str]:
        """What finds the values of a text; its first letter may be a capital, as lines begin."""
        if text not in self._patterns:
            expression = self._expression(text, "?P<{name}>")
            self._patterns[text] = re.compile(expression, re.IGNORECASE | re.DOTALL)
        return self._patterns[text]

    def _expression(self, text: str, group: str = "?:") -> str:
        found = ""
        for before, name, _, _ in Formatter().parse(text):
            found += re.escape(before)
            if name is not None:
                inside = "|".join(map(self._expression, self.parts.get(name, ()))) or ".+?"
                found += f"({group.format(name=name)}{inside})"
        return found


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
