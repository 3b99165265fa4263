"""One message of a conversation, and the verdict on a row that cannot be used."""

import json
from dataclasses import dataclass, replace
from typing import Any

THINK_BEGIN, THINK_END = "<think>", "</think>"


@dataclass(frozen=True)
class Turn:
    """One message: who says what, and whether the model learns to say it."""

    role: str  # system, developer, user, assistant or tool
    content: str
    reasoning: str = ""  # what the assistant thinks before it answers
    tool_calls: str = ""  # JSON: [{"type": "function", "function": {"name", "arguments"}}]
    name: str = ""  # of the tool that answers
    tool_call_id: str = ""
    trained: bool = True  # whether it carries loss, where the assistant says it

    def saying(self, content: str) -> "Turn":
        """The same turn with other words and without reasoning."""
        return replace(self, content=content, reasoning="")

    def calling(self, tool_calls: str) -> "Turn":
        """The same turn, which then calls tools."""
        return replace(self, tool_calls=tool_calls)

    def silent(self) -> "Turn":
        """The same turn without loss."""
        return replace(self, trained=self.trained and self.role != "assistant")

    def calling_with_nothing(self) -> "Turn":
        """The same turn with calls that have no arguments."""
        calls = [
            call | {"function": call["function"] | {"arguments": {}}}
            for call in json.loads(self.tool_calls)
        ]
        return replace(self, tool_calls=json.dumps(calls))

    def about(self) -> dict[str, str]:
        """What a template may want to know beside the words."""
        return {"name": self.name, "tool_call_id": self.tool_call_id}

    def thought(self) -> tuple[str, str]:
        """Reasoning and answer apart, where the content holds both between think tags."""
        if self.role != "assistant" or THINK_END not in self.content:
            return self.reasoning, self.content
        inner, _, answer = self.content.rpartition(THINK_END)
        return self.reasoning + inner.replace(THINK_BEGIN, ""), answer

    @classmethod
    def of(cls, stored: dict[str, Any]) -> "Turn":
        """A turn as samples.parquet holds it, where what no row has is left out."""
        return cls(**{name: value for name, value in stored.items() if value is not None})

    def identity(self) -> list[Any]:
        """What makes two turns the same text: role and content alone where there is no more."""
        more = [self.reasoning, self.tool_calls, self.name, self.tool_call_id, self.trained]
        plain = more == ["", "", "", "", True]
        return [self.role, self.content] if plain else [self.role, self.content, *more]


class Unusable(Exception):  # noqa: N818 - a verdict on one row, collected, never shown as an error
    """A row that cannot be trained on: `reason`, and `advice` on what to do."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.reason, self.advice = reason, advice
