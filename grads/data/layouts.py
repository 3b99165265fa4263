"""Which columns hold what: layouts by name, and a row as the turns of a conversation."""

import json
from dataclasses import dataclass, field
from typing import Any

from grads.config.run import RunConfig
from grads.data.blocks import Row, Source
from grads.data.messages import messages_of, text_of
from grads.data.stream import Stream
from grads.data.turns import Turn, Unusable
from grads.errors import LayoutError

# A layout is recognised by its columns; the first that fits wins. Roles -> column names.
LAYOUTS: dict[str, dict[str, str]] = {
    "chat messages": {"messages": "messages"},
    "ShareGPT conversations": {"messages": "conversations"},
    "conversation": {"messages": "conversation"},
    "Alpaca": {"prompt": "instruction", "response": "output"},
    "prompt/completion": {"prompt": "prompt", "response": "completion"},
    "prompt/response": {"prompt": "prompt", "response": "response"},
    "question/answer": {"prompt": "question", "response": "answer"},
    "question/response": {"prompt": "question", "response": "response"},
}
# Preferences: of two answers, or of one with a verdict, only the chosen one may be trained.
PREFERENCES: dict[str, dict[str, str]] = {
    "chosen and rejected answers": {"chosen": "chosen", "rejected": "rejected"},
    "answers with a verdict": {"prompt": "prompt", "response": "completion", "verdict": "label"},
}
PLAIN_TEXT = {"text": "text"}
PLAIN, BY_HAND = "plain text", "mapped by hand"
# Joined to any layout, where the row has them: role -> the columns it may stand in.
BESIDE: dict[str, tuple[str, ...]] = {
    "system": ("system", "system_prompt", "system_message"),
    "tools": ("tools",),
}
BESIDE_PROMPT: dict[str, tuple[str, ...]] = {
    "history": ("history",),
    "context": ("context",),
    "input": ("input",),
}
NAMES = (*LAYOUTS, *PREFERENCES, PLAIN, BY_HAND)
ROLES = {role for roles in (*LAYOUTS.values(), *PREFERENCES.values(), PLAIN_TEXT) for role in roles}
ROLES |= {*BESIDE, *BESIDE_PROMPT}
OPTIONAL = {*BESIDE, *BESIDE_PROMPT}  # roles that a row may leave empty
UNREADABLE = ("images", "image", "audio", "audios", "video", "videos")  # refused where not empty


@dataclass(frozen=True)
class Layout:
    """Which column plays which role."""

    name: str
    roles: dict[str, str]


@dataclass(frozen=True)
class Conversation:
    """The turns of a row, and the tools that it offers the assistant."""

    turns: list[Turn]
    tools: list[dict[str, Any]] = field(default_factory=list)

    def identity(self) -> list[Any]:
        """What makes two rows the same text."""
        turns = [turn.identity() for turn in self.turns]
        return [turns, self.tools] if self.tools else turns


def recognise(
    columns: list[str], mapping: dict[str, str], wanted: str = "auto", row: Row = None
) -> Layout:
    """The layout of these columns, or the mapping by hand; raises LayoutError if there is none.

    `wanted` is the run's setting `layout`; `row` is any row that has values, to tell what a column
    of a known name holds.
    """
    if mapping:
        missing = sorted(set(mapping.values()) - set(columns))
        if missing:
            raise LayoutError(
                f"column '{missing[0]}' is mapped but not there: the columns are"
                f" {', '.join(columns)}"
            )
        return Layout(BY_HAND, dict(mapping))
    if wanted == "text":
        return _plain_text(columns)
    for name, roles in PREFERENCES.items():
        if _is_preference(roles, columns, row or {}):
            return _preference(name, roles, columns, wanted)
    if wanted == "chosen":
        raise LayoutError(
            f"--layout chosen needs columns chosen and rejected, or a label that is true or false:"
            f" the columns are {', '.join(columns)}"
        )
    for name, roles in LAYOUTS.items():
        if set(roles.values()) <= set(columns):
            return Layout(name, roles | _beside(roles, columns))
    raise LayoutError(_no_layout(columns, row or {}))


def recognise_in(source: Source | Stream, config: RunConfig) -> Layout:
    """The layout of a data set under a run's settings; raises LayoutError if there is none."""
    return recognise(source.columns, config.columns, config.layout, source.first_row)


def _beside(roles: dict[str, str], columns: list[str]) -> dict[str, str]:
    known = BESIDE if "messages" in roles else BESIDE | BESIDE_PROMPT
    found = {
        role: next((name for name in names if name in columns), None)
        for role, names in known.items()
    }
    taken = set(roles.values())
    return {role: name for role, name in found.items() if name and name not in taken}


def _plain_text(columns: list[str]) -> Layout:
    if not set(PLAIN_TEXT.values()) <= set(columns):
        raise LayoutError(
            f"--layout text needs a column 'text': the columns are {', '.join(columns)}; map"
            " another one by hand, --map text=COLUMN"
        )
    return Layout(PLAIN, dict(PLAIN_TEXT))


def _is_preference(roles: dict[str, str], columns: list[str], row: dict[str, Any]) -> bool:
    if not set(roles.values()) <= set(columns):
        return False
    return "verdict" not in roles or isinstance(row.get(roles["verdict"]), bool)


def _preference(name: str, roles: dict[str, str], columns: list[str], wanted: str) -> Layout:
    if wanted != "chosen":
        raise LayoutError(
            f"the columns {', '.join(roles.values())} hold {name}: train the chosen ones with"
            " --layout chosen, or map columns by hand"
        )
    prompt = {"prompt": "prompt"} if "prompt" in columns else {}
    return Layout(name, roles | prompt | _beside(roles, columns))


def _no_layout(columns: list[str], row: dict[str, Any]) -> str:
    """What the columns hold, and what to do about it."""
    there = ", ".join(columns) or "(none)"
    if "text" in columns:
        return (
            f"the columns {there} hold whole texts: train all of each with --layout text, or map"
            " questions and answers by hand, --map prompt=COLUMN --map response=COLUMN"
        )
    if set(columns) & {"chosen", "rejected"}:
        return (
            f"the columns {there} hold one side of a preference: map it by hand, as in"
            " --map messages=chosen"
        )
    known = "; ".join(f"{name}: {', '.join(roles.values())}" for name, roles in LAYOUTS.items())
    lists = [name for name in columns if isinstance(row.get(name), list)]
    hint = f" ('{lists[0]}' holds lists: --map messages={lists[0]}?)" if lists else ""
    return (
        f"the columns {there} fit no known layout ({known}): map them by hand,"
        f" --map prompt=COLUMN --map response=COLUMN or --map messages=COLUMN{hint}"
    )


def conversation(row: Row, layout: Layout) -> Conversation:
    """The turns of a row; raises Unusable with the reason and what to do."""
    if row is None:
        raise Unusable("the row is not an object with columns", "write it as {column: value, ...}")
    try:
        json.dumps(row, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise Unusable("it holds half a character (a lone surrogate)", "correct its text") from None
    except RecursionError:
        raise Unusable("it is nested too deeply", "take the deepest column out") from None
    for name in UNREADABLE:
        if row.get(name) not in (None, "", [], {}):
            raise Unusable(
                f"it holds {name}, which are no text", "leave such rows out, or describe them"
            )
    roles = layout.roles
    if "text" in roles:
        return Conversation([Turn("text", text_of(row.get(roles["text"]), roles["text"]))])
    turns = _turns(row, roles)
    system = text_of(_played(row, roles, "system"), "system", required=False)
    if system:
        turns = [Turn("system", system), *turns]
    return Conversation(turns, _tools(_played(row, roles, "tools")))


def _played(row: dict[str, Any], roles: dict[str, str], role: str) -> Any:
    """What stands in the column of a role; None where none plays it: a column may be called ""."""
    return row.get(roles[role]) if role in roles else None


def _turns(row: dict[str, Any], roles: dict[str, str]) -> list[Turn]:
    if "verdict" in roles and row.get(roles["verdict"]) is not True:
        raise Unusable("its answer is not a chosen one", "nothing to do: it must not be trained")
    if "chosen" in roles:
        return _chosen(row, roles)
    if "messages" in roles:
        return answered(messages_of(row.get(roles["messages"]), roles["messages"]))
    return _prompt_and_response(row, roles)


def answered(turns: list[Turn]) -> list[Turn]:
    """The turns up to the last answer; raises Unusable where nothing is there to be learned."""
    if not any(turn.role == "assistant" for turn in turns):
        raise Unusable("no message comes from the assistant", "add the answer to learn")
    if not any(turn.role == "assistant" and turn.trained for turn in turns):
        raise Unusable("no answer carries loss (weight 0, train false)", "nothing to learn here")
    while turns[-1].role != "assistant":  # an unanswered question teaches nothing
        turns = turns[:-1]
    return turns


def _chosen(row: dict[str, Any], roles: dict[str, str]) -> list[Turn]:
    """The chosen side: a whole conversation, or the answer to the prompt."""
    chosen, prompt = row.get(roles["chosen"]), _played(row, roles, "prompt")
    if isinstance(chosen, str):
        return _prompt_and_response(row, roles, "chosen")
    turns = messages_of(chosen, roles["chosen"])
    if isinstance(prompt, list) and not any(turn.role == "user" for turn in turns):
        turns = messages_of(prompt, roles["prompt"]) + turns
    return answered(turns)


def _prompt_and_response(
    row: dict[str, Any], roles: dict[str, str], answer: str = "response"
) -> list[Turn]:
    prompt, response = row.get(roles.get("prompt", "prompt")), row.get(roles[answer])
    if isinstance(prompt, list) and isinstance(response, list):
        asked = [turn.silent() for turn in messages_of(prompt, roles["prompt"])]
        # The completion itself must answer, and alone is learned.
        return asked + answered(messages_of(response, roles[answer]))
    parts = [text_of(_played(row, roles, "context"), "context", required=False)]
    parts.append(text_of(prompt, roles.get("prompt", "prompt")))
    parts.append(text_of(_played(row, roles, "input"), "input", required=False))
    return [
        *_history(_played(row, roles, "history")),
        Turn("user", "\n\n".join(part for part in parts if part)),
        Turn("assistant", text_of(response, roles[answer])),
    ]


def _history(value: Any) -> list[Turn]:
    """Earlier rounds as Alpaca writes them: [[question, answer], ...]; every answer is learned."""
    if not value:
        return []
    if not isinstance(value, list) or not all(isinstance(p, list) and len(p) == 2 for p in value):
        raise Unusable("column 'history' holds no rounds", "write it as [[question, answer], ...]")
    return [
        turn
        for question, answer in value
        for turn in (
            Turn("user", text_of(question, "history")),
            Turn("assistant", text_of(answer, "history")),
        )
    ]


def _tools(value: Any) -> list[dict[str, Any]]:
    """The tools of a row: a list of objects, or its JSON text."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise Unusable("column 'tools' is no JSON", "write it as a list of tools") from None
    if not value:
        return []
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise Unusable("column 'tools' holds no list of objects", "write it as a list of tools")
    if not all(isinstance(tool.get("function", {}), dict) for tool in value):
        raise Unusable("a tool's function is no object", "write {name: ..., parameters: {...}}")
    return value
