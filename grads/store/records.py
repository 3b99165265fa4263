"""What the JSON files of a run are made of: checked records, each with a format version.

A file says in `format` how it is to be read; one without is of 0.1 to 0.4. The number grows when an
older reader would misread what is written, not when a field is added: fields that are not known
here are kept as they are.
"""

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from grads.config.base import describe
from grads.errors import RunError
from grads.store.files import read_json, write_json


class LaterFormatError(RunError):
    """A file that a later version has written: it is not damaged."""


class Part(BaseModel):
    """A record within a file. Unknown fields stay, as attributes of their names."""

    model_config = ConfigDict(
        extra="allow",
        serialize_by_alias=True,
        validate_by_alias=True,
        validate_by_name=True,
        use_attribute_docstrings=True,
    )

    def as_json(self) -> dict[str, Any]:
        """The record as a file holds it: the fields that are known, no defaults filled in."""
        return self.model_dump(mode="json", exclude_unset=True)

    @classmethod
    def checked(cls, values: dict[str, Any], place: Path) -> Self:
        """The record that values read from a file make.

        Raises RunError, with the file's name, that tells every field that does not hold what it
        should.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            problems = "; ".join(describe(problem) for problem in error.errors())
            raise RunError(f"{place} cannot be read: {problems}") from None


class Stored(Part):
    """A record that is a file of its own."""

    FORMAT: ClassVar[int] = 1  # the newest that is known here

    format: int = 1
    """How the file is to be read."""

    @model_validator(mode="before")
    @classmethod
    def _with_format(cls, values: Any) -> Any:
        """Files of 0.1 to 0.4 have no number; what is read is written in the newest format."""
        if not isinstance(values, dict):
            return values
        number = values.get("format", 0)
        known = isinstance(number, int) and number <= cls.FORMAT
        return values | {"format": cls.FORMAT} if known else values

    @classmethod
    def checked(cls, values: dict[str, Any], place: Path) -> Self:
        """As for any part; raises RunError too where a later version has written the file."""
        number = values.get("format", 0)
        if isinstance(number, int) and number > cls.FORMAT:
            raise LaterFormatError(
                f"{place} is of format {number}, and this version reads up to {cls.FORMAT}: a later"
                " version has written it; use that one"
            )
        return super().checked(values, place)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record in a file; raises RunError where it cannot be read, as `checked` does."""
        return cls.checked(read_json(path), path)

    def write(self, path: Path) -> None:
        """Replace the file."""
        write_json(path, self.as_json())
