"""The structure: direction of imports, what is lazy, and what the documents promise."""

import ast
import importlib.util
import inspect
import re
import subprocess
import sys

import pytest
from chain import PATIENCE, ROOT
from typer.testing import CliRunner

from grads.__main__ import app
from grads.config.run import RunConfig
from grads.errors import GradsError

ENGINE = sorted((ROOT / "grads").rglob("*.py"))
HEAVY = ("torch", "transformers", "peft", "sklearn", "datasets")


@pytest.mark.parametrize("path", ENGINE, ids=lambda path: path.stem)
def test_engine_never_imports_streamlit(path):
    imported = [
        name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or "", *(a.name for a in node.names)]
    ]
    assert not any(name.split(".")[0] == "streamlit" for name in imported)


def test_api_imports_without_torch():
    """Pages and the command line answer before any model library is loaded."""
    code = f"import sys, grads.api; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_selection_knows_neither_disk_nor_torch():
    folder = ROOT / "grads" / "selection"
    text = "".join((folder / f"{n}.py").read_text("utf-8") for n in ("select", "density"))
    imported = re.findall(r"^(?:from|import) (\S+)", text, re.M)
    allowed = {"dataclasses", "numpy", "scipy.special", "scipy.ndimage"}
    own = {"grads.config.run", "grads.selection.density", "grads.errors"}
    assert {"numpy", "grads.config.run"} <= set(imported) <= allowed | own


def test_every_command_is_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = [c.name or c.callback.__name__ for c in app.registered_commands if not c.hidden]
    assert {
        "run",
        "select",
        "export",
        "list",
        "status",
        "stop",
        "resume",
        "bench",
        "evaluate",
        "tune",
        "dashboard",
    } <= set(names)
    for name in names:
        assert f"python -m grads {name}" in readme, name


def test_help_gives_units_and_defaults():
    """Each setting's own docstring and default, as a user reads them."""
    done = subprocess.run(
        [sys.executable, "-m", "grads", "run", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=PATIENCE,
    )
    words = " ".join(done.stdout.split())
    for field in ("max_length", "batch_tokens", "lora_rank", "warmup", "dtype"):
        default = RunConfig.model_fields[field].default
        assert f"[default: {default}]" in words, field
    assert "Longest sample, in tokens" in words
    assert "One of lora, full, none." in words
    assert "the clusters. [default: 0]" in words


def test_readme_options_exist():
    """Every option that the README names is one that some command has."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    known = set()
    commands = "run select export evaluate tune list status stop resume bench dashboard".split()
    for command in commands:
        done = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
        assert done.exit_code == 0, done.output
        known |= set(re.findall(r"--[a-z][a-z-]+", done.stdout))
    blocks = "\n".join(re.findall(r"```.*?\n(.*?)```", readme, re.S))
    used = set(re.findall(r"(?<=\s)--[a-z][a-z-]+", blocks))
    assert used
    assert used <= known


def test_every_command_speaks_json():
    """The README promises it of all but the dashboard."""
    shown = [c.callback for c in app.registered_commands if not c.hidden]
    silent = [c.__name__ for c in shown if "as_json" not in inspect.signature(c).parameters]
    assert len(shown) > 9
    assert silent == ["dashboard"]


def test_bench_says_what_to_install(monkeypatch):
    """Its peer is a requirement of the tests alone."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "opacus" else find(n))
    found = CliRunner().invoke(app, ["bench"])
    assert isinstance(found.exception, GradsError)
    assert "pip install -r requirements-dev.txt" in str(found.exception)
