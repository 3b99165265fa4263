"""OpenAI's chat JSONL, which other services read too: messages, tools, weights."""

import json
from pathlib import Path
from typing import Any

from grads.config.run import RunConfig
from grads.data.layouts import Conversation
from grads.data.turns import Turn, Unusable
from grads.export.rows import Format, Subset, count_lines, dump_lines


def _fit(row: Conversation) -> Conversation:
    """As it is, where each result of a tool answers a call and everything has a place."""
    if row.turns[0].role == "text":
        raise Unusable("it is a plain text, no conversation", "use another format")
    if not any(turn.role == "user" for turn in row.turns):
        raise Unusable("nobody asks: it has no turn of a user", "add the question")
    open_calls = 0
    for turn in row.turns:
        if turn.reasoning:
            raise Unusable("there is no place for its reasoning", "move it into the answer")
        if turn.role == "tool":
            open_calls -= 1
        elif open_calls > 0:
            raise Unusable("a tool call has no result", "add it, or remove the call")
        if turn.tool_calls:
            open_calls = len(json.loads(turn.tool_calls))
        if open_calls < 0:
            raise Unusable("the result of a tool answers no call", "add the call")
    return row


def _messages(turns: list[Turn]) -> list[dict[str, Any]]:
    """Messages in which each call has an id, and each result the id of its call."""
    made: list[dict[str, Any]] = []
    waiting: list[str] = []
    for turn in turns:
        said: dict[str, Any] = {"role": turn.role, "content": turn.content}
        if turn.tool_calls:
            calls = json.loads(turn.tool_calls)
            waiting = [call.get("id") or f"call_{len(made)}_{n}" for n, call in enumerate(calls)]
            said["tool_calls"] = [
                {
                    "id": name,
                    "type": "function",
                    "function": {
                        "name": call["function"]["name"],
                        "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
                    },
                }
                for name, call in zip(waiting, calls, strict=True)
            ]
            said["content"] = turn.content or None
        elif turn.role == "tool":
            known = turn.tool_call_id in waiting
            said["tool_call_id"] = turn.tool_call_id if known else waiting[0]
            waiting.remove(said["tool_call_id"])
        if turn.role == "assistant" and not turn.trained:
            said["weight"] = 0
        made.append(said)
    return made


def _write(subset: Subset, path: Path, config: RunConfig) -> None:
    rows: list[dict[str, Any]] = []
    for row in subset.conversations():
        made = {"messages": _messages(row.turns)}
        rows.append(made | ({"tools": row.tools} if row.tools else {}))
    dump_lines(subset.with_scores(rows), path)


FORMAT = Format(
    "openai",
    "OpenAI: chat JSONL",
    "Messages, tools and weights, as fine-tuning services take them.",
    _write,
    count_lines,
    fit=_fit,
)
