"""Why a sample is kept or set aside, told in a line."""

import numpy as np
import pytest
from run_dirs import demo_run

from grads.selection.decisions import decide, with_decisions
from grads.selection.options import SelectionConfig
from grads.selection.pool import Pool
from grads.selection.preview import preview
from grads.selection.reasons import reasons
from grads.selection.select import AUTO_DROP


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """The demo's pool; nothing may be written."""
    return Pool(demo_run(tmp_path_factory.mktemp("reasons")))


def told(pool, **values):
    """The reasons of all samples, and the choice."""
    shown = preview(pool, SelectionConfig.parse(values))
    return reasons(pool, shown, np.arange(len(pool))), shown


def test_of_a_draw_by_density(pool):
    lines, shown = told(pool, ratio=0.1)
    density = shown.ranking.log_density
    for line, x, drop, kept, again in zip(
        lines,
        shown.ranking.x,
        density.max() - density,
        shown.kept,
        shown.again,
        strict=True,
    ):
        like, became, other = line.replace(", signal", "; signal").split("; ")
        assert like == (
            "typical" if drop <= AUTO_DROP[2] else "less typical" if drop <= 2 else "unusual"
        )
        side = "above" if x > 0 else "below"
        size = f"{abs(x):.1f} {side}" if round(abs(x), 1) else "at"
        assert became == f"signal {size} its length's usual"
        fate = "in the draw's 10%" if kept else "not in the draw's 10%"
        assert other == f"{fate} ({100 * again:.0f}% of seeds keep it)"


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": 0.1},
        {"ratio": 0.1, "criterion": "loss_high"},
        {"ratio": 0.1, "criterion": "random", "deduplicate": True},
        {"ratio": 0.1, "draw": "stratified", "bounds": [{"column": "loss", "low": 3}]},
        {"ratio": 0.1, "pins": [3], "excluded": [5], "clusters": [0]},
    ],
)
def test_every_word_of_a_reason_can_be_said_in_another_language(pool, options):
    shown = preview(pool, SelectionConfig.parse(options))
    lines = reasons(pool, shown, np.arange(len(pool)), lambda text, **values: "·")
    assert set(lines) == {"·"}


def test_of_the_best_by_value(pool):
    lines, shown = told(pool, ratio=0.1, criterion="loss_high")
    order = np.argsort(-pool.scores.loss, kind="stable")
    assert lines[order[0]] == "number 1 of 300 by “Most surprising”; among the best 10%"
    assert lines[order[-1]] == "number 300 of 300 by “Most surprising”; not among the best 10%"
    assert sum("; among" in line for line in lines) == shown.count
    lines, _ = told(pool, ratio=0.1, draw="stratified")
    assert any(line.endswith("; among the best 10% of its topic") for line in lines)
    lines, _ = told(pool, ratio=0.1, criterion="random")
    assert all(line.startswith("any example alike; ") for line in lines)


def test_of_what_is_left_out(pool):
    """By a range, by a topic, as the near-duplicate of what is kept."""
    loss = pool.scores.loss
    low, high = (float(end) for end in np.quantile(loss, [0.2, 0.8]))
    lines, _ = told(pool, ratio=0.5, bounds=[f"loss:{low}:{high}"], clusters=[0, 1])
    first = int(np.flatnonzero(loss > high)[0])
    assert lines[first].endswith(f"; its loss of {loss[first]:.3g} is above {high:.3g}")
    below = int(np.flatnonzero(loss < low)[0])
    assert lines[below].endswith(f"; its loss of {loss[below]:.3g} is below {low:.3g}")
    inside = (loss >= low) & (loss <= high) & ~np.isin(pool.cluster, [0, 1])
    assert all(lines[i].endswith("; of a topic that is not chosen") for i in np.flatnonzero(inside))
    lines, shown = told(pool, ratio=1.0, deduplicate=True)
    twins = np.flatnonzero(~shown.kept)
    assert len(twins)
    for twin in twins:
        (row,) = [p for p in pool.near_duplicates(twin) if shown.kept[p]]
        kept = pool.scores.sample_id[row]
        assert lines[twin].endswith(f"; a near-duplicate of row {kept}, which is kept")


def test_of_what_people_decided(tmp_path):
    run = demo_run(tmp_path)
    decide(run, 5, "pin", "a rare case", reviewer="Dr Ada")
    decide(run, 6, "exclude")
    pool = Pool(run)
    options = with_decisions(run, SelectionConfig(ratio=0.1, pins=(9,)))
    places = pool.positions(np.array([5, 6, 9]))
    assert reasons(pool, preview(pool, options), places) == [
        "always kept by Dr Ada: a rare case",
        "never kept",
        "always kept, by the options",
    ]
