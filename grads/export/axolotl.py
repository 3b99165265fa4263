"""Axolotl: conversations, or the tokens that were scored.

Axolotl renders conversations by the model's template and trains the words of each answer and the
token that ends it. That is what was scored where every answer is just its words and one such token;
otherwise (tool calls, reasoning, plain texts, or where its reader would change the texts) the rows
are the scored tokens.
"""

from pathlib import Path
from typing import Any

import yaml

from grads.config.run import RunConfig
from grads.data.turns import Turn
from grads.export.exact import frame, reads_as_control, scored
from grads.export.inferred import dump_alike
from grads.export.rows import Format, Subset, count_lines, dump_lines, token_table, write_text
from grads.export.settings import brings_none, is_text, lora_alpha, model_name, write_template


def _plain(turn: Turn) -> bool:
    return not (turn.reasoning or turn.tool_calls or turn.role == "tool")


def _ending(subset: Subset) -> str | None:
    """The token that ends every answer; None where the trained text is not words and a token."""
    conversations, rows = subset.conversations(), scored(subset)
    if rows is None or subset.template is None or is_text(subset) or subset.tools:
        return None
    plain = all(_plain(turn) for c in conversations for turn in c.turns)
    if not plain or reads_as_control(subset):
        return None
    found = frame(rows, conversations)
    if found is None or found.opening or not found.closing:
        return None
    one_token = all(found.closing in row.pieces for row in rows if row.whole)
    return found.closing if one_token else None


def _rows(subset: Subset, end: str | None) -> list[dict[str, Any]] | None:
    """The rows as text; None where Axolotl would train other tokens of them than were scored."""
    if end is None and subset.tokens is not None:
        return None
    if is_text(subset):
        return [{"text": turns[0]["content"]} for turns in subset.turns]
    return subset.messages()


def _write(subset: Subset, path: Path, config: RunConfig) -> None:
    source: dict[str, Any] = {"path": path.name, "ds_type": "json"}
    settings: dict[str, Any] = {
        "base_model": model_name(config),
        "datasets": [source],
        "sequence_len": config.max_length,
        "excess_length_strategy": "truncate",
        "micro_batch_size": config.batch_size,
        "gradient_accumulation_steps": 1,
        "learning_rate": config.learning_rate,
        "num_epochs": config.epochs,
        "optimizer": "adamw_torch",
        "lr_scheduler": "cosine",
        "seed": config.seed,
        "output_dir": "output",
    }
    end = _ending(subset)
    rows = _rows(subset, end)
    if rows is None or not dump_alike(subset.with_scores(rows), path):
        source["type"] = "completion"
        dump_lines(subset.with_scores(token_table(subset).to_pylist()), path)
    elif is_text(subset):
        source |= {"type": "completion", "field": "text"}
    else:
        source |= {
            "type": "chat_template",
            "field_messages": "messages",
            "message_field_training": "train",
            "roles_to_train": ["assistant"],
            "train_on_eos": "turn",
        }
        if end and subset.template and end != subset.template.marks.get("eos_token"):
            settings["eot_tokens"] = [end]
    if brings_none(subset) and subset.template:
        own = {
            "chat_template": "jinja",
            "chat_template_jinja": write_template(subset.template.source, path),
        }
        settings |= own  # what the trained model will have
        if source["type"] == "chat_template":
            source |= own  # what its rows are written with
    if config.warmup != "full":
        settings |= {
            "adapter": "lora",
            "lora_r": config.lora_rank,
            "lora_alpha": lora_alpha(config),
            "lora_target_linear": True,
        }
    note = "# Run in this folder: axolotl train axolotl.yaml\n"
    write_text(path.with_name("axolotl.yaml"), note + yaml.safe_dump(settings, sort_keys=False))


FORMAT = Format(
    "axolotl",
    "Axolotl: data and config",
    "Conversations where the trainer makes the scored tokens of them, else those tokens.",
    _write,
    count_lines,
)
