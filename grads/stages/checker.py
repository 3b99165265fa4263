"""A process that looks at data on demand, with its libraries and tokenizers loaded already.

The dashboard's server starts it beside itself. It does what drafts ask for, one after the other,
and ends when the server is gone.
"""

import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from grads.config.base import DEMO_MODEL
from grads.errors import GradsError
from grads.jobs.identity import begun, process_of
from grads.jobs.job import Job
from grads.jobs.processes import LETTING_GO_S
from grads.store.folders import Checker, Draft

PAUSE_S = 0.05  # between two looks for a draft that waits


def main(root: Path, server: int) -> int:
    """Serve the drafts of a runs folder as long as the process `server` lives; the exit code."""
    folder = Checker(root)
    folder.path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder.lock_file, timeout=LETTING_GO_S):
            return _serve(Job(folder), server)
    except Timeout:
        return 1  # another one serves


def _serve(job: Job[Checker], server: int) -> int:
    from grads.engine import models  # loads torch and its kin, before a draft needs them
    from grads.stages import worker

    with suppress(GradsError):
        models.load_tokenizer(DEMO_MODEL)
    parent = begun(server)
    with job.beating():
        job.status.state = "running"
        while process_of(parent) is not None:
            for path in job.folder.waiting():
                job.folder.taken(path)
                worker.main(Draft(path), at_once=True)
            time.sleep(PAUSE_S)
        job.status.state = "finished"
    return 0
