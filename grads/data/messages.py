"""Messages as data sets write them -> turns: roles by many names, parts, calls, weights."""

import json
import math
from typing import Any

from grads.data.rows import excerpt
from grads.data.turns import Turn, Unusable

ROLES = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "chatgpt": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "function_call": "call",
    "tool_call": "call",
}
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
UNTRAINED = ("weight", "train", "training")  # where 0 or false, the message carries no loss


def messages_of(value: Any, column: str) -> list[Turn]:
    """A list of messages as turns; raises Unusable with the reason and what to do.

    Also understood: the list as JSON text, a struct of lists, and lists of [role, text] or of
    [question, answer].
    """
    messages = _as_list(value, column)
    if not messages:
        raise Unusable(f"column '{column}' holds no list of messages", "fill it in, or remove it")
    if all(isinstance(message, list | tuple) for message in messages):
        messages = _from_pairs(messages, column)
    if any(isinstance(message, str) for message in messages):
        raise Unusable(
            f"in column '{column}' a message is not an object but text",
            "join them to one text, or write each as {role: ..., content: ...}",
        )
    turns = [turn for message in messages for turn in _turn(message)]
    return _joined_calls(turns)


def _as_list(value: Any, column: str) -> list[Any]:
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            deep = isinstance(error, RecursionError)
            reason = "nested too deeply" if deep else str(error).split(":")[0]
            raise Unusable(
                f"column '{column}' holds text that begins as JSON but is none ({reason})",
                "correct it, or write a list of messages",
            ) from None
    if isinstance(value, dict):
        lists = {key: inner for key, inner in value.items() if isinstance(inner, list)}
        if lists and len(lists) == len(value) and len({len(i) for i in lists.values()}) == 1:
            rows = zip(*lists.values(), strict=True)
            return [dict(zip(lists, row, strict=True)) for row in rows]
    if isinstance(value, str) and value.strip():
        raise Unusable(
            f"column '{column}' holds text, where messages are expected",
            "map it as --map response, or write a list of messages",
        )
    return value if isinstance(value, list) else []


def _from_pairs(pairs: list[Any], column: str) -> list[dict[str, Any]]:
    if not all(len(pair) == 2 for pair in pairs):
        raise Unusable(
            f"column '{column}' holds lists of other lengths than two",
            "write [role, text] or [question, answer]",
        )
    if all(isinstance(first, str) and first.strip().lower() in ROLES for first, _ in pairs):
        return [{"role": role, "content": text} for role, text in pairs]
    both = [(("user", asked), ("assistant", answered)) for asked, answered in pairs]
    return [{"role": role, "content": text} for pair in both for role, text in pair]


def _turn(message: Any) -> list[Turn]:
    """The message as one turn; none where it is an empty word of the system."""
    if not isinstance(message, dict):
        raise Unusable("a message is not an object", "write it as {role: ..., content: ...}")
    named = _first(message, ("role", "from", "speaker"))
    role = ROLES.get(str(named).strip().lower()) if named is not None else None
    if role is None:
        known = ", ".join(ROLES)
        raise Unusable(f"a message has the role '{named}'", f"use one of {known}")
    content = _first(message, ("content", "value", "text"))
    if role == "call":
        return [_call_turn(content, _trained(message))]
    calls = _calls(message.get("tool_calls") or message.get("function_call"))
    thought = text_of(_first(message, THOUGHTS), "reasoning", required=False)
    needed = role != "system" and not calls and not thought
    text = text_of(_joined(content), "content", required=needed)
    if not text and not calls and not thought:
        return []
    return [
        Turn(
            role,
            text,
            reasoning=thought,
            tool_calls=json.dumps(calls, ensure_ascii=False) if calls else "",
            name=str(message.get("name") or "") if role == "tool" else "",
            tool_call_id=str(message.get("tool_call_id") or "") if role == "tool" else "",
            trained=_trained(message),
        )
    ]


def _first(message: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((message[name] for name in names if message.get(name) is not None), None)


def _trained(message: dict[str, Any]) -> bool:
    """Whether a message carries loss; raises Unusable where that is not said plainly."""
    for key in UNTRAINED:
        if message.get(key) not in (None, 0, 1):  # False and True are among them
            raise Unusable(
                f"a message has {key} {excerpt(str(message[key]))}", "only 0 and 1, false and true"
            )
    return not any(message.get(key) == 0 for key in UNTRAINED)


def _joined(content: Any) -> Any:
    """Parts of text as one; raises Unusable by kind where a part is no text."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type", "part") if isinstance(part, dict) else type(part).__name__
        text = part.get("text") if isinstance(part, dict) else None
        if kind != "text" and not (kind == "part" and isinstance(text, str)):
            raise Unusable(
                f"a message holds a part of the kind '{kind}'",
                "only text can be scored: leave the row out, or describe the part",
            )
        texts.append(text_of(text, "content", required=False))
    return "".join(texts)


def _calls(value: Any) -> list[dict[str, Any]]:
    """Tool calls as [{type, function: {name, arguments as an object}}], ids kept."""
    if isinstance(value, str) and value.strip():
        value = _json(value, "tool_calls")
    if isinstance(value, dict):
        value = [value]
    if value and not isinstance(value, list):
        raise Unusable("the tool calls are no list", "write [{name: ..., arguments: {...}}]")
    found = []
    for call in value or ():
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise Unusable("a tool call has no name", "write {name: ..., arguments: {...}}")
        arguments = function.get("arguments", function.get("parameters")) or {}
        if isinstance(arguments, str):
            arguments = _json(arguments, "the arguments of a tool call")
        if not isinstance(arguments, dict):
            raise Unusable("the arguments of a tool call are no object", "write {name: value, ...}")
        # Typed sources fill what a call has not with nothing.
        given = {key: inner for key, inner in arguments.items() if inner is not None}
        one: dict[str, Any] = {"type": "function"}
        if isinstance(call.get("id"), str):
            one["id"] = call["id"]
        found.append(one | {"function": {"name": function["name"], "arguments": given}})
    return found


def _call_turn(content: Any, trained: bool) -> Turn:
    """A message that is a call, as ShareGPT writes it: the call is its text."""
    calls = _calls(content)
    if not calls:
        raise Unusable("a message of the role function_call is empty", "fill it in, or remove it")
    return Turn("assistant", "", tool_calls=json.dumps(calls, ensure_ascii=False), trained=trained)


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Unusable(f"{what} hold text that is no JSON", "write it as JSON") from None


def _joined_calls(turns: list[Turn]) -> list[Turn]:
    """An answer and the bare call that follows it are one turn of the assistant.

    Not where one of them carries loss and the other does not, or the call has a reasoning.
    """
    joined: list[Turn] = []
    for turn in turns:
        before = joined[-1] if joined else None
        bare = turn.tool_calls and not turn.content and not turn.reasoning
        answer = before and before.role == "assistant" and not before.tool_calls
        if before and answer and bare and before.trained == turn.trained:
            joined[-1] = before.calling(turn.tool_calls)
        else:
            joined.append(turn)
    return joined


def text_of(value: Any, column: str, required: bool = True) -> str:
    """A value as text; raises Unusable where it is no text, or empty though required."""
    # A missing number reads as NaN, which is the one value that is not equal to itself.
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        if required:
            raise Unusable(f"column '{column}' is empty", "fill it in, or remove the row")
        return ""
    if value in (math.inf, -math.inf):
        raise Unusable(f"column '{column}' holds a number without end", "write it as text")
    if not isinstance(value, str | int | float):
        kind = type(value).__name__
        raise Unusable(f"column '{column}' holds a {kind}, not text", "write it as text")
    return str(value)
