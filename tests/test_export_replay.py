"""Exports with general rows mixed in: counts, layouts, origins, and what trainers make of them."""

import itertools
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_dirs import DEMO, demo_run, kept_ids
from test_export_trainers import (
    folders,  # noqa: F401, a fixture
    no_caches,  # noqa: F401, a fixture
)
from test_export_weights import TRAINERS
from trained import LENGTH, SETS, ours, row_of, subset_of, tokenizer_of

from grads import api
from grads.config.run import RunConfig
from grads.data.prepare import prepare
from grads.data.replay import draw_rows, replay_count
from grads.data.sources import Source, read_source
from grads.errors import ExportError, GradsError, RunError
from grads.export.replay import Replay, mixed
from grads.export.write import FORMATS, changed_lines, export

GENERAL = DEMO / "general.jsonl"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return demo_run(tmp_path_factory.mktemp("replay"))


def replay_of(file, tokenizer, share, **values):
    config = RunConfig.parse({"dataset": str(file), **values})
    source = read_source(config)
    roles = {"prompt": "question", "response": "answer"}
    return Replay(source, prepare(source, config, tokenizer, LENGTH), roles, share, seed=0)


@pytest.fixture
def rows_file(tmp_path):
    def made(*rows, name="general.jsonl"):
        file = tmp_path / name
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return file

    return made


PAIR = [{"instruction": f"general {i}?", "output": f"yes, {i}."} for i in range(9)]


# -- how many, and which


@pytest.mark.parametrize(
    ("samples", "share", "count"), [(90, 0.1, 10), (30, 0.25, 10), (3, 0.01, 1)]
)
def test_the_share_is_of_the_result(samples, share, count):
    assert replay_count(samples, share) == count


def test_a_draw_is_the_seeds_without_replacement_and_nests():
    small, large = draw_rows(40, 8, 3).tolist(), draw_rows(40, 20, 3).tolist()
    assert len(set(large)) == 20
    assert set(small) < set(large)
    assert draw_rows(40, 8, 3).tolist() == small != draw_rows(40, 8, 4).tolist()
    assert sorted(draw_rows(5, 8, 3).tolist()) == list(range(5))


# -- the demo run, of lines with question and answer


def test_lines_keep_their_bytes_and_general_rows_take_the_layout(run, tmp_path):
    """A quarter of the result: 10 rows beside 30, evenly between them."""
    out = tmp_path / "out.jsonl"
    manifest = api.export_selection(
        run, "grads-10", "jsonl", out, replay=str(GENERAL), replay_share=0.25
    )
    lines = out.read_bytes().splitlines(keepends=True)
    source = (DEMO / "medical_qa.jsonl").read_bytes().splitlines(keepends=True)
    own = [source[i] for i in kept_ids(run, "grads-10")]
    assert manifest["rows"] == len(lines) == 40
    assert [line for line in lines if line in own] == own
    general = [json.loads(line) for line in lines if line not in own]
    about = manifest["replay"]
    asked = [json.loads(line) for line in GENERAL.read_bytes().splitlines()]
    expected = [asked[i] for i in about["drawn"]]
    joined = [
        "\n\n".join(part for part in (row["instruction"], row.get("input")) if part)
        for row in expected
    ]
    assert [row["question"] for row in general] == joined
    assert [row["answer"] for row in general] == [row["output"] for row in expected]
    assert {k: about[k] for k in ("name", "share", "wanted", "rows", "refused")} == {
        "name": "general.jsonl",
        "share": 0.25,
        "wanted": 10,
        "rows": 10,
        "refused": [],
    }
    assert about["digest"] == read_source(RunConfig(dataset=str(GENERAL))).digest
    places = [i for i, line in enumerate(lines) if line not in own]
    gaps = [b - a for a, b in itertools.pairwise(places)]
    assert set(gaps) <= {3, 4, 5}, "evenly between the others"
    assert changed_lines(manifest) == ["replay: 10 rows of general.jsonl, 25.0% of all"]
    assert json.loads((tmp_path / "out.jsonl.manifest.json").read_text())["replay"] == about


def test_a_file_of_the_same_layout_keeps_its_lines(run, tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_bytes(b'{"answer":"b",  "question" : "a", "more": 1}\n')
    out = tmp_path / "out.jsonl"
    api.export_selection(run, "grads-10", "jsonl", out, replay=str(file), replay_share=0.01)
    assert out.read_bytes().count(file.read_bytes()) == 1


def test_too_few_rows_are_all_taken_with_a_warning(run, rows_file, tmp_path):
    out, file = tmp_path / "out.csv", rows_file(*PAIR, {"instruction": "", "output": "x"})
    manifest = api.export_selection(
        run, "grads-10", "csv", out, with_scores=True, replay=str(file), replay_share=0.5
    )
    assert manifest["rows"] == 30 + 9
    assert manifest["replay"]["drawn"] == list(range(9))
    replayed, warning, left_out = changed_lines(manifest)
    assert replayed == "replay: 9 rows of general.jsonl, 23.1% of all"
    assert warning == "warning: general.jsonl has no more usable rows; 30 make 50%"
    assert left_out.startswith("left out of general.jsonl: 1 row, as row 9: ")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_holds_both(run, kind, tmp_path):
    manifest = api.export_selection(
        run, "grads-10", kind, tmp_path / "out", replay=str(GENERAL), replay_share=0.1
    )
    data = tmp_path / "out" / FORMATS[kind].data_name.format(name="grads-10")
    assert FORMATS[kind].count(data) == manifest["rows"] == 33


def test_the_share_is_of_repeated_rows_too(run):
    manifest = api.export_selection(
        run, "grads-10", "jsonl", weights="repeat", rows=180, replay=str(GENERAL), replay_share=0.1
    )
    assert manifest["rows"] == 200
    assert manifest["path"] == str(run.exports / "grads-10" / "jsonl-repeat-replay")
    assert manifest["weights"]["pool"] == 300


def test_scores_of_general_rows_are_unknown(run):
    values = {"replay": str(GENERAL), "replay_share": 0.1, "with_scores": True}
    api.export_selection(run, "grads-10", "parquet", **values)
    file = run.exports / "grads-10" / "parquet-replay" / "grads-10.parquet"
    assert pq.read_table(file)["grads_loss"].null_count == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replay": "a.jsonl"}, "replay is a.jsonl, its share None: give a file, and a share"),
        ({"replay_share": 0.1}, "replay is None, its share 0.1"),
        ({"replay": "a.jsonl", "replay_share": 1.0}, "its share 1.0"),
        ({"replay": "a.jsonl", "replay_share": 0.1, "weights": "sample"}, "do not go together"),
    ],
)
def test_what_makes_no_sense_is_refused(run, values, message):
    with pytest.raises(ExportError, match=message):
        api.export_selection(run, "grads-10", "jsonl", **values)


def test_another_tokenizer_than_the_runs_is_refused(tmp_path):
    run = demo_run(tmp_path)
    tokenizer_of("chatml").save_pretrained(tmp_path / "model")
    values = json.loads(run.config_file.read_text()) | {"model": str(tmp_path / "model")}
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
    run.config_file.write_text(json.dumps(values))
    with pytest.raises(RunError, match=r"tokenizer of the model .* is not the one that run demo"):
        api.export_selection(run, "grads-10", "jsonl", replay=str(GENERAL), replay_share=0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no file at"),
        ('{"ask": "a", "say": "b"}\n', "the columns of odd.jsonl, ask, say, are neither"),
        ("{\n", "none of the 1 rows of odd.jsonl can be used"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(run, tmp_path, text, message):
    file = tmp_path / "odd.jsonl"
    if text is not None:
        file.write_text(text)
    with pytest.raises(GradsError, match=message):
        api.export_selection(run, "grads-10", "jsonl", replay=str(file), replay_share=0.1)


# -- layouts


def test_rows_that_the_columns_have_no_place_for_are_left_out_of_plain_data(rows_file):
    """Of question and answer: a system turn, two rounds; but trainers' formats take them."""
    tokenizer = tokenizer_of("chatml")
    subset = subset_of(SETS["single turn"], tokenizer)
    short = [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "Yes."}]
    system = [{"role": "system", "content": "Be brief."}, *short]
    rows = ({"messages": turns} for turns in (short, system, short + short))
    replayed = replay_of(rows_file(*rows), tokenizer, 0.9)
    found, about = mixed(subset, replayed, FORMATS["jsonl"])
    assert about["drawn"] == [0]
    assert [row["sample_id"] for row in about["refused"]] == [1, 2]
    assert "no place for all of it" in about["refused"][0]["reason"]
    assert {"question": "Hm?", "answer": "Yes."} in found.rows
    _, about = mixed(subset, replayed, FORMATS["trl"])
    assert about["drawn"] == [0, 1, 2]


@pytest.mark.parametrize("layout", ["messages", "system"])
def test_other_layouts_have_a_place_for_more(rows_file, layout):
    tokenizer = tokenizer_of("chatml")
    subset = subset_of(SETS["single turn"], tokenizer)
    short = [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "Yes."}]
    system = [{"role": "system", "content": "Be brief."}, *short]
    replayed = replay_of(rows_file({"messages": system}), tokenizer, 0.5)
    roles = {
        "messages": {"messages": "conversations"},
        "system": {"prompt": "q", "response": "a", "system": "s"},
    }[layout]
    replayed = Replay(replayed.source, replayed.prepared, roles, 0.5, 0)
    found, _ = mixed(subset, replayed, FORMATS["jsonl"])
    expected = {
        "messages": {"conversations": system},
        "system": {"q": "Hm?", "a": "Yes.", "s": "Be brief."},
    }[layout]
    assert expected in found.rows


def test_types_of_the_source_are_kept(rows_file):
    tokenizer = tokenizer_of("chatml")
    subset = subset_of(SETS["single turn"], tokenizer)
    schema = pa.schema(
        [("question", pa.large_string()), ("answer", pa.string()), ("n", pa.int16())]
    )
    rows = [{"question": "q", "answer": "a", "n": 1}] * len(subset)
    table = pa.Table.from_pylist(rows, schema=schema)
    typed = replace(subset, table=table, rows=rows)
    found, about = mixed(typed, replay_of(rows_file(*PAIR), tokenizer, 0.5), FORMATS["parquet"])
    assert found.table.schema == schema
    assert about["rows"] == len(subset)
    assert found.table["n"].null_count == len(subset)
    assert found.table.to_pylist() == found.rows


def test_plain_texts_and_conversations_are_not_mixed(rows_file):
    tokenizer = tokenizer_of("chatml")
    subset = subset_of(SETS["single turn"], tokenizer)
    replayed = replay_of(rows_file({"text": "A text."}), tokenizer, 0.5, layout="text")
    with pytest.raises(
        ExportError, match=r"trl takes none of the rows of general\.jsonl: it is a plain text"
    ):
        mixed(subset, replayed, FORMATS["trl"])


# -- what trainers make of them


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", ["chatml", "no template", "qwen3"])
@pytest.mark.parametrize("kind", TRAINERS)
def test_trainers_train_general_rows_as_the_run_would_have_scored_them(
    tmp_path,
    monkeypatch,
    folders,  # noqa: F811
    kind,
    model,
):
    tokenizer = tokenizer_of(model)
    subset = subset_of(SETS["single turn"] * 4, tokenizer)
    rows = [row_of("several turns")] * 2
    config = RunConfig.parse({"dataset": "general"})
    source = Source("general", list(range(2)), rows, None, "digest")
    replayed = Replay(source, prepare(source, config, tokenizer, LENGTH), {}, 0.3, 0)
    values = {"dataset": "rows.jsonl", "model": str(folders[model]), "max_length": LENGTH}
    manifest = export(
        subset,
        kind,
        tmp_path / "out",
        RunConfig.parse(values | {"warmup": "full"}),
        manifest={},
        replayed=replayed,
    )
    assert manifest["replay"]["rows"] == 2
    found = TRAINERS[kind](tmp_path / "out", monkeypatch)
    mine, theirs = ours(subset), ours(subset_of(["several turns"], tokenizer))
    assert sorted(found) == sorted([*mine, *theirs, *theirs])
    assert [row for row in found if row not in theirs] == mine
