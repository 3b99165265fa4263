"""Exports of whatever texts, as readers that infer types give them back."""

import json

import pytest
from datasets import load_dataset
from datasets.packaged_modules.json.json import JsonConfig
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_export_trainers import (
    folders,  # noqa: F401, a fixture
    no_caches,  # noqa: F401, a fixture
    plain_subset,
)
from test_export_weights import TRAINERS, weighting
from test_templates import HEART, says, user
from trained import KINDS, LENGTH, ours, row_of, scored_subset, subset_of, tokenizer_of, written

from grads.config.run import RunConfig
from grads.data.turns import Turn
from grads.errors import ExportError
from grads.export import inferred
from grads.export.inferred import dump_alike
from grads.export.rows import message
from grads.export.write import export

pytestmark = pytest.mark.filterwarnings("ignore")
SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
DATES = ["2020-01-31", "1999-12-31 23:59", "2020-01-31T10:00:00Z"]
ODD = [
    "\x00",
    "\x1b[31m",
    "a\u2028b\u2029c\x85d\x0be",
    "\ufeffmarked",
    "\U0001f600" * 40,
    "NaN",
    "null",
    '{"a": 1}',
    "12:30",
]
TEXTS = st.one_of(
    st.sampled_from(DATES),
    st.sampled_from(ODD),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
).filter(str.strip)
LONG = "\U0001f600" * 700  # of more bytes, and so tokens, than a row may have
OPTIONAL = {"a": st.none() | TEXTS, "b": TEXTS, "c": st.none() | st.integers(0, 9)}
FIELDS = st.fixed_dictionaries({"d": TEXTS}, optional=OPTIONAL)
MIXED = st.dictionaries(st.sampled_from("abc"), st.one_of(TEXTS, st.integers(0, 9), st.none()))
ROWS = st.sampled_from([FIELDS, FIELDS, MIXED]).flatmap(
    lambda field: st.lists(
        st.fixed_dictionaries({"said": st.lists(field, max_size=3), "text": TEXTS}),
        min_size=1,
        max_size=8,
    )
)


def without_gaps(value):
    """A value without the fields that are empty in it: a table has all fields in each row."""
    if isinstance(value, dict):
        return {name: without_gaps(one) for name, one in value.items() if one is not None}
    return [without_gaps(one) for one in value] if isinstance(value, list) else value


def read(path, block, cache):
    """The rows of a file by `datasets`; None where it does not read it."""
    try:
        data = load_dataset(
            "json", data_files=str(path), split="train", chunksize=block, cache_dir=str(cache)
        )
    except Exception:  # it wraps what Arrow raises in errors of its own
        return None
    return data.to_list()


# -- what is told of a file


def test_a_block_is_what_the_reader_takes_at_once():
    assert JsonConfig().chunksize == inferred.BLOCK


@pytest.mark.parametrize("block", [200, 10**6])
@given(rows=ROWS)
@settings(max_examples=40, suppress_health_check=SLOW)
def test_what_reads_alike_comes_back(tmp_path_factory, block, rows):
    place = tmp_path_factory.mktemp("read")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inferred, "BLOCK", block)
        if dump_alike(rows, place / "rows.jsonl"):
            assert without_gaps(read(place / "rows.jsonl", block, place)) == without_gaps(rows)


LATE = [{"m": [{"a": "x" * 90}]}, {"m": [{"a": "y", "b": "z"}]}]


@pytest.mark.parametrize(
    ("rows", "block"),
    [
        ([{"a": one} for one in DATES], 10**6),
        ([{"m": [{"a": one}]} for one in DATES], 10**6),
        (LATE, 64),
        ([{"a": None, "b": "x" * 90}, {"a": "y", "b": "z"}], 64),
        ([{"a": "x" * 90}, {"a": "2020-01-31"}], 64),
    ],
    ids=["dates", "dates inside", "a late field", "a late value", "late dates"],
)
def test_what_does_not_come_back_is_told(tmp_path, monkeypatch, rows, block):
    """And is no false alarm."""
    monkeypatch.setattr(inferred, "BLOCK", block)
    assert not dump_alike(rows, tmp_path / "rows.jsonl")
    assert read(tmp_path / "rows.jsonl", block, tmp_path) != rows


def test_a_late_field_in_the_first_block_is_none(tmp_path):
    assert dump_alike(LATE, tmp_path / "rows.jsonl")


# -- what trainers make of it


def turns_of(pairs):
    return [{"messages": [message(user(q)), message(says(a))]} for q, a in pairs]


def trained_by(kind, subset, model, out, patch):
    """What a trainer trains of an export of these rows."""
    written(subset, kind, out, model=str(model), warmup="full")
    return TRAINERS[kind](out, patch)


@pytest.mark.parametrize("kind", TRAINERS)
def test_answers_that_are_all_dates_are_trained_as_they_are(
    tmp_path,
    monkeypatch,
    folders,  # noqa: F811
    kind,
):
    subset = scored_subset(turns_of([("When?", one) for one in DATES]), tokenizer_of("chatml"))
    assert trained_by(kind, subset, folders["chatml"], tmp_path / "out", monkeypatch) == ours(
        subset
    )


@pytest.mark.parametrize("kind", TRAINERS)
def test_so_are_texts(tmp_path, monkeypatch, folders, kind):  # noqa: F811
    subset = scored_subset([{"text": one} for one in DATES], tokenizer_of("chatml"))
    assert trained_by(kind, subset, folders["chatml"], tmp_path / "out", monkeypatch) == ours(
        subset
    )


@pytest.mark.parametrize("kind", ["trl", "axolotl"])
def test_a_field_that_comes_late_does_not_end_the_reading(tmp_path, monkeypatch, kind):
    """As the flag of answers that are not trained, behind 10 MB of rows without it."""
    kinds = ["several turns"] * 3 + ["first answer silent"]
    subset = subset_of(kinds, tokenizer_of("chatml"))
    block = len(json.dumps(row_of("several turns")))
    _, before = written(subset, kind, tmp_path / "small")
    assert b"messages" in (before / "train.jsonl").read_bytes()
    monkeypatch.setattr(inferred, "BLOCK", block)
    _, out = written(subset, kind, tmp_path / "large")
    found = read(out / "train.jsonl", block, tmp_path)
    assert [(row["input_ids"], row["labels"]) for row in found] == ours(subset)


@pytest.mark.parametrize("kind", ["torchtune", "llamafactory"])
def test_a_format_that_has_no_tokens_for_dates_refuses_them(tmp_path, kind):
    dates = [[user(one), says(one)] for one in DATES]
    with pytest.raises(ExportError, match="all its texts are dates"):
        written(plain_subset(*dates), kind, tmp_path / "out")
    written(plain_subset(*dates, KINDS["single turn"]), kind, tmp_path / "out")


def test_torchtune_gets_the_words_and_who_says_them(tmp_path):
    row = [Turn("user", "Who?", name="ada"), says("Me.")]
    _, out = written(plain_subset(row, [HEART, says("A pump.")]), "torchtune", tmp_path / "out")
    lines = (out / "train.jsonl").read_text().splitlines()
    assert {tuple(turn) for line in lines for turn in json.loads(line)["messages"]} == {
        ("role", "content")
    }


@pytest.mark.parametrize("model", ["chatml", "no template"])
@pytest.mark.parametrize("kind", TRAINERS)
@given(
    pairs=st.lists(st.tuples(TEXTS, st.just(LONG) | TEXTS), min_size=1, max_size=4), data=st.data()
)
@settings(max_examples=8, suppress_health_check=SLOW, deadline=None)
def test_trainers_read_repeated_rows_of_whatever_texts(
    tmp_path_factory,
    folders,  # noqa: F811
    kind,
    model,
    pairs,
    data,
):
    """Each as often as it stands there, and as it was scored."""
    subset = scored_subset(turns_of(pairs), tokenizer_of(model))
    assume(subset)  # a row that is refused is in no run
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(subset), max_size=len(subset)))
    times[0] += 1
    values = {"dataset": "rows.jsonl", "model": str(folders[model]), "max_length": LENGTH}
    out = tmp_path_factory.mktemp("texts") / "out"
    export(
        subset,
        kind,
        out,
        RunConfig.parse(values | {"warmup": "full"}),
        manifest={},
        weighting=weighting(times, rows=sum(times)),
    )
    with pytest.MonkeyPatch.context() as patch:
        found = TRAINERS[kind](out, patch)
    rows = ours(subset)
    assert found == [row for n in range(4) for row, t in zip(rows, times, strict=True) if t > n]
