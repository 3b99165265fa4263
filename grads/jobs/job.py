"""A job at work: what it tells the world while it runs."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

import psutil

from grads.errors import RunError, Stopped
from grads.jobs import disk
from grads.jobs.identity import begun
from grads.store.runs import JobFolder

HEARTBEAT_S = 2.0

Folder = TypeVar("Folder", bound=JobFolder, covariant=True)


class Job(Generic[Folder]):
    """What the running stages tell the world: status with heartbeat, metrics, stop requests."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.status = begun(os.getpid(), _drawn(folder))
        self.status.message = ""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._stage_start: tuple[float, float] | None = None

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Write the status every few seconds from a thread: a long step is no death.

        Raises OSError where the last one cannot be written.
        """
        with suppress(OSError):  # the first stage tells of the disk
            self._write()
        thread = threading.Thread(target=self._beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            self.status.heartbeat = time.time()
            self.folder.write_last_status(self.status)

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            with suppress(OSError):  # a full disk must not end the heart while the job goes on
                if self.folder.stop_file.exists() and self.status.state in ("queued", "running"):
                    self.status.state = "stopping"
                self._write()

    def _write(self) -> None:
        with self._lock:
            self.status.heartbeat = time.time()
            self.folder.write_status(self.status)

    def should_stop(self) -> bool:
        """Whether the user has asked the job to stop; raises RunError where its folder is gone."""
        if self.folder.is_gone():
            raise RunError(disk.gone(self.folder))
        return self.folder.stop_file.exists()

    def stage(self, name: str, unit: str = "") -> None:
        """Enter a stage; raises Stopped if asked to."""
        if self.should_stop():
            raise Stopped
        self.status.stage, self.status.unit = name, unit
        self.status.done = self.status.total = 0
        self.status.rate = self.status.eta_s = self.status.left_s = None
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


def _drawn(folder: JobFolder) -> int | None:
    """The number that this start has in the queue; None where it was started by hand."""
    with suppress(OSError):
        status = folder.read_status()
        return status.turn if status.state == "queued" else None
    return None


def _gpu_memory() -> int | None:
    import torch

    return torch.cuda.memory_allocated() if torch.cuda.is_available() else None
