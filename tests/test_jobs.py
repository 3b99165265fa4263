"""Whether a job is at work: told by its process, whatever the clocks and heartbeats say."""

import os
import threading
import time

import psutil
import pytest
from filelock import FileLock
from run_dirs import dead_pid

from grads import api
from grads.config.run import RunConfig
from grads.errors import RunError
from grads.jobs import identity
from grads.jobs import processes as jobs
from grads.stages import checker, worker
from grads.store.folders import Checker
from grads.store.runs import Run, Status

LONG_AGO = 10 * jobs.STALE_S  # seconds


@pytest.fixture
def run(tmp_path):
    return Run.create(RunConfig.parse({"dataset": "data.jsonl"}), tmp_path / "run")


def write(run, status, silent=0.0, **values):
    """A job's status, with a heartbeat so many seconds ago."""
    heartbeat = {"state": "running", "heartbeat": time.time() - silent}
    run.write_status(status.model_copy(update=heartbeat | values))


@pytest.fixture
def another_machine(monkeypatch):
    """Calls it from there: processes of this one are out of sight."""

    def go():
        monkeypatch.setattr(identity, "machine", lambda: "another boot")

    return go


def test_a_clock_that_is_set_ends_no_job(run, monkeypatch):
    """The system computes the start of a process from the clock, so it moves with it."""
    write(run, identity.begun(os.getpid()))
    began = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: began(self) + 5.0)
    assert jobs.observe(run).state == "running"
    with pytest.raises(RunError, match="has a job at work: stop it first"):
        api.delete_run(run)
    assert run.config_file.exists()


@pytest.mark.parametrize("silent", [LONG_AGO, -LONG_AGO])
def test_a_job_that_was_frozen_is_at_work(run, silent):
    """It slept, its disk stalled, or the clock was set by minutes: the page says how long."""
    write(run, identity.begun(os.getpid()), silent)
    status = jobs.observe(run)
    assert status.state == "running"
    assert status.message.startswith("no sign of life for 60") == (silent > 0)
    with pytest.raises(RunError, match="has a job at work: stop it first"):
        api.delete_run(run)
    assert run.config_file.exists()


def test_a_reused_number_is_not_the_job(run):
    """The process lives, but began at another tick."""
    begun = identity.begun(os.getpid())
    write(run, begun.model_copy(update={"process_ticks": begun.process_ticks - 1}))
    status = jobs.observe(run)
    assert status.state == "interrupted"
    assert "resume" in status.error
    write(run, identity.begun(dead_pid()))
    assert jobs.observe(run).state == "interrupted"


def test_a_status_of_before_is_read(run):
    """It knows its process by the time of its start alone."""
    began = psutil.Process().create_time()
    write(run, Status(pid=os.getpid(), process_started=began), silent=LONG_AGO)
    assert jobs.observe(run).state == "running"
    write(run, Status(pid=os.getpid(), process_started=1.0))
    assert jobs.observe(run).state == "interrupted"
    write(run, Status(pid=dead_pid(), process_started=1.0))
    assert jobs.observe(run).state == "interrupted"


def test_from_another_machine_the_heartbeat_tells(run, another_machine):
    """Its number means nothing there, living or not."""
    mine = identity.begun(os.getpid())
    another_machine()
    write(run, mine, silent=1.0)
    assert jobs.observe(run).state == "running"
    with pytest.raises(RunError, match="end it on the machine where it runs"):
        jobs.stop(run, grace_s=0.5)
    assert run.read_status().state == "running", "that it was stopped is not known"
    assert run.stop_file.exists()
    write(run, mine, silent=LONG_AGO)
    assert jobs.observe(run).state == "interrupted"


def test_the_lock_keeps_a_silent_job_of_another_machine_from_deletion(run, another_machine):
    """Seen from there it is gone, but it holds its lock."""
    mine = identity.begun(os.getpid())
    another_machine()
    write(run, mine, silent=LONG_AGO)
    with FileLock(run.lock_file), pytest.raises(RunError, match="has a job at work"):
        api.delete_run(run)
    assert run.config_file.exists()
    api.delete_run(run)
    assert not run.path.exists()


@pytest.mark.parametrize("who", ["a worker", "a checker", "who deletes"])
def test_a_lock_that_a_killed_process_still_holds_is_waited_for(run, monkeypatch, who):
    """The last of its threads may be there for a while when it can be seen no more."""
    work = {
        "a worker": lambda: worker.main(run, at_once=True),
        "a checker": lambda: checker.main(run.root, os.getpid()),
        "who deletes": lambda: api.delete_run(run),
    }[who]
    monkeypatch.setattr(worker, "_stages", lambda job: None)
    monkeypatch.setattr(checker, "_serve", lambda job, server: 0)
    folder = Checker(run.root) if who == "a checker" else run
    folder.path.mkdir(exist_ok=True, parents=True)
    held = FileLock(folder.lock_file, thread_local=False)
    held.acquire()
    let_go = threading.Timer(0.5, held.release)
    let_go.start()
    assert work() in (0, None)
    let_go.join()


@pytest.mark.usefixtures("own_processes")
def test_a_job_just_started_is_known_by_its_process(run, monkeypatch):
    """The first status names it, so that neither a set clock nor a slow start lose it."""
    started = []
    popen = jobs.subprocess.Popen

    def sleeper(command, **kwargs):
        command = [command[0], "-c", "import time; time.sleep(600)"]
        started.append(popen(command, **kwargs))
        return started[-1]

    monkeypatch.setattr(jobs.subprocess, "Popen", sleeper)
    jobs.spawn(run, ["worker"])
    try:
        write(run, run.read_status(), silent=LONG_AGO, state="queued")
        assert jobs.observe(run).state == "queued"
    finally:
        started[0].kill()
        started[0].wait()
    assert jobs.observe(run).state == "interrupted"


def test_before_there_is_a_process_a_fresh_word_counts(run):
    run.write_status(identity.begun(None))
    assert jobs.observe(run).state == "queued"
    write(run, identity.begun(None), silent=LONG_AGO, state="queued")
    assert jobs.observe(run).state == "interrupted"
