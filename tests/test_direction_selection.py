"""The terms and criteria beside the signal's size, each against a slow, obvious way."""

from dataclasses import replace

import numpy as np
import pytest

from grads.errors import ConfigError, SelectionError
from grads.selection.direction import gain_within_topics, pull, spread
from grads.selection.options import SelectionConfig
from grads.selection.scores import Scores, Towards
from grads.selection.select import rank, select
from grads.selection.standard import robust_z

RNG = np.random.default_rng(0)
N = 400


def towards(role, embed, **others):
    rest = {name: np.zeros(N) for name in ("embed_dot", "head_dot", "head_cosine", "cosine", "rds")}
    return Towards(role=role, **(rest | {"embed_cosine": embed} | others))


@pytest.fixture
def scores():
    cosine, other = RNG.normal(0.2, 0.1, N), RNG.standard_t(3, N)
    return Scores(
        sample_id=np.arange(N) * 2,
        response_tokens=RNG.integers(5, 200, N),
        loss=RNG.random(N) + 1,
        embed_grad_norm=np.exp(RNG.standard_normal(N)),
        head_grad_norm=np.exp(RNG.standard_normal(N)),
        grad_dot=np.zeros(N),
        probes={
            "good": towards("target", cosine, cosine=other),
            "fine": towards("target", -3 * cosine + other),
            "maths": towards("protect", other),
        },
    )


def options(**values):
    return SelectionConfig.parse({"ratio": 0.1, "draw": "top"} | values)


def z(values):
    low, high = np.quantile(values, [0.25, 0.75])
    return (values - np.median(values)) / ((high - low) / 1.349)


def test_the_score_is_the_sum_of_its_four_terms(scores):
    plain = rank(scores, options())
    found = rank(scores, options(towards=0.7, away=0.3, floor=1e9))
    good, fine, maths = (z(scores.probes[name].embed_cosine) for name in ("good", "fine", "maths"))
    x, log_density = plain.x, plain.log_density
    expected = log_density - x + 0.7 * (good + fine) / 2 - 0.3 * maths
    finite = np.isfinite(log_density)
    np.testing.assert_allclose(found.score[finite], expected[finite])


def test_what_tells_no_samples_apart_is_said(scores):
    """Of equal cosines the first rows were taken, without a word."""
    same = replace(scores, probes={"good": towards("target", np.full(N, 0.25))})
    said = "all samples are alike in this: none is preferred"
    assert rank(same, options(criterion="aligned")).notes == [said]
    assert rank(scores, options(criterion="aligned")).notes == []
    assert rank(same, options(criterion="random")).notes == []


def test_direction_alone_leaves_nothing_out(scores):
    """The density floor is the density's: without its weight it has no say."""
    found = rank(scores, options(typicality=0, focus=0, away=2.0))
    assert found.above_floor.all()
    np.testing.assert_allclose(found.score, -2 * z(scores.probes["maths"].embed_cosine))


def test_the_cosine_of_both_layers_can_count(scores):
    found = rank(scores, options(typicality=0, focus=0, towards=1.0, cosine="both"))
    both = [robust_z(scores.probes[name].cosine, "cosine", []) for name in ("good", "fine")]
    np.testing.assert_allclose(found.score, np.mean(both, axis=0))


def test_a_random_draw_follows_the_direction(scores):
    """Weights exp(score): of two samples that differ by 1 in it, one comes e times as often."""
    cosine = np.repeat([0.0, 1.0], N // 2)
    two = replace(scores, probes={"good": towards("target", cosine)})
    unit = robust_z(cosine, "cosine", [])[-1] - robust_z(cosine, "cosine", [])[0]
    drawn = [
        select(two, options(count=1, ratio=None, typicality=0, focus=0, towards=1 / unit,
                            draw="sample", seed=seed)).kept.nonzero()[0][0]
        for seed in range(3000)
    ]  # fmt: skip
    share = np.mean(np.array(drawn) >= N // 2)
    assert share == pytest.approx(np.e / (1 + np.e), abs=0.03)


def test_what_cannot_be_combined():
    for values, message in (
        ({"auto": True, "ratio": None, "towards": 1.0}, "auto goes by the density alone"),
        ({"typicality": 0, "focus": 0}, "ranks nothing"),
    ):
        with pytest.raises(ConfigError, match=message):
            options(**values)
    assert options(typicality=0, focus=0, away=1.0).directed
    assert not options(criterion="density", towards=1.0).directed  # its tilt is its own


def test_missing_sets_are_named(scores):
    none = replace(scores, probes={})
    for role, option in (("target", "--target"), ("protect", "--protect")):
        with pytest.raises(SelectionError, match=option):
            pull(none, role, "cosine", [])


# -- near-duplicates


def test_one_of_each_group_is_kept_the_best():
    scores = simple(6)
    group = np.array([0, 0, -1, 1, 1, -1])
    best_first = options(criterion="loss_high", deduplicate=True, count=6, ratio=None)
    found = select(scores, best_first, duplicate_group=group)
    assert found.kept.nonzero()[0].tolist() == [1, 2, 4, 5]  # the higher loss of each group
    pinned = options(criterion="loss_high", deduplicate=True, count=3, ratio=None, pins=[3])
    found = select(scores, pinned, duplicate_group=group)
    assert found.kept.nonzero()[0].tolist() == [2, 3, 5]
    both = options(criterion="loss_high", deduplicate=True, count=3, ratio=None, pins=[3, 4])
    assert select(scores, both, duplicate_group=group).kept[[3, 4]].all()
    with pytest.raises(SelectionError, match="near-duplicate groups"):
        select(scores, best_first)


def simple(n):
    one = np.ones(n)
    return Scores(np.arange(n), 10 * one, np.arange(n) + 1.0, one, one, one)


# -- what the question saves


def test_gain_is_compared_within_topics_and_lengths():
    """A topic of large gains and one of small ones, each growing with length."""
    topic = np.repeat([0, 1], 200)
    tokens = np.exp(RNG.uniform(2, 5, 400))
    noise = RNG.standard_normal(400)
    gain = topic * 5.0 + 2 * np.log(tokens) + (0.1 + topic) * noise
    found = gain_within_topics(gain, tokens, topic)
    assert np.corrcoef(found, noise)[0, 1] > 0.98
    assert abs(np.corrcoef(found, tokens)[0, 1]) < 0.15
    for label in (0, 1):
        assert np.median(found[topic == label]) == pytest.approx(0, abs=1e-9)


def test_gain_of_small_topics_is_compared_with_all():
    topic = np.repeat([0, 1], [395, 5])
    gain, tokens = RNG.standard_normal(400), np.full(400, 20)
    gain[7] = np.nan
    found = gain_within_topics(gain, tokens, topic)
    everyone = gain_within_topics(gain, tokens, None)
    np.testing.assert_allclose(found[topic == 1], everyone[topic == 1])
    assert np.isnan(found[7])
    assert np.isfinite(np.delete(found, 7)).all()


def test_samples_without_a_question_come_last():
    gain = np.array([np.nan, 2.0, 1.0, np.nan, 3.0])
    found = select(
        replace(simple(5), question_gain_z=gain),
        options(criterion="question_gain", count=4, ratio=None),
    )
    assert found.kept.nonzero()[0].tolist() == [0, 1, 2, 4]  # 0 and 3 tie: the smaller id
    assert "2 samples have no such number" in found.ranking.notes[0]


# -- spread


def test_spread_is_the_greedy_k_centre_order():
    points = RNG.standard_normal((60, 5))
    order = np.argsort(-spread(points, np.arange(60)), kind="stable").tolist()
    start = np.linalg.norm(points - points.mean(0), axis=1).argmin()
    assert order[0] == start
    for n in range(1, 60):
        away = np.linalg.norm(points[:, None] - points[order[:n]][None], axis=2).min(axis=1)
        away[order[:n]] = -1
        assert away[order[n]] == pytest.approx(away.max())


def test_spread_beyond_the_exact_ones(monkeypatch):
    """The rest follow by distance, and every budget is still a prefix."""
    monkeypatch.setattr("grads.selection.direction.CENTRES", 10)
    points = RNG.standard_normal((50, 3))
    value = spread(points, np.arange(50))
    assert len(set(value)) == 50
    order = np.argsort(-value)
    away = np.linalg.norm(points[:, None] - points[order[:10]][None], axis=2).min(axis=1)
    assert (np.diff(away[order[10:]]) <= 1e-9).all()
