"""A job is a detached process, its run directory is the channel: start, observe, stop."""

import os
import subprocess
import sys
import time
from contextlib import suppress

import psutil
from filelock import FileLock

from grads.errors import RunError
from grads.store.runs import ACTIVE, JobFolder, Status

STALE_S = 60.0  # a heartbeat older than this is a dead job's
LOOK_S = 0.2  # between two looks at a job that is waited for
GRACE_S = 60.0  # for a job to stop by itself
TERMINATE_S = 5.0  # from asking the process tree to end to killing it
# Lets glibc take large blocks as huge pages where Linux allows it: a training step on a CPU asks
# for hundreds of megabytes each time, and is 1.2 times as fast with them. Others ignore it.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def start(folder: JobFolder, at_once: bool = False) -> bool:
    """Start the folder's worker unless one is at work; whether this call started it.

    A double click or a second tab finds the first one's job and leaves it alone. The worker
    waits for other jobs of the runs folder to end, unless it is to start at once.
    """
    with FileLock(folder.path / ".start.lock"):
        if observe(folder).state in ACTIVE:
            return False
        folder.stop_file.unlink(missing_ok=True)
        folder.write_status(Status(heartbeat=time.time(), message="starting"))
        spawn(folder, ["worker", str(folder.path), *(["--at-once"] if at_once else [])])
        return True


def spawn(folder: JobFolder, command: list[str]) -> None:
    """A detached process of this program that writes into the folder's log."""
    with folder.log_file.open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "grads", *command],
            start_new_session=True,
            env=HUGE_PAGES | os.environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def observe(folder: JobFolder) -> Status:
    """The run's status, checked against the process: a job that is gone is `interrupted`."""
    status = folder.read_status()
    if status.state in ACTIVE and not _at_work(status):
        status.state = "interrupted"
        status.rate = status.eta_s = None
        status.error = "its process is gone: resume it to go on from the last finished part"
    return status


def wait(folder: JobFolder) -> Status:
    """The job's status once it has ended; raises RunError unless it has finished its work."""
    while (status := observe(folder)).state in ACTIVE:
        time.sleep(LOOK_S)
    if status.state != "finished":
        why = status.error or status.message or "no reason is known"
        raise RunError(f"{folder.path} is {status.state}: {why}")
    return status


def stop(folder: JobFolder, grace_s: float = GRACE_S) -> Status:
    """Ask the job to stop, then terminate and at last kill its process tree.

    Returns when nothing of it runs any more; what was finished stays for a resume. Raises
    RunError if there is no job to stop.
    """
    status = observe(folder)
    if status.state not in ACTIVE:
        raise RunError(f"{folder.id} is {status.state}: there is no job to stop")
    folder.stop_file.touch()
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline:
        status = observe(folder)
        if status.state not in ACTIVE:
            return status
        time.sleep(LOOK_S)
    process = process_of(status)
    if process is not None:
        _end_tree(process)
    status = folder.read_status()
    if status.state in ACTIVE:
        status.state, status.rate, status.eta_s = "stopped", None, None
        status.message = "stopped by force: resume it to go on from the last finished part"
        folder.write_status(status)
    return status


def _end_tree(process: psutil.Process) -> None:
    tree = [process]
    with suppress(psutil.NoSuchProcess):
        tree += process.children(recursive=True)
    for member in tree:
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    _, alive = psutil.wait_procs(tree, timeout=TERMINATE_S)
    for member in alive:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(alive, timeout=TERMINATE_S)


def _at_work(status: Status) -> bool:
    if status.heartbeat is None or time.time() - status.heartbeat > STALE_S:
        return False
    return status.pid is None or process_of(status) is not None  # no PID yet: just started


def process_of(status: Status) -> psutil.Process | None:
    """The job's living process: its PID and its start time both match; None where it is gone."""
    if status.pid is None or status.pid < 2:
        return None
    try:
        process = psutil.Process(status.pid)
        same = abs(process.create_time() - (status.process_started or 0.0)) < 1.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None
