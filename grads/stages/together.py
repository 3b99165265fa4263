"""A run by several processes: the first leads, the others do with it what it calls them to.

The leader alone owns the job, its lock and its status, goes through the stages and writes what they
make. Where one is worth sharing (the warm-up's steps, the parts of a pass) it calls the others by
the stage's name; they load what they need from the run's files, and wait for the next call.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from grads.engine import team
from grads.engine.device import pick_device
from grads.errors import GradsError, Stopped, of_the_machine
from grads.jobs.job import Job
from grads.store.machine import rank
from grads.store.runs import Run

END = "end"


class _Watched(Run):
    """The run as all but the leader see it: what is noted of it is the leader's to note."""

    def update_manifest(self, **values: Any) -> None:
        pass


class Helper(Job[Run]):
    """What a stage tells the world, in a process that does not lead: nothing."""

    def _write(self) -> None:
        pass

    def metrics(self, **values: Any) -> None:
        pass


def call(stage: str) -> None:
    """Tell the others what is done together now."""
    team.current().agreed(stage)


def helped(work: Callable[[], object]) -> None:
    """Do with the others what they were called to; an error of one is the leader's, to end the run.

    What goes wrong outside of this goes wrong in one process alone, which ends, and all with it.
    """
    with suppress(GradsError, Stopped):
        team.settled(work)


def end() -> None:
    """Let the others go."""
    call(END)


def help_with(folder: Run, tasks: dict[str, Callable[[Helper], None]]) -> int:
    """Do what the leader calls for until it ends; the exit code of this process."""
    run = _Watched(folder.path)
    try:
        team.join(pick_device(run.config().device))
        job = Helper(run)
        while (stage := team.current().agreed("")) != END:
            tasks[stage](job)
    except Exception as error:
        said = str(error) if isinstance(error, GradsError) else of_the_machine(error)
        reason = said or f"{type(error).__name__}: {error}"
        folder.helper_error_file(rank()).write_text(reason, encoding="utf-8")
        print(f"process {rank()} failed: {reason}", flush=True)
        return 1
    return 0


def ended(folder: Run) -> str:
    """Why a run has ended whose other processes are no longer all there."""
    for file in sorted(folder.path.glob(folder.helper_error_file("*").name)):
        number = file.stem.partition("-")[2]
        return f"process {number} of the run has failed: {file.read_text(encoding='utf-8')}"
    return "one of the run's processes has ended: resume it to go on from the last finished part"


class EndedByLauncherError(RuntimeError):
    """The launcher has asked this process to end, as it asks all once one of them has."""


def asked_to_end(signal: int, frame: Any) -> None:
    """Handler of that signal."""
    raise EndedByLauncherError


def lost_touch(error: Exception) -> bool:
    """Whether an error says that another process is gone, and nothing of this one."""
    text = str(error).lower()
    talk = isinstance(error, RuntimeError) and ("gloo" in text or "nccl" in text)
    return talk or isinstance(error, EndedByLauncherError)
