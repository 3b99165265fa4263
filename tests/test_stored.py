"""Sentences of the engine and figures, in another language."""

import itertools
import re
from string import Formatter

import numpy as np
import pytest

from grads import api
from studio import charts, evaluation_charts, language, stored
from studio.language import say


@pytest.fixture(autouse=True)
def chinese(monkeypatch):
    monkeypatch.setattr(language, "current", lambda: "zh")


def forms(text):
    """A text of the engine as it may read, and what is to be said of it."""
    names = [name for _, name, _, _ in Formatter().parse(text) if name is not None]
    values = [
        [pair for part in api.PARTS[name] for pair in forms(part)]
        if name in api.PARTS
        else [(f"1,{number}", f"1,{number}")]
        for number, name in enumerate(names, 10)
    ]
    for chosen in itertools.product(*values):
        english = text.format(**{n: one for n, (one, _) in zip(names, chosen, strict=True)})
        yield english, say(text, **{n: one for n, (_, one) in zip(names, chosen, strict=True)})


@pytest.mark.parametrize("text", api.SENTENCES)
def test_every_sentence_of_an_evaluation_is_found_again(text):
    """With the values that stood in it; also as the beginning of a line."""
    for english, expected in forms(text):
        assert stored.told(english) == expected
        assert stored.told(english[0].upper() + english[1:]) == expected
        assert not re.search("[a-z]{3}", expected.replace("max_length", "")), expected


def test_names_and_numbers_stay_and_a_known_arm_has_a_word():
    said = stored.told("a 1 and b was preferred 3 of 4 times to random (p = 0.62)")
    assert said == "4 次中有 3 次认为 a 1 and b 优于 随机（p = 0.62）"
    assert stored.arm("base") == "基础模型"
    assert stored.arm("base-10") == "base-10"


def test_what_is_not_known_stays_as_it_was_written():
    assert stored.told("selection 'x' is a random draw") == "selection 'x' is a random draw"


def test_english_stays_as_it_was_written(monkeypatch):
    monkeypatch.setattr(language, "current", lambda: "en")
    assert stored.told("THE SEARCH is not finished.") == "THE SEARCH is not finished."


# -- figures

X, Y = np.array([1.0, 2.0, 3.0]), np.array([3.0, 1.0, 2.0])
MASK = np.array([True, False, True])
FIGURES = {
    "trade_off": lambda: evaluation_charts.trade_off(
        ["base", "random", "1"],
        ["base", "random", "selection"],
        learning=[9.0, 2.0, 1.9],
        forgetting=[0.0, 0.1, 0.2],
        reach=[(0.0, 0.0), (0.01, 0.01), (0.01, 0.01)],
        front=["random", "1"],
    ),
    "replay": lambda: evaluation_charts.replay({"random": [(0.0, 2.0, 0.3)]}, ["random"]),
    "budgets": lambda: evaluation_charts.budgets(
        {"random": [(5.0, (2.0, (1, 3)), (0.1, None))]}, ["random"]
    ),
    "differences": lambda: evaluation_charts.differences(
        ["1", "2"],
        [(-0.2, -0.3, -0.1, "better"), (0.0, -0.1, 0.1, "no difference seen")],
        [(0.0, -0.1, 0.1, "no difference seen"), (0.3, 0.1, 0.5, "worse")],
    ),
    "training": lambda: evaluation_charts.training_curves({"full": [(1, 3.0)]}, ["full"]),
    "overlap": lambda: evaluation_charts.overlap(["random", "1"], [[1.0, 0.5], [0.5, 1.0]]),
    "ranks": lambda: charts.ranks(
        X, Y, highest=(MASK, ~MASK), sample_id=np.arange(3), labels=("1", "2")
    )[0],
    "topics": lambda: charts.topics(["1"], [1], [2]),
    "coverage": lambda: charts.coverage(["1"], [1.0], [2.0], [(0.5, 1.5)]),
    "lengths": lambda: charts.lengths(np.array([3, 4]), np.array([5, 6]), 8),
    "loss": lambda: charts.loss_curve([0, 1], [2.0, 1.0], say("training step")),
}


def words_of(figure):
    """What a figure says: its titles, legend, notes, and what pointing at it tells."""
    layout = figure.layout
    axes = [getattr(layout, name, None) for name in ("xaxis", "xaxis2", "yaxis", "yaxis2")]
    yield from (axis.title.text for axis in axes if axis)
    yield from (note.text for note in layout.annotations)
    for trace in figure.data:
        yield trace.name
        yield trace.hovertemplate
        yield from (text for text in np.atleast_1d(trace.text) if isinstance(text, str))
        yield from (text for text in np.atleast_1d(trace.y) if isinstance(text, str))


@pytest.mark.parametrize("name", FIGURES)
def test_no_english_word_is_left_in_a_figure(name):
    said = [re.sub(r"%\{[^}]*\}|<[^>]*>", "", text) for text in words_of(FIGURES[name]()) if text]
    assert [text for text in said if re.search("[A-Za-z]{3}", text)] == []
    assert re.search("[\u4e00-\u9fff]", "".join(said))


def test_the_base_model_out_of_view_is_named_and_hidden():
    figure = FIGURES["trade_off"]()
    hidden = [trace.name for trace in figure.data if trace.visible == "legendonly"]
    assert hidden == ["基础模型"]
    assert [note.text for note in figure.layout.annotations] == ["基础模型：9.000，在视野之外"]
