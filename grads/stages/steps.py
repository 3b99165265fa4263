"""A stage of a run at work: announced, timed, and skipped while what it has made holds."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from grads.jobs.job import Job
from grads.store import pipeline
from grads.store.runs import Run


@contextmanager
def making(job: Job[Run], name: str) -> Iterator[bool]:
    """Whether the stage has work to do; if so, it is announced, and what it makes is noted."""
    stage = pipeline.STAGES[name]
    if name not in pipeline.wanted(job.folder) or pipeline.holds(job.folder, stage):
        yield False
        return
    with staged(job, name):
        yield True
        pipeline.record(job.folder, stage)


@contextmanager
def staged(job: Job[Run], name: str) -> Iterator[None]:
    """Announce the stage and add its time to the manifest, attempts summed."""
    job.stage(name, pipeline.STAGES[name].unit)
    started = time.monotonic()
    try:
        yield
    finally:
        seconds = job.folder.read_manifest().seconds
        spent = seconds.get(name, 0.0) + time.monotonic() - started
        job.folder.update_manifest(seconds=seconds | {name: round(spent, 1)})
