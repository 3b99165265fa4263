"""Which process a job is, told without a clock: clocks are set, and machines sleep."""

import time
from pathlib import Path

import psutil

from grads.store.machine import machine
from grads.store.runs import Status


def begun(pid: int | None, turn: int | None = None) -> Status:
    """The first status of a job that the process `pid` works on; None before there is one."""
    status = Status(
        pid=pid, machine=machine(), heartbeat=time.time(), message="starting", turn=turn
    )
    if pid is not None:
        status.process_ticks = _start_ticks(pid)
        try:
            status.process_started = psutil.Process(pid).create_time()
        except psutil.Error:
            status.process_started = None  # gone already, as whoever looks will find
    return status


def visible(status: Status) -> bool:
    """Whether the job's process, were it alive, could be seen from here.

    Files of before 0.5 do not say on which machine it runs: then it is this one.
    """
    return status.pid is not None and status.machine in (None, machine())


def process_of(status: Status) -> psutil.Process | None:
    """The job's living process, none other of its number; None where it is gone or out of sight."""
    if status.pid is None or status.pid < 2 or not visible(status):
        return None
    try:
        process = psutil.Process(status.pid)
        same = _is_same(process, status) and process.status() != psutil.STATUS_ZOMBIE
        return process if same else None
    except psutil.Error:
        return None


def _is_same(process: psutil.Process, status: Status) -> bool:
    """By the ticks from boot to start; by the time of the start where those are not known.

    That time is computed from the clock, and moves when the clock is set.
    """
    if status.process_ticks is not None:
        return _start_ticks(process.pid) == status.process_ticks
    return abs(process.create_time() - (status.process_started or 0.0)) < 1.0


def _start_ticks(pid: int) -> int | None:
    """Clock ticks from the boot to the start of a process; None where the system has none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[19])  # field 22; the name before may hold spaces
