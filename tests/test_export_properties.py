"""Whatever is chosen, decided and corrected, of whatever texts: an export holds that, no more."""

import csv
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_export_trainers import folders  # noqa: F401, a fixture

from grads import api
from grads.errors import RunError
from grads.export.write import FORMATS
from grads.jobs.job import Job
from grads.selection.options import SelectionConfig
from grads.stages import preparing
from grads.store.files import write_json, write_table
from grads.store.runs import Run
from grads.text import for_spreadsheet

READ_AS_FILES = ("jsonl", "csv", "parquet", "hf", "openai", "torchtune")
LENGTH = 512
SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]

LETTERS = st.text(st.characters(exclude_categories=["Cs", "Co"]), min_size=1, max_size=12)
ODD = [
    "=1+1",
    "a,b\r\nc",
    '"',
    "\u2028x",
    "x\ufeff",
    "</s>",
    "<|im_end|>",
    "{{ x }}",
    "\\n",
    "心脏",
]
TEXTS = st.one_of(st.sampled_from(ODD), LETTERS).filter(str.strip)


@dataclass(frozen=True)
class Row:
    """A row of the data, and what becomes of it after the selection was saved."""

    question: str
    answer: str
    decision: str | None
    correction: str | None


ROWS = st.lists(
    st.builds(
        Row, TEXTS, TEXTS, st.sampled_from([None, None, "pin", "exclude"]), st.none() | TEXTS
    ),
    min_size=2,
    max_size=7,
)
CHOICES = st.fixed_dictionaries(
    {
        "ratio": st.floats(0.01, 1.0),
        "criterion": st.sampled_from(["random", "loss_high", "longest"]),
        "seed": st.integers(0, 9),
    }
)


@dataclass
class Chosen:
    """A run with a selection, and by sample what an export is to hold of each row."""

    run: Run
    rows: dict[int, dict]
    lines: dict[int, bytes]
    """Of those that nobody has corrected."""


def chosen(folder: Path, model: Path, rows: list[Row], choice: dict) -> Chosen:
    data = folder / "d.jsonl"
    values = [
        {"question": row.question, "answer": row.answer, "n": i} for i, row in enumerate(rows)
    ]
    lines = [
        json.dumps(row, ensure_ascii=i % 2 == 0).encode() + b"\n" for i, row in enumerate(values)
    ]
    data.write_bytes(b"".join(lines))
    told = {"dataset": str(data), "model": str(model), "heldout": 0, "max_length": LENGTH}
    run = Run.create(api.RunConfig.parse(told), folder / "run")
    preparing.prepare(Job(run))
    ids = score(run, choice["seed"])
    api.select_samples(run, "mine", SelectionConfig.parse(choice))
    table = api.read_selection(run, "mine")[1]
    kept = set(table.filter(table["kept"])["sample_id"].to_pylist())
    said = {i: rows[i].decision for i in ids if rows[i].decision}
    api.decide_all(run, [(decision, i) for i, decision in said.items()])
    for i in ids:
        if rows[i].correction is not None:
            try:
                api.correct(run, i, ("answer",), rows[i].correction)
            except RunError:  # it is that already, or could not be used
                continue
            values[i], lines[i] = values[i] | {"answer": rows[i].correction}, b""
    excluded = {i for i in said if said[i] == "exclude"}
    holds = sorted((kept | {i for i in said if said[i] == "pin"}) - excluded)
    assume(holds)
    return Chosen(run, {i: values[i] for i in holds}, {i: lines[i] for i in holds if lines[i]})


def score(run: Run, seed: int) -> list[int]:
    """Give a prepared run scores by chance; the ids of its samples."""
    samples = run.read_table(run.samples_file, ["sample_id", "prompt_tokens", "response_tokens"])
    rng, count = np.random.default_rng(seed), len(samples)
    names = ("loss", "embed_grad_norm", "head_grad_norm", "grad_dot")
    measured = {name: rng.uniform(0.1, 2, count).astype(np.float32) for name in names}
    columns = {name: samples[name] for name in samples.column_names} | measured
    write_table(run.scores_file, pa.table(columns | {"truncated": np.zeros(count, bool)}))
    features = {
        "sample_id": samples["sample_id"],
        "feature": pa.FixedSizeListArray.from_arrays(pa.array(rng.normal(size=count)), 1),
        "cluster": np.zeros(count, np.int32),
        "duplicate_group": np.full(count, -1),
    }
    write_table(run.features_file, pa.table(features))
    write_json(run.clusters_file, {"clusters": [{"cluster": 0, "size": count, "terms": ["a"]}]})
    return samples["sample_id"].to_pylist()


def read_back(kind: str, out: Path) -> list[dict]:
    """The rows of an export, by the reader of their kind."""
    data = out / FORMATS[kind].data_name.format(name="mine")
    if kind == "csv":
        with data.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    if kind == "parquet":
        return pq.read_table(data).to_pylist()
    if kind == "hf":
        from datasets import load_from_disk

        return load_from_disk(str(data)).to_list()
    return [json.loads(line) for line in data.read_bytes().splitlines()]


def as_read(kind: str, row: dict) -> dict:
    """A row as `read_back` gives it."""
    if kind == "csv":
        return {name: str(for_spreadsheet(value)) for name, value in row.items()}
    if kind in ("openai", "torchtune"):
        said = zip(("user", "assistant"), (row["question"], row["answer"]), strict=True)
        return {"messages": [{"role": role, "content": text} for role, text in said]}
    return row


@pytest.mark.parametrize("kind", READ_AS_FILES)
@given(rows=ROWS, choice=CHOICES)
@settings(max_examples=10, suppress_health_check=SLOW)
def test_an_export_holds_the_chosen_rows_and_no_others(folders, kind, rows, choice):  # noqa: F811
    with tempfile.TemporaryDirectory() as place:
        made = chosen(Path(place), folders["chatml"], rows, choice)
        manifest = api.export_selection(made.run, "mine", kind)
        gone = {row["sample_id"] for row in manifest["refused"]}
        expected = [as_read(kind, row) for i, row in made.rows.items() if i not in gone]
        out = Path(manifest["path"])
        assert read_back(kind, out) == expected
        assert manifest["rows"] == len(expected)
        if kind == "jsonl":
            written = (out / "mine.jsonl").read_bytes().splitlines(keepends=True)
            for line, i in zip(written, made.rows, strict=True):
                assert line == made.lines.get(i, line)
