"""Data sets read block by block: the same as at once, with little of them in memory."""

import gzip
import json
import os
import random
import tracemalloc
from itertools import chain as chains

import chain
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from test_data import PLAIN

from grads.config.run import RunConfig
from grads.data import json_rows
from grads.data.layouts import Layout
from grads.data.prepare import prepare as prepare_at_once
from grads.data.reading import DataFile
from grads.data.rows import BLOCK, Part, found, in_parts
from grads.data.sources import open_source, read_source
from grads.data.stream import Stream
from grads.data.tokens import TokenPool
from grads.engine import models
from grads.errors import DataError, Stopped
from grads.jobs.job import Job
from grads.stages import loading, preparing, row_parts
from grads.stages.preparing import prepare
from grads.stages.row_parts import RowParts
from grads.store.files import SINGLE_SAMPLES, read_batches, write_table, write_tables
from grads.store.runs import Run

ROWS = 2 * BLOCK + 300
LAYOUT = Layout("question/answer", {"prompt": "question", "response": "answer"})


def line(i):
    """Rows whose other columns change their kinds from block to block."""
    row = {"question": f"What is {i}?", "answer": f"It is {i}.", "n": i, "none": None}
    row["share"] = i if i < BLOCK else i + 0.5
    row["mixed"] = i if i < 2 * BLOCK else "text"
    if i > BLOCK:
        row["late"] = True
    if i == BLOCK + 7:
        row["list"] = [1]
    if i % 500 == 123:
        return "{broken\n"
    if i == BLOCK + 50:
        row["answer"] = ""
    if i == BLOCK + 51:
        row["question"] = "What is </s>?"
    return "\n" if i == 99 else json.dumps(row) + "\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("stream") / "d.jsonl"
    path.write_text("".join(map(line, range(ROWS))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    chain.save_tiny_model(folder)
    return folder


def run_of(path, data, model, **settings):
    return Run.create(RunConfig(dataset=str(data), model=str(model), **settings), path)


def keep(run, one):
    """Write what was prepared at once as the stage would."""
    tokens = one.tokens if any(one.tokens["spelled"].to_pylist()) else one.tokens.drop("spelled")
    write_table(run.samples_file, one.samples, SINGLE_SAMPLES)
    write_table(run.tokens_file, tokens, SINGLE_SAMPLES)
    if one.source is not None:
        write_table(run.source_file, one.source)
    run.write_rejects(one.rejects)


def contents(run):
    names = ("samples_file", "tokens_file", "source_file", "rejects_file")
    files = [getattr(run, name) for name in names]
    return [file.read_bytes() for file in files if file.exists()]


# -- reading


def test_nothing_behind_the_limit_is_asked_for():
    def items():
        yield from (found(i, None, {"a": i}) for i in range(3))
        raise OSError("read too far")

    (part,) = in_parts(items(), 3)
    assert part.ids == [0, 1, 2]
    with pytest.raises(OSError, match="too far"):
        list(in_parts(items(), 4))


@pytest.mark.parametrize("suffix", ["jsonl.gz", "csv.gz", "parquet"])
def test_damage_behind_the_limit_is_not_come_to(tmp_path, suffix):
    rng = random.Random(0)
    rows = [{"question": rng.randbytes(40).hex(), "answer": "b"} for _ in range(9 * BLOCK)]
    path = tmp_path / f"d.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=BLOCK)
        place = pq.read_metadata(path).row_group(8).column(0).data_page_offset
        whole = path.read_bytes()
        path.write_bytes(whole[:place] + bytes(1000) + whole[place + 1000 :])
    else:
        head = "question,answer\n" if suffix.startswith("csv") else ""
        texts = (f"{r['question']},b\n" if head else json.dumps(r) + "\n" for r in rows)
        packed = gzip.compress((head + "".join(texts)).encode())
        path.write_bytes(packed[: len(packed) // 2])
    few = read_source(RunConfig(dataset=str(path), limit=7))
    assert [row["question"] for row in few.rows] == [row["question"] for row in rows[:7]]
    with pytest.raises(DataError, match=r"cut short|not a readable Parquet"):
        read_source(RunConfig(dataset=str(path)))


@pytest.mark.parametrize(
    "text",
    [
        '{"data": [\n{"question": "a", "answer": "b"},\n{"question": "c", "answer": "d"}\n]}',
        '{"question": "a",\n"answer": "b"}\n{"question": "c",\n"answer": "d"}\n',
        '{"question": "a" "answer": "b"}\n{"question": "c", "answer": "d"}\n',
        '{"question": "a, "answer": "b"}\n{"question": "c", "answer": "d"}\n',
        '{"question": "' + "long " * 50 + '", "answer": "b"\n}\n',
    ],
)
def test_what_a_file_holds_is_told_by_as_much_as_it_takes(tmp_path, monkeypatch, text):
    """However little of a first value that goes on is read at first."""
    path = tmp_path / "d.json"
    path.write_text(text, encoding="utf-8")
    (expected,) = json_rows.read_json(DataFile.of(path), None)
    monkeypatch.setattr(json_rows, "BEGINNING", 16)
    (part,) = json_rows.read_json(DataFile.of(path), None)
    assert part == expected


@pytest.mark.parametrize("of", ["the user's", "a run's"])
def test_a_parquet_file_leaves_memory_as_it_is_read(tmp_path, of):
    """Arrow's reader keeps all that it has read until its end, unless it is told otherwise."""
    rng, path = random.Random(0), tmp_path / "d.parquet"
    rows = [{"question": rng.randbytes(500).hex(), "answer": "b"} for _ in range(24 * BLOCK)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=BLOCK, compression="none")
    del rows
    if of == "a run's":
        blocks = read_batches(path)
    else:
        blocks = open_source(RunConfig(dataset=str(path))).blocks()
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    held = [
        pa.total_allocated_bytes() - before + tracemalloc.get_traced_memory()[0] for _ in blocks
    ]
    tracemalloc.stop()
    assert max(held) < path.stat().st_size / 3


def test_blocks_are_the_rows_in_order(data):
    """Alike in what they have beside: their lines, and what is drawn."""
    whole = read_source(RunConfig(dataset=str(data)))
    stream = open_source(RunConfig(dataset=str(data)))
    blocks = list(stream.blocks())
    assert [block.count for block in blocks] == [BLOCK, BLOCK, ROWS - 1 - 2 * BLOCK]
    for name in ("ids", "rows", "raw", "lines", "broken"):
        found_there = chains.from_iterable(getattr(block, name) for block in blocks)
        assert list(found_there) == getattr(whole, name)
    told = (stream.count, stream.columns, stream.name, stream.digest)
    assert told == (whole.count, whole.columns, whole.name, whole.digest)
    config = RunConfig(dataset=str(data), subsample=40)
    drawn = [block.ids for block in open_source(config).blocks()]
    assert list(chains.from_iterable(drawn)) == read_source(config).ids


# -- the stage


@pytest.mark.parametrize("kind", ["lines", "typed"])
def test_many_blocks_give_the_files_of_one(tmp_path, data, model, kind):
    """Bit by bit, rows refused by their numbers and columns of changing kinds included."""
    if kind == "typed":
        rows = [row for row in read_source(RunConfig(dataset=str(data))).rows if "list" not in row]
        same = [row | {"mixed": str(row["mixed"]), "share": float(row["share"])} for row in rows]
        data = tmp_path / "d.parquet"
        pq.write_table(pa.Table.from_pylist(same), data)
    run = run_of(tmp_path / "run", data, model, subsample=ROWS - 200)
    prepare(Job(run))
    config = run.config()
    tokenizer = models.load_tokenizer(config.model)
    one = prepare_at_once(read_source(config), config, tokenizer, config.max_length)
    at_once = Run.create(config, tmp_path / "at_once")
    keep(at_once, one)
    assert contents(run) == contents(at_once)
    manifest = run.read_manifest()
    assert manifest.unused_columns == one.unused
    assert manifest.counts.usable + manifest.counts.refused == manifest.counts.rows
    if kind == "lines":
        later = [reject for reject in run.read_rejects() if reject["sample_id"] > BLOCK]
        assert {r["line"] - 1 for r in later} == {r["sample_id"] for r in later} >= {2123}
    assert not run.row_parts.exists()


def test_the_pool_is_every_sample_that_is_not_held_out(tmp_path, data, model):
    run = run_of(tmp_path / "run", data, model, limit=1500, heldout=200)
    prepare(Job(run))
    heldout = run.read_table(run.samples_file, ["heldout"])["heldout"]
    table = run.read_table(run.tokens_file).filter(pc.invert(heldout))
    expected, pool = TokenPool.from_table(table), loading.load_pool(run)
    for name in ("sample_ids", "offsets", "input_ids", "trained"):
        np.testing.assert_array_equal(getattr(pool, name), getattr(expected, name))
    assert pool.lengths is pool.lengths, "they are asked for at every batch"
    some = pool.subset(np.array([7, 3]))
    assert some.collate(np.array([1]))[0].tolist() == pool.collate(np.array([3]))[0].tolist()


class Counted(dict):
    """A row that tells how many of its kind are alive."""

    alive = most = 0

    def __init__(self, *args):
        super().__init__(*args)
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)

    def __del__(self):
        Counted.alive -= 1


def test_no_more_rows_are_alive_than_some_blocks_hold(tmp_path, model, monkeypatch):
    size, count = 20, 30

    def read(limit):
        for start in range(0, size * count, size):
            part = Part(size=start)
            for i in range(start, start + size):
                part.add(found(i, i + 1, Counted({"question": f"{i}?", "answer": "a", "n": i})))
            yield part

    monkeypatch.setattr(
        preparing, "open_source", lambda config: Stream("d", {"d": read}, lambda: "x", config)
    )
    run = run_of(tmp_path / "run", tmp_path / "d.jsonl", model)
    prepare(Job(run))
    assert run.read_manifest().counts.usable == size * count
    assert 0 < Counted.most <= 4 * size


def test_a_job_that_ends_between_blocks_goes_on_from_there(tmp_path, data, model, monkeypatch):
    whole, broken_off = (run_of(tmp_path / name, data, model) for name in ("whole", "off"))
    prepare(Job(whole))
    job = Job(broken_off)
    monkeypatch.setattr(job, "should_stop", lambda: any(broken_off.row_parts.glob("part-00001*")))
    with pytest.raises(Stopped):
        prepare(job)
    made = []
    tokenise = row_parts.tokenise
    monkeypatch.setattr(
        row_parts, "tokenise", lambda block, *a, **k: made.append(block) or tokenise(block, *a, **k)
    )
    prepare(Job(broken_off))
    assert [block.ids[0] // BLOCK for block in made] == [2]
    assert contents(broken_off) == contents(whole)


def test_data_that_change_while_they_are_read_are_told(tmp_path, model, monkeypatch):
    data = tmp_path / "d.jsonl"
    data.write_text(line(1) + line(2), encoding="utf-8")
    merge = preparing._merge
    monkeypatch.setattr(
        preparing, "_merge", lambda *a, **k: data.write_text(line(1)) and merge(*a, **k)
    )
    run = run_of(tmp_path / "run", data, model)
    with pytest.raises(DataError, match="changed while it was read"):
        prepare(Job(run))
    assert run.read_manifest().source.digest is None


def parts_of(folder, tokenizer, made_from="a"):
    folder.mkdir(exist_ok=True)
    return RowParts(folder, made_from, LAYOUT, tokenizer, 64)


def test_parts_made_from_something_else_and_damaged_ones_are_missing(tmp_path, data):
    parts = parts_of(tmp_path / "rows", PLAIN)
    block = next(open_source(RunConfig(dataset=str(data), limit=30)).blocks())
    parts.make(0, block, lambda done: None)
    assert parts.holds(0)
    assert not parts.holds(1)
    assert not parts_of(tmp_path / "rows", PLAIN, "b").holds(0)
    (file,) = parts.folder.iterdir()
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)
    assert not parts.holds(0)


@pytest.mark.job
def test_several_processes_make_the_parts_of_one(tmp_path, data, model):
    tokenizer = models.load_tokenizer(str(model))
    alone, together = (parts_of(tmp_path / name, tokenizer) for name in ("alone", "together"))
    for parts, processes in ((alone, 1), (together, 2)):
        blocks = open_source(RunConfig(dataset=str(data))).blocks()
        done = list(parts.made(blocks, processes, lambda done: None))
        assert [number for number, _ in done] == [0, 1, 2]
    for number in range(3):
        assert together.read(number) == alone.read(number)


class Deadly:
    """A tokenizer that ends its process without a word, as the system does."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        os._exit(9)


@pytest.mark.job
def test_a_process_that_is_killed_is_told(tmp_path, data):
    blocks = open_source(RunConfig(dataset=str(data))).blocks()
    with pytest.raises(DataError, match="was killed"):
        list(parts_of(tmp_path / "rows", Deadly()).made(blocks, 2, lambda done: None))


@pytest.mark.parametrize("step", [77, 1000, 2500])
def test_a_table_that_comes_in_pieces_is_the_file_of_the_whole(tmp_path, step):
    whole = pa.table({"n": range(2500), "texts": [[str(i)] * (i % 5) for i in range(2500)]})
    write_table(tmp_path / "whole", whole, 1000)
    pieces = (whole.slice(start, step) for start in range(0, 2500, step))
    write_tables(tmp_path / "pieces", pieces, 1000)
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()
