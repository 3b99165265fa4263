"""What is installed: pinned, locked with digests, complete, and under licences that are listed."""

import re
from importlib.metadata import PackageNotFoundError, requires

import pytest
from chain import ROOT
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FILES = sorted(path.name for path in ROOT.glob("requirements*.txt"))
LOCKS = {  # what each is made of
    "requirements.lock": ["requirements.txt", "requirements-demo.txt"],
    "requirements-dev.lock": [
        *["requirements-dev.txt", "requirements-bench.txt", "requirements-tasks.txt"],
        "requirements-peers.txt",
    ],
}
ALONE = ["requirements-demo.txt", "requirements-peers.txt"]  # without what they require
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def pinned(name):
    """Package and version by line of a requirement file."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    own = [line for line in lines if line and not line.startswith(("#", "-r"))]
    return {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in own}


def entries(name):
    """(package, version, text) of each entry of a lock."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.findall(r"^([\w.-]+)==(\S+)(.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    return [(canonicalize_name(package), version, rest) for package, version, rest in found]


@pytest.mark.parametrize("name", FILES)
def test_every_requirement_is_pinned(name):
    assert all(pinned(name).values())


def test_every_requirement_file_has_its_lock():
    named = {file for files in LOCKS.values() for file in files}
    # Those of `make lock` and of the extra that needs a GPU to be of use stand by themselves.
    alone = {"requirements-tools.txt", "requirements-quantize.txt"}
    assert named == set(FILES) - alone


@pytest.mark.parametrize("name", LOCKS)
def test_lock_and_requirements_agree(name):
    """Package by package; torch is in neither lock."""
    found = {(package, version) for package, version, _ in entries(name)}
    asked = {pair for file in LOCKS[name] for pair in pinned(file).items()}
    assert asked - found == {pair for pair in asked if pair[0] == "torch"}


@pytest.mark.parametrize("name", LOCKS)
def test_every_entry_has_digests(name):
    """Of each file that there is of it, and nothing else: no place that it comes from."""
    for package, _, rest in entries(name):
        assert HASH.search(rest), package
        marker = HASH.sub("", rest).replace("\\", "").strip()
        assert re.fullmatch(r"(; [\w .'<>=!()]+)?", marker), package
    assert "://" not in (ROOT / name).read_text(encoding="utf-8")


def test_the_locks_do_not_contradict_each_other():
    run, more = ([package for package, _, _ in entries(name)] for name in LOCKS)
    assert not set(run) & set(more)


def test_what_comes_with_a_build_of_torch_is_not_locked():
    """Its files differ by where it is taken from, and so does what it brings for GPUs."""
    found = [package for name in LOCKS for package, _, _ in entries(name)]
    assert [p for p in found if re.match(r"torch$|triton|cuda-|nvidia-", p)] == ["nvidia-ml-py"]


def is_for_here(rest):
    """Whether an entry of a lock is installed on this system."""
    marker = HASH.sub("", rest).replace("\\", "").strip().removeprefix(";").strip()
    return not marker or Marker(marker).evaluate()


@pytest.mark.parametrize("name", LOCKS)
def test_the_locks_are_complete(name):
    """What is installed requires nothing that is not locked: the locks are installed alone."""
    locks = [name] if name == "requirements.lock" else LOCKS
    there = {package for lock in locks for package, _, rest in entries(lock) if is_for_here(rest)}
    there.add("torch")
    alone = {package for file in ALONE for package in pinned(file)}
    for package, _, _ in entries(name):
        try:
            wanted = [] if package in alone else [Requirement(r) for r in requires(package) or []]
        except PackageNotFoundError:  # of another system
            continue
        needed = {canonicalize_name(r.name) for r in wanted if not r.marker or r.marker.evaluate()}
        assert needed <= there, package


def test_make_installs_what_is_locked():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in LOCKS:
        assert f"$(INSTALL) --no-deps --require-hashes -r {name}" in makefile


def test_every_licence_is_listed():
    text = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w.-]+) \| (\S+) \| (.+) \|$", text, re.MULTILINE)
    listed = {
        (canonicalize_name(name), version) for name, version, _ in rows if version != "version"
    }
    locked = {(package, version) for name in LOCKS for package, version, _ in entries(name)}
    assert listed == locked | {("torch", pinned("requirements.txt")["torch"])}
