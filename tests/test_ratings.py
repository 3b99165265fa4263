"""Blind ratings of answers: which pairs there are, what is noted, how it is counted."""

import json
from collections import Counter
from html import escape
from itertools import combinations

import pytest
from run_dirs import demo_run, messages, open_page, press

from grads import api
from grads.errors import RunError
from grads.evaluation.ratings import Pair, open_pairs, pairs, rate, ratings, sentence, tallies
from grads.evaluation.result import Answers


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    return demo_run(tmp_path, "demo")


@pytest.fixture
def evaluation(run):
    return api.Evaluation.open(run, "tenth")


def answers(evaluation) -> Answers:
    return Answers.read(evaluation.answers_file)


def test_every_two_different_answers_meet_once_on_drawn_sides(evaluation):
    found = answers(evaluation)
    made = pairs(found)
    assert made == pairs(found), "the same each time, so that a rating can go on"
    expected = Counter(
        (number, frozenset(two))
        for number, prompt in enumerate(found.prompts)
        for two in combinations(prompt.answers, 2)
        if prompt.answers[two[0]].strip() != prompt.answers[two[1]].strip()
    )
    assert Counter((one.prompt, frozenset((one.left, one.right))) for one in made) == expected
    sides = Counter(one.left for one in made)
    assert len(sides) > 1, "no arm stands on one side alone"


def test_a_rating_is_noted_and_the_last_word_counts(evaluation):
    first, second, *_ = pairs(answers(evaluation))
    rate(evaluation, first, "left", " Dr Ada ")
    rate(evaluation, first, "right", "Dr Ada")
    rate(evaluation, first, "equal", "Bo")
    assert ratings(evaluation) == {("Dr Ada", first): "right", ("Bo", first): "equal"}
    waiting = open_pairs(answers(evaluation), ratings(evaluation), "Dr Ada")
    assert waiting[0] == second
    assert first not in waiting
    lines = [json.loads(line) for line in evaluation.ratings_file.read_text().splitlines()]
    assert [line["better"] for line in lines] == ["left", "right", "equal"]
    with evaluation.ratings_file.open("a") as file:
        file.write('{"prompt": 1, "le')
    assert len(ratings(evaluation)) == 2, "a line that was broken off takes nothing with it"
    assert evaluation.unreadable_ratings() == [4]


def test_ratings_that_are_lost_are_told(run, evaluation):
    first, *_ = pairs(answers(evaluation))
    rate(evaluation, first, "left", "Ada")
    with evaluation.ratings_file.open("a") as file:
        file.write('{"prompt": 1, "le')
    at = open_page("Evaluate", run="demo")
    at.session_state["rate"] = True
    at.run()
    assert "A rating was broken off" in messages(at)
    evaluation.ratings_file.write_text("")
    for use in (lambda: ratings(evaluation), lambda: rate(evaluation, first, "left", "Ada")):
        with pytest.raises(RunError, match=r"ratings\.jsonl is empty, so what was rated is lost"):
            use()
    assert evaluation.ratings_file.read_text() == ""
    at.run()
    assert "is empty, so what was rated is lost" in messages(at)


def test_no_other_pair_is_rated(evaluation):
    with pytest.raises(RunError, match="no such pair"):
        rate(evaluation, Pair(0, "nobody", "full"), "left", "")
    assert not evaluation.ratings_file.exists()


def test_counts_say_what_chance_would_do_as_easily():
    mine = [("", Pair(i, "a", "b") if i % 2 else Pair(i, "b", "a")) for i in range(12)]
    all_a = {key: ("left" if key[1].left == "a" else "right") for key in mine}
    (found,) = tallies(all_a)
    assert (found.first, found.first_better, found.second_better, found.equal) == ("a", 12, 0, 0)
    assert found.p == pytest.approx(2 / 2**12)
    assert sentence(found) == "a was preferred 12 of 12 times to b (p = 0.00049)"
    few = dict(list(all_a.items())[:2]) | {("Bo", mine[0][1]): "equal"}
    assert sentence(tallies(few)[0]) == (
        "a was preferred 2 of 2 times to b, 1 as good (p = 0.5), which chance does as easily"
    )
    even = {mine[0]: "left", mine[1]: "left"}
    assert sentence(tallies(even)[0]) == "a and b: 1 to 1; no preference"


def test_the_page_shows_a_pair_without_its_names_and_takes_the_rating(run, evaluation):
    at = open_page("Evaluate", run="demo")
    at.session_state["rate"] = True
    at.run()
    first = pairs(answers(evaluation))[0]
    texts = answers(evaluation).prompts[first.prompt].answers
    sides = [f'<div class="turn">{escape(texts[arm])}</div>' for arm in (first.left, first.right)]
    shown = [block.proto.body for block in at.get("html")]
    at_left = shown.index(sides[0])
    assert shown[at_left + 1] == sides[1]
    press(at, "Left is better")
    assert ratings(evaluation) == {("", first): "left"}
    (bar,) = at.get("progress")
    assert bar.proto.text == f"1 of {len(pairs(answers(evaluation)))} rated"
