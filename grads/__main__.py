"""`python -m grads`: the commands, and the worker that jobs start.

Their libraries map memory as they load, more with every core, of which they use little. Where they
do not get it some end in a trace, SciPy asks for ever and Arrow's threads end the process, so it is
asked for here first.
"""

import os
import sys
from mmap import mmap

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
# Bytes, as measured with exports, which load the most. A core's are a stack of a thread of Arrow's,
# and of each OpenBLAS, which have 64 threads at most, another stack and a buffer.
MAPPED = (640 + 8 * CORES + 82 * min(CORES, 64)) * 2**20
try:
    mmap(-1, MAPPED).close()
except OSError:
    told = f"out of memory: to start takes {MAPPED >> 20:,} MB of addresses with {CORES} cores"
    sys.exit(f"error: {told}: raise the limit (ulimit -v), or allow fewer cores (taskset)")

import typer  # noqa: E402 - once there is room for it

from grads.cli.commands import app, main  # noqa: E402


@app.command(hidden=True)
def worker(folder: str, at_once: bool = False) -> None:
    """Work in a job's folder, in this process (what `run` starts in the background)."""
    from grads.stages.worker import main as work
    from grads.store.folders import open_folder

    raise typer.Exit(work(open_folder(folder), at_once))


@app.command(hidden=True)
def checker(root: str, server: int) -> None:
    """Look at data on demand for as long as the process `server` lives."""
    from pathlib import Path

    from grads.stages.checker import main as serve

    raise typer.Exit(serve(Path(root), server))


if __name__ == "__main__":
    main()
