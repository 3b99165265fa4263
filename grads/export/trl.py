"""TRL: conversations and the template that its trainer needs, or the tokens that were scored.

TRL writes the conversations out itself, and knows two ways to tell what carries loss: all that
follows a prompt, line breaks included, or what a template marks as generated. The first way that
comes to the scored tokens on every row is taken; where none does, or its reader would change the
texts, the rows are those tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from grads.config.run import RunConfig
from grads.data.layouts import Conversation
from grads.export.exact import Scored, ScoredRows, frame, marked, reads_as_control, rendered, scored
from grads.export.inferred import dump_alike
from grads.export.rows import (
    Format,
    Subset,
    Template,
    count_lines,
    dump_lines,
    learned,
    message,
    token_table,
    write_text,
)
from grads.export.settings import brings_none, is_text, lora_alpha, model_name, write_template


@dataclass(frozen=True)
class _Way:
    """How TRL is given conversations."""

    pairs: bool  # as prompt and completion, else as messages
    marks: bool = False  # whether a template says what is trained
    template: str | None = None  # to come along; else the model's own does

    def agrees(self, conversation: Conversation, row: Scored, template: Template) -> bool:
        """Whether TRL trains the scored tokens of this row."""
        source = self.template or template.source
        messages = [message(turn) for turn in conversation.turns]
        found = rendered(source, template, messages, conversation.tools)
        if found is None:
            return False
        text, spans = found
        if not self.pairs:
            return row.agrees(text, spans)
        asked = rendered(source, template, messages[:-1], conversation.tools, prompt=True)
        if asked is None:
            return False
        begin = _common(asked[0], text)
        spans = [(max(a, begin), b) for a, b in spans] if self.marks else [(begin, len(text))]
        return row.agrees(text, spans)


def _common(a: str, b: str) -> int:
    """Length of the common beginning of two texts."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))


def _ways(subset: Subset, rows: ScoredRows, template: Template) -> Iterator[_Way]:
    """The ways to try, the plainest first."""
    conversations = subset.conversations()
    shapes = [True, False] if _answers_last(conversations) else [False]
    if shapes[0]:
        yield _Way(pairs=True, template=None if template.of_the_model else template.source)
    for source in marked(template, frame(rows, conversations)):
        own = template.of_the_model and source == template.source
        for pairs in shapes:
            yield _Way(pairs, marks=True, template=None if own else source)


def _answers_last(conversations: list[Conversation]) -> bool:
    """Whether each row has a prompt, and its last turn alone is trained."""
    return all(
        len(c.turns) > 1 and [learned(turn) for turn in c.turns].index(True) == len(c.turns) - 1
        for c in conversations
    )


def _way(subset: Subset) -> _Way | None:
    """The first way that is exact on every row; None where there is none.

    Of runs that keep no template, TRL has to know the model's.
    """
    conversations, rows = subset.conversations(), scored(subset)
    if subset.template is None or rows is None:
        if _answers_last(conversations):
            return _Way(pairs=True)
        weighted = any(
            t.role == "assistant" and not t.trained for c in conversations for t in c.turns
        )
        return None if weighted else _Way(pairs=False, marks=True)
    if reads_as_control(subset):
        return None
    for way in _ways(subset, rows, subset.template):
        pairs = zip(conversations, rows, strict=True)
        if all(way.agrees(conversation, row, subset.template) for conversation, row in pairs):
            return way
    return None


def _write(subset: Subset, path: Path, config: RunConfig) -> None:
    settings: dict[str, Any] = {
        "model_name_or_path": model_name(config),
        "datasets": [{"path": "json", "data_files": path.name}],
        "output_dir": "output",
        "max_length": config.max_length,
        "per_device_train_batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "num_train_epochs": config.epochs,
        "seed": config.seed,
    }
    way = None if is_text(subset) else _way(subset)
    rows = _rows(subset, way)
    if rows is None or not dump_alike(subset.with_scores(rows), path):
        dump_lines(subset.with_scores(token_table(subset).to_pylist()), path)
        if brings_none(subset) and subset.template:
            settings["chat_template_path"] = write_template(subset.template.source, path)
    elif way:
        settings |= {"completion_only_loss": True} if way.pairs else {}
        settings |= {"assistant_only_loss": True} if way.marks else {}
        if way.template:
            settings["chat_template_path"] = write_template(way.template, path)
    if config.warmup != "full":
        settings |= {
            "use_peft": True,
            "lora_r": config.lora_rank,
            "lora_alpha": lora_alpha(config),
            "lora_target_modules": ["all-linear"],
        }
    note = "# Run in this folder: trl sft --config trl.yaml\n"
    write_text(path.with_name("trl.yaml"), note + yaml.safe_dump(settings, sort_keys=False))


def _rows(subset: Subset, way: _Way | None) -> list[dict[str, Any]] | None:
    """The rows as text; None where there is no way to give them so."""
    if is_text(subset):
        return [{"text": turns[0]["content"]} for turns in subset.turns]
    if way is None:
        return None
    return _in_pairs(subset.messages()) if way.pairs else subset.messages()


def _in_pairs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row in rows:
        turns = row.pop("messages")
        row |= {"prompt": turns[:-1], "completion": turns[-1:]}
    return rows


FORMAT = Format(
    "trl",
    "TRL, Unsloth: data and config",
    "Conversations where the trainer makes the scored tokens of them, else those tokens.",
    _write,
    count_lines,
)
