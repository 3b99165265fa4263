"""The structure: direction of imports, what is lazy, and what every command offers."""

import ast
import importlib.util
import inspect
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest
from chain import PATIENCE, ROOT
from run_dirs import PAGES
from typer.testing import CliRunner

from grads.__main__ import app
from grads.config.run import RunConfig
from grads.errors import GradsError

SOURCES = [
    *sorted(p for folder in ("grads", "studio", "pages") for p in (ROOT / folder).rglob("*.py")),
    ROOT / "app.py",
]
PAGE_FILES = [ROOT / "app.py", *sorted((ROOT / "pages").glob("*.py"))]
HEAVY = ("torch", "transformers", "peft", "sklearn", "datasets")


def module_of(path):
    """A file's dotted name: grads.store.runs; packages go by their folder's."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


def imported(path):
    """Own modules that a file imports, at its top or inside a function, each by its full name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it leads"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
    return {name for name in found if name.split(".")[0] in ("grads", "studio", "pages", "app")}


# From below upwards; a package may import those of lower floors, never one of its own floor.
FLOORS = (
    ("grads", "grads.text"),
    ("grads.errors",),
    ("grads.config",),
    ("grads.store", "grads.data"),
    ("grads.engine", "grads.selection", "grads.export", "grads.jobs"),
    ("grads.evaluation", "grads.bench"),
    ("grads.report",),
    ("grads.api",),
    ("grads.stages", "grads.cli", "studio"),
    ("grads.__main__", "pages", "app"),
)
FLOOR = {package: number for number, packages in enumerate(FLOORS) for package in packages}
FACE_ONLY = ("grads.cli", "studio", "pages", "app")  # of grads they call grads.api alone


def package_of(module):
    """The room a module stands in: grads.store, studio."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "grads" else parts[0]


def test_every_room_has_a_floor():
    assert {package_of(module) for module in MODULES} == set(FLOOR)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    """Down the floors or within a package; commands and pages through the face alone."""
    mine = package_of(module)
    for other in imported(MODULES[module]):
        theirs = package_of(other)
        assert theirs == mine or FLOOR[theirs] < FLOOR[mine], f"{module} imports {other}"
        if mine in FACE_ONLY and theirs.startswith("grads"):
            assert theirs in (mine, "grads.api"), f"{module} imports {other}, not grads.api"


def test_no_circles():
    graph = {module: imported(path) & set(MODULES) - {module} for module, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def packages(path):
    """What a file imports by the first part of its name, ours and others'."""
    return {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or "", *(a.name for a in node.names)]
    }


@pytest.mark.parametrize("path", sorted((ROOT / "grads").rglob("*.py")), ids=module_of)
def test_engine_never_imports_streamlit_or_plotly(path):
    assert not packages(path) & {"streamlit", "plotly"}


@pytest.mark.parametrize("path", PAGE_FILES, ids=module_of)
def test_pages_are_short_and_hold_no_logic(path):
    """They import widgets, the face and figures, never what computes."""
    assert not packages(path) & {*HEAVY, "scipy", "plotly"}
    assert len(path.read_text(encoding="utf-8").splitlines()) < 135


def test_every_page_is_known_to_the_tests():
    assert {path.stem for path in PAGE_FILES} == {"app", *PAGES[1:]}


POSITIONAL = 4  # the most parameters that a call can give without their names


def with_many_positional(path):
    """Functions of a file that take more than that by place; a command's are options by name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef):
            continue
        taken = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
        taken = [name for name in taken if name not in ("self", "cls")]
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        is_command = any(text.startswith(("app.command", "with_settings")) for text in decorators)
        if len(taken) > POSITIONAL and not is_command:
            yield node.name


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.parts[len(ROOT.parts)] in ("grads", "studio")], ids=module_of
)
def test_long_calls_name_what_they_give(path):
    assert list(with_many_positional(path)) == []


def test_selection_loads_no_torch():
    code = "import sys, grads.selection.subsets; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


def test_api_imports_without_torch():
    """Pages and the command line answer before any model library is loaded."""
    code = f"import sys, grads.api; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_mathematics_of_selection_knows_no_disk():
    """Arrays in, arrays out: only pool, subsets and decisions touch a run."""
    arrays = ("select", "signal", "density", "criteria", "scores", "filters", "topics")
    for name in (*arrays, "duplicates"):
        found = imported(MODULES[f"grads.selection.{name}"])
        assert not any(package_of(module) == "grads.store" for module in found), name


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


def test_every_command_speaks_json():
    """docs/guide.md promises it of all but the dashboard."""
    for command in app.registered_commands:
        if command.hidden or command.callback.__name__ == "dashboard":
            continue
        assert "as_json" in inspect.signature(command.callback).parameters, command.callback


def test_bench_says_what_to_install(monkeypatch):
    """Its peer comes with an extra."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "opacus" else find(n))
    found = CliRunner().invoke(app, ["bench"])
    assert isinstance(found.exception, GradsError)
    assert "pip install '.[bench]'" in str(found.exception)
