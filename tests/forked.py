"""Jobs and commands as forks of one process that has loaded everything: a job costs a second.

`python -m forked` reads a request a line and answers with a line; `Forks` talks to it. What a fork
does to files is watched by Python's own audit events, and a job is killed at one of them. With
`jobs` it starts them as the program does, and answers at once; `Spawned` talks to that.
"""

import faulthandler
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

import psutil

from grads.jobs.identity import begun
from grads.store.folders import open_folder
from grads.store.runs import JobFolder

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree")
STAGES = ("evaluation", "probes", "run", "scoring", "tuning", "worker")
LOADED = ("grads.__main__", *(f"grads.stages.{name}" for name in STAGES))
SPIN_S = 300  # until SIGALRM ends a job of limited memory: its library may ask for it for ever
LONGEST_S = 400  # of a fork; one that takes longer hangs, and says where
PART_TOKENS = 200  # a tiny pool has several parts then


class Loaded:
    """The process that has loaded everything; a context."""

    MODE: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        here = Path(__file__).parent
        paths = os.pathsep.join(filter(None, [str(here), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "forked", *self.MODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=here.parent,
            env=os.environ | {"PYTHONPATH": paths},
        )
        return self

    def __exit__(self, *error: object) -> None:
        self.process.communicate()

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        done = json.loads(self.process.stdout.readline())
        assert "hung" not in done, f"hung in {request}:\n{done['hung']}"
        return done


class Spawned(Loaded):
    """Starts jobs as `grads.jobs.processes.spawn` does, but for what they would have to load."""

    MODE = ("jobs",)

    def spawn(
        self,
        folder: JobFolder,
        command: list[str],
        *,
        processes: int = 1,
        turn: int | None = None,
    ) -> None:
        folder.write_status(begun(None, turn))
        where = {"folder": str(folder.path), "log": str(folder.log_file), "env": dict(os.environ)}
        pid = self._ask(command=command, processes=processes, **where)["pid"]
        folder.write_status(begun(pid, turn))


class Forks(Loaded):
    """The process whose forks work until they end, or are killed at some moment."""

    def work(
        self, folder: Path, after: int = 0, delay: float = 0.0, behind: str = ""
    ) -> dict[str, Any]:
        """The job of a folder, killed at its change of a file number `after`, or a bit later.

        Or at what it changes first once the file `behind` has come into its place.
        Answers with `code` (minus the signal's number of one that was killed), `pid`, `seconds`,
        and `changes`: of each the stage, the event and the path.
        """
        return self._ask(folder=str(folder), after=after, delay=delay, behind=behind)

    def together(
        self, folder: Path, processes: int, after: int = 0, delay: float = 0.0, victim: str = ""
    ) -> dict[str, Any]:
        """The same of a run by several processes, which a launcher as torchrun starts as forks.

        The changes are the leader's, `others` those of the other processes, and the victim is the
        "leader", an "other", or "all", the launcher among them.
        """
        several = {"processes": processes, "victim": victim}
        return self._ask(folder=str(folder), after=after, delay=delay, **several)

    def limited(self, folder: Path, memory: int) -> dict[str, Any]:
        """The job of a folder that may take so many bytes more than it has."""
        return self._ask(folder=str(folder), after=0, delay=0.0, memory=memory)

    def jumping(self, folder: Path) -> dict[str, Any]:
        """The job of a folder, whose clock is set by up to two days at each look at it."""
        return self._ask(folder=str(folder), after=0, delay=0.0, jumps=True)

    def command(self, *arguments: str) -> tuple[int, str, str]:
        """A command with its jobs; exit code, output, errors."""
        done = self._ask(arguments=list(arguments))
        return done["code"], done["out"], done["error"]

    def killed(self, folder: Path, arguments: list[str], after: int = 0) -> dict[str, Any]:
        """A command that changes files below a folder, killed at its change number `after`.

        Answers as `work` does.
        """
        return self._ask(arguments=arguments, folder=str(folder), after=after, delay=0.0)


def serve(mode: str = "") -> None:
    """Answer until the input ends."""
    for name in LOADED:
        importlib.import_module(name)
    if mode == "jobs":
        answer = _start
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    else:
        answer = _wait_for
        _make_small()
    answers = os.fdopen(os.dup(1), "w")  # what the forks say goes elsewhere
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


def _start(request: dict[str, Any]) -> dict[str, Any]:
    """A job at work as the program's own process would be: in its session, with its log."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        _into(Path(request["log"]), 1, 2)
        os.environ.clear()
        os.environ.update(request["env"])
        deadline = time.monotonic() + LONGEST_S
        while open_folder(Path(request["folder"])).read_status().pid != os.getpid():
            assert time.monotonic() < deadline, "nobody has noted that it has begun"
            time.sleep(0.01)
        if request["processes"] > 1:
            _launch(request["processes"], lambda rank: _run(request["command"]))
        _run(request["command"])
    return {"pid": pid}


def _make_small() -> None:
    """Have forks write many parts and checkpoints, and tell what they do when they are asked."""
    from grads.engine import passes, training

    faulthandler.register(signal.SIGUSR1)
    passes.PART_TOKENS = PART_TOKENS
    training.CHECKPOINT_EVERY_S = 0.0


def _wait_for(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as kept:
        return (_command if "arguments" in request else _work)(request, Path(kept))


def _work(request: dict[str, Any], kept: Path) -> dict[str, Any]:
    log, started = kept / "changes", time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        _into(Path(request["folder"]) / "worker.log", 1, 2)
        if "processes" in request:
            _launch(request["processes"], partial(_member, request, log))
        _watch(request, log)
        if "memory" in request:
            _limit(request["memory"])
        if "jumps" in request:
            honest, by = time.time, random.Random(0)
            time.time = lambda: honest() + by.uniform(-2, 2) * 86_400
        _worker(Path(request["folder"]))
    ended = _ended(pid, Path(request["folder"]) / "worker.log")
    seconds = time.monotonic() - started
    return {"pid": pid, "seconds": seconds, **ended, **_changes(kept)}


def _ended(pid: int, errors: Path) -> dict[str, Any]:
    """The exit code of a fork; of one that hangs, what all its threads did, from its errors."""
    try:
        return {"code": psutil.Process(pid).wait(LONGEST_S)}
    except psutil.TimeoutExpired:
        tree = _tree(pid)
        for act in (signal.SIGUSR1, signal.SIGKILL):
            for one in tree:
                with suppress(psutil.Error):
                    one.send_signal(act)
            time.sleep(1)
        os.waitpid(pid, 0)
        return {"hung": errors.read_text("utf-8", "replace")[-8000:]}


def _tree(pid: int) -> list[psutil.Process]:
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


def _changes(kept: Path) -> dict[str, list[Any]]:
    """What was noted: by the process itself or a team's leader, and by the others of its team."""
    return {
        name: [json.loads(line) for file in files for line in file.read_text().splitlines()]
        for name, files in (("changes", kept.glob("changes")), ("others", kept.glob("*.[1-9]")))
    }


def _launch(size: int, member: Callable[[int], object]) -> None:
    """Be torchrun: start so many processes, and end them all when one of them has failed.

    Its own agent for functions would not do: it hangs for ever where one is killed at its end.
    """
    import torch
    from torch.distributed import TCPStore

    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    team = []
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
            place = {"MASTER_ADDR": "localhost", "MASTER_PORT": store.port}
            theirs = {"TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0}
            os.environ.update({k: str(v) for k, v in (ranks | place | theirs).items()})
            torch.set_num_threads(1)
            member(rank)
        team.append(psutil.Process(pid))
    code = 0
    while team and not code:
        ended, team = psutil.wait_procs(team, timeout=0.1)
        code = next((one.returncode for one in ended if one.returncode), 0)
    for one in team:
        one.terminate()
    for one in psutil.wait_procs(team, timeout=30)[1]:
        one.kill()
    os._exit(int(code != 0))


def _member(request: dict[str, Any], log: Path, rank: int) -> None:
    """One of the processes; the leader counts, and kills."""
    if rank:
        _watch(request | {"after": 0}, Path(f"{log}.{rank}"))
    else:
        _watch(request, Path(log))
    _worker(Path(request["folder"]))


def _kill(victim: str) -> None:
    """This process, one beside it, or all of the session."""
    if victim == "all":
        os.killpg(os.getpgrp(), signal.SIGKILL)
    others = [one.pid for one in psutil.Process(os.getppid()).children() if one.pid != os.getpid()]
    os.kill(others[0] if victim == "other" else os.getpid(), signal.SIGKILL)


def _worker(folder: Path) -> None:
    from grads.stages import worker

    code = 70
    try:
        code = worker.main(open_folder(folder))
    finally:
        os._exit(code)


def _into(path: Path, *numbers: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in numbers:
        os.dup2(file, number)
    os.close(file)


def _watch(request: dict[str, Any], log: Path) -> None:
    """Note every change of a file of the run, and die at the one that was asked for."""
    from grads.jobs.job import Job

    folder = open_folder(Path(request["folder"]))
    run = str(getattr(folder, "run", folder).path)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    count, stage, thread = 0, "", 0
    behind = request.get("behind")
    entered = Job.stage

    def on_stage(self: Job, name: str, unit: str = "") -> None:
        nonlocal stage
        entered(self, name, unit)
        stage = name

    def die() -> None:
        _kill(request.get("victim", ""))

    def see(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count, thread
        if event == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & WRITING:
                return
        elif event not in CHANGES:
            return
        path = str(arguments[1 if event == "os.rename" else 0])
        if behind and path == behind and event == "os.rename":
            thread = threading.get_ident()  # other threads change files before it has come
        elif thread == threading.get_ident():
            die()
        if not path.startswith(run):
            return
        count += 1
        os.write(file, (json.dumps([stage, event, path]) + "\n").encode())
        if count == request["after"]:
            threading.Timer(request["delay"], die).start() if request["delay"] else die()

    Job.stage = on_stage  # type: ignore[method-assign]
    sys.addaudithook(see)


def _limit(more: int) -> None:
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    signal.alarm(SPIN_S)


def _command(request: dict[str, Any], kept: Path) -> dict[str, Any]:
    pid = os.fork()
    if pid == 0:
        _into(kept / "out", 1)
        _into(kept / "error", 2)
        if "folder" in request:
            _watch(request, kept / "changes")
        _run_command(request["arguments"])
    ended = _ended(pid, kept / "error")
    out, error = ((kept / name).read_text("utf-8", "replace") for name in ("out", "error"))
    return {"out": out, "error": error, **ended, **_changes(kept)}


def _run_command(arguments: list[str]) -> None:
    from grads.jobs import processes

    def spawn(folder: Any, command: list[str], *, processes: int = 1, turn: int) -> None:
        assert processes == 1
        folder.write_status(begun(None, turn))
        pid = os.fork()
        if pid == 0:
            os.setsid()
            _into(folder.log_file, 1, 2)
            _worker(Path(command[1]))
        threading.Thread(target=os.waitpid, args=(pid, 0), daemon=True).start()
        folder.write_status(begun(pid, turn))

    processes.spawn = spawn
    processes.LOOK_S = 0.02
    _run(arguments)


def _run(arguments: list[str]) -> None:
    """Be the program with these arguments."""
    import traceback

    from grads.cli import commands

    sys.argv = ["grads", *arguments]
    code = 70
    try:
        commands.main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(*sys.argv[1:])
