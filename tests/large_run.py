"""A finished run of many synthetic rows, to show that the dashboard stays fast.

python tests/large_run.py FOLDER [ROWS] makes it and times what the pages ask for, on the server;
with `moves` behind it, the moves of a choice alone, on a run without texts and features.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from grads import api
from grads.config.run import RunConfig
from grads.selection import preview
from grads.selection.filters import Filter
from grads.selection.options import SelectionConfig
from grads.selection.pool import Pool
from grads.store.files import SINGLE_SAMPLES, write_json, write_table, write_tables
from grads.store.runs import Run, Status
from studio import looks

BLOCK = 100_000  # rows whose texts are made at once
T = TypeVar("T")
WORDS = "heart lung blood fever cough pain rest drink water sleep doctor child skin rash".split()


def make(path: Path, rows: int, clusters: int = 24, texts: bool = True) -> Run:
    """Scores, samples, features and clusters as a run of `rows` samples would have them."""
    rng = np.random.default_rng(0)
    run = Run.create(RunConfig(dataset="large.jsonl"), path)
    ids = pa.array(np.arange(rows))
    response = rng.integers(5, 400, rows).astype(np.int32)
    prompt = rng.integers(10, 90, rows).astype(np.int32)
    norms = [np.exp(rng.normal(m, 0.4, rows)) / np.sqrt(response) for m in (0.0, 1.0)]
    columns = {
        "sample_id": ids,
        "prompt_tokens": prompt,
        "response_tokens": response,
        "loss": rng.normal(2, 0.4, rows).astype(np.float32),
        "embed_grad_norm": norms[0].astype(np.float32),
        "head_grad_norm": norms[1].astype(np.float32),
        "grad_dot": np.zeros(rows, np.float32),
        "truncated": np.zeros(rows, bool),
    }
    write_table(run.scores_file, pa.table(columns))
    samples = {
        "sample_id": ids,
        "prompt_tokens": prompt,
        "response_tokens": response,
        "truncated": np.zeros(rows, bool),
        "heldout": np.zeros(rows, bool),
        "columns": pa.StructArray.from_arrays(
            [pa.array(np.array(["a", "b", "c"])[rng.integers(0, 3, rows)])], names=["kind"]
        ),
    }
    table = pa.table(samples)
    blocks = (table.slice(start, BLOCK) for start in range(0, rows, BLOCK))
    if texts:
        blocks = (block.add_column(1, "turns", turns(rng, len(block))) for block in blocks)
    write_tables(run.samples_file, blocks, SINGLE_SAMPLES)
    features = rng.normal(0, 1, (rows, 64 if texts else 1)).astype(np.float32)
    cluster = rng.integers(0, clusters, rows).astype(np.int32)
    alike = rng.random(rows) < 0.05  # samples that have near-duplicates, one each on average
    middles = rng.uniform(-0.8, 0.8, (clusters, 2))
    places = (middles[cluster] + rng.normal(0, 0.06, (rows, 2))).clip(-1, 1).astype(np.float32)
    write_table(
        run.features_file,
        pa.table(
            {
                "sample_id": ids,
                "feature": pa.FixedSizeListArray.from_arrays(
                    pa.array(features.ravel()), features.shape[1]
                ),
                "cluster": cluster,
                "duplicate_group": np.where(alike, rng.integers(0, rows // 40 + 1, rows), -1),
                "map_x": places[:, 0],
                "map_y": places[:, 1],
            }
        ),
    )
    sizes = np.bincount(cluster, minlength=clusters).tolist()
    found = [{"cluster": c, "size": s, "terms": [f"topic{c}"]} for c, s in enumerate(sizes)]
    write_json(run.clusters_file, {"clusters": found})
    run.update_manifest(
        counts={"rows": rows, "usable": rows, "refused": 0, "heldout": 0},
        seconds={"warm-up": 3600.0, "self-check": 5.0, "score": 3600.0},
        warmup={"kind": "lora", "samples": rows},
        self_check={"largest_relative_difference": 0.0},
        max_length=1024,
    )
    run.write_status(Status(state="finished"))
    return run


def turns(rng: np.random.Generator, rows: int) -> pa.Array:
    """A question and an answer about two words for each of so many rows."""
    pairs = np.array([f"{a} and {b}" for a in WORDS for b in WORDS])
    chosen = pairs[rng.integers(0, len(pairs), rows)]
    contents = np.stack([np.char.add(chosen, "?"), np.char.add(chosen, ".")], axis=1).ravel()
    roles = pa.array(["user", "assistant"] * rows, pa.string())
    fields = [roles, pa.array(contents, pa.large_string())]
    said = pa.StructArray.from_arrays(fields, names=["role", "content"])
    return pa.LargeListArray.from_arrays(pa.array(np.arange(0, 2 * rows + 1, 2)), said)


def timed(what: str, work: Callable[[], T]) -> T:
    """Print what a piece of work took, waiting included and of this process's own."""
    started, spent = time.perf_counter(), time.process_time()
    value = work()
    waited, own = time.perf_counter() - started, time.process_time() - spent
    print(f"{what:58s} {1000 * waited:7.0f} ms, {1000 * own:7.0f} ms of a processor")
    return value


def explore(pool: Pool, matching: np.ndarray) -> None:
    """The linked views of the workspace, as they go to the browser."""
    columns = {"column": "signal", "x": "embed_signal", "y": "head_signal"}
    look = looks.Look.by(pool, "found topic", matching, **columns)
    looks.views_of(pool, look, Filter(), matching)


def main(path: Path, rows: int, texts: bool) -> None:
    """Make the run where it is not there, and time a visit, or the moves alone."""
    run = Run(path) if (path / "config.json").exists() else make(path, rows, texts=texts)
    pool = timed("open: scores", lambda: api.load_pool(run))
    everything = np.ones(len(pool), bool)
    if texts:
        timed("open: columns, topics, pictures", lambda: explore(pool, everything))
        mask = timed("search all texts", lambda: pool.matching(Filter(text="lung and cough")))
        timed("pictures of what was found", lambda: explore(pool, mask))
    timed("first selection (density of the pair)", lambda: preview.preview(pool, at(10)))
    timed("move of the budget, 10% to 50%", lambda: preview.preview(pool, at(50)))
    timed("the same in tokens", lambda: preview.preview(pool, at(50, budget_unit="tokens")))
    timed("move of the focus", lambda: preview.preview(pool, at(50, focus=0.3)))
    timed("move of the typicality", lambda: preview.preview(pool, at(50, typicality=0.5)))
    one_each = at(50, deduplicate=True)
    timed("the same, one of each near-duplicate", lambda: preview.preview(pool, one_each))
    timed("the same drawn topic by topic", lambda: preview.preview(pool, at(50, draw="stratified")))
    shown = preview.preview(pool, at(10))
    preview.coverage(pool, shown, "found topic")  # reads the columns
    timed("coverage by topic", lambda: preview.coverage(pool, shown, "found topic"))
    size = run.scores_file.stat().st_size
    print(f"{'scores.parquet, bytes a sample':58s} {size / rows:7.1f}")
    if texts:
        timed("read 50 samples", lambda: run.read_samples(list(range(0, rows, rows // 50))))
        timed("nearest in content", lambda: pool.neighbours(7, everything, 3))


def at(percent: float, **options: float | str) -> SelectionConfig:
    return SelectionConfig.parse({"ratio": percent / 100, **options})


if __name__ == "__main__":
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    main(Path(sys.argv[1]), count, texts=sys.argv[3:] != ["moves"])
