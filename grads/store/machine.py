"""Which machine this is, and which of a job's processes."""

import os
import platform
from functools import cache
from pathlib import Path


@cache
def machine() -> str:
    """The boot and the namespace of process numbers on Linux, elsewhere the host's name.

    A run on a shared disk may be looked at from another machine or container, where the number of
    its process is another's or nobody's.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return platform.node()


def processes() -> int:
    """How many processes a launcher has started for one job, as torchrun tells each of them."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ.get("RANK", 0))
