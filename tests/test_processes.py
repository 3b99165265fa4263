"""One run by several processes, as torchrun and accelerate start them: the same scores as alone."""

import subprocess
import sys
from collections import Counter
from functools import partial

import numpy as np
import psutil
import pytest
from chain import ROOT, config_for, gone, save_tiny_model, until, wait_for, write_data
from forked import Forks
from test_faults import Undisturbed, resume
from test_probes import write_set

from grads import api
from grads.api import ConfigError, ProbeRequest
from grads.cli.dashboard import free_port
from grads.cli.terminal import follow
from grads.jobs import processes as jobs
from grads.store.columns import MAP
from grads.store.files import open_table

pytestmark = pytest.mark.job
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node")
ACCELERATE = (
    *("accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--mixed_precision"),
    *("no", "--dynamo_backend", "no", "--num_processes"),
)
VICTIMS = ("leader", "other", "all")  # of a random kill; "all": the launcher too


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    save_tiny_model(folder / "model")
    write_data(folder / "data.jsonl")
    write_set(folder / "good.jsonl", 5, 1)
    return folder


def made(place, name, **values):
    values |= {"targets": {"good": str(place / "good.jsonl")}, "extras": ("question_gain",)}
    return api.create_run(config_for(place, **values), str(place / "runs" / name))


def launch(launcher, size, *arguments):
    """Start a command of ours by a launcher, `size` processes of it."""
    command = [sys.executable, "-m", *launcher, str(size), "-m", "grads", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=500)
    return done.returncode, done.stdout + done.stderr


def finished(run):
    api.start_run(run)
    assert wait_for(run, "finished", "failed").error is None
    return run


@pytest.fixture(scope="module")
def alone(place):
    return finished(made(place, "alone"))


def assert_same(mine, theirs):
    """Every number of every sample, and what the probe set and the extras say of it."""
    for file in ("scores_file", "extras_file", "features_file"):
        a, b = (open_table(getattr(run, file)).read() for run in (mine, theirs))
        # Of the map alone no place is sure: t-SNE makes much of a feature's last digit.
        for name in set(a.column_names) - {"feature", *MAP}:
            np.testing.assert_allclose(
                a[name].to_numpy(zero_copy_only=False).astype(float),
                b[name].to_numpy(zero_copy_only=False).astype(float),
                rtol=1e-4,
                atol=1e-5,
                err_msg=name,
            )
    a, b = (open_table(run.probe_file("good")).read() for run in (mine, theirs))
    for name in a.column_names:
        np.testing.assert_allclose(a[name].to_numpy(), b[name].to_numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("launcher", "size"), [(TORCHRUN, 3), (ACCELERATE, 2)])
def test_launched_processes_give_the_scores_of_one(place, alone, launcher, size):
    """Three share batches of four: the last process now and then has nothing to do."""
    run = made(place, f"{launcher[0]}-{size}")
    code, said = launch(launcher, size, "resume", "--run-dir", run.path)
    assert code == 0, said
    assert jobs.observe(run).state == "finished"
    assert run.read_manifest().device.startswith(f"{size} x cpu")
    assert_same(run, alone)
    assert not list(run.path.glob("process-*"))


def test_two_machines_give_the_scores_of_one(place, alone):
    """As far as one can be two: an agent of torchrun's for each, that meet at an address."""
    run, port = made(place, "two-machines"), free_port()
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node"]
    agent += ["1", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}"]
    command = [*agent, "-m", "grads", "resume", "--run-dir", str(run.path)]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    agents = [subprocess.Popen(command, cwd=ROOT, **output) for _ in range(2)]
    said = [one.communicate(timeout=500)[0] for one in agents]
    assert [one.returncode for one in agents] == [0, 0], said
    assert jobs.observe(run).state == "finished"
    assert run.read_manifest().device.startswith("2 x cpu")
    assert_same(run, alone)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_processes_of_the_settings_read_the_warm_up_as_one_does(place, kind):
    settings = {"when": "during", "warmup": kind, "lr": 1e-3}
    alone = finished(made(place, f"during-{kind}", **settings))
    two = finished(made(place, f"during-{kind}-two", processes=2, **settings))
    assert_same(two, alone)
    assert two.read_manifest().device.startswith("2 x cpu")


def launched(run):
    """The processes of a run at work, in the order in which its launcher has started them."""
    leader = psutil.Process(run.read_status().pid)
    return sorted(leader.parent().children(), key=lambda one: one.pid)


def begin(run, size):
    """Have so many processes work at a run, whatever its settings say."""
    run.stop_file.unlink(missing_ok=True)
    jobs.spawn(run, ["worker", str(run.path)], processes=size)


def resumed(run, size):
    begin(run, size)
    assert wait_for(run, "finished", "failed").error is None
    return run


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.usefixtures("own_processes")
def test_the_end_of_one_is_the_end_of_all_and_a_resume_completes_it(place, rank):
    """By SIGKILL in the warm-up; another number of processes goes on with what is there."""
    run = made(place, f"killed-{rank}", processes=2, epochs=30, lr=1e-5)
    api.start_run(run)
    until(lambda: run.metrics_file.exists() and run.read_metrics(), "a step of the warm-up")
    processes = launched(run)
    assert len(processes) == 2
    processes[rank].kill()
    status = wait_for(run, "failed", "interrupted")
    until(lambda: all(map(gone, processes)), "the end of all processes")
    if rank == 1:  # a leader that is killed can say no more
        assert status.state == "failed"
        assert "one of the run's processes has ended: resume it" in status.error
    resumed(run, 3)
    assert run.read_manifest().counts.usable == len(open_table(run.samples_file).read())


@pytest.mark.full
def test_killed_at_random_moments_and_resumed_by_any_number(place, full):
    """The leader, another one, or all with their launcher; what was finished is not made again."""
    wanted, rng = (30 if full else 2), np.random.default_rng(2)
    killed = Counter()
    with Forks() as forks:
        run = made(place, "undisturbed")
        whole = Undisturbed(run, forks.together(run.path, 2)["changes"])
        for number, (after, delay) in enumerate(whole.moments(2, 2 * wanted)):
            if killed.total() == wanted:
                break
            victim, size = str(rng.choice(VICTIMS)), int(rng.integers(1, 4))
            told = f"{victim}, change {after} {whole.changes[after - 1]}, {delay:.2f} s; by {size}"
            run = made(place, f"random-{number}")
            done = forks.together(run.path, 2, after=after, delay=delay, victim=victim)
            assert done["code"] in (0, 1, -9), told
            if jobs.observe(run).state != "finished":  # it may have come too late
                again = partial(forks.together, processes=size)
                resume(again, run, done, told, ends=("interrupted", "failed"))
                killed[victim, done["changes"][-1][0] or "the start"] += 1
            assert jobs.observe(run).state == "finished", told
            assert_same(run, whole.folder)
            print(f"{number}: {told}", flush=True)
    print(f"two processes: {killed.total()} kills, last seen in {dict(killed)}")
    assert killed.total() == wanted


@pytest.mark.usefixtures("own_processes")
def test_a_stop_reaches_all(place):
    run = made(place, "stopped", processes=2, epochs=30, lr=1e-5)
    api.start_run(run)
    until(lambda: run.metrics_file.exists() and run.read_metrics(), "a step of the warm-up")
    processes = launched(run)
    assert api.stop_run(run).state == "stopped"
    until(lambda: all(map(gone, processes)), "the end of all processes")
    assert list(run.checkpoints.glob("checkpoint-*"))


def test_what_one_process_finds_wrong_ends_the_run_with_its_reason(place):
    """A file that only the second process cannot read."""
    run = made(place, "reason", processes=2, epochs=30, lr=1e-5)
    run.helper_error_file(1).write_text("of an earlier attempt")
    api.start_run(run)
    until(lambda: run.metrics_file.exists() and run.read_metrics(), "a step of the warm-up")
    run.helper_error_file(1).write_text("its GPU fell off the bus")
    launched(run)[1].kill()
    status = wait_for(run, "failed", "interrupted")
    assert status.error == "process 1 of the run has failed: its GPU fell off the bus"


def test_a_launched_run_needs_its_folder(place):
    code, said = launch(TORCHRUN, 2, "run", "--dataset", place / "data.jsonl")
    assert code != 0
    assert "give its --run-dir to all of them" in said


def test_a_launched_run_is_made_by_the_first(place):
    """From the very command line, data set and all."""
    run_dir, data = place / "runs" / "made", place / "data.jsonl"
    settings = ("--model", place / "model", "--max-length", 64, "--batch-tokens", 128)
    code, said = launch(TORCHRUN, 2, "run", "--dataset", data, "--run-dir", run_dir, *settings)
    assert code == 0, said
    assert (run_dir / "scores.parquet").exists()


def test_only_a_run_is_made_by_several(place, monkeypatch):
    """Other jobs say so at once, in every process."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    request = ProbeRequest(made(place, "asked"))
    with pytest.raises(ConfigError, match="work at runs alone"):
        follow(request)
