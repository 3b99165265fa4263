"""What the pages stand on: pool, filter, preview, decisions, drafts, bundles, stages."""

import json
import os
import time
import zipfile
from collections import Counter
from io import BytesIO
from pathlib import Path

import large_run
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chain import command
from run_dirs import DEMO, demo_run, set_source_columns, set_state

from grads import api
from grads.config.run import RunConfig
from grads.errors import DataError, ExportError, ModelError, RunError, SelectionError
from grads.jobs import processes as jobs
from grads.jobs import watch
from grads.selection import select as selection
from grads.selection.filters import Filter, inside_polygon, outline
from grads.selection.luck import random_count
from grads.selection.options import Bound, SelectionConfig
from grads.selection.pool import MOST_CATEGORIES, TOPIC, Pool
from grads.selection.preview import Coverage, coverage, emptied, overlap, preview
from grads.selection.record import kept_ids
from grads.store.columns import SCORES, Column
from grads.store.runs import Run, Status

SQUARE = np.array([(0, 0), (2, 0), (2, 2), (0, 2)])


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """The demo's pool; nothing may be written."""
    return Pool(demo_run(tmp_path_factory.mktemp("pool")))


@pytest.fixture
def run(tmp_path):
    """A copy of the demo to write into."""
    return demo_run(tmp_path)


@pytest.fixture
def small(tmp_path):
    """A synthetic run of 40 samples in three topics."""
    return large_run.make(tmp_path / "small", 40, clusters=3)


def options(**values):
    return SelectionConfig.parse({"ratio": 0.1} | values)


def rows():
    """The demo's source."""
    lines = (DEMO / "medical_qa.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


# -- pool


def test_pool_holds_the_scores_sorted_by_id(pool):
    table = pq.read_table(pool.run.scores_file)
    assert len(pool) == len(table) == 300
    assert (np.diff(pool.scores.sample_id) > 0).all()
    for name in ("loss", "embed_grad_norm", "head_grad_norm", "response_tokens"):
        np.testing.assert_array_equal(pool.numbers[name], table[name].to_numpy())
    assert (pool.tokens == table["prompt_tokens"].to_numpy() + pool.scores.response_tokens).all()
    np.testing.assert_allclose(
        pool.l2**2, pool.scores.embed_grad_norm**2.0 + pool.scores.head_grad_norm**2.0, rtol=1e-5
    )


def test_signals_are_robust_standard_deviations(pool):
    """Median 0, and half of the pool within 1.349 of quartile distance."""
    for name in ("signal", "embed_signal", "head_signal"):
        values = pool.numbers[name]
        assert np.median(values) == pytest.approx(0, abs=1e-9)
        assert np.subtract(*np.quantile(values, [0.75, 0.25])) == pytest.approx(1.349)


def test_signal_ranks_as_the_selection_does(pool):
    chosen = pool.select(options(signal="l2"))
    np.testing.assert_allclose(pool.numbers["signal"], chosen.ranking.x)


def test_categories_are_the_topics_and_the_source_columns(pool):
    assert list(pool.categories) == [TOPIC, "topic", "kind"]
    source = rows()
    for column in ("topic", "kind"):
        found = pool.categories[column]
        named = [found.names[code] for code in found.code]
        assert named == [source[i][column] for i in pool.scores.sample_id]
    sizes = np.bincount(pool.categories[TOPIC].code).tolist()
    assert sizes == [cluster.size for cluster in pool.clusters]


def test_cluster_names_tell_the_topics_apart(pool):
    names = pool.cluster_names()
    assert len(set(names)) == len(names) == len(pool.clusters)


def test_alike_cluster_names_get_their_number(small):
    text = small.clusters_file.read_text().replace("topic1", "topic0")
    small.clusters_file.write_text(text)
    assert Pool(small).cluster_names() == ["topic0 (0)", "topic0 (1)", "topic2"]


def test_source_columns_of_numbers_and_of_many_values(small):
    """Numbers are numbers, missing ones nan; a column of too many values is no category."""
    ages = pa.array([None if i == 3 else i / 2 for i in range(40)])
    set_source_columns(
        small,
        age=ages,
        sure=pa.array([i % 2 == 0 for i in range(40)]),
        note=pa.array([None if i == 0 else "x" for i in range(40)]),
        name=pa.array([f"n{i}" for i in range(40)]),
    )
    pool = Pool(small)
    assert np.isnan(pool.numbers["age"][3])
    assert pool.numbers["age"][5] == 2.5
    assert "sure" not in pool.numbers
    assert sorted(pool.categories["sure"].names) == ["false", "true"]
    assert pool.categories["note"].names == ["(none)", "x"]
    assert len(pool.categories["name"].names) == 40 == MOST_CATEGORIES
    assert "age" not in pool.categories


def test_a_missing_number_lies_outside_every_bound(small):
    set_source_columns(small, age=pa.array([None if i < 10 else float(i) for i in range(40)]))
    pool = Pool(small)
    mask = pool.matching(Filter(bounds=(Bound(column="age", low=-1e9, high=1e9),)))
    assert mask.sum() == 30
    kept = pool.select(options(ratio=1.0, bounds=[{"column": "age", "low": 0}])).kept
    assert not kept[:10].any()


def test_ids_too_large_for_a_float_do_not_stop_the_pool(small):
    """Ids of messages are often beyond 2**53."""
    set_source_columns(small, message=pa.array([2**60 + 1 + i for i in range(40)]))
    assert len(Pool(small).numbers["message"]) == 40


@pytest.mark.parametrize("name", ["...1", ".id", "a.b", "[0]", "", "a:1", "columns", "%{x}"])
def test_any_name_of_a_column_is_a_name(small, name):
    """None is read as a path, in a filter, in a bound, or in the text of a bound."""
    values = {name: pa.array([float(i) for i in range(40)])}
    set_source_columns(small, **{"text.of.all": pa.array(["x"] * 40)} | values)
    pool = Pool(small)
    assert pool.numbers[name].tolist() == list(range(40))
    assert pool.matching(Filter(bounds=(Bound(column=name, low=10, high=19),))).sum() == 10
    kept = pool.select(options(ratio=1.0, bounds=[f"{name}:10:19"])).kept
    assert np.flatnonzero(kept).tolist() == list(range(10, 20))


def test_a_column_of_the_source_hides_no_topics(small):
    set_source_columns(small, **{TOPIC: pa.array(["x"] * 40)})
    assert len(Pool(small).categories[TOPIC].names) == 3


def test_a_run_without_topics_or_source_columns(small):
    for file in (small.clusters_file, small.features_file):
        file.unlink()
    samples = pq.read_table(small.samples_file).drop_columns(["columns"])
    pq.write_table(samples, small.samples_file)
    pool = Pool(small)
    assert pool.cluster is None
    assert pool.categories == {}
    assert pool.near_duplicates(0) == []
    with pytest.raises(SelectionError, match="needs clusters"):
        pool.select(options(draw="stratified"))
    assert preview(pool, options()).count == 4


def test_no_pool_before_the_scores(small):
    small.scores_file.unlink()
    with pytest.raises(RunError, match=r"no scores\.parquet yet"):
        api.load_pool(small)


def test_positions_leave_out_strangers(pool):
    ids = pool.scores.sample_id
    assert pool.positions(np.array([ids[7], -1, 10**12, ids[0]])).tolist() == [7, 0]
    assert pool.positions(ids).tolist() == list(range(len(pool)))


def test_kept_reads_a_saved_selection(pool):
    assert len(pool.run.selection_names()) >= 5
    for name in pool.run.selection_names():
        record, table = api.read_selection(pool.run, name)
        assert (pool.kept(name) == table["kept"].to_numpy()).all()
        assert pool.kept(name).sum() == record.samples.kept


# -- filter


@pytest.mark.parametrize("text", ["insulin", "THE", "  blood pressure ", "a.*b", "(", "é", "zzzz"])
def test_text_is_found_as_by_a_plain_search(pool, text):
    """As text, not as a pattern; upper and lower case alike."""
    wanted = text.strip().lower()
    expected = [
        any(wanted in row[key].lower() for key in ("question", "answer"))
        for row in (rows()[i] for i in pool.scores.sample_id)
    ]
    assert pool.matching(Filter(text=text)).tolist() == expected


def test_blank_text_is_no_filter(pool):
    assert pool.matching(Filter(text="   ")).all()
    assert pool.matching(Filter()).all()


def test_every_part_of_a_filter_narrows(pool):
    bound = Bound(column="loss", low=2.0, high=3.0)
    corners = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
    parts = [
        Filter(bounds=(bound,)),
        Filter(lassos=(("embed_signal", "head_signal", corners),)),
        Filter(clusters=(0, 3)),
        Filter(text="the"),
    ]
    loss, embed, head = (pool.numbers[n] for n in ("loss", "embed_signal", "head_signal"))
    expected = [
        (loss >= 2.0) & (loss <= 3.0),
        (np.abs(embed) < 1) & (np.abs(head) < 1),
        (pool.cluster == 0) | (pool.cluster == 3),
    ]
    expected.append(
        [any("the" in row[k].lower() for k in ("question", "answer")) for row in rows()]
    )
    for part, mask in zip(parts, expected, strict=True):
        np.testing.assert_array_equal(pool.matching(part), mask)
    both = Filter((bound,), parts[1].lassos, (0, 3), "the")
    every = np.logical_and.reduce([pool.matching(part) for part in parts])
    assert 0 < every.sum() < len(pool)
    np.testing.assert_array_equal(pool.matching(both), every)


def test_open_ends_of_a_bound(pool):
    loss = pool.numbers["loss"]
    low = pool.matching(Filter(bounds=(Bound(column="loss", low=2.5),)))
    high = pool.matching(Filter(bounds=(Bound(column="loss", high=2.5),)))
    np.testing.assert_array_equal(low, loss >= 2.5)
    np.testing.assert_array_equal(high, loss <= 2.5)


def test_a_bound_on_an_unknown_column_names_those_there_are(pool):
    with pytest.raises(SelectionError, match="loss"):
        pool.matching(Filter(bounds=(Bound(column="nope"),)))


# -- polygon


def test_square_and_its_neighbourhood():
    x, y = np.array([1, 3, 1, -1, 1]), np.array([1, 1, 3, 1, -1])
    assert inside_polygon(x, y, SQUARE).tolist() == [True, False, False, False, False]


def test_corners_in_either_order_and_from_any_start():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 3, (2, 500))
    expected = (x > 0) & (x < 2) & (y > 0) & (y < 2)
    for turned in (
        SQUARE,
        SQUARE[::-1],
        np.roll(SQUARE, 1, axis=0),
        np.vstack([SQUARE, SQUARE[0]]),
    ):
        np.testing.assert_array_equal(inside_polygon(x, y, turned), expected)


def test_a_concave_shape():
    """An L: the notch is outside."""
    corners = np.array([(0, 0), (3, 0), (3, 1), (1, 1), (1, 3), (0, 3)])
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-1, 4, (2, 2000))
    across = (x > 0) & (x < 3) & (y > 0) & (y < 1)
    up = (x > 0) & (x < 1) & (y > 0) & (y < 3)
    np.testing.assert_array_equal(inside_polygon(x, y, corners), across | up)


def test_a_shape_drawn_over_itself():
    """Even-odd: the middle of a five-pointed star, wound round twice, is outside."""
    angles = np.pi / 2 + np.arange(5) * 4 * np.pi / 5
    star = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    x, y = np.array([0.0, 0.0, 0.0]), np.array([0.0, 0.6, 0.95])
    assert inside_polygon(x, y, star).tolist() == [False, True, True]


@pytest.mark.parametrize("seed", range(5))
def test_convex_shapes_by_half_planes(seed):
    """Inside a convex shape is left of each of its edges."""
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
    corners = np.stack([2 * np.cos(angles), np.sin(angles)], axis=1)
    x, y = rng.uniform(-2.5, 2.5, (2, 3000))
    left = np.ones(len(x), bool)
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        left &= (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) > 0
    np.testing.assert_array_equal(inside_polygon(x, y, corners), left)


def test_a_line_and_a_missing_number_hold_nothing():
    x, y = np.array([1.0, np.nan, 1.0]), np.array([0.5, 1.0, np.nan])
    assert not inside_polygon(x, y, np.array([(0, 0), (2, 1)])).any()
    assert inside_polygon(x, y, SQUARE).tolist() == [True, False, False]


# -- numbers of one sample


@pytest.mark.parametrize("highest_first", [True, False])
def test_the_order_of_all_by_sorting_them_plainly(pool, highest_first):
    """Ties by id, whichever way; of numbers, topics and texts."""
    among = pool.scores.response_tokens > 20
    values = {name: pool.numbers[name].tolist() for name in ("signal", "response_tokens")}
    topics = pool.categories[TOPIC]
    values[TOPIC] = [topics.names[code] for code in topics.code]
    kinds = pool.categories["kind"]
    values["kind"] = [kinds.names[code] for code in kinds.code]
    assert set(values) <= set(pool.sortable)
    for column, found in values.items():
        order = sorted(range(len(pool)), key=found.__getitem__, reverse=highest_first)
        expected = [i for i in order if among[i]]
        for _ in range(2):
            assert pool.ordered(column, among, highest_first).tolist() == expected


@pytest.mark.parametrize("highest_first", [True, False])
def test_a_missing_number_comes_last(pool, highest_first):
    values = pool.scores.loss.copy()
    values[::2] = np.nan
    pool = Pool(pool.run)
    pool.numbers["holes"] = values
    found = values[pool.ordered("holes", np.ones(len(pool), bool), highest_first)]
    assert found[:150].tolist() == sorted(values[1::2], reverse=highest_first)
    assert np.isnan(found[150:]).all()


def test_percentile_counts_ties_half(pool):
    values = pool.numbers["response_tokens"]
    counts = Counter(values.tolist())
    tied = next(i for i, v in enumerate(values.tolist()) if counts[v] > 1)
    own = values[tied]
    below, same = sum(v < own for v in values), sum(v == own for v in values)
    expected = 100 * (below + same / 2) / len(values)
    assert pool.percentile("response_tokens", tied) == pytest.approx(expected)


def test_percentiles_of_all_average_to_a_half(pool):
    found = [pool.percentile("loss", i) for i in range(len(pool))]
    assert np.mean(found) == pytest.approx(50)
    assert min(found) > 0
    assert max(found) < 100


@pytest.mark.parametrize("position", [0, 17, 299])
@pytest.mark.parametrize("count", [1, 3, 10])
def test_neighbours_by_brute_force(pool, position, count):
    among = np.arange(len(pool)) % 3 != 0
    distance = ((pool.features - pool.features[position]) ** 2).sum(axis=1)
    found = pool.neighbours(position, among, count)
    assert len(found) == count
    assert position not in found
    assert among[found].all()
    allowed = [i for i in np.flatnonzero(among) if i != position]
    expected = sorted(distance[allowed])[:count]
    np.testing.assert_allclose(distance[found], expected, atol=1e-5)


def test_fewer_neighbours_than_asked_for(pool):
    among = np.zeros(len(pool), bool)
    assert pool.neighbours(5, among, 3) == []
    among[[5, 9]] = True
    assert pool.neighbours(5, among, 3) == [9]
    assert len(pool.neighbours(5, np.ones(len(pool), bool), 1000)) == len(pool) - 1


def test_near_duplicates_are_each_others(pool):
    groups = pool.duplicate_group
    paired = np.flatnonzero(groups >= 0)
    assert len(paired)
    for position in paired[:20]:
        others = pool.near_duplicates(int(position))
        assert others
        assert position not in others
        assert all(position in pool.near_duplicates(other) for other in others)
    assert pool.near_duplicates(int(np.flatnonzero(groups < 0)[0])) == []


# -- choosing


@pytest.mark.parametrize(
    "values",
    [
        {"ratio": 0.05},
        {"ratio": 0.5, "focus": -1.5},
        {"ratio": 0.2, "typicality": 0.0, "focus": 2.0},
        {"ratio": 0.2, "budget_unit": "tokens"},
        {"ratio": 0.1, "draw": "stratified"},
        {"ratio": 0.1, "draw": "sample", "seed": 4},
        {"ratio": 0.1, "criterion": "magnitude"},
        {"ratio": None, "auto": True},
        {"ratio": 0.3, "signal": "head", "length_control": "none"},
        {"ratio": 0.5, "bounds": [{"column": "loss", "low": 2.5}]},
    ],
)
def test_remembered_signals_change_nothing(pool, values):
    """The pool selects as the plain function does, however often and in whatever order."""
    plain = selection.select(pool.scores, options(**values), pool.numbers, pool.cluster)
    for _ in range(2):
        np.testing.assert_array_equal(pool.select(options(**values)).kept, plain.kept)


# -- preview


@pytest.mark.parametrize("percent", [2.5, 5, 10, 25, 50, 100])
def test_preview_numbers_by_hand(pool, percent):
    shown = preview(pool, options(ratio=percent / 100))
    table = pq.read_table(pool.run.scores_file).to_pandas()
    norm = np.sqrt(table["embed_grad_norm"] ** 2 + table["head_grad_norm"] ** 2)
    assert shown.count == round(percent / 100 * 300)
    assert shown.response_tokens == {
        "kept": table["response_tokens"][shown.kept].sum(),
        "pool": table["response_tokens"].sum(),
    }
    assert shown.signal_share == pytest.approx(norm[shown.kept].sum() / norm.sum())
    share = shown.count / 300
    assert shown.random_tokens.mean == pytest.approx(share * table["response_tokens"].sum())
    assert shown.random_signal_share.mean == pytest.approx(share)


def test_a_saved_selection_holds_what_random_subsets_have_on_average(run, pool):
    record = api.select_samples(run, "numbers", options(ratio=0.25))
    assert record.response_tokens.random == round(pool.scores.response_tokens.sum() / 4)


def test_price_by_hand(pool):
    """Seconds a token of the warm-up, times the tokens; what choosing cost, over what it saves."""
    shown = preview(pool, options(ratio=0.25))
    seconds = pool.run.read_manifest().seconds
    tokens = pq.read_table(pool.run.scores_file, columns=["prompt_tokens", "response_tokens"])
    tokens = sum(column.to_numpy() for column in tokens.columns)
    each = seconds["warm-up"] / tokens.sum()  # one epoch over all samples
    price = shown.price
    assert price.epoch_all == pytest.approx(seconds["warm-up"])
    assert price.epoch_kept == pytest.approx(each * tokens[shown.kept].sum())
    chose = ("warm-up", "self-check", "score", "extras")
    assert price.choosing == pytest.approx(sum(seconds[stage] for stage in chose))
    expected = price.choosing / (price.epoch_all - price.epoch_kept)
    assert price.break_even == pytest.approx(expected)


def test_keeping_everything_never_pays(pool):
    assert preview(pool, options(ratio=1.0)).price.break_even is None


def test_price_of_part_of_the_pool_and_several_epochs(run):
    """A warm-up of two epochs on half of the pool."""
    values = run.config_values() | {"epochs": 2.0, "warmup_fraction": 0.5}
    run.config_file.write_text(json.dumps(values))
    run.update_manifest(warmup={"kind": "lora", "samples": 150})
    seconds = run.read_manifest().seconds["warm-up"]
    assert preview(Pool(run), options()).price.epoch_all == pytest.approx(seconds)


def test_no_price_without_a_warmup(run):
    run.update_manifest(warmup={"kind": "none", "samples": 0})
    price = preview(Pool(run), options()).price
    assert (price.epoch_kept, price.epoch_all, price.break_even) == (None, None, None)


@pytest.mark.parametrize("by", [TOPIC, "topic", "kind"])
def test_coverage_sums_to_the_subsets(pool, by):
    shown = preview(pool, options(ratio=0.2))
    found = coverage(pool, shown, by)
    assert sum(row.pool for row in found) == len(pool)
    assert sum(row.kept for row in found) == shown.count
    assert sum(row.random.mean for row in found) == pytest.approx(shown.count)
    assert [row.pool for row in found] == sorted((row.pool for row in found), reverse=True)
    names = [pool.categories[by].names[code] for code in pool.categories[by].code[shown.kept]]
    assert {row.name: row.kept for row in found if row.kept} == dict(Counter(names))


def test_emptied_says_how_many_a_random_subset_would_keep():
    """5 of 20 are kept, so a random subset would hold a quarter of each on average."""
    found = [
        Coverage(name, mine, kept, random_count(mine, 20, 5))
        for name, mine, kept in (("a", 10, 5), ("b", 6, 0), ("c", 4, 0))
    ]
    assert emptied(found) == {"b": 1.5, "c": 1.0}


def test_overlap_by_hand():
    first = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
    second = np.array([0, 1, 1, 1, 1, 0, 0, 0], bool)
    assert vars(overlap(first, second)) == {
        "both": 2,
        "only_first": 1,
        "only_second": 2,
        "jaccard": 2 / 5,
        "by_chance": 3 * 4 / 8,
    }
    nothing = np.zeros(8, bool)
    assert overlap(nothing, nothing).jaccard == 1.0
    assert overlap(first, nothing).jaccard == 0.0


# -- decisions by people


def test_the_last_word_on_a_sample_counts(run):
    api.decide(run, 5, "pin", " a fine answer ", reviewer=" Dr Ada ")
    api.decide(run, 6, "exclude", "wrong dose")
    api.decide(run, 5, "exclude", "looked again", reviewer="Bo")
    found = api.decisions(run)
    assert sorted(found) == [5, 6]
    assert (found[5].decision, found[5].reason, found[5].reviewer) == (
        "exclude",
        "looked again",
        "Bo",
    )
    assert [row["decision"] for row in run.read_decisions()] == ["pin", "exclude", "exclude"]
    assert run.read_decisions()[0]["reason"] == "a fine answer"
    assert run.read_decisions()[0]["reviewer"] == "Dr Ada"


def test_clear_leaves_a_sample_to_the_numbers(run):
    api.decide(run, 5, "pin")
    api.decide(run, 5, "clear")
    assert api.decisions(run) == {}
    assert api.with_decisions(run, options()) == options()
    api.decide(run, 5, "exclude")
    assert api.with_decisions(run, options()).excluded == (5,)


def test_pins_and_exclusions_hold(run):
    pool = Pool(run)
    before = pool.select(options()).kept
    inside, outside = (int(pool.scores.sample_id[np.argmax(m)]) for m in (before, ~before))
    api.decide(run, outside, "pin")
    api.decide(run, inside, "exclude")
    after = preview(pool, api.with_decisions(run, options())).kept
    assert after.sum() == before.sum(), "people do not change the budget"
    assert after[pool.positions(np.array([outside]))].all()
    assert not after[pool.positions(np.array([inside]))].any()


def test_options_win_over_people(run):
    """Where the options name a sample, they are what was asked for now."""
    api.decide(run, 5, "exclude")
    api.decide(run, 6, "pin")
    api.decide(run, 7, "pin")
    made = api.with_decisions(run, options(pins=[5], excluded=[6]))
    assert made.pins == (5, 7)
    assert made.excluded == (6,)


def test_decisions_go_into_the_record(run):
    api.decide(run, 5, "pin", "clear", reviewer="Ada")
    api.decide(run, 6, "exclude")
    record = api.select_samples(run, "reviewed", options(excluded=[5]))
    assert record.options.excluded == (5, 6)
    assert record.options.pins == ()


def test_a_record_holds_no_decision_that_was_overruled(run):
    """A pin that the options overrule is not what made the subset."""
    api.decide(run, 5, "pin", "clear", reviewer="Ada")
    record = api.select_samples(run, "overruled", options(excluded=[5]))
    assert record.decisions == []


def vetoed_and_pinned(run, name="grads-10"):
    """A sample that a saved selection keeps, now never kept, and one that it leaves out, pinned."""
    kept = kept_ids(run, name)
    veto = int(kept[0])
    pin = int(np.setdiff1d(api.load_pool(run).scores.sample_id, kept)[3])
    api.decide(run, veto, "exclude", "wrong dose", reviewer="Dr Ada")
    api.decide(run, pin, "pin")
    return veto, pin


@pytest.mark.parametrize("kind", ["jsonl", "trl", "csv"])
def test_a_veto_reaches_the_export_of_an_earlier_selection(run, kind):
    """Row 0 was in the file, without a warning, and the manifest said `decisions: []`."""
    before = kept_ids(run, "grads-10")
    assert api.stale(run, "grads-10") == []
    veto, pin = vetoed_and_pinned(run)
    assert [(d.sample_id, d.decision) for d in api.stale(run, "grads-10")] == [
        (veto, "exclude"),
        (pin, "pin"),
    ]
    manifest = api.export_selection(run, "grads-10", kind)
    expected = sorted({*before.tolist(), pin} - {veto})
    assert manifest["rows"] == len(expected) == 30
    assert manifest["decided_since"] == [veto, pin]
    assert [made["sample_id"] for made in manifest["decisions"]] == [veto, pin]
    assert manifest["decisions"][0]["reason"] == "wrong dose"
    assert f"row {veto}, {pin}" in api.changed_lines(manifest)[0]
    if kind == "jsonl":
        rows = run.read_samples(expected)
        written = next(Path(manifest["path"]).glob("*.jsonl")).read_bytes()
        assert written == b"".join(rows[sample]["raw"] for sample in expected)


def test_first_words_are_those_of_the_question_or_of_the_first_text(run):
    pool = Pool(run)
    everything = np.arange(len(pool))
    samples = run.read_samples(pool.scores.sample_id.tolist())
    wanted = []
    for sample in pool.scores.sample_id.tolist():
        turns = samples[sample]["turns"]
        asked = [turn["content"] for turn in turns if turn["role"] == "user"]
        first = (asked or [turn["content"] for turn in turns])[0]
        wanted.append(" ".join(first[:160].split()))
    assert pool.first_words(everything) == wanted
    assert pool.first_words(everything[[7, 3]]) == [wanted[7], wanted[3]]


def test_one_of_each_group_takes_groups(run):
    """Where a run has not looked for near-duplicates yet, all of them were kept."""
    once = options(deduplicate=True)
    kept = Pool(run).select(once).kept
    group = Pool(run).duplicate_group[kept]
    assert len(np.unique(group[group >= 0])) == (group >= 0).sum()
    run.clusters_file.unlink()
    with pytest.raises(SelectionError, match="has not looked for yet"):
        Pool(run).select(once)


def test_a_selection_saved_again_is_stale_no_more(run):
    veto, pin = vetoed_and_pinned(run)
    options = api.read_record(run, "grads-10").options
    api.select_samples(run, "grads-10", options)
    assert api.stale(run, "grads-10") == []
    manifest = api.export_selection(run, "grads-10", "jsonl")
    assert manifest["decided_since"] == []
    assert {made["sample_id"] for made in manifest["decisions"]} == {veto, pin}
    assert api.stale(run, "random-10"), "the others are as they were"


def test_a_word_said_after_the_options_overruled_one_counts(run):
    """Options win over what was decided before them, not over what is decided later."""
    veto, _ = vetoed_and_pinned(run)
    record = api.select_samples(run, "mine", options(pins=[veto]))
    assert veto in kept_ids(run, "mine")
    assert veto not in [made.sample_id for made in api.stale(run, "mine")]
    later = record.model_copy(update={"made": "2026-01-01T00:00:00+00:00"})
    later.write(run.selection_file("mine"))
    assert veto in [made.sample_id for made in api.stale(run, "mine")]


def test_a_veto_against_everything_leaves_no_export(run):
    for sample in kept_ids(run, "grads-10").tolist():
        api.decide(run, sample, "exclude")
    with pytest.raises(ExportError, match="choose anew"):
        api.export_selection(run, "grads-10", "jsonl")


def test_decisions_on_the_command_line(run):
    veto, pin = (int(kept_ids(run, "grads-10")[0]), 3)
    where = ("--run-dir", str(run.path))
    done = command(
        *("decide", *where, "--exclude", str(veto), "--pin", str(pin)),
        *("--reason", "wrong dose", "--reviewer", "Dr Ada"),
    )
    assert done.returncode == 0, done.stderr
    assert f"sample {veto} is never kept by Dr Ada: wrong dose" in done.stdout
    assert "selection grads-10 is stale" in done.stdout
    listed = json.loads(command("decisions", *where, "--json").stdout)
    assert {made["sample_id"] for made in listed["decisions"]} == {veto, pin}
    assert veto in listed["stale"]["grads-10"]
    cleared = command("decide", *where, "--clear", str(veto), "--clear", str(pin))
    assert cleared.stdout.strip() == "nobody has decided anything"
    assert command("decide", *where).returncode == 2
    unknown = command("decide", *where, "--pin", "5", "--exclude", "4000")
    assert unknown.returncode == 1
    assert "no sample 4000" in unknown.stderr
    assert api.decisions(run) == {}, "none is noted where one cannot be"
    twice = command("decide", *where, "--pin", "5", "--exclude", "5")
    assert "named twice" in twice.stderr


def test_no_decision_about_what_is_not_in_the_pool(small):
    samples = pq.read_table(small.samples_file)
    index = samples.schema.get_field_index("heldout")
    heldout = pa.array([i == 39 for i in range(40)])
    pq.write_table(samples.set_column(index, "heldout", heldout), small.samples_file)
    with pytest.raises(RunError, match="held out"):
        api.decide(small, 39, "pin")
    with pytest.raises(RunError, match="no sample 4000"):
        api.decide(small, 4000, "pin")
    assert small.read_decisions() == []


# -- data places and uploads


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """An allowed folder, and one beside it that is not."""
    allowed, other, runs = (tmp_path / name for name in ("allowed", "other", "runs"))
    for folder in (allowed, other, runs):
        folder.mkdir()
    monkeypatch.setenv("GRADS_DATA_DIRS", str(allowed))
    monkeypatch.setenv("GRADS_RUNS_DIR", str(runs))
    return allowed, other


def test_data_may_lie_below_the_allowed_folders(folders):
    allowed, _ = folders
    for text in (str(allowed / "a.jsonl"), f"  {allowed / 'b'}  ", "tests", "", "owner/name"):
        assert api.data_place(text) == text.strip()


def test_a_relative_path_lies_below_the_first_allowed_folder_that_has_it(folders):
    """An installed dashboard works in its own folder: what its user names lies elsewhere."""
    allowed, other = folders
    for folder in (allowed, other, other.parent / "runs"):
        (folder / "demo").mkdir()
        (folder / "demo" / "a.jsonl").write_text("{}")
    assert api.data_place("demo/a.jsonl") == str(allowed / "demo" / "a.jsonl")
    assert api.data_place("demo/b.jsonl") == "demo/b.jsonl", "that it is nowhere, its reader says"
    assert api.model_place("demo") == "demo", "the model of that name, not the run"
    with pytest.raises(DataError, match="GRADS_DATA_DIRS"):
        api.data_place("../other/demo/a.jsonl")


def test_data_elsewhere_are_refused_with_what_to_do(folders):
    allowed, other = folders
    (other / "a.jsonl").write_text("{}")
    (allowed / "link.jsonl").symlink_to(other / "a.jsonl")
    places = [
        other / "a.jsonl",
        "/etc/passwd",
        "~/.ssh/id_rsa",
        "../../etc/passwd",
        f"{allowed}/../other/a.jsonl",
        f"{allowed}2/a.jsonl",
        allowed / "link.jsonl",
    ]
    for place in places:
        with pytest.raises(DataError, match="GRADS_DATA_DIRS") as caught:
            api.data_place(str(place))
        assert str(allowed) in str(caught.value), place


@pytest.mark.parametrize("linked", ["train/data.arrow", "train"])
def test_a_saved_folder_holds_no_link_to_elsewhere(folders, linked):
    """Not in the folder of a split either: each is a file that would be read."""
    allowed, other = folders
    train = allowed / "saved" / "train"
    train.mkdir(parents=True)
    for file in ("saved/dataset_dict.json", "saved/train/state.json", "saved/train/a.arrow"):
        (allowed / file).write_text("{}")
    assert api.data_place(str(allowed / "saved")) == str(allowed / "saved")
    (other / "data.arrow").write_text("secret")
    if linked == "train":
        train.rename(allowed / "away")
        train.symlink_to(other)
    else:
        (allowed / "saved" / linked).symlink_to(other / "data.arrow")
    with pytest.raises(DataError, match="GRADS_DATA_DIRS"):
        api.data_place(str(allowed / "saved"))


def test_a_model_folder_holds_no_link_to_elsewhere(folders):
    """Its chat template is shown with every sample: it could be any text of this machine."""
    allowed, other = folders
    (allowed / "m" / "more").mkdir(parents=True)
    (allowed / "m" / "config.json").write_text("{}")
    (allowed / "blob").write_text("{}")
    (allowed / "m" / "tokenizer.json").symlink_to(allowed / "blob")
    assert api.model_place(str(allowed / "m")) == str(allowed / "m")
    (other / "secret").write_text("secret")
    (allowed / "m" / "more" / "chat_template.jinja").symlink_to(other / "secret")
    with pytest.raises(ModelError, match="GRADS_DATA_DIRS"):
        api.model_place(str(allowed / "m"))


def test_models_are_held_to_the_same_folders(folders):
    allowed, other = folders
    for text in ("demo", "owner/name", f" {allowed / 'model'} "):
        assert api.model_place(text) == text.strip()
    with pytest.raises(ModelError, match="GRADS_DATA_DIRS"):
        api.model_place(str(other))


@pytest.mark.parametrize("text", ["~no_such_person/data.jsonl", "a/" * 3000, "x" * 400])
def test_what_can_be_no_path_is_refused(folders, text):
    with pytest.raises(DataError, match="no path that can be read"):
        api.data_place(text)


def test_the_same_upload_is_kept_once(folders):
    first = api.save_upload("train.jsonl", b'{"a": 1}\n')
    again = api.save_upload("train.jsonl", b'{"a": 1}\n')
    other = api.save_upload("train.jsonl", b'{"a": 2}\n')
    assert first == again != other
    files = [p for p in (folders[0].parent / "runs").rglob("*") if p.is_file()]
    assert sorted(map(str, files)) == sorted([first, other])
    assert api.data_place(first) == first, "an upload lies where data may lie"


@pytest.mark.parametrize(
    "name",
    [
        *["../../evil.jsonl", "a b;rm -rf.jsonl", "/etc/passwd", "数据.jsonl", ".hidden"],
        *["a\x00b.csv", "a/../../x", "..", ".", "", "\0", "a\nb\x1b[2J.jsonl", "x" * 400],
        *["<b>.csv", "=1+1.csv"],
    ],
)
def test_odd_names_are_tamed(folders, name):
    place = Path(api.save_upload(name, b"x"))
    uploads = folders[0].parent / "runs" / ".uploads"
    assert place.resolve().is_relative_to(uploads)
    assert place.parent.parent == uploads
    assert place.is_file()
    assert place.read_bytes() == b"x"
    assert not set(place.name) & set("/ ;\x00\n\x1b<>=")
    assert len(place.name) <= 100


def test_old_drafts_are_removed_and_fresh_ones_stay(tmp_path, monkeypatch):
    """Each draft holds a copy of its data."""
    started = []
    monkeypatch.setattr(jobs, "start", lambda folder, at_once: started.append(folder.id))
    root = str(tmp_path)
    old, fresh = (
        api.check(RunConfig(dataset="a.jsonl", seed=seed), "data", root) for seed in (1, 2)
    )
    day = 2 * 86_400
    os.utime(old.path, (time.time() - day, time.time() - day))
    api.check(RunConfig(dataset="a.jsonl", seed=3), "data", root)
    assert not old.path.exists()
    assert fresh.path.exists()
    assert len(started) == 3


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "x" * 300 + ".jsonl",
    ],
)
def test_impossible_names_still_make_a_file(folders, name):
    place = Path(api.save_upload(name, b"x"))
    assert place.is_file()
    assert place.resolve().is_relative_to(folders[0].parent / "runs" / ".uploads")


# -- bundles


def test_a_folder_is_bundled_as_a_zip(run):
    manifest = api.export_selection(run, "grads-10", "llamafactory")
    place = Path(manifest["path"])
    name, content = api.bundle(place)
    called = f"{run.id}-grads-10-llamafactory"
    assert name == f"{called}.zip", "it tells what it is among other downloads"
    with zipfile.ZipFile(BytesIO(content)) as archive:
        assert archive.testzip() is None
        files = {n for n in archive.namelist() if not n.endswith("/")}
        assert {n for n in files if not n.startswith(f"{called}/tokens/")} == {
            f"{called}/{n}"
            for n in ("train.jsonl", "dataset_info.json", "llamafactory.yaml", "manifest.json")
        }
        members = (path for path in place.rglob("*") if path.is_file())
        assert files == {f"{called}/{path.relative_to(place).as_posix()}" for path in members}
        lines = archive.read(f"{called}/train.jsonl").splitlines()
        stored = json.loads(archive.read(f"{called}/manifest.json"))
    assert len(lines) == stored["rows"] == manifest["rows"] == 30


def test_a_file_is_its_own_bundle(run, tmp_path):
    out = tmp_path / "mine.jsonl"
    api.export_selection(run, "grads-10", "jsonl", out)
    assert api.bundle(out) == ("mine.jsonl", out.read_bytes())


def test_a_bundle_of_nothing_is_no_empty_file(tmp_path):
    """The export was removed meanwhile: an error, not a zip without files."""
    with pytest.raises(RunError):
        api.bundle(tmp_path / "gone")


# -- watching


def marks(run: Run, status: Status) -> list[str]:
    return [stage.state for stage in watch.stages(run, status)]


def test_stages_of_a_finished_run(run):
    found = watch.stages(run, run.read_status())
    assert [stage.name for stage in found] == list(watch.STAGES)
    assert {stage.state for stage in found} == {"done"}
    seconds = run.read_manifest().seconds
    assert {stage.name: stage.seconds for stage in found} == seconds


@pytest.mark.parametrize("state", ["running", "stopping", "stopped", "failed", "interrupted"])
def test_stages_before_the_end(run, state):
    """What lies before the stage is done, what lies behind it waits; only a live one runs."""
    set_state(run, state, stage="self-check")
    now = "now" if state in ("running", "stopping") else "broken off"
    assert marks(run, jobs.observe(run)) == [*["done"] * 3, now, *["waiting"] * 3]


def test_without_an_estimate_the_end_is_foreseen_from_the_warm_up(run):
    """A scoring of 0.8 of an epoch of LoRA, here of a quarter of the samples."""
    values = json.loads(run.config_file.read_text())
    run.config_file.write_text(json.dumps(values | {"warmup_fraction": 0.25}))
    run.update_manifest(seconds={})
    set_state(run, "running", stage="prepare")
    assert watch.left(run, jobs.observe(run)) is None
    set_state(run, "running", stage="warm-up")
    assert watch.left(run, jobs.observe(run)) is None
    set_state(run, "running", stage="warm-up", done=25, total=100, eta_s=30.0)
    assert watch.left(run, jobs.observe(run)) == pytest.approx(30 + 0.8 * 40 / 0.25)
    run.update_manifest(seconds={"warm-up": 50.0})
    set_state(run, "running", stage="self-check")
    assert watch.left(run, jobs.observe(run)) == pytest.approx(0.8 * 50 / 0.25)
    set_state(run, "running", stage="score", done=10, total=100, eta_s=90.0)
    assert watch.left(run, jobs.observe(run)) == 90.0
    set_state(run, "running", stage="cluster")
    assert watch.left(run, jobs.observe(run)) is None
    run.config_file.write_text(json.dumps(values | {"warmup_from": "other"}))
    set_state(run, "running", stage="self-check")
    assert watch.left(run, jobs.observe(run)) is None, "no time was spent on that warm-up"
    run.config_file.write_text(json.dumps(values | {"when": "during"}))
    run.update_manifest(seconds={})
    set_state(run, "running", stage="warm-up", done=25, total=100, eta_s=30.0)
    assert watch.left(run, jobs.observe(run)) == 30.0


def test_the_end_of_the_whole_run_is_foreseen_from_the_estimate(run):
    set_state(run, "running", stage="warm-up", eta_s=30.0)
    expected = {"warm-up": 100.0, "self-check": 5.0, "score": 200.0}
    run.estimate_file.write_text(json.dumps({"seconds": expected}))
    assert watch.left(run, jobs.observe(run)) == 235.0
    set_state(run, "running", stage="score")
    assert watch.left(run, jobs.observe(run)) == 200.0
    set_state(run, "stopped", stage="score")
    assert watch.left(run, jobs.observe(run)) is None


def test_a_rough_price_at_once_by_the_speed_of_an_earlier_run(run):
    """As many tokens at the rates of the newest run of the same model; else none."""
    seconds, config = run.read_manifest().seconds, run.config()
    same = api.rough_cost(config, run, str(run.root))
    assert same == (run.id, pytest.approx(seconds["score"] + seconds["warm-up"]))
    twice = config.model_copy(update={"epochs": 2 * config.epochs})
    assert api.rough_cost(twice, run, str(run.root))[1] == pytest.approx(
        seconds["score"] + 2 * seconds["warm-up"]
    )
    none = config.model_copy(update={"warmup": "none"})
    assert api.rough_cost(none, run, str(run.root))[1] == pytest.approx(seconds["score"])
    half = config.model_copy(update={"warmup_fraction": 0.5 * config.warmup_fraction})
    assert api.rough_cost(half, run, str(run.root))[1] == pytest.approx(
        seconds["score"] + 0.5 * seconds["warm-up"]
    )
    for change in ({"model": "another"}, {"when": "during"}):
        assert api.rough_cost(config.model_copy(update=change), run, str(run.root)) is None


def test_stages_that_only_some_runs_have(run):
    """Listed where the settings ask for them, and where they were asked for later."""
    config = run.config_values() | {"targets": {}, "protected": {}, "extras": []}
    run.config_file.write_text(json.dumps(config))
    run.update_manifest(probes={}, made={})
    everyones = ["prepare", "warm-up", "self-check", "score", "cluster"]
    assert [stage.name for stage in watch.stages(run, run.read_status())] == everyones
    run.config_file.write_text(json.dumps(config | {"targets": {"good": "/data/good.jsonl"}}))
    found = [stage.name for stage in watch.stages(run, run.read_status())]
    assert found == ["prepare", "probe sets", *everyones[1:]]
    run.config_file.write_text(json.dumps(config))
    run.update_manifest(made={"extras": {}})
    found = [stage.name for stage in watch.stages(run, run.read_status())]
    assert found == [*everyones[:-1], "extras", "cluster"]


def test_stages_of_a_run_in_the_queue(run):
    set_state(run, "queued")
    run.manifest_file.unlink()
    found = watch.stages(run, run.read_status())
    assert {stage.state for stage in found} == {"waiting"}
    assert {stage.seconds for stage in found} == {None}


def test_a_run_without_warmup_skips_it(run):
    run.config_file.write_text(json.dumps(run.config_values() | {"warmup": "none"}))
    assert marks(run, run.read_status()) == ["done", "done", "skipped", *["done"] * 4]
    set_state(run, "running", stage="prepare")
    assert marks(run, run.read_status()) == ["now", "waiting", "skipped", *["waiting"] * 4]


def test_of_a_step_done_twice_the_last_line_counts(run):
    run.metrics_file.write_text(
        '{"stage": "score", "step": 1, "loss": 3.0}\n'
        '{"stage": "score", "step": 2, "loss": 2.5}\n'
        '{"stage": "warm-up", "step": 1, "loss": 9.0}\n'
        '{"stage": "score", "step": 1, "loss": 2.0}\n'
        '{"stage": "score", "st'
    )
    found = watch.metrics(run)
    assert {stage: len(lines) for stage, lines in found.items()} == {"score": 2, "warm-up": 1}
    assert found["score"][0]["loss"] == 2.0


def test_the_log_is_read_from_its_end(run):
    assert watch.log_tail(run) == ""
    run.log_file.write_text("é" * watch.LOG_BYTES + "\nthe end\n", encoding="utf-8")
    text = watch.log_tail(run)
    assert text.endswith("the end\n")
    assert len(text.encode()) <= watch.LOG_BYTES + 10


def test_the_machine_is_seen_only_while_the_job_lives(run):
    set_state(run, "running")
    now = watch.machine(run.read_status())
    assert now is not None
    assert 0 < now.memory < now.total_memory
    set_state(run, "interrupted")
    assert watch.machine(run.read_status()) is None


def test_a_run_from_before_a_column_opens_without_it(tmp_path, monkeypatch):
    """A later version may measure more; what was scored before keeps its own columns."""
    later = Column("later", "Later", "Measured since.", pa.float32(), measured=True)
    monkeypatch.setitem(SCORES, "later", later)
    numbers = Pool(demo_run(tmp_path)).numbers
    assert "later" not in numbers
    assert {"signal", "loss", "prompt_tokens"} <= numbers.keys()


def test_an_outline_holds_nearly_what_the_drawn_shape_holds():
    """A hand-drawn shape of 600 corners, as 40 of them that fit into a link."""
    angle = np.linspace(0, 2 * np.pi, 600, endpoint=False)
    radius = 1 + 0.3 * np.sin(3 * angle) + 0.01 * np.random.default_rng(0).normal(size=600)
    drawn = tuple(zip(3000 * radius * np.cos(angle), radius * np.sin(angle), strict=True))
    short = outline(drawn, 40)
    assert len(short) == 40
    assert set(short) <= set(drawn)
    x, y = np.random.default_rng(1).uniform(-1.5, 1.5, (2, 5000)) * [[3000], [1]]
    whole = inside_polygon(x, y, np.array(drawn))
    assert 0.2 < whole.mean() < 0.8
    assert (whole == inside_polygon(x, y, np.array(short))).mean() > 0.99
    assert outline(drawn[:40], 40) == drawn[:40]
    assert outline(((0.0, 0.0),) * 50, 40)[0] == (0.0, 0.0), "a click that moved nowhere"
