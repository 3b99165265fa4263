"""Control tokens that a row's text spells out stay text: the chat template alone writes any.

For the rendering, their first characters are swapped for private ones, so that what the template
writes is told from what stood in the row. For the tokens, a copy of the tokenizer knows the
template's under names of the same length, and reads all others as text.
"""

import json
import re
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from tokenizers import AddedToken

from grads.data.spans import Rendered, Span, render
from grads.data.turns import THINK_BEGIN, THINK_END, Turn, Unusable

OF_ROWS, OF_TEMPLATE = 0xF0000, 0x100000  # first characters of two private use planes
OF_ROW = re.compile("[\U000f0000-\U000ffffd]")
HIDDEN = re.compile("[\U000f0000-\U0010ffff]")
NEVER = r"(?!)"  # a pattern that fits nowhere
TEXTS = ("content", "reasoning", "tool_calls", "name", "tool_call_id")  # of a turn
PLAINLY = {
    "add_special_tokens": False,
    "return_offsets_mapping": True,
    "return_attention_mask": False,
}


@dataclass(frozen=True, eq=False)
class Controls:
    """The control tokens of a tokenizer, and reading text in which a row spells some of them."""

    tokenizer: Any
    names: list[str]
    pattern: re.Pattern[str]

    def spelled(self, texts: list[str]) -> str | None:
        """The first control token that one of these texts spells out; None where none does."""
        found = (self.pattern.search(text) for text in texts)
        return next((match[0] for match in found if match), None)

    def masked(self, text: str) -> str:
        """The text with its control tokens out of sight; as long as before."""
        return self.pattern.sub(lambda found: self.renamed(found[0], OF_ROWS), text)

    def unmasked(self, text: str) -> str:
        """What `masked` was given, wherever the text now stands."""
        return OF_ROW.sub(lambda found: self.names[ord(found[0]) - OF_ROWS][0], text)

    def encode(self, text: str, spelled: bool) -> tuple[list[int], list[Span]]:
        """Ids and offsets of a rendered text, in which rows may have `spelled` control tokens.

        What is masked is read as text, what is not as control tokens. Raises Unusable where the
        tokenizer has no other way to write what is masked.
        """
        if not spelled:
            encoding = self.tokenizer(text, **PLAINLY)
            return encoding["input_ids"], encoding["offset_mapping"]
        text = self.pattern.sub(lambda found: self.renamed(found[0], OF_TEMPLATE), text)
        reader, numbers = _reader(self)
        encoding = reader(self.unmasked(text), **PLAINLY)
        ids = encoding["input_ids"]
        wrong = set(ids) & set(numbers.values()) - {self.tokenizer.unk_token_id}
        if wrong:
            name = self.tokenizer.convert_ids_to_tokens(min(wrong))
            raise Unusable(
                f"it spells out the control token {name}, which this tokenizer cannot read as text",
                "write it otherwise, or leave the row out",
            )
        return [numbers.get(number, number) for number in ids], encoding["offset_mapping"]

    def renamed(self, name: str, plane: int) -> str:
        """A name of a control token that nobody writes, as long as its own."""
        return chr(plane + self.names.index(name)) + name[1:]


@lru_cache(maxsize=4)
def controls_of(tokenizer: Any) -> Controls:
    """The control tokens of a tokenizer; marks of reasoning are none, as rows write them too."""
    names = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    names = [name for name in names if name.strip() and name not in (THINK_BEGIN, THINK_END)]
    longest_first = sorted(names, key=len, reverse=True)
    pattern = "|".join(map(re.escape, longest_first)) or NEVER
    return Controls(tokenizer, names, re.compile(pattern))


@lru_cache(maxsize=4)
def _reader(controls: Controls) -> tuple[Any, dict[int, int]]:
    """A tokenizer that knows control tokens by the template's names alone; their own numbers."""
    reader = deepcopy(controls.tokenizer)
    reader.split_special_tokens = True
    numbers, tokens = {}, []
    for number, token in controls.tokenizer.added_tokens_decoder.items():
        if str(token) in controls.names:
            name = controls.renamed(str(token), OF_TEMPLATE)
            kind = {key: getattr(token, key) for key in ("single_word", "lstrip", "rstrip")}
            tokens.append(AddedToken(name, normalized=False, special=False, **kind))
            numbers[name] = number
    reader.add_tokens(tokens)
    return reader, {reader.convert_tokens_to_ids(name): own for name, own in numbers.items()}


def _masked(turn: Turn, controls: Controls) -> Turn:
    texts: dict[str, Any] = {name: controls.masked(getattr(turn, name)) for name in TEXTS}
    return replace(turn, **texts)


@dataclass(frozen=True)
class Written:
    """A conversation as its template writes it."""

    rendered: Rendered  # where a row spells out control tokens, with those masked
    text: str  # the same with all as it stood in the row
    spelled: bool  # whether the row spells out a control token


def write(turns: list[Turn], tokenizer: Any, tools: list[Any] | None = None) -> Written:
    """A conversation rendered, for `Controls.encode`; raises Unusable as `render` does."""
    controls = controls_of(tokenizer)
    texts = [getattr(turn, name) for turn in turns for name in TEXTS]
    offered = json.dumps(tools, ensure_ascii=False)
    name = controls.spelled([*texts, offered])
    if name is None:
        rendered = render(turns, tokenizer, tools)
        return Written(rendered, rendered.text, spelled=False)
    if any(HIDDEN.search(text) for text in (*texts, offered)):
        raise Unusable(
            f"it spells out the control token {name} beside characters for private use",
            "remove one or the other",
        )
    masked = [_masked(turn, controls) for turn in turns]
    try:
        rendered = render(masked, tokenizer, json.loads(controls.masked(offered)))
    except Unusable as verdict:
        raise Unusable(controls.unmasked(verdict.reason), verdict.advice) from None
    return Written(rendered, controls.unmasked(rendered.text), spelled=True)
