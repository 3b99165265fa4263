"""Evaluations over several sizes, and trainings that another evaluation has done already."""

import json
import shutil

import numpy as np
import pytest
from chain import command
from run_dirs import demo_run, open_page
from test_evaluation_jobs import (
    RECIPE,
    arm_of,
    conduct,
    place,  # noqa: F401, a fixture
    run,  # noqa: F401, a fixture
    settings,
)

from grads import api
from grads.config.evaluation import EvaluationConfig
from grads.errors import ConfigError
from grads.evaluation import arms
from grads.evaluation.trials import read_trials
from grads.selection.options import SelectionConfig
from grads.store.folders import Evaluation

BUDGETS = (10.0, 40.0, 100.0)


def parsed(**values):
    return EvaluationConfig.parse({"criteria": ["loss_low", "grads"]} | values)


# -- what is planned


@pytest.mark.parametrize(
    "given", ["10,40,100", ["40,10", "100"], [100, 10, 40, 10], ["10", "40", "100"]]
)
def test_budgets_are_typed_together_or_one_by_one(given):
    assert parsed(budgets=given).budgets == BUDGETS


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"budgets": ["0"]}, "budgets.0 is '0'"),
        ({"budgets": ["5,101"]}, "budgets.1 is '101'"),
        ({"budgets": ["5,x"]}, "budgets.1 is 'x'"),
        ({"budgets": ["5"], "criteria": []}, "at least one criterion"),
        ({"budgets": ["5"], "ratio": 0.1}, "leave out selections and the ratio"),
        ({"budgets": ["5"], "selections": ["a"]}, "leave out selections and the ratio"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        parsed(**values)


def test_each_criterion_and_random_stand_at_each_budget(tmp_path):
    planned = arms.plan(demo_run(tmp_path), parsed(budgets="2.5,10,100"), 300)
    found = {arm.label: (arm.kind, arm.budget, arm.rival) for arm in planned}
    assert found == {
        "base": ("base", None, None),
        "full": ("full", 100, None),
        "random-2.5": ("random", 2.5, None),
        "loss_low-2.5": ("criterion", 2.5, "random-2.5"),
        "grads-2.5": ("criterion", 2.5, "random-2.5"),
        "random-10": ("random", 10, None),
        "loss_low-10": ("criterion", 10, "random-10"),
        "grads-10": ("criterion", 10, "random-10"),
    }
    counts = {arm.label: arm.options.count for arm in planned if arm.options}
    assert counts["grads-2.5"] == counts["random-2.5"] == 8
    assert counts["grads-10"] == 30


def test_a_budget_of_all_is_everything(tmp_path):
    planned = arms.plan(demo_run(tmp_path), parsed(budgets="100,5", arms=["base"]), 300)
    labels = [arm.label for arm in planned]
    assert labels == ["base", "full", "loss_low-5", "grads-5"]
    assert all(arm.rival is None for arm in planned)


# -- as jobs


@pytest.fixture(scope="module")
def config(place):  # noqa: F811
    return settings(place, criteria=["loss_low", "grads"], budgets="10,40,100", seeds=2)


@pytest.fixture(scope="module")
def curve(run, config):  # noqa: F811
    return conduct(run, "curve", config)


@pytest.mark.job
def test_the_curve_tells_what_each_size_comes_to(curve):
    assert [(p.budget, p.criterion, p.samples) for p in curve.curve] == [
        (10, "random", 5),
        (10, "loss_low", 5),
        (10, "grads", 5),
        (40, "random", 21),
        (40, "loss_low", 21),
        (40, "grads", 21),
        (100, "everything", 53),
    ]
    base, full = arm_of(curve, "base"), arm_of(curve, "full")
    untrained, best = base.mean["heldout_loss"], full.mean["heldout_loss"]
    assert best < untrained
    for point in curve.curve:
        arm = arm_of(curve, point.arm)
        assert arm.budget == point.budget
        assert point.learning == arm.mean["heldout_loss"]
        assert point.learning_interval == arm.interval["heldout_loss"]
        rise = arm.mean["general_loss"] - base.mean["general_loss"]
        assert point.forgetting == pytest.approx(rise)
        assert np.mean(point.forgetting_interval) == pytest.approx(rise)
        assert point.gain == pytest.approx((untrained - point.learning) / (untrained - best))
    assert curve.curve[-1].gain == pytest.approx(1)


@pytest.mark.job
def test_what_another_evaluation_trained_is_taken_from_it(place, run, config, curve):  # noqa: F811
    """The same subsets, seeds and samples measured on: only what is new is trained."""
    more = config.model_copy(update={"budgets": (10.0, 20.0, 100.0), "criteria": ("loss_low",)})
    result = conduct(run, "more", more)
    evaluation = Evaluation.open(run, "more")
    taken = {name for name, trial in read_trials(evaluation).items() if trial.taken_from == "curve"}
    assert taken == {
        f"{arm}-{seed}" for arm in ("full", "random-10", "loss_low-10") for seed in "01"
    }
    trained = {line["arm"] for line in evaluation.read_metrics()}
    assert trained == {"random-20", "loss_low-20"}
    for label in ("full", "random-10", "loss_low-10"):
        assert arm_of(result, label).mean == arm_of(curve, label).mean
    assert any(note.startswith("6 trainings are those of curve:") for note in result.notes)
    assert api.observe(evaluation).done == api.observe(evaluation).total


@pytest.mark.job
@pytest.mark.parametrize(
    "change", [{"lr": 4e-3}, {"epochs": 1.0}, {"general_limit": 5}, {"first_seed": 5}]
)
def test_other_trainings_and_measurements_are_done_anew(run, config, curve, change):  # noqa: F811
    values = {"budgets": (10.0,), "criteria": ("loss_low",), "arms": ("base",), "seeds": 1}
    other = config.model_copy(update=values | change)
    name = f"other-{next(iter(change))}"
    conduct(run, name, other)
    evaluation = Evaluation.open(run, name)
    assert all(trial.taken_from is None for trial in read_trials(evaluation).values())
    assert {line["arm"] for line in evaluation.read_metrics()} == {"loss_low-10"}


@pytest.mark.job
@pytest.mark.parametrize(
    ("name", "made_of", "taken"),
    [
        ("moved", lambda rows: [rows], "curve"),
        ("apart", lambda rows: [rows[:4], rows[4:]], None),  # its files have figures of their own
        ("another-right", lambda rows: [[*rows[:3], rows[3] | {"answer": 1}, *rows[4:]]], None),
    ],
)
def test_a_file_counts_as_what_it_holds(place, run, config, curve, name, made_of, taken):  # noqa: F811
    """Not as what it is called: arms are taken over where all that is measured is the same."""
    rows = [json.loads(line) for line in (place / "general.jsonl").read_text().splitlines()]
    assert rows[3]["answer"] == 0
    files = [place / f"{name}-{number}.jsonl" for number in range(len(made_of(rows)))]
    for file, part in zip(files, made_of(rows), strict=True):
        file.write_text("\n".join(map(json.dumps, part)))
    small = {"budgets": (10.0,), "criteria": ("loss_low",), "arms": ("base",), "seeds": 1}
    general = {"general": tuple(map(str, files))}
    conduct(run, name, config.model_copy(update=small | general))
    trials = read_trials(Evaluation.open(run, name))
    assert trials["loss_low-10-0"].taken_from == taken


@pytest.mark.job
def test_answers_are_written_where_the_other_evaluation_has_none(place, run, config, curve):  # noqa: F811
    """Criteria write no answers; a saved selection of the same samples does."""
    count = arm_of(curve, "loss_low-40").samples
    api.select_samples(run, "low", SelectionConfig.parse({"criterion": "loss_low", "count": count}))
    conduct(run, "low", settings(place, selections=["low"], arms=["selection"], seeds=2))
    files = read_trials(Evaluation.open(run, "low"))
    assert files["low-0"].answers is not None
    assert files["low-0"].taken_from is None
    assert files["low-1"].taken_from == "curve"


@pytest.mark.job
def test_a_damaged_evaluation_is_passed_over(run, config, curve, tmp_path):  # noqa: F811
    copy = run.evaluations / "damaged"
    shutil.copytree(Evaluation.open(run, "curve").path, copy)
    next(copy.glob("arms/*.json")).write_text("{")
    small = {"budgets": (10.0,), "criteria": ("loss_low",), "arms": ("base",), "seeds": 1}
    conduct(run, "after", config.model_copy(update=small))
    shutil.rmtree(copy)
    assert read_trials(Evaluation.open(run, "after"))["loss_low-10-0"].taken_from == "curve"


@pytest.mark.job
def test_the_command_and_the_page_show_the_curve(place, run, curve, tmp_path, monkeypatch):  # noqa: F811
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(RECIPE | {"general": [str(place / "general.jsonl")]}))
    common = ["--run-dir", str(run.path), "--config", str(recipe), "--name", "curve"]
    common += ["--criterion", "loss_low", "--criterion", "grads", "--seeds", "2"]
    done = command("evaluate", *common, "--budgets", "10,40", "--budgets", "100")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("budget"))
    assert lines[first].split("  ")[0] == "budget"
    assert [line.split()[:3] for line in lines[first + 1 : first + 8]] == [
        [f"{p.budget:g}%", p.criterion, str(p.samples)] for p in curve.curve
    ]
    assert lines[first + 7].endswith("100%")
    monkeypatch.setenv("GRADS_RUNS_DIR", str(run.root))
    at = open_page("Evaluate", run=run.id, evaluation="curve")
    assert not at.exception
    assert any("How much is enough?" in one.value for one in at.markdown)
    said = [one.value.replace("\\", "") for one in at.caption]
    assert any("Of what everything gains: random 10%: " in text for text in said)
