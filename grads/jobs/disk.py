"""What a job's disk did to it: how libraries say so, and how people are told."""

import errno
import os
import re
import shutil
from pathlib import Path

from grads.errors import CUT_SHORT
from grads.store.runs import JobFolder

FULL = {errno.ENOSPC, errno.EDQUOT}
# Libraries that write by themselves say it in errors of their own: safetensors, Arrow and
# tokenizers in the text, torch by the name of its writer alone.
FULL_TEXT = re.compile(
    r"no space left|disk quota exceeded|os error (28|122)\b|PytorchStreamWriter failed|"
    r"file write failed",
    re.IGNORECASE,
)
READ_ONLY_TEXT = re.compile(r"read-only file system|os error 30\b", re.IGNORECASE)
ROOM = 2**20  # bytes; with less, a process that is gone most likely found no room


def reason(error: BaseException, folder: JobFolder) -> str | None:
    """Why its disk ended the job of a folder, for people; None where it was something else.

    What was raised while a disk's error was handled is that disk's too.
    """
    seen: BaseException | None = error
    while seen is not None:
        number = seen.errno if isinstance(seen, OSError) else None
        named = seen.filename if isinstance(seen, OSError) else None
        text = str(seen)
        if number in FULL or FULL_TEXT.search(text) or CUT_SHORT.search(text):
            return _full(named or folder.path)
        if number == errno.EROFS or READ_ONLY_TEXT.search(text):
            return _read_only(named or folder.path)
        seen = seen.__cause__ or seen.__context__
    return None


def gone(folder: JobFolder) -> str:
    """What a job says whose folder is not there any more."""
    return f"{folder.path} is gone: it was deleted or moved under its job"


def trouble(folder: JobFolder) -> str | None:
    """What is wrong with the disk of a folder now; None where it can be written to."""
    try:
        if not os.access(folder.path, os.W_OK):
            return _read_only(folder.path)
        return _full(folder.path) if shutil.disk_usage(folder.path).free < ROOM else None
    except OSError:
        return None


def _full(place: str | Path) -> str:
    return f"no space left on the disk of {place}: make room there, then resume"


def _read_only(place: str | Path) -> str:
    return f"the disk of {place} cannot be written to: make it writable, then resume"
