"""A fuzzer over the readers: valid files of every kind, changed at random in bytes and structure.

    PYTHONPATH=.:tests python tests/fuzz_readers.py --minutes 10

Whatever a file holds, it is read and prepared, or refused by a GradsError; rows used and refused
are all rows, and no file takes long or much memory. Each is read twice, at once and as a job reads
it, in blocks of few rows: what a run then holds is the same byte for byte. What fails is printed
with its seed and its number, and `--seed S --case N` does that one again.
"""

import argparse
import gzip
import io
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
from test_data import CHAT, PLAIN
from test_stream import contents, keep

from grads.config.run import RunConfig
from grads.data import rows, tables
from grads.data.prepare import prepare
from grads.data.sources import read_source
from grads.engine import models
from grads.errors import GradsError
from grads.jobs.job import Job
from grads.stages import preparing
from grads.store.runs import Run

MOST_SECONDS = 120  # for a file of some hundred KB: far beyond any, on a loaded machine too
MOST_BYTES = 2 * 2**30  # by which the process may grow over a whole run
MAX_LENGTH = 64
SMALL = 3  # rows of a block

Rows = list[Any]
ROWS: list[Rows] = [
    [{"question": "What is 心脏?", "answer": f"It pumps {n}.", "n": n} for n in range(8)],
    [{"instruction": "Say", "input": "it", "output": "so", "history": [["a", "b"]]}] * 4,
    [
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Why, doctor?"},
                {"role": "assistant", "content": 'Rest,\n"then" drink.', "weight": 1},
            ]
        }
    ]
    * 5,
    [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}] * 3,
    [
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"function": {"name": "look", "arguments": '{"city": "Rome"}'}}],
                },
                {"role": "tool", "content": "Sunny.", "name": "look"},
                {"role": "assistant", "content": "It is sunny.", "reasoning_content": "Hm."},
            ],
            "tools": [{"type": "function", "function": {"name": "look"}}],
        }
    ]
    * 2,
    [{"text": "A plain text.", "source": "web", "score": 0.5}] * 6,
    [{"prompt": "a", "chosen": "b", "rejected": "c", "label": True}] * 3,
]
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    2**70,
    float("nan"),
    float("inf"),
    "",
    " ",
    "\0",
    "\ud800",
    "\ufeff",
    "\u202e",
    "</s>",
    "<|im_end|>",
    "\U000f0000",
    "x" * 20_000,
    "[",
    "[" * 3_000,
    "{}",
    "null",
    "=1+1",
    [],
    [None],
    [[]],
    [[["a"]]],
    {},
    {"": ""},
    {"role": "user"},
    ["a", "b"],
    b"\xff",
]
KEYS = [
    "",
    "messages",
    "role",
    "content",
    "question",
    "answer",
    "tools",
    "weight",
    "a.b",
    "...1",
    "sample_id",
    "label",
    "text",
    "images",
    "history",
    "system",
    "k" * 500,
]
PIECES = [
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xfe\xff",
    b"\0",
    b"\r",
    b"\n",
    b"\r\n",
    b'"',
    b'""',
    b",",
    b";",
    b"\t",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\\",
    b"\\ud800",
    b"NaN",
    b"1e999",
    b"\x80",
    b"\xc3",
    b"PAR1",
    b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd",
    b"PK\3\4",
    b"[" * 2_000,
    b'{"a":' * 500,
    b"9" * 5_000,
    b"",
]


@dataclass
class Case:
    """A file to be read, with settings; `rows` is how many it surely holds, where that is known."""

    name: str
    content: bytes
    settings: dict[str, Any]
    rows: int | None = None


# -- in structure


def _odd_rows(rng: random.Random) -> Rows:
    """Rows of one kind with some values, keys and rows of others in them."""
    rows = json.loads(json.dumps(rng.choice(ROWS))) * rng.choice([1, 3])
    for _ in range(rng.choice([0, 1, 1, 2, 4, 8])):
        place = rng.randrange(len(rows))
        if rng.random() < 0.1:
            rows[place] = rng.choice([*ODD[:-1], rng.choice(rng.choice(ROWS))])
        else:
            rows[place] = _changed(rows[place], rng)
    return rows


def _changed(value: Any, rng: random.Random) -> Any:
    """The value with one place in it another."""
    if rng.random() < 0.25 or not value or not isinstance(value, dict | list):
        return rng.choice(ODD[:-1])
    if isinstance(value, list):
        place = rng.randrange(len(value))
        kind = rng.random()
        if kind < 0.2:
            return value[:place] + value[place + 1 :]
        if kind < 0.4:
            return [*value, value[place]]
        return [*value[:place], _changed(value[place], rng), *value[place + 1 :]]
    key = rng.choice(list(value))
    if rng.random() < 0.3:
        renamed = {(rng.choice(KEYS) if k == key else k): v for k, v in value.items()}
        return renamed if rng.random() < 0.7 else {k: v for k, v in value.items() if k != key}
    return value | {key: _changed(value[key], rng)}


def _jsonl(rows: Rows, rng: random.Random) -> tuple[str, bytes, int | None]:
    end = rng.choice(["\n", "\r\n", "\n\n"])
    text = "".join(json.dumps(row, ensure_ascii=rng.random() < 0.5) + end for row in rows)
    return "d.jsonl", text.encode("utf-8", "surrogatepass"), None if "\ud800" in text else len(rows)


def _array(rows: Rows, rng: random.Random) -> tuple[str, bytes, int | None]:
    text = json.dumps(rows, indent=rng.choice([None, 0, 2]))
    return rng.choice(["d.json", "d.jsonl"]), text.encode(), len(rows)


def _under_a_key(rows: Rows, rng: random.Random) -> tuple[str, bytes, int | None]:
    return "d.json", json.dumps({"version": 1, "data": rows}).encode(), None


def _printed(rows: Rows, rng: random.Random) -> tuple[str, bytes, int | None]:
    text = "\n".join(json.dumps(row, indent=1) for row in rows)
    return "d.jsonl", text.encode(), None


def _csv(rows: Rows, rng: random.Random) -> tuple[str, bytes, int | None]:
    import csv

    rows = [row for row in rows if isinstance(row, dict)]
    names = list(dict.fromkeys(key for row in rows for key in row)) or ["question"]
    out, mark = io.StringIO(newline=""), rng.choice([",", ";", "\t"])
    writer = csv.writer(out, delimiter=mark, lineterminator=rng.choice(["\n", "\r\n"]))
    writer.writerow(names)
    for row in rows:
        writer.writerow([row.get(name, "") for name in names])
    name = "d.tsv" if mark == "\t" and rng.random() < 0.5 else "d.csv"
    return name, out.getvalue().encode("utf-8", "surrogatepass"), None


def _parquet(rows: Rows, rng: random.Random) -> tuple[str, bytes, int | None]:
    """Rows as far as they have a type in common; others become text."""
    rows = [row for row in rows if isinstance(row, dict)]
    names = list(dict.fromkeys(key for row in rows for key in row)) or ["question"]
    columns = []
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            column = pa.array(values)
            pq.write_table(pa.table({"x": column}), io.BytesIO())
        except (pa.ArrowException, TypeError, OverflowError, ValueError):
            column = pa.array([repr(value) for value in values])
        if pa.types.is_string(column.type) and rng.random() < 0.1:
            broken = [b"\xff\xfe" if v is None else v.encode()[1:] for v in column.to_pylist()]
            column = pa.array(broken, pa.binary()).view(pa.string())
        elif pa.types.is_string(column.type) and rng.random() < 0.2:
            column = column.dictionary_encode()
        elif pa.types.is_int64(column.type) and rng.random() < 0.3:
            kinds = [pa.timestamp("us"), pa.timestamp("ns", "UTC"), pa.duration("s"), pa.date64()]
            column = column.view(rng.choice(kinds))
        columns.append(column)
    out = io.BytesIO()
    packing = rng.choice(["snappy", "none", "zstd", "gzip"])
    table = pa.Table.from_arrays(columns, names)
    pq.write_table(table, out, compression=packing, use_dictionary=rng.random() < 0.5)
    return "d.parquet", out.getvalue(), len(rows) if names == sorted(set(names)) else None


WRITERS: list[Callable[[Rows, random.Random], tuple[str, bytes, int | None]]] = [
    _jsonl,
    _jsonl,
    _array,
    _under_a_key,
    _printed,
    _csv,
    _csv,
    _parquet,
    _parquet,
]


# -- in bytes


def _mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with some flipped, gone, doubled, or others among them."""
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        place = rng.randrange(len(data) + 1)
        end = min(len(data), place + rng.choice([1, 2, 8, 64, 1_000]))
        kind = rng.randrange(6)
        if kind == 0 and place < len(data):
            data = data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        elif kind == 1:
            data = data[:place] + data[end:]
        elif kind == 2:
            data = data[:end] + data[place:]
        elif kind == 3:
            data = data[:place] + rng.choice(PIECES) + data[place:]
        elif kind == 4:
            data = data[:place] + rng.randbytes(end - place) + data[end:]
        elif rng.random() < 0.3:
            data = data[:place]
    return data[:500_000]


def make(seed: int, number: int) -> Case:
    """The case of this number under this seed."""
    rng = random.Random(f"{seed}:{number}")
    name, data, rows = rng.choice(WRITERS)(_odd_rows(rng), rng)
    if rng.random() < 0.5:
        data, rows = _mutated(data, rng), None
    if rng.random() < 0.1 and name != "d.parquet":
        data, rows = (
            data.decode("utf-8", "replace").encode(rng.choice(["utf-16", "gbk"]), "replace"),
            None,
        )
    if rng.random() < 0.15:
        packed = gzip.compress(data, mtime=0)
        name, data = (name + ".gz", packed)
        if rng.random() < 0.3:
            data, rows = _mutated(data, rng), None
    if rng.random() < 0.03:
        name, rows = rng.choice(["d.csv", "d.json", "d.parquet", "d.jsonl.zst", "d.tsv"]), None
    settings: dict[str, Any] = {}
    for word, layout in ((b"A plain text", "text"), (b"rejected", "chosen")):
        if rng.random() < (0.8 if word in data else 0.03):
            settings["layout"] = layout
    if rng.random() < 0.2:
        settings["limit"], rows = rng.randint(1, 9), None
    if rng.random() < 0.1:
        roles = {"prompt": "question", "response": "answer"}
        settings["columns"] = rng.choice([roles, {"messages": "messages"}, {"text": "text"}])
    return Case(name, data, settings, rows)


# -- the check


@contextmanager
def _within(seconds: int) -> Iterator[None]:
    """Raises TimeoutError where it takes longer."""

    def late(number: int, frame: Any) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def grown() -> int:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def check(case: Case, folder: Path, number: int = 0) -> str:
    """How the case ends, in a word; raises whatever is no GradsError, or AssertionError."""
    path = folder / case.name
    path.write_bytes(case.content)
    config = RunConfig.parse({"dataset": str(path), "max_length": MAX_LENGTH} | case.settings)
    tokenizer = (PLAIN, CHAT)[number % 2]
    whole, blocks = (Run.create(config, folder / name) for name in ("whole", "blocks"))
    try:
        with _within(MOST_SECONDS):
            end = _ended(lambda: _at_once(case, whole, tokenizer))
        with _within(MOST_SECONDS):
            other = _ended(lambda: _by_blocks(blocks, tokenizer))
        # Damage behind a limit lies in the large block alone.
        if "limit" in case.settings and _of_parquet(end):
            return "refused as a whole"
        # Of several damages, Arrow may come upon another one first.
        assert other == end or (_of_parquet(other) and _of_parquet(end)), (
            f"in blocks {other!r}, at once {end!r}"
        )
        assert contents(blocks) == contents(whole), "blocks hold other rows"
        refused = whole.read_rejects()
    finally:
        path.unlink()
        for run in (whole, blocks):
            shutil.rmtree(run.path)
    if end:
        return "refused as a whole"
    return "some rows refused" if refused else "all rows used"


def _ended(work: Callable[[], object]) -> str:
    """The error that a user sees; nothing where there is none."""
    try:
        work()
    except GradsError as error:
        if "\n" in str(error) or len(str(error)) > 3_000:
            raise AssertionError("its error is no short line") from error
        return str(error)
    return ""


def _of_parquet(error: str) -> bool:
    return "is not a readable Parquet file" in error


def _at_once(case: Case, run: Run, tokenizer: Any) -> None:
    """All rows in memory, into the files of a run."""
    config, told = run.config(), list[Any]()
    source = read_source(config)
    if case.rows is not None:
        assert source.count == case.rows, f"{source.count} rows of {case.rows}"
    try:
        made = prepare(source, config, tokenizer, MAX_LENGTH, refused=told.append)
    except GradsError:
        run.write_rejects(told[0])  # as a job does even then
        raise
    used = made.samples["sample_id"].to_pylist()
    refused = [reject["row"] for reject in made.rejects]
    assert len(used) + len(refused) == source.count, "a row is lost"
    assert len({*used, *refused}) == source.count, "two rows have one number"
    assert told == [made.rejects]
    for reject in made.rejects:
        assert reject["reason"], "a row is refused without a reason"
        assert reject["advice"], "a row is refused without advice"
    assert made.source is None or len(made.source) == len(used)
    keep(run, made)


def _by_blocks(run: Run, tokenizer: Any) -> None:
    """As a job does, in blocks so small that most files have several."""
    with (
        patch.object(models, "load_tokenizer", lambda name: tokenizer),
        patch.object(models, "position_limit", lambda name: None),
        patch.object(rows, "BLOCK", SMALL),
        patch.object(tables, "BLOCK", SMALL),
    ):
        preparing.prepare(Job(run))


def main() -> None:
    """As many cases as the time allows; ends at the first that fails."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--case", type=int)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    ends: Counter[str] = Counter()
    begun, number, most = time.monotonic(), options.case or 0, grown()
    with tempfile.TemporaryDirectory() as folder:
        while options.case is not None or time.monotonic() - begun < 60 * options.minutes:
            started = time.monotonic()
            try:
                ends[check(make(options.seed, number), Path(folder), number)] += 1
                assert grown() - most < MOST_BYTES, "it takes too much memory"
            except BaseException:
                print(f"seed {options.seed} case {number}", file=sys.stderr)
                raise
            if time.monotonic() - started > 10:
                print(f"case {number} took {time.monotonic() - started:.0f} s", flush=True)
            number += 1
            if options.case is not None:
                break
    took = (time.monotonic() - begun) / 60
    print(f"{number:,} cases in {took:.1f} minutes, {(grown() - most) / 2**20:.0f} MB more: {ends}")


if __name__ == "__main__":
    main()
