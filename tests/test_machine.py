"""What the machine refuses, memory, room, permission, is one line that says what to do."""

import errno
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from chain import PATIENCE, ROOT
from run_dirs import BROKEN, DEMO, demo_run, headlines, messages, open_page

from grads import api
from grads.cli import commands
from grads.config.run import RunConfig
from grads.data.tokens import TokenPool
from grads.engine import adapters, models
from grads.engine.passes import Parts
from grads.errors import OUT_OF_MEMORY, ModelError, of_the_machine
from grads.jobs import disk
from grads.jobs import processes as jobs
from grads.stages import worker
from grads.store.runs import Run

HELDOUT = str(DEMO / "medical_qa_heldout.jsonl")
REFUSED = {
    errno.ENOSPC: "no space left on device",
    errno.EDQUOT: "disk quota exceeded",
    errno.EROFS: "read-only file system",
    errno.EACCES: "permission denied",
    errno.ENAMETOOLONG: "file name too long",
}
COMMANDS = {
    "run": ["run", "--dataset", HELDOUT, "--run-dir", "NEW"],
    "select": ["select", "--run-dir", "RUN", "--name", "x", "--ratio", "0.1"],
    "export": ["export", "--run-dir", "RUN", "--selection", "auto"],
    "evaluate": ["evaluate", "--run-dir", "RUN", "--selection", "auto", "--heldout", HELDOUT],
    "resume": ["resume", "--run-dir", "RUN"],
}


def refuse(number, place="/full/disk"):
    def refused(*args, **kwargs):
        raise OSError(number, os.strerror(number), place)

    return refused


@pytest.mark.parametrize("number", REFUSED)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_in_a_line_what_was_refused(tmp_path, monkeypatch, capsys, command, number):
    run = demo_run(tmp_path)
    if command == "resume":
        run.status_file.unlink()
    places = {"RUN": str(run.path), "NEW": str(tmp_path / "new")}
    words = [places.get(word, word) for word in COMMANDS[command]]
    monkeypatch.setattr(sys, "argv", ["grads", *words])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse(number))
        patch.setattr(jobs, "start", refuse(number))
        with pytest.raises(SystemExit) as ended:
            commands.main()
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert REFUSED[number] in line
    assert line.endswith(of_the_machine(OSError(number, "")).rpartition(": ")[2])


def fill(path):
    """What libraries raise at a full disk, each in its own words."""
    return {
        "torch": RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 5 vs 3"),
        "safetensors": ValueError("Error while serializing: I/O error: No space left on device"),
        "numpy": OSError("3000000 requested and 1048544 written"),
        "pyarrow": OSError(errno.ENOSPC, "Error writing bytes to file"),
    }[path]


@pytest.mark.parametrize("library", ["torch", "safetensors", "numpy", "pyarrow"])
def test_a_full_disk_is_told_from_the_words_of_libraries(library):
    assert of_the_machine(fill(library)).startswith("no space left on device: free some space")


def thread_without_room():
    """What a system says that has no room for a stack."""
    before = threading.stack_size(2**46)
    try:
        threading.Thread(target=print).start()
    finally:
        threading.stack_size(before)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: torch.empty(10**15),
        lambda: np.empty(10**15),
        lambda: bytearray(10**16),
        lambda: pa.allocate_buffer(10**16),
        thread_without_room,
    ],
    ids=["torch", "numpy", "python", "pyarrow", "thread"],
)
def test_no_memory_is_told_from_what_libraries_raise(ask):
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        ask()
    assert of_the_machine(caught.value) == OUT_OF_MEMORY


@pytest.mark.parametrize(
    "refused",
    [
        OSError("ZSTD_DCtx create failed"),
        OSError("Unknown error: Failed to launch worker thread: Resource temporarily unavailable"),
        pa.ArrowMemoryError("malloc of size 9 failed"),
    ],
)
def test_memory_refused_while_a_table_is_read_is_no_damage(tmp_path, monkeypatch, refused):
    """Nothing is called damaged that may be whole, and nothing is made anew for it."""
    run = demo_run(tmp_path)
    pool = TokenPool(np.array([4]), np.array([0, 2]), np.array([1, 2]), np.array([False, True]))
    parts = Parts(tmp_path / "parts", pool, batch_tokens=60, made_from="")
    made = []

    def measure(batch):
        made.append(batch)
        return pa.table({"sample_id": [4], "loss": [1.0]})

    def refuse_memory(self, columns=None):
        raise refused

    parts.write(measure)
    monkeypatch.setattr(pq.ParquetFile, "read", refuse_memory)
    reads = (lambda: api.read_selection(run, "auto"), lambda: parts.write(measure), parts.merged)
    for read in reads:
        with pytest.raises(MemoryError) as caught:
            read()
        assert of_the_machine(caught.value) == OUT_OF_MEMORY
    assert len(made) == 1


def test_a_library_that_finds_no_room_is_no_broken_installation():
    error = ImportError("libgfortran.so.5: failed to map segment from shared object")
    assert of_the_machine(error) == OUT_OF_MEMORY


def limited_python(*lines):
    """A process with linear algebra and two threads; after LIMIT it may take 20 MiB more."""
    limit = (
        "import resource, numpy as np",
        "from sklearn.cluster import KMeans",
        "from grads.stages import linear_algebra",
        "points = np.random.default_rng(0).normal(size=(3000, 8)).astype('float32')",
    )
    here = "int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()"
    set_it = f"most = {here} + 20 * 2**20; resource.setrlimit(resource.RLIMIT_AS, (most, most))"
    code = "\n".join((*limit, *lines)).replace("LIMIT", set_it)
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory")
def test_linear_algebra_is_refused_its_memory_before_it_asks_for_it():
    """SciPy's asks for ever."""
    done = limited_python("LIMIT", "linear_algebra.take_buffers()")
    assert done.returncode == 1
    assert of_the_machine(OSError(done.stderr.splitlines()[-1])) == OUT_OF_MEMORY


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory")
def test_what_it_has_taken_is_enough_for_the_clustering():
    """Whose threads would each take more."""
    done = limited_python(
        "linear_algebra.take_buffers()",
        "LIMIT",
        "with linear_algebra.one_thread():",
        "    KMeans(4, random_state=0, n_init=1).fit_predict(points)",
    )
    assert done.returncode == 0, done.stderr


COMMANDS_AT_A_LIMIT = {
    "help": ["--help"],
    "decide": ["decide", "--run-dir", "RUN", "--exclude", "12"],
    "export": ["export", "--run-dir", "RUN", "--selection", "auto", "--format", "hf"],
    "checker": ["checker", "ROOT", str(os.getpid())],
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory")
@pytest.mark.parametrize("megabytes", [150, 300, 350, 400, 450, 500, 600])
@pytest.mark.parametrize("command", COMMANDS_AT_A_LIMIT)
def test_a_command_says_in_a_line_that_its_libraries_find_no_room(tmp_path, command, megabytes):
    """Between these limits loading them ends in a trace, goes on for ever or ends the process."""
    run = demo_run(tmp_path)
    before = sorted(path.name for path in run.path.rglob("*"))
    places = {"RUN": str(run.path), "ROOT": str(tmp_path)}
    words = [places.get(word, word) for word in COMMANDS_AT_A_LIMIT[command]]
    done = subprocess.run(
        [sys.executable, "-m", "grads", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes * 2**20,) * 2),
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: out of memory: to start takes ")
    assert done.stdout == ""
    assert sorted(path.name for path in run.path.rglob("*")) == before


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory")
def test_what_is_asked_for_at_the_start_is_enough():
    """For the libraries of commands, by what Linux says that they have mapped."""
    code = (
        "import grads.__main__ as started\n"
        "status = open('/proc/self/status').read().split()\n"
        "print(started.MAPPED - 1024 * int(status[status.index('VmSize:') + 1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert int(done.stdout) >= 0, done.stderr


def test_other_errors_are_none_of_the_machine():
    for error in (
        KeyError("x"),
        ValueError(""),
        FileNotFoundError(2, "No such file", "x"),
        OSError(),
    ):
        assert of_the_machine(error) is None


@pytest.mark.parametrize("error", [fill("torch"), MemoryError(), OSError(errno.EROFS, "")])
def test_a_job_says_it_in_its_status(tmp_path, monkeypatch, capsys, error):
    run = Run.create(RunConfig(dataset="x.jsonl"), tmp_path / "run")

    def fail(job):
        raise error

    monkeypatch.setattr(worker, "_stages", fail)
    assert worker.main(run, at_once=True) == 1
    assert run.read_status().error == (disk.reason(error, run) or of_the_machine(error))
    assert "Traceback" in capsys.readouterr().out, "the log tells where"


def test_a_job_that_cannot_write_its_status_ends_with_a_line(tmp_path, monkeypatch, capsys):
    run = Run.create(RunConfig(dataset="x.jsonl"), tmp_path / "run")
    monkeypatch.setattr(Run, "write_status", refuse(errno.ENOSPC))
    assert worker.main(run, at_once=True) == 1
    out = capsys.readouterr().out
    assert "failed: no space left on the disk of /full/disk: make room there" in out


def test_a_model_too_large_for_memory_is_not_called_broken(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr(models.AutoModelForCausalLM, "from_pretrained", fail)
    monkeypatch.setattr(models, "_resolve", lambda model: (model, {}))
    with pytest.raises(ModelError, match=r"^out of memory"):
        models.load_model("x", "cpu", torch.float32)
    monkeypatch.setattr(adapters, "get_peft_model", fail)
    with pytest.raises(ModelError, match=r"^out of memory"):
        adapters.add_lora(tiny.make_model("llama-tied"), 4)


def test_a_page_says_it_too(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    demo_run(tmp_path)
    monkeypatch.setattr(api, "load_pool", refuse(errno.EACCES))
    at = open_page("Explore")
    assert "permission denied at /full/disk" in messages(at)
    assert BROKEN not in messages(at)
    assert headlines(at) == []
