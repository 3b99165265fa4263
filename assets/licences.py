"""docs/licences.md: what is locked, and under which licences, as the packages themselves say."""

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = {"requirements.lock": "make run", "requirements-dev.lock": "make test"}
ENTRY = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)
LONGEST = 150  # characters of a licence; some packages give its whole text as its name
INTRO = """\
# Licences

Every package that is locked, with its licence as the package itself gives it; made by `make lock`.
None of them is part of this repository. torch is in no lock ([CONTRIBUTING.md](../CONTRIBUTING.md))
and stands here with the others.
"""
NOT_HERE = "not installed on the machine that made this list"


def licence(name: str) -> str:
    """What a package says: its expression, else its field if short, else its classifiers."""
    try:
        found = metadata(name)
    except PackageNotFoundError:
        return NOT_HERE
    written = (found.get("License-Expression") or found.get("License") or "").strip()
    classified = [
        value.rpartition(" :: ")[2]
        for value in found.get_all("Classifier") or []
        if value.startswith("License :: ")
    ]
    if written and written != "UNKNOWN" and len(written) <= LONGEST and "\n" not in written:
        return written
    return ", ".join(classified) or "not given"


def entries(name: str) -> list[tuple[str, str]]:
    """Name and version of each package of a lock, or of a file of requirements."""
    return ENTRY.findall((ROOT / name).read_text())


def main() -> None:
    """A table for each command."""
    parts = [INTRO]
    for lock, command in LOCKS.items():
        found = entries(lock)
        if lock == "requirements.lock":
            found += [entry for entry in entries("requirements.txt") if entry[0] == "torch"]
        rows = [f"| {name} | {version} | {licence(name)} |\n" for name, version in sorted(found)]
        head = "| package | version | licence |\n|---|---|---|\n"
        parts.append(f"\n## `{command}`\n\n{head}{''.join(rows)}")
    (ROOT / "docs" / "licences.md").write_text("".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
