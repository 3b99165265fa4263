"""The example of the Python API, on a tiny model; and waiting for a job, which it does."""

import os
import subprocess
import sys
import threading

import pytest
from chain import ROOT, save_tiny_model, write_data
from run_dirs import run_in, set_state

from grads import api
from grads.errors import RunError


@pytest.mark.job
def test_the_example_chooses_a_tenth(tmp_path):
    """The rows it writes are lines of the source, and those of the selection it saved."""
    save_tiny_model(tmp_path / "model")
    write_data(tmp_path / "data.jsonl")
    example = [sys.executable, str(ROOT / "examples" / "choose.py")]
    done = subprocess.run(
        [*example, "data.jsonl", "tenth.jsonl", "model"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "53 samples scored" in done.stdout
    assert "5 rows written" in done.stdout
    source = (tmp_path / "data.jsonl").read_bytes().splitlines()
    written = (tmp_path / "tenth.jsonl").read_bytes().splitlines()
    (run,) = api.list_runs(tmp_path / "runs")
    kept = api.load_pool(run).kept("tenth")
    assert written == [source[i] for i in api.load_pool(run).scores.sample_id[kept]]


def test_waiting_ends_with_the_job(tmp_path):
    run = run_in(tmp_path, "running")
    timer = threading.Timer(0.5, set_state, (run, "finished"))
    timer.start()
    assert api.wait(run).state == "finished"
    timer.join()


@pytest.mark.parametrize(
    ("state", "why"),
    [("failed", "lower --lr"), ("interrupted", "its process is gone"), ("stopped", "stopped")],
)
def test_waiting_for_a_job_that_does_not_finish_says_why(tmp_path, state, why):
    with pytest.raises(RunError, match=why):
        api.wait(run_in(tmp_path, state))
