"""A selection -> files a trainer reads, and their manifest. Each is loaded back and counted.

Rows come in source order. From a line format, `jsonl` gives the source's lines back byte for
byte; the run keeps them, so the source may be gone. The three trainer formats carry the
conversations as `messages` with a config beside them.
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from grads.config.run import DEMO_HUB_ID, DEMO_MODEL, RunConfig
from grads.errors import ExportError
from grads.store.files import replacing

csv.field_size_limit(2**31 - 1)  # the default of 128 KB is less than one long document
SCORE_PREFIX = "grads_"  # of the score columns that --with-scores adds
FILE_FORMATS = ("jsonl", "csv", "parquet")
FORMATS = (*FILE_FORMATS, "hf", "llamafactory", "trl", "axolotl")


@dataclass(frozen=True)
class Subset:
    """The chosen samples, in source order, all columns of one length."""

    name: str
    lines: list[bytes] | None  # the source's own lines, where it has lines
    rows: list[dict[str, Any]]
    table: pa.Table | None  # the rows with their own types, where the source has types
    turns: list[list[dict[str, str]]]
    scores: list[dict[str, Any]] | None  # to add, with --with-scores

    def __len__(self) -> int:
        return len(self.rows)

    def scored_rows(self) -> list[dict[str, Any]]:
        """Rows as objects, with the scores where asked for."""
        return self._with_scores(self.rows)

    def messages(self) -> list[dict[str, Any]]:
        """Conversations as trainers read them, with the scores where asked for."""
        return self._with_scores([{"messages": turns} for turns in self.turns])

    def _with_scores(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if self.scores is None:
            return rows
        return [
            row | {SCORE_PREFIX + key: value for key, value in score.items()}
            for row, score in zip(rows, self.scores, strict=True)
        ]


def export(
    subset: Subset,
    kind: str,
    out: Path,
    config: RunConfig,
    manifest: dict[str, Any],
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write `subset` as `kind` to `out`, check it, and return the manifest written beside it.

    `out` is a file for jsonl, csv and parquet where it has that suffix, and otherwise a folder.
    Raises ExportError if it exists (unless `overwrite`) or does not load back as it should.
    """
    if kind not in FORMATS:
        raise ExportError(f"unknown format '{kind}': use one of {', '.join(FORMATS)}")
    if out.exists() and not overwrite:
        raise ExportError(f"{out} exists already: give another --out, or remove it first")
    manifest = manifest | {"format": kind, "rows": len(subset)}
    try:
        _write_and_check(subset, kind, out, config, manifest)
    except (OSError, ValueError, TypeError, OverflowError, csv.Error, pa.ArrowException) as error:
        raise ExportError(f"cannot write {kind} to {out}: {error}") from error
    return manifest


def _write_and_check(
    subset: Subset, kind: str, out: Path, config: RunConfig, manifest: dict[str, Any]
) -> None:
    """Write data and manifest beside their place, and move them there once they load back."""
    as_file = kind in FILE_FORMATS and out.suffix == f".{kind}"
    with replacing(out) as draft:
        folder = draft.parent if as_file else draft
        folder.mkdir(parents=True, exist_ok=True)
        data = draft if as_file else folder / data_name(kind, subset.name)
        _WRITERS[kind](subset, data, config)
        count = READERS[kind](data)
        if count != len(subset):
            raise ExportError(f"{out} loads back as {count} rows, {len(subset)} were chosen")
        manifest["sha256"] = file_digest(data) if data.is_file() else None
        if not as_file:
            _write_text(folder / "manifest.json", json.dumps(manifest, indent=2))
    if as_file:
        with replacing(out.with_name(out.name + ".manifest.json")) as draft:
            _write_text(draft, json.dumps(manifest, indent=2))


def data_name(kind: str, name: str) -> str:
    """Name of the data file (or, for hf, folder) inside an export's folder."""
    if kind == "hf":
        return "dataset"
    return f"{name}.{kind}" if kind in FILE_FORMATS else "train.jsonl"


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_text(path: Path, text: str) -> None:
    path.write_text(text if text.endswith("\n") else text + "\n", encoding="utf-8")


def _dump_lines(rows: list[dict[str, Any]], path: Path) -> None:
    lines = [json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8", newline="")


def _write_jsonl(subset: Subset, path: Path, config: RunConfig) -> None:
    if subset.lines is None or subset.scores is not None:
        _dump_lines(subset.scored_rows(), path)
        return
    with path.open("wb") as file:
        for number, line in enumerate(subset.lines):
            last = number == len(subset.lines) - 1
            file.write(line if last or line.endswith(b"\n") else line + b"\n")


def _write_csv(subset: Subset, path: Path, config: RunConfig) -> None:
    rows = subset.scored_rows()
    names = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for row in rows:
            writer.writerow({key: _cell(value) for key, value in row.items()})


def _cell(value: Any) -> Any:
    """A value as CSV holds it: lists and objects as JSON."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value


def _table(subset: Subset) -> pa.Table:
    """The rows with their own types where the source had them, else as Arrow infers them."""
    if subset.table is not None:
        table = subset.table
        for key in subset.scores[0] if subset.scores else ():
            values = [score[key] for score in subset.scores or ()]
            name = SCORE_PREFIX + key
            if name in table.column_names:  # of an earlier export
                table = table.drop_columns([name])
            table = table.append_column(name, pa.array(values))
        return table
    rows = subset.scored_rows()
    columns = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # mixed kinds, huge integers
            columns[name] = pa.array(
                [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
            )
    return pa.table(columns)


def _write_parquet(subset: Subset, path: Path, config: RunConfig) -> None:
    pq.write_table(_table(subset), path)


def _write_hf(subset: Subset, path: Path, config: RunConfig) -> None:
    from datasets import Dataset

    Dataset(_table(subset)).save_to_disk(str(path))


def _write_llamafactory(subset: Subset, path: Path, config: RunConfig) -> None:
    _dump_lines(subset.messages(), path)
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
    _write_text(path.with_name("dataset_info.json"), text)


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
    _dump_lines(rows, path)
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
    _write_text(path.with_name("trl.yaml"), note + yaml.safe_dump(settings, sort_keys=False))


def _write_axolotl(subset: Subset, path: Path, config: RunConfig) -> None:
    _dump_lines(subset.messages(), path)
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
    _write_text(path.with_name("axolotl.yaml"), note + yaml.safe_dump(settings, sort_keys=False))


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(isinstance(json.loads(line), dict) for line in file if line.strip())


def _count_csv(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    return sum(1 for _ in csv.DictReader(io.StringIO(text, newline="")))


def _count_hf(path: Path) -> int:
    from datasets import load_from_disk

    return len(load_from_disk(str(path)))


_WRITERS: dict[str, Callable[[Subset, Path, RunConfig], None]] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "parquet": _write_parquet,
    "hf": _write_hf,
    "llamafactory": _write_llamafactory,
    "trl": _write_trl,
    "axolotl": _write_axolotl,
}
READERS: dict[str, Callable[[Path], int]] = {
    "jsonl": _count_lines,
    "csv": _count_csv,
    "parquet": lambda path: int(pq.read_metadata(path).num_rows),
    "hf": _count_hf,
    "llamafactory": _count_lines,
    "trl": _count_lines,
    "axolotl": _count_lines,
}
