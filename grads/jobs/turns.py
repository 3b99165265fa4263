"""Whose turn it is: the jobs of a folder work one at a time, in the order of their starts.

A job that waits holds a lock on its ticket, a file of `.queue` that is named after its start. A
ticket that nobody holds is of a job that was killed: whoever waits behind it removes it.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from grads.errors import Stopped
from grads.jobs.job import Job
from grads.text import Written

LOOK_S = 0.5  # between two looks at the queue
WAITS = Written(("waiting for another job to end", "waiting for {number} other jobs to end"))


@contextmanager
def turn(job: Job[Any], root: Path) -> Iterator[None]:
    """Wait until no other job of this folder computes, and none waits for longer."""
    lock = FileLock(root / ".queue.lock")
    with _ticket(job, root) as ticket:
        while True:
            if job.should_stop():
                raise Stopped
            before = _before(ticket)
            one, several = WAITS.texts
            job.status.message = several.format(number=before + 1) if before else one
            if before:
                time.sleep(LOOK_S)
                continue
            with suppress(Timeout):
                lock.acquire(timeout=LOOK_S)
                break
    job.status.message = ""
    try:
        yield
    finally:
        lock.release()


def waiting(root: Path) -> list[int]:
    """The PIDs of the jobs of a folder that wait, in order; some may be gone already."""
    tickets = sorted(path.name for path in (root / ".queue").glob("[0-9]*-*-*"))
    return [int(name.split("-")[1]) for name in tickets]


@contextmanager
def _ticket(job: Job[Any], root: Path) -> Iterator[Path]:
    """The job's place in the queue, held for as long as it waits."""
    queue = root / ".queue"
    queue.mkdir(exist_ok=True)
    started = job.status.process_started or time.time()
    path = queue / f"{started:013.2f}-{job.status.pid:07d}-{secrets.token_hex(2)}"
    with FileLock(path):
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _before(ticket: Path) -> int:
    """How many jobs that were started earlier wait as well; tickets of killed ones go."""
    waiting = 0
    for path in ticket.parent.iterdir():
        if path.name < ticket.name:
            try:
                with FileLock(path, timeout=0):
                    path.unlink(missing_ok=True)
            except Timeout:
                waiting += 1
    return waiting
