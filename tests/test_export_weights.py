"""Exports of every row by its weight: the weights, the repeats, and what trainers make of them."""

import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_from_disk
from hypothesis import given
from hypothesis import strategies as st
from run_dirs import demo_run, kept_ids
from test_export import SCORES, config, lines_subset, read_csv, read_lines, typed_subset
from test_export_trainers import (
    folders,  # noqa: F401, a fixture
    no_caches,  # noqa: F401, a fixture
    rows_of_axolotl,
    rows_of_llamafactory,
    train_rows_of_trl,
)
from trained import LENGTH, SETS, ours, subset_of, tokenizer_of

from grads import api
from grads.config.run import RunConfig
from grads.errors import ExportError, GradsError, SelectionError
from grads.export.weighted import Weighting, passes, repeats
from grads.export.write import FORMATS, changed_lines, export
from grads.selection.options import SelectionConfig
from grads.selection.weights import sampling_weights

PLAIN = [name for name, form in FORMATS.items() if form.plain]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return demo_run(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def pool(run):
    return api.load_pool(run)


def weighting(shares, by="repeat", pinned=(), rows=None, ids=None):
    share = np.array(shares, float)
    ids = np.arange(len(share)) if ids is None else np.array(ids)
    mask = np.isin(np.arange(len(share)), pinned)
    return Weighting(by, ids, share / share.sum(), mask, rows)


# -- the weights of a selection


@pytest.mark.parametrize("values", [{}, {"criterion": "density"}, {"focus": 0.5, "draw": "top"}])
def test_weights_are_exp_of_the_scores_above_the_floor(pool, values):
    options = SelectionConfig.parse({"ratio": 0.1} | values)
    found = sampling_weights(pool, options)
    ranking = pool.select(options).ranking
    by_hand = [
        float(np.exp(score)) if above else 0.0
        for score, above in zip(ranking.score, ranking.above_floor, strict=True)
    ]
    assert 0.0 in by_hand
    np.testing.assert_allclose(found.share, np.array(by_hand) / sum(by_hand), rtol=1e-9)


def test_the_weights_are_those_that_the_draw_goes_by(pool):
    """First draws under many seeds come as often as the weights say."""
    options = SelectionConfig.parse({"count": 1})
    share = sampling_weights(pool, options).share
    firsts = [
        int(np.flatnonzero(pool.select(options.model_copy(update={"seed": seed})).kept)[0])
        for seed in range(600)
    ]
    high = share > np.median(share[share > 0])
    expected = share[high].sum()
    seen = high[firsts].mean()
    assert seen == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 600))
    assert expected > 0.6, "else a uniform draw would pass too"


def test_random_gives_every_row_one_weight(pool):
    found = sampling_weights(pool, SelectionConfig.parse({"criterion": "random", "ratio": 0.1}))
    np.testing.assert_allclose(found.share, 1 / len(pool))


def test_what_is_not_allowed_has_no_weight_and_pins_have_some(pool):
    ids = pool.scores.sample_id
    plain = SelectionConfig.parse({"ratio": 0.1})
    outlier = int(ids[~pool.select(plain).ranking.above_floor][0])
    gone = int(ids[pool.select(plain).ranking.above_floor][0])
    middle = float(np.median(pool.scores.loss))
    options = SelectionConfig.parse(
        {
            "ratio": 0.1,
            "bounds": [{"column": "loss", "high": middle}],
            "excluded": [gone],
            "pins": [outlier],
        }
    )
    found = sampling_weights(pool, options)
    outside = (pool.scores.loss > middle) | (ids == gone)
    assert not found.share[outside & (ids != outlier)].any()
    others = found.share[(found.share > 0) & (ids != outlier)]
    assert found.share[ids == outlier] == pytest.approx(others.mean())
    assert found.pinned.tolist() == (ids == outlier).tolist()
    assert found.share.sum() == pytest.approx(1)


def test_one_of_each_group_of_near_duplicates_has_a_weight(pool):
    """The one that the selection's own draw takes; all had one."""
    values = {"ratio": 0.5, "deduplicate": True, "seed": 3}
    options = SelectionConfig.parse(values)
    found, group = sampling_weights(pool, options), pool.duplicate_group
    alike = np.flatnonzero((group >= 0) & (found.share > 0))
    assert len(alike) == len(np.unique(group[alike])) > 5
    kept = pool.select(options).kept
    assert (found.share[kept & pool.select(options).ranking.above_floor] > 0).all()
    assert found.share.sum() == pytest.approx(1)


def test_criteria_without_weights_are_refused_with_those_that_have_some(pool):
    options = SelectionConfig.parse({"criterion": "loss_high", "ratio": 0.1})
    with pytest.raises(SelectionError, match=r"'loss_high' ranks .* grads, density, random"):
        sampling_weights(pool, options)


# -- repeats


def test_repeats_by_hand():
    share = np.array([0.5, 0.26, 0.24, 0.0])
    none = np.zeros(4, bool)
    assert repeats(share, 4, none).tolist() == [2, 1, 1, 0]
    assert repeats(share, 5, none).tolist() == [3, 1, 1, 0], "the first of two halves"
    assert repeats(share, 2, none).tolist() == [1, 1, 0, 0]
    assert repeats(share, 5, np.array([0, 0, 0, 1], bool)).tolist() == [2, 1, 1, 1]


def test_repeats_add_up_and_are_off_by_less_than_one():
    rng = np.random.default_rng(0)
    for rows in (1, 7, 100, 12345):
        share = rng.exponential(size=50) ** 3
        share /= share.sum()
        times = repeats(share, rows, np.zeros(50, bool))
        assert times.sum() == rows
        assert (np.abs(times - share * rows) < 1).all()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_copies_of_a_row_lie_a_pass_apart(times):
    expected = [i for n in range(max(times)) for i, count in enumerate(times) if count > n]
    assert passes(np.array(times)).tolist() == expected


def test_one_row_may_outweigh_a_large_pool():
    """Each pass over the pool for itself would take hours."""
    times = np.zeros(10**6, int)
    times[7] = 10**6
    assert (passes(times) == 7).all()


def test_more_pins_than_rows_are_refused():
    with pytest.raises(ExportError, match="1 rows do not hold the 2 pinned ones"):
        repeats(np.array([0.5, 0.5]), 1, np.ones(2, bool))


# -- the files


def test_repeated_lines_are_the_sources_bytes_pass_by_pass(tmp_path):
    subset = lines_subset(ids=[0, 1, 2])
    subset = lines_subset(ids=[0, 1, 2], lines=[*subset.lines[:2], subset.lines[2].rstrip()])
    out = tmp_path / "out.jsonl"
    manifest = export(
        subset, "jsonl", out, config(), manifest={}, weighting=weighting([1, 0, 2], rows=6)
    )
    first, _, last = subset.lines
    assert out.read_bytes() == first + last + b"\n" + first + last + b"\n" + last + b"\n" + last
    assert manifest["rows"] == 6
    assert manifest["weights"] == {
        "by": "repeat",
        "pool": 3,
        "effective_samples": 1.8,
        "times": {"0": 1, "2": 1, "4": 1},
    }
    assert changed_lines(manifest) == [
        "weights: 2 of 3 rows stand there, each up to 4 times; as good as 2 rows of one weight"
    ]
    assert json.loads((tmp_path / "out.jsonl.manifest.json").read_text()) == manifest


@pytest.mark.parametrize("scores", [None, SCORES])
@pytest.mark.parametrize("kind", PLAIN)
def test_weights_stand_in_a_column(tmp_path, kind, scores):
    subset = typed_subset(ids=[0, 3, 6], scores=scores)
    out = tmp_path / "out"
    export(
        subset,
        kind,
        out,
        config(),
        manifest={},
        weighting=weighting([1, 0, 3], by="sample", ids=[0, 3, 6]),
    )
    data = out / FORMATS[kind].data_name.format(name="mine")
    readers = {
        "jsonl": read_lines,
        "csv": read_csv,
        "parquet": lambda path: pq.read_table(path).to_pylist(),
        "hf": lambda path: list(load_from_disk(str(path))),
    }
    rows = readers[kind](data)
    assert [float(row["grads_weight"]) for row in rows] == [0.25, 0.0, 0.75]
    assert all(("grads_loss" in row) == (scores is not None) for row in rows)


@pytest.mark.parametrize("kind", [name for name in FORMATS if name not in PLAIN])
def test_trainers_have_no_place_for_a_weight(tmp_path, kind):
    with pytest.raises(ExportError, match=f"{kind} has no place for the weight of a row"):
        export(
            lines_subset(ids=[0, 1, 2]),
            kind,
            tmp_path / "out",
            config(),
            manifest={},
            weighting=weighting([1, 1, 1], by="sample"),
        )


def test_rows_that_a_target_refuses_leave_their_place_to_the_others(tmp_path):
    turns = [
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        [{"role": "text", "content": "t"}],
        [{"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}],
    ]
    subset = lines_subset(turns=turns, ids=[0, 1, 2])
    out = tmp_path / "out"
    manifest = export(
        subset, "openai", out, config(), manifest={}, weighting=weighting([1, 2, 3], rows=8)
    )
    asked = Counter(row["messages"][0]["content"] for row in read_lines(out / "train.jsonl"))
    assert asked == {"q": 2, "r": 6}
    assert [row["sample_id"] for row in manifest["refused"]] == [1]
    with pytest.raises(ExportError, match="no row that the target takes has a weight"):
        export(
            subset,
            "openai",
            out,
            config(),
            manifest={},
            weighting=weighting([0, 1, 0]),
            overwrite=1,
        )


# -- what trainers make of them


TRAINERS = {
    "trl": lambda out, patch: train_rows_of_trl(out, patch)[1],
    "llamafactory": rows_of_llamafactory,
    "axolotl": rows_of_axolotl,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", ["chatml", "qwen3"])
@pytest.mark.parametrize("kind", TRAINERS)
def test_trainers_train_each_row_as_often_as_it_stands_there(
    tmp_path,
    monkeypatch,
    folders,  # noqa: F811
    kind,
    model,
):
    """Their loaders drop no copies, and each is what was scored."""
    subset = subset_of(SETS["several turns"] * 3, tokenizer_of(model))
    times = [2 + i % 3 for i in range(len(subset))]
    times[0] = 0
    values = {"dataset": "rows.jsonl", "model": str(folders[model]), "max_length": LENGTH}
    manifest = export(
        subset,
        kind,
        tmp_path / "out",
        RunConfig.parse(values | {"warmup": "full"}),
        manifest={},
        weighting=weighting(times, rows=sum(times)),
    )
    found = TRAINERS[kind](tmp_path / "out", monkeypatch)
    rows = ours(subset)
    expected = [row for n in range(4) for row, count in zip(rows, times, strict=True) if count > n]
    assert found == expected
    assert manifest["rows"] == len(found) == sum(times)


# -- from a run


@pytest.mark.parametrize("kind", ["jsonl", "trl", "llamafactory", "axolotl", "openai", "torchtune"])
def test_a_saved_selection_is_exported_by_weight(run, pool, kind):
    manifest = api.export_selection(run, "grads-10", kind, weights="repeat", rows=500)
    folder = run.exports / "grads-10" / f"{kind}-repeat"
    assert manifest["path"] == str(folder)
    assert FORMATS[kind].count(folder / FORMATS[kind].data_name.format(name="grads-10")) == 500
    share = sampling_weights(pool, api.read_record(run, "grads-10").options).share
    times = repeats(share, 500, np.zeros(len(pool), bool))
    told = {int(n): rows for n, rows in manifest["weights"]["times"].items()}
    assert told == Counter(times.tolist())
    if kind == "jsonl":
        lines = (folder / "grads-10.jsonl").read_bytes().splitlines()
        samples = pq.read_table(run.samples_file)
        raw = dict(zip(samples["sample_id"].to_pylist(), samples["raw"].to_pylist(), strict=True))
        wanted = Counter()
        for sample, count in zip(pool.scores.sample_id.tolist(), times.tolist(), strict=True):
            wanted[raw[sample].strip()] += count
        assert Counter(line.strip() for line in lines) == +wanted


def test_exports_by_weight_follow_what_people_decided_since(tmp_path):
    """A row vetoed after saving that the subset did not keep anyway was written six times."""
    run = demo_run(tmp_path)
    pool, record = api.load_pool(run), api.read_record(run, "grads-10")
    ids, kept = pool.scores.sample_id, kept_ids(run, "grads-10")
    share = sampling_weights(pool, record.options).share
    free = ~np.isin(ids, kept)
    veto = int(ids[free][np.argmax(share[free])])
    least = int(kept[np.argmin(share[np.isin(ids, kept)])])
    outside = int(ids[free & (share == 0)][0])
    for sample, decision in ((veto, "exclude"), (least, "pin"), (outside, "pin")):
        api.decide(run, sample, decision)
    assert veto not in [made.sample_id for made in api.stale(run, "grads-10")]
    manifest = api.export_selection(run, "grads-10", "jsonl", weights="repeat", rows=600)
    lines = Counter((run.exports / "grads-10/jsonl-repeat/grads-10.jsonl").read_text().splitlines())
    times = {
        sample: lines[run.read_sample(sample)["raw"].decode().strip()]
        for sample in (veto, least, outside)
    }
    assert times[veto] == 0
    assert times[least] >= 1
    assert times[outside] >= 1
    assert manifest["decided_since"] == [veto, least, outside]
    assert {made["sample_id"] for made in manifest["decisions"]} == {veto, least, outside}
    assert len(api.export_selection(run, "grads-10", "jsonl")["decided_since"]) == 1


def test_by_default_there_are_as_many_rows_as_usable_ones(run, pool):
    manifest = api.export_selection(run, "grads-10", "jsonl", weights="repeat")
    assert manifest["rows"] == len(pool)
    manifest = api.export_selection(run, "grads-10", "parquet", weights="sample")
    table = pq.read_table(run.exports / "grads-10" / "parquet-sample" / "grads-10.parquet")
    assert len(table) == manifest["rows"] == len(pool)
    assert sum(table["grads_weight"].to_pylist()) == pytest.approx(1)


def test_what_makes_no_sense_is_refused(tmp_path):
    run = demo_run(tmp_path)
    for values, message in (
        ({"weights": "twice"}, "no weights 'twice': use one of repeat, sample"),
        ({"rows": 5}, "rows is 5: give a number above 0, and together with weights 'repeat'"),
        ({"weights": "sample", "rows": 5}, "rows is 5"),
        ({"weights": "repeat", "rows": 0}, "rows is 0"),
    ):
        with pytest.raises(ExportError, match=message):
            api.export_selection(run, "grads-10", "jsonl", **values)
    table = pq.read_table(run.scores_file)
    pq.write_table(table.slice(0, len(table)), run.scores_file, compression="none")
    with pytest.raises(GradsError, match="saved with other scores than the run has now"):
        api.export_selection(run, "grads-10", "jsonl", weights="repeat")
