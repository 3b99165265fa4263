"""Whether a trainer that writes the conversations out itself comes to the tokens that were scored.

The run keeps the text of every token and which of them carry loss. A trainer's way of writing is
rendered here as text and held against that, so an export needs neither model nor tokenizer.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from grads.data.layouts import Conversation
from grads.export.rows import Subset, Template, learned

Span = tuple[int, int]
MARKS = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")


@dataclass(frozen=True)
class Scored:
    """A row as it was scored: the text of each token, and which of them carry loss."""

    pieces: list[str]
    trained: list[bool]
    whole: bool  # or cut at the longest length

    def agrees(self, text: str, spans: list[Span]) -> bool:
        """Whether a text of which these spans are trained comes to the same."""
        mine = "".join(self.pieces)
        if text != mine and (self.whole or not text.startswith(mine)):
            return False
        ends = itertools.accumulate(map(len, self.pieces))
        return all(
            trained == any(a < end and b > end - len(piece) for a, b in spans)
            for piece, trained, end in zip(self.pieces, self.trained, ends, strict=True)
            if piece  # a token that is part of a character shares the fate of its last one
        )

    def answers(self) -> list[str]:
        """The trained texts; of a row that was cut, the last may be cut too and is left out."""
        pairs = zip(self.trained, self.pieces, strict=True)
        runs = [
            "".join(piece for _, piece in run)
            for trained, run in itertools.groupby(pairs, key=lambda pair: pair[0])
            if trained
        ]
        return runs if self.whole else runs[:-1]


@dataclass(frozen=True)
class ScoredRows:
    """The rows as they were scored, a few at a time: the texts of all tokens are many objects."""

    table: pa.Table

    def __iter__(self) -> Iterator[Scored]:
        for batch in self.table.to_batches(max_chunksize=1000):
            for row in batch.to_pylist():
                yield Scored(row["pieces"], row["trained"], not row["truncated"])


def scored(subset: Subset) -> ScoredRows | None:
    """The rows as they were scored; None where the run does not keep the text of its tokens."""
    if subset.tokens is None or "pieces" not in subset.tokens.column_names:
        return None
    return ScoredRows(subset.tokens.select(["pieces", "trained", "truncated"]))


def reads_as_control(subset: Subset) -> bool:
    """Whether a trainer that writes the rows out would take text of theirs for control tokens."""
    return subset.tokens is not None and bool(pc.any(subset.tokens["spelled"]).as_py())


@dataclass(frozen=True)
class Frame:
    """What stands around the words of every trained answer, and is trained with them."""

    opening: str  # of some answers, as an empty reasoning; "" where there is none
    closing: str  # of all


def frame(rows: ScoredRows, conversations: list[Conversation]) -> Frame | None:
    """What frames every answer; None where answers are more than their words in one frame."""
    openings, closings = set(), set()
    for row, conversation in zip(rows, conversations, strict=True):
        said = [turn.content for turn in conversation.turns if learned(turn)]
        answers = row.answers()
        if row.whole and len(said) != len(answers):
            return None
        for words, answer in zip(said, answers, strict=False):
            shown = words if words in answer else words.strip()
            if not shown or shown not in answer:  # it calls tools, or the template rewrites it
                return None
            opening, _, closing = answer.partition(shown)
            openings.add(opening)
            closings.add(closing)
    openings.discard("")
    if len(openings) > 1 or len(closings) != 1:
        return None
    return Frame(openings.pop() if openings else "", closings.pop())


def rendered(
    source: str, template: Template, messages: list[Any], tools: list[Any], *, prompt: bool = False
) -> tuple[str, list[Span]] | None:
    """The text that a template makes of messages, and what it marks; None where it refuses."""
    from transformers.utils.chat_template_utils import render_jinja_template

    apply: Any = render_jinja_template  # its stub forgets the places
    try:
        texts, spans = apply(
            conversations=[messages],
            tools=tools or None,
            chat_template=source,
            return_assistant_tokens_mask=bool(MARKS.search(source)),
            add_generation_prompt=prompt,
            **template.marks,
        )
    except Exception:  # templates raise what they like
        return None
    return texts[0], [(a, b) for a, b in (spans[0] if spans else ()) if b > a]


def marked(template: Template, around: Frame | None) -> list[str]:
    """Templates that write as this one does and mark what is trained, the plainest first.

    Whether one of them does on given rows is for the caller to see, by rendering.
    """
    from grads.data.chat import PLAIN_TEMPLATE

    found = []
    if MARKS.search(template.source):
        found.append(template.source)
    elif template.source == PLAIN_TEMPLATE:
        found.append(_plain_with_marks(PLAIN_TEMPLATE))
    if around is not None:
        source = MARKS.sub("", template.source)
        found += [_around(source, around, words) for words in ("m.content", "m.content | trim")]
    return found


def _plain_with_marks(plain: str) -> str:
    said = "message.content + eos_token }}"
    answer = "{{ '### Answer:\\n' + " + said
    return plain.replace(
        answer,
        "{{ '### Answer:\\n' }}{% if message.train is false %}{{ "
        + said
        + "{% else %}{% generation %}{{ "
        + said
        + "{% endgeneration %}{% endif %}",
    )


_AROUND = """\
{#- The model's own template stands between "set written" and "endset". Around it, what the
    assistant says is marked for training, but for messages with "train": false. -#}
{%- set ns = namespace(said=[]) -%}
{%- for m in messages -%}
{%- if m.role == 'assistant' and m.content is string and m.train is not false -%}
{%- set ns.said = ns.said + [dict(m, content='\ue010' ~ (WORDS) ~ '\ue011')] -%}
{%- else -%}
{%- set ns.said = ns.said + [m] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = ns.said -%}
{% set written %}SOURCE{% endset %}
{%- set ns = namespace(opening='') -%}
{%- for part in written.split('\ue010') -%}
{%- set words, between = part.split('\ue011') if not loop.first else ('', part) -%}
{%- if not loop.first -%}
{%- set closing = CLOSING if between.startswith(CLOSING) else '' -%}
{%- set between = between[closing | length:] -%}
{%- generation -%}{{- ns.opening ~ words ~ closing -}}{%- endgeneration -%}
{%- endif -%}
{%- set ns.opening = OPENING if not loop.last and between.endswith(OPENING) else '' -%}
{{- between[:(between | length) - (ns.opening | length)] -}}
{%- endfor -%}
"""


def _around(source: str, frame: Frame, words: str) -> str:
    """A template with this one inside, which marks each answer in its frame.

    Two characters of the private use area show it where the words stand.
    """
    text = _AROUND.replace("WORDS", words)
    text = text.replace("OPENING", _quoted(frame.opening))
    return text.replace("CLOSING", _quoted(frame.closing)).replace("SOURCE", source)


def _quoted(text: str) -> str:
    """A text as a template writes it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
