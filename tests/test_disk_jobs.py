"""Jobs whose disk is full, and whose folder goes away: they end, say why, and lose nothing."""

import shutil
import subprocess
from itertools import chain, count

import numpy as np
import pyarrow.parquet as pq
import pytest
from chain import config_for, gone, save_tiny_model, until, wait_for, write_data

from grads import api
from grads.config.evaluation import EvaluationConfig
from grads.engine import training
from grads.errors import RunError
from grads.jobs import identity, job
from grads.selection.options import SelectionConfig
from grads.stages import worker
from grads.store.columns import MEASURED
from grads.store.files import DRAFT, reserve
from grads.store.pipeline import STAGES
from grads.store.runs import Run

pytestmark = pytest.mark.job
PAGE = 4096  # bytes; what a small disk is given by
NO_ROOM = "no space left on the disk of"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a tiny model, a data set, and a finished run."""
    folder = tmp_path_factory.mktemp("place")
    save_tiny_model(folder / "model")
    write_data(folder / "data.jsonl")
    finished = Run.create(config_for(folder), folder / "finished")
    assert worker.main(finished, at_once=True) == 0
    api.select_samples(finished, "fifth", SelectionConfig(ratio=0.2))
    return folder


class SmallDisk:
    """A file system of 8 MB, of which a test takes all but a few pages."""

    def __init__(self, path):
        self.path = path
        self.filler = path / "filler"

    def leave(self, pages):
        """Fill it but for so many pages."""
        free = shutil.disk_usage(self.path).free
        self.filler.write_bytes(bytes(free - pages * PAGE))

    def empty(self):
        for path in self.path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root alone")
    yield SmallDisk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)  # a worker may still be ending


@pytest.fixture
def read_only():
    """Makes folders read-only, for root too, and writable again."""
    mounted = []

    def on(path):
        if subprocess.run(["mount", "--bind", path, path], capture_output=True).returncode:
            pytest.skip("a folder can be mounted by root alone")
        mounted.append(path)
        remount = ["mount", "-o", "remount,ro,bind", path]  # busy while a file is written there
        until(lambda: not subprocess.run(remount, capture_output=True).returncode, "the change")

    def off():
        while mounted:
            subprocess.run(["umount", "--lazy", mounted.pop()], check=True)

    yield on, off
    off()


def assert_same_scores(run, other):
    mine, theirs = (pq.read_table(r.scores_file) for r in (run, other))
    assert mine["sample_id"].equals(theirs["sample_id"])
    for name in MEASURED:
        np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-5, atol=1e-6)


def drafts(folder):
    return [path for path in folder.rglob(".*") if DRAFT.fullmatch(path.name)]


@pytest.mark.parametrize(("warmup", "step"), [("lora", 16), ("full", 40)])
def test_a_full_disk_is_named_wherever_it_strikes(place, disk, monkeypatch, warmup, step):
    """At every so many pages that a run takes: failed, with the reason, and resumed with room."""
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)
    whole = Run.create(config_for(place, warmup=warmup), place / warmup)
    assert worker.main(whole, at_once=True) == 0
    stages = set()
    for pages in chain((0, 4, 8), count(16, step)):
        run = Run.create(config_for(place, warmup=warmup), disk.path / "run")
        disk.leave(pages)
        code = worker.main(run, at_once=True)
        status = run.read_status()
        if status.state == "finished":
            break
        assert (code, status.state) == (1, "failed"), pages
        assert status.error.startswith(NO_ROOM), (pages, status.error)
        stages.add(status.stage)
        disk.filler.unlink()
        assert worker.main(run, at_once=True) == 0, run.read_status()
        assert run.read_status().state == "finished"
        assert_same_scores(run, whole)
        assert drafts(run.path) == []
        disk.empty()
    assert stages >= {"prepare", "warm-up"}


def test_a_full_disk_is_named_in_an_evaluation_too(place, disk):
    """Its reference of the base model is written through memory, where no error would be raised."""
    general = place / "general.jsonl"
    general.write_text('{"instruction": "the heart?", "output": "rest and water."}\n' * 4)
    values = {"selections": ["fifth"], "arms": ["selection"], "seeds": 1, "epochs": 1.0}
    config = EvaluationConfig.parse(values | {"general": [str(general)]})
    for pages in count(0, 3):
        run = Run(shutil.copytree(place / "finished", disk.path / "run"))
        evaluation = api.create_evaluation(run, "one", config)
        disk.leave(pages)
        code = worker.main(evaluation, at_once=True)
        status = evaluation.read_status()
        if status.state == "finished":
            break
        assert (code, status.state) == (1, "failed"), pages
        assert status.error.startswith(NO_ROOM), (pages, status.error)
        disk.empty()
    assert pages > 6


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
    disk.filler.unlink()
    disk.leave(0)
    with pytest.raises(RunError, match=NO_ROOM):
        api.start_run(run)


def test_room_is_taken_before_a_file_is_written_through_memory(disk):
    sparse = disk.path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(2**24)
    with pytest.raises(OSError, match="No space left"):
        reserve(sparse)


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_moved_under_its_job_does_not_come_back(place, tmp_path, monkeypatch, stage):
    """The job ends, whatever it does, and leaves nothing at the old place; the run is whole."""
    monkeypatch.setattr(job, "HEARTBEAT_S", 0.001)
    config = config_for(place, targets={"own": "rows:0,1"}, extras=("question_gain",))
    run = Run.create(config, tmp_path / "runs" / "run")
    entered = job.Job.stage

    def moved(self, name, unit=""):
        entered(self, name, unit)
        if name == stage:
            run.path.rename(tmp_path / "moved")

    monkeypatch.setattr(job.Job, "stage", moved)
    assert worker.main(run, at_once=True) == 1
    assert list((tmp_path / "runs").iterdir()) == []
    monkeypatch.setattr(job.Job, "stage", entered)
    again = Run.open(tmp_path / "moved")
    assert worker.main(again, at_once=True) == 0
    assert_same_scores(again, Run(place / "finished"))


@pytest.mark.parametrize("stage", ["prepare", "warm-up", "score", "cluster"])
def test_a_run_made_read_only_under_its_job(place, tmp_path, monkeypatch, capsys, read_only, stage):
    """The job ends and says why where it can; writable again, it goes on to the same scores."""
    run = Run.create(config_for(place), tmp_path / "runs" / "run")
    entered, (on, off) = job.Job.stage, read_only

    def locked(self, name, unit=""):
        entered(self, name, unit)
        if name == stage:
            on(run.path)

    monkeypatch.setattr(job.Job, "stage", locked)
    assert worker.main(run, at_once=True) == 1
    assert "cannot be written to: make it writable, then resume" in capsys.readouterr().out
    off()
    monkeypatch.setattr(job.Job, "stage", entered)
    assert worker.main(run, at_once=True) == 0
    assert_same_scores(run, Run(place / "finished"))


def test_a_run_deleted_under_its_job_ends_it(place, tmp_path):
    run = Run.create(config_for(place, epochs=500.0), tmp_path / "runs" / "run")
    api.start_run(run)
    wait_for(run, "running")
    process = identity.process_of(run.read_status())
    until(lambda: run.read_status().done > 2, "a few steps")
    run.path.rename(tmp_path / "moved")
    until(lambda: gone(process), "the end of the process")
    assert not run.path.exists()
    assert "was deleted or moved under its job" in (tmp_path / "moved/worker.log").read_text()
    with pytest.raises(RunError, match="deleted or moved"):
        api.start_run(run)
    assert worker.main(run) == 1
    assert not run.path.exists()
