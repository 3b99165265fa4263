"""Where in a rendered conversation the assistant speaks: what a model is trained to say.

Templates differ in all they can: some drop the reasoning of earlier turns, some move the system's
words, some close the last turn unlike the others. So nothing is assumed of how a prefix looks. The
whole conversation is rendered once as it is, and once for each assistant turn with a mark in that
turn's place: what the two have in common before and behind is not the turn's. Where a template says
itself what it generates (`{% generation %}`), that is taken.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from grads.data.turns import Turn, Unusable
from grads.text import VALUE, cut, visible

MARK = "\ue000\ue001\ue002"  # of the private use area: no text begins or ends so
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
LONGEST_TOKEN = 48  # characters; a "<" further ahead, or before a blank, begins no token
BEGUN = re.compile(r"<[^<>\s]*\Z")
Span = tuple[int, int]


@dataclass(frozen=True)
class Rendered:
    """A conversation as one text, and where its trained turns stand in it."""

    text: str
    spans: list[Span]  # (begin, end) characters, one a trained turn or more
    ends: bool  # whether the template shows an end-of-turn token behind what the assistant says


def render(turns: list[Turn], tokenizer: Any, tools: list[Any] | None = None) -> Rendered:
    """The conversation as the model will see it; raises Unusable with the turn and the reason.

    A span begins where generation would begin, and ends with the end-of-turn token. Every turn's
    words must be shown, the last answer's reasoning too; that of earlier answers may be dropped.
    """
    verdicts: list[Unusable] = []
    for form in _forms(turns):
        template = _Template(tokenizer, form, tools)
        try:
            text = template(turns)
            _refuse_dropped(turns, tools, text)
            return _marked(turns, template, text)
        except Unusable as verdict:
            verdicts.append(verdict)
    # What a template leaves out says more than that it takes no other form of writing; the form
    # that it shows most of is its own.
    raise max(verdicts, key=lambda verdict: getattr(verdict, "turn", 0))


@dataclass(frozen=True)
class _Form:
    """How messages are written for a template: they differ in what they take."""

    arguments: str = "object"  # of a tool call: an object, or its JSON text
    empty: str | None = ""  # the content of a turn that only calls tools
    parts: bool = False  # contents as lists of parts


def _forms(turns: list[Turn]) -> Iterator[_Form]:
    """The forms to try, the usual one first."""
    calls = any(turn.tool_calls for turn in turns)
    arguments = ("object", "text") if calls else ("object",)
    empty = ("", None) if calls and any(not turn.content for turn in turns) else ("",)
    for parts, kind, nothing in product((False, True), arguments, empty):
        yield _Form(kind, nothing, parts)


class _Template:
    """The tokenizer's chat template, applied to turns in one form of writing."""

    def __init__(self, tokenizer: Any, form: _Form, tools: list[Any] | None) -> None:
        self.tokenizer, self.form, self.tools = tokenizer, form, tools

    def __call__(self, turns: list[Turn], prompt: bool = False) -> str:
        return self._apply(turns, prompt)[0]

    def own_spans(self, turns: list[Turn]) -> list[Span] | None:
        """What the template itself marks as generated; None where it marks nothing."""
        source = self.tokenizer.get_chat_template(tools=self.tools)
        if not GENERATION.search(source):
            return None
        return [(a, b) for a, b in self._apply(turns, False, mark=True)[1] if b > a]

    def _apply(self, turns: list[Turn], prompt: bool, mark: bool = False) -> tuple[str, list[Any]]:
        messages = [self._message(turn) for turn in turns]
        apply: Any = render_jinja_template  # its stub forgets the places
        try:
            texts, spans = apply(
                conversations=[messages],
                tools=self.tools,
                chat_template=self.tokenizer.get_chat_template(tools=self.tools),
                return_assistant_tokens_mask=mark,
                add_generation_prompt=prompt,
                **self.tokenizer.special_tokens_map,
            )
        except MemoryError:
            raise
        except Exception as error:  # a template is code of others, and raises what it likes
            raise Unusable(
                f"the model's chat template refuses it: {cut(visible(str(error)), VALUE)}",
                "change the order or roles of its turns, or use another model",
            ) from None
        return texts[0], spans[0] if spans else []

    def _message(self, turn: Turn) -> dict[str, Any]:
        content: Any = turn.content or (self.form.empty if turn.tool_calls else "")
        if self.form.parts and content is not None:
            content = [{"type": "text", "text": content}]
        message: dict[str, Any] = {"role": turn.role, "content": content}
        if turn.reasoning:
            message["reasoning_content"] = turn.reasoning
        if turn.tool_calls:
            message["tool_calls"] = [self._call(call) for call in json.loads(turn.tool_calls)]
        return message | {key: value for key, value in turn.about().items() if value}

    def _call(self, call: dict[str, Any]) -> dict[str, Any]:
        function = call["function"]
        if self.form.arguments == "text":
            text = json.dumps(function["arguments"], ensure_ascii=False)
            function = function | {"arguments": text}
        return call | {"function": function}


# -- nothing dropped in silence


class _LeftOut(Unusable):
    """A template does not show a turn, counted from 1, or the tools behind the last one."""

    def __init__(self, reason: str, advice: str, turn: int) -> None:
        super().__init__(reason, advice)
        self.turn = turn


def _refuse_dropped(turns: list[Turn], tools: list[Any] | None, text: str) -> None:
    shown = _Shown(text)
    for n, turn in enumerate(turns):
        if turn.role != "assistant":
            _refuse_unless(shown, turns, n, what="words", words=turn.content)
    for tool in tools or ():
        name = tool.get("function", tool).get("name", "") if isinstance(tool, dict) else ""
        if not shown.has(str(name)):
            raise _LeftOut(
                f"the model's chat template leaves out the tools (“{_brief(str(name))}”)",
                "describe them in the system turn, or use another model",
                len(turns) + 1,
            )


def _refuse_dropped_in(turns: list[Turn], n: int, text: str, template: "_Template") -> None:
    """The same for an assistant's turn, in its own part of the text.

    What an earlier answer was reasoned from may go, as it does when the model is used; but the
    template must have shown it when that answer was the last one.
    """
    shown, (reasoning, answer) = _Shown(text), turns[n].thought()
    if not shown.has(reasoning):
        earlier = any(turn.role == "assistant" for turn in turns[n + 1 :])
        then = _Shown(template(turns[: n + 1])) if earlier else shown
        _refuse_unless(then, turns, n, what="reasoning", words=reasoning)
    _refuse_unless(shown, turns, n, what="words", words=answer)
    for word in _words_of(turns[n].tool_calls):
        _refuse_unless(shown, turns, n, what="tool calls", words=word)


def _refuse_unless(shown: "_Shown", turns: list[Turn], n: int, *, what: str, words: str) -> None:
    if not shown.has(words):
        raise _LeftOut(
            f"the model's chat template leaves out the {what} of turn {n + 1} ({turns[n].role}):"
            f" “{_brief(words)}”",
            "move them into a turn that it shows, or use another model",
            n + 1,
        )


class _Shown:
    """A text in which words are looked for, white space and JSON's escapes aside."""

    def __init__(self, text: str) -> None:
        self.plain = "".join(text.split())

    def has(self, words: str) -> bool:
        return self._holds(words) or any(
            self._holds(json.dumps(words, ensure_ascii=escaped)[1:-1]) for escaped in (True, False)
        )

    def _holds(self, form: str) -> bool:
        return "".join(form.split()) in self.plain


def _words_of(tool_calls: str) -> Iterator[str]:
    """Names and arguments of tool calls, as far as they are text or plain values."""
    for call in json.loads(tool_calls) if tool_calls else ():
        yield call["function"]["name"]
        yield from _leaves(call["function"]["arguments"])


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif isinstance(value, str):
        yield value


def _brief(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"


# -- spans


def _marked(turns: list[Turn], template: _Template, text: str) -> Rendered:
    places = []
    ends, end = True, 0
    for n, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        begin, end, closed = _place(turns, n, template, text, after=end)
        _refuse_dropped_in(turns, n, text[begin:end], template)
        ends &= closed
        places.append((turn, (begin, end)))
    own = template.own_spans(turns)
    if own is None:
        return Rendered(text, [place for turn, place in places if turn.trained], ends)
    silent = [place for turn, place in places if not turn.trained]
    kept = [a for a in own if not any(a[0] < b[1] and b[0] < a[1] for b in silent)]
    # What the template marks is right by its own word, white space at the end aside.
    return Rendered(text, [(a, a + len(text[a:b].rstrip())) for a, b in kept], ends)


def _place(
    turns: list[Turn], n: int, template: _Template, text: str, *, after: int
) -> tuple[int, int, bool]:
    """Begin and end of what assistant turn n says, and whether a token ends it.

    Nothing before `after` is its own.
    """
    marked, tail = _with_mark(turns, n, template)
    before = _common(text, marked)
    prompt = _generation_prompt(turns, n, template)
    begin = _after_header(text, prompt, after, before)
    called = turns[n].tool_calls and _end_of_call(turns, n, template, text)
    if called and called > begin:
        end, closing = called, text[before:called]
    elif text.endswith(tail):
        closing = _closing(turns, n, template, tail=tail, prompt=prompt)
        end = len(text) - len(tail) + len(closing)
    else:  # it closes unlike a plain answer
        behind = min(_common(text[::-1], tail[::-1]), len(text) - before)
        end, closing = _whole_token(text, len(text) - behind), text[before:]
    end = begin + len(text[begin:end].rstrip())
    return begin, max(end, begin), bool(closing.strip())


def _end_of_call(turns: list[Turn], n: int, template: _Template, text: str) -> int:
    """Where turn n, which calls tools, ends: a conversation that ends with it goes on elsewhere."""
    try:
        alone = template(turns[: n + 1])
    except Unusable:
        return 0
    shared = _common(text, alone)
    return shared if shared == len(text) else _before_token(text, shared)


def _before_token(text: str, place: int) -> int:
    """The place, or the beginning of the <token> that it lies in."""
    begun = BEGUN.search(text, max(place - LONGEST_TOKEN, 0), place)
    return begun.start() if begun else place


def _whole_token(text: str, place: int) -> int:
    """The place, or the end of the <token> that it lies in."""
    if _before_token(text, place) == place:
        return place
    closed = text.find(">", place)
    return closed + 1 if closed >= 0 else place


def _with_mark(turns: list[Turn], n: int, template: _Template) -> tuple[str, str]:
    """The rendering with a mark for turn n, up to the mark, and what follows the mark."""
    variants: tuple[Callable[[Turn], Turn], ...] = (
        lambda turn: Turn(turn.role, MARK),
        lambda turn: turn.saying(MARK),  # where later turns need its calls
    )
    problem: Unusable | None = None
    for variant in variants:
        try:
            text = template([*turns[:n], variant(turns[n]), *turns[n + 1 :]])
        except Unusable as verdict:
            problem = problem or verdict
            continue
        begin, mark, tail = text.partition(MARK)
        if mark and MARK not in tail:
            return begin, tail
    if turns[n].tool_calls:  # without its words, what differs is what it calls with
        other = template([*turns[:n], turns[n].calling_with_nothing(), *turns[n + 1 :]])
        return other, other
    raise problem or _LeftOut(
        f"the model's chat template leaves out turn {n + 1} ({turns[n].role}), or repeats it:"
        f" “{_brief(turns[n].content)}”",
        "move its words into a turn that it shows, or use another model",
        n + 1,
    )


def _after_header(text: str, prompt: str, after: int, before: int) -> int:
    """Where a turn begins: behind the last header, as far as it is the generation prompt.

    A prompt may open a reasoning that the turn does not have; more than half of it must be there.
    Without such a header the turn begins at `before`, where its words do.
    """
    for length in range(len(prompt), len(prompt) // 2, -1):
        found = text.rfind(prompt[:length], after, before)
        if found >= 0:
            return found + length
    return before


def _generation_prompt(turns: list[Turn], n: int, template: _Template) -> str:
    """What the template writes for the model to go on from, before turn n; "" where it refuses."""
    for before in (turns[:n], [Turn("user", "?")]):
        with suppress(Unusable):
            plain, prompted = template(before), template(before, prompt=True)
            # Both may go on with tokens that begin alike.
            return prompted[_before_token(prompted, _common(plain, prompted)) :]
    return ""


def _closing(turns: list[Turn], n: int, template: _Template, *, tail: str, prompt: str) -> str:
    """The part of what follows turn n, `tail`, that ends it; `prompt` is what precedes the turn."""
    if n == len(turns) - 1:
        return tail
    for before in (turns[:n], [Turn("user", "?")]):
        with suppress(Unusable):
            answered = template([*before, Turn("assistant", MARK)], prompt=True)
            behind = answered.partition(MARK)[2]
            closing = behind.removesuffix(prompt)
            return tail[: _before_token(tail, _common(tail, closing))]
    return ""


def _common(a: str, b: str) -> int:
    """Length of the common beginning of two texts."""
    low, high = 0, min(len(a), len(b))
    while low < high:  # halving: slices compare fast
        middle = (low + high + 1) // 2
        low, high = (middle, high) if a[:middle] == b[:middle] else (low, middle - 1)
    return low
