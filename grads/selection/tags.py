"""Tags: names by which people find samples again. A sample may have several, a tag many samples."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from grads.errors import RunError
from grads.selection.decisions import now, require_in_pool
from grads.store.records import Part
from grads.store.runs import Run

LONGEST = 60  # characters of a tag


class Tagging(Part):
    """A tag that was put on samples, or taken off them."""

    tag: str
    sample_ids: list[int]
    off: bool = False
    reviewer: str = ""
    time: str = ""
    """ISO 8601, UTC."""


def tag(
    run: Run, name: str, samples: Iterable[int], *, off: bool = False, reviewer: str = ""
) -> list[int]:
    """Put a tag on samples, or take it off them; sorted ids of those that it changes.

    All are noted or none. Raises RunError where the name cannot be one, or a sample is held out or
    none of the run.
    """
    name, wanted = _checked(name), np.unique(np.array(list(samples), np.int64))
    require_in_pool(run, wanted.tolist())
    has = tags(run).get(name, np.array([], np.int64))
    changed: list[int] = (np.intersect1d if off else np.setdiff1d)(wanted, has).tolist()
    if changed:
        made = Tagging(tag=name, sample_ids=changed, off=off, reviewer=reviewer.strip(), time=now())
        run.note(run.tags_file, "tag", "tag again", [made.as_json()])
    return changed


def _checked(name: str) -> str:
    found = " ".join(name.split())
    if not found or len(found) > LONGEST or not found.isprintable():
        raise RunError(
            f"a tag has 1 to {LONGEST} characters, all of them printable: {name[:LONGEST]!r} cannot"
            " be one"
        )
    return found


def tags(run: Run) -> dict[str, np.ndarray]:
    """Sorted ids of the samples that have each tag, by its name; one that none has is no tag."""
    if not run.tags_file.exists():
        return {}
    stamp = run.tags_file.stat()
    return dict(_tags(run.path, (stamp.st_mtime_ns, stamp.st_size)))


@lru_cache(maxsize=8)  # a page asks several times at each redraw
def _tags(path: Path, stamp: tuple[int, int]) -> dict[str, np.ndarray]:
    run, found = Run(path), dict[str, np.ndarray]()
    for row in run.read_noted(run.tags_file).rows:
        made = Tagging.checked(row, run.tags_file)
        has = found.get(made.tag, np.array([], np.int64))
        change = np.setdiff1d if made.off else np.union1d
        found[made.tag] = change(has, np.array(made.sample_ids, np.int64))
    return {name: found[name] for name in sorted(found) if len(found[name])}


def tags_of(run: Run, sample_id: int) -> list[str]:
    """The tags that a sample has, by name."""
    return [name for name, ids in tags(run).items() if sample_id in ids]
