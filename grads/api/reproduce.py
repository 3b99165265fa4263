"""A run or a selection once more, from what it has recorded of itself, and how far they agree."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from grads.api.runs import create_run, load_pool
from grads.errors import RunError
from grads.jobs import processes as jobs
from grads.selection.record import read_record, read_selection
from grads.store.columns import MEASURED
from grads.store.folders import open_folder
from grads.store.runs import Run

TOLERANCE = 0.01  # relative: another machine adds floats in another order (docs/demo.md)


@dataclass(frozen=True)
class Agreement:
    """What came out the second time, beside the first."""

    of: Literal["run", "selection"]
    first: str
    second: str  # where the repetition lies; of a selection, the same run
    samples: int  # that both have
    only_first: list[int]
    only_second: list[int]
    differences: dict[str, float] = field(default_factory=dict)
    """Largest relative difference of each score; none of a selection."""
    notes: list[str] = field(default_factory=list)

    @property
    def identical(self) -> bool:
        """Whether every number and every sample is the same."""
        return self.agrees and not any(self.differences.values())

    @property
    def agrees(self) -> bool:
        """Whether they have the same samples, and scores within a percent."""
        same = not (self.only_first or self.only_second)
        return same and all(value <= TOLERANCE for value in self.differences.values())

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**vars(self), "identical": self.identical, "agrees": self.agrees}


def repetition(manifest: Path) -> Run | None:
    """The run, ready to be started, that repeats the one of this manifest; None for a selection.

    It lies beside the first, under its name and `-again`, or `-again-2` and so on where those
    before have finished: one that has not goes on. Raises RunError where the file is the manifest
    of neither, or such a run has been made from other settings.
    """
    if manifest.parent.name == "selections":
        return None
    run = _run_at(manifest.parent if manifest.is_file() else manifest)
    config = run.config()
    if recorded := run.read_manifest().dtype:  # what `auto` was then, and may not be here
        config = config.model_copy(update={"dtype": recorded})
    *_, last = [None, *_made(run)]
    if last is None or jobs.observe(Run(last)).state == "finished":
        last = next(place for place in _places(run) if not place.exists())
    return create_run(config, str(last))


def compared(manifest: Path) -> Agreement:
    """How far the repetition agrees; of a run the last one, once that has finished.

    Raises RunError where there is nothing to compare.
    """
    if manifest.parent.name == "selections":
        return _selection(_run_at(manifest.parents[1]), manifest.stem)
    first = _run_at(manifest.parent if manifest.is_file() else manifest)
    *_, last = [next(_places(first)), *_made(first)]
    return _scores(first, Run.open(last))


def _places(run: Run) -> Iterator[Path]:
    """Where its repetitions lie, one after the other."""
    yield run.path.with_name(f"{run.id}-again")
    for number in count(2):
        yield run.path.with_name(f"{run.id}-again-{number}")


def _made(run: Run) -> list[Path]:
    """Its repetitions that are there."""
    return list(takewhile(Path.exists, _places(run)))


def _run_at(path: Path) -> Run:
    found = open_folder(path)
    if not isinstance(found, Run):
        raise RunError(f"{path} is no run: name the manifest of a run, or a selection's record")
    return found


def _scores(first: Run, second: Run) -> Agreement:
    tables = [run.read_table(run.scores_file).to_pandas() for run in (first, second)]
    a, b = (table.set_index("sample_id") for table in tables)
    both = a.index.intersection(b.index)
    then, now = (_made_of(run) for run in (first, second))
    notes = [
        f"its {what} is another: {now[what]!r}, then {then[what]!r}"
        for what in then
        if now[what] != then[what] and None not in (now[what], then[what])
    ]
    return Agreement(
        of="run",
        first=str(first.path),
        second=str(second.path),
        samples=len(both),
        only_first=sorted(set(a.index) - set(both)),
        only_second=sorted(set(b.index) - set(both)),
        differences={
            name: _largest(a.loc[both, name].to_numpy(), b.loc[both, name].to_numpy())
            for name in MEASURED
            if name in a and name in b
        },
        notes=notes,
    )


def _made_of(run: Run) -> dict[str, Any]:
    """What decides the scores beside the settings; None where a run of before 0.5 did not tell."""
    manifest = run.read_manifest()
    return {
        "data set": manifest.source.digest,
        "model": manifest.model_digest,
        "probe sets": {name: one.digest for name, one in manifest.probes.items()},
        "machine": manifest.device,
        "libraries": manifest.versions,
    }


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference, relative to the spread of the first where that is larger."""
    if not len(a) or np.array_equal(a, b, equal_nan=True):
        return 0.0
    scale = np.maximum(np.abs(a), np.nanmedian(np.abs(a)))
    found = np.abs(a - b) / np.maximum(scale, 1e-30)
    return float("inf") if np.isnan(found).any() else float(found.max())


def _selection(run: Run, name: str) -> Agreement:
    record, table = read_record(run, name), read_selection(run, name)[1]
    pool = load_pool(run)
    kept = pool.scores.sample_id[pool.select(record.options).kept]
    before = table.filter(table["kept"])["sample_id"].to_numpy()
    changed = record.scores_sha256 not in ("", pool.scores_sha256)
    return Agreement(
        of="selection",
        first=str(run.selection_file(name)),
        second=str(run.path),
        samples=len(np.intersect1d(before, kept)),
        only_first=np.setdiff1d(before, kept).tolist(),
        only_second=np.setdiff1d(kept, before).tolist(),
        notes=["the run's scores are others than it was chosen by"] if changed else [],
    )
