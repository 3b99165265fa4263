"""A run whose layers are spread over its processes: the scores of one that holds them whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import spread
import tiny
from chain import ROOT, config_for, gone, save_tiny_model, until, wait_for, write_data
from test_probes import write_set
from test_processes import TORCHRUN, assert_same, begin, finished, launched, made, resumed

from grads import api
from grads.config.run import RunConfig
from grads.engine import sharding
from grads.errors import ConfigError, GradsError, ModelError
from grads.stages import together


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    save_tiny_model(folder / "model")
    write_data(folder / "data.jsonl")
    write_set(folder / "good.jsonl", 5, 1)
    return folder


@pytest.mark.job
def test_what_each_process_finds(tmp_path):
    """The checks of tests/spread.py, by three processes."""
    command = [sys.executable, "-m", *TORCHRUN, "3", spread.__file__, str(tmp_path)]
    paths = os.pathsep.join([str(ROOT), str(Path(spread.__file__).parent)])
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(spread.CHECKS[-1].__name__) == 3


@pytest.mark.job
@pytest.mark.parametrize("warmup", ["lora", "full", "none"])
def test_spread_layers_give_the_scores_of_whole_ones(place, warmup):
    """All samples lie in one part: the second process has none of its own to score."""
    alone = finished(made(place, f"{warmup}-alone", warmup=warmup, lr=1e-3))
    two = finished(
        made(place, f"{warmup}-two", warmup=warmup, lr=1e-3, processes=2, shard="layers")
    )
    assert two.read_manifest().device.startswith("2 x cpu")
    assert_same(two, alone)


@pytest.mark.job
def test_parts_of_unequal_number_and_length(place):
    """Three parts on two processes, the last of them shorter than the others."""
    write_data(place / "more.jsonl", 2_500)
    settings = {
        "dataset": str(place / "more.jsonl"),
        "warmup": "none",
        "batch_tokens": 2048,
        "token_signals": False,
        "clusters": 2,
    }
    alone = finished(made(place, "more-alone", **settings))
    assert_same(finished(made(place, "more-two", processes=2, shard="layers", **settings)), alone)


@pytest.mark.job
@pytest.mark.parametrize(("warmup", "sizes"), [("lora", [3]), ("full", [3, 1, 2])])
def test_a_stopped_warm_up_goes_on_with_any_number_of_processes(place, warmup, sizes):
    """Two begin it, others go on; it ends as one that nothing has stopped."""
    settings = {"warmup": warmup, "epochs": 8, "lr": 1e-4}
    alone = finished(made(place, f"whole-{warmup}", **settings))
    run = made(place, f"stopped-{warmup}", processes=2, shard="layers", **settings)
    api.start_run(run)
    steps = stop_after(run, 1)
    for size in sizes[:-1]:
        begin(run, size)
        steps = stop_after(run, steps + 1)
    assert_same(resumed(run, sizes[-1]), alone)


def stop_after(run, step):
    """Stop the run once it has taken so many steps of its warm-up; how many it then took."""
    until(lambda: taken(run) >= step, f"step {step} of the warm-up")
    processes = launched(run)
    api.stop_run(run)
    wait_for(run, "stopped")
    until(lambda: all(map(gone, processes)), "the end of all processes")
    return taken(run)


def taken(run):
    """The warm-up's steps so far."""
    lines = run.read_metrics() if run.metrics_file.exists() else []
    return max((line["step"] for line in lines if line["stage"] == "warm-up"), default=0)


@pytest.mark.job
@pytest.mark.parametrize("rank", [0, 1])
def test_the_end_of_one_is_the_end_of_all(place, rank):
    run = made(place, f"killed-{rank}", processes=2, shard="layers", epochs=8, lr=1e-5)
    api.start_run(run)
    until(lambda: taken(run), "a step of the warm-up")
    processes = launched(run)
    processes[rank].kill()
    wait_for(run, "failed", "interrupted")
    until(lambda: all(map(gone, processes)), "the end of all processes")
    resumed(run, 3)


@pytest.mark.parametrize("other", [{"quantize": "4bit"}, {"when": "during"}])
def test_what_does_not_go_with_spread_layers_is_refused(place, other):
    (name,) = other
    with pytest.raises(ConfigError, match=f"shard is 'layers' but {name} is"):
        config_for(place, shard="layers", **other)
    assert RunConfig.model_fields["shard"].default == "none"


def test_what_a_process_alone_finds_wrong_is_its_end(place):
    """Else it would wait for the next call, and the others for it, for ever."""
    run, calls = made(place, "helped"), []

    def fails(job):
        calls.append(job)
        if len(calls) > 1:
            raise RuntimeError("called again")
        raise GradsError("this process alone cannot read its tokens")

    assert together.help_with(run, {"": fails}) == 1  # a team of one calls itself, with no name
    said = run.helper_error_file(0).read_text()
    assert said == "this process alone cannot read its tokens"


def test_a_model_that_names_no_layers_is_refused():
    model = tiny.make_model("llama-tied")
    model._no_split_modules = None
    with pytest.raises(ModelError, match="LlamaForCausalLM does not say which its layers are"):
        sharding.spread(model, "cpu")
