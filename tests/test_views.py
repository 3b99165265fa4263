"""What the linked views are given, and what a gesture in them sets."""

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from grads.api import MAP, Categories, Filter, Run, load_pool
from grads.selection import density
from grads.selection import text_map as maps
from grads.selection.text_map import text_map
from grads.store.bundled import DEMO
from studio import charts, filters, looks
from studio.views import data

RNG = np.random.default_rng(0)
VALUES = RNG.normal(0, 1, 5000)
EVERYTHING = np.ones(5000, bool)
FATE = Categories(["set aside", "kept"], (VALUES > 0.5).astype(int))


def samples(shown=EVERYTHING, kept=VALUES > 0.5, group=FATE, ordered=False) -> data.Samples:
    return data.Samples(np.arange(len(shown)) + 10, shown, kept, group, ordered)


def distribution(values=VALUES, of=None, **more):
    of = of or samples()
    return data.distribution(values, of, of.drawn(), label="x", title="t", alt="a", **more)


def scatter(x, y, of, **more):
    plane = data.Plane.of(x, y)
    return data.scatter("plane", plane, of.drawn(), title="t", alt="a", labels=("x", "y"), **more)


def counts(view) -> dict[str, int]:
    return {bar["name"]: sum(bar["counts"]) for bar in view["bars"]}


def test_distribution_counts_every_value_once():
    kept = VALUES > 0.5
    assert counts(distribution()) == {"kept": kept.sum(), "set aside": (~kept).sum()}
    few = VALUES < 0.7
    assert counts(distribution(of=samples(shown=few))) == {
        "kept": (kept & few).sum(),
        "set aside": (~kept & few).sum(),
        "filtered out": (~few).sum(),
    }


def test_values_far_out_count_in_the_last_bin():
    values = np.append(VALUES, [1e6, -1e6])
    all_ = Categories(["examples"], np.zeros(5002, int))
    view = distribution(values, samples(np.ones(5002, bool), None, all_))
    assert counts(view) == {"examples": 5002}
    assert view["across"][1] < 10


def test_bars_are_as_many_as_the_values_can_fill():
    """A few different values have one each; more samples have finer ones, up to a bound."""
    assert density.number_of_bars(np.array([1.0, 2.0, 2.0, 3.0]), 1, 3) == 3
    assert density.number_of_bars(np.ones(9), 0, 1) == 1
    few, many = (density.number_of_bars(values, -3, 3) for values in (VALUES[:60], VALUES))
    assert 10 <= few < many <= density.BARS


def test_a_range_over_an_outermost_bar_holds_what_the_bar_counts():
    values = np.concatenate([VALUES, [-40.0, 55.0]])
    low, high = charts.spread(values)
    assert data.brushed_range(values, -1.0, 1.0) == data.brushed_range(values, 1.0, -1.0)
    assert data.brushed_range(values, -1.0, 1.0) == (-1.0, 1.0)
    wide = data.brushed_range(values, low, high)
    assert wide[0] < -40 < 55 < wide[1]
    kept = [float(f"{end:.10g}") for end in wide]
    assert kept[0] < -40
    assert kept[1] > 55
    one_side = data.brushed_range(values, 1.0, high)
    assert one_side[0] == 1.0
    assert one_side[1] > 55


@pytest.mark.parametrize("part", [0.5, 0.01])
def test_bars_and_axes_are_those_of_all_whatever_is_shown(part):
    few = samples(shown=(RNG.random(5000) < part) & (VALUES > 0))
    heights = [
        np.sum([bar["counts"] for bar in distribution(of=of)["bars"]], axis=0)
        for of in (few, samples())
    ]
    np.testing.assert_array_equal(*heights)
    for name in ("across", "up", "density"):
        found = [scatter(VALUES, 3 * VALUES, of)[name] for of in (few, samples())]
        assert found[0] == found[1]


def test_what_is_drawn_is_of_what_is_shown_and_some_of_the_rest():
    shown = VALUES > 1.5
    drawn = samples(shown=shown).drawn()
    assert set(np.flatnonzero(shown)) <= set(drawn.tolist())
    assert 0 < (~shown[drawn]).sum() <= charts.MOST_POINTS // 2
    texts = [f"text {i}" for i in drawn]
    page = data.page(samples(shown=shown), drawn, texts, [])["points"]
    assert page["text"] == texts
    assert page["id"] == (drawn + 10).tolist()
    assert page["shown"] == shown[drawn].tolist()
    assert page["kept"] == (VALUES[drawn] > 0.5).tolist()


def test_places_are_those_of_the_columns():
    """Within the step of an axis; also where something is open or was drawn."""
    of = samples()
    view = scatter(VALUES, -VALUES, of, opened=7, shape=[(0.0, 1.0), (1.0, 0.0), (0.5, -1.0)])
    drawn = of.drawn()
    for places, values, ends in (
        (view["px"], VALUES, view["across"]),
        (view["py"], -VALUES, view["up"]),
    ):
        there = ends[0] + np.array(places) / data.FINE * (ends[1] - ends[0])
        inside = (values[drawn] >= ends[0]) & (values[drawn] <= ends[1])
        step = (ends[1] - ends[0]) / data.FINE
        assert np.abs(there - values[drawn])[inside].max() <= step
    assert len(view["shape"]) == 3
    back = data.Plane.of(VALUES, -VALUES).in_units(view["shape"])
    assert np.allclose(back, [(0.0, 1.0), (1.0, 0.0), (0.5, -1.0)], atol=1e-3)
    assert view["open"] == pytest.approx(
        [
            data.FINE * (VALUES[7] - view["across"][0]) / np.ptp(view["across"]),
            data.FINE * (-VALUES[7] - view["up"][0]) / np.ptp(view["up"]),
        ],
        abs=1,
    )


@pytest.mark.parametrize("corners", [None, "x", [1], [[1, 2], [3]], [["a", "b"]], [[1e999, 0]]])
def test_what_is_no_shape_is_none(corners):
    assert data.Plane.of(VALUES, VALUES).in_units(corners) == ()


def test_quarters_of_a_number_are_shades_and_fates_are_rings():
    ordered = Categories(["low", "mid", "(none)"], np.arange(5000) % 3)
    shades = data.legend(samples(group=ordered, ordered=True))
    assert [name for name, _ in shades] == ["low", "mid", "(none)"]
    assert shades[-1][1] == data.MUTED
    assert dict(data.legend(samples())) == {"set aside": data.MUTED, "kept": data.ACCENT}


def test_topics_lie_at_their_middles_with_what_they_keep():
    of = samples(kept=(VALUES > 0.5) & (np.arange(5000) % 2 == 0))
    places = np.column_stack([VALUES, -VALUES])
    topics = Categories(["even", "odd", "none"], np.arange(5000) % 2)
    plane, middles = data.Plane.of(*places.T), data.middles(*places.T, topics)
    at = [plane.place(middle) for middle in middles.tolist()]
    view = data.named(scatter(*places.T, of), at, of, topics)
    found = {one["name"]: one for one in view["names"]}
    assert found.keys() == {"even", "odd"}
    assert found["even"]["told"] == f" {of.kept.sum():,}/2,500"
    assert (found["even"]["none"], found["odd"]["none"]) == (False, True)
    middle = plane.in_units([found["odd"]["at"]])
    assert np.allclose(middle, np.median(places[1::2], axis=0), atol=1e-3)


# -- the map


def test_the_map_keeps_neighbours():
    """Of three groups far apart, the nearest on the map is nearly always of one's own."""
    group = np.arange(300) % 3
    features = RNG.normal(size=(300, 16)) + 12 * np.eye(16)[group]
    places = text_map(features.astype(np.float32), 0)
    assert places.shape == (300, 2)
    assert np.abs(places).max() == 1
    far = ((places[:, None] - places) ** 2).sum(-1) + 1e9 * np.eye(300)
    assert (group[far.argmin(1)] == group).mean() > 0.95
    np.testing.assert_array_equal(places, text_map(features.astype(np.float32), 0))


def test_samples_beyond_the_fitted_lie_among_their_own(monkeypatch):
    monkeypatch.setattr(maps, "FITTED", 300)
    n = 900
    group = RNG.integers(0, 3, n)
    features = (RNG.normal(size=(n, 8)) + 14 * np.eye(8)[group]).astype(np.float32)
    places = text_map(features, 1)
    middles = np.stack([np.median(places[group == g], axis=0) for g in range(3)])
    nearest = ((places[:, None] - middles) ** 2).sum(-1).argmin(1)
    assert (nearest == group).mean() > 0.9


@pytest.mark.parametrize("n", [1, 2, 7, 8, 20])
def test_few_or_equal_samples_have_places_too(n):
    for features in (RNG.normal(size=(n, 5)), np.ones((n, 5)), RNG.normal(size=(n, 1))):
        places = text_map(features.astype(np.float32), 0)
        assert places.shape == (n, 2)
        assert np.isfinite(places).all()


# -- gestures


@pytest.fixture(scope="module")
def pool():
    return load_pool(Run(DEMO / "run"))


@pytest.fixture
def held(monkeypatch):
    """What is held, without a page."""
    texts: dict[str, list[str]] = {}
    monkeypatch.setattr(filters.url, "get_all", lambda name: texts.get(name, []))
    monkeypatch.setattr(filters.url, "get", lambda name, default="": (texts.get(name) or [""])[-1])
    monkeypatch.setattr(filters.url, "put", lambda name, *values: texts.update({name: [*values]}))
    return texts


def test_one_shape_is_held_for_the_map_and_one_for_each_plane(pool, held):
    corners = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))
    filters.set_shape(*MAP, corners)
    filters.set_shape("loss", "signal", corners)
    filters.set_shape(*MAP, corners[::-1])
    found = {(x, y): drawn for x, y, drawn in filters.shapes(pool)}
    assert found == {MAP: corners[::-1], ("loss", "signal"): corners}
    filters.drop_shape(*MAP)
    assert [shape[:2] for shape in filters.shapes(pool)] == [("loss", "signal")]


def test_gestures_set_what_they_mean_and_others_nothing(pool, held):
    columns = {"column": "loss", "x": "embed_signal", "y": "head_signal"}
    look = looks.Look.by(pool, "nothing", None, **columns)
    everything = np.ones(len(pool), bool)

    def hear(**gesture):
        looks.heard(pool, look, gesture, everything, parameter=filters.WITHIN)

    hear(do="range", view="distribution", low=3.5, high=4.0)
    (bound,) = filters.bounds()
    assert (bound.column, bound.low, bound.high) == ("loss", 3.5, 4.0)
    square = [[-0.1, -0.1], [0.5, -0.1], [0.5, 1.1], [-0.1, 1.1]]
    hear(do="shape", view="map", corners=square)
    west = pool.matching(Filter(lassos=filters.shapes(pool)))
    assert 0 < west.sum() < len(pool)
    np.testing.assert_array_equal(
        west, pool.map["map_x"] < data.Plane.of(*pool.map.values()).in_units(square)[1][0]
    )
    hear(do="nearest", view="distribution", value=2.5)
    (opened,) = held["sample"]
    nearest = pool.scores.sample_id[np.argmin(np.abs(pool.numbers["loss"] - 2.5))]
    assert int(opened) == nearest
    hear(do="open", id=5)
    assert held["sample"] == ["5"]
    before = {name: list(texts) for name, texts in held.items()}
    for gesture in (
        {},
        {"do": "open", "id": "7"},
        {"do": "range", "low": float("nan"), "high": 1.0},
        {"do": "range", "low": "1", "high": None},
        {"do": "nearest", "value": None},
        {"do": "shape", "view": "elsewhere", "corners": square},
        {"do": "shape", "view": "map", "corners": [[0, 0]]},
    ):
        hear(**gesture)
    assert held == before
    hear(do="clear", view="distribution")
    hear(do="clear", view="map")
    assert not filters.bounds()
    assert not filters.shapes(pool)


# -- options


@pytest.mark.parametrize(("link", "expected"), [({}, "a"), ({"k": "b"}, "b"), ({"k": "?"}, "a")])
def test_a_choice_that_the_browser_knew_by_an_old_name_is_what_is_held(link, expected):
    """A browser that asks before it has seen new labels sends one that is no option any more."""

    def page():
        import streamlit as st

        from studio import url

        with url.opened("Page"):
            st.text(url.choose(lambda *_, **__: None, "Which", ["a", "b"], "k"))
            st.text(url.get("k", "-"))

    at = AppTest.from_function(page, default_timeout=60)
    for name, text in link.items():
        at.query_params[name] = text
    at.run()
    assert [line.value for line in at.text] == [expected, link.get("k", "-")]


def test_a_button_pressed_before_the_fields_show_what_they_hold_loses_nothing():
    """What comes from the browser then is what the fields showed empty: they are set again."""

    def page():
        import streamlit as st

        from studio import url

        with url.opened("Page"):
            said = [url.text(st.text_input, name, name) for name in ("one", "two")]
            st.text(" and ".join(said))
            st.button("Go")

    at = AppTest.from_function(page, default_timeout=60)
    at.query_params["one"], at.query_params["two"] = "first", "second"
    at.run()
    for field in at.text_input:
        field.set_value("")
    at.button[0].click().run()
    assert [line.value for line in at.text] == ["first and second"]
    at.text_input(key="one").set_value("mine").run()
    assert [line.value for line in at.text] == ["mine and second"]
    at.text_input(key="one").set_value("").run()
    at.text_input(key="two").set_value("").run()
    assert [line.value for line in at.text] == ["and"]


def test_what_was_typed_before_other_fields_show_what_they_hold_is_kept():
    """Of a field that was set empty, the browser can show nothing else by itself."""

    def page():
        import streamlit as st

        from studio import url

        with url.opened("Page"):
            said = [url.text(st.text_input, name, name) for name in ("one", "two", "three")]
            st.text(" and ".join(said))
            st.button("Go")

    at = AppTest.from_function(page, default_timeout=60)
    at.query_params["one"], at.query_params["two"] = "first", "second"
    at.run()
    for field, shown in zip(at.text_input, ("", "", "typed"), strict=True):
        field.set_value(shown)
    at.button[0].click().run()
    assert [line.value for line in at.text] == ["first and second and typed"]
    assert [field.value for field in at.text_input] == ["first", "second", "typed"]


def test_what_a_drawing_has_set_the_next_one_sets_again_and_no_other():
    """A browser may draw the second without the first; later a person may be typing there."""

    def page():
        import streamlit as st

        from studio import url

        with url.opened("Page"):
            url.text(st.text_input, "One", "one")

    at = AppTest.from_function(page, default_timeout=60)
    at.query_params["one"] = "first"
    set_again = []
    for _ in range(4):
        at.run()
        set_again.append((at.text_input[0].value, at.text_input[0].proto.set_value))
    assert set_again == [("first", True), ("first", True), ("first", False), ("first", False)]


def test_what_a_person_enters_right_after_a_drawing_is_not_set_back():
    def page():
        import streamlit as st

        from studio import url

        with url.opened("Page"):
            st.text(url.text(st.text_input, "One", "one"))

    at = AppTest.from_function(page, default_timeout=60)
    at.query_params["one"] = "first"
    at.run()
    at.text_input[0].set_value("mine").run()
    assert (at.text[0].value, at.text_input[0].value) == ("mine", "mine")
