"""The budget as a line on what ranks: where it cuts, where there is none, what a drag sets."""

import numpy as np
import pytest
from run_dirs import demo_run, open_page
from test_selection import bell, make_scores

from grads import api
from grads.api import SelectionConfig
from grads.selection.select import select
from studio import looks, options, views
from studio.views import data

PERCENTS = options.PERCENTS


def chosen(scores, **values):
    return select(scores, SelectionConfig.parse({"draw": "top", "ratio": 0.1} | values))


SHARP = {
    "by a value": {"criterion": "loss_high"},
    "from the lowest on": {"criterion": "loss_low"},
    "by density": {"criterion": "density"},
    "in tokens": {"criterion": "loss_high", "budget_unit": "tokens"},
    "with a pin": {"criterion": "loss_high", "pins": (5, 8)},
    "with an exclusion": {"criterion": "loss_high", "excluded": (5, 8)},
    "decided by the data": {"criterion": "density", "auto": True, "ratio": None},
}


@pytest.mark.parametrize("values", SHARP.values(), ids=SHARP)
def test_what_a_budget_takes_scores_higher_than_what_it_leaves(values):
    tokens = np.random.default_rng(2).integers(5, 60, 500)
    scores = make_scores(bell(500), tokens)
    found = chosen(scores, **values)
    cut = found.cut
    assert not (cut.taken & ~found.kept).any()
    assert (found.kept & ~cut.taken).sum() == len(values.get("pins", ()))
    assert cut.score[cut.taken].min() > cut.score[cut.among & ~cut.taken].max()


BLURRED = {
    "drawn by lot": {"draw": "sample"},
    "random": {"criterion": "random"},
    "the best of every topic": {"draw": "stratified", "focus": 1.0},
    "down below the floor": {"focus": 1.0, "ratio": 1.0},
    "nothing but pins": {"count": 2, "ratio": None, "pins": (5, 8)},
}


@pytest.mark.parametrize("values", BLURRED.values(), ids=BLURRED)
def test_a_budget_that_is_no_threshold_has_no_cut(values):
    scores = make_scores(bell(500))
    config = SelectionConfig.parse({"draw": "top", "ratio": 0.1} | values)
    assert select(scores, config, cluster=np.arange(500) % 3).cut is None


@pytest.mark.parametrize("unit", ["samples", "tokens"])
@pytest.mark.parametrize("more", [{}, {"pins": (5, 8, 11)}, {"focus": 1.0, "criterion": "grads"}])
def test_the_steps_of_a_cut_are_where_those_budgets_cut(unit, more):
    """Within a place, also where the last samples are far apart; whole pools come once."""
    tokens = np.random.default_rng(2).integers(5, 60, 300)
    scores = make_scores(bell(300), tokens)
    values = {"criterion": "loss_high", "budget_unit": unit} | more
    cut = chosen(scores, **values).cut
    low, high = cut.score.min(), cut.score.max()
    place = np.floor((cut.score - low) / (high - low) * 1000).astype(int)
    steps = dict(cut.steps(place, PERCENTS / 100))
    assert len(steps) > 100
    for share in (0.05, 0.1, 0.35):
        there = chosen(scores, **values | {"ratio": share}).cut
        last = place[there.taken].min()
        below = place[there.among & ~there.taken].max()
        assert below <= steps[share] <= last, "of tokens, it may be the first that does not fit"
        assert unit == "tokens" or steps[share] == last
    for share in set(PERCENTS / 100) - steps.keys():  # none of these is a threshold of its own
        beyond = chosen(scores, **values | {"ratio": share})
        assert beyond.cut is None or beyond.cut.taken.sum() in (0, beyond.cut.among.sum())


def test_a_column_that_ranks_as_the_score_does_is_told_from_others():
    scores = make_scores(bell(300))
    loss = scores.loss.astype(np.float32)
    high, low = (chosen(scores, criterion=f"loss_{end}").cut for end in ("high", "low"))
    assert (high.way(loss), low.way(loss)) == (1, -1)
    assert high.way(np.where(np.arange(300) % 7, loss, np.nan)) == 1
    assert high.way(np.log(loss)) == 0, "its steps are others"
    assert high.way(scores.grad_dot) == high.way(np.full(300, np.nan)) == 0


@pytest.mark.parametrize("way", [1, -1])
def test_the_line_stands_where_the_last_kept_lies(way):
    scores = make_scores(bell(300))
    found = chosen(scores, criterion="loss_high" if way > 0 else "loss_low")
    of = data.Samples(
        scores.sample_id,
        np.ones(300, bool),
        found.kept,
        api.Categories(["a"], np.zeros(300, int)),
        ordered=False,
    )
    view = data.distribution(
        scores.loss,
        of,
        of.drawn(),
        label="x",
        title="t",
        alt="a",
        budget=data.Budget(found.cut, way, 10.0, PERCENTS),
    )
    line, (low, high) = view["cut"], view["across"]
    last = np.sort(scores.loss)[-30 if way > 0 else 29]
    assert line["value"] == last
    assert line["at"] == pytest.approx((last - low) / (high - low))
    assert (line["percent"], line["way"]) == (10.0, way)
    steps = dict(line["steps"])
    assert list(steps) == PERCENTS.tolist()
    assert steps[10.0] == pytest.approx(line["at"], abs=2 / data.FINE)
    moved = [way * (steps[b] - steps[a]) for a, b in ((5.0, 10.0), (10.0, 50.0), (50.0, 100.0))]
    assert max(moved) < 0, "a larger budget goes further down"


# -- on the pages


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    return demo_run(tmp_path)


@pytest.fixture
def drawn(monkeypatch):
    """The distribution that a page draws, and what hears its gestures."""
    found = {}

    def draw(page, hear):
        (found["distribution"],) = (v for v in page["views"] if v["name"] == "distribution")
        found["hear"] = hear

    monkeypatch.setattr(views, "draw", draw)
    return found


@pytest.mark.parametrize("page", ["Select", "Explore"])
@pytest.mark.parametrize(
    ("link", "column", "ranged"),
    [
        ({"draw": "top"}, looks.SCORE, False),
        ({"criterion": "loss_low"}, "loss", True),
        ({"criterion": "longest", "unit": "tokens"}, "response_tokens", True),
        ({"criterion": "magnitude"}, looks.SCORE, False),
        ({"draw": "top", "auto": "true"}, looks.SCORE, False),
    ],
)
def test_a_page_shows_the_line_on_what_ranks(run, drawn, page, link, column, ranged):
    at = open_page(page, **link)
    assert at.selectbox(key="column").value == column
    view = drawn["distribution"]
    assert view["ranged"] == ranged
    pool = api.load_pool(run)
    unit, auto = link.get("unit", "samples"), link.get("auto") == "true"
    given = {"auto": True} if auto else {"ratio": 0.1, "budget_unit": unit}
    wanted = {name: link[name] for name in ("criterion", "draw") if name in link}
    shown = api.preview(pool, SelectionConfig.parse(wanted | given))
    values = shown.ranking.score if column == looks.SCORE else pool.numbers[column]
    line = view["cut"]
    kept = values[shown.kept]
    assert line["value"] == (kept.min() if line["way"] > 0 else kept.max())
    assert line["percent"] == (None if auto else 10.0)
    bars = np.sum([bar["counts"] for bar in view["bars"]], axis=0)
    below = (~shown.ranking.above_floor).sum()
    assert bars[0] >= below, "what lies below the floor comes last"
    assert view["across"][0] <= values[shown.ranking.above_floor].min()


@pytest.mark.parametrize(
    "link",
    [
        {},  # drawn by lot
        {"draw": "stratified", "focus": "1"},
        {"draw": "top", "column": "loss"},  # not what ranks
        {"draw": "top", "budget": "100"},  # what lies below the floor is kept too
    ],
)
def test_no_line_where_the_budget_cuts_nothing_that_is_shown(run, drawn, link):
    open_page("Select", **link)
    assert drawn["distribution"]["cut"] is None


def test_no_line_over_the_marks_of_a_saved_selection(run, drawn):
    api.select_samples(run, "tenth", SelectionConfig(criterion="longest", ratio=0.1))
    open_page("Select", criterion="longest", selection="tenth")
    assert drawn["distribution"]["cut"] is None


def test_a_gesture_sets_the_budget_and_takes_the_data_out_of_it(run, drawn, monkeypatch):
    held = {"auto": ["true"]}
    monkeypatch.setattr(options.url, "put", lambda name, *texts: held.update({name: [*texts]}))
    pool = api.load_pool(run)
    look = looks.Look.by(pool, "nothing", None, column=looks.SCORE, x="loss", y="loss")
    everything = np.ones(len(pool), bool)
    for percent in (12.5, "7", None, float("nan")):
        gesture = {"do": "budget", "view": "distribution", "percent": percent}
        looks.heard(pool, look, gesture, everything, parameter="bound")
        assert held == {"auto": [], "budget": ["12.5"]}
    looks.heard(pool, look, {"do": "range", "low": 0, "high": 1}, everything, parameter="bound")
    assert held.keys() == {"auto", "budget"}, "a score is no column that ranges are of"
