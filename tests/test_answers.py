"""What models write, and how close it comes to a short reference, by hand and by brute force."""

import numpy as np
import pytest
import tiny
import torch
from chain import WORDS, save_tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from grads.data.tokens import TokenPool
from grads.data.turns import Turn
from grads.engine import models
from grads.errors import Stopped
from grads.evaluation import answers
from grads.evaluation.closeness import exact, rouge_l, token_f1, words
from grads.evaluation.measure import Probe, pool_of


@pytest.mark.parametrize(
    ("written", "reference", "expected"),
    [
        ("Paris.", "paris", 1),
        ("  the\n heart ", "The heart", 1),
        ("Ｐａｒｉｓ", "Paris", 1),
        ("心脏。", "心脏", 1),
        ("-5", "5", 0),
        ("C", "C++", 0),
        ("Paris, France", "Paris", 0),
    ],
)
def test_exact_looks_past_case_blanks_and_the_full_stop_alone(written, reference, expected):
    assert exact(written, reference) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The heart's 2 valves!", ["the", "heart", "s", "2", "valves"]),
        ("心脏 and ひと", ["心", "脏", "and", "ひ", "と"]),
        ("Größe, naïve", ["grösse", "naïve"]),
        ("... !", []),
    ],
)
def test_words_of_any_script(text, expected):
    assert words(text) == expected


def test_shared_words_by_hand():
    """Two of three words written, of four asked for: 2 * 2 / (3 + 4); each counts once."""
    assert token_f1("rest and rest", "rest, drink and sleep") == pytest.approx(4 / 7)
    assert token_f1("rest rest", "rest") == pytest.approx(2 / 3)
    assert token_f1("心脏", "心病") == pytest.approx(1 / 2)
    assert token_f1("", "rest") == token_f1("water", "rest") == 0


def longest_common(a, b):
    """Length of the longest common subsequence, by trying every subset of the shorter one."""
    short, long = sorted((a, b), key=len)
    best = 0
    for mask in range(2 ** len(short)):
        chosen = [word for i, word in enumerate(short) if mask >> i & 1]
        rest = iter(long)
        if all(word in rest for word in chosen):
            best = max(best, len(chosen))
    return best


FEW = st.lists(st.sampled_from(["rest", "心", "the", "water"]), min_size=1, max_size=7)


@given(FEW, FEW)
@settings(deadline=None)
def test_rouge_l_against_brute_force(a, b):
    common = longest_common(a, b)
    assert rouge_l(" ".join(a), " ".join(b)) == pytest.approx(2 * common / (len(a) + len(b)))


# -- which samples are answered, and what comes of it


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_tiny_model(folder)
    return str(folder)


def probe_of(references, files, first="user"):
    """A probe whose samples ask something and have these references."""
    turns = [[Turn(first, "the heart?"), Turn("assistant", text)] for text in references]
    samples = tiny.make_samples(0, (12,) * len(turns))
    offsets = np.arange(0, 12 * len(turns) + 1, 12)
    pool = TokenPool(
        np.arange(len(turns)),
        offsets,
        np.concatenate([sample.ids for sample in samples]).astype(np.int32),
        np.concatenate([sample.trained for sample in samples]),
    )
    return Probe("heldout", pool, turns, np.array(files), pool_of([], []), {})


def test_the_first_short_references_of_each_file_are_answered(place):
    tokenizer = models.load_tokenizer(place)
    texts = [" ".join(["water"] * n) for n in (65, 64, 3, 2)]
    probe = probe_of([*texts, "...", "lung", "skin"], [0, 0, 0, 0, 1, 1, 1])
    assert list(answers.short_references(probe, tokenizer, 2)) == [1, 2, 5, 6]
    assert list(answers.short_references(probe, tokenizer, 1)) == [1, 5]
    assert answers.short_references(probe, tokenizer, 0) == {}
    plain = probe_of(["lung"], [0], "text")
    assert answers.short_references(plain, tokenizer, 9) == {}
    assert answers.positions(plain) == [], "a text asks nothing"


def test_each_answered_sample_counts_once_and_no_other(place):
    tokenizer, model = models.load_tokenizer(place), models.load_model(place, "cpu", torch.float32)
    probe = probe_of(WORDS[:4], [0] * 4)
    work = []
    written = answers.write_answers(model, tokenizer, probe, {1: 50, 3: 70}, report=work.append)
    assert work == [50, 70]
    assert written == {i: answers.write_answer(model, tokenizer, probe.turns[i]) for i in (1, 3)}
    found = answers.closeness(probe, written | {3: WORDS[3].title()})
    assert found.keys() == {"exact", "f1", "rouge_l"}
    for sums, asked in found.values():
        assert asked.tolist() == [0, 1, 0, 1]
        assert sums.tolist() == [0, pytest.approx(sums[1]), 0, 1]
    assert answers.closeness(probe, {}) == {}
    with pytest.raises(Stopped):
        answers.write_answers(model, tokenizer, probe, {1: 50}, should_stop=lambda: True)
