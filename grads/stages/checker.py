"""A process that looks at data on demand, with its libraries and tokenizers loaded already.

The dashboard's server starts it beside itself. It does what drafts ask for, one after the other,
and ends when the server is gone.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from grads.config.base import DEMO_MODEL
from grads.errors import GradsError
from grads.jobs.job import Job
from grads.store.folders import Checker, Draft

PAUSE_S = 0.05  # between two looks for a draft that waits


def main(root: Path, server: int) -> int:
    """Serve the drafts of a runs folder as long as the process `server` lives; the exit code."""
    folder = Checker(root)
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.lock_file, timeout=0):
            return _serve(Job(folder), server)
    except Timeout:
        return 1  # another one serves


def _serve(job: Job[Checker], server: int) -> int:
    from grads.engine import models  # loads torch and its kin, before a draft needs them
    from grads.stages import worker

    with suppress(GradsError):
        models.load_tokenizer(DEMO_MODEL)
    started = _started(server)
    with job.beating():
        job.status.state = "running"
        while started is not None and _started(server) == started:
            for path in job.folder.waiting():
                worker.main(Draft(path), at_once=True)
                job.folder.done(path)
            time.sleep(PAUSE_S)
        job.status.state = "finished"
    return 0


def _started(process: int) -> float | None:
    """When the process began; None where there is none. A PID alone may be another's by now."""
    try:
        found = psutil.Process(process)
        ended = found.status() == psutil.STATUS_ZOMBIE or process == os.getpid()
        return None if ended else float(found.create_time())
    except psutil.Error:
        return None
