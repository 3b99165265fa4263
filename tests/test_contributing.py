"""CONTRIBUTING.md cannot rot: what it adds is added to a copy, and shown to work there."""

import re
import shutil
import subprocess
import sys

import pytest
from chain import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PARTS = "app.py assets grads pages pyproject.toml studio tests .streamlit".split()
ADDED = {
    "grads/selection/criteria.py",
    "grads/export/files.py",
    "grads/evaluation/metrics.py",
    "grads/engine/gradients.py",
    "grads/store/columns.py",
    "pages/Lengths.py",
    "studio/frame.py",
}


def diffs() -> list[str]:
    """The diffs of the document."""
    return re.findall(r"```diff\n(.*?)```", TEXT, re.S)


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the project with everything that the document adds."""
    copy = tmp_path_factory.mktemp("copy")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / part, copy / part)
    for diff in diffs():
        subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=copy, check=True)
    return copy


def test_every_addition_is_a_diff():
    assert set(re.findall(r"^\+\+\+ b/(.*)", "".join(diffs()), re.M)) == ADDED


def test_the_additions_are_well_formed(extended):
    for check in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *check, *sorted(ADDED)],
            capture_output=True,
            text=True,
            cwd=extended,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.job
def test_commands_and_pages_show_them_and_they_are_right(extended):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "tests/contributed.py"],
        capture_output=True,
        text=True,
        cwd=extended,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "....." in done.stdout
