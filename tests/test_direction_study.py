"""The study's second part: its pools are what it says, and nothing is measured on what chose."""

import importlib.util
import json
from collections import Counter
from pathlib import Path

import pytest

from grads.api import SelectionConfig

ROOT = Path(__file__).parents[1]


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "assets"))
    spec = importlib.util.spec_from_file_location(
        "direction_study", ROOT / "assets" / "direction_study.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path):
    """Files of the shapes that the study reads, each row a text of its own."""

    def write(name, rows):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def pairs(kind, n):
        words = " ".join(f"word{i}" for i in range(12))
        return [
            {"instruction": f"{kind} {i}?", "input": "", "output": f"{words} of {kind} {i}"}
            for i in range(n)
        ]

    for name, n in (
        ("medicine/train", 700),
        ("medicine/heldout", 300),
        ("law_zh/train", 200),
        ("general/instructions", 171),
        ("general/gsm8k", 300),
    ):
        write(f"{name}.jsonl", pairs(name, n))
    turns = [
        [{"role": "user", "content": f"ask {i}"}, {"role": "assistant", "content": f"say {i}"}]
        for i in range(200)
    ]
    write("finance/train.jsonl", [{"messages": row} for row in turns])
    return tmp_path


def test_four_in_ten_of_the_flawed_pool_are_flawed(study, data):
    pool = study.flawed(data)
    kinds = Counter(row["kind"] for row in pool)
    assert kinds.pop("sound") == 360
    assert set(kinds.values()) == {40}
    assert len(kinds) == 6
    assert study.flawed(data) == pool, "the same each time"
    source = {
        row["instruction"]: row["output"] for row in study.rows(data / "medicine/train.jsonl")
    }
    for row in pool:
        assert row["sound"] == (row["kind"] == "sound")
        true = source.get(row["instruction"].removesuffix(" Please explain."))
        if row["kind"] in ("sound", "near-duplicate"):
            assert row["output"] == true
        elif row["kind"] == "garbled":
            assert sorted(row["output"].split()) == sorted(true.split())
        elif row["kind"] != "other domain":
            assert row["output"] != true


def test_the_mixed_pool_has_its_parts(study, data):
    pool = study.mixed(data)
    assert Counter(row["kind"] for row in pool) == {
        **{"medicine": 200, "finance": 160},
        **{"law": 140, "instructions": 100},
    }
    assert sum(row["domain"] for row in pool) == 200


def test_no_row_is_measured_on_that_chose(study, data):
    heldout = study.rows(data / "medicine/heldout.jsonl")
    tested = {row["instruction"] for row in heldout[study.TEST]}
    assert len(tested) == 100
    assert not tested & {row["instruction"] for row in heldout[: study.TARGET]}
    measured = study.RECIPE["general_limit"]
    for file, chosen in (("gsm8k", slice(-32, None)), ("instructions", slice(-100, None))):
        rows = [row["instruction"] for row in study.rows(data / f"general/{file}.jsonl")]
        assert not set(rows[:measured]) & set(rows[chosen])


def test_every_setting_is_a_selection(study):
    for name, values in study.SETTINGS.items():
        assert SelectionConfig.parse(values | {"ratio": 0.1}), name
