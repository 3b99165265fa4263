"""Sets of examples on the pages: given, asked for, and chosen by, as AppTest draws them."""

import shutil

import numpy as np
import pytest
from chain import save_tiny_model, wait_for, write_data
from run_dirs import choose, demo_run, everything, has_button, messages, open_page, press

from grads import api
from grads.api import RunConfig, SelectionConfig
from grads.store.runs import Run

PURE = {"typicality": "0", "focus": "0"}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path / "runs"))
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def run(root):
    return demo_run(root)


def kept_on(at):
    (metric,) = [m for m in at.metric if m.label == "Examples"]
    return int(metric.value.replace(",", ""))


def test_the_sliders_choose_as_the_options_do(run):
    """What the page keeps is what the same options keep, in the link and from the command line."""
    at = open_page("Select", towards="1.5", draw="top", **PURE)
    assert at.slider(key="towards").value == 1.5
    at.text_input(key="name").set_value("towards").run()
    press(at, "Save these")
    record = api.read_record(run, "towards")
    assert (record.options.towards, record.options.typicality) == (1.5, 0)
    pool = api.load_pool(run)
    cosine = pool.numbers["embed_cosine_good"]
    best = np.argsort(-cosine, kind="stable")[: kept_on(at)]
    assert pool.kept("towards")[best].all()


def test_only_a_run_with_sets_has_their_sliders(run):
    for file in run.probes.iterdir():
        file.unlink()
    run.update_manifest(probes={})
    keys = [slider.key for slider in open_page("Select").slider]
    assert "towards" not in keys
    assert "away" not in keys
    at = open_page("Select")
    (counts,) = [box for box in at.selectbox if box.label == "What counts"]
    assert "Like my good examples" not in counts.options
    assert "Most spread out" in counts.options


@pytest.mark.parametrize(
    ("criterion", "column"),
    [("aligned", "embed_cosine_good"), ("rds", "rds_good"), ("question_gain", "question_gain_z")],
)
def test_criteria_that_a_set_brings(run, criterion, column):
    at = choose(open_page("Select"), "What counts", api.criteria()[criterion].label)
    pool = api.load_pool(run)
    kept = pool.select(SelectionConfig(criterion=criterion, ratio=0.1)).kept
    assert kept_on(at) == kept.sum() == 30
    worst_kept = pool.numbers[column][kept].min()
    assert (pool.numbers[column][~kept] <= worst_kept).all()


def test_sets_are_axes_colours_and_ranges_of_explore(run):
    at = open_page("Explore", x="embed_cosine_good", y="rds_good", colour="question_gain_z")
    labels = {box.label: box.value for box in at.selectbox}
    assert labels["Plane: across"] == "embed_cosine_good"
    assert labels["Plane: up"] == "rds_good"
    assert labels["Colour"] == "question_gain_z"
    values = api.load_pool(run).numbers["embed_cosine_good"]
    low = float(np.quantile(values, 0.9))
    at = open_page("Explore", within=f"embed_cosine_good:{low}:1")
    assert f"{(values >= low).sum()} match" in everything(at)
    assert not messages(at)


def test_a_run_without_its_model_says_so(run):
    at = open_page("Select")
    assert "nothing more can be measured" in everything(at)
    assert not has_button(at, "Measure")


@pytest.mark.job
def test_what_is_filtered_becomes_a_set(root, tmp_path):
    save_tiny_model(tmp_path / "model")
    write_data(tmp_path / "data.jsonl")
    config = RunConfig(
        dataset=str(tmp_path / "data.jsonl"), model=str(tmp_path / "model"), max_length=64
    )
    run = api.create_run(config, str(root / "mine"))
    api.start_run(run)
    assert wait_for(run, "finished", "failed").error is None
    pool = api.load_pool(run)
    low = float(np.sort(pool.scores.loss)[-5])
    at = open_page("Explore", run="mine", within=f"loss:{low}:99")
    at.text_input(key="name-targets").set_value("odd ones").run()
    press(at, "Measure")
    assert "is no name for a set" in messages(at)
    at.text_input(key="name-targets").set_value("odd").run()
    press(at, "Measure")
    request = api.ProbeRequest(run)
    assert wait_for(request, "finished", "failed").error is None
    wanted = pool.scores.sample_id[pool.scores.loss >= low].tolist()
    assert run.read_manifest().probes["odd"].source == f"rows:{','.join(map(str, wanted))}"
    assert "embed_cosine_odd" in api.load_pool(run).numbers
    shutil.rmtree(run.adapter)
    assert "nothing more can be measured" in everything(open_page("Select", run="mine"))
    assert isinstance(run, Run)
