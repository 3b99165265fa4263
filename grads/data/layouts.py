"""Which columns hold what: layouts by name, and a row as the turns of a conversation."""

import json
from dataclasses import dataclass
from typing import Any

from grads.data.chat import Turn, Unusable
from grads.data.sources import Row
from grads.errors import DataError

# A layout is recognised by its columns; the first that fits wins. Roles -> column names.
LAYOUTS: dict[str, dict[str, str]] = {
    "chat messages": {"messages": "messages"},
    "ShareGPT conversations": {"messages": "conversations"},
    "Alpaca": {"prompt": "instruction", "response": "output"},
    "prompt/completion": {"prompt": "prompt", "response": "completion"},
    "prompt/response": {"prompt": "prompt", "response": "response"},
    "question/answer": {"prompt": "question", "response": "answer"},
    "question/response": {"prompt": "question", "response": "response"},
}
OPTIONAL = {"input": "input", "system": "system"}  # joined to any layout that has a prompt

SPEAKERS = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}


@dataclass(frozen=True)
class Layout:
    """Which column plays which role (messages, or prompt, input, response, system)."""

    name: str
    roles: dict[str, str]


def recognise(columns: list[str], mapping: dict[str, str]) -> Layout:
    """The layout of these columns, or the mapping by hand; raises DataError if there is none."""
    if mapping:
        missing = sorted(set(mapping.values()) - set(columns))
        if missing:
            raise DataError(
                f"column '{missing[0]}' is mapped but not there: the columns are"
                f" {', '.join(columns)}"
            )
        return Layout("mapped by hand", dict(mapping))
    for name, roles in LAYOUTS.items():
        if set(roles.values()) <= set(columns):
            extra = {} if "messages" in roles else OPTIONAL
            return Layout(name, roles | {r: c for r, c in extra.items() if c in columns})
    known = "; ".join(f"{name}: {', '.join(roles.values())}" for name, roles in LAYOUTS.items())
    raise DataError(
        f"the columns {', '.join(columns) or '(none)'} fit no known layout ({known}): map them by"
        " hand, --map prompt=COLUMN --map response=COLUMN or --map messages=COLUMN"
    )


def conversation(row: Row, layout: Layout) -> list[Turn]:
    """The turns of a row; raises Unusable with the reason and what to do."""
    if row is None:
        raise Unusable("the row is not an object with columns", "write it as {column: value, ...}")
    try:
        json.dumps(row, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise Unusable("it holds half a character (a lone surrogate)", "correct its text") from None
    roles = layout.roles
    if "messages" in roles:
        turns = _turns(row.get(roles["messages"]), roles["messages"])
    else:
        turns = _prompt_and_response(row, roles)
    system = _text(row.get(roles["system"]), roles["system"], False) if "system" in roles else ""
    return [Turn("system", system), *turns] if system else turns


def _prompt_and_response(row: dict[str, Any], roles: dict[str, str]) -> list[Turn]:
    prompt, response = row.get(roles["prompt"]), row.get(roles["response"])
    if isinstance(prompt, list) and isinstance(response, list):
        _turns(response, roles["response"])  # the completion itself must answer
        return _turns(prompt + response, roles["prompt"])
    parts = [_text(prompt, roles["prompt"])]
    if "input" in roles:
        parts.append(_text(row.get(roles["input"]), roles["input"], required=False))
    return [
        Turn("user", "\n\n".join(part for part in parts if part)),
        Turn("assistant", _text(response, roles["response"])),
    ]


def _text(value: Any, column: str, required: bool = True) -> str:
    # A missing number reads as NaN, which is the one value that is not equal to itself.
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        if required:
            raise Unusable(f"column '{column}' is empty", "fill it in, or remove the row")
        return ""
    if not isinstance(value, str | int | float):
        kind = type(value).__name__
        raise Unusable(f"column '{column}' holds a {kind}, not text", "write it as text")
    return str(value)


def _turns(messages: Any, column: str) -> list[Turn]:
    if not isinstance(messages, list) or not messages:
        raise Unusable(f"column '{column}' holds no list of messages", "fill it in, or remove it")
    turns = []
    for message in messages:
        if not isinstance(message, dict):
            raise Unusable("a message is not an object", "write it as {role: ..., content: ...}")
        speaker = message.get("role", message.get("from"))
        if not isinstance(speaker, str) or speaker not in SPEAKERS:
            known = ", ".join(SPEAKERS)
            raise Unusable(f"a message has the role '{speaker}'", f"use one of {known}")
        role, content = SPEAKERS[speaker], message.get("content", message.get("value"))
        text = _text(content, "content", required=role != "system")
        if text:
            turns.append(Turn(role, text))
    if not any(turn.role == "assistant" for turn in turns):
        raise Unusable("no message comes from the assistant", "add the answer to learn")
    while turns[-1].role != "assistant":  # an unanswered question teaches nothing
        turns.pop()
    return turns
