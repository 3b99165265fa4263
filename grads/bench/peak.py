"""The most memory that a piece of work takes."""

import ctypes
import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """Largest resident memory inside the block above its beginning, in MB, sampled every 10 ms."""
    gc.collect()
    if sys.platform == "linux":  # give what earlier arms have freed back to the system
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    process, ended = psutil.Process(), threading.Event()
    start = process.memory_info().rss
    peak = {"mb": 0.0}

    def watch() -> None:
        while not ended.wait(0.01):
            peak["mb"] = max(peak["mb"], (process.memory_info().rss - start) / 2**20)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()
