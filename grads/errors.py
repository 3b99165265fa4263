"""The errors a user can cause. Each message says what was wrong, the value, and what to do."""

from grads.text import MESSAGE, cut, visible


class GradsError(Exception):
    """Base of every error that is shown to the user as one line, without a stack trace.

    Names and values in it are those of others: as text it is bounded, and safe on a terminal.
    """

    def __str__(self) -> str:
        return cut(visible(super().__str__()), MESSAGE)


class ConfigError(GradsError):
    """A setting, or a combination of settings, that cannot be used."""


class DataError(GradsError):
    """A data set that cannot be read, or holds nothing that can be trained on."""


class LayoutError(DataError):
    """Columns that fit no known layout: a person has to say which is which."""


class ModelError(GradsError):
    """A model or tokenizer that cannot be loaded, or whose gradients cannot be computed exactly."""


class WarmupError(GradsError):
    """A warm-up that diverged or cannot be taken over."""


class ScoringError(GradsError):
    """A scoring pass whose numbers cannot be trusted."""


class SelectionError(GradsError):
    """Selection options that contradict each other or the run's scores."""


class ExportError(GradsError):
    """An export that could not be written, or did not load back as it should."""


class EvaluationError(GradsError):
    """An evaluation whose test data, arms or settings would give no honest answer."""


class RunError(GradsError):
    """A run directory that is missing, broken, busy, or in the wrong state."""


class Stopped(Exception):  # noqa: N818 - a signal between stages, not an error
    """Raised inside a job when the user has asked it to stop."""
