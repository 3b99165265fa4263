"""The errors a user can cause, and what the machine refuses: what was wrong, and what to do."""

import errno
import os
import re

from grads.text import MESSAGE, cut, visible

OUT_OF_MEMORY = "out of memory: lower --batch-tokens or --max-length"
NO_MEMORY = (  # can't, could not, cannot
    "out of memory",
    "t allocate memory",
    "bad_alloc",
    "t start new thread",  # each needs a stack
    "failed to launch worker thread",  # of Arrow
    "failed to map segment",  # of a library that is loaded late
    "ctx create failed",  # of zstd, by Arrow
)
FREE_SPACE = "free some space on that disk, then resume or start again"
PERMIT = "give this user its permissions, or give another place"
REFUSALS = {  # of the system, by its number: what to do
    errno.ENOSPC: FREE_SPACE,
    errno.EDQUOT: FREE_SPACE,
    errno.EROFS: "give a place that can be written to",
    errno.EACCES: PERMIT,
    errno.EPERM: PERMIT,
    errno.ENOTDIR: "a file lies where a folder is needed: give another place",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EMFILE: "close other programs, or allow more open files",
}
IN_WORDS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # libraries also tell these without a number
# What torch and numpy say of a file that has ended too early.
CUT_SHORT = re.compile(r"inline_container\.cc|^\d+ requested and \d+ written$")


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was refused, of the machine or of its GPU."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in NO_MEMORY)


def of_the_machine(error: BaseException) -> str | None:
    """One line on memory, room on a disk or permission that was refused; None on other errors.

    Libraries have errors of their own for these, which repeat the system's words.
    """
    text = str(error)
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    number = getattr(error, "errno", None)
    if number not in REFUSALS:
        full = errno.ENOSPC if CUT_SHORT.search(text) else None
        number = next((n for n in IN_WORDS if os.strerror(n) in text), full)
    if number is None:
        return None
    place = getattr(error, "filename", None)
    at = f" at {place}" if place else ""
    return cut(visible(f"{os.strerror(number).lower()}{at}: {REFUSALS[number]}"), MESSAGE)
