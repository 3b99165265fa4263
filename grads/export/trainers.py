"""Formats of trainers: conversations as `messages`, with a config that is ready to train."""

import json
from pathlib import Path
from typing import Any

import yaml

from grads.config.base import DEMO_HUB_ID, DEMO_MODEL
from grads.config.run import RunConfig
from grads.export.rows import Format, Subset, count_lines, dump_lines, write_text


def _write_llamafactory(subset: Subset, path: Path, config: RunConfig) -> None:
    dump_lines(subset.messages(), path)
    tags = {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    }
    entry = {
        "file_name": path.name,
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": tags,
    }
    text = json.dumps({subset.name: entry}, indent=2)
    write_text(path.with_name("dataset_info.json"), text)


def _model_name(config: RunConfig) -> str:
    """The model as a trainer finds it from the export's folder."""
    if config.model == DEMO_MODEL:
        return DEMO_HUB_ID
    path = Path(config.model).expanduser()
    return str(path.resolve()) if path.exists() else config.model


def _write_trl(subset: Subset, path: Path, config: RunConfig) -> None:
    """Single-turn data as prompt/completion, several turns as messages: only answers carry loss."""
    several = any(sum(t["role"] == "assistant" for t in turns) > 1 for turns in subset.turns)
    rows = subset.messages()
    if not several:
        for row in rows:
            turns = row.pop("messages")
            row |= {"prompt": turns[:-1], "completion": turns[-1:]}
    dump_lines(rows, path)
    settings: dict[str, Any] = {
        "model_name_or_path": _model_name(config),
        "datasets": [{"path": "json", "data_files": path.name}],
        "output_dir": "output",
        "max_length": config.max_length,
        "per_device_train_batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "num_train_epochs": config.epochs,
        "seed": config.seed,
    }
    settings |= {"assistant_only_loss": True} if several else {"completion_only_loss": True}
    if config.warmup != "full":
        settings |= {
            "use_peft": True,
            "lora_r": config.lora_rank,
            "lora_alpha": 2 * config.lora_rank,
            "lora_target_modules": ["all-linear"],
        }
    note = "# Run in this folder: trl sft --config trl.yaml\n"
    write_text(path.with_name("trl.yaml"), note + yaml.safe_dump(settings, sort_keys=False))


def _write_axolotl(subset: Subset, path: Path, config: RunConfig) -> None:
    dump_lines(subset.messages(), path)
    source = {
        "path": path.name,
        "ds_type": "json",
        "type": "chat_template",
        "field_messages": "messages",
        "roles_to_train": ["assistant"],
        "train_on_eos": "turn",
    }
    settings: dict[str, Any] = {
        "base_model": _model_name(config),
        "datasets": [source],
        "sequence_len": config.max_length,
        "micro_batch_size": config.batch_size,
        "gradient_accumulation_steps": 1,
        "learning_rate": config.learning_rate,
        "num_epochs": config.epochs,
        "optimizer": "adamw_torch",
        "lr_scheduler": "cosine",
        "seed": config.seed,
        "output_dir": "output",
    }
    if config.warmup != "full":
        settings |= {
            "adapter": "lora",
            "lora_r": config.lora_rank,
            "lora_alpha": 2 * config.lora_rank,
            "lora_target_linear": True,
        }
    note = "# Run in this folder: axolotl train axolotl.yaml\n"
    write_text(path.with_name("axolotl.yaml"), note + yaml.safe_dump(settings, sort_keys=False))


FORMATS = (
    Format("llamafactory", "LLaMA-Factory: data and config", _write_llamafactory, count_lines),
    Format("trl", "TRL: data and config", _write_trl, count_lines),
    Format("axolotl", "Axolotl: data and config", _write_axolotl, count_lines),
)
