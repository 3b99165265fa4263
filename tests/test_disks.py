"""What stays when a disk is full, or a writer is killed: nothing is lost, nothing silent."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil
import pyarrow as pa
import pytest
from chain import gone, until
from run_dirs import dead_pid, demo_run, messages, open_page
from typer.testing import CliRunner

from grads import api
from grads.__main__ import app
from grads.api import drafts
from grads.cli.commands import main
from grads.config.run import RunConfig
from grads.errors import RunError
from grads.jobs import disk
from grads.jobs import processes as jobs
from grads.selection.options import SelectionConfig
from grads.store import files, runs
from grads.store.files import replacing, write_json, write_table
from grads.store.lines import append_line, read_lines
from grads.store.runs import Run, Status


@pytest.fixture
def run(tmp_path):
    return Run.create(RunConfig.parse({"dataset": "data.jsonl"}), tmp_path / "run")


@contextmanager
def files_end_at(size):
    """As a full disk does it: no file can grow beyond `size` bytes, and a write takes a part."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# -- lines that are added


def test_a_line_that_does_not_fit_leaves_the_file_as_it_was(tmp_path):
    """Wherever in the line the disk ends."""
    path = tmp_path / "lines.jsonl"
    append_line(path, {"n": 1, "text": "é"})
    before = path.read_bytes()
    line = {"n": 2, "text": "the dose — twice"}
    length = len(json.dumps(line, ensure_ascii=False).encode()) + 1
    for room in range(length):
        with files_end_at(len(before) + room), pytest.raises(OSError, match="too large"):
            append_line(path, line, lasting=True)
        assert path.read_bytes() == before
    append_line(path, line, lasting=True)
    assert read_lines(path) == ([{"n": 1, "text": "é"}, line], [])


def test_a_line_broken_off_anywhere_takes_nothing_with_it(tmp_path):
    """Half a character, half a name: it is told by its number, and the next line is whole."""
    path = tmp_path / "lines.jsonl"
    first, second, third = {"n": 1}, {"n": 2, "text": "zwölf — 十二"}, {"n": 3}
    whole = b"".join(json.dumps(x, ensure_ascii=False).encode() + b"\n" for x in (first, second))
    begin = whole.index(b"\n") + 1
    for end in range(begin, len(whole) + 1):
        path.write_bytes(whole[:end])
        counts = end >= len(whole) - 1  # without its end of line it is whole too
        kept = [first, second] if counts else [first]
        broken = [] if counts or end == begin else [2]
        assert read_lines(path) == (kept, broken)
        append_line(path, third)
        assert read_lines(path) == ([*kept, third], broken)
        assert path.read_bytes().startswith(whole[:end]), "what was there stays"


def test_what_is_no_object_is_told(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"n": 1}\n\n17\n\x00\x00\x00\n\xff\n{"n": 2}\n')
    assert read_lines(path) == ([{"n": 1}, {"n": 2}], [3, 4, 5])
    assert read_lines(tmp_path / "none.jsonl") == ([], [])


# -- drafts


def test_a_file_of_a_folder_that_is_gone_is_not_written(tmp_path):
    """To make the folder would bring a deleted run back."""
    for write in (lambda path: write_json(path, {}), lambda path: write_table(path, pa.table({}))):
        with pytest.raises(FileNotFoundError):
            write(tmp_path / "gone" / "file")
    assert list(tmp_path.iterdir()) == []


def test_drafts_of_killed_writers_are_removed_and_no_others(run, monkeypatch):
    """Those of a process that lives stay, and of another machine those of today."""
    mark, dead, living = "89abcdef", dead_pid(), os.getppid()
    monkeypatch.setattr(files, "_machine_mark", lambda: mark)
    removed = [
        f".scores.parquet.{mark}.{dead}.01234567",
        f".scores.parquet.{dead}.01234567",  # of 0.4
        f".weights.{mark}.{dead}.01234567",
        f"scores/.part-00000.parquet.{mark}.{dead}.01234567",
        f".old.json.76543210.{living}.01234567",
    ]
    stay = [
        "config.json",
        "status.json",
        f".tenth.json.{mark}.{living}.01234567",
        f".fresh.json.76543210.{dead}.01234567",
        ".decisions.lock",
        "scores/part-00000.parquet",
        f"notes.{dead}.01234567",
    ]
    (run.path / "scores").mkdir()
    for name in removed + stay[2:]:
        (run.path / name).write_text("half")
    weights = run.path / f".weights.{mark}.{dead}.01234567"
    weights.unlink()
    weights.mkdir()
    (weights / f".model.{mark}.{dead}.01234567").touch()
    yesterday = time.time() - files.FOREIGN_DRAFT_S - 60
    os.utime(run.path / f".old.json.76543210.{living}.01234567", (yesterday, yesterday))
    files.remove_drafts(run.path)
    left = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*")}
    assert left == {*stay, "scores"}


def test_a_writer_that_is_dead_and_still_listed_is_no_writer(run):
    """Until its parent takes note of its end, which for a whole team killed takes a moment."""
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        until(lambda: gone(psutil.Process(dead.pid)), "its end")
        draft = run.path / f".scores.parquet.{files._machine_mark()}.{dead.pid}.01234567"
        draft.touch()
        files.remove_drafts(run.path)
        assert not draft.exists()


@pytest.mark.parametrize("name", ["report[1].html", "packet.html", "out.jsonl"])
def test_what_a_killed_writer_left_goes_with_the_next_write_of_the_same(tmp_path, name):
    """Beside a place that a user gives only that goes: files of others may have such names."""
    mark, dead, living = files._machine_mark(), dead_pid(), os.getppid()
    left = tmp_path / f".{name}.{mark}.{dead}.01234567"
    stay = [
        tmp_path / f".{name}.{mark}.{living}.01234567",
        tmp_path / f".another.{mark}.{dead}.01234567",
        tmp_path / f".{name}.lock",
    ]
    for path in (left, *stay):
        path.touch()
    with replacing(tmp_path / name) as draft:
        draft.touch()
    assert set(tmp_path.iterdir()) == {tmp_path / name, *stay}


def test_what_killed_writers_left_in_a_finished_run_goes_with_the_next_write(tmp_path, monkeypatch):
    """A selection, an export or an upload that was killed, whatever name the next one has."""
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    run = demo_run(tmp_path)
    mark, dead = files._machine_mark(), dead_pid()
    left = [
        run.selections / f".killed.parquet.{mark}.{dead}.01234567",
        run.exports / f".killed-jsonl.{mark}.{dead}.01234567" / "killed.jsonl",
        tmp_path / ".uploads" / "0123456789ab" / f".killed.csv.{mark}.{dead}.01234567",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    api.select_samples(run, "next", SelectionConfig(count=5))
    api.export_selection(run, "next", "jsonl", tmp_path / "out.jsonl")
    api.save_upload("next.csv", b"a,b\n1,2\n")
    assert [path for path in left if path.exists()] == []
    assert not left[1].parent.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO], ids=errno.errorcode.get)
def test_an_upload_that_cannot_be_kept_is_told_in_words(tmp_path, monkeypatch, number):
    """It is kept before the page is drawn: out of the page's own guard."""

    @contextmanager
    def refused(path):
        raise OSError(number, os.strerror(number), str(path))
        yield

    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    at = open_page("Data")
    (field,) = at.get("file_uploader")
    file = ("mine.jsonl", b"{}\n", "application/json")
    with monkeypatch.context() as full:
        full.setattr(drafts, "replacing", refused)
        field.set_value([file]).run()
    assert not at.exception
    assert "mine.jsonl cannot be kept: " in messages(at).replace("\\", "")
    assert os.strerror(number).lower() in messages(at).lower()
    (field,) = at.get("file_uploader")
    field.set_value([("other.jsonl", b"{}\n", "application/json")]).run()
    assert "cannot be kept" not in messages(at)


def test_a_draft_is_known_by_its_name(tmp_path):
    with replacing(tmp_path / "scores.parquet") as draft:
        draft.touch()
        found = files.DRAFT.fullmatch(draft.name)
    assert found["machine"] == files._machine_mark()
    assert int(found["pid"]) == os.getpid()


def test_a_file_where_a_folder_is_needed_is_told_in_a_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file" / "run", tmp_path / "file"):
        line = ["grads", "run", "--dataset", "data.jsonl", "--run-dir", str(place)]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1
        assert "a file lies where a folder is needed" in capsys.readouterr().err


# -- what a disk did


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk of RUN"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/x"), "no space left on the disk of /x"),
        (OSError(errno.EROFS, "Read-only file system"), "the disk of RUN cannot be written to"),
        (RuntimeError("PytorchStreamWriter failed writing file data/3"), "no space left on"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), "no"),
        (ValueError("I/O error: No space left on device (os error 28)"), "no space left on"),
        (ValueError("I/O error: Read-only file system (os error 30)"), "the disk of RUN"),
        (OSError(errno.EIO, "Input/output error"), None),
        (ValueError("28 is no size"), None),
    ],
)
def test_a_disk_is_named_whatever_library_says_it(run, error, told):
    found = disk.reason(error, run)
    assert found is None if told is None else found.startswith(told.replace("RUN", str(run.path)))


def test_what_follows_from_a_full_disk_is_its_own(run):
    """A stage that ends with an error tries to write its time, on the same disk."""
    error = KeyError("seconds")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert disk.reason(error, run).startswith("no space left")


def test_the_last_word_is_written_on_a_full_disk(run, monkeypatch):
    """No room for another file: it takes the place of the status before."""
    run.write_status(Status(state="running", message="long " * 100))

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runs, "write_json", lambda path, values: full(path))
    run.write_last_status(Status(state="failed", error="no space left"))
    found = run.read_status()
    assert (found.state, found.error, found.message) == ("failed", "no space left", "")


def test_a_process_that_is_gone_from_a_bad_disk_is_told_so(run, monkeypatch):
    """Where not even the last status could be written, whoever looks sees the disk."""
    run.write_status(Status(state="running", pid=dead_pid(), process_started=1.0))
    assert jobs.observe(run).error == (
        "its process is gone: resume it to go on from the last finished part"
    )
    usage = shutil.disk_usage(run.path)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage._replace(free=4096))
    assert jobs.observe(run).error.startswith("its process is gone: no space left on the disk of")
    monkeypatch.setattr(disk.os, "access", lambda path, mode: False)
    assert "cannot be written to" in jobs.observe(run).error


# -- decisions


def test_a_decision_on_a_full_disk_is_refused_and_the_next_one_counts(tmp_path):
    run = demo_run(tmp_path)
    api.decide(run, 5, "pin", "a fine answer")
    before = run.decisions_file.read_bytes()
    with files_end_at(len(before) + 20), pytest.raises(RunError) as caught:
        api.decide(run, 6, "exclude", "wrong dose")
    assert "could not be kept" in str(caught.value)
    assert "make room" in str(caught.value)
    assert run.decisions_file.read_bytes() == before
    api.decide(run, 7, "exclude", "wrong dose")
    assert {n: made.decision for n, made in api.decisions(run).items()} == {5: "pin", 7: "exclude"}


def test_a_decision_broken_off_is_told_on_the_page_and_by_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    run = demo_run(tmp_path)
    api.decide(run, 5, "pin", "a fine answer")
    with run.decisions_file.open("ab") as file:
        file.write('{"sample_id": 6, "decision": "exclude", "reason": "zwö'.encode()[:-1])
    api.decide(run, 7, "exclude", "wrong dose")
    assert sorted(api.decisions(run)) == [5, 7]
    assert run.unreadable_decisions() == [2]
    assert "line 2 of" in messages(open_page("Select", run="demo"))
    told = CliRunner().invoke(app, ["status", "--run-dir", str(run.path)]).stdout
    assert "line 2 of decisions.jsonl was broken off" in told


@pytest.mark.parametrize("name", ["decisions", "decide", "select", "export"])
def test_a_command_that_goes_on_without_a_decision_says_so(tmp_path, capfd, name):
    run = demo_run(tmp_path)
    api.decide(run, 5, "pin", "a fine answer")
    with run.decisions_file.open("ab") as file:
        file.write(b'{"sample_id": 6, "decision": "ex')
    more = {
        "decide": ["--pin", "7"],
        "select": ["--name", "new", "--ratio", "0.1"],
        "export": ["--selection", "grads-10"],
    }
    done = CliRunner().invoke(app, [name, "--run-dir", str(run.path), *more.get(name, [])])
    assert done.exit_code == 0, done.output
    assert "line 2 of decisions.jsonl was broken off" in done.output + capfd.readouterr().err


def test_lost_decisions_are_no_decisions(tmp_path):
    """An empty file is damage, not that nobody has decided: what was excluded would come back."""
    run = demo_run(tmp_path)
    api.select_samples(run, "first", api.SelectionConfig(ratio=0.1))
    api.decide(run, 5, "exclude", "wrong dose")
    run.decisions_file.write_bytes(b"")
    for ask in (
        lambda: api.decisions(run),
        lambda: api.decide(run, 6, "pin"),
        lambda: api.export_selection(run, "first", "jsonl", tmp_path / "out.jsonl"),
    ):
        with pytest.raises(RunError, match="is empty, so what was decided is lost: put a copy"):
            ask()
    run.decisions_file.unlink()
    assert api.decisions(run) == {}


def test_the_first_line_that_does_not_fit_leaves_no_file(tmp_path):
    path = tmp_path / "lines.jsonl"
    with files_end_at(5), pytest.raises(OSError, match="too large"):
        append_line(path, {"n": 1, "text": "longer"})
    assert not path.exists()


def test_no_decisions_leave_no_file(tmp_path):
    """An empty one says that what was decided is lost, and every command would stop at it."""
    run = demo_run(tmp_path, "undecided")
    api.decide_all(run, [])
    assert not run.decisions_file.exists()
    assert api.decisions(run) == {}


def test_a_decision_is_on_the_disk_before_it_counts(run, monkeypatch):
    """A failing disk may take the line and refuse to keep it."""

    def refuse(number):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(RunError, match="Input/output error"):
        run.decide({"sample_id": 1, "decision": "pin"})
    assert run.read_decisions() == []
