"""The study: it goes on where it ended, picks the best, and prints what was found."""

import importlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from chain import WORDS, config_for, save_tiny_model

from grads.evaluation.trials import read_trials
from grads.evaluation.tuning import GRID
from grads.selection.options import SelectionConfig

ROOT = Path(__file__).parents[1]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The script with a tiny model, small subsets, and folders of its own."""
    spec = importlib.util.spec_from_file_location("study", ROOT / "assets" / "study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "BUILD", tmp_path / "build")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(module, "BUDGETS", {"10": 0.5})
    monkeypatch.setattr(module, "RECIPE", {"epochs": 1.0, "batch_size": 8, "seeds": 2})
    monkeypatch.setattr(module, "HELDOUT", 4)
    return module


@pytest.fixture
def data(tmp_path, study, monkeypatch):
    """A small `medicine` and general files; the run is made with the tiny model."""
    rng = np.random.default_rng(0)
    for file, n in (
        ("medicine/train.jsonl", 30),
        ("medicine/heldout.jsonl", 6),
        ("general/gsm8k.jsonl", 4),
        ("general/instructions.jsonl", 4),
    ):
        path = tmp_path / "data" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        text = [[" ".join(rng.choice(WORDS, k)) for k in (5, 12)] for _ in range(n)]
        path.write_text("\n".join(json.dumps({"instruction": a, "output": b}) for a, b in text))
    save_tiny_model(tmp_path / "model")
    monkeypatch.setattr(
        study,
        "RunConfig",
        lambda dataset, limit, max_length, **more: config_for(tmp_path, dataset=dataset, **more),
    )
    return tmp_path / "data"


@pytest.mark.job
def test_a_part_goes_on_in_a_fresh_checkout(study, data):
    """What was kept of an unfinished part is taken over, though its run is gone."""
    arms = ("random", "selection")
    study.part("medicine-10", data, "10", ("typical-high", "density"), arms)
    result = json.loads((study.RESULTS / "medicine-10.json").read_text())["result"]
    assert result["finished"]
    assert {arm["label"] for arm in result["arms"]} == {
        "base",
        "random",
        "typical-high-10",
        "density-10",
    }
    assert not (study.RESULTS / "unfinished" / "medicine-10").exists()
    assert str(data) not in (study.RESULTS / "medicine-10.json").read_text()

    evaluation = study.Evaluation(study.Run(study.BUILD / "medicine"), "medicine-10")
    (base,) = (arm for arm in result["arms"] if arm["label"] == "base")
    losses, tokens = read_trials(evaluation)["base-0"].sums["heldout_loss"]
    assert len(losses) == 6
    assert base["mean"]["heldout_loss"] == pytest.approx(sum(losses[2:]) / sum(tokens[2:]))
    kept = study.RESULTS / "unfinished" / "medicine-10"
    study.keep(evaluation, kept)
    (kept / "density-10-1.json").unlink()
    (study.RESULTS / "medicine-10.json").unlink()
    study.BUILD.rename(study.BUILD.with_name("gone"))
    study.part("medicine-10", data, "10", ("typical-high", "density"), arms)
    again = json.loads((study.RESULTS / "medicine-10.json").read_text())["result"]
    trained = {(line["arm"], line["seed"]) for line in evaluation.read_metrics()}
    assert trained == {("density-10", 1)}
    for mine, theirs in zip(again["arms"], result["arms"], strict=True):
        assert mine["mean"]["heldout_loss"] == pytest.approx(theirs["mean"]["heldout_loss"])

    study.part(
        "medicine-10", data / "gone", "10", ("typical-high",), arms
    )  # finished: nothing is read
    best = study.best_settings("medicine-10", 2)
    losses = {arm["label"]: arm["mean"]["heldout_loss"] for arm in result["arms"]}
    order = sorted(("typical-high", "density"), key=lambda name: losses[f"{name}-10"])
    assert best == tuple(order)
    lines = study.report().splitlines()
    assert lines[0] == "### medicine-10: lora, 1 epochs, 2 seeds"
    assert [line.split("|")[1].strip() for line in lines[4:]] == list(losses)
    assert f"{losses['base']:.3f}" in lines[4]


@pytest.mark.job
def test_settings_beyond_the_grid(study, data):
    """Half from either end; gradients of the model as it was before the warm-up."""
    run = study.scored_run(data, "medicine")
    pool = study.api.load_pool(run)
    both = study.SETTINGS["both-ends"](data, pool, 0.4)
    kept = np.isin(pool.scores.sample_id, both.pins)
    assert kept.sum() == both.count == 12
    assert (pool.select(both).kept == kept).all()
    assert set(study.kept_ids(pool, SelectionConfig(**GRID["low-sample"], ratio=0.2))) <= set(
        both.pins
    )

    before = study.SETTINGS["typical-high-before"](data, pool, 0.2)
    other = study.api.load_pool(study.Run(study.BUILD / "medicine-none"))
    assert other.run.config().warmup == "none"
    assert before.pins == study.kept_ids(other, SelectionConfig(**GRID["typical-high"], ratio=0.2))
    assert study.kept_ids(pool, before) == before.pins

    for name in study.ONE_END:
        options = study.SETTINGS[name](data, pool, 0.2)
        chosen = pool.numbers["signal"][pool.select(options).kept]
        assert len(chosen) == 6
        assert (chosen <= 1).all() if name == "no-high" else (chosen >= -1).all()


@pytest.fixture
def direction(tmp_path, data, monkeypatch):
    """The second part's script, and data of as many rows as its pools take."""
    monkeypatch.syspath_prepend(ROOT / "assets")
    module = importlib.import_module("direction_study")
    rng = np.random.default_rng(1)
    for name, n in {
        **{"medicine/train": 650, "medicine/heldout": 300, "law_zh/train": 140},
        **{"finance/train": 600, "finance/heldout_options": 300},
        **{"general/gsm8k": 200, "general/instructions": 160},
    }.items():
        path = data / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row(rng, name)) + "\n" for _ in range(n)))
    monkeypatch.setattr(module, "BUILD", tmp_path / "direction")
    monkeypatch.setattr(module.study, "RESULTS", tmp_path / "results")  # nothing is finished there
    monkeypatch.setattr(
        module,
        "RunConfig",
        lambda dataset, **more: config_for(
            tmp_path, dataset=dataset, token_signals=False, **more | {"warmup_fraction": 0.02}
        ),
    )
    return module


def row(rng, name):
    asked, *others = (" ".join(rng.choice(WORDS, k)) for k in (4, 9, 9, 9, 9))
    said = others[0]
    if name.startswith("finance"):
        options = {"options": others, "answer": 0} if name.endswith("options") else {}
        turns = (("user", asked), ("assistant", said))
        return {"messages": [{"role": role, "content": text} for role, text in turns]} | options
    return {"instruction": asked, "input": "", "output": said}


@pytest.mark.job
def test_every_setting_of_direction_makes_a_subset(direction, data):
    """Of the mixed pool, which has targets of three sizes; the best by a column are its best."""
    run = direction.scored_run(data, direction.mixed)
    pool = direction.api.load_pool(run)
    assert len(pool) == 600
    for setting in direction.BY_SIZE:
        options = direction.options(setting, pool, 0.1)
        values = getattr(pool.probes[direction.BY_SIZE[setting][1]], direction.BY_SIZE[setting][0])
        kept = pool.select(options).kept
        assert kept.sum() == 60
        assert values[kept].min() >= values[~kept].max()
    samples = run.read_samples(pool.scores.sample_id.tolist())
    kept = pool.select(direction.options("oracle-domain", pool, 0.1)).kept
    assert {samples[i]["columns"]["kind"] for i in pool.scores.sample_id[kept]} == {"medicine"}


@pytest.mark.job
def test_every_setting_takes_a_tenth_of_the_flawed_pool(direction, data):
    run = direction.scored_run(data, direction.flawed)
    pool = direction.api.load_pool(run)
    for setting in direction.SETTINGS:
        options = direction.options(setting, pool, 0.1)
        direction.api.select_samples(run, setting, options, pool)  # under a name that may be one
        assert 0 < pool.select(options).kept.sum() <= 60, setting


@pytest.mark.job
def test_accuracy_in_options_is_measured_on_rows_that_have_them(direction, data, monkeypatch):
    """The part with options to its plan: its pool, its target, its held-out rows."""
    told = []
    monkeypatch.setattr(direction.study, "conduct", lambda *parts: told.append(parts))
    direction.part(
        "options-10", data, direction.topics, 0.1, ("aligned", "oracle"), arms=direction.ALL
    )
    ((evaluation, settings, _),) = told
    assert settings == ("aligned", "oracle")
    config = evaluation.config()
    assert set(config.arms) == {"base", "full", "random", "selection"}
    (file,) = config.heldout
    measured = [json.loads(line) for line in Path(file).read_text().splitlines()]
    assert len(measured) == 100
    assert all(len(row["options"]) == 4 for row in measured)
    assert set(direction.api.load_pool(evaluation.run).probes) == {"finance", "mathematics"}
    rows = [
        json.loads(line) for line in Path(evaluation.run.config().dataset).read_text().splitlines()
    ]
    assert [row["kind"] for row in rows].count("mismatched") == 240


def test_nothing_found_is_said(study):
    assert study.report() == "nothing has been found yet"
