"""A chosen subset as files: bytes, types, trainer configs, manifests, refusals."""

import csv
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from chain import PATIENCE, ROOT

from grads.config.run import RunConfig
from grads.errors import ExportError
from grads.export.rows import Subset
from grads.export.write import FORMATS, export

ALONE = [name for name, form in FORMATS.items() if form.alone]
LINES = [
    b'{"question" : "a, b?",   "answer":"caf\\u00e9", "n": 1}\r\n',
    '  {"answer":"咖啡\u2028", "question":"x\\ny", "n": 2.50, "t": ["a", {"b": null}]}\n'.encode(),
    b'{"n":1e3,"question":"\\"q\\"","answer":"z"}\n',
]
SCORES = [{"sample_id": 3 * i, "loss": 0.5 + i} for i in range(3)]
TABLE = pa.table(
    {
        "at": pa.array([datetime(2024, 1, i + 1) for i in range(3)], pa.timestamp("ms")),
        "small": pa.array([1, None, 3], pa.int16()),
        "text": pa.array(["a", "b", None]).dictionary_encode(),
        "many": pa.array([[1.5], [], None], pa.list_(pa.float32())),
    }
)


def single(i: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"a{i}"}]


def multi(i: int) -> list[dict[str, str]]:
    return [{"role": "system", "content": "s"}, *single(i), *single(i + 10)]


def lines_subset(**changes) -> Subset:
    rows = [json.loads(line) for line in LINES]
    turns = [single(i) for i in range(3)]
    subset = Subset(name="mine", lines=LINES, rows=rows, table=None, turns=turns, scores=None)
    return replace(subset, **changes)


def typed_subset(**changes) -> Subset:
    return lines_subset(**({"lines": None, "rows": TABLE.to_pylist(), "table": TABLE} | changes))


def rows_subset(rows: list[dict], **changes) -> Subset:
    turns = [single(i) for i in range(len(rows))]
    return lines_subset(**({"lines": None, "rows": rows, "turns": turns} | changes))


def config(**values) -> RunConfig:
    settings = {"dataset": "data.jsonl", "model": "org/model", "max_length": 77, "lora_rank": 5}
    return RunConfig.parse(settings | values)


def write(subset: Subset, kind: str, out: Path, **values) -> Path:
    """Export, and the path of the data."""
    export(subset, kind, out, config(**values), manifest={"selection": subset.name})
    return out if out.is_file() else out / FORMATS[kind].data_name.format(name=subset.name)


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def read_csv(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def without_scores(row: dict) -> dict:
    return {key: value for key, value in row.items() if not key.startswith("grads_")}


# -- data files


def test_jsonl_is_the_sources_bytes(tmp_path):
    out = write(lines_subset(), "jsonl", tmp_path / "out.jsonl")
    assert out.read_bytes() == b"".join(LINES)


def test_jsonl_adds_a_newline_only_where_a_next_line_needs_it(tmp_path):
    lines = [LINES[0].rstrip(), LINES[1], LINES[2].rstrip()]
    out = write(lines_subset(lines=lines), "jsonl", tmp_path / "out.jsonl")
    assert out.read_bytes() == lines[0] + b"\n" + lines[1] + lines[2]


def test_a_second_files_byte_order_mark_does_not_come_between_the_rows(tmp_path):
    mark = b"\xef\xbb\xbf"
    lines = [mark + LINES[0], LINES[1], mark + LINES[2]]
    out = write(lines_subset(lines=lines), "jsonl", tmp_path / "out.jsonl")
    assert out.read_bytes() == lines[0] + LINES[1] + LINES[2]


def test_jsonl_from_a_source_without_lines(tmp_path):
    rows = [{"b": "é\n,", "a": None}, {"a": [1, {"c": True}]}]
    out = write(rows_subset(rows), "jsonl", tmp_path / "out.jsonl")
    assert [list(row.items()) for row in read_lines(out)] == [list(row.items()) for row in rows]
    assert "é".encode() in out.read_bytes()


def test_jsonl_from_a_typed_source_writes_dates_as_text(tmp_path):
    rows = read_lines(write(typed_subset(), "jsonl", tmp_path / "out.jsonl"))
    assert [row["at"] for row in rows] == [f"2024-01-0{i} 00:00:00" for i in (1, 2, 3)]
    assert [row["small"] for row in rows] == [1, None, 3]


def test_scores_are_added_to_jsonl_and_nothing_else_changes(tmp_path):
    subset = lines_subset(scores=SCORES)
    rows = read_lines(write(subset, "jsonl", tmp_path / "out.jsonl"))
    assert [list(without_scores(row).items()) for row in rows] == [
        list(row.items()) for row in subset.rows
    ]
    assert [(row["grads_sample_id"], row["grads_loss"]) for row in rows] == [
        (0, 0.5),
        (3, 1.5),
        (6, 2.5),
    ]


def test_scores_are_added_to_csv_and_nothing_else_changes(tmp_path):
    plain = read_csv(write(lines_subset(), "csv", tmp_path / "plain.csv"))
    scored = read_csv(write(lines_subset(scores=SCORES), "csv", tmp_path / "scored.csv"))
    assert [without_scores(row) for row in scored] == plain
    assert [float(row["grads_loss"]) for row in scored] == [0.5, 1.5, 2.5]


def test_scores_are_added_to_parquet_and_nothing_else_changes(tmp_path):
    out = write(typed_subset(scores=SCORES), "parquet", tmp_path / "out.parquet")
    table = pq.read_table(out)
    assert table.select(TABLE.column_names).equals(TABLE)
    assert table.column_names == [*TABLE.column_names, "grads_sample_id", "grads_loss"]
    assert table["grads_loss"].to_pylist() == [0.5, 1.5, 2.5]


def test_scores_replace_those_of_an_earlier_export(tmp_path):
    table = TABLE.append_column("grads_loss", pa.array([9.0, 9.0, 9.0]))
    subset = typed_subset(table=table, rows=table.to_pylist(), scores=SCORES)
    written = pq.ParquetFile(write(subset, "parquet", tmp_path / "out.parquet")).read()
    assert sorted(written.column_names) == sorted({*table.column_names, "grads_sample_id"})
    assert written["grads_loss"].to_pylist() == [0.5, 1.5, 2.5]


def test_csv_round_trip(tmp_path):
    nested = ["é", {"k": None}]
    rows = [{"a": 'x, "y"\r\nz', "b": "1"}, {"a": "", "c": nested}, {"a": "ü\n\n", "b": " "}]
    read = read_csv(write(rows_subset(rows), "csv", tmp_path / "out.csv"))
    assert list(read[0]) == ["a", "b", "c"]
    assert [row["a"] for row in read] == [row["a"] for row in rows]
    assert [row["b"] for row in read] == ["1", "", " "]
    assert json.loads(read[1]["c"]) == nested
    assert read[0]["c"] == ""


def test_csv_writes_dates_inside_lists_as_text(tmp_path):
    rows = [{"when": [datetime(2024, 1, 1)]}, {"when": []}, {"when": None}]
    read = read_csv(write(rows_subset(rows), "csv", tmp_path / "out.csv"))
    assert [row["when"] for row in read] == ['["2024-01-01 00:00:00"]', "[]", ""]


def test_csv_takes_a_long_document_in_a_fresh_process(tmp_path):
    """Python's own limit is 128 KB a field; only reading a source lifts it."""
    code = (
        "import sys; from pathlib import Path; from grads.config.run import RunConfig\n"
        "from grads.export.rows import Subset; from grads.export.write import export\n"
        "rows = [{'text': 'x' * 200_000}]\n"
        "subset = Subset('mine', None, rows, None, [[]], None)\n"
        "config = RunConfig(dataset='data.jsonl')\n"
        "print(export(subset, 'csv', Path(sys.argv[1]), config, manifest={})['rows'])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "out.csv")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr


def test_parquet_keeps_the_sources_types(tmp_path):
    table = pq.read_table(write(typed_subset(), "parquet", tmp_path / "out.parquet"))
    assert table.schema.equals(TABLE.schema)
    assert table.equals(TABLE)


def test_parquet_infers_types_and_writes_mixed_kinds_as_text(tmp_path):
    rows = [
        {"n": 1, "mixed": 1, "deep": {"a": 1}},
        {"mixed": "one", "deep": [1]},
        {"n": 3, "mixed": None, "deep": None},
    ]
    table = pq.read_table(write(rows_subset(rows), "parquet", tmp_path / "out.parquet"))
    assert table["n"].to_pylist() == [1, None, 3]
    assert table["mixed"].to_pylist() == ["1", "one", None]
    assert table["deep"].to_pylist() == ['{"a": 1}', "[1]", None]


@pytest.mark.parametrize("kind", ["parquet", "hf"])
def test_numbers_beyond_64_bits_become_text(tmp_path, kind):
    rows = [{"id": 2**70}, {"id": 1}]
    data = write(rows_subset(rows), kind, tmp_path / "out")
    if kind == "parquet":
        assert pq.read_table(data)["id"].to_pylist() == [str(2**70), "1"]
    else:
        from datasets import load_from_disk

        assert load_from_disk(str(data))["id"][:] == [str(2**70), "1"]


@pytest.mark.parametrize("scores", [None, SCORES])
def test_hf_loads_with_its_types(tmp_path, scores):
    from datasets import load_from_disk

    data = load_from_disk(str(write(typed_subset(scores=scores), "hf", tmp_path / "out")))
    assert len(data) == 3
    assert data.features["small"].dtype == "int16"
    assert data["at"][:] == TABLE["at"].to_pylist()
    assert ("grads_loss" in data.column_names) == (scores is not None)


# -- trainers


def test_llamafactory_names_the_file_and_the_tags(tmp_path):
    data = write(lines_subset(turns=[multi(i) for i in range(3)]), "llamafactory", tmp_path / "out")
    info = json.loads((data.parent / "dataset_info.json").read_text(encoding="utf-8"))["mine"]
    assert data.parent / info["file_name"] == data
    assert info["formatting"] == "sharegpt"
    column, tags = info["columns"]["messages"], info["tags"]
    for i, row in enumerate(read_lines(data)):
        turns = [(turn[tags["role_tag"]], turn[tags["content_tag"]]) for turn in row[column]]
        assert turns == [(turn["role"], turn["content"]) for turn in multi(i)]
    assert [tags[f"{who}_tag"] for who in ("user", "assistant", "system")] == [
        "user",
        "assistant",
        "system",
    ]


def parse_as_trl(folder: Path, monkeypatch):
    """(script, training, model, mixture) settings as `trl sft --config trl.yaml` reads them."""
    from trl.scripts.sft import make_parser

    monkeypatch.chdir(folder)
    return make_parser().parse_args_and_config(["--config", "trl.yaml", "--use_cpu"])


def load_json(path: Path, monkeypatch):
    from datasets import load_dataset

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", path.parent.parent / "cache")
    return load_dataset("json", data_files=str(path))["train"]


def test_trl_reads_its_config(tmp_path, monkeypatch):
    data = write(lines_subset(), "trl", tmp_path / "out", lr=3e-5, epochs=2, seed=9, batch_size=6)
    _, training, model, _ = parse_as_trl(data.parent, monkeypatch)
    assert training.max_length == 77
    assert training.learning_rate == 3e-5
    assert training.num_train_epochs == 2
    assert training.per_device_train_batch_size == 6
    assert training.seed == 9
    assert model.model_name_or_path == "org/model"
    assert model.use_peft
    assert (model.lora_r, model.lora_alpha, model.lora_target_modules) == (5, 10, "all-linear")


def test_trl_trains_all_parameters_after_a_full_warmup(tmp_path, monkeypatch):
    data = write(lines_subset(), "trl", tmp_path / "out", warmup="full")
    _, training, model, _ = parse_as_trl(data.parent, monkeypatch)
    assert not model.use_peft
    assert training.learning_rate == 2e-5


def test_trl_gets_single_turns_as_prompt_and_completion(tmp_path, monkeypatch):
    turns = [single(0), multi(1)[:3], single(2)]
    data = write(lines_subset(turns=turns, scores=SCORES), "trl", tmp_path / "out")
    rows = load_json(data, monkeypatch)
    columns = {"prompt", "completion", "grads_sample_id", "grads_loss"}
    assert set(rows.column_names) == columns
    assert rows["prompt"][:] == [conversation[:-1] for conversation in turns]
    assert rows["completion"][:] == [conversation[-1:] for conversation in turns]
    training = parse_as_trl(data.parent, monkeypatch)[1]
    assert training.completion_only_loss
    assert not training.assistant_only_loss


def test_trl_gets_several_turns_as_messages(tmp_path, monkeypatch):
    turns = [single(0), multi(1), single(2)]
    data = write(lines_subset(turns=turns), "trl", tmp_path / "out")
    rows = load_json(data, monkeypatch)
    assert rows.column_names == ["messages"]
    assert rows["messages"][:] == turns
    training = parse_as_trl(data.parent, monkeypatch)[1]
    assert training.assistant_only_loss
    assert not training.completion_only_loss


def test_trl_finds_the_data_from_its_config(tmp_path, monkeypatch):
    """Loaded as trl/scripts/sft.py does it, in the export's folder."""
    from datasets import load_dataset
    from trl import get_dataset

    data = write(lines_subset(), "trl", tmp_path / "out")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    script, _, _, mixture = parse_as_trl(data.parent, monkeypatch)
    found = get_dataset(mixture) if mixture.datasets else load_dataset(script.dataset_name)
    assert found["train"].num_rows == 3
    assert found["train"].column_names == ["prompt", "completion"]


def test_axolotl_config_names_the_data(tmp_path):
    data = write(lines_subset(), "axolotl", tmp_path / "out", lr=3e-5)
    settings = yaml.safe_load((data.parent / "axolotl.yaml").read_text(encoding="utf-8"))
    (source,) = settings["datasets"]
    assert data.parent / source["path"] == data
    assert [row[source["field_messages"]] for row in read_lines(data)] == lines_subset().turns
    assert source["roles_to_train"] == ["assistant"]
    assert settings["base_model"] == "org/model"
    assert settings["sequence_len"] == 77
    assert settings["learning_rate"] == 3e-5
    assert (settings["adapter"], settings["lora_r"], settings["lora_alpha"]) == ("lora", 5, 10)


def model_in_config(folder: Path, kind: str) -> str:
    settings = yaml.safe_load((folder / f"{kind}.yaml").read_text(encoding="utf-8"))
    return settings["model_name_or_path" if kind == "trl" else "base_model"]


@pytest.mark.parametrize("kind", ["trl", "axolotl"])
def test_trainers_are_told_where_the_demo_model_is(tmp_path, kind):
    """By its public name: they know nothing of the bundled package, nor of this machine's files."""
    data = write(lines_subset(), kind, tmp_path / "out", model="demo")
    assert model_in_config(data.parent, kind) == "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.mark.parametrize("kind", ["trl", "axolotl"])
def test_trainers_find_a_local_model_from_the_exports_folder(tmp_path, kind, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    data = write(lines_subset(), kind, tmp_path / "out", model="./model")
    found = data.parent / model_in_config(data.parent, kind)
    assert found.resolve() == (tmp_path / "model").resolve()


# -- manifests


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("count", [1, 3])
def test_every_format_writes_a_manifest(tmp_path, kind, count):
    subset = typed_subset(rows=TABLE.to_pylist()[:count], table=TABLE.slice(0, count))
    subset = replace(subset, turns=subset.turns[:count])
    out = tmp_path / "deep" / "out"
    returned = export(subset, kind, out, config(), manifest={"selection": "mine"})
    assert json.loads((out / "manifest.json").read_text(encoding="utf-8")) == returned
    assert returned["selection"] == "mine"
    assert (returned["format"], returned["rows"]) == (kind, count)
    data = out / FORMATS[kind].data_name.format(name="mine")
    assert FORMATS[kind].count(data) == count
    digest = None if kind == "hf" else hashlib.sha256(data.read_bytes()).hexdigest()
    assert returned["sha256"] == digest  # hf writes a folder, which has no digest of its own
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ALONE)
def test_a_file_has_its_manifest_beside_it(tmp_path, kind):
    out = tmp_path / f"out.{kind}"
    returned = export(lines_subset(), kind, out, config(), manifest={})
    beside = tmp_path / f"out.{kind}.manifest.json"
    assert sorted(tmp_path.iterdir()) == [out, beside]
    assert json.loads(beside.read_text(encoding="utf-8")) == returned
    assert returned["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert (returned["format"], returned["rows"]) == (kind, 3)


# -- refusals and failures


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ExportError, match="unknown format 'xml'"):
        write(lines_subset(), "xml", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_an_existing_target_is_refused_and_left_alone(tmp_path, kind):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    with pytest.raises(ExportError, match="exists already"):
        write(lines_subset(), kind, out)
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine.txt"]
    assert (out / "mine.txt").read_text() == "precious"


def test_an_existing_file_is_refused_and_left_alone(tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("precious")
    with pytest.raises(ExportError, match="exists already"):
        write(lines_subset(), "jsonl", out)
    assert list(tmp_path.iterdir()) == [out]
    assert out.read_text() == "precious"


def test_overwriting_replaces_a_file(tmp_path):
    out = tmp_path / "out.jsonl"
    write(rows_subset([{"old": 1}]), "jsonl", out)
    export(lines_subset(), "jsonl", out, config(), manifest={}, overwrite=True)
    assert out.read_bytes() == b"".join(LINES)
    manifest = json.loads((tmp_path / "out.jsonl.manifest.json").read_text(encoding="utf-8"))
    assert manifest["rows"] == 3


def test_overwriting_replaces_a_folder_as_a_whole(tmp_path):
    out = tmp_path / "out"
    write(lines_subset(), "trl", out)
    export(lines_subset(), "axolotl", out, config(), manifest={}, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == [
        "axolotl.yaml",
        "manifest.json",
        "train.jsonl",
    ]


def test_a_target_below_a_file_is_an_export_error(tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(ExportError):
        write(lines_subset(), "jsonl", tmp_path / "file" / "out.jsonl")
    assert (tmp_path / "file").read_text() == "precious"


def break_writer(monkeypatch, kind: str) -> None:
    def half(subset, path, config):
        if path.suffix:
            path.write_bytes(b'{"half": ')
        else:
            path.mkdir()
        raise OSError("disk full")

    monkeypatch.setitem(FORMATS, kind, replace(FORMATS[kind], write=half))


def break_reader(monkeypatch, kind: str) -> None:
    monkeypatch.setitem(FORMATS, kind, replace(FORMATS[kind], count=lambda path: 2))


PROBLEMS = [(break_writer, "disk full"), (break_reader, "2 rows, 3 were chosen")]
TARGETS = [*((kind, "out") for kind in FORMATS), *((kind, f"out.{kind}") for kind in ALONE)]


@pytest.mark.parametrize(("spoil", "message"), PROBLEMS)
@pytest.mark.parametrize(("kind", "name"), TARGETS)
def test_a_failed_export_leaves_nothing_behind(tmp_path, monkeypatch, kind, name, spoil, message):
    spoil(monkeypatch, kind)
    with pytest.raises(ExportError, match=message):
        write(lines_subset(), kind, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("spoil", "message"), PROBLEMS)
@pytest.mark.parametrize("name", ["out", "out.jsonl"])
def test_a_failed_overwrite_keeps_the_earlier_export(tmp_path, monkeypatch, name, spoil, message):
    write(lines_subset(), "jsonl", tmp_path / name)
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    spoil(monkeypatch, "jsonl")
    with pytest.raises(ExportError, match=message):
        export(lines_subset(), "jsonl", tmp_path / name, config(), manifest={}, overwrite=True)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before
