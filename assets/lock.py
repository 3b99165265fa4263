"""The locks: every package of `make run` and `make test`, with its version and the digests of its
files.

torch is in neither. A machine without a GPU takes it from another place, as other files than one
with; its version is pinned in requirements.txt, from which it is installed behind the lock.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
OLDEST_PYTHON = "3.11"
ENTRY = re.compile(r"^(?P<name>[\w.-]+)==.*?(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
OF_TORCH = re.compile(
    r"torch=|triton=|cuda-|nvidia-(?!ml-py)"
)  # with what its builds for GPUs need
NOTE = "# Made by `make lock` of {sources}.\n"


def resolved(sources: list[str], like: str = "", alone: bool = False) -> dict[str, str]:
    """The entries of all that these files ask for, for every system; `alone` without what that
    needs in turn.

    `like` is a lock whose versions are kept where they fit.
    """
    draft = ROOT / ".draft.lock"
    draft.write_text(like)
    options = ["--universal", "--python-version", OLDEST_PYTHON, "--generate-hashes"]
    options += ["--no-header", "--no-annotate", "--quiet", *(["--no-deps"] if alone else [])]
    uv = Path(sys.executable).with_name("uv")
    try:
        subprocess.run(
            [uv, "pip", "compile", *options, "--output-file", draft, *sources], cwd=ROOT, check=True
        )
        return entries(draft.read_text())
    finally:
        draft.unlink()


def entries(lock: str) -> dict[str, str]:
    """The entries of a lock by name and version, without those of torch."""
    found = {entry[0].split()[0]: entry[0] for entry in ENTRY.finditer(lock)}
    return {key: entry for key, entry in found.items() if not OF_TORCH.match(key)}


def write(name: str, sources: list[str], found: dict[str, str]) -> None:
    """A lock of these entries, by name."""
    text = "".join(found[key] for key in sorted(found))
    (ROOT / name).write_text(NOTE.format(sources=" and ".join(sources)) + text)


def main() -> None:
    """Both locks; the second holds what the first does not. They agree on every version."""
    every = resolved(["requirements.txt", "requirements-dev.txt"])
    run = resolved(["requirements.txt"], like="".join(every.values()))
    if other := set(run) - set(every):
        raise SystemExit(f"the tests need other versions than {', '.join(sorted(other))}")
    run = {key: every[key] for key in run}  # the tests may need one on more systems
    demo, peers = (resolved([f"requirements-{n}.txt"], alone=True) for n in ("demo", "peers"))
    more = {key: entry for key, entry in every.items() if key not in run} | peers
    write("requirements.lock", ["requirements.txt", "requirements-demo.txt"], run | demo)
    write("requirements-dev.lock", ["requirements-dev.txt", "requirements-peers.txt"], more)


if __name__ == "__main__":
    main()
