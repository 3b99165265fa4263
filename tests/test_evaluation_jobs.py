"""Evaluations and searches as jobs, in real processes on a tiny model."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from chain import (
    PATIENCE,
    ROOT,
    WORDS,
    at_work,
    command,
    config_for,
    save_tiny_model,
    until,
    wait_for,
    write_data,
)
from test_tasks import needs_lm_eval, write_tasks

from grads import api
from grads.cli.terminal import evaluation_lines
from grads.config.evaluation import EvaluationConfig, TuneConfig
from grads.errors import EvaluationError, RunError, SelectionError
from grads.evaluation import closeness, tuning
from grads.evaluation.cost import SERVING_S
from grads.evaluation.trials import read_trials
from grads.jobs import processes as jobs
from grads.jobs.job import Job
from grads.selection.options import SelectionConfig
from grads.stages import evaluation as stages
from grads.stages import lab
from grads.stages import tuning as search_stages
from grads.store.folders import Evaluation, open_folder
from grads.store.runs import Run

pytestmark = pytest.mark.job
RECIPE = {"epochs": 2.0, "batch_size": 4, "lora_rank": 4, "lr": 5e-3}


def words(rng, n):
    return " ".join(rng.choice(WORDS, n))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny model, a data set, general questions of which every other one has options."""
    folder = tmp_path_factory.mktemp("place")
    save_tiny_model(folder / "model")
    write_data(folder / "data.jsonl")
    rng, rows = np.random.default_rng(5), []
    for i in range(12):
        row = {"instruction": words(rng, 5) + "?", "output": words(rng, 6) + "."}
        if i % 2:
            row |= {"options": [words(rng, 3), words(rng, 2), words(rng, 4)], "answer": i % 3}
        rows.append(row)
    rows[1]["answer"] = 7  # not the number of an option
    rows.append({"instruction": "", "output": "water"})
    (folder / "general.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def run(place):
    """A finished run with selections: a fifth, a drawn fifth, and everything."""
    run = api.create_run(config_for(place), str(place / "runs" / "scored"))
    api.start_run(run)
    assert wait_for(run, "finished", "failed").state == "finished"
    api.select_samples(run, "fifth", SelectionConfig(ratio=0.2, draw="top"))
    api.select_samples(run, "drawn", SelectionConfig(ratio=0.2, draw="sample"))
    api.select_samples(run, "everything", SelectionConfig(ratio=1.0))
    return run


def settings(place, **values):
    values = RECIPE | {"general": [str(place / "general.jsonl")]} | values
    return EvaluationConfig.parse(values)


def conduct(run, name, config):
    evaluation = api.create_evaluation(run, name, config)
    assert api.start_run(evaluation)
    status = wait_for(evaluation, "finished", "failed")
    assert status.state == "finished", status.error
    return api.read_evaluation(run, name).result


def approx(value):
    return pytest.approx(value, abs=1e-5)


@pytest.fixture(scope="module")
def whole(place, run):
    """An undisturbed evaluation with all six arms, two selections and two criteria."""
    config = settings(
        place, selections=["fifth", "everything"], criteria=["magnitude"], arms=ALL, seeds=2
    )
    return conduct(run, "whole", config)


ALL = ["base", "full", "random", "selection", "random_steps", "selection_steps"]


def arm_of(result, label):
    (arm,) = (arm for arm in result.arms if arm.label == label)
    return arm


def test_every_arm_is_there_as_it_says(run, whole):
    """A fifth of 53 samples is 11; full takes 2 epochs of 14 steps."""
    kinds = {arm.label: arm.kind for arm in whole.arms}
    assert kinds == {
        "base": "base",
        "full": "full",
        "random-11": "random",
        "random-53": "random",
        "fifth": "selection",
        "everything": "selection",
        "random-11-steps": "random_steps",
        "random-53-steps": "random_steps",
        "fifth-steps": "selection_steps",
        "everything-steps": "selection_steps",
        "magnitude": "criterion",
    }
    assert whole.finished
    steps = {arm.label: [row.steps for row in arm.seeds] for arm in whole.arms}
    assert steps["base"] == [0]
    assert steps["full"] == steps["random-11-steps"] == steps["fifth-steps"] == [28, 28]
    assert steps["random-11"] == steps["fifth"] == steps["magnitude"] == [6, 6]
    samples = {arm.label: arm.samples for arm in whole.arms}
    assert samples["fifth"] == samples["random-11"] == samples["magnitude"] == 11
    assert samples["full"] == samples["everything"] == 53
    curve = arm_of(whole, "full").seeds[0].curve
    assert [step for step, _ in curve] == list(range(1, 29))
    assert curve[-1][1] < curve[0][1]
    assert arm_of(whole, "full").seeds[0].tokens == 2 * _pool_tokens(run)


def _pool_tokens(run):
    table = pq.read_table(run.scores_file)
    return sum(table["prompt_tokens"].to_pylist()) + sum(table["response_tokens"].to_pylist())


def test_each_arm_trains_on_the_subset_it_names(run, whole):
    """By response tokens: the saved selection, and the random criterion under each seed."""
    pool = api.load_pool(run)
    scores = pool.scores
    _, table = api.read_selection(run, "fifth")
    mask = table["kept"].to_numpy()
    assert arm_of(whole, "fifth").response_tokens == scores.response_tokens[mask].sum()
    files = read_trials(Evaluation.open(run, "whole"))
    drawn = []
    for seed in (0, 1):
        options = SelectionConfig(criterion="random", count=11, seed=seed)
        kept = pool.select(options).kept
        drawn.append(kept)
        tokens = scores.response_tokens[kept].sum()
        assert files[f"random-11-{seed}"].response_tokens == tokens
    assert not (drawn[0] == drawn[1]).all()


def test_twins_are_trained_once(run, whole):
    """Everything selected is full; random of that size too; so are both for as many steps."""
    evaluation = Evaluation.open(run, "whole")
    files = read_trials(evaluation)
    keys = {files[f"{arm}-1"].key for arm in ("full", "everything", "random-53")}
    assert len(keys) == 1
    assert files["full-0"].key != files["full-1"].key
    lines = [line for line in evaluation.read_metrics() if line["key"] in keys]
    assert [line["step"] for line in lines] == list(range(1, 29))
    assert files["everything-1"].sums == files["full-1"].sums
    assert [name for name in files if name.startswith("base")] == ["base-0"]


def test_what_is_measured_and_noted(whole):
    base, full = arm_of(whole, "base"), arm_of(whole, "full")
    assert base.mean["general_kl"] == 0
    assert full.mean["general_kl"] > 0.01
    assert full.mean["heldout_loss"] < base.mean["heldout_loss"]
    assert base.mean["heldout_option_accuracy"] is None
    right = base.mean["general_option_accuracy"]
    assert right * 5 == pytest.approx(round(right * 5))
    assert whole.heldout.samples == 5
    (general,) = whole.general
    assert (general.samples, general.refused, general.with_options) == (12, 1, 5)
    assert general.first_refused.row == 12
    assert general.first_refused.line == 13
    assert any("1 general samples with options do not count" in note for note in whole.notes)
    assert any("2 seeds give wide intervals" in note for note in whole.notes)
    low, high = full.interval["heldout_loss"]
    values = [row.heldout_loss for row in full.seeds]
    assert (low + high) / 2 == pytest.approx(np.mean(values))
    assert high - low == pytest.approx(2 * 12.7062 * abs(values[0] - values[1]) / 2, rel=1e-4)


def test_comparisons_are_paired_and_told(whole):
    pairs = {(c.arm, c.against): c for c in whole.comparisons}
    assert {
        ("fifth", "random-11"),
        ("magnitude", "random-11"),
        ("fifth-steps", "random-11-steps"),
        ("fifth", "full"),
        ("full", "base"),
    } <= pairs.keys()
    twins = pairs["everything", "full"].metrics["heldout_loss"]
    assert (twins.difference, twins.low, twins.high) == (0, 0, 0)
    assert twins.verdict == "no difference seen"
    found = pairs["fifth", "random-11"].metrics["general_loss"]
    ours, theirs = arm_of(whole, "fifth"), arm_of(whole, "random-11")
    both = zip(ours.seeds, theirs.seeds, strict=True)
    gaps = [a.general_loss - b.general_loss for a, b in both]
    assert found.difference == pytest.approx(np.mean(gaps))
    assert found.bootstrap[0] <= found.difference <= found.bootstrap[1]


def test_the_whole_price_is_told(run, whole):
    price = whole.price
    assert price.warm_up.steps == 14
    assert price.warm_up.tokens == price.scoring.tokens == _pool_tokens(run)
    assert price.warm_up.seconds == run.read_manifest().seconds["warm-up"]
    assert price.training["full"].steps == 28
    even = whole.break_even["fifth"]
    saved = price.training["full"].seconds - price.training["fifth"].seconds
    choosing = price.warm_up.seconds + price.scoring.seconds
    assert even.trainings == (pytest.approx(choosing / saved) if saved > 0 else None)
    assert whole.break_even["everything"].trainings is None


def test_the_estimate_counts_the_work_that_is_then_done(place, run, whole):
    """Each training once, all its tokens, and on top what every trained model is measured on.

    Of a file that is not tokenised, a token is taken as four characters; of its rows every other
    one has three options, each of which repeats the prompt.
    """
    config = settings(
        place, selections=["fifth", "everything"], criteria=["magnitude"], arms=ALL, seeds=2
    )
    said = api.estimate_evaluation(run, config)
    files = {file.key: file for file in read_trials(Evaluation.open(run, "whole")).values()}
    assert said.arms == len(files)
    trained = sum(file.tokens for file in files.values())
    samples = pq.read_table(run.samples_file).to_pylist()
    lengths = [row["prompt_tokens"] + row["response_tokens"] for row in samples if row["heldout"]]
    general = (place / "general.jsonl").stat().st_size / 4
    measured = (said.tokens - trained) / len(files)
    assert sum(lengths) + general < measured < sum(lengths) + 4 * general


def test_answers_lie_side_by_side(run, whole):
    answers = api.read_evaluation(run, "whole").answers.prompts
    assert len(answers) == 4
    for answer in answers:
        assert set(answer.answers) >= {"base", "full", "fifth"}
        assert answer.prompt
        assert answer.reference
    assert any(a.answers["base"] != a.answers["full"] for a in answers)


def test_nothing_large_is_left_behind(run, whole):
    evaluation = Evaluation.open(run, "whole")
    names = {path.name for path in evaluation.path.iterdir() if not path.name.startswith(".")}
    assert names == {
        "config.json",
        "status.json",
        "metrics.jsonl",
        "worker.log",
        "arms",
        "answers.json",
        "result.json",
    }


@pytest.fixture
def apart(run, tmp_path):
    """A copy of the run without its evaluations, of which none can be taken from."""
    leave = shutil.ignore_patterns("evaluations")
    shutil.copytree(run.path, tmp_path / "runs" / run.id, ignore=leave)
    return Run.open(tmp_path / "runs" / run.id)


def test_killed_and_resumed_equals_undisturbed(place, apart, whole):
    """SIGKILL in the middle: interrupted; the resume repeats no finished arm."""
    run = apart
    config = settings(
        place, selections=["fifth", "everything"], criteria=["magnitude"], arms=ALL, seeds=2
    )
    evaluation = api.create_evaluation(run, "killed", config)
    api.start_run(evaluation)
    four = lambda: len(list(evaluation.arms.glob("[!.]*.json"))) >= 4  # noqa: E731
    until(four, "four arms", during=lambda: at_work(evaluation), pause=0.02)
    os.kill(jobs.observe(evaluation).pid, signal.SIGKILL)
    wait_for(evaluation, "interrupted")
    assert not api.read_evaluation(run, "killed").result.finished
    done = {path: path.stat().st_mtime_ns for path in evaluation.arms.glob("[!.]*.json")}
    assert len(done) >= 4
    assert open_folder(evaluation.path).path == evaluation.path
    api.resume_run(open_folder(evaluation.path))
    assert wait_for(evaluation, "finished", "failed").state == "finished"
    assert {path: path.stat().st_mtime_ns for path in done} == done
    resumed = api.read_evaluation(run, "killed").result
    for mine, theirs in zip(resumed.arms, whole.arms, strict=True):
        assert mine.label == theirs.label
        measured = {name: value for name, value in theirs.mean.items() if value is not None}
        again = {name: mine.mean[name] for name in measured}
        assert again == pytest.approx(measured, rel=1e-4, abs=1e-6)
        assert [row.steps for row in mine.seeds] == [row.steps for row in theirs.seeds]
    with pytest.raises(RunError, match="killed is finished"):
        api.resume_run(evaluation)


def test_an_evaluation_of_an_earlier_version_goes_on(place, run):
    """A setting that its config is too old to know has its default; another value is refused."""
    config = settings(place, selections=["fifth"])
    made = api.create_evaluation(run, "old", config)
    values = made.config_values()
    del values["first_seed"]
    made.config_file.write_text(json.dumps(values))
    assert api.create_evaluation(run, "old", config).path == made.path
    with pytest.raises(RunError, match="first_seed was 0, now 3"):
        api.create_evaluation(run, "old", config.model_copy(update={"first_seed": 3}))


def test_the_same_settings_are_not_started_twice(place, run):
    """A double click, a second tab: the job at work is the answer; other settings get their own."""
    slow = settings(place, selections=["fifth"], arms=["selection"], seeds=1, epochs=300)
    first = api.start_evaluation(run, "once", slow)
    again = api.start_evaluation(run, "twice", slow)
    other = api.start_evaluation(run, "other", slow.model_copy(update={"epochs": 301}))
    try:
        assert first.id == again.id == "once"
        assert other.id == "other"
        assert not (run.evaluations / "twice").exists()
    finally:
        for started in (other, first):
            api.stop_run(started)
    third = api.start_evaluation(run, "thrice", slow)
    api.stop_run(third)
    assert third.id == "thrice", "a stopped one does not stand in the way"


def test_a_selection_made_anew_is_trained_anew(place, run):
    """Stopped, the selection changed, resumed: no arm keeps what it had of the old subset."""
    api.select_samples(run, "changing", SelectionConfig(ratio=0.2))
    config = settings(place, selections=["changing"], arms=["selection"], seeds=1)
    conduct(run, "changing", config)
    evaluation = Evaluation.open(run, "changing")
    before = read_trials(evaluation)["changing-0"]
    api.select_samples(run, "changing", SelectionConfig(ratio=0.3))
    evaluation.write_status(evaluation.read_status().model_copy(update={"state": "stopped"}))
    api.resume_run(evaluation)
    assert wait_for(evaluation, "finished", "failed").state == "finished"
    after = read_trials(evaluation)["changing-0"]
    assert (before.samples, after.samples) == (11, 16)
    assert before.sums["heldout_loss"] != after.sums["heldout_loss"]


def test_a_finished_evaluation_does_not_speak_of_a_selection_saved_anew(place, run):
    api.select_samples(run, "moving", SelectionConfig(ratio=0.2))
    config = settings(place, selections=["moving"], arms=["selection"], seeds=1, epochs=1)
    conduct(run, "moving", config)
    api.create_evaluation(run, "moving", config)  # the same subset: the same answer
    api.select_samples(run, "moving", SelectionConfig(ratio=0.3))
    with pytest.raises(RunError, match="'moving', which was saved anew since"):
        api.create_evaluation(run, "moving", config)


def test_a_finished_evaluation_does_not_speak_of_a_file_edited_since(place, run):
    """The same command said `finished`, and the old numbers."""
    general = place / "moving.jsonl"
    general.write_text('{"instruction": "the heart?", "output": "rest and water."}\n' * 4)
    values = {"general": [str(general)], "arms": ["selection"], "seeds": 1, "epochs": 1}
    config = settings(place, selections=["fifth"], **values)
    conduct(run, "edited-since", config)
    api.create_evaluation(run, "edited-since", config)
    general.write_text('{"instruction": "the heart?", "output": "rest."}\n' * 4)
    with pytest.raises(RunError, match=r"measured on another .*moving\.jsonl, .* another --name"):
        api.create_evaluation(run, "edited-since", config)


def test_arms_measured_on_other_samples_do_not_count(place, run):
    """The general file is edited between a stop and a resume: everything is measured anew."""
    general = place / "edited.jsonl"
    general.write_text('{"instruction": "the heart?", "output": "rest and water."}\n' * 4)
    config = settings(
        place,
        selections=["fifth"],
        arms=["selection"],
        seeds=1,
        epochs=1,
        general=[str(general)],
    )
    conduct(run, "edited", config)
    evaluation = Evaluation.open(run, "edited")
    before = {name: arm.sums["general_loss"] for name, arm in read_trials(evaluation).items()}
    general.write_text('{"instruction": "the lung?", "output": "fever and cough."}\n' * 4)
    evaluation.write_status(evaluation.read_status().model_copy(update={"state": "stopped"}))
    api.resume_run(evaluation)
    assert wait_for(evaluation, "finished", "failed").state == "finished"
    after = {name: arm.sums["general_loss"] for name, arm in read_trials(evaluation).items()}
    assert before.keys() == after.keys() == {"base-0", "fifth-0"}
    assert all(before[name] != after[name] for name in before)


def await_steps(evaluation, count):
    """Wait until the job at work has written so many steps."""
    written = lambda: len(evaluation.read_metrics()) >= count  # noqa: E731
    until(written, f"{count} steps", during=lambda: at_work(evaluation), pause=0.02)


def test_stop_keeps_finished_arms_and_a_resume_goes_on_within_one(place, run):
    config = settings(place, selections=["fifth"], arms=["full", "selection"], epochs=200, seeds=1)
    evaluation = api.create_evaluation(run, "stopped", config)
    api.start_run(evaluation)
    await_steps(evaluation, 5)
    assert api.stop_run(evaluation).state == "stopped"
    assert set(read_trials(evaluation)) == {"base-0"}
    assert list(evaluation.checkpoints.glob("*/checkpoint-*/complete"))
    before = max(line["step"] for line in evaluation.read_metrics())
    api.resume_run(evaluation)
    await_steps(evaluation, before + 3)
    assert api.stop_run(evaluation).state == "stopped"
    steps = [line["step"] for line in evaluation.read_metrics()]
    assert steps == list(range(1, len(steps) + 1))


def test_another_config_is_refused(place, run, whole):
    with pytest.raises(RunError, match=r"another config \(epochs was 2.0, now 3.0\)"):
        api.create_evaluation(
            run,
            "whole",
            settings(
                place,
                selections=["fifth", "everything"],
                criteria=["magnitude"],
                arms=ALL,
                seeds=2,
                epochs=3,
            ),
        )


def test_a_drawn_selection_is_drawn_anew_by_each_seed(place, run):
    config = settings(
        place, selections=["drawn"], arms=["selection"], seeds=2, training="full", lr=1e-3
    )
    result = conduct(run, "drawn", config)
    assert [arm.label for arm in result.arms] == ["base", "drawn"]
    assert result.comparisons[0].against == "base"
    keys = [file.key for file in read_trials(Evaluation.open(run, "drawn")).values()]
    assert len(set(keys)) == 3
    assert "random draws, which each seed draws anew: 'drawn'" in result.notes
    first = {row.response_tokens for row in read_trials(Evaluation.open(run, "drawn")).values()}
    assert len(first) == 3  # none for base, another subset for each seed


def test_fresh_repetitions_are_other_seeds_of_the_same(place, apart, whole):
    """From the second seed on: what the first evaluation found under it, and answers of its own."""
    run = apart
    arms = ("base", "random", "selection")
    config = settings(place, selections=["fifth"], arms=arms, seeds=2, first_seed=1)
    result = conduct(run, "fresh", config)
    for label in ("fifth", "random"):
        ours = {row.seed: row.heldout_loss for row in arm_of(result, label).seeds}
        assert sorted(ours) == [1, 2]
        earlier = arm_of(whole, "random-11" if label == "random" else label).seeds[1]
        assert ours[1] == pytest.approx(earlier.heldout_loss)
    assert result.comparisons[0].seeds == 2
    (prompt, *_) = api.read_evaluation(run, "fresh").answers.prompts
    assert set(prompt.answers) == {"base", "fifth"}


# -- held-out files


def heldout_file(folder, rows=(), name="heldout.jsonl", seed=9):
    """Held-out rows of the pool's layout, and some of them."""
    rng = np.random.default_rng(seed)
    fresh = [{"question": words(rng, 9) + "?", "answer": words(rng, 20)} for _ in range(4)]
    file = folder / name
    file.write_text("\n".join(json.dumps(row) for row in [*fresh[:2], *rows, *fresh[2:]]))
    return str(file)


def pool_row(place, run):
    """The longest row of the pool, as it stands in the source."""
    table = pq.read_table(run.scores_file)
    longest = int(np.argmax(table["response_tokens"].to_numpy()))
    sample = table["sample_id"][longest].as_py()
    return sample, json.loads((place / "data.jsonl").read_text().splitlines()[sample])


def test_a_leaked_row_is_refused_with_its_number(place, run, tmp_path):
    sample, row = pool_row(place, run)
    config = settings(place, heldout=heldout_file(tmp_path, [row]), arms=["base"])
    evaluation = api.create_evaluation(run, "leaky", config)
    api.start_run(evaluation)
    status = wait_for(evaluation, "failed", "finished")
    assert status.state == "failed"
    assert (
        f"row 2 (line 3) of heldout.jsonl also stands in the pool, as sample {sample}"
        in status.error
    )
    assert "remove it" in status.error


def test_a_near_duplicate_is_counted_and_measured(place, run, tmp_path):
    """The longest answer of the pool with one word more."""
    sample, row = pool_row(place, run)
    near = {"question": row["question"], "answer": row["answer"] + " water", "options": "none"}
    config = settings(place, heldout=heldout_file(tmp_path, [near]), arms=["base"])
    result = conduct(run, "near", config)
    pairs = result.leaks.near_duplicates
    assert [(p.heldout, p.sample_id) for p in pairs if p.overlap > 0.9] == [(2, sample)]
    assert result.heldout.samples == 5
    assert any("1 heldout samples with options do not count" in note for note in result.notes)


def test_two_held_out_files_and_two_general_ones_are_told_one_by_one(place, run, tmp_path):
    """As a job and in its table: each number by hand from the sums of the file's samples."""
    heldout = [heldout_file(tmp_path, name=f"{name}.jsonl", seed=i) for i, name in enumerate("ab")]
    other = tmp_path / "other.jsonl"
    other.write_text('{"instruction": "the lung?", "output": "fever and cough."}\n' * 3)
    config = settings(
        place,
        selections=["fifth"],
        arms=["random", "selection"],
        seeds=2,
        epochs=1,
        heldout=heldout,
        general=[str(place / "general.jsonl"), str(other)],
    )
    result = conduct(run, "files", config)
    assert [one.name for one in result.measured_on] == [
        *("a.jsonl", "b.jsonl", "general.jsonl", "other.jsonl")
    ]
    assert (result.heldout.name, result.heldout.samples) == ("a.jsonl, b.jsonl", 8)
    assert [(one.probe, one.name) for one in result.by_file] == [
        ("heldout", "a.jsonl"),
        ("heldout", "b.jsonl"),
        ("general", "general.jsonl"),
        ("general", "other.jsonl"),
    ]
    stored = read_trials(Evaluation.open(run, "files"))
    first, second = (stored[f"fifth-{seed}"].sums["heldout_loss"] for seed in (0, 1))
    expected = np.mean([sum(over[4:]) / sum(under[4:]) for over, under in (first, second)])
    (mine,) = [arm for arm in result.by_file[1].arms if arm.label == "fifth"]
    assert mine.mean["heldout_loss"] == pytest.approx(expected)
    assert mine.mean["heldout_accuracy"] is not None
    (pair,) = [c for c in result.by_file[1].comparisons if c.against == "random"]
    assert pair.verdict == pair.metrics["heldout_loss"].verdict
    lines = evaluation_lines(api.read_evaluation(run, "files"))
    place = lines.index("heldout file b.jsonl:")
    assert lines[place + 1].split() == ["arm", "held-out", "loss", "words", "right"]
    assert lines[place + 4].startswith(f"fifth   {expected:.3f} ±")
    assert lines[place + 5] == f"fifth against random: {pair.verdict}"


def test_answers_are_written_and_compared_where_they_are_asked_for(place, run, whole, tmp_path):
    """Each number again from the texts that the arm's file holds; long references do not count."""
    rows = [{"question": "the lung?", "answer": "never " * 65}]
    rows += [{"question": f"{word}?", "answer": f"{word}."} for word in ("lung", "skin", "rash")]
    file = tmp_path / "short.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    values = {"arms": ["random", "selection"], "seeds": 2, "epochs": 1, "heldout": [str(file)]}
    config = settings(place, selections=["fifth"], answers=2, **values)
    said = api.estimate_evaluation(run, config)
    without = api.estimate_evaluation(run, config.model_copy(update={"answers": 0}))
    shown = 4 * 2  # of the base model and of the subset under its first seed
    assert (said.answers, without.answers) == (2 * 5 + shown, shown)
    assert said.seconds > without.seconds
    result = conduct(run, "written", config)
    assert any("compared on 2 held-out samples" in note for note in result.notes)
    assert arm_of(whole, "full").mean["heldout_f1"] is None
    for name, trial in read_trials(Evaluation.open(run, "written")).items():
        assert list(trial.written) == [1, 2], name
        expected = [closeness.token_f1(trial.written[i], rows[i]["answer"]) for i in (1, 2)]
        assert trial.sums["heldout_f1"] == ([0, *map(approx, expected), 0], [0, 1, 1, 0])
    (pair,) = [c for c in result.comparisons if (c.arm, c.against) == ("fifth", "random")]
    assert {"heldout_exact", "heldout_f1", "heldout_rouge_l"} <= pair.metrics.keys()
    assert pair.metrics["heldout_f1"].low is not None
    head = evaluation_lines(api.read_evaluation(run, "written"))[0]
    assert "answers exact" in head


@needs_lm_eval
def test_tasks_are_asked_of_every_arm_and_compared_as_the_rest(place, run, tmp_path):
    """Values by sample, again from what the evaluation keeps of the samples."""
    write_tasks(tmp_path / "tasks")
    values = {"arms": ["random", "selection"], "seeds": 2, "tasks": ["heart,say"]}
    config = settings(place, selections=["fifth"], tasks_dir=str(tmp_path / "tasks"), **values)
    said = api.estimate_evaluation(run, config)
    assert said.requests == (6 * 3 + 4) * said.arms
    without = config.model_copy(update={"tasks": ()})
    assert said.seconds > api.estimate_evaluation(run, without).seconds
    served = api.estimate_evaluation(run, config.model_copy(update={"tasks_with": "vllm"}))
    assert served.seconds == pytest.approx(said.seconds + SERVING_S * said.arms)
    result = conduct(run, "tasks", config)
    evaluation = Evaluation.open(run, "tasks")
    for name, trial in read_trials(evaluation).items():
        lines = evaluation.task_file(trial.key).read_text().splitlines()
        samples = [json.loads(line) for line in lines]
        assert [sample["task"] for sample in samples] == ["heart"] * 6 + ["say"] * 4
        right = [sample["acc"] for sample in samples[:6]]
        assert trial.sums["task:heart:acc"] == (right, [1.0] * 6), name
    (pair,) = [c for c in result.comparisons if (c.arm, c.against) == ("fifth", "random")]
    found = pair.metrics["task:heart:acc"]
    ours, theirs = (arm_of(result, label).seeds for label in ("fifth", "random"))
    both = zip(ours, theirs, strict=True)
    gaps = [a.value("task:heart:acc") - b.value("task:heart:acc") for a, b in both]
    assert found.difference == pytest.approx(np.mean(gaps))
    assert found.low <= found.difference <= found.high
    assert found.bootstrap[0] <= found.bootstrap[1]
    assert "heart acc" in evaluation_lines(api.read_evaluation(run, "tasks"))[0]
    with pytest.raises(EvaluationError, match="no folder at"):
        api.create_evaluation(run, "x", config.model_copy(update={"tasks_dir": "/no/such"}))
    assert api.create_evaluation(run, "tasks", config).path == evaluation.path
    file = tmp_path / "tasks" / "say.yaml"
    file.write_text(file.read_text() + "filter_list: [{name: a, filter: [{function: take_first}]}]")
    with pytest.raises(RunError, match="'tasks' asked other tasks, which have changed since"):
        api.create_evaluation(run, "tasks", config)


def test_an_arm_whose_adapter_changes_nothing_is_an_error(place, run):
    """A learning rate so low that float32 loses what it adds."""
    config = settings(place, selections=["fifth"], arms=["selection"], epochs=1, lr=1e-30)
    evaluation = api.create_evaluation(run, "idle", config)
    api.start_run(evaluation)
    status = wait_for(evaluation, "failed", "finished")
    assert "arm fifth, seed 0: its adapter changes no prediction" in status.error
    assert set(read_trials(evaluation)) == {"base-0"}


def test_an_unknown_layout_says_what_to_rename(place, run, tmp_path):
    file = tmp_path / "odd.jsonl"
    file.write_text('{"ask": "the heart?", "say": "pain"}\n')
    evaluation = api.create_evaluation(run, "odd", settings(place, heldout=str(file)))
    api.start_run(evaluation)
    status = wait_for(evaluation, "failed", "finished")
    assert "the columns of odd.jsonl, ask, say, are neither" in status.error
    assert "rename them" in status.error


# -- before it starts


def test_what_cannot_be_evaluated_is_refused_at_once(place, run, tmp_path):
    for values, name, kind, message in (
        ({"selections": ["fifth"]}, "../x", EvaluationError, "is no name"),
        ({"selections": ["none"]}, "x", RunError, "no selection 'none': there are "),
        ({"heldout": [str(tmp_path / "no.jsonl")]}, "x", EvaluationError, "no file at"),
        ({"heldout": [str(place / "data.jsonl")] * 2}, "x", EvaluationError, "is named twice"),
    ):
        with pytest.raises(kind, match=message):
            api.create_evaluation(run, name, settings(place, **values))
    with pytest.raises(EvaluationError, match="no setting 'best'"):
        api.create_evaluation(run, "x", TuneConfig(settings=("best",)))
    with pytest.raises(SelectionError, match="is no name for a selection"):
        api.create_evaluation(run, "x", TuneConfig(save_as="a/b"))
    assert not (run.evaluations / "x").exists()
    unscored = Run.create(config_for(place, seed=3, heldout=0), tmp_path / "unscored")
    with pytest.raises(RunError, match="wait for it, or resume it"):
        api.create_evaluation(unscored, "x", settings(place))


def test_an_estimate_needs_no_torch_and_follows_the_work(place, run):
    small = api.estimate_evaluation(run, settings(place, selections=["fifth"], seeds=1))
    large = api.estimate_evaluation(run, settings(place, selections=["fifth"], seeds=3))
    assert small.arms == 6
    assert large.arms == 16
    assert 2 * small.tokens < large.tokens < 3 * small.tokens
    assert small.low < small.seconds < small.high
    # Both twins of everything are one training.
    twins = settings(place, selections=["everything"], arms=["full", "selection"], seeds=2)
    assert api.estimate_evaluation(run, twins).arms == 3
    assert api.estimate_evaluation(run, TuneConfig(seeds=2, settings=("typical-high",))).arms == 10
    code = (
        "import sys; from grads import api; from grads.store.runs import Run;"
        "from grads.config.evaluation import EvaluationConfig;"
        f"api.estimate_evaluation(Run.open({str(run.path)!r}),"
        " EvaluationConfig(selections=('fifth',))); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE
    )
    assert done.stdout.strip() == "False", done.stderr


# -- the search


def test_a_search_from_the_grid_to_the_second_test(place, run, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text('{"instruction": "the lung?", "output": "fever and cough."}\n' * 4)
    general = [str(place / "general.jsonl"), str(other)]
    values = RECIPE | {"general": general, "ratio": 0.2, "seeds": 2}
    chosen = ("typical-high", "high-sample", "loss-low")
    config = TuneConfig.parse(values | {"settings": chosen, "save_as": "best"})
    result = conduct(run, "search", config)
    assert result.finished
    assert set(result.points) == {"base", "full", "random", *chosen}
    assert result.points["base"].forgetting == 0
    assert set(result.front) <= {"random", *chosen}
    assert len(arm_of(result, "random").seeds) == 2
    assert len(arm_of(result, "typical-high").seeds) == 1
    assert result.noise.learning > 0
    files = read_trials(Evaluation.open(run, "search"))
    if result.winner is None:
        assert result.confirmation is None
        assert result.by_file == []
        assert "None of the settings" in result.sentence
    else:
        finals = [file for file in files.values() if file.phase == "final"]
        assert {f.seed for f in finals if f.arm == result.winner} == {2, 3}
        assert result.confirmation.against == "random"
        assert [one.name for one in result.by_file] == ["general.jsonl", "other.jsonl"]
        assert {arm.label for arm in result.by_file[0].arms} == {"base", "random", result.winner}
    named = result.selection is not None
    assert named == ("best" in run.selection_names())
    pilots = [file for file in files.values() if file.phase == "pilot"]
    assert {len(file.sums["heldout_loss"][0]) for file in pilots} == {2}  # half of five
    assert {len(file.sums["general_loss"][0]) for file in pilots} == {8}  # half of sixteen


class Foretold(lab.Lab):
    """A lab that notes each foreseen end, beside how many trainings lie ahead in its stage."""

    told: list[tuple[str, int, float, float]]

    def _foresee(self):
        super()._foresee()
        status = self.job.status
        self.told.append((status.stage, len(self.left), status.eta_s, status.left_s))


@pytest.mark.parametrize("kind", ["evaluation", "search"])
def test_the_end_is_foreseen_from_the_start_and_comes_nearer(place, run, monkeypatch, kind):
    """At the pace of what is done, which changes between trainings alone.

    A search that finds no winner ends sooner.
    """
    monkeypatch.setattr(Foretold, "told", [], raising=False)
    common = RECIPE | {"general": [str(place / "general.jsonl")], "seeds": 1}
    if kind == "evaluation":
        config = EvaluationConfig.parse(common | {"selections": ["fifth"]})
        monkeypatch.setattr(stages, "Lab", Foretold)
        made = Evaluation.create(run, "foretold", config)
        stages.evaluate(Job(made), config)
    else:
        search = {"ratio": 0.2, "settings": ["density"], "save_as": "foretold"}
        config = TuneConfig.parse(common | search)
        monkeypatch.setattr(search_stages, "Lab", Foretold)
        made = Evaluation.create(run, "foretold-search", config)
        search_stages.tune(Job(made), config)
    told = Foretold.told
    assert told[0][3] > 0, "by the speed of the run's warm-up"
    assert told[-1][2] == pytest.approx(0, abs=1e-6)
    for before, after in itertools.pairwise(told):
        if before[:2] == after[:2]:  # of one training
            assert after[3] <= before[3]
    for stage, _, of_stage, left in told:
        assert left > of_stage if stage == "pilots" else left == of_stage
    shutil.rmtree(made.path)


def test_a_search_tests_what_it_would_save(run):
    """What people have decided is in every subset of the search, and in no subset it is not."""
    config = TuneConfig.parse(RECIPE | {"ratio": 0.2, "seeds": 2})
    pool = api.load_pool(run)
    pinned, excluded = (int(i) for i in pool.scores.sample_id[[3, 4]])
    api.decide(run, pinned, "pin")
    api.decide(run, excluded, "exclude")
    try:
        trials = tuning.trials(pool, config)
        saved = api.select_samples(run, "as-tuned", tuning.grid(config)["typical-high"])
        table = api.read_selection(run, "as-tuned")[1]
    finally:
        for sample in (pinned, excluded):
            api.decide(run, sample, "clear")
    subsets = [trial for trial in trials if trial.arm not in ("base", "full")]
    assert {trial.arm for trial in subsets} == set(tuning.GRID)
    for trial in subsets:
        assert pinned in trial.sample_ids, trial.name
        assert excluded not in trial.sample_ids, trial.name
        assert len(trial.sample_ids) == saved.samples.kept
    (high,) = (trial for trial in subsets if trial.name == "pilot-typical-high-0")
    assert high.sample_ids.tolist() == table.filter(table["kept"])["sample_id"].to_pylist()
    full = [trial for trial in trials if trial.arm == "full"]
    assert all(len(trial.sample_ids) == len(pool) for trial in full)


def test_subsets_of_the_grid_without_training(run):
    found = api.subset_overlap(run, 0.2)
    matrix = np.array(found.jaccard)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert (np.diag(matrix) == 1).all()
    assert found.by_chance == pytest.approx(1 / 9)
    pool = api.load_pool(run)
    scores = pool.scores
    mean = {row.label: row for row in found.subsets}
    lowest = np.sort(scores.loss)[:11].mean()
    assert mean["loss-low"].loss == pytest.approx(lowest)
    assert found.pool.samples == 53
    a, b = (found.labels.index(name) for name in ("typical-low-sample", "loss-low"))
    kept = [
        pool.select(SelectionConfig(ratio=0.2, **values)).kept
        for values in ({}, {"criterion": "loss_low"})
    ]
    expected = (kept[0] & kept[1]).sum() / (kept[0] | kept[1]).sum()
    assert matrix[a, b] == pytest.approx(expected, abs=1e-4)


# -- the command line


def test_commands_tell_the_table_and_the_verdict(place, run, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        json.dumps(RECIPE | {"general": [str(place / "general.jsonl")], "arms": ["random"]})
    )
    common = ["--run-dir", str(run.path), "--config", str(recipe)]
    arguments = [*common, "--criterion", "magnitude", "--ratio", "0.2", "--name", "told"]
    done = command("evaluate", *arguments, "--seeds", "1")
    assert done.returncode == 0, done.stderr
    assert "trainings and measurements" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["arm", "samples"]
    assert [line.split()[0] for line in lines[1:4]] == ["base", "random", "magnitude"]
    assert "at least three seeds" in done.stdout
    assert "note: one seed has no interval" in done.stdout
    again = command("evaluate", *arguments, "--seeds", "1", "--json")
    assert json.loads(again.stdout)["status"]["state"] == "finished"
    folder = str(run.evaluations / "told")
    assert "told: finished" in command("status", "--run-dir", folder).stdout
    for arguments, code, message in (
        (["resume", "--run-dir", folder], 1, "nothing to resume"),
        (["stop", "--run-dir", folder], 1, "no job to stop"),
        (["evaluate", *common, "--selection", "no"], 1, "no selection 'no'"),
        (["evaluate", *common, "--criterion", "random"], 2, "an arm by itself"),
        (["tune", *common[:2], "--ratio", "2"], 2, "ratio is"),
        (["status", "--run-dir", str(run.evaluations / "no")], 1, "no evaluation 'no'"),
    ):
        failed = command(*arguments)
        assert failed.returncode == code, (arguments, failed.stderr)
        assert message in failed.stderr
