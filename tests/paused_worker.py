"""A worker that stands still at the first report of a stage, so that a test can kill it there."""

import os
import sys
import time

from grads.jobs.job import Job
from grads.stages import worker
from grads.store.runs import Run


def main() -> int:
    run, stage = Run.open(sys.argv[1]), os.environ["GRADS_TEST_PAUSE"]

    def pause(job: Job) -> None:
        if job.status.stage == stage:
            job._write()
            (run.path / "paused").touch()
            time.sleep(600)

    entered, progressed = Job.stage, Job.progress

    def on_stage(self: Job, name: str, unit: str = "") -> None:
        entered(self, name, unit)
        if stage in ("self-check", "cluster"):  # they report nothing on their way
            pause(self)

    def on_progress(self: Job, *args: object, **kwargs: object) -> None:
        progressed(self, *args, **kwargs)
        if self.status.done > 5:
            pause(self)

    Job.stage, Job.progress = on_stage, on_progress
    return worker.main(run)


if __name__ == "__main__":
    sys.exit(main())
