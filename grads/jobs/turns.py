"""Whose turn it is: the jobs of a folder work one at a time, in the order of their starts.

A job draws a number as it is started: clocks are set, and tell no order. One that waits holds a
lock on its ticket, a file of `.queue` that is named after the number. A ticket that nobody holds is
of a job that was killed: whoever waits behind it removes it.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from grads.errors import RunError, Stopped
from grads.jobs.job import Job
from grads.store.files import read_json, write_json
from grads.text import Written

LOOK_S = 0.5  # between two looks at the queue
WAITS = Written(("waiting for another job to end", "waiting for {number} other jobs to end"))


def draw(root: Path) -> int:
    """The next number of a runs folder, larger than those of all that wait."""
    file = root / ".queue.json"
    with FileLock(root / ".queue.number.lock"):
        last = [_number(path) for path in _tickets(root)]
        with suppress(RunError, KeyError, TypeError, ValueError):  # none yet, or damaged
            last.append(int(read_json(file)["last"]))
        number = max(last, default=0) + 1
        write_json(file, {"last": number})
    return number


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
    return [int(path.name.split("-")[1]) for path in _tickets(root)]


def _number(ticket: Path) -> int:
    return int(ticket.name.split("-")[0].split(".")[0])  # before, a time with two digits


def _tickets(root: Path) -> list[Path]:
    return sorted((root / ".queue").glob("[0-9]*-*-*"))


@contextmanager
def _ticket(job: Job[Any], root: Path) -> Iterator[Path]:
    """The job's place in the queue, held for as long as it waits."""
    queue = root / ".queue"
    queue.mkdir(exist_ok=True)
    number = draw(job.folder.root) if job.status.turn is None else job.status.turn
    path = queue / f"{number:013d}-{job.status.pid:07d}-{secrets.token_hex(2)}"
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
