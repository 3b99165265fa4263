"""What stays when a disk is full, or a writer is killed: nothing is lost, nothing silent."""

import json
import resource
from contextlib import contextmanager

import pytest
from run_dirs import demo_run, messages, open_page
from typer.testing import CliRunner

from grads import api
from grads.__main__ import app
from grads.config.run import RunConfig
from grads.errors import RunError
from grads.store.lines import append_line, read_lines
from grads.store.runs import Run


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


def test_a_decision_is_on_the_disk_before_it_counts(run, monkeypatch):
    """A failing disk may take the line and refuse to keep it."""

    def refuse(number):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(RunError, match="Input/output error"):
        run.decide({"sample_id": 1, "decision": "pin"})
    assert run.read_decisions() == []
