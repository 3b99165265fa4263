"""The figures hold the numbers they are given, and text as text."""

import numpy as np
import pytest

from grads.api import Band, Coverage
from grads.selection import density
from studio import charts, evaluation_charts, titles

RNG = np.random.default_rng(0)
VALUES = RNG.normal(0, 1, 5000)
EVERYTHING = np.ones(5000, bool)


def test_density_curve_integrates_to_the_count():
    x, y = charts.density_curve(VALUES, -6, 6)
    assert np.sum(y) * (x[1] - x[0]) == pytest.approx(5000, rel=1e-3)


@pytest.mark.parametrize("limit", [100, 1000, 4999])
def test_sampled_points_are_many_spread_and_the_same_each_time(limit):
    """As many as allowed, every group there, in proportion."""
    code = np.array([0] * 4000 + [1] * 990 + [2] * 10)
    points = charts.sample_points(EVERYTHING, code, limit)
    assert len(points) == len(np.unique(points)) == limit
    assert set(code[points]) == {0, 1, 2}
    np.testing.assert_array_equal(points, charts.sample_points(EVERYTHING, code, limit))


def test_more_groups_than_colours_are_joined():
    names = [f"group {i}" for i in range(20)]
    found = charts.joined(names, np.arange(20, 0, -1))
    assert len(found) == len(charts.GROUPS)
    assert found[-1] == (charts.OTHERS, list(range(len(charts.GROUPS) - 1, 20)))
    colours = {charts.group_colour(name, number) for number, (name, _) in enumerate(found)}
    assert len(colours) == len(found), "each group has a colour of its own"
    assert charts.KEPT not in colours, "blue is what is kept"


def test_lengths_have_bars_as_many_as_the_data_can_fill():
    few, many = (
        charts.lengths(np.arange(size), 2 * np.arange(size), 4 * size) for size in (40, 4000)
    )
    assert 10 <= len(few.data[0].x) < len(many.data[0].x) <= density.BARS
    assert [sum(bars.y) for bars in few.data] == [40, 40]
    alike = charts.lengths(np.full(9, 3), np.full(9, 5), 8)
    assert [np.flatnonzero(bars.y).size for bars in alike.data] == [1, 1]
    assert np.argmax(alike.data[0].y) < np.argmax(alike.data[1].y), "shorter ones lie apart"


def test_a_mark_at_nothing_kept_is_whole():
    figure = charts.coverage(["1"], [1.0], [0.0], [(0.5, 1.5)])
    kept = next(trace for trace in figure.data if trace.name == "kept")
    assert kept.cliponaxis is False


def test_titles_say_what_is_found():
    assert titles.lengths(np.array([10, 20, 3000])) == (
        "Half of the examples have up to 20 tokens, the longest 3,000"
    )
    chance = Band(mean=2.0, low=1.0, high=3.0)
    rows = [Coverage("a", 20, kept, chance) for kept in (0, 1, 3, 4)]
    assert titles.covered(rows) == "2 of 4 are kept more or less often than by chance"
    assert titles.covered(rows[1:3]) == "Each is kept about as often as by chance"


def test_names_are_shown_as_text():
    figure = charts.topics(["<b>bold</b> & co"], [3], [4])
    assert figure.data[0].y[0] == "&lt;b>bold&lt;/b> &amp; co"


def test_trade_off_has_a_mark_an_arm_with_its_interval():
    figure = evaluation_charts.trade_off(
        ["base", "random", "mine"],
        ["base", "random", "selection"],
        learning=[2.4, 2.0, 1.9],
        forgetting=[0.0, 0.1, 0.2],
        reach=[(0.0, 0.0), (0.02, 0.03), (0.01, 0.04)],
    )
    mine = next(trace for trace in figure.data if trace.name == "mine")
    assert (mine.x[0], mine.y[0]) == (0.2, 1.9)
    assert (mine.error_y.array[0], mine.error_x.array[0]) == (0.01, 0.04)


def test_many_subsets_look_apart():
    styles = evaluation_charts.arm_styles(["base", "full", "random", *["selection"] * 30])
    assert len(set(styles)) == len(styles)


def test_a_base_model_far_away_does_not_squeeze_the_others():
    """It is named with its loss; where it lies near, it stays in the picture."""
    values = (["base", "random", "mine"], ["base", "random", "selection"])
    reach = [(0.0, 0.0), (0.01, 0.01), (0.01, 0.01)]
    more = {"forgetting": [0.0, 0.1, 0.2], "reach": reach}
    far = evaluation_charts.trade_off(*values, learning=[2.4, 2.0, 1.9], **more)
    low, high = far.layout.yaxis.range[1], far.layout.yaxis.range[0]
    assert low < 1.89
    assert 2.01 < high < 2.1
    assert [a.text for a in far.layout.annotations] == ["base: 2.400, out of view"]
    near = evaluation_charts.trade_off(*values, learning=[2.1, 2.0, 1.9], **more)
    assert near.layout.yaxis.range is None
    assert not near.layout.annotations


def test_budgets_have_a_line_each_for_what_is_learned_and_what_is_forgotten():
    """A band stands where all points have an interval."""
    lines = {
        "random": [(5.0, (2.0, (1.9, 2.1)), (0.3, None)), (100.0, (1.5, (1.4, 1.6)), (0.8, None))],
        "mine": [(5.0, (1.8, None), (0.2, (0.1, 0.4))), (100.0, (1.5, None), (0.8, (0.7, 0.9)))],
    }
    figure = evaluation_charts.budgets(lines, ["random", "criterion"])
    drawn = {(one.xaxis, one.name, one.mode): (list(one.x), list(one.y)) for one in figure.data}
    assert drawn == {
        ("x", "random", "none"): ([5.0, 100.0, 100.0, 5.0], [1.9, 1.4, 1.6, 2.1]),
        ("x", "random", "lines+markers"): ([5.0, 100.0], [2.0, 1.5]),
        ("x", "mine", "lines+markers"): ([5.0, 100.0], [1.8, 1.5]),
        ("x2", "random", "lines+markers"): ([5.0, 100.0], [0.3, 0.8]),
        ("x2", "mine", "none"): ([5.0, 100.0, 100.0, 5.0], [0.1, 0.7, 0.9, 0.4]),
        ("x2", "mine", "lines+markers"): ([5.0, 100.0], [0.2, 0.8]),
    }
    assert [one.name for one in figure.data if one.showlegend] == ["random", "mine"]
    assert figure.data[1].line.color == charts.AGAINST
    for axis in (figure.layout.xaxis, figure.layout.xaxis2):
        assert list(axis.ticktext) == ["5%", "100%"]
    for axis, what in ((figure.layout.yaxis, "learned more"), (figure.layout.yaxis2, "less")):
        assert axis.autorange == "reversed", "higher up is better in both"
        assert what in axis.title.text


def test_replay_draws_the_way_of_each_arm():
    paths = {"random": [(0.0, 2.0, 0.3), (0.1, 2.1, 0.1)], "mine": [(0.0, 1.9, 0.2)]}
    figure = evaluation_charts.replay(paths, ["random", "selection"])
    first, second = figure.data
    assert (first.name, list(first.x), list(first.y)) == ("random", [0.3, 0.1], [2.0, 2.1])
    assert list(first.text) == ["none", "10%"]
    assert first.line.color == charts.AGAINST
    assert second.line.color == charts.KEPT


def test_differences_stand_beside_zero_with_their_verdicts():
    better, none, worse = "better", "no difference seen", "worse"
    figure = evaluation_charts.differences(
        ["a", "<b>"],
        [(-0.2, -0.3, -0.1, better), (0.0, -0.1, 0.1, none)],
        [(0.0, -0.1, 0.1, none), (0.3, 0.1, 0.5, worse)],
    )
    marks = {
        (trace.xaxis, trace.name): (trace.x[0], trace.y[0], trace.error_x)
        for trace in figure.data
        if trace.x
    }
    assert {key: mark[:2] for key, mark in marks.items()} == {
        ("x", better): (-0.2, "a"),
        ("x", none): (0.0, "&lt;b>"),
        ("x2", none): (0.0, "a"),
        ("x2", worse): (0.3, "&lt;b>"),
    }
    bar = marks["x2", worse][2]
    assert (bar.array[0], bar.arrayminus[0]) == pytest.approx((0.2, 0.2))
    legend = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(legend) == [better, none, worse]


@pytest.mark.parametrize(("arms", "named"), [(6, True), (7, False)])
def test_many_training_curves_leave_their_room_to_the_lines(arms, named):
    curves = {f"arm {i}": [(1, 2.0), (2, 1.5)] for i in range(arms)}
    figure = evaluation_charts.training_curves(curves, ["selection"] * arms)
    assert [trace.name for trace in figure.data] == list(curves)
    assert figure.layout.showlegend is named
    assert "arm 5, step" in figure.data[5].hovertemplate


def test_ranks_show_places_and_who_is_highest_where():
    first = RNG.normal(0, 1, 1000)
    second = first + RNG.normal(0, 1, 1000)
    highest = tuple(values > np.quantile(values, 0.9) for values in (first, second))
    figure, points = charts.ranks(
        first, second, highest=highest, sample_id=np.arange(1000), labels=("x", "y")
    )
    assert points == 1000
    traces = {t.name: t for t in figure.data if t.type == "scatter"}
    both = traces["highest 10&#37; in both"]
    assert sorted(both.customdata) == np.flatnonzero(highest[0] & highest[1]).tolist()
    assert min(both.x) > 90
    assert min(both.y) > 90
    (across,) = [t for name, t in traces.items() if "across alone" in name]
    assert min(across.x) > 90 > max(across.y)
    order = np.argsort(first)
    places = dict(zip(both.customdata, both.x, strict=True))
    for place, i in enumerate(order):
        assert places.get(i, (place + 0.5) / 10) == pytest.approx((place + 0.5) / 10)
