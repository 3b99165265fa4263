"""What an evaluation measures on: the files of test samples, and which of them nearly leak."""

from dataclasses import dataclass
from typing import Self

from grads.store.records import Part


class Refused(Part):
    """A row that could not be used."""

    row: int
    """Counted from 0; from 1 before 0.5."""
    line: int | None = None
    """In its file, counted from 1."""
    reason: str
    advice: str


class MeasuredOn(Part):
    """A file of test samples, or the run's own split."""

    name: str
    digest: str = ""
    """SHA-256 of the file; empty of the run's own split, of several together, and before 0.5."""
    samples: int
    response_tokens: int
    with_options: int
    refused: int
    first_refused: Refused | None = None

    @classmethod
    def together(cls, files: list[Self]) -> Self:
        """Several files as one: their names joined, their numbers summed."""
        if len(files) == 1:
            return files[0]
        counts = ("samples", "response_tokens", "with_options", "refused")
        return cls(
            name=", ".join(file.name for file in files),
            first_refused=next((file.first_refused for file in files if file.refused), None),
            **{name: sum(getattr(file, name) for file in files) for name in counts},
        )


class NearDuplicate(Part):
    """A held-out sample that nearly stands in the pool."""

    file: str = ""
    """The held-out file that it is of; before 0.5 there was one."""
    heldout: int
    """Its row in that file, counted from 0."""
    sample_id: int
    overlap: float
    """Shared character 5-grams of all, in [0, 1]."""


class Leaks(Part):
    """What of the test samples stands in the pool too; exact copies are refused before."""

    near_duplicates: list[NearDuplicate]

    @property
    def samples(self) -> int:
        """How many held-out samples nearly stand in the pool."""
        return len({(pair.file, pair.heldout) for pair in self.near_duplicates})


@dataclass(frozen=True)
class About:
    """What is to be said of the test samples, whatever the arms do."""

    heldout: list[MeasuredOn]
    general: list[MeasuredOn]
    leaks: Leaks
    notes: list[str]
    tasks_digest: str = ""  # of the tasks that are asked, where some are
