"""From signals to a subset: density, tilt, draws, budgets, and the traps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grads.errors import ConfigError, SelectionError
from grads.selection import best
from grads.selection.density import bandwidth_factor, leave_one_out
from grads.selection.options import SelectionConfig
from grads.selection.scores import Scores
from grads.selection.select import gumbel, rank, select


def make_scores(x, tokens=None, head=None, seed=0):
    """Scores whose log embed norm is x; without `head`, a noisy copy of it."""
    rng = np.random.default_rng(seed)
    n = len(x)
    tokens = np.full(n, 50) if tokens is None else tokens
    other = x + 0.3 * rng.standard_normal(n) if head is None else head
    return Scores(
        sample_id=np.arange(n) * 3 + 5,
        response_tokens=np.asarray(tokens),
        loss=rng.random(n) + 1,
        embed_grad_norm=np.exp(x),
        head_grad_norm=np.exp(other),
        grad_dot=np.zeros(n),
    )


def bell(n=2000, seed=1):
    return np.random.default_rng(seed).standard_normal(n)


def options(**values):
    return SelectionConfig.parse({"ratio": 0.1} | values if "count" not in values else values)


HIGH = {"focus": 1.0, "draw": "top"}  # what tails and outliers would win under


def one_signal(**values):
    """Options under which the signal is the log embed norm itself, in one dimension."""
    return SelectionConfig.parse({"signal": "embed", "length_control": "none"} | values)


# -- density


@pytest.mark.parametrize("dims", [1, 2])
def test_density_is_the_leave_one_out_sum(dims):
    """Against the obvious n x n sum of Gaussians without the diagonal."""
    points = np.random.default_rng(0).standard_normal((300, dims)) * 1.3
    h = 0.4
    square = ((points[:, None] - points[None]) ** 2).sum(-1) / h**2
    kernel = np.exp(-square / 2) / (np.sqrt(2 * np.pi) * h) ** dims
    np.fill_diagonal(kernel, 0)
    expected = kernel.sum(1) / (len(points) - 1)
    mine = np.exp(leave_one_out(points, h).log_density)
    dense = expected > 0.02 * expected.max()
    np.testing.assert_allclose(mine[dense], expected[dense], rtol=0.02)


@pytest.mark.parametrize("dims", [1, 2])
def test_an_outlier_supports_nothing(dims):
    """The point's own kernel is gone: alone, six deviations out, its density is nil."""
    points = np.vstack([np.random.default_rng(0).standard_normal((500, dims)), np.full(dims, 9.0)])
    found = leave_one_out(points, 0.3).log_density
    assert found[-1] < found.max() - 20


def test_a_point_beyond_the_grid_is_counted():
    points = np.append(bell(500), 1e9)[:, None]
    found = leave_one_out(points, 0.2)
    assert found.outside == 1
    assert found.log_density[-1] == -np.inf


def test_bandwidth_rules():
    assert bandwidth_factor("scott", 32, 1) == pytest.approx(0.5)
    assert bandwidth_factor("silverman", 100, 1) == pytest.approx(75 ** (-1 / 5))
    assert bandwidth_factor(0.7, 100, 2) == 0.7


# -- signal


def test_unitless_signal_is_in_robust_deviations():
    x = bell() * 2 + 7
    low, middle, high = np.quantile(x, [0.25, 0.5, 0.75])
    found = rank(make_scores(x), one_signal(ratio=0.1)).x
    np.testing.assert_allclose(found, (x - middle) / ((high - low) / 1.349))


def test_length_control_takes_out_a_power_of_the_length():
    """log signal = noise - 0.5 log R: `residual` and `sqrt` find the noise, `none` does not."""
    rng, noise = np.random.default_rng(0), bell()
    tokens = rng.integers(5, 400, len(noise))
    scores = make_scores(noise - 0.5 * np.log(tokens), tokens)
    for control in ("residual", "sqrt", "none"):
        chosen = one_signal(ratio=0.1, length_control=control)
        x = rank(scores, chosen).x
        assert (np.corrcoef(x, noise)[0, 1] > 0.99) == (control != "none")
        against_length = abs(np.corrcoef(x, np.log(tokens))[0, 1])
        assert (against_length < 0.05) == (control != "none")


def test_default_keeps_about_the_tokens_of_a_random_subset():
    """Raw magnitude picks short answers; the default does not."""
    rng, noise = np.random.default_rng(0), 0.3 * bell()
    tokens = rng.integers(5, 400, len(noise))
    scores = make_scores(noise - 0.5 * np.log(tokens), tokens)
    raw = select(scores, options(criterion="magnitude")).kept
    ours = select(scores, options()).kept
    assert tokens[raw].mean() < 0.5 * tokens.mean()
    assert 0.8 < tokens[ours].mean() / tokens.mean() < 1.2


def test_tied_signal_uses_the_inner_product():
    scores = make_scores(bell(), head=bell(seed=2))
    dot = 0.4 * scores.embed_grad_norm * scores.head_grad_norm
    tied = Scores(**{**vars(scores), "grad_dot": dot})
    whole = np.sqrt(scores.embed_grad_norm**2 + scores.head_grad_norm**2 + 2 * dot)
    x = rank(tied, options(signal="tied", length_control="none")).x
    assert np.corrcoef(x, np.log(whole))[0, 1] > 1 - 1e-12


# -- tilt and floor


def test_window_lies_focus_deviations_above_the_typical():
    """For a bell at typicality 1 the kept window is centred lambda deviations up."""
    x = bell(20_000)
    for focus in (-1.0, 0.0, 0.5, 1.0):
        kept = select(make_scores(x), one_signal(ratio=0.05, focus=focus, draw="top")).kept
        assert x[kept].mean() == pytest.approx(focus, abs=0.12)
        assert x[kept].std() < 0.3


def test_pure_density_is_the_density_criterion():
    scores = make_scores(bell())
    by_options = select(scores, options(focus=0.0, draw="top")).kept
    assert (by_options == select(scores, options(criterion="density")).kept).all()


def test_an_outlier_is_not_in_the_top():
    scores = make_scores(np.append(bell(1000), 6.0))
    for signal in ("joint", "l2", "embed"):
        values = HIGH | {"ratio": 0.05, "signal": signal, "length_control": "none"}
        assert not select(scores, options(**values)).kept[-1]


def test_a_clump_of_boilerplate_is_not_picked_whole():
    x = np.concatenate([bell(990), np.full(10, 4.0)])
    kept = select(make_scores(x), one_signal(ratio=0.05, **HIGH)).kept
    assert kept[-10:].sum() == 0


def test_the_default_draws_nothing_from_beyond_the_floor():
    """What is nearly learned has the largest weights, yet an outlier or a clump is never drawn."""
    x = np.concatenate([bell(990), np.full(9, -4.0), [-9.0]])
    scores = make_scores(x)
    drawn = [select(scores, one_signal(ratio=0.05, seed=seed)).kept for seed in range(200)]
    assert all(kept.sum() == 50 and not kept[-10:].any() for kept in drawn)
    often = np.mean(drawn, axis=0)
    assert x[often > np.median(often)].mean() < -0.5


def test_heavy_tails_keep_typical_samples():
    x = np.clip(np.random.default_rng(0).standard_cauchy(3000), -300, 300)
    for values in ({}, HIGH):
        kept = select(make_scores(x), one_signal(ratio=0.05, **values)).kept
        assert np.abs(x[kept]).max() < 6


def test_auto_keeps_the_bells_share():
    """68% at focus 0 and about half at focus 1 or -1, in one dimension and in two."""
    scores = make_scores(bell(20_000))
    for signal in ("embed", "joint"):
        shares = []
        for focus in (0.0, 1.0, -1.0):
            chosen = SelectionConfig.parse(
                {"auto": True, "signal": signal, "focus": focus, "length_control": "none"}
            )
            shares.append(select(scores, chosen).kept.mean())
        assert shares[0] == pytest.approx(0.68, abs=0.06)
        assert shares[1] == pytest.approx(0.5, abs=0.08)
        assert shares[2] == pytest.approx(0.5, abs=0.08)


def test_auto_is_not_shrunk_by_an_outlier():
    for outlier, focus in ((6.0, 1.0), (-6.0, -1.0)):
        scores = make_scores(np.append(bell(2000), outlier))
        assert select(scores, one_signal(auto=True, focus=focus)).kept.mean() > 0.3


def test_a_budget_beyond_the_floor_is_filled_and_said():
    scores = make_scores(bell(1000))
    chosen = select(scores, options(ratio=0.99))
    assert chosen.kept.sum() == 990
    assert any("below the density floor" in warning for warning in chosen.warnings)


# -- degenerate pools


def test_all_rows_alike():
    chosen = select(make_scores(np.zeros(50), head=np.zeros(50)), options(ratio=0.2))
    assert chosen.kept.sum() == 10
    assert any("alike" in note for note in chosen.ranking.notes)


def test_zero_quartile_range_falls_back():
    x = np.zeros(100)
    x[:8] = np.linspace(1, 2, 8)
    chosen = rank(make_scores(x), one_signal(ratio=0.1))
    assert any("quartiles coincide" in note for note in chosen.notes)
    assert np.isfinite(chosen.x).all()


def test_zero_norms_are_raised():
    scores = make_scores(bell(100))
    scores.embed_grad_norm[3] = 0
    found = rank(scores, options())
    assert np.isfinite(found.x).all()
    assert any("zero norms" in note for note in found.notes)


def test_constant_length_skips_the_fit():
    assert any("one length" in note for note in rank(make_scores(bell(100)), options()).notes)


def test_few_samples_use_ranks():
    scores = make_scores(np.array([0.0, 100.0, 1.0, 2.0, -50.0]))
    chosen = select(scores, one_signal(count=1, focus=1.0))
    assert any("ranks" in note for note in chosen.ranking.notes)
    assert chosen.kept.sum() == 1


# -- draws


def test_uniform_sampling_is_the_random_criterion():
    """typicality 0, focus 0 and draw `sample` is exactly the strongest baseline."""
    scores = make_scores(bell())
    uniform = options(typicality=0.0, focus=0.0, draw="sample", seed=7)
    assert (
        select(scores, uniform).kept == select(scores, options(criterion="random", seed=7)).kept
    ).all()


@pytest.mark.parametrize("draw", ["top", "sample"])
def test_budgets_nest(draw):
    scores = make_scores(bell())
    small, large = (select(scores, options(ratio=r, draw=draw)).kept for r in (0.05, 0.3))
    assert (small <= large).all()


def test_sampling_weights_are_exp_score():
    """Over many seeds the better of two groups comes first as often as its weight says."""
    scores = make_scores(np.tile([0.0, 1.0], 50))
    pure = {"count": 1, "typicality": 0.0, "focus": 1.0}
    x = rank(scores, one_signal(**pure)).x
    weight = np.exp(x[1]) / (np.exp(x[0]) + np.exp(x[1]))
    first = [
        select(scores, one_signal(**pure, draw="sample", seed=s)).kept.argmax() % 2
        for s in range(2000)
    ]
    assert np.mean(first) == pytest.approx(weight, abs=0.04)


def test_gumbel_noise_depends_on_seed_and_id_alone():
    ids = np.arange(10_000)
    noise = gumbel(ids, 3)
    assert (gumbel(ids[::-1], 3)[::-1] == noise).all()
    assert abs(np.corrcoef(noise, gumbel(ids, 4))[0, 1]) < 0.05
    assert noise.mean() == pytest.approx(0.5772, abs=0.05)
    assert noise.var() == pytest.approx(np.pi**2 / 6, abs=0.1)


def test_stratified_shares_by_cluster_size():
    scores = make_scores(bell(1000))
    cluster = np.repeat([0, 1, 2], [700, 200, 100])
    kept = select(scores, options(ratio=0.1, draw="stratified"), cluster=cluster).kept
    assert np.bincount(cluster[kept]).tolist() == [70, 20, 10]
    with pytest.raises(SelectionError, match="needs clusters"):
        select(scores, options(draw="stratified"))


# -- budgets, bounds, pins


@given(
    n=st.integers(1, 60),
    ratio=st.floats(0.001, 1.0),
    draw=st.sampled_from(["top", "sample", "stratified"]),
)
def test_a_ratio_is_kept_exactly(n, ratio, draw):
    scores = make_scores(bell(n))
    kept = select(scores, options(ratio=ratio, draw=draw), cluster=np.arange(n) % 3).kept
    assert kept.sum() == max(1, round(ratio * n))


@given(budget=st.integers(100, 3000), draw=st.sampled_from(["top", "stratified"]))
def test_a_token_budget_is_never_exceeded(budget, draw):
    tokens = np.random.default_rng(0).integers(1, 100, 60)
    scores = make_scores(bell(60), tokens)
    chosen = options(count=budget, budget_unit="tokens", draw=draw)
    kept = select(scores, chosen, cluster=np.arange(60) % 4).kept
    assert 0 < tokens[kept].sum() <= budget


def test_a_token_budget_below_the_best_sample_is_refused():
    chosen = options(count=3, budget_unit="tokens")
    with pytest.raises(
        SelectionError, match="3 tokens does not hold the best sample, which has 50"
    ):
        select(make_scores(bell(60)), chosen)


def test_pins_exclusions_and_bounds():
    scores = make_scores(bell(100))
    ids = scores.sample_id
    chosen = options(
        ratio=0.1,
        pins=(int(ids[0]), int(ids[1])),
        excluded=(int(ids[2]),),
        bounds=[{"column": "loss", "low": 1.5}],
    )
    result = select(scores, chosen, {"loss": scores.loss})
    assert result.kept.sum() == 10
    assert result.kept[:2].all()
    assert not result.kept[2]
    assert (scores.loss[2:][result.kept[2:]] >= 1.5).all()


def test_a_pool_smaller_than_the_budget_is_taken_whole():
    scores = make_scores(bell(100))
    chosen = options(ratio=0.5, bounds=[{"column": "loss", "low": 1.9}])
    result = select(scores, chosen, {"loss": scores.loss})
    assert (result.kept == (scores.loss >= 1.9)).all()
    assert any("fewer than the budget" in warning for warning in result.warnings)


def test_more_pins_than_budget_are_kept_with_a_warning():
    scores = make_scores(bell(50))
    result = select(scores, options(count=1, pins=(5, 8, 11)))
    assert result.kept.sum() == 3
    assert any("exceed the budget" in warning for warning in result.warnings)


def test_the_same_input_gives_the_same_subset_in_any_order_of_ties():
    scores = make_scores(np.zeros(40), head=np.zeros(40))
    first = select(scores, options(ratio=0.25)).kept
    assert (first == select(scores, options(ratio=0.25)).kept).all()
    best = select(scores, options(ratio=0.25, draw="top")).kept
    assert best[:10].all()  # ties are broken by sample id


@pytest.mark.parametrize(
    ("criterion", "column", "sign"),
    [
        ("loss_high", "loss", 1),
        ("loss_low", "loss", -1),
        ("longest", "response_tokens", 1),
        ("shortest", "response_tokens", -1),
    ],
)
def test_comparison_criteria(criterion, column, sign):
    scores = make_scores(bell(200), np.random.default_rng(0).permutation(200) + 1)
    kept = select(scores, options(criterion=criterion)).kept
    values = sign * getattr(scores, column).astype(float)
    assert values[kept].min() >= values[~kept].max()


@pytest.mark.parametrize(
    ("values", "draw"),
    [
        ({"ratio": 0.1}, "sample"),
        ({"count": 3}, "sample"),
        ({"auto": True}, "top"),
        ({"ratio": 0.1, "criterion": "density"}, "top"),
        ({"ratio": 0.1, "criterion": "longest"}, "top"),
        ({"ratio": 0.1, "criterion": "density", "draw": "sample"}, "sample"),
        ({"ratio": 0.1, "draw": "stratified"}, "stratified"),
    ],
)
def test_the_draw_that_is_not_named(values, draw):
    """By weight for grads with a budget; all else needs or means the best scores."""
    chosen = SelectionConfig.parse(values)
    assert chosen.draw == draw
    assert SelectionConfig.parse(chosen.model_dump()) == chosen


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ratio": 0.1, "count": 3}, "exactly one budget"),
        ({}, "exactly one budget"),
        ({"ratio": 0.1, "typicality": 0.0, "focus": 0.0, "draw": "top"}, "ranks nothing"),
        ({"auto": True, "criterion": "random"}, "auto needs a density"),
        ({"auto": True, "draw": "sample"}, "auto needs draw 'top'"),
        ({"ratio": 0.1, "pins": (1,), "excluded": (1,)}, "both pinned and excluded"),
        ({"ratio": 0.1, "criterion": "longest", "draw": "sample"}, "needs weights"),
        ({"ratio": 1.5}, "ratio is 1.5"),
        ({"ratio": 0.1, "bandwidth": "scot"}, "bandwidth"),
        ({"ratio": 0.1, "bounds": [{"column": "loss", "low": 2, "high": 1}]}, "low 2.0 is above"),
        ({"ratio": 0.1, "colour": "red"}, "unknown setting 'colour'"),
    ],
)
def test_bad_options_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        SelectionConfig.parse(values)


def test_unknown_columns_clusters_and_ids_are_refused():
    scores = make_scores(bell(30))
    for values, message in (
        ({"bounds": [{"column": "age"}]}, "no number column 'age'"),
        ({"clusters": (9,)}, "no cluster 9"),
        ({"pins": (1,)}, "cannot pin sample 1"),
    ):
        with pytest.raises(SelectionError, match=message):
            select(scores, options(**values), {}, np.zeros(30, int))


@pytest.mark.parametrize("draw", ["top", "sample", "stratified"])
def test_where_everything_is_pinned_nothing_is_drawn(draw):
    scores = make_scores(bell(4))
    chosen = select(
        scores,
        options(ratio=0.5, draw=draw, pins=tuple(scores.sample_id.tolist())),
        cluster=np.zeros(4, int),
    )
    assert chosen.kept.all()


KEYS = st.one_of(
    st.sampled_from([0.0, 1.0, 1.5, -1.0, 1e300, -1e300, np.nan, np.inf, -np.inf]),
    st.floats(-3, 3),
)


@given(
    samples=st.lists(st.tuples(KEYS, st.integers(1, 9)), min_size=1, max_size=40),
    budget=st.integers(-1, 200),
    bins=st.sampled_from([2, 3, 50]),
)
def test_the_best_within_a_budget_are_those_that_walking_down_the_keys_takes(samples, budget, bins):
    """Ties by their order, missing ones last, none left out for its size."""
    keys, cost = map(np.array, zip(*samples, strict=True))
    expected = set()
    for place in np.argsort(-keys, kind="stable"):
        if cost[[*expected, place]].sum() > budget:
            break
        expected.add(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best, "FEW", 2)
        patch.setattr(best, "BINS", bins)
        found = best.best_within(keys, cost, budget)
    assert len(found) == len(set(found))
    assert set(found) == expected
