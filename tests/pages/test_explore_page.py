"""The page Explore: searches, ranges, topics, the open example."""

import json

import numpy as np
import pyarrow as pa
import pytest
from run_dirs import (
    DEMO,
    assert_sound,
    everything,
    headline,
    kept_ids,
    listed,
    matching,
    messages,
    open_page,
    press,
    set_source_columns,
)

from grads.selection.pool import Pool
from studio import filters, words

MANY_DIGITS = "9" * 5_000  # more than Python reads as a number


@pytest.mark.parametrize("text", ["insulin", "BLOOD pressure", "(", "<b>", "no such words"])
def test_search_narrows_to_what_a_plain_search_finds(run, pool, text):
    source = (DEMO / "medical_qa.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {i: json.loads(source[i]) for i in pool.scores.sample_id.tolist()}
    found = {
        i
        for i, row in rows.items()
        if any(text.lower() in row[key].lower() for key in ("question", "answer"))
    }
    at = open_page("Explore", search=text)
    assert matching(at) == len(found)
    rows_of_a_page = 50
    assert ("Take a filter off" in messages(at)) == (not found)
    if len(found) <= rows_of_a_page:
        assert set(listed(at)) == found
    else:
        assert set(listed(at)) < found


def test_a_range_in_the_link_narrows(run, pool):
    signal = pool.numbers["signal"]
    at = open_page("Explore", within="signal:0:1")
    assert matching(at) == ((signal >= 0) & (signal <= 1)).sum()
    (chip,) = [b for b in at.button if b.key == "drop-within-signal"]
    chip.click().run()
    assert headline(at) == "What the model finds in 300 examples"


def test_several_ranges_and_a_search_narrow_together(run, pool):
    loss, tokens = pool.numbers["loss"], pool.numbers["response_tokens"]
    both = (loss >= 2) & (loss <= 3) & (tokens >= 50) & (tokens <= 100)
    at = open_page("Explore", within=["loss:2:3", "response_tokens:50:100"])
    assert matching(at) == both.sum() > 0
    at.text_input(key="search").set_value("the").run()
    assert 0 < matching(at) < both.sum()
    press(at, "Show everything")
    assert headline(at) == "What the model finds in 300 examples"
    assert at.text_input(key="search").value == ""


def test_topics_narrow(run, pool):
    at = open_page("Explore", topics=["0", "2"])
    assert matching(at) == np.isin(pool.cluster, [0, 2]).sum()
    (box,) = [box for box in at.multiselect if box.label == "Topics"]
    box.set_value([1]).run()
    assert matching(at) == (pool.cluster == 1).sum()


def test_a_saved_selection_tells_kept_from_set_aside(run):
    at = open_page("Explore", selection="grads-10", search="pain")
    (table,) = [t.value for t in at.dataframe if "question" in t.value.columns]
    kept = set(kept_ids(run, "grads-10"))
    fates = dict(zip(table["row"], table["fate"], strict=True))
    assert fates == {row: "kept" if row in kept else "set aside" for row in fates}
    assert set(fates.values()) == {"kept", "set aside"}
    (colour,) = [box for box in at.selectbox if box.label == "Colour"]
    assert colour.options[0] == "kept or set aside"


def test_a_sample_in_the_link_is_open(run):
    row = json.loads((DEMO / "medical_qa.jsonl").read_text(encoding="utf-8").splitlines()[5])
    at = open_page("Explore", sample="5")
    text = everything(at)
    assert "#### Example in row 5" in text
    bodies = "".join(block.proto.body for block in at.get("html"))
    assert row["question"].split("?")[0][:40].replace("'", "&#x27;") in bodies
    assert any(button.key.startswith("near-") for button in at.button if button.key)


def test_a_neighbour_opens_in_its_turn(run):
    at = open_page("Explore", sample="5")
    near = next(button for button in at.button if (button.key or "").startswith("near-"))
    other = near.key.rsplit("-", 1)[1]
    near.click().run()
    assert f"#### Example in row {other}" in everything(at)


def test_percentiles_of_the_open_sample(run, pool):
    (table,) = [
        t.value for t in open_page("Explore", sample="5").dataframe if "percentile" in t.value
    ]
    position = int(pool.positions(np.array([5]))[0])
    found = dict(zip(table["number"], table["percentile"], strict=True))
    for column in ("signal", "loss", "response_tokens"):
        assert found[words.label(column)] == pytest.approx(pool.percentile(column, position))


@pytest.mark.parametrize("page", ["Explore", "Select"])
def test_the_heat_of_a_sample_is_drawn(run, page):
    at = open_page(page, sample="5")
    (view,) = [g for g in at.button_group if g.label == "View"]
    view.set_value("Where the signal lies").run()
    assert_sound(at)
    heat = [b.proto.body for b in at.get("html") if "rgba(224,123,31" in b.proto.body]
    assert len(heat) == 1
    assert '<span class="learned"' in heat[0]


@pytest.mark.parametrize(
    "parameters",
    [
        {"within": "nope:0:1"},
        {"within": "signal"},
        {"within": "signal:a:b"},
        {"within": "signal:nan:1"},
        {"within": "signal:100:200"},
        {"sample": "9999"},
        {"sample": "99999999999999999999"},
        {"sample": "-1"},
        {"sample": "abc"},
        {"selection": "nope"},
        {"selection": "../../etc/passwd"},
        {"topics": "no such topic"},
        {"column": "nope", "x": "nope", "y": "nope", "colour": "nope"},
        {"within": "signal:1:0"},
        {"shape": "no shape"},
        {"shape": '["nope","signal",0,0,1,1,0,1]'},
        {"shape": '["loss","signal",0,0,1]'},
        {"shape": '{"a":1}'},
        {"shape": '["loss","signal",0,0,1,0,1,' + "9" * 400 + "]"},
        {"shape": '["loss","signal",0,0,Infinity,0,0,1]'},
        {"shape": '["loss","signal",0,0,NaN,0,0,1]'},
        {"shape": "[" * 100_000},
        {"x": ""},
        {"page": "abc"},
        {"page": "1.5"},
        {"page": "-1"},
        {"page": "nan"},
        {"page": MANY_DIGITS},
        {"sample": MANY_DIGITS},
    ],
    ids=lambda parameters: str(parameters)[:60],
)
def test_what_a_link_says_wrongly_is_ignored_or_told(run, parameters):
    """Told is what could have been meant so: a range of no example, an example that is not here."""
    told = {
        "signal:100:200": "No example matches",
        "9999": "There is no example 9999 in this run",
        "99999999999999999999": "There is no example 99999999999999999999 in this run",
    }
    (value, *_) = parameters.values()
    at = open_page("Explore", **parameters)
    found = ": 0 match" if parameters == {"within": "signal:100:200"} else ""
    assert headline(at) == f"What the model finds in 300 examples{found}"
    assert not at.error
    assert told[value] in messages(at) if value in told else messages(at) == ""


@pytest.mark.parametrize("value", ["abc", "1.5", "-1", "nan", MANY_DIGITS], ids=lambda v: v[:9])
def test_a_place_in_the_queue_that_is_none_is_ignored(run, value):
    at = open_page("Review", at=value, sample=value)
    assert_sound(at)
    assert headline(at) == headline(open_page("Review"))


def test_a_sample_that_is_not_there_is_said(run):
    assert "There is no example 9999" in messages(open_page("Explore", sample="9999"))


def test_columns_of_the_data_can_be_drawn(run):
    """Also one with missing values."""
    ages = pa.array([None if i % 5 == 0 else float(i) for i in range(300)])
    set_source_columns(run, age=ages, sure=pa.array([i % 2 == 0 for i in range(300)]))
    at = open_page("Explore", column="age", x="age", y="age", colour="sure", within="age:10:90")
    assert matching(at) == sum(10 <= i <= 90 and i % 5 > 0 for i in range(300))


def test_colours_by_quarters_leave_missing_values_apart(run):
    set_source_columns(run, age=pa.array([None if i < 3 else i + 0.5 for i in range(300)]))
    group = filters.groups(Pool(run), "age", None)
    assert not set(group.code[:3].tolist()) & set(group.code[3:].tolist())


def test_every_colour_is_offered_once(run):
    set_source_columns(run, stars=pa.array([i % 5 for i in range(300)]))
    (box,) = [box for box in open_page("Explore").selectbox if box.label == "Colour"]
    assert len(set(box.options)) == len(box.options)


def test_a_row_is_opened_by_its_number(run):
    at = open_page("Explore")
    at.number_input(key="row").set_value(7).run()
    assert "#### Example in row 7" in everything(at)
