"""What chance makes of a choice, held against many draws."""

import dataclasses

import numpy as np
import pytest
from run_dirs import demo_run

from grads.selection.luck import kept_again, random_count, random_sum
from grads.selection.options import SelectionConfig
from grads.selection.pool import Pool
from grads.selection.preview import preview

RNG = np.random.default_rng(0)
DRAWS = 4000


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """The demo's pool; nothing may be written."""
    return Pool(demo_run(tmp_path_factory.mktemp("luck")))


@pytest.mark.parametrize("count", [5, 30, 150, 299])
def test_a_sum_over_random_subsets(count):
    values = RNG.lognormal(3, 0.7, 300)
    sums = [RNG.choice(values, count, replace=False).sum() for _ in range(DRAWS)]
    band = random_sum(values, count)
    assert band.mean == pytest.approx(np.mean(sums), rel=0.02)
    assert 0.92 < np.mean([(band.low <= one <= band.high) for one in sums]) < 0.98
    assert random_sum(values, 300).low == pytest.approx(values.sum())
    assert random_sum(values, 300).high == pytest.approx(values.sum())


def test_no_band_reaches_beyond_what_a_subset_can_hold():
    values = np.array([1.0] * 9 + [1000.0])
    band = random_sum(values, 1)
    assert (band.low, band.high) == (1.0, 1000.0) or band.low >= 1.0
    assert random_sum(np.array([7.0]), 1).mean == 7.0


@pytest.mark.parametrize(
    ("members", "pool", "count"), [(7, 300, 30), (150, 300, 100), (1, 20, 19), (20, 20, 3)]
)
def test_members_in_random_subsets(members, pool, count):
    found = RNG.hypergeometric(members, pool - members, count, DRAWS)
    band = random_count(members, pool, count)
    assert band.mean == pytest.approx(found.mean(), rel=0.05, abs=0.05)
    assert np.mean((band.low <= found) & (found <= band.high)) >= 0.94
    assert abs(band.low - np.quantile(found, 0.025)) <= 1
    assert abs(band.high - np.quantile(found, 0.975)) <= 1


def test_members_of_large_pools_are_counted_at_once():
    band = random_count(300_000, 1_000_000, 100_000)
    assert band.mean == 30_000
    spread = np.sqrt(30_000 * 0.7 * 0.9)
    assert band.low == pytest.approx(30_000 - 1.96 * spread, abs=2)
    assert band.high == pytest.approx(30_000 + 1.96 * spread, abs=2)


@pytest.mark.parametrize(
    "values",
    [
        {"ratio": 0.1},
        {"ratio": 0.5, "focus": 1.0},
        {"ratio": 0.2, "budget_unit": "tokens"},
        {"ratio": 0.9},  # what lies below the density's floor is drawn from too
        {"ratio": 0.3, "deduplicate": True},
        {"ratio": 0.2, "criterion": "random"},
        {"ratio": 0.2, "criterion": "random", "draw": "stratified"},
        {"ratio": 0.1, "pins": [3, 5], "excluded": [7, 8]},
        {"ratio": 0.3, "bounds": [{"column": "loss", "low": 2.5}]},
    ],
    ids=str,
)
def test_the_chance_to_be_kept_by_other_seeds(pool, values):
    """Held against 200 other seeds: sample by sample, and as the share that stays."""
    options = SelectionConfig.parse(values)
    shown = preview(pool, options)
    drawn = np.zeros(len(pool))
    again = 0.0
    for seed in range(1, 201):
        kept = pool.select(options.model_copy(update={"seed": seed})).kept
        drawn += kept / 200
        again += (kept & shown.kept).sum() / shown.count / 200
    assert shown.stability == pytest.approx(again, abs=0.03)
    assert np.abs(shown.again - drawn).mean() < 0.03
    assert np.abs(shown.again - drawn).max() < 0.2
    assert set(shown.again[drawn == 1]) <= {1.0} or shown.again[drawn == 1].min() > 0.9
    assert shown.again[~pool.select(options).usable].max(initial=0.0) == 0.0


def test_where_no_seed_has_a_say_there_is_no_chance(pool):
    shown = preview(pool, SelectionConfig.parse({"ratio": 0.1, "draw": "top"}))
    assert shown.again is None
    assert shown.stability is None


def test_extreme_scores_are_no_trouble(pool):
    """Rates that no float holds side by side."""
    options = SelectionConfig.parse({"ratio": 0.1, "focus": 3.0})
    chosen = pool.select(options)
    ranking = dataclasses.replace(chosen.ranking, score=chosen.ranking.score * 400)
    chance = kept_again(pool.scores, options, dataclasses.replace(chosen, ranking=ranking))
    assert np.isfinite(chance).all()
    assert chance.sum() == pytest.approx(30, rel=0.2)
