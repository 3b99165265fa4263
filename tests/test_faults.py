"""Jobs killed at random moments, and what comes of them: resumed, they end as undisturbed ones.

The moments are changes of files, drawn for each stage: of checkpoints, parts, tables, locks,
statuses. Half of the kills come some time after one. In full, by `make reliability`, there are
over a hundred, and commands are killed at each of their changes.
"""

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
from chain import config_for, until
from disturbed import arguments_of, assert_same, lay_out, made, same_command
from forked import Forks

from grads import api
from grads.errors import RunError
from grads.jobs import processes as jobs
from grads.selection.options import SelectionConfig
from grads.store import pipeline
from grads.store.files import DRAFT, remove_drafts, replacing
from grads.store.folders import open_folder
from grads.store.runs import ACTIVE, JobFolder, Run

pytestmark = pytest.mark.job
KILLS = {  # of each kind of job: a few, and in full
    "LoRA run": (1, 20),
    "full-parameter run": (1, 10),
    "run with gradients during": (1, 10),
    "run with sets": (1, 14),
    "evaluation": (1, 20),
    "search": (1, 14),
    "request for sets": (1, 14),
    "request for words": (1, 8),
}
COMMANDS = ("select", "select anew", "export", "decide")
# MiB more than a fork begins with, a few and in full; the first 68 are for linear algebra.
LIMITS = {
    "LoRA run": ((55, 78, 108), (1, 24, 55, 67, *np.linspace(69, 166, 24))),
    "evaluation": ((78,), np.linspace(69, 166, 8)),
    "request for sets": ((78,), np.linspace(69, 166, 8)),
}
LATEST_S = 0.5  # from a change of a file to the kill


@dataclass
class Undisturbed:
    """A job that nothing befell, with what it changed on the disk and in which stage."""

    folder: JobFolder
    changes: list[list[str]]
    places: dict[str, list[int]] = field(init=False)
    """By stage, the numbers of its changes, from 1."""

    def __post_init__(self) -> None:
        self.places = {}
        for number, (stage, _, _) in enumerate(self.changes, start=1):
            self.places.setdefault(stage or "the start", []).append(number)

    def moments(self, seed: int, number: int) -> Iterator[tuple[int, float]]:
        """A change in each of the stages in turn, and seconds after it; every other one at once."""
        rng = np.random.default_rng(seed)
        stages = rng.permutation(list(self.places))
        for i in range(number):
            after = int(rng.choice(self.places[stages[i % len(stages)]]))
            yield after, float(rng.uniform(0, LATEST_S)) if i % 2 else 0.0


@pytest.fixture(scope="module")
def forks():
    with Forks() as running:
        yield running


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    lay_out(folder)
    return folder


@pytest.fixture(scope="module")
def scored(place, forks):
    """A finished run with a selection, for what is asked of one."""
    run = Run.create(config_for(place), place / "runs" / "scored")
    assert forks.work(run.path)["code"] == 0
    api.select_samples(run, "fifth", SelectionConfig(ratio=0.2))
    return run


@pytest.fixture(scope="module")
def undisturbed(place, scored, forks, tmp_path_factory):
    """By kind, the job that nothing befell; made when it is first asked for."""
    known: dict[str, Undisturbed] = {}

    def of(kind: str) -> Undisturbed:
        if kind not in known:
            folder = made(kind, place, scored, tmp_path_factory.mktemp("undisturbed"))
            done = forks.work(folder.path)
            assert done["code"] == 0, folder.read_status()
            known[kind] = Undisturbed(folder, done["changes"])
        return known[kind]

    return of


def finished_files(folder: JobFolder) -> set[str]:
    """What no resume has to make again: parts, arms, and the files of stages that hold."""
    found = set(folder.path.glob("arms/[!.]*.json"))
    for parts in ("scores", "parts"):
        found |= set((folder.path / parts).rglob("[!.]*.parquet"))
    if isinstance(folder, Run):
        for stage in pipeline.STAGES.values():
            if pipeline.holds(folder, stage):
                found |= {folder.path / name for name in stage.makes}
    return {str(path) for path in found}


def steps(folder: JobFolder) -> Counter:
    """How often each step of a training was taken."""
    lines = [row for row in folder.read_metrics() if "lr" in row]
    return Counter((row.get("key"), row["step"]) for row in lines)


def group_of(leader: int) -> list[int]:
    """Living processes of the session that a process led."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


@pytest.mark.full
@pytest.mark.parametrize("kind", KILLS)
def test_killed_at_random_moments_and_resumed(
    kind, place, scored, undisturbed, forks, tmp_path, full
):
    """Nothing is repeated but the open part, no process is left, and no lock stands in the way."""
    wanted = KILLS[kind][full]
    whole = undisturbed(kind)
    killed: Counter = Counter()
    for number, (after, delay) in enumerate(whole.moments(sum(kind.encode()), 2 * wanted)):
        if killed.total() == wanted:
            break
        told = f"{kind}, change {after} {whole.changes[after - 1]}, {delay:.2f} s later"
        folder = made(kind, place, scored, tmp_path / str(number))
        done = forks.work(folder.path, after, delay)
        assert done["code"] in (0, -9), told
        if done["code"]:
            resume(forks.work, folder, done, told)
            killed[done["changes"][-1][0] or "the start"] += 1
        assert_same(folder, whole.folder)
    print(f"{kind}: {killed.total()} kills, last seen in {dict(killed)}")
    assert killed.total() == wanted


def resume(
    work: Callable[[Path], dict],
    folder: JobFolder,
    done: dict,
    told: str,
    *,
    ends: tuple[str, ...] = ("interrupted",),
) -> None:
    """Go on after a kill; fails where more is done again than has to be, or something is left."""
    until(lambda: not group_of(done["pid"]), f"no process is left: {told}")
    assert jobs.observe(folder).state in ends, told
    with jobs.at_rest(folder):  # no lock is held
        kept, taken = finished_files(folder), steps(folder)
    folder = open_folder(folder.path)
    again = work(folder.path)
    assert again["code"] == 0, (told, folder.read_status())
    assert jobs.observe(folder).state == "finished", told
    changes = again["changes"] + again["others"]
    written = {path for _, event, path in changes if event == "os.rename"}
    grown = {str(folder.path / "features.parquet")}  # to which the topics are added
    assert kept & written <= grown, told
    repeated = steps(folder) - Counter(set(steps(folder)))
    assert repeated.total() <= 1, (told, taken, repeated)
    assert [path for path in folder.path.rglob(".*") if DRAFT.fullmatch(path.name)] == [], told


def test_a_set_is_there_only_once_its_digests_are_noted(
    place, scored, undisturbed, forks, tmp_path
):
    """Killed with the last file in place, before anything says so."""
    whole = undisturbed("request for sets").folder
    request = made("request for sets", place, scored, tmp_path)
    run = request.run
    done = forks.work(request.path, behind=str(run.probe_file("good")))
    assert done["code"] == -signal.SIGKILL
    assert run.probe_file("good").exists()
    assert "good" not in run.read_manifest().probes
    assert "good" not in api.load_pool(run).probes
    assert pipeline.damaged(run) == [], "a resume of the run does not score again"
    assert forks.work(request.path)["code"] == 0, request.read_status()
    assert "good" in api.load_pool(run).probes
    assert_same(request, whole)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_killed_at_any_change_and_repeated(name, scored, forks, tmp_path):
    """What it was to change is as before, as it should be, or told to be damaged; the same command
    then makes it whole.
    """

    def killed(after: int) -> tuple[Run, dict]:
        run = Run(shutil.copytree(scored.path, tmp_path / str(after) / "run"))
        return run, forks.killed(run.path, arguments_of(name, run.path), after)

    whole, done = killed(0)
    assert done["code"] == 0, done["error"]
    for after, change in enumerate(done["changes"], start=1):
        told = f"{name}, change {after} {change}"
        run, ended = killed(after)
        assert ended["code"] == -signal.SIGKILL, told
        with suppress(RunError):
            assert any(same_command(run, other) for other in (scored, whole)), told
        code, _, error = forks.command(*arguments_of(name, run.path))
        assert code == 0, (told, error)
        assert same_command(run, whole), told
        remove_drafts(run.path)  # as the run's next job does
        assert [path for path in run.path.rglob(".*") if DRAFT.fullmatch(path.name)] == [], told
    print(f"{name}: {len(done['changes'])} kills")


@pytest.mark.full
@pytest.mark.parametrize("kind", LIMITS)
def test_a_job_without_memory_says_so_and_goes_on_with_more(
    kind, place, scored, undisturbed, forks, tmp_path, full
):
    """Limits from next to nothing to enough: failed, with the reason, and nothing is lost."""
    whole = undisturbed(kind)
    ends: Counter = Counter()
    others = []
    for number, more in enumerate(LIMITS[kind][full]):
        folder = made(kind, place, scored, tmp_path / str(number))
        code = forks.limited(folder.path, int(more * 2**20))["code"]
        status = jobs.observe(folder)
        assert code != -signal.SIGALRM, f"with {more} MiB it does not come out of {status.stage}"
        ends[status.state, status.stage] += 1
        if code != 0:
            if "memory" not in (status.error or "") and status.state != "interrupted":
                others.append(status.error)
            again = forks.work(folder.path)
            assert again["code"] == 0, folder.read_status()
        assert_same(folder, whole.folder)
    print(f"memory, {kind}: {len(LIMITS[kind][full])} limits, {dict(ends)}")
    assert others == []
    assert any(state != "finished" for state, _ in ends)


def test_a_clock_that_is_set_while_a_job_works(place, scored, undisturbed, forks, tmp_path):
    """Back and forth by days: the job is at work all the time, and no draft is taken for old."""
    folder = made("LoRA run", place, scored, tmp_path)
    seen = set()
    with ThreadPoolExecutor(1) as pool, replacing(folder.path / "notes") as draft:
        draft.write_text("of a process that is at work")
        job = pool.submit(forks.jumping, folder.path)
        until(lambda: folder.read_status().pid, "its beginning")
        while not job.done():
            seen.add(jobs.observe(folder).state)
            time.sleep(0.05)
        assert draft.exists()
    assert job.result()["code"] == 0, folder.read_status()
    assert "running" in seen
    assert seen <= {*ACTIVE, "finished"}
    assert_same(folder, undisturbed("LoRA run").folder)
