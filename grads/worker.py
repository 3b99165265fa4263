"""The job: the only place that orders stages.

    prepare -> warm-up -> self-check -> score -> cluster

Each stage is skipped if its result is there, so a resume goes on where the job ended.
"""

import os
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Generic, TypeVar

import psutil
from filelock import FileLock, Timeout

from grads.errors import GradsError, Stopped
from grads.evaluation_config import EvaluationConfig, TuneConfig
from grads.folders import Draft, Evaluation, TokenRequest
from grads.runs import JobFolder, Status

HEARTBEAT_S = 2.0
OUT_OF_MEMORY = "out of memory: lower --batch-tokens or --max-length"


Folder = TypeVar("Folder", bound=JobFolder, covariant=True)


class Job(Generic[Folder]):
    """What the running stages tell the world: status with heartbeat, metrics, stop requests."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.status = Status(
            pid=os.getpid(), process_started=psutil.Process().create_time(), state="queued"
        )
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._stage_start: tuple[float, float] | None = None

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Write the status every few seconds from a thread: a long step is no death."""
        self._write()
        thread = threading.Thread(target=self._beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            self._write()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            if self.folder.stop_file.exists() and self.status.state in ("queued", "running"):
                self.status.state = "stopping"
            with suppress(OSError):  # a full disk must not end the heart while the job goes on
                self._write()

    def _write(self) -> None:
        with self._lock:
            self.status.heartbeat = time.time()
            self.folder.write_status(self.status)

    def should_stop(self) -> bool:
        """Whether the user has asked the job to stop."""
        return self.folder.stop_file.exists()

    def stage(self, name: str, unit: str = "") -> None:
        """Enter a stage; raises Stopped if asked to."""
        if self.should_stop():
            raise Stopped
        self.status.stage, self.status.unit = name, unit
        self.status.done = self.status.total = 0
        self.status.rate = self.status.eta_s = None
        self._stage_start = None
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        self._write()

    def progress(self, done: int, total: int, left: float = 1.0, work: float | None = None) -> None:
        """`done` of `total` units; for the ETA, the `work` this attempt has done and has left.

        Without `work`, units are the work. Rate and ETA count from the stage's first report.
        """
        now = time.monotonic()
        work, left = (done, total - done) if work is None else (work, left)
        if self._stage_start is None:
            self._stage_start = (now, work)
        start, first = self._stage_start
        if work > first:
            rate = (work - first) / (now - start)
            self.status.rate, self.status.eta_s = rate, left / rate
        self.status.done, self.status.total = done, total

    def metrics(self, **values: Any) -> None:
        """A line of metrics.jsonl, with the stage and the memory in use (bytes)."""
        memory = {"rss": psutil.Process().memory_info().rss, "gpu_mem": _gpu_memory()}
        self.folder.append_metrics(stage=self.status.stage, **values, **memory)


def _gpu_memory() -> int | None:
    import torch

    return torch.cuda.memory_allocated() if torch.cuda.is_available() else None


def main(folder: JobFolder, at_once: bool = False) -> int:
    """Work in a folder until its job is finished, stopped or failed; the process's exit code.

    The job first waits for the other jobs of the runs folder to end, unless it is to start at once.
    """
    try:
        with FileLock(folder.lock_file, timeout=0):
            return _work(Job(folder), at_once)
    except Timeout:
        print("another worker is at work here", flush=True)
        return 1


def _work(job: Job[Any], at_once: bool) -> int:
    with job.beating():
        try:
            with nullcontext() if at_once else turn(job):
                job.status.state = "running"
                _stages(job)
            job.status.state, job.status.eta_s = "finished", None
            return 0
        except Stopped:
            job.status.state, job.status.message = "stopped", "resume it to go on"
            return 0
        except GradsError as error:
            return _failed(job, str(error))
        except MemoryError:
            return _failed(job, OUT_OF_MEMORY)
        except Exception as error:
            traceback.print_exc()
            if "out of memory" in str(error).lower():  # torch has its own, on each device
                return _failed(job, OUT_OF_MEMORY)
            line = (str(error).splitlines() or [""])[0]
            log = job.folder.log_file
            return _failed(job, f"unexpected {type(error).__name__}: {line}; the trace is in {log}")
        finally:
            job.folder.stop_file.unlink(missing_ok=True)


def _stages(job: Job[Any]) -> None:
    """What the folder asks for. Torch and its kin load here, while the heart already beats."""
    if isinstance(job.folder, Evaluation):
        _evaluation_stages(job, job.folder.config())
        return
    from grads import stages

    if isinstance(job.folder, TokenRequest):
        stages.add_token_signals(job)
    elif isinstance(job.folder, Draft):
        stages.check(job)
    else:
        stages.run_all(job)


def _evaluation_stages(job: Job[Any], config: EvaluationConfig | TuneConfig) -> None:
    if isinstance(config, TuneConfig):
        from grads import tuning_stages

        tuning_stages.tune(job, config)
    else:
        from grads import evaluation_stages

        evaluation_stages.evaluate(job, config)


def _failed(job: Job[Any], error: str) -> int:
    print(f"failed: {error}", flush=True)
    job.status.state, job.status.error, job.status.eta_s = "failed", error, None
    return 1


@contextmanager
def turn(job: Job[Any]) -> Iterator[None]:
    """Wait until no other job of this runs folder computes."""
    lock = FileLock(job.folder.root / ".queue.lock")
    job.status.message = "waiting for another job to end"
    while True:
        if job.should_stop():
            raise Stopped
        with suppress(Timeout):
            lock.acquire(timeout=0.5)
            break
    job.status.message = ""
    try:
        yield
    finally:
        lock.release()
