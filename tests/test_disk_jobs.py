"""Jobs whose disk is full, and whose folder goes away: they end, say why, and lose nothing."""

import shutil
import subprocess
import sys
from functools import partial
from itertools import count, product

import pytest
from chain import config_for, gone, until, wait_for
from disturbed import arguments_of, assert_same, lay_out, made, same_command

from grads import api
from grads.cli import commands
from grads.engine import training
from grads.errors import RunError
from grads.jobs import identity, job
from grads.selection.options import SelectionConfig
from grads.stages import worker
from grads.store.files import DRAFT, reserve
from grads.store.folders import open_folder
from grads.store.pipeline import STAGES
from grads.store.runs import Run

pytestmark = pytest.mark.job
PAGE = 4096  # bytes; what a small disk is given by
FILLED = {  # stages in which a kind of job has something to write: those of the short form
    "LoRA run": ["prepare"],
    "full-parameter run": ["warm-up"],
    "run with gradients during": ["warm-up"],
    "run with sets": ["probe sets", "self-check", "score", "extras", "cluster"],
    "evaluation": ["evaluate"],
    "search": ["pilots"],
    "request for sets": ["probe sets", "score", "extras"],
    "request for words": ["token signals"],
}
NO_ROOM = "no space left on the disk of"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    lay_out(folder)
    return folder


@pytest.fixture(scope="module")
def scored(place):
    """A finished run with a selection."""
    run = Run.create(config_for(place), place / "runs" / "scored")
    assert worker.main(run, at_once=True) == 0
    api.select_samples(run, "fifth", SelectionConfig(ratio=0.2))
    return run


@pytest.fixture(scope="module")
def undisturbed(place, scored, tmp_path_factory):
    """By kind, the job that nothing befell, and its stages; made when it is first asked for."""
    known = {}

    def of(kind):
        if kind not in known:
            folder = made(kind, place, scored, tmp_path_factory.mktemp("undisturbed"))
            stages = []
            with pytest.MonkeyPatch.context() as patch:
                at_stages(patch, stages.append)
                assert worker.main(folder, at_once=True) == 0
            known[kind] = folder, stages
        return known[kind]

    return of


def at_stages(patch, do):
    """Have `do` called with the name of every stage once it has begun."""
    entered = job.Job.stage

    def stage(self, name, unit=""):
        entered(self, name, unit)
        do(name)

    patch.setattr(job.Job, "stage", stage)


def at_stage(patch, wanted, do):
    at_stages(patch, lambda name: do() if name == wanted else None)


class SmallDisk:
    """A file system of 16 MB, of which a test takes all but a few pages."""

    def __init__(self, path):
        self.path = path
        self.filler = path / "filler"

    def leave(self, pages):
        """Fill it but for so many pages."""
        free = shutil.disk_usage(self.path).free
        self.filler.write_bytes(bytes(free - pages * PAGE))

    def is_as_listed(self):
        """Whether what has been deleted takes no room any more: nobody has it open."""
        listed = sum(path.lstat().st_blocks for path in self.path.rglob("*")) * 512
        return shutil.disk_usage(self.path).used == listed

    def empty(self):
        for path in self.path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here: that takes root")
    yield SmallDisk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)  # a worker may still be ending


@pytest.fixture
def read_only():
    """Makes folders read-only, for root too, and writable again."""
    mounted = []

    def on(path):
        if subprocess.run(["mount", "--bind", path, path], capture_output=True).returncode:
            pytest.skip("no folder can be mounted here: that takes root")
        mounted.append(path)
        remount = ["mount", "-o", "remount,ro,bind", path]  # busy while a file is written there
        until(lambda: not subprocess.run(remount, capture_output=True).returncode, "the change")

    def off():
        while mounted:
            subprocess.run(["umount", "--lazy", mounted.pop()], check=True)

    yield on, off
    off()


def drafts(folder):
    return [path for path in folder.rglob(".*") if DRAFT.fullmatch(path.name)]


@pytest.mark.full
@pytest.mark.parametrize("kind", FILLED)
def test_a_full_disk_is_named_in_every_stage(
    kind, place, scored, undisturbed, disk, monkeypatch, full
):
    """Full, or so many pages from it, once a stage has begun: failed, with the reason, and nothing
    is lost.
    """
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr(job, "HEARTBEAT_S", 3600.0)  # a draft of its own would come and go
    whole, stages = undisturbed(kind)
    failed, room = set(), (0, *(2**n for n in range(12))) if full else (0,)
    assert set(FILLED[kind]) <= set(stages)
    for stage, pages in product(stages if full else FILLED[kind], room):
        folder = made(kind, place, scored, disk.path)
        with monkeypatch.context() as patch:
            at_stage(patch, stage, partial(disk.leave, pages))
            code = worker.main(folder, at_once=True)
        status, told = folder.read_status(), (kind, stage, pages)
        if status.state != "finished":
            assert (code, status.state) == (1, "failed"), told
            assert status.error.startswith(NO_ROOM), (*told, status.error)
            failed.add(status.stage)
            disk.filler.unlink()
            folder = open_folder(folder.path)
            assert worker.main(folder, at_once=True) == 0, (*told, folder.read_status())
        assert_same(folder, whole)
        assert drafts(disk.path) == []
        disk.empty()
    assert failed >= set(FILLED[kind])


@pytest.mark.parametrize("name", ["select", "select anew", "export", "decide"])
def test_a_command_on_a_full_disk_says_so_and_leaves_nothing_half(
    name, scored, tmp_path, disk, monkeypatch, capsys
):
    """At every so many pages that it takes; repeated with room, it makes what it would have."""

    def call(run):
        monkeypatch.setattr(sys, "argv", ["grads", *arguments_of(name, run.path)])
        try:
            commands.main()
        except SystemExit as ended:
            return ended.code
        return 0

    whole = Run(shutil.copytree(scored.path, tmp_path / "run"))
    assert call(whole) == 0
    for pages in count():
        run = Run(shutil.copytree(scored.path, disk.path / "run"))
        disk.leave(pages)
        capsys.readouterr()
        if call(run) == 0:
            break
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: "), pages
        assert "no space left on" in line.lower(), pages
        assert drafts(run.path) == []
        assert same_command(run, scored)
        disk.filler.unlink()
        assert call(run) == 0
        assert same_command(run, whole)
        disk.empty()
    assert pages > 0
    assert same_command(run, whole)


def test_a_job_of_its_own_tells_of_a_full_disk(place, disk):
    """Its log lies on that disk too."""
    run = Run.create(config_for(place), disk.path / "run")
    api.start_run(run)
    assert wait_for(run, "finished", "failed").state == "finished"
    shutil.rmtree(run.path)
    run = Run.create(config_for(place), disk.path / "run")
    disk.leave(12)
    api.start_run(run)
    status = wait_for(run, "finished", "failed", "interrupted")
    assert status.state == "failed"
    assert status.error.startswith(NO_ROOM)
    until(disk.is_as_listed, "the very end of the process")
    disk.filler.unlink()
    disk.leave(0)
    with pytest.raises(RunError, match=NO_ROOM):
        api.start_run(run)


def test_room_is_taken_before_a_file_is_written_through_memory(disk):
    sparse = disk.path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(2**25)
    with pytest.raises(OSError, match="No space left"):
        reserve(sparse)


UNDER_JOBS = [
    *(("run with sets", stage) for stage in STAGES),
    *(("evaluation", stage) for stage in ("prepare", "evaluate")),
]


def run_of(folder):
    return getattr(folder, "run", folder)


@pytest.mark.parametrize("how", ["moved", "deleted"])
@pytest.mark.parametrize(("kind", "stage"), UNDER_JOBS)
def test_a_run_moved_or_deleted_under_its_job_does_not_come_back(
    place, scored, undisturbed, tmp_path, monkeypatch, capsys, kind, stage, how
):
    """The job ends and says so, whatever it does, and leaves nothing at the old place; a run that
    was moved is whole.
    """
    whole, _ = undisturbed(kind)
    folder = made(kind, place, scored, tmp_path / "runs")
    run, elsewhere = run_of(folder), tmp_path / "moved"

    def take():
        if how == "moved":
            run.path.rename(elsewhere)
        else:
            until(lambda: deleted(run.path), "the end of the folder")

    with monkeypatch.context() as patch:
        patch.setattr(job, "HEARTBEAT_S", 0.001)
        at_stage(patch, stage, take)
        assert worker.main(folder, at_once=True) == 1
    assert "was deleted or moved under its job" in capsys.readouterr().out
    assert [path for path in (tmp_path / "runs").iterdir() if not path.name.startswith(".")] == []
    if how == "moved":
        again = open_folder(elsewhere / folder.path.relative_to(run.path))
        assert worker.main(again, at_once=True) == 0
        assert_same(again, whole)


def deleted(path):
    """Remove a folder in which a job may write at that moment; whether it is gone."""
    shutil.rmtree(path, ignore_errors=True)
    return not path.exists()


@pytest.mark.parametrize(("kind", "stage"), UNDER_JOBS)
def test_a_run_made_read_only_under_its_job(
    place, scored, undisturbed, tmp_path, monkeypatch, capsys, read_only, kind, stage
):
    """The job ends and says why where it can; writable again, it goes on to the same numbers."""
    whole, _ = undisturbed(kind)
    folder = made(kind, place, scored, tmp_path / "runs")
    on, off = read_only
    with monkeypatch.context() as patch:
        at_stage(patch, stage, partial(on, run_of(folder).path))
        assert worker.main(folder, at_once=True) == 1
    assert "cannot be written to: make it writable, then resume" in capsys.readouterr().out
    off()
    folder = open_folder(folder.path)
    assert worker.main(folder, at_once=True) == 0
    assert_same(folder, whole)


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_process_whose_run_goes_away_ends(place, tmp_path, how):
    run = Run.create(config_for(place, epochs=500.0), tmp_path / "runs" / "run")
    api.start_run(run)
    wait_for(run, "running")
    process = identity.process_of(run.read_status())
    until(lambda: run.read_status().done > 2, "a few steps")
    if how == "moved":
        run.path.rename(tmp_path / "moved")
    else:
        until(lambda: deleted(run.path), "the end of the folder")
    until(lambda: gone(process), "the end of the process")
    assert not run.path.exists()
    if how == "moved":
        said = (tmp_path / "moved" / "worker.log").read_text()
        assert "was deleted or moved under its job" in said
    with pytest.raises(RunError, match="deleted or moved"):
        api.start_run(run)
    assert worker.main(run) == 1
    assert not run.path.exists()
