"""The page Select: budgets, presets, options, ranges, names."""

import json

import numpy as np
import pyarrow as pa
import pytest
from run_dirs import (
    assert_sound,
    demo_run,
    everything,
    has_button,
    headline,
    kept_ids,
    listed,
    matching,
    messages,
    open_page,
    press,
    save_as,
    set_source_columns,
    shown_count,
)

from grads import api
from grads.selection import preview
from grads.selection import select as selection
from grads.selection.filters import Filter
from grads.selection.options import SelectionConfig
from studio import words

PERCENTS = (2.5, 5.0, 10.0, 25.0, 50.0)


@pytest.mark.parametrize("percent", PERCENTS)
def test_the_budget_in_the_link_is_kept(run, percent):
    at = open_page("Select", budget=str(percent))
    assert headline(at) == f"Keep {round(percent / 100 * 300)} of 300 examples"
    (metric,) = [m for m in at.metric if m.label == "Examples"]
    assert metric.value == str(round(percent / 100 * 300))
    assert at.slider(key="budget").value == percent


def pressed_preset(at) -> list[str]:
    """The presets that are marked as what stands."""
    presets = [b for b in at.button if (b.key or "").startswith("preset-")]
    assert [b.label for b in presets] == [*(f"{p:g}%" for p in PERCENTS), "auto"]
    return [b.label for b in presets if b.proto.type == "secondary"]


@pytest.mark.parametrize("percent", PERCENTS)
def test_presets_set_the_budget(run, percent):
    at = open_page("Select", budget="7.5")
    assert pressed_preset(at) == []
    at.button(key=f"preset-{percent}").click().run()
    assert headline(at) == f"Keep {round(percent / 100 * 300)} of 300 examples"
    assert at.slider(key="budget").value == percent
    assert pressed_preset(at) == [f"{percent:g}%"]


def test_the_preset_auto_lets_the_data_decide(run, pool):
    expected = preview.preview(pool, SelectionConfig(auto=True)).count
    at = open_page("Select")
    at.button(key="preset-auto").click().run()
    assert shown_count(at) == expected
    assert at.toggle(key="auto").value
    assert at.slider(key="budget").disabled
    at.button(key="preset-25.0").click().run()
    assert shown_count(at) == 75
    assert not at.toggle(key="auto").value


def test_auto_in_the_link(run, pool):
    expected = preview.preview(pool, SelectionConfig(auto=True)).count
    assert shown_count(open_page("Select", auto="true")) == expected


@pytest.mark.parametrize(
    ("parameters", "preset"), [({"budget": "25.0"}, "25%"), ({"auto": "true"}, "auto")], ids=str
)
def test_a_link_marks_its_own_preset(run, parameters, preset):
    assert pressed_preset(open_page("Select", **parameters)) == [preset]


def test_what_is_chosen_is_held_whatever_the_address_still_says(run):
    """The next interaction may come with an address from before the last: nothing goes back."""
    at = open_page("Select")
    at.slider(key="budget").set_value(50.0).run()
    at.selectbox(key="criterion").set_value("magnitude").run()
    at.query_params.clear()
    at.query_params["run"] = "demo"
    at.slider(key="budget").set_value(25.0).run()
    assert shown_count(at) == 75
    assert at.selectbox(key="criterion").value == "magnitude"
    assert at.query_params["criterion"] in ("magnitude", ["magnitude"])
    assert at.query_params["budget"] in ("25", ["25"])


def test_options_that_do_not_go_together_leave_page_and_sliders_standing(run):
    at = open_page("Select")
    at.slider(key="focus").set_value(0.5).run()
    at.selectbox(key="criterion").set_value("magnitude").run()
    at.toggle(key="auto").set_value(True).run()
    assert "auto needs a density" in messages(at)
    assert has_button(at, "Make the files")
    assert listed(at)
    at.toggle(key="auto").set_value(False).run()
    at.selectbox(key="criterion").set_value("grads").run()
    assert at.slider(key="focus").value == 0.5
    assert at.query_params["focus"] in ("0.5", ["0.5"])


def test_a_bad_name_leaves_the_page_standing(run):
    at = save_as(open_page("Select", sample="5"), "a b")
    assert "is no name for a selection" in messages(at)
    assert has_button(at, "Make the files")
    assert "#### Example in row 5" in everything(at)


def test_another_run_takes_no_filter_and_no_example_along(run, root):
    demo_run(root, "other")
    link = {"within": "signal:0:1", "search": "pain", "topics": "1", "sample": "5", "x": "loss"}
    link |= {"selection": "grads-10", "shape": '["loss","signal",1,-9,9,-9,9,9,1,9]'}
    at = open_page("Explore", run="demo", **link)
    assert 0 < matching(at) < 300
    at.selectbox(key="run").set_value("other").run()
    assert headline(at) == "What the model finds in 300 examples"
    assert at.query_params.keys() == {"run", "x"}
    assert at.text_input(key="search").value == ""
    assert "#### Example in row" not in everything(at)
    at = open_page("Select", run="demo", bound="loss:2:3", budget="50", sample="5")
    at.selectbox(key="run").set_value("other").run()
    assert at.query_params.keys() == {"run", "budget"}
    assert shown_count(at) == 150


def test_a_drawn_shape_is_in_the_link(run, pool):
    corners = ((1.0, -9.0), (2.5, -9.0), (2.5, 9.0), (1.0, 9.0))
    inside = pool.matching(Filter(lassos=(("loss", "signal", corners),)))
    assert 0 < inside.sum() < 300
    text = json.dumps(["loss", "signal", *(end for corner in corners for end in corner)])
    at = open_page("Explore", shape=text)
    assert matching(at) == inside.sum()
    press(at, "Drawn in the plane")
    assert headline(at) == "What the model finds in 300 examples"
    assert "shape" not in at.query_params


LINKS = [
    ({"budget": "25.0"}, {"ratio": 0.25}),
    ({"auto": "true"}, {"auto": True}),
    ({"focus": "-1.5", "typicality": "0.5"}, {"ratio": 0.1, "focus": -1.5, "typicality": 0.5}),
    ({"budget": "20", "unit": "tokens"}, {"ratio": 0.2, "budget_unit": "tokens"}),
    ({"criterion": "magnitude"}, {"ratio": 0.1, "criterion": "magnitude"}),
    (
        {"criterion": "random", "seed": "3"},
        {"ratio": 0.1, "criterion": "random", "seed": 3},
    ),
    (
        {"criterion": "density", "draw": "sample"},
        {"ratio": 0.1, "criterion": "density", "draw": "sample"},
    ),
    ({"draw": "stratified"}, {"ratio": 0.1, "draw": "stratified"}),
    ({"draw": "top", "focus": "1.0"}, {"ratio": 0.1, "draw": "top", "focus": 1.0}),
    ({"draw": "sample", "seed": "5"}, {"ratio": 0.1, "draw": "sample", "seed": 5}),
    (
        {"signal": "head", "length_control": "none"},
        {"ratio": 0.1, "signal": "head", "length_control": "none"},
    ),
    (
        {"bound": ["loss:2:3", "response_tokens:20:90"]},
        {
            "ratio": 0.1,
            "bounds": [
                {"column": "loss", "low": 2.0, "high": 3.0},
                {"column": "response_tokens", "low": 20.0, "high": 90.0},
            ],
        },
    ),
]


@pytest.mark.parametrize(("parameters", "values"), LINKS, ids=str)
def test_options_in_the_link_keep_what_the_engine_keeps(run, pool, parameters, values):
    """Saved through the page, the subset is selection.select's, and as large as it said."""
    options = SelectionConfig.parse(values)
    expected = selection.select(pool.scores, options, pool.numbers, pool.cluster).kept
    at = open_page("Select", **parameters)
    assert shown_count(at) == expected.sum()
    save_as(at, "mine")
    assert_sound(at)
    assert kept_ids(run, "mine") == pool.scores.sample_id[expected].tolist()
    record = api.read_record(run, "mine")
    assert record.options == options
    assert record.samples.kept == shown_count(at)


def test_a_budget_in_tokens_is_not_exceeded(run, pool):
    at = open_page("Select", budget="10.0", unit="tokens")
    (metric,) = [m for m in at.metric if m.label == "Answer tokens"]
    kept, tokens = int(metric.value.replace(",", "")), pool.scores.response_tokens
    budget = round(0.1 * tokens.sum())
    assert budget - tokens.max() < kept <= budget


def test_moving_a_slider_moves_the_choice(run, pool):
    at = open_page("Select")
    before = set(listed_changes(at))
    at.slider(key="focus").set_value(-2.0).run()
    assert shown_count(at) == 30
    assert set(listed_changes(at)) != before
    at.slider(key="budget").set_value(40.0).run()
    assert shown_count(at) == 120


def listed_changes(at) -> list[int]:
    """Rows of the list that is shown."""
    (table,) = [t.value for t in at.dataframe if "question" in t.value.columns]
    return table["row"].tolist()


def test_lists_of_who_is_kept_and_who_enters_and_leaves_against_a_saved_selection(run, pool):
    """Each example once, with its reason; all of them, page by page, the best scores first."""
    shown = preview.preview(pool, SelectionConfig(ratio=0.1))
    ids = pool.scores.sample_id
    kept, saved = set(ids[shown.kept].tolist()), set(kept_ids(run, "random-10"))
    expected = {
        "kept": kept,
        "entering": kept - saved,
        "leaving": saved - kept,
        "decided": set(),
    }
    at = open_page("Select", base="random-10")
    (box,) = [group for group in at.button_group if group.label == "List"]
    told = ["All 300", "Kept 30", "Set aside 270", f"Entering {len(kept - saved)}"]
    assert box.options[:4] == told
    for name, rows in expected.items():
        at = open_page("Select", base="random-10", show=name)
        if rows:
            assert sorted(listed_changes(at)) == sorted(rows)
        else:
            assert "Nobody has decided" in everything(at)
    aside: list[int] = []
    at = open_page("Select", show="aside")
    for page in range(1, 7):
        at.number_input(key="page").set_value(page).run()
        aside += listed_changes(at)
        (table,) = [t.value for t in at.dataframe if "reason" in t.value.columns]
        places = pool.positions(np.array(table["row"]))
        assert table["reason"].tolist() == api.reasons(pool, shown, places)
    scores = shown.ranking.score[pool.positions(np.array(aside))]
    assert (np.diff(scores) <= 0).all()
    assert sorted(aside) == sorted(set(ids.tolist()) - kept)
    assert "No example enters." in everything(open_page("Select", base="grads-10", show="entering"))


def test_any_column_sorts_all_rows_and_pages_go_on(run, pool):
    """Also the data's own; a page beyond the last is the first."""
    set_source_columns(run, note=pa.array([f"n{i * 7 % 300:03}" for i in range(300)]))
    at = open_page("Explore", sort="loss", up="true")
    order = np.argsort(pool.numbers["loss"], kind="stable")
    assert listed_changes(at) == pool.scores.sample_id[order][:50].tolist()
    at.number_input(key="page").set_value(6).run()
    assert listed_changes(at) == pool.scores.sample_id[order][250:].tolist()
    at.text_input(key="search").set_value("insulin").run()
    assert 0 < len(listed_changes(at)) < 50, "a filter that leaves fewer pages shows the first"
    at = open_page("Explore", sort="note")
    (table,) = [t.value for t in at.dataframe if "question" in t.value.columns]
    assert table["note"].tolist() == [f"n{i:03}" for i in range(299, 249, -1)]


def test_columns_of_the_data_filter(run, pool):
    kinds = pool.categories["kind"]
    names = kinds.names[:2]
    at = open_page("Explore", only=[json.dumps(["kind", name]) for name in names])
    assert matching(at) == np.isin(kinds.code, [0, 1]).sum()
    (table,) = [t.value for t in at.dataframe if "question" in t.value.columns]
    assert set(table["kind"]) <= set(names)
    (box,) = [box for box in at.multiselect if box.label == "Columns of your data"]
    box.set_value([]).run()
    assert headline(at) == "What the model finds in 300 examples"


def test_random_is_a_range_and_the_seeds_part_is_said(run, pool):
    """Not one draw: what random subsets hold, and how much another seed would keep again."""
    shown = preview.preview(pool, SelectionConfig(ratio=0.1))
    at = open_page("Select")
    deltas = {metric.label: metric.delta for metric in at.metric}
    luck = shown.random_tokens
    assert luck.low < luck.mean < luck.high
    assert deltas["Answer tokens"] == f"random: {luck.low:,.0f} to {luck.high:,.0f}"
    again = words.share(shown.stability, 1)
    assert f"another seed would keep **{again}** of these" in everything(at)
    assert 0.1 < shown.stability < 0.9
    assert "another seed" not in everything(open_page("Select", draw="top"))


def test_what_becomes_empty_is_said(run, pool):
    options = SelectionConfig(ratio=0.1, criterion="longest")
    shown = preview.preview(pool, options)
    gone = preview.emptied(preview.coverage(pool, shown, "kind"))
    assert gone
    at = open_page("Select", criterion="longest", by="kind")
    named = ", ".join(f"{name} ({expected:.1f})" for name, expected in gone.items())
    assert f"Nothing is kept of: {named}." in messages(at)


def test_auto_without_a_density_says_what_to_do(run):
    at = open_page("Select", auto="true", criterion="magnitude")
    assert_sound(at)
    assert "auto needs a density" in messages(at)
    assert "give a ratio" in messages(at)
    at.toggle(key="auto").set_value(False).run()
    assert headline(at) == "Keep 30 of 300 examples"


def test_a_draw_that_a_criterion_cannot_make_says_what_to_do(run):
    at = open_page("Select", draw="sample", criterion="magnitude")
    assert_sound(at)
    assert "use top or stratified" in messages(at)


def test_the_draw_follows_what_counts_until_it_is_chosen(run):
    """What a criterion cannot draw is never its default, and the address stays short."""
    at = open_page("Select")
    assert at.selectbox(key="draw").value == "sample"
    at.selectbox(key="criterion").set_value("magnitude").run()
    assert_sound(at)
    assert at.selectbox(key="draw").value == "top"
    assert "draw" not in at.query_params
    at.selectbox(key="draw").set_value("stratified").run()
    at.selectbox(key="criterion").set_value("grads").run()
    assert at.selectbox(key="draw").value == "stratified"
    assert at.query_params["draw"] == "stratified"


def test_even_then_there_is_a_headline(run):
    assert headline(open_page("Select", auto="true", criterion="magnitude"))


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "a b", "é", "x" * 70])
def test_a_bad_name_saves_nothing(run, name):
    before = run.selection_names()
    at = save_as(open_page("Select"), name)
    assert_sound(at)
    assert "is no name for a selection" in messages(at)
    assert run.selection_names() == before
    assert not (run.path / "x.json").exists()


def test_without_a_name_there_is_nothing_to_save(run):
    (button,) = [b for b in open_page("Select").button if b.label.startswith("Save these")]
    assert button.disabled


def test_a_saved_selection_is_offered_for_export(run):
    at = save_as(open_page("Select", budget="5.0"), "first-try")
    assert api.read_record(run, "first-try").samples.as_json() == {"kept": 15, "pool": 300}
    (box,) = [box for box in at.selectbox if box.label == "Saved selection"]
    assert box.value == "first-try"


@pytest.mark.parametrize("bound", ["nope:0:1", "signal", "signal:a:b", "signal:1:0"])
def test_a_wrong_range_in_the_link(run, bound):
    """What is no range is ignored: the choice is that without it."""
    at = open_page("Select", bound=bound)
    assert_sound(at)
    assert headline(at) == "Keep 30 of 300 examples"
    assert sorted(listed_changes(at)) == sorted(listed_changes(open_page("Select")))
    assert not [slider.key for slider in at.slider if slider.key.startswith("range-")]


def test_a_range_that_holds_nothing_is_told(run):
    """It is no accident either: what to do is said, and the range can be widened again."""
    at = open_page("Select", bound="signal:100:200")
    assert_sound(at)
    assert "nothing is left to choose from: widen the bounds" in messages(at)
    assert "Save this selection" not in everything(at), "there are some, and none to be saved"
    assert "range-signal" in [slider.key for slider in at.slider]


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        ("loss:2.5:3", (2.5, 3.0)),
        pytest.param("signal:0:1", (0.0, 1.0)),
        pytest.param("signal:-1:0", (-1.0, 0.0)),
    ],
)
def test_a_range_in_the_link_stands_on_its_slider(run, bound, expected):
    column = bound.split(":")[0]
    assert open_page("Select", bound=bound).slider(key=f"range-{column}").value == expected


def test_a_range_is_added_moved_and_taken_off(run, pool):
    loss = pool.numbers["loss"]
    at = open_page("Select", budget="50.0")
    at.multiselect(key="limited").set_value(["loss"]).run()
    assert shown_count(at) == 150
    at.slider(key="range-loss").set_value((2.5, 3.0)).run()
    inside = ((loss >= 2.5) & (loss <= 3.0)).sum()
    assert shown_count(at) == min(150, inside)
    assert at.query_params["bound"] in ("loss:2.5:3", ["loss:2.5:3"])
    at.multiselect(key="limited").set_value([]).run()
    assert shown_count(at) == 150


def test_a_column_with_missing_values_can_be_limited(run):
    set_source_columns(run, age=pa.array([None if i < 3 else float(i) for i in range(300)]))
    at = open_page("Select")
    at.multiselect(key="limited").set_value(["age"]).run()
    assert_sound(at)
    assert at.slider(key="range-age").value == pytest.approx((3, 299), rel=1e-3)
