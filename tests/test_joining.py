"""The parts of a pass become the tables of a run: what is wide never lies in memory as a whole."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from sklearn.decomposition import PCA

from grads.bench.peak import peak_memory
from grads.config.run import RunConfig
from grads.data.tokens import TokenPool
from grads.engine import joining, passes
from grads.engine.joining import joined
from grads.engine.passes import Parts
from grads.engine.scoring import PROJECTED
from grads.errors import ScoringError
from grads.stages.scoring import _write_scores
from grads.store.columns import MEASURED
from grads.store.files import SINGLE_SAMPLES, matrix, read_table, write_table
from grads.store.runs import Run


def table_of(ids, seed=0, width=5, signals=True):
    """What a pass measures of these samples: numbers, a list of one length, lists of any."""
    rng = np.random.default_rng(seed)
    numbers = {name: rng.random(len(ids)).astype(np.float32) for name in MEASURED}
    feature = rng.standard_normal((len(ids), width)).astype(np.float32) + 3
    columns = {"sample_id": ids, **numbers}
    columns["feature"] = pa.FixedSizeListArray.from_arrays(pa.array(feature.ravel()), width)
    if signals:
        for name in ("embed_token_norm", "head_token_norm"):
            lists = [rng.random(n).astype(np.float32) for n in rng.integers(0, 9, len(ids))]
            columns[name] = pa.array(lists, pa.large_list(pa.float32()))
    return pa.table(columns)


def cut(table, *places):
    """The table in pieces, some of them empty."""
    ends = [0, *places, len(table)]
    return [table.slice(a, b - a) for a, b in pairwise(ends)]


def run_of(folder, lengths, **options):
    """A run whose parts are measured by a stub; samples bear every third number."""
    run = Run.create(RunConfig(dataset="d.jsonl"), folder)
    ids, n = 3 * np.arange(len(lengths)), len(lengths)
    nothing = np.zeros(n, np.int32)
    counts = {"prompt_tokens": nothing, "response_tokens": lengths.astype(np.int32)}
    samples = {"sample_id": ids, **counts, "truncated": np.zeros(n, bool)}
    write_table(run.samples_file, pa.table(samples))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    pool = TokenPool(ids, offsets, nothing, nothing)
    parts = Parts(run.parts, pool, batch_tokens=2048, made_from="")
    parts.write(lambda batch: table_of(ids[batch], seed=int(batch[0]), **options))
    return run, parts


def write(run, parts):
    _write_scores(run, parts.read, lambda columns: [parts.merged(columns)], [])


def test_the_join_is_that_of_sorting_all_at_once(tmp_path):
    ids = np.random.default_rng(0).permutation(40)
    table = table_of(ids)
    pieces = cut(table, 0, 7, 8, 30)
    found = joined(lambda: iter(pieces), np.argsort(ids), tmp_path)
    assert found.equals(table.sort_by("sample_id"))
    assert not list(tmp_path.iterdir())


def test_rows_that_the_order_leaves_out_are_left_out(tmp_path):
    """As of samples that a training has read more than once."""
    ids = np.array([5, 2, 2, 9, 5, 2])
    table = table_of(ids)
    order = np.array([5, 4, 3])
    found = joined(lambda: iter(cut(table, 2, 4)), order, tmp_path)
    assert found.equals(table.take(pa.array(order)))


def test_a_table_without_lists_is_read_once(tmp_path):
    reads = []

    def read():
        reads.append(1)
        yield pa.table({"sample_id": [3, 1], "loss": [0.5, 0.25]})

    assert joined(read, np.array([1, 0]), tmp_path)["loss"].to_pylist() == [0.25, 0.5]
    assert len(reads) == 1


def test_a_disk_without_room_for_the_lists_is_told_as_such(tmp_path, monkeypatch):
    """A damaged part would be made anew, which helps nothing here."""
    monkeypatch.setattr(passes, "PART_TOKENS", 500)
    run, parts = run_of(tmp_path / "run", np.full(90, 20))

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(joining, "scratch", full)
    with pytest.raises(OSError, match="No space left"):
        write(run, parts)


def test_features_are_the_principal_components_of_all_parts(tmp_path, monkeypatch):
    """And every sample has its own, whichever part it is in."""
    monkeypatch.setattr(passes, "PART_TOKENS", 500)
    lengths = np.random.default_rng(1).integers(5, 60, 300)
    run, parts = run_of(tmp_path / "run", lengths, width=80)
    assert len(parts.plan()) > 5
    write(run, parts)
    whole = parts.merged()
    features = matrix(whole["feature"])
    expected = PCA(64, svd_solver="full").fit_transform(features.astype(np.float64))
    found = read_table(run.features_file)
    assert found["sample_id"].equals(whole["sample_id"])
    np.testing.assert_allclose(matrix(found["feature"]), expected, rtol=1e-4, atol=1e-5)
    signals = read_table(run.token_signal_file)
    assert signals.equals(whole.select(signals.column_names))
    scores = read_table(run.scores_file)
    for name in ("sample_id", *MEASURED):
        assert scores[name].equals(whole[name])
    np.testing.assert_array_equal(scores["response_tokens"].to_numpy(), lengths)


def test_a_part_that_is_damaged_after_it_was_made_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "PART_TOKENS", 500)
    run, parts = run_of(tmp_path / "run", np.full(900, 20))
    content = bytearray(parts.file(2).read_bytes())
    content[len(content) // 2] ^= 1
    parts.file(2).write_bytes(content)
    with pytest.raises(ScoringError, match="makes that part anew"):
        write(run, parts)
    assert not run.scores_file.exists()


def test_the_features_of_a_large_pool_are_not_in_memory_as_a_whole(tmp_path):
    """Joined as one table, sorted and reduced, they took three times their size."""
    n = 100_000
    run, parts = run_of(tmp_path / "run", np.full(n, 20), width=PROJECTED, signals=False)
    with peak_memory() as peak:
        write(run, parts)
    assert len(read_table(run.features_file)) == n
    assert peak["mb"] < 4 * PROJECTED * n / 2**20


def test_a_table_that_is_read_in_batches_leaves_memory_as_it_is_read(tmp_path):
    """Arrow's reader of a whole file holds all that it has read of it until its end."""
    n, run = 20_000, Run.create(RunConfig(dataset="d.jsonl"), tmp_path / "run")
    table = table_of(np.arange(n), width=64, signals=False)
    write_table(run.features_file, table, SINGLE_SAMPLES)
    before, held, read = pa.total_allocated_bytes(), [], 0
    for batch in run.read_batches(run.features_file):
        read += len(batch)
        held.append(pa.total_allocated_bytes() - before)
    assert read == n
    assert max(held) < table.nbytes / 2


def test_lists_that_are_joined_are_not_in_memory(tmp_path):
    """As what a warm-up has shown of its samples; half of them were read twice."""
    n, block = 20_000, 500
    ids = np.random.default_rng(0).permutation(np.r_[0:n, 0 : n // 2])
    order = np.unique(ids, return_index=True)[1]

    def read():
        for start in range(0, len(ids), block):
            yield table_of(ids[start : start + block], seed=start, width=PROJECTED)

    before = pa.total_allocated_bytes()
    found = joined(read, order, tmp_path)
    assert pa.total_allocated_bytes() - before < found.nbytes / 4
    write_table(tmp_path / "joined.parquet", found)
    assert read_table(tmp_path / "joined.parquet").equals(found)
    assert found["sample_id"].to_pylist() == list(range(n))
    place = int(order[n // 2])
    expected = next(table for start, table in enumerate(read()) if start == place // block)
    assert found.slice(n // 2, 1).equals(expected.slice(place % block, 1).cast(found.schema))
