"""The wheel: what lies in it, and that it works in a fresh environment outside the checkout."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.request
import venv
from contextlib import suppress
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import NamedTuple
from zipfile import Path as ZipPath
from zipfile import ZipFile

import psutil
import pytest
from chain import ROOT, save_tiny_model, write_data
from run_dirs import PAGES

from grads import __version__
from grads.cli.dashboard import free_port

pytestmark = pytest.mark.wheel

PATIENCE = 300  # seconds for a command, on a machine with other work
BUNDLED = "grads/_bundled/"
# They make what is bundled.
TOOLS = {
    *("assets/study.py", "assets/direction_study.py", "assets/when_study.py"),
    *("assets/lock.py", "assets/licences.py", "assets/words.py", "assets/demo/build.py"),
}
# Draws every installed page, about the demo.
DRAW = """
import run_dirs
from grads import api
from grads.store.bundled import BUNDLED
api.place_demo()
run_dirs.ROOT = BUNDLED
for page in run_dirs.PAGES:
    print(run_dirs.headline(run_dirs.open_page(page, run="demo")))
"""


class Installed(NamedTuple):
    """An environment's Python, its command `grads`, and where its packages lie."""

    python: Path
    grads: Path
    packages: Path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built as `pip install .` builds it."""
    folder = tmp_path_factory.mktemp("built")
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A fresh environment with the wheel in it; what that requires comes from the running one."""
    folder = tmp_path_factory.mktemp("fresh")
    assert not folder.is_relative_to(ROOT)
    venv.create(folder, symlinks=True)
    places = {"base": str(folder), "platbase": str(folder)}
    programs, packages = (
        Path(sysconfig.get_path(name, "venv", places)) for name in ("scripts", "purelib")
    )
    borrowed = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    (packages / "borrowed.pth").write_text("\n".join(borrowed))
    pip(programs / "python", "install", "--no-deps", "--no-index", wheel)
    return Installed(programs / "python", programs / "grads", packages)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder as a user has it: data, a model, settings; no code."""
    folder = tmp_path_factory.mktemp("place")
    save_tiny_model(folder / "model")
    write_data(folder / "data.jsonl")
    settings = {"dataset": "data.jsonl", "model": str(folder / "model"), "max_length": 64}
    settings |= {"batch_size": 4, "lora_rank": 4}
    (folder / "run.yaml").write_text(json.dumps(settings))
    return folder


def pip(python, command, *arguments):
    """The running environment's pip, for any environment."""
    options = ["--python", python, "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", *options, command, *arguments],
        check=True,
        timeout=2 * PATIENCE,
    )


def surroundings(**values):
    """The environment of a user who has set nothing for this project."""
    own = ("PYTHONPATH", "GRADS_RUNS_DIR", "GRADS_DATA_DIRS", "DISPLAY")
    return {name: text for name, text in os.environ.items() if name not in own} | values


def output(*command, cwd, **environment):
    """What a command prints; it must succeed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=surroundings(**environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def files_in(*folders):
    """The files below these folders of the checkout, as paths from its top."""
    found = (path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in found if path.suffix != ".pyc"}


def required(name):
    """The requirements that a file names itself."""
    lines = (ROOT / name).read_text(encoding="utf-8").lower().splitlines()
    return {line for line in lines if line and not line.startswith(("#", "-r"))}


def test_it_holds_the_engine_the_dashboard_and_the_demo(wheel):
    """No less, and nothing that is needed in the checkout alone."""
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        (licence,) = (name for name in names if name.endswith(".dist-info/licenses/LICENSE"))
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    outside = files_in("pages", "studio", "assets", ".streamlit") - TOOLS | {"app.py"}
    assert {name.removeprefix(BUNDLED) for name in names if name.startswith(BUNDLED)} == outside
    engine = {n for n in names if not n.startswith(BUNDLED) and ".dist-info/" not in n}
    assert engine == files_in("grads")
    assert "grads/py.typed" in engine


def test_what_it_says_of_itself_stands_in_one_place(wheel):
    """Version, requirements, extras, licence and the command."""
    (info,) = (entry for entry in ZipPath(wheel).iterdir() if entry.name.endswith(".dist-info"))
    found = PathDistribution(info)
    assert found.version == __version__
    assert found.metadata["License-Expression"] == "Apache-2.0"
    assert [(e.name, e.value, e.group) for e in found.entry_points] == [
        ("grads", "grads.__main__:main", "console_scripts")
    ]
    assert {line for line in found.requires if ";" not in line} == required("requirements.txt")
    assert found.metadata.get_all("Provides-Extra") == ["bench", "dev", "quantize", "tasks"]
    bench, tasks = required("requirements-bench.txt"), required("requirements-tasks.txt")
    extras = {"bench": bench, "tasks": tasks}
    extras["quantize"] = required("requirements-quantize.txt")
    extras["dev"] = bench | tasks | required("requirements-dev.txt")
    assert {line for line in found.requires if ";" in line} == {
        f"{line}; extra == '{extra}'" for extra, lines in extras.items() for line in lines
    }


def test_run_select_and_export_with_the_installed_command(installed, place):
    where = output(installed.python, "-c", "import grads; print(grads.__file__)", cwd=place)
    assert Path(where.strip()).parent == installed.packages / "grads"
    grads = installed.grads
    ran = output(
        grads, "run", "--config", "run.yaml", "--run-dir", "runs/mine", "--json", cwd=place
    )
    assert json.loads(ran)["status"]["state"] == "finished"
    chosen = ["--run-dir", "runs/mine", "--name", "half", "--ratio", "0.5", "--json"]
    kept = json.loads(output(grads, "select", *chosen, cwd=place))["samples"]["kept"]
    out = ["--run-dir", "runs/mine", "--selection", "half", "--out", "half.jsonl"]
    output(grads, "export", *out, cwd=place)
    lines = (place / "half.jsonl").read_bytes().splitlines()
    assert len(lines) == kept == 26  # of 58 usable rows 5 are set aside
    assert set(lines) <= set((place / "data.jsonl").read_bytes().splitlines())


def test_the_installed_dashboard_answers_holds_the_demo_and_ends(installed, place):
    """A SIGTERM ends the server too."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [installed.grads, "dashboard", "--port", str(port)],
        cwd=place,
        env=surroundings(),
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE
        while not answers(f"{url}/_stcore/health"):
            assert process.poll() is None, "the dashboard has ended"
            assert time.monotonic() < deadline, "the dashboard does not answer"
            time.sleep(0.2)
        assert b"<title>" in answers(url)
        demo = ROOT / "assets" / "demo" / "run"
        for path in filter(Path.is_file, demo.rglob("*")):
            copy = place / "runs" / "demo" / path.relative_to(demo)
            assert copy.read_bytes() == path.read_bytes(), copy
        servers = psutil.Process(process.pid).children(recursive=True)
        assert servers, "the server is a process of its own"
        process.terminate()
        assert process.wait(PATIENCE) == 0
        assert psutil.wait_procs(servers, timeout=PATIENCE)[1] == []
        assert not answers(url)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def answers(url):
    """What a server says, or nothing where none listens."""
    with suppress(OSError), urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()
    return b""


def test_pages_and_jobs_work_in_the_folder_of_the_installed_server(installed, place, tmp_path):
    """That is where the server runs, so that it finds its pages, and from where it starts jobs."""
    cwd = installed.packages / BUNDLED
    runs = {"GRADS_RUNS_DIR": str(tmp_path)}
    drawn = output(installed.python, "-c", DRAW, cwd=cwd, PYTHONPATH=str(ROOT / "tests"), **runs)
    assert len(drawn.splitlines()) == len(PAGES)
    assert "What the model finds in 300 examples" in drawn
    job = ["run", "--config", place / "run.yaml", "--dataset", place / "data.jsonl", "--json"]
    ran = output(installed.python, "-m", "grads", *job, cwd=cwd, **runs)
    assert json.loads(ran)["status"]["state"] == "finished"
