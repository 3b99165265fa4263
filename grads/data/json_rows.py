"""JSON text -> rows: an object a line, objects one after the other, an array, or one in an object.

Which of these a file holds is told by what is in it, as its suffix often says another.
"""

import codecs
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

from grads.data.reading import ESCAPED, DataFile, not_utf8, text_of
from grads.data.rows import AS_OBJECT, Broken, Item, Part, excerpt, found, in_parts, is_turn

SPACE = re.compile(r"[ \t\r\n]*")
APART = re.compile(r"[ \t\r\n,]*")  # what may stand between objects that follow each other
BEGINNING = 2**20  # bytes in which a first value is looked for; twice as many where it goes on
NEAR = 64  # characters before the end of what was read in which an error may be the cut's
CORRECT = "correct or remove it"


class _TwiceError(ValueError):
    """An object that has a key twice: which of the values is meant, nobody can tell."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceError(f"it has the key {excerpt(max(keys, key=keys.count))} twice")
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_object)


def read_json(data: DataFile, limit: int | None) -> Iterator[Part]:
    """The rows of a JSON or JSONL file.

    Lines are read one by one; what stands in an array, in an object or one behind the other is
    read whole, as its text, before its first row.
    """
    if _an_object_a_line(data):
        return in_parts(_from_lines(data), limit)
    text = text_of(data.read())
    if text.startswith("{", _behind(SPACE, text, 0)):
        try:
            whole = DECODER.decode(text)
        except (ValueError, RecursionError):  # several objects, or a broken one
            pass
        else:
            key = _key_of_rows(whole)
            rows = whole[key] if key else [whole]
            return in_parts(_from_object(rows, ESCAPED.search(text) is not None), limit, key=key)
    return in_parts(_from_values(text), limit)


def _an_object_a_line(data: DataFile) -> bool:
    """Whether each line is a row: the first is a whole value, or broken by itself."""
    with data.open() as file:
        lines = (
            line.removeprefix(codecs.BOM_UTF8) if n == 0 else line for n, line in enumerate(file)
        )
        first = next((line.strip() for line in lines if line.strip(b" \t\r\n")), b"")
        more = any(line.strip() for line in file)
    if first.startswith(b"[") and not more:
        return False
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return not _goes_on(first, data)
    return more or _key_of_rows(value) is None


def _goes_on(first: bytes, data: DataFile) -> bool:
    """Whether a first line that is no value begins one of several lines, or several values."""
    if not first.startswith(b"{") or first == b"{":
        return first.startswith((b"[", b"{"))
    size = BEGINNING
    while True:
        head = data.head(size)
        text, whole = text_of(head), len(head) < size
        start = _behind(SPACE, text, 0)
        try:
            _, end = DECODER.raw_decode(text, start)
        except json.JSONDecodeError as error:
            cut = error.msg.startswith("Unterminated") or error.pos + NEAR > len(text)
            if whole or not cut:
                return False
        except (ValueError, RecursionError):
            return False
        else:
            behind = _behind(APART, text, end)
            if whole or behind < len(text):
                return "\n" in text[start:end] or behind == len(text) or text[behind] == "{"
        size *= 2


def _behind(pattern: re.Pattern[str], text: str, place: int) -> int:
    found = pattern.match(text, place)
    return found.end() if found else place


def _key_of_rows(value: Any) -> str | None:
    """The key of the one list of objects in an object that is no row itself."""
    if not isinstance(value, dict):
        return None
    keys: list[str] = [
        key
        for key, rows in value.items()
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)
    ]
    if len(keys) != 1 or all(is_turn(turn) for turn in value[keys[0]]):
        return None  # a conversation is a row
    return keys[0]


def _from_lines(data: DataFile) -> Iterator[Item]:
    with data.open() as file:
        for number, line in enumerate(file):  # cuts at \n only, unlike bytes.splitlines
            try:
                text = line.decode("utf-8-sig" if number == 0 else "utf-8").strip()
            except UnicodeDecodeError:
                yield Broken(number, number + 1, *not_utf8(line))
                continue
            if not text:
                yield None
                continue
            try:
                value = DECODER.decode(text)
            except (ValueError, RecursionError) as error:
                place = f"character {getattr(error, 'colno', 1)}"
                yield Broken(number, number + 1, *_why(text, 0, error, place))
            else:
                yield found(number, number + 1, value, line)


def _from_object(rows: list[Any], escaped: bool) -> Iterator[Item]:
    """The rows of an object that is all there is; `escaped`: some of its bytes are no UTF-8."""
    for number, row in enumerate(rows):
        text = json.dumps(row, ensure_ascii=False) if escaped else ""
        if ESCAPED.search(text):
            yield Broken(number, None, *not_utf8(_bytes_of(text)))
        else:
            yield found(number, None, row)


def _bytes_of(text: str) -> bytes:
    """The bytes that a text was read from by `text_of`."""
    return text.encode("utf-8", "surrogateescape")


def _from_values(text: str) -> Iterator[Item]:
    """Values of an array, or one after the other.

    Behind a broken one, the next that begins a line with the same indent is looked for.
    """
    place = _behind(SPACE, text, 0)
    array = text.startswith("[", place)
    indent = None if array else ""
    if array:
        place = _behind(SPACE, text, place + 1)
    number, line, end = 0, 1, 0
    while True:
        gap = text[end:place]
        line += gap.count("\n")
        if "\n" in gap:
            indent = gap.rpartition("\n")[2]
        if array and text.startswith("]", place):
            behind = _behind(SPACE, text, place + 1)
            if behind < len(text):
                line += text.count("\n", place, behind)
                reason = f"behind the array follows {excerpt(text[behind : behind + 99])}"
                yield Broken(number, line, reason, "put it into a file of its own")
            break
        if place == len(text):
            if array:
                reason = "the file ends inside the array, without its ]"
                yield Broken(number, line, reason, "get the whole file")
            break
        try:
            value, end = DECODER.raw_decode(text, place)
        except _TwiceError as error:
            _, end = json.JSONDecoder().raw_decode(text, place)
            yield Broken(number, line, *_why(text, place, error, ""))
            line += text.count("\n", place, end)
            place = _behind(APART, text, end)
        except (ValueError, RecursionError) as error:
            at = f"line {getattr(error, 'lineno', line)}, column {getattr(error, 'colno', 1)}"
            reason, advice = _why(text, place, error, at)
            next_one = text.find(f"\n{indent}{{", place) if indent is not None else -1
            if next_one < 0:
                yield Broken(number, line, f"{reason}; nothing behind it is read", advice)
                break
            yield Broken(number, line, reason, advice)
            line += text.count("\n", place, next_one)
            end, place = next_one, next_one + 1 + len(indent or "")
        else:
            if ESCAPED.search(text, place, end):
                yield Broken(number, line, *not_utf8(_bytes_of(text[place:end])))
            else:
                yield found(number, line, value)
            line += text.count("\n", place, end)
            place = _behind(APART, text, end)
        number += 1


def _why(text: str, start: int, error: Exception, at: str) -> tuple[str, str]:
    """Why the value that begins at `start` cannot be read, and what to do."""
    if isinstance(error, _TwiceError):
        return str(error), "give each key once"
    if isinstance(error, RecursionError):
        return "it is nested too deeply", CORRECT
    if not isinstance(error, json.JSONDecodeError):
        return f"it holds a number of more than {sys.get_int_max_str_digits()} digits", CORRECT
    if text.startswith("\ufeff", start):
        return "it begins with a byte order mark, as files that were joined do", "remove the mark"
    if text.startswith(("{'", "[{'"), start):
        return "it holds a Python dict", "write it as JSON, with json.dumps"
    if text[start] not in '{["':
        return f"it holds text, {excerpt(text[start : start + 99])}", AS_OBJECT
    if error.msg.startswith("Unterminated") or _behind(SPACE, text, error.pos) == len(text):
        return "it ends in the middle", "write it whole, or remove it"
    there = excerpt(text[error.pos : error.pos + 20])
    return f"its JSON breaks at {at}, before {there} ({error.msg})", CORRECT
