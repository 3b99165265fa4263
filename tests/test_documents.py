"""The documents say what is so: commands, files, columns, stages and modules, each named."""

import ast
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
from chain import ROOT, save_tiny_model
from run_dirs import DEMO
from test_layout import FLOORS, MODULES

from grads.__main__ import app
from grads.config.base import read_yaml
from grads.config.run import RunConfig
from grads.store.columns import SCORES
from grads.store.folders import Evaluation
from grads.store.pipeline import STAGES
from grads.store.runs import JobFolder, Run


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


README, GUIDE = read("README.md"), read("docs/guide.md")
RUN_DIRECTORY, ARCHITECTURE = read("docs/run-directory.md"), read("docs/architecture.md")
DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("*.md"))
DOCUMENTS += sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
COMMANDS = {c.name or c.callback.__name__: c for c in app.registered_commands if not c.hidden}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def commands(text: str) -> list[list[str]]:
    """The arguments of each call in a document's blocks, by python or a launcher of it."""
    lines = "\n".join(blocks(text, "bash")).splitlines()
    words = [shlex.split(line, comments=True) for line in lines if line]
    assert {line[0] for line in words} <= {"python", "torchrun", "accelerate"}
    starts = [line.index("grads") for line in words]
    assert all(line[at - 1] == "-m" for line, at in zip(words, starts, strict=True))
    return [line[at + 1 :] for line, at in zip(words, starts, strict=True)]


def quoted(text: str) -> list[str]:
    """What stands in back quotes."""
    return re.findall(r"`([^`\n]+)`", text)


def rows(text: str) -> list[tuple[list[str], list[str]]]:
    """The rows of a text's tables: what is quoted in the first cell, and the others."""
    lines = [line for line in text.splitlines() if re.match(r"\| *`", line)]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return [(quoted(first), rest) for first, *rest in cells]


def section(text: str, title: str) -> str:
    """What stands below a title, up to the next one."""
    (found,) = re.findall(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", text, re.S | re.M)
    return found


# -- commands


@pytest.mark.parametrize("line", [*commands(README), *commands(GUIDE)], ids=" ".join)
def test_a_command_parses(line):
    """With every option and its kind; nothing is run."""
    command, *options = line
    typer.main.get_command(app).commands[command].make_context(command, options)


def test_the_readme_names_every_command():
    assert {line[0] for line in commands(README)} == set(COMMANDS)


def test_every_option_that_is_named_exists():
    """Those in running text too."""
    group = typer.main.get_command(app)
    known = {
        option
        for command in group.commands.values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    ours = re.sub(r"^(torchrun|accelerate) .*? -m grads", "", README + GUIDE, flags=re.M)
    named = set(re.findall(r"(?<=[\s`])--[a-z][a-z-]+", ours))
    assert {"--ratio", "--first-seed", "--with-scores"} <= named
    assert named <= known | {"--help"}


@pytest.mark.job
def test_the_readme_goes_from_data_to_files(tmp_path):
    """Its first commands as they stand, but with a tiny model and fewer rows."""
    save_tiny_model(tmp_path / "model")
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    run, *others = commands(README)[:5]
    assert [line[0] for line in others] == ["select", "export", "probe", "select"]
    for line in ([*run, "--model", "model", "--limit", "40"], *others):
        done = subprocess.run(
            [sys.executable, "-m", "grads", *line],
            cwd=tmp_path,
            env={"PATH": "", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
    source = read("assets/demo/medical_qa.jsonl").splitlines()[:40]
    written = (tmp_path / "tenth.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(written) == 4
    assert set(written) <= set(source)


def test_the_settings_of_the_guide_are_settings(tmp_path):
    (text,) = blocks(GUIDE, "yaml")
    (tmp_path / "run.yaml").write_text(text)
    config = RunConfig.parse(read_yaml(tmp_path / "run.yaml"))
    assert config.heldout == 100
    assert config.columns == {"prompt": "question_text", "response": "reply"}


# -- links


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)]+)\)", read(document)):
        if not target.startswith("http"):
            assert (ROOT / document).parent.joinpath(target).is_file(), target


def test_pictures_are_small_and_the_readme_shows_them():
    pictures = list((ROOT / "docs" / "images").glob("*.png"))
    assert {picture.stem for picture in pictures} == {"select", "explore"}
    assert all(f"](docs/images/{picture.name})" in README for picture in pictures)
    assert all(picture.stat().st_size < 300_000 for picture in pictures)


# -- architecture


def test_every_module_has_its_line():
    """Once; a package by its folder's name."""
    named = Counter(name for names, _ in rows(ARCHITECTURE) for name in names)
    files = [path.relative_to(ROOT).as_posix() for path in MODULES.values()]
    assert named == Counter(file.removesuffix("__init__.py") for file in files)


def test_the_drawing_has_the_floors():
    """Every room once, on the floor that the test of imports holds it to."""
    drawing = re.findall(r"```\n(.*?)```", ARCHITECTURE, re.S)[0].splitlines()
    rooms = {room for floor in FLOORS for room in floor}
    drawn = [{word for word in re.split(r"[ |+-]+", line) if word in rooms} for line in drawing]
    assert [floor for floor in drawn if floor] == [set(floor) for floor in reversed(FLOORS)]


# -- the run directory


def paths_of(folder: JobFolder) -> set[str]:
    """Names of the files and folders that a job folder knows, within it."""
    values = [value for value in vars(folder).values() if isinstance(value, Path)]
    return {path.relative_to(folder.path).as_posix() for path in values} - {"."}


def test_every_file_of_a_run_is_told_of(tmp_path):
    run = Run(tmp_path)
    named = {name.rstrip("/") for names, _ in rows(RUN_DIRECTORY) for name in names}
    assert paths_of(run) <= named
    assert paths_of(Evaluation(run, "tenth")) <= named


@pytest.mark.parametrize(
    "name",
    [
        "samples.parquet",
        "tokens.parquet",
        "scores.parquet",
        "features.parquet",
        "token_signal/signals.parquet",
        "probes/<name>.parquet",
        "extras.parquet",
        "selections/<name>.parquet",
    ],
)
def test_every_column_is_told_of(name):
    """Those of the bundled run, in order."""
    told = [column for names, _ in rows(section(RUN_DIRECTORY, f"`{name}`")) for column in names]
    example = "good" if name.startswith("probes") else "grads-10"
    file = DEMO / "run" / name.replace("<name>", example)
    assert told == pq.read_schema(file).names


def test_scores_have_the_types_that_are_told():
    told = [(n[0], cells[0]) for n, cells in rows(section(RUN_DIRECTORY, "`scores.parquet`"))]
    assert told == [(name, str(column.kind)) for name, column in SCORES.items()]


def test_every_key_of_the_manifest_is_told_of():
    """All that any stage writes there."""
    calls = [
        node
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "update_manifest"
    ]
    written = {keyword.arg for call in calls for keyword in call.keywords}
    told = [key for names, _ in rows(section(RUN_DIRECTORY, "The manifest")) for key in names]
    assert set(told) == written
    assert len(told) == len(written)


def test_the_stages_are_told_as_they_are():
    lines = section(RUN_DIRECTORY, "Digests and resume").splitlines()
    cells = [line.split("|")[1:-1] for line in lines if line.startswith("| ")][1:]
    assert [line[0].strip() for line in cells] == list(STAGES)
    for stage, line in zip(STAGES.values(), cells, strict=True):
        makes, needs = (tuple(quoted(cell)) for cell in line[1:])
        assert (makes, needs) == (stage.makes, stage.needs)
