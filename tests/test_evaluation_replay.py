"""Evaluations that mix general rows into the subsets they train on."""

import json

import numpy as np
import pytest
from chain import wait_for
from run_dirs import DEMO, demo_run, open_page
from test_evaluation_jobs import (
    arm_of,
    conduct,
    place,  # noqa: F401, a fixture
    run,  # noqa: F401, a fixture
    settings,
    words,
)

from grads import api
from grads.config.evaluation import EvaluationConfig
from grads.engine import models
from grads.errors import ConfigError, EvaluationError
from grads.evaluation import arms
from grads.evaluation.arms import Replay, Trial
from grads.evaluation.probes import load_probes, load_replay
from grads.evaluation.trials import read_trials
from grads.store.folders import Evaluation

DRAW = Replay(0.2, "digest")


# -- shares, draws, keys


@pytest.mark.parametrize(
    ("share", "samples", "rows"), [(0.2, 12, 3), (0.5, 7, 7), (0.05, 95, 5), (0.01, 10, 1)]
)
def test_the_share_is_of_all_that_is_trained_on(share, samples, rows):
    assert Replay(share, "").rows(samples) == rows


def test_draws_hold_no_row_twice_and_nest_over_the_shares():
    small, large = (Replay(share, "").drawn(50, 20, seed=3).tolist() for share in (0.2, 0.5))
    assert len(small) == len(set(small)) == 5
    assert len(large) == len(set(large)) == 20
    assert set(small) < set(large)
    assert small != Replay(0.2, "").drawn(50, 20, seed=4).tolist()
    assert sorted(Replay(0.5, "").drawn(6, 20, seed=0).tolist()) == list(range(6))


def test_the_key_covers_the_general_rows():
    ids = np.arange(8)
    plain = Trial("a", 0, ids, None)
    keys = {
        plain.key,
        *(Trial("a", 0, ids, None, replay=Replay(s, d)).key for s in (0.2, 0.5) for d in "xy"),
    }
    assert len(keys) == 5
    assert Trial("b", 0, ids, None, replay=DRAW).key == Trial("a", 0, ids, None, replay=DRAW).key


def test_every_arm_that_is_trained_is_there_with_each_share(tmp_path):
    demo = demo_run(tmp_path)
    config = EvaluationConfig.parse(
        {
            "selections": ["grads-10"],
            "criteria": ["loss_low"],
            "arms": ["full", "random", "selection", "selection_steps"],
            "replay": str(DEMO / "general.jsonl"),
        }
        | {"replay_share": [0.1, 0, 0.025, 0.1]}
    )
    planned = {arm.label: arm for arm in arms.plan(demo, config, 300)}
    mixed = {label: arm for label, arm in planned.items() if arm.replay}
    assert set(mixed) == {
        f"{arm}+replay{share}"
        for arm in ("full", "random", "grads-10", "grads-10-steps", "loss_low")
        for share in ("2.5", "10")
    }
    assert mixed["loss_low+replay10"].rival == "random+replay10"
    assert mixed["loss_low+replay10"].alone == "loss_low"
    assert mixed["random+replay10"].rival is None
    assert mixed["full+replay10"].alone == "full"
    pool = api.load_pool(demo)
    steps = {
        t.arm: t.max_steps for t in arms.trials(pool, list(planned.values()), config, range(1))
    }
    assert steps["grads-10-steps+replay10"] == steps["grads-10-steps"] == arms.steps(300, config)
    assert steps["full+replay10"] is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replay": "a.jsonl"}, "replay and replay_share go together"),
        ({"replay_share": ["0.1"]}, "replay and replay_share go together"),
        ({"replay": "a.jsonl", "replay_share": ["1"]}, "replay_share.0 is '1'"),
        ({"replay": "a.jsonl", "replay_share": ["-0.1"]}, "replay_share.0 is '-0.1'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        EvaluationConfig.parse({"selections": ["a"]} | values)


def test_a_missing_file_is_refused_before_it_starts(tmp_path):
    values = {"selections": ["grads-10"], "heldout": str(DEMO / "medical_qa_heldout.jsonl")}
    config = EvaluationConfig.parse(values | {"replay": "no.jsonl", "replay_share": [0.1]})
    with pytest.raises(EvaluationError, match=r"no file at .*no\.jsonl"):
        api.estimate_evaluation(demo_run(tmp_path), config)


@pytest.mark.parametrize("measured", ["heldout", "general"])
def test_rows_that_are_measured_on_are_refused(tmp_path, measured):
    demo, tokenizer = demo_run(tmp_path), models.load_tokenizer("demo")
    files = {"heldout": DEMO / "medical_qa_heldout.jsonl", "general": DEMO / "general.jsonl"}
    lines = files[measured].read_text(encoding="utf-8").splitlines()
    other = json.dumps({"question": "What is a word?", "answer": "A word."})
    if measured == "general":
        other = json.dumps({"instruction": "What is a word?", "output": "A word."})
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join([other, lines[4], lines[7]]))
    config = EvaluationConfig(selections=("grads-10",), heldout=str(files["heldout"]))
    probes = load_probes(demo, config, tokenizer)
    with pytest.raises(EvaluationError) as caught:
        load_replay(demo, str(file), tokenizer, probes, wanted=1)
    message = str(caught.value)
    assert "row 1 (line 2) of the replay file mine.jsonl is also measured on" in message
    assert f"as row 4 (line 5) of {files[measured].name} (2 such rows in all)" in message
    file.write_text(other)
    found = load_replay(demo, str(file), tokenizer, probes, wanted=3)
    assert len(found) == 1
    (note,) = [note for note in probes.about.notes if "replay" in note]
    assert note.startswith("mine.jsonl has 1 usable rows, of 3 that the largest share")


# -- as a job


@pytest.fixture(scope="module")
def replayed(place, run):  # noqa: F811
    """A fifth and a random fifth of 11 samples, with 3 of 6 general rows, and with all of them."""
    rng = np.random.default_rng(8)
    rows = [{"instruction": words(rng, 4) + "?", "output": words(rng, 5) + "."} for _ in range(6)]
    (place / "replay.jsonl").write_text("\n".join(map(json.dumps, rows)))
    values = {"arms": ["base", "full", "random", "selection"], "seeds": 1}
    config = settings(
        place,
        selections=["fifth"],
        **values,
        replay=str(place / "replay.jsonl"),
        replay_share=[0.2, 0, 0.9],
    )
    return config, conduct(run, "replayed", config)


@pytest.mark.job
def test_general_rows_are_trained_on_besides_the_subset(run, replayed):  # noqa: F811
    _, result = replayed
    rows = {arm.label: (arm.samples, arm.replay, arm.replay_rows) for arm in result.arms}
    assert rows["fifth"] == (11, 0.0, 0)
    assert rows["fifth+replay20"] == rows["random+replay20"] == (11, 0.2, 3)
    assert rows["fifth+replay90"] == (11, 0.9, 6)
    steps = {arm.label: arm.seeds[0].steps for arm in result.arms}
    assert (steps["fifth"], steps["fifth+replay20"], steps["fifth+replay90"]) == (6, 8, 10)
    tokens = {arm.label: arm.seeds[0].tokens for arm in result.arms}
    assert tokens["fifth"] < tokens["fifth+replay20"] < tokens["fifth+replay90"]
    everything = tokens["fifth+replay90"] - tokens["fifth"]
    assert everything == tokens["random+replay90"] - tokens["random"], "the same six rows"
    losses = {arm.label: arm.mean["general_loss"] for arm in result.arms}
    assert losses["full+replay20"] == losses.pop("full+replay90"), "all six rows with both shares"
    assert len(set(losses.values())) == len(losses)
    wanted = f"replay.jsonl has 6 usable rows, of {9 * arm_of(result, 'full').samples}"
    assert any(wanted in note for note in result.notes)


@pytest.mark.job
def test_the_way_over_the_shares_is_told(replayed):
    _, result = replayed
    assert set(result.replay) == {"full", "random", "fifth"}
    base = arm_of(result, "base").mean["general_loss"]
    for label, points in result.replay.items():
        assert [point.share for point in points] == [0.0, 0.2, 0.9]
        for point, suffix in zip(points, ("", "+replay20", "+replay90"), strict=True):
            mean = arm_of(result, label + suffix).mean
            assert point.learning == mean["heldout_loss"]
            assert point.forgetting == pytest.approx(mean["general_loss"] - base)
    pairs = {(one.arm, one.against) for one in result.comparisons}
    assert {
        ("fifth+replay20", "random+replay20"),
        ("fifth+replay20", "fifth"),
        ("random+replay20", "random"),
        ("full+replay20", "full"),
    } <= pairs


@pytest.mark.job
def test_the_estimate_counts_the_general_rows(place, run, replayed):  # noqa: F811
    config, _ = replayed
    plain = config.model_copy(update={"replay": None, "replay_share": ()})
    said, less = (api.estimate_evaluation(run, one) for one in (config, plain))
    assert said.arms == less.arms + 6 == len(read_trials(Evaluation.open(run, "replayed")))
    assert said.tokens > less.tokens * said.arms / less.arms


@pytest.mark.job
def test_the_page_draws_the_way_over_the_shares(place, run, replayed, monkeypatch):  # noqa: F811
    monkeypatch.setenv("GRADS_RUNS_DIR", str(run.root))
    at = open_page("Evaluate", run=run.id, evaluation="replayed")
    assert not at.exception
    assert any("With general examples mixed in" in one.label for one in at.expander)


@pytest.mark.job
def test_a_leak_ends_the_job_with_the_place(place, run):  # noqa: F811
    file = place / "leaky.jsonl"
    file.write_text((place / "general.jsonl").read_text().splitlines()[3] + "\n")
    config = settings(place, selections=["fifth"], replay=str(file), replay_share=[0.1])
    evaluation = api.create_evaluation(run, "leaky-replay", config)
    api.start_run(evaluation)
    status = wait_for(evaluation, "failed", "finished")
    assert status.state == "failed"
    assert "of the replay file leaky.jsonl is also measured on, as row 3 (line 4)" in status.error
