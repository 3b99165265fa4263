"""A saved selection: what was asked for and what came of it, beside the table of its samples."""

from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, ValidatorFunctionWrapHandler, field_serializer, field_validator

from grads.errors import RunError
from grads.selection.criteria import criteria
from grads.selection.options import SelectionConfig
from grads.store.files import digest, read_table, remove_drafts, replacing, write_table
from grads.store.records import Part, Stored
from grads.store.runs import Run


class Decision(Part):
    """What a person decided about a sample."""

    sample_id: int
    decision: Literal["pin", "exclude", "clear"]
    reason: str = ""
    reviewer: str = ""
    time: str = ""
    """ISO 8601, UTC."""
    settles: bool = False
    """Whether it stands in the place of all that was said of the sample before, by anyone."""


class SampleCounts(Part):
    """Samples kept, of those in the pool."""

    kept: int
    pool: int


class TokenCounts(Part):
    """Response tokens of what is kept, of as many random samples on average, and of the pool."""

    kept: int
    random: int
    pool: int


class SelectionRecord(Stored):
    """What a saved selection was made of, and what it keeps."""

    name: str
    options: SelectionConfig
    made: str = ""
    """ISO 8601, UTC."""
    version: str = ""
    """Of GrADS Studio."""
    scores_sha256: str = ""
    """Of the scores.parquet that it was chosen by."""
    table_sha256: str = ""
    """Of the table beside it; none before 0.5."""
    samples: SampleCounts
    response_tokens: TokenCounts
    decisions: list[Decision] = Field(default_factory=list)
    """What people had decided about single samples, as far as it was followed."""
    notes: list[str] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)

    @field_validator("options", mode="wrap")
    @classmethod
    def _of_an_uninstalled_criterion(
        cls, options: Any, usual: ValidatorFunctionWrapHandler
    ) -> SelectionConfig:
        """A selection outlives the package that its criterion came from: it can still be read.

        Only choosing anew by it fails. What else the options say is checked with a criterion that
        goes together with it.
        """
        name = options.get("criterion") if isinstance(options, dict) else None
        if not isinstance(name, str) or name in criteria():
            checked: SelectionConfig = usual(options)
            return checked
        stand_in = "grads" if options.get("auto") else "random"
        checked = usual(options | {"criterion": stand_in})
        return checked.model_copy(update={"criterion": name})

    @field_serializer("options")
    def _in_full(self, options: SelectionConfig) -> dict[str, Any]:
        """Every option: a default may be another one in a later version."""
        return options.model_dump(mode="json")


def read_selection(run: Run, name: str) -> tuple[SelectionRecord, pa.Table]:
    """A saved selection's record and its table (sample_id, kept, score, log_density, signal).

    Raises RunError where there is none of this name, or its files are damaged.
    """
    return _read(run, name)


def saved_last(run: Run) -> str | None:
    """The selection that was saved last, of those whose records can be read.

    As the records say: in a copy of a run its files have other times.
    """
    when = {}
    for name in run.selection_names():
        changed = run.selection_saved(name)
        with suppress(RunError):
            when[name] = _made(run.path, name, changed), changed
    return max(when, key=lambda name: when[name], default=None)


@lru_cache(maxsize=1024)  # pages ask at each redraw; `changed` tells one that was saved anew
def _made(path: Path, name: str, changed: int) -> str:
    return read_record(Run(path), name).made


def read_record(run: Run, name: str) -> SelectionRecord:
    """A saved selection's record alone; raises as `read_selection` does."""
    path = run.selection_file(name)
    if not path.exists():
        there = ", ".join(run.selection_names()) or "none yet"
        raise RunError(f"run {run.path} has no selection '{name}': there are {there}")
    return SelectionRecord.read(path)


def kept_ids(run: Run, name: str) -> np.ndarray:
    """Sorted ids of the samples that a saved selection keeps; raises as `read_selection` does."""
    return kept_of(_read(run, name, ["sample_id", "kept"])[1])


def kept_of(table: pa.Table) -> np.ndarray:
    """Sorted ids of what a selection's table marks as kept."""
    ids: np.ndarray = table.filter(table["kept"])["sample_id"].to_numpy()
    return ids


def _read(
    run: Run, name: str, columns: list[str] | None = None
) -> tuple[SelectionRecord, pa.Table]:
    record, path = read_record(run, name), run.selection_file(name).with_suffix(".parquet")
    try:
        if record.table_sha256 not in ("", digest(path)):
            if read_record(run, name) != record:  # saved anew between the two
                return _read(run, name, columns)
            raise OSError("its table is not the one that it was saved with")
        return record, read_table(path, columns)
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"selection '{name}' is damaged ({error}): save it again") from None


def write_selection(run: Run, record: SelectionRecord, table: pa.Table) -> SelectionRecord:
    """Save a selection; the record as it is saved, which tells its table from another one.

    Both are written before either takes the place of an earlier one.
    """
    path = run.selection_file(record.name)
    path.parent.mkdir(exist_ok=True)
    remove_drafts(path.parent)
    with replacing(path) as told, replacing(path.with_suffix(".parquet")) as draft:
        write_table(draft, table)
        record = record.model_copy(update={"table_sha256": digest(draft)})
        record.write(told)
    return record
