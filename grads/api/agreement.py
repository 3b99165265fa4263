"""Two runs on the same data, and how far they agree on which samples matter."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from grads.api.runs import load_pool
from grads.config.run import RunConfig
from grads.errors import RunError
from grads.selection import agreement
from grads.selection.agreement import Ranks, SharedRows
from grads.store.runs import Run, list_runs


@dataclass(frozen=True)
class RunAgreement:
    """How two runs rank the samples that both have, with what a second seed gives beside it."""

    first: str
    second: str
    again: str | None  # the first run's settings with another seed
    samples: int  # that all of them have
    joined_by: str  # row or text: what tells that two samples are the same
    only_first: int
    only_second: int
    differ: dict[str, tuple[Any, Any]]  # settings of the two runs that are not the same
    columns: dict[str, Ranks]
    by_seed: dict[str, Ranks]
    """The first run against the one of another seed, on the same samples; empty without it."""
    notes: list[str]
    sample_id: np.ndarray = field(repr=False)  # (m,) of the first run
    values: dict[str, tuple[np.ndarray, np.ndarray]] = field(repr=False)  # (m,) by column
    seed_values: dict[str, tuple[np.ndarray, np.ndarray]] = field(repr=False)  # of `by_seed`

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        left_out = ("sample_id", "values", "seed_values", "columns", "by_seed")
        told = {name: value for name, value in vars(self).items() if name not in left_out}
        return told | {
            name: {column: vars(one) for column, one in getattr(self, name).items()}
            for name in ("columns", "by_seed")
        }


def agree(first: Run, second: Run, again: Run | None = None) -> RunAgreement:
    """How far two scored runs agree on the samples that both have.

    `again` differs from the first by its seed alone; then only samples that it has too count, so
    that both comparisons are of the same ones. Raises RunError where it does not, where a run is
    not scored, or where they share too few samples.
    """
    if first.path == second.path:
        raise RunError(f"{first.path} is compared with itself: give another run on the same data")
    if again is not None:
        _refuse_other_settings(first, again)
    pools = load_pool(first), load_pool(second)
    rows = agreement.shared_rows(*pools)
    only = [len(pool) - len(rows.first) for pool in pools]
    beside: tuple[np.ndarray, np.ndarray] | None = None
    if again is not None:
        rows, beside = _in_all(rows, agreement.shared_rows(pools[0], load_pool(again)), first)
    pairs, left_out = agreement.comparable(*pools)
    values = {name: (a[rows.first], b[rows.second]) for name, (a, b) in pairs.items()}
    columns = {name: agreement.ranks(*pair) for name, pair in values.items()}
    seed_values: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    if again is not None and beside is not None:
        seeds, _ = agreement.comparable(pools[0], load_pool(again))
        seed_values = {n: (a[beside[0]], b[beside[1]]) for n, (a, b) in seeds.items()}
    by_seed = {name: agreement.ranks(*pair) for name, pair in seed_values.items()}
    found = {name: one for name, one in columns.items() if one is not None}
    of_seed = {name: one for name, one in by_seed.items() if one is not None and name in found}
    notes = [f"set {name} holds other examples in the two runs: left out" for name in left_out]
    if again is None:
        notes.append(_how_to_tell(first, second))
    return RunAgreement(
        first=str(first.path),
        second=str(second.path),
        again=str(again.path) if again else None,
        samples=len(rows.first),
        joined_by=rows.by,
        only_first=only[0],
        only_second=only[1],
        differ=_differences(first.config(), second.config()),
        columns=found,
        by_seed=of_seed,
        notes=notes,
        sample_id=pools[0].scores.sample_id[rows.first],
        values={name: values[name] for name in found},
        seed_values={name: seed_values[name] for name in of_seed},
    )


def second_seeds(run: Run) -> list[Run]:
    """The scored runs beside this one that differ from it by their seed alone, newest first."""
    config = run.config()
    scored = [other for other in list_runs(run.root) if other.scores_file.exists()]
    return [one for one in scored if set(_differences(config, one.config())) == {"seed"}]


def _in_all(
    rows: SharedRows, others: SharedRows, first: Run
) -> tuple[SharedRows, tuple[np.ndarray, np.ndarray]]:
    """The samples that all three runs have: of the two compared, and of the first and the third."""
    _, mine, theirs = np.intersect1d(rows.first, others.first, return_indices=True)
    if len(mine) < agreement.FEWEST:
        raise RunError(
            f"{first.path} and the two other runs have {len(mine)} scored samples in common: leave"
            " --again out"
        )
    shared = SharedRows(rows.first[mine], rows.second[mine], rows.by)
    return shared, (others.first[theirs], others.second[theirs])


def _refuse_other_settings(first: Run, again: Run) -> None:
    differ = set(_differences(first.config(), again.config()))
    if differ != {"seed"}:
        what = "nothing" if not differ else ", ".join(sorted(differ))
        raise RunError(
            f"{again.path} differs from {first.path} by {what}: give one of other seed and else"
            " the same settings with --again"
        )


def _differences(first: RunConfig, second: RunConfig) -> dict[str, tuple[Any, Any]]:
    a, b = (config.model_dump(mode="json") for config in (first, second))
    return {name: (a[name], b[name]) for name in a if a[name] != b[name]}


def _how_to_tell(first: Run, second: Run) -> str:
    """What is said where no run of another seed stands beside."""
    told = (
        "what a second seed alone changes is not known: give --again RUN, a run with the settings"
        f" of {Path(first.path).name} and another --seed"
    )
    there = [run.id for run in second_seeds(first) if run.path != second.path]
    return f"{told}, such as {there[0]}" if there else told
