"""LLaMA-Factory: conversations with their entry, the scored tokens, and a config to train those.

LLaMA-Factory writes conversations out by templates of its own, in pieces, and trains the line
break behind an answer too; it has none for a model without template. So the config has it train the
tokens that were scored. The conversations beside them are for other models: of the same rows, in
the order that it demands (a question, an answer, and so on), which some rows do not have.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from grads.config.run import RunConfig
from grads.data.layouts import Conversation
from grads.data.turns import Turn, Unusable
from grads.export.inferred import dump_texts
from grads.export.order import by_turns
from grads.export.rows import Format, Subset, count_lines, dump_lines, token_table, write_text
from grads.export.settings import brings_none, is_text, lora_alpha, model_name, write_template

TOKENS_NAME = "tokens"
TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "function_call",
    "system_tag": "system",
}


def _fit(row: Conversation) -> Conversation:
    """By turns; a turn that both answers and calls tools has no place."""
    row = by_turns(row)
    if any(turn.tool_calls and turn.content for turn in row.turns):
        raise Unusable("a turn both answers and calls tools", "split it")
    return row


def _said(turn: Turn) -> dict[str, str]:
    """A turn as LLaMA-Factory reads it: reasoning and calls are text."""
    if turn.tool_calls:
        calls = [call["function"] for call in json.loads(turn.tool_calls)]
        said = {"role": "function_call", "content": json.dumps(calls, ensure_ascii=False)}
    else:
        said = {"role": turn.role, "content": turn.content}
    if turn.reasoning:
        said["content"] = f"<think>\n{turn.reasoning}\n</think>\n\n{said['content']}"
    return said


def _write(subset: Subset, path: Path, config: RunConfig) -> None:
    conversations, texts = subset.conversations(), is_text(subset)
    tools = any(c.tools for c in conversations)
    rows: list[dict[str, Any]] = []
    for c in conversations:
        row = {"text": c.turns[0].content} if texts else {"messages": [_said(t) for t in c.turns]}
        rows.append(row | ({"tools": json.dumps(c.tools) if c.tools else ""} if tools else {}))
    if subset.tokens is None:  # which are trained where they are there
        dump_texts(subset.with_scores(rows), path)
    else:
        dump_lines(subset.with_scores(rows), path)
    entry: dict[str, Any] = {"file_name": path.name}
    if texts:
        entry["columns"] = {"prompt": "text"}
    else:
        columns = {"messages": "messages"} | ({"tools": "tools"} if tools else {})
        entry |= {"formatting": "sharegpt", "columns": columns, "tags": TAGS}
    write_text(path.with_name("dataset_info.json"), json.dumps({subset.name: entry}, indent=2))
    if subset.tokens is not None:
        _write_tokens(subset, path.with_name(TOKENS_NAME))
    if brings_none(subset) and subset.template:
        write_template(subset.template.source, path)
    note, settings = _settings(subset, config, texts)
    text = note + yaml.safe_dump(settings, sort_keys=False)
    write_text(path.with_name("llamafactory.yaml"), text)


def _write_tokens(subset: Subset, path: Path) -> None:
    from datasets import Dataset, DatasetDict

    DatasetDict({"train": Dataset(token_table(subset))}).save_to_disk(str(path))


def _settings(subset: Subset, config: RunConfig, texts: bool) -> tuple[str, dict[str, Any]]:
    exact = subset.tokens is not None
    settings: dict[str, Any] = {
        "model_name_or_path": model_name(config),
        "stage": "pt" if texts and not exact else "sft",
        "do_train": True,
        "finetuning_type": "full" if config.warmup == "full" else "lora",
        "dataset_dir": ".",
        "dataset": subset.name,
        "cutoff_len": config.max_length,
        "per_device_train_batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "num_train_epochs": config.epochs,
        "lr_scheduler_type": "cosine",
        "seed": config.seed,
        "output_dir": "output",
    }
    if config.warmup != "full":
        settings |= {
            "lora_rank": config.lora_rank,
            "lora_alpha": lora_alpha(config),
            "lora_target": "all",
        }
    answers = [[t for t in c.turns if t.role == "assistant"] for c in subset.conversations()]
    weighted = any(not turn.trained for turns in answers for turn in turns)
    if weighted and not any(turn.trained for turns in answers for turn in turns[:-1]):
        settings["mask_history"] = True  # of the conversations; the tokens know by themselves
    note = "# Run in this folder: llamafactory-cli train llamafactory.yaml\n"
    if exact:
        settings |= {"tokenized_path": TOKENS_NAME, "template": "empty"}
        note += (
            "# It trains the tokens that were scored. For another model, remove tokenized_path\n"
            "# and name that model's template: the conversations are then written anew.\n"
        )
    return note, settings


FORMAT = Format(
    "llamafactory",
    "LLaMA-Factory: data and config",
    "The scored tokens with a config that trains them, and conversations for other models.",
    _write,
    count_lines,
    fit=_fit,
)
