"""Jobs of one runs folder: one works, the others wait in the order of their starts."""

import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import psutil
import pytest
from chain import PATIENCE, ROOT, config_for, save_tiny_model, until, wait_for, write_data

from grads import api
from grads.config.run import RunConfig
from grads.errors import Stopped
from grads.jobs import identity, turns
from grads.jobs import processes as jobs
from grads.jobs.job import Job
from grads.store.runs import ACTIVE, Run

STARTS = 5


class Waiting(threading.Thread):
    """A job that waits for its turn, takes it for as long as it may, and notes that it had it."""

    def __init__(self, root, name, turn, had):
        super().__init__(daemon=True)
        self.job = Job(Run.create(RunConfig(dataset="x.jsonl"), root / name))
        self.job.status.turn = turn
        self.had, self.may_end = had, threading.Event()
        self.start()

    def run(self):
        try:
            with turns.turn(self.job, self.job.folder.root):
                self.had.append(self.job.folder.id)
                assert self.may_end.wait(PATIENCE)
        except Stopped:
            self.had.append(f"{self.job.folder.id} stopped")

    def waits(self, jobs_before):
        told = f"{jobs_before} other jobs" if jobs_before > 1 else "another job"
        until(lambda: self.job.status.message == f"waiting for {told} to end", told)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(turns, "LOOK_S", 0.02)


def end(one, had):
    """Let the one that has its turn end; until the next one has it."""
    before = len(had)
    one.may_end.set()
    until(lambda: len(had) > before, "the next turn")


def test_the_queue_follows_the_starts(tmp_path):
    """Whatever the order in which the processes come to ask."""
    had = []
    first = Waiting(tmp_path, "first", 1, had)
    until(lambda: had == ["first"], "the first turn")
    third = Waiting(tmp_path, "third", 3, had)
    third.waits(1)
    second = Waiting(tmp_path, "second", 2, had)
    third.waits(2)
    second.waits(1)
    end(first, had)
    assert had == ["first", "second"]
    third.waits(1)
    end(second, had)
    third.may_end.set()
    third.join(PATIENCE)
    assert had == ["first", "second", "third"]
    assert list((tmp_path / ".queue").iterdir()) == []
    assert third.job.status.message == ""


@pytest.mark.job
def test_a_clock_that_is_set_back_changes_no_order(tmp_path, monkeypatch):
    """Jobs draw numbers as they are started, and take them along to the queue."""
    started = {}

    def spawn(folder, command, *, processes, turn):
        folder.write_status(identity.begun(None, turn))
        started[folder.id] = Job(folder).status.turn

    monkeypatch.setattr(jobs, "spawn", spawn)
    for name, now in (("first", 2e9), ("second", 1e9)):
        with monkeypatch.context() as clock:
            clock.setattr(time, "time", lambda now=now: now)
            jobs.start(Run.create(RunConfig(dataset="x.jsonl"), tmp_path / name))
    assert started["first"] < started["second"]
    (tmp_path / ".queue.json").write_text("{")
    ticket = tmp_path / ".queue" / f"{7:013d}-0000001-dead"
    ticket.parent.mkdir(exist_ok=True)
    ticket.touch()
    assert turns.draw(tmp_path) == 8, "behind all that wait, whatever became of the last number"


def test_a_killed_or_stopped_one_holds_nobody_up(tmp_path):
    """What a process held is free once it is killed; its ticket stays behind until it is seen."""
    had = []
    first = Waiting(tmp_path, "first", 1, had)
    until(lambda: had == ["first"], "the first turn")
    code = (
        "import sys, time; from pathlib import Path; from filelock import FileLock;"
        "lock = FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True); time.sleep(600)"
    )
    ticket = tmp_path / ".queue" / f"{2:013d}-0000001-dead"
    killed = subprocess.Popen([sys.executable, "-c", code, ticket], stdout=subprocess.PIPE)
    killed.stdout.read(1)
    stopped = Waiting(tmp_path, "stopped", 3, had)
    last = Waiting(tmp_path, "last", 4, had)
    last.waits(3)
    killed.kill()
    killed.wait(PATIENCE)
    last.waits(2)
    assert not ticket.exists()
    stopped.job.folder.stop_file.touch()
    until(lambda: had == ["first", "stopped stopped"], "the stop")
    last.waits(1)
    end(first, had)
    assert had[-1] == "last"
    last.may_end.set()
    last.join(PATIENCE)


# -- by the command line


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    save_tiny_model(folder / "model")
    write_data(folder / "data.jsonl")
    values = config_for(folder, warmup="none").model_dump_json(exclude_none=True)
    (folder / "run.yaml").write_text(values)
    return folder


def started(place, folder):
    """`grads run` in the background, as a person types it."""
    return subprocess.Popen(
        [sys.executable, "-m", "grads", "run", "--config", place / "run.yaml", "--run-dir", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def ended_well(process):
    _, error = process.communicate(timeout=2 * PATIENCE)
    assert process.returncode == 0, error


@pytest.mark.job
def test_five_starts_at_once_are_five_jobs_one_after_the_other(place):
    root = place / "five"
    runs = [Run(root / f"run{i}") for i in range(STARTS)]
    commands = [started(place, run.path) for run in runs]
    most_at_work, most_waiting, order = 0, 0, []

    def all_ended():
        nonlocal most_at_work, most_waiting
        states = [jobs.observe(run).state if run.status_file.exists() else "" for run in runs]
        most_at_work = max(most_at_work, states.count("running"))
        most_waiting = max(most_waiting, states.count("queued"))
        for run, state in zip(runs, states, strict=True):
            if state == "running" and run.id not in order:
                order.append(run.id)
        return all(state == "finished" for state in states)

    until(all_ended, "the end of all", seconds=3 * PATIENCE)
    for process in commands:
        ended_well(process)
    assert most_at_work == 1
    assert most_waiting >= STARTS - 1, "they were there at once"
    assert len(order) == STARTS
    assert {row.status.state for row in api.summaries(str(root))} == {"finished"}
    assert [path.name for path in (root / ".queue").iterdir()] == []


@pytest.mark.job
def test_five_starts_of_one_run_are_one_job(place):
    run = Run(place / "one" / "run")
    commands, seen = [started(place, run.path) for _ in range(STARTS)], set()

    def ended():
        if run.status_file.exists():
            seen.add(run.read_status().pid)
        return all(process.poll() is not None for process in commands)

    until(ended, "the end of all", seconds=2 * PATIENCE)
    for process in commands:
        ended_well(process)
    assert len(seen - {None}) == 1
    assert run.log_file.read_text().count(" score\n") == 1


@pytest.mark.job
def test_a_second_worker_is_refused_and_harms_nothing(place):
    """The second one is started by force, past all that looks whether one is at work."""
    run = Run.create(config_for(place, epochs=60.0), place / "two" / "run")
    api.start_run(run)
    until(lambda: run.read_status().done > 2, "a few steps", during=lambda: at_work(run))
    before = run.read_status()
    second = subprocess.run(
        [sys.executable, "-m", "grads", "worker", str(run.path), "--at-once"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=PATIENCE,
    )
    assert (second.returncode, second.stdout) == (1, "another worker is at work here\n")
    now = jobs.observe(run)
    assert (now.state, now.pid) == ("running", before.pid)
    assert wait_for(run, "finished", "failed").state == "finished"
    steps = [row["step"] for row in run.read_metrics() if row["stage"] == "warm-up"]
    assert steps == sorted(set(steps))


@pytest.mark.job
def test_a_killed_job_lets_the_next_one_work(place):
    """SIGKILL for the one at work and for the first that waits: the second that waits is next."""
    root = place / "killed"
    first, *waiting = (
        Run.create(config_for(place, epochs=500.0), root / f"run{i}") for i in range(3)
    )
    with ExitStack() as after:
        for run in (first, *waiting):
            api.start_run(run)
            after.callback(lambda run=run: at_work(run) and jobs.stop(run, grace_s=5))
            there = lambda run=run: run.read_status().message != "starting"  # noqa: E731
            until(there, "its place in the queue", during=lambda run=run: at_work(run))
        wait_for(first, "running")
        until(lambda: "2 other jobs" in jobs.observe(waiting[1]).message, "the queue")
        for run in (waiting[0], first):
            psutil.Process(jobs.observe(run).pid).kill()
        wait_for(waiting[1], "running")
        states = {row.id: row.status.state for row in api.summaries(str(root))}
        assert states == {"run0": "interrupted", "run1": "interrupted", "run2": "running"}
        assert time.time() - jobs.observe(waiting[1]).heartbeat < PATIENCE


def at_work(run):
    return jobs.observe(run).state in ACTIVE
