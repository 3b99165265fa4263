"""Real data sets of three kinds, where they are at hand: read, recognised, tokenised."""

from pathlib import Path

import pytest

from grads.config.run import RunConfig
from grads.data import prepare as data
from grads.data.sources import read_source
from grads.engine import models

SHARED = Path(__file__).parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not at hand")


@pytest.mark.parametrize(
    ("name", "layout", "usable", "extra"),
    [
        ("medicine/train.jsonl", "Alpaca", 300, {"type", "focus", "source"}),
        ("law_zh/train.jsonl", "Alpaca", 290, {"task"}),
        ("finance/train.jsonl", "chat messages", 300, set()),
        ("general/gsm8k.jsonl", "Alpaca", 300, set()),
    ],
)
def test_real_data_load(demo_model, name, layout, usable, extra):
    config = RunConfig(dataset=str(SHARED / name), limit=300, heldout=20)
    prepared = data.prepare(read_source(config), config, models.load_tokenizer("demo"), 1024)
    assert prepared.layout.name == layout
    assert len(prepared.samples) == usable
    assert len(prepared.samples) + len(prepared.rejects) == 300
    assert sum(prepared.samples["heldout"].to_pylist()) == 20
    lines = (SHARED / name).read_bytes().splitlines(keepends=True)
    ids = prepared.samples["sample_id"].to_pylist()
    assert prepared.samples["raw"].to_pylist() == [lines[i] for i in ids]
    fields = prepared.samples.schema
    found = set(fields.field("columns").type.names) if "columns" in fields.names else set()
    assert found == extra
