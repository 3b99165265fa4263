"""Formats of plain data: the chosen rows as they are, in files and data sets."""

import codecs
import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from grads.config.run import RunConfig
from grads.export.rows import SCORE_PREFIX, Format, Subset, count_lines, dump_lines
from grads.text import for_spreadsheet

csv.field_size_limit(2**31 - 1)  # the default of 128 KB is less than one long document


def _write_jsonl(subset: Subset, path: Path, config: RunConfig) -> None:
    if subset.lines is None or subset.scores is not None:
        dump_lines(subset.scored_rows(), path)
        return
    with path.open("wb") as file:
        for number, line in enumerate(subset.lines):
            if number:  # the mark that opens a second file of the source is none in here
                line = line.removeprefix(codecs.BOM_UTF8)
            last = number == len(subset.lines) - 1
            file.write(line if last or line.endswith(b"\n") else line + b"\n")


def _write_csv(subset: Subset, path: Path, config: RunConfig) -> None:
    rows = subset.scored_rows()
    names = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([for_spreadsheet(name) for name in names])
        for row in rows:
            writer.writerow([for_spreadsheet(_cell(row.get(name, ""))) for name in names])


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


def _count_csv(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    return sum(1 for _ in csv.DictReader(io.StringIO(text, newline="")))


def _count_hf(path: Path) -> int:
    from datasets import load_from_disk

    return len(load_from_disk(str(path)))


def _count_parquet(path: Path) -> int:
    return int(pq.read_metadata(path).num_rows)


FORMATS = (
    Format(
        "jsonl",
        "JSONL: your rows as they were",
        "Every field of your file, a row a line.",
        _write_jsonl,
        count_lines,
        data_name="{name}.jsonl",
        alone=True,
        plain=True,
    ),
    Format(
        "csv",
        "CSV table",
        "Every field of your file as a column, for a spreadsheet: an apostrophe stands before what"
        " it would take for a formula. For training, JSONL and Parquet hold the rows as they were.",
        _write_csv,
        _count_csv,
        data_name="{name}.csv",
        alone=True,
        plain=True,
    ),
    Format(
        "parquet",
        "Parquet table",
        "Every field of your file as a column, types kept.",
        _write_parquet,
        _count_parquet,
        data_name="{name}.parquet",
        alone=True,
        plain=True,
    ),
    Format(
        "hf",
        "Hugging Face data set",
        "A folder that datasets loads from disk.",
        _write_hf,
        _count_hf,
        data_name="dataset",
        plain=True,
    ),
)
