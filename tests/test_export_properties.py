"""Whatever is chosen, decided and corrected, of whatever texts: an export holds that, no more."""

import csv
import json
import tempfile
from collections import Counter
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
from grads.errors import ExportError, GradsError, RunError
from grads.export.write import FORMATS
from grads.jobs.job import Job
from grads.selection.options import SelectionConfig
from grads.selection.weights import sampling_weights
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


def score(run: Run, seed: int, **given: list[float]) -> list[int]:
    """Give a prepared run scores by chance, but for columns that are given; its samples' ids."""
    samples = run.read_table(run.samples_file, ["sample_id", "prompt_tokens", "response_tokens"])
    rng, count = np.random.default_rng(seed), len(samples)
    names = ("loss", "embed_grad_norm", "head_grad_norm", "grad_dot")
    measured = {name: rng.uniform(0.1, 2, count).astype(np.float32) for name in names}
    measured |= {name: np.array(values[:count], np.float32) for name, values in given.items()}
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


# -- every row by its weight

MOST = 9
SIZES = st.lists(
    st.sampled_from([1e-30, 1e-3, 0.9, 1.0, 1.1, 2.0, 1e3, 1e30]), min_size=MOST, max_size=MOST
)
WEIGHED = st.fixed_dictionaries(
    {"count": st.integers(1, MOST), "seed": st.integers(0, 9)},
    optional={
        "criterion": st.sampled_from(["grads", "density", "random"]),
        "signal": st.sampled_from(["l2", "embed", "both"]),
        "draw": st.sampled_from(["sample", "top"]),
        "focus": st.floats(-3, 3),
        "typicality": st.floats(0, 3),
        "bounds": st.just([{"column": "embed_grad_norm", "high": 1.0}]),
    },
)


@dataclass
class Weighed:
    """A run with a selection `mine` to export by weight, and what it says of single samples."""

    run: Run
    ids: list[int]
    pins: set[int]
    excluded: set[int]


def weighed(folder: Path, model: Path, choice: dict, *, sizes: list[float], said: list) -> Weighed:
    data = folder / "d.jsonl"
    rows = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(len(said))]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = {"dataset": str(data), "model": str(model), "heldout": 0, "max_length": LENGTH}
    run = Run.create(api.RunConfig.parse(told), folder / "run")
    preparing.prepare(Job(run))
    ids = score(run, choice["seed"], embed_grad_norm=sizes, head_grad_norm=sizes[::-1])
    by = {what: {i for i in ids if said[i] == what} for what in ("pin", "exclude")}
    named = {"pins": sorted(by["pin"]), "excluded": sorted(by["exclude"])}
    try:
        api.select_samples(run, "mine", SelectionConfig.parse(choice | named))
    except GradsError:  # nothing is left to choose from, or more is pinned than there may be
        assume(False)
    return Weighed(run, ids, by["pin"], by["exclude"])


SAID = st.lists(st.sampled_from([None, None, "pin", "exclude"]), min_size=1, max_size=MOST)


@given(choice=WEIGHED, sizes=SIZES, said=SAID)
@settings(max_examples=60, suppress_health_check=SLOW, deadline=None)
def test_weights_are_shares_of_what_may_be_drawn(folders, choice, sizes, said):  # noqa: F811
    with tempfile.TemporaryDirectory() as place:
        made = weighed(Path(place), folders["chatml"], choice, sizes=sizes, said=said)
        manifest = api.export_selection(made.run, "mine", "parquet", weights="sample")
        table = pq.read_table(Path(manifest["path"]) / "mine.parquet")
        weights = dict(zip(made.ids, table["grads_weight"].to_pylist(), strict=True))
        assert sum(weights.values()) == pytest.approx(1)
        assert all(0 <= weight <= 1 for weight in weights.values())
        assert all(weights[i] == 0 for i in made.excluded)
        assert all(weights[i] > 0 for i in made.pins)


@given(choice=WEIGHED, sizes=SIZES, said=SAID, rows=st.none() | st.integers(1, 40))
@settings(max_examples=60, suppress_health_check=SLOW, deadline=None)
def test_rows_stand_there_as_often_as_their_weight_asks_for(
    folders,  # noqa: F811
    choice,
    sizes,
    said,
    rows,
):
    with tempfile.TemporaryDirectory() as place:
        made = weighed(Path(place), folders["chatml"], choice, sizes=sizes, said=said)
        wanted = len(made.ids) if rows is None else rows
        if wanted < len(made.pins):
            with pytest.raises(ExportError, match="do not hold"):
                api.export_selection(made.run, "mine", "jsonl", weights="repeat", rows=rows)
            return
        manifest = api.export_selection(made.run, "mine", "jsonl", weights="repeat", rows=rows)
        data = Path(manifest["path"]) / "mine.jsonl"
        before = data.read_bytes()
        asked = Counter(json.loads(line)["question"] for line in before.splitlines())
        assert asked.total() == manifest["rows"] == wanted
        options = api.read_record(made.run, "mine").options
        share = sampling_weights(api.load_pool(made.run), options).share
        for i, weight in zip(made.ids, share, strict=True):
            times, exact = asked[f"q{i}"], weight * (wanted - len(made.pins)) + (i in made.pins)
            assert exact - 1 < times < exact + 1
            assert times >= (i in made.pins)
            assert not (times and i in made.excluded)
        api.export_selection(made.run, "mine", "jsonl", weights="repeat", rows=rows)
        assert data.read_bytes() == before
