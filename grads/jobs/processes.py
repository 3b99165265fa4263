"""A job is a detached process, its run directory is the channel: start, observe, stop."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

import psutil
from filelock import FileLock, Timeout

from grads.errors import RunError
from grads.jobs import disk
from grads.jobs.identity import begun, process_of, visible
from grads.jobs.turns import draw
from grads.store.runs import ACTIVE, JobFolder, Status

STALE_S = 60.0  # without a heartbeat: worth telling, and dead where no process can be seen
LOOK_S = 0.2  # between two looks at a job that is waited for
GRACE_S = 60.0  # for a job to stop by itself
# Of a killed process nothing is to be seen any more while the last of its threads still holds what
# it had locked: for up to half a second on a busy machine.
LETTING_GO_S = 3.0
TERMINATE_S = 5.0  # from asking the process tree to end to killing it
# Lets glibc take large blocks as huge pages where Linux allows it: a training step on a CPU asks
# for hundreds of megabytes each time, and is 1.2 times as fast with them. Others ignore it.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def start(folder: JobFolder, at_once: bool = False) -> bool:
    """Start the folder's worker unless one is at work; whether this call started it.

    A double click or a second tab finds the first one's job and leaves it alone. The worker
    waits for other jobs of the runs folder to end, unless it is to start at once. Raises RunError
    where the folder is gone, or its disk takes no status.
    """
    try:
        with folder.held(folder.start_lock):  # a worker waits for it before it says anything
            if observe(folder).state in ACTIVE:
                return False
            folder.stop_file.unlink(missing_ok=True)
            worker = ["worker", str(folder.path), *(["--at-once"] if at_once else [])]
            spawn(
                folder,
                worker,
                processes=int(folder.config_values().get("processes", 1)),
                turn=draw(folder.root),
            )
            return True
    except OSError as error:
        raise RunError(disk.reason(error, folder) or f"no job can start: {error}") from None


def spawn(
    folder: JobFolder, command: list[str], *, processes: int = 1, turn: int | None = None
) -> None:
    """A detached process of this program, noted in the folder's status; it writes into its log.

    `turn` is its number in the queue, drawn when it gets there unless it is given.
    Of several, torchrun is that process, until the first of those that it starts is noted.
    """
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    threads = max((os.cpu_count() or 1) // processes, 1)
    own = HUGE_PAGES if processes == 1 else HUGE_PAGES | {"OMP_NUM_THREADS": str(threads)}
    folder.write_status(begun(None, turn))  # where that cannot be written, nothing is to start
    with folder.log_file.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *(launcher if processes > 1 else ()), "grads", *command],
            start_new_session=True,
            env=own | os.environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    folder.write_status(begun(process.pid, turn))


def become(folder: JobFolder) -> NoReturn:
    """Turn this process, one of several that a launcher has started, into a worker of the job."""
    os.execv(sys.executable, [sys.executable, "-m", "grads", "worker", str(folder.path)])


def observe(folder: JobFolder) -> Status:
    """The run's status, checked against the process: a job that is gone is `interrupted`.

    A living process is at work however long it is silent: it may be frozen, or its disk stalled.
    Its heartbeat decides only where no process can be seen: on another machine, or not begun yet.
    """
    status = folder.read_status()
    if status.state not in ACTIVE:
        return status
    silent = time.time() - (status.heartbeat or 0.0)
    alive = process_of(status) is not None
    if alive and silent > STALE_S and status.state != "queued":  # what waits may be silent
        status.message = f"no sign of life for {silent:.0f} s, but its process is there"
    if alive or (not visible(status) and silent <= STALE_S):
        return status
    status.state = "interrupted"
    status.rate = status.eta_s = status.left_s = None
    found = disk.trouble(folder) or "resume it to go on from the last finished part"
    status.error = f"its process is gone: {found}"
    return status


@contextmanager
def at_rest(folder: JobFolder) -> Iterator[None]:
    """No job begins in the folder meanwhile; raises RunError where one is at work.

    The lock that a worker holds tells what a status may not: a file system keeps it for all who
    use it, and it needs no heartbeat.
    """
    busy = RunError(f"{folder.path} has a job at work: stop it first")
    with FileLock(folder.start_lock):
        if observe(folder).state in ACTIVE:
            raise busy
        try:
            lock = FileLock(folder.lock_file).acquire(timeout=LETTING_GO_S)
        except Timeout:
            raise busy from None
        with lock:
            yield


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
    RunError if there is no job to stop, or it runs on another machine and has not stopped.
    """
    status = observe(folder)
    if status.state not in ACTIVE:
        raise RunError(f"{folder.id} is {status.state}: there is no job to stop")
    try:
        folder.stop_file.touch()
    except OSError:  # a full disk: then only force is left
        grace_s = 0.0
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline:
        status = observe(folder)
        if status.state not in ACTIVE:
            return status
        time.sleep(LOOK_S)
    if not visible(status):
        raise RunError(
            f"{folder.id} was asked to stop and has not yet, and its process cannot be seen from"
            " here: wait, or end it on the machine where it runs"
        )
    process = process_of(status)
    if process is not None:
        _end_tree(process)
    status = folder.read_status()
    if status.state in ACTIVE:
        status.state = "stopped"
        status.rate = status.eta_s = status.left_s = None
        status.message = "stopped by force: resume it to go on from the last finished part"
        with suppress(OSError):  # on a full disk it counts as interrupted, which it is
            folder.write_last_status(status)
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
