"""What the engine has written into a file in English, said in the language of the reader.

The sentence is found among those that the engine makes (grads.api.SENTENCES), and what stands in
its braces is put into the translation. One that is not found, of an older version, stays English.
"""

import re
from collections.abc import Iterable
from functools import cache
from string import Formatter

from grads import api
from grads.api import Sentence
from studio import language
from studio.language import mark, say

ARMS = (mark("base"), mark("full"), mark("random"))  # names that no selection's arm can have


def told(sentence: str) -> str:
    """A sentence of the engine, of a result file or made on the spot."""
    return sentence if language.current() == "en" else _found(sentence, api.SENTENCES)


def sentence(text: str) -> str:
    """A sentence as the engine makes it; also one that was stored, and so has lost its values."""
    if not isinstance(text, Sentence):
        return text
    if text.values or text.text in language.catalogue(language.current()):
        values = {name: sentence(v) if isinstance(v, str) else v for name, v in text.values.items()}
        return say(text.text, **values)
    return told(str(text))


def arm(label: str) -> str:
    """What an arm is called: those that every evaluation has by a word, others by their name."""
    return say(label) if label in ARMS else label


def _found(sentence: str, texts: Iterable[str]) -> str:
    for text in sorted(texts, key=len, reverse=True):  # what fits several fits the longest best
        if match := _pattern(text).fullmatch(sentence):
            values = {
                name: _found(value, api.PARTS[name]) if name in api.PARTS else arm(value)
                for name, value in match.groupdict().items()
            }
            return say(text, **values)
    return say(sentence)


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """What finds the values of a text; its first letter may be a capital, as sentences begin."""
    return re.compile(_expression(text, "?P<{name}>"), re.IGNORECASE | re.DOTALL)


def _expression(text: str, group: str = "?:") -> str:
    found = ""
    for before, name, _, _ in Formatter().parse(text):
        found += re.escape(before)
        if name is not None:
            inside = "|".join(map(_expression, api.PARTS[name])) if name in api.PARTS else ".+?"
            found += f"({group.format(name=name)}{inside})"
    return found
