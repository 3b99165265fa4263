"""Criteria from installed packages: as commands and pages see them, and what a broken one does."""

import base64
import hashlib
import os
import re
import subprocess
import sys
import tomllib
import zipfile

import numpy as np
import pytest
from chain import ROOT, command
from run_dirs import demo_run, headline, kept_ids, messages, open_page

from grads import api

GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
(MINE,) = re.findall(r"```python\n(.*?)```", GUIDE, re.S)  # its module
(PROJECT,) = map(tomllib.loads, re.findall(r"```toml\n(.*?)```", GUIDE, re.S))


def test_the_package_of_the_document_names_its_module():
    """What a build backend would make of it is what the wheel by hand holds."""
    assert PROJECT["project"]["entry-points"] == {"grads.criteria": {"mine": "surprising:mine"}}


def files_of(name: str, module: str) -> dict[str, str]:
    """What a package holds that names `mine` of its one module as a criterion."""
    info = f"{name}-1.0.dist-info"
    return {
        f"{name}.py": module,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[grads.criteria]\nmine = {name}:mine\n",
    }


def build_wheel(folder, name: str, module: str):
    """A wheel by hand: a zip of the package's files and their digests."""
    files = files_of(name, module)
    record = [
        f"{path},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},{len(text)}"
        for path, text in files.items()
        for digest in [hashlib.sha256(text.encode()).digest()]
    ]
    place = f"{name}-1.0.dist-info/RECORD"
    files[place] = "\n".join([*record, f"{place},,"]) + "\n"
    wheel = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that pip has installed a package with a criterion into."""
    folder = tmp_path_factory.mktemp("package")
    wheel = build_wheel(folder, PROJECT["project"]["name"], MINE)
    target = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--no-deps", "--no-index", "--target", str(target), str(wheel)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return target


def seeing(folder) -> dict[str, str]:
    """The environment of a command that finds the packages of a folder."""
    return os.environ | {"PYTHONPATH": str(folder)}


def by_hand(run: api.Run) -> list[int]:
    """The tenth that has most loss per response token, by plain sorting."""
    scores = api.load_pool(run).scores
    order = np.argsort(-(scores.loss / scores.response_tokens), kind="stable")
    return sorted(scores.sample_id[order[: len(scores) // 10]].tolist())


@pytest.mark.job
def test_the_command_line_selects_by_it(installed, tmp_path):
    run = demo_run(tmp_path)
    select = ["select", "--run-dir", str(run.path), "--name", "tenth", "--criterion", "mine"]
    done = command(*select, "--ratio", "0.1", env=seeing(installed))
    assert done.returncode == 0, done.stderr
    assert kept_ids(run, "tenth") == by_hand(run)
    assert "shortest, random, mine." in " ".join(
        command("select", "--help", env=seeing(installed)).stdout.split()
    )
    without = command(*select, "--ratio", "0.1")
    assert without.returncode == 2
    assert "there is no such criterion: choose one of grads," in without.stderr


def test_the_page_select_lists_it(installed, tmp_path, monkeypatch):
    run = demo_run(tmp_path)
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    monkeypatch.syspath_prepend(str(installed))
    api.criteria.cache_clear()
    try:
        at = open_page("Select", run="demo", criterion="mine")
        assert headline(at) == "Keep 30 of 300 examples"
        (box,) = [box for box in at.selectbox if box.label == "What counts"]
        assert "Surprise per answer token" in box.options
        assert box.value == "mine"
        shown = api.preview(api.load_pool(run), api.SelectionConfig(criterion="mine", ratio=0.1))
        ids = api.load_pool(run).scores.sample_id[shown.kept].tolist()
        assert ids == by_hand(run)
    finally:
        api.criteria.cache_clear()


BROKEN = {
    "import nowhere": "'mine' of an installed package cannot be loaded (No module named 'nowhere')",
    "mine = 3": "'broken:mine' of an installed package is no criterion",
    MINE.replace('"mine"', '"grads"'): "'broken:mine' of an installed package is no criterion",
}


@pytest.fixture(params=BROKEN, ids=["no module", "no criterion", "a name that is taken"])
def broken(request, tmp_path):
    """A folder with a package whose criterion cannot be used, and what is said of it."""
    for path, text in files_of("broken", request.param).items():
        (tmp_path / "site" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / path).write_text(text)
    return tmp_path / "site", BROKEN[request.param]


@pytest.mark.job
def test_a_broken_one_is_named_where_criteria_are_needed(broken, tmp_path):
    """And there alone: the other commands, and the workers of jobs, do not care."""
    site, message = broken
    run = demo_run(tmp_path)
    select = ["select", "--run-dir", str(run.path), "--name", "tenth", "--ratio", "0.1"]
    done = command(*select, env=seeing(site))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "mend or uninstall it" in done.stderr
    done = command("list", "--runs-dir", str(tmp_path), env=seeing(site))
    assert done.returncode == 0, done.stderr


@pytest.mark.job
def test_a_broken_one_is_named_on_the_page(broken, tmp_path, monkeypatch):
    site, message = broken
    demo_run(tmp_path)
    monkeypatch.setenv("GRADS_RUNS_DIR", str(tmp_path))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    api.criteria.cache_clear()
    try:
        assert message in messages(open_page("Select", run="demo"))
    finally:
        api.criteria.cache_clear()
