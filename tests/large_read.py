"""What reading and tokenising a large data set takes: rows a second, and memory.

PYTHONPATH=. python tests/large_read.py FOLDER ROWS [SUFFIX [MODEL]] makes seeded rows of 1 KB in
the folder (jsonl, csv or parquet), prepares them as a run does, in a process of its own, and prints
what it took as JSON: memory is that of the process with all that help it, sampled; `idle` is that
of the process before it begins, its libraries and tokenizer loaded. MODEL is `demo` or a folder.
"""

import csv
import json
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from random import Random

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

WORDS = "heart lung blood fever cough pain rest drink water sleep doctor child skin rash".split()
SAMPLED_S = 0.1


def row(rng: Random, number: int) -> dict[str, str | int]:
    """A question and an answer, 1 KB as a line of JSON."""
    question = f"Case {number}: {' '.join(rng.choices(WORDS, k=12))}?"
    answer = " ".join(f"{word} {rng.randrange(1000)}" for word in rng.choices(WORDS, k=110))
    return {"question": question, "answer": answer[:890], "ward": rng.randrange(40)}


def make(path: Path, rows: int) -> None:
    """Write the data set."""
    rng = Random(0)
    if path.suffix == ".parquet":
        schema = pa.schema([("question", "string"), ("answer", "string"), ("ward", "int64")])
        with pq.ParquetWriter(path, schema) as table:
            for start in range(0, rows, 10_000):
                some = [row(rng, i) for i in range(start, min(start + 10_000, rows))]
                table.write_table(pa.Table.from_pylist(some, schema=schema))
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, ["question", "answer", "ward"])
            writer.writeheader()
            writer.writerows(row(rng, i) for i in range(rows))
        else:
            file.writelines(json.dumps(row(rng, i)) + "\n" for i in range(rows))


def work(path: Path, model: str) -> None:
    """Prepare the data set in this process; says when it begins."""
    from grads.config.run import RunConfig
    from grads.engine import models
    from grads.jobs.job import Job
    from grads.stages import preparing
    from grads.store.runs import Run

    models.load_tokenizer(model)
    run = Run.create(RunConfig(dataset=str(path), model=model).absolute(), path.with_suffix(".run"))
    print("begins", flush=True)
    sys.stdin.readline()
    preparing.prepare(Job(run))
    counts = run.read_manifest().counts
    print(json.dumps({"rows": counts.rows, "usable": counts.usable}), flush=True)


def watched(path: Path, model: str) -> dict[str, float]:
    """What the work took, in a process of its own."""
    command = [sys.executable, __file__, "work", str(path), model]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        family = psutil.Process(process.pid)
        idle, before = family.memory_full_info().pss, sum(family.cpu_times()[:2])
        process.stdin.write("go\n")
        process.stdin.flush()
        started, peak, spent, most = time.perf_counter(), 0, dict[int, float](), 0
        while process.poll() is None:
            found = 0
            with suppress(psutil.Error):
                members = [family, *family.children(recursive=True)]
                most = max(most, len(members))
                for member in members:
                    with suppress(psutil.Error):
                        found += member.memory_full_info().pss
                        spent[member.pid] = sum(member.cpu_times()[:2])
            peak = max(peak, found)
            time.sleep(SAMPLED_S)
        seconds = time.perf_counter() - started
        told = json.loads(process.stdout.readline())
    cpu = sum(spent.values()) - before
    return told | {
        "bytes_a_row": round(path.stat().st_size / told["rows"]),
        "seconds": round(seconds, 1),
        "rows_a_second": round(told["rows"] / seconds),
        "cpu_microseconds_a_row": round(1e6 * cpu / told["rows"]),
        "peak_mb": round(peak / 2**20),
        "idle_mb": round(idle / 2**20),
        "processes": most,
    }


def main(folder: Path, rows: int, suffix: str = "jsonl", model: str = "demo") -> None:
    """Make the data set where it is not there, and prepare it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rows-{rows}.{suffix}"
    if not path.exists():
        make(path, rows)
    shutil.rmtree(path.with_suffix(".run"), ignore_errors=True)
    print(json.dumps({"model": Path(model).name} | watched(path, model)))


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work(Path(sys.argv[2]), sys.argv[3])
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
