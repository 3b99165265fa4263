"""The run directory: atomic, listed, honest about what is there."""

import threading

import pyarrow as pa
import pytest
from run_dirs import dead_pid

from grads.api import drafts
from grads.config.base import read_yaml
from grads.config.run import RunConfig
from grads.errors import ConfigError, RunError
from grads.selection.record import read_selection
from grads.store.files import replacing, write_table
from grads.store.folders import Checker, Draft
from grads.store.runs import Run, Status, list_runs, new_run_path


def make(tmp_path, name="run", **values):
    return Run.create(RunConfig.parse({"dataset": "data.jsonl"} | values), tmp_path / name)


def test_a_reader_at_any_moment_sees_a_valid_status(tmp_path):
    run, ended = make(tmp_path), threading.Event()

    def write():
        try:
            for done in range(2000):
                run.write_status(Status(state="running", stage="score" * 50, done=done))
        finally:
            ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = 0
    while not ended.is_set():
        status = run.read_status()
        assert status.state in ("queued", "running"), status.error
        assert status.done >= seen
        seen = status.done
    thread.join()
    assert seen > 0
    assert run.read_status().done == 1999
    assert [p.name for p in run.path.iterdir() if p.name.startswith(".status")] == []


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail_half_way():
        with replacing(path) as draft:
            draft.write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_folders_are_replaced_whole(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with replacing(tmp_path / "out") as draft:
        draft.mkdir()
        (draft / "new").touch()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["new"]


def test_create_open_and_list(tmp_path):
    first, second = make(tmp_path, "first"), make(tmp_path, "second", seed=3)
    (tmp_path / "no-run").mkdir()
    assert {run.id for run in list_runs(tmp_path)} == {"first", "second"}
    assert Run.open(second.path).config().seed == 3
    assert make(tmp_path, "first").path == first.path
    with pytest.raises(RunError, match="seed was 0, now 1"):
        make(tmp_path, "first", seed=1)
    with pytest.raises(RunError, match="no run at"):
        Run.open(tmp_path / "no-run")
    (tmp_path / "no-run" / "file").touch()
    with pytest.raises(RunError, match="is not empty and not a run"):
        make(tmp_path, "no-run")
    assert list_runs(tmp_path / "absent") == []


def test_new_runs_get_names_of_their_own(tmp_path):
    config = RunConfig.parse({"dataset": "/data/My Set (1).jsonl"})
    names = {new_run_path(tmp_path, config).name for _ in range(20)}
    assert len(names) == 20
    assert all("-my-set-1-" in name for name in names)


def test_missing_and_damaged_files_say_what_to_do(tmp_path):
    run = make(tmp_path)
    with pytest.raises(RunError, match=r"has no scores.parquet yet: its state is 'queued'"):
        run.read_table(run.scores_file)
    write_table(run.scores_file, pa.table({"a": [1]}))
    run.scores_file.write_bytes(run.scores_file.read_bytes()[:40])
    with pytest.raises(RunError, match="is damaged"):
        run.read_table(run.scores_file)
    run.status_file.write_text("{")
    status = run.read_status()
    assert status.state == "interrupted"
    assert "status.json is damaged" in status.error
    run.manifest_file.write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        run.read_manifest()
    with pytest.raises(RunError, match="has no selection 'x': there are none yet"):
        read_selection(run, "x")


def test_metrics_survive_a_killed_writer(tmp_path):
    run = make(tmp_path)
    run.append_metrics(stage="warm-up", step=1)
    with run.metrics_file.open("a") as file:
        file.write('{"stage": "warm')
    run.append_metrics(stage="warm-up", step=2)
    run.append_metrics(stage="warm-up", step=3)
    assert [row["step"] for row in run.read_metrics()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "dataset is missing"),
        ({"dataset": "x", "limit": 0, "epochs": -1}, "limit is 0: .*; epochs is -1"),
        ({"dataset": "x", "columns": {"answer": "a"}}, "unknown role answer"),
        ({"dataset": "x", "columns": {"prompt": "a"}}, "both prompt and response"),
        ({"dataset": "x", "warmup": "none", "warmup_from": "y"}, "leave one of them out"),
        ({"dataset": "x", "learning_rate": 1}, "unknown setting 'learning_rate'"),
    ],
)
def test_bad_settings_are_all_named(values, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig.parse(values)


def test_yaml_errors_name_the_line(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("dataset: x\nmodel: [1\n")
    with pytest.raises(ConfigError, match="line 3 is not valid YAML"):
        read_yaml(path)
    with pytest.raises(ConfigError, match="cannot read config"):
        read_yaml(tmp_path / "no.yaml")
    path.write_text("just text")
    with pytest.raises(ConfigError, match="'setting: value' lines"):
        read_yaml(path)


def test_a_checker_that_died_at_a_look_is_followed_by_another(tmp_path, monkeypatch):
    """The look that it died at is not tried again; the ones after it find a warm process."""
    spawned = []
    monkeypatch.setattr(drafts.jobs, "spawn", lambda folder, args: spawned.append(args))
    checker = Checker(tmp_path)
    for name in ("data-1", "data-2"):
        checker.ask(Draft(checker.path.parent / name))
    checker.write_status(Status(state="running", pid=dead_pid(), process_started=1.0))
    assert drafts._checker(tmp_path).path == checker.path
    assert len(spawned) == 1
    assert checker.waiting() == []
