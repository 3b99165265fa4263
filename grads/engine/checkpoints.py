"""Checkpoints of a training: whole once the disk has them, and checked before they are used.

The last two are kept, so that one which its disk has damaged since is no end.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from grads.store.files import digest, replacing, sync

COMPLETE = "complete"  # marker file with the digests of the others: a kill may leave half of them


def mark_whole(checkpoint: Path) -> None:
    """Mark a checkpoint as whole; the disk has all of its files by then."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    for place in (*files, checkpoint):
        sync(place)
    digests = {path.relative_to(checkpoint).as_posix(): digest(path) for path in files}
    with replacing(checkpoint / COMPLETE) as draft:
        draft.write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")
        sync(draft)
    for place in (checkpoint, checkpoint.parent):
        sync(place)


def keep_newest(folder: Path) -> None:
    """Remove all but the newest whole checkpoint: with the next one there are two, never three."""
    newest = _newest_first(folder)[:1]
    for other in folder.glob("checkpoint-*"):
        if other not in newest:
            shutil.rmtree(other, ignore_errors=True)


def newest_sound(folder: Path, tell: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that is as it was saved; None where there is none: from the start.

    Tells of every newer one, and removes it, so that it is never half overwritten under its mark.
    """
    whole = _newest_first(folder)
    for place, checkpoint in enumerate(whole):
        name = _damaged_file(checkpoint)
        if name is None:
            return checkpoint
        before = whole[place + 1].name if place + 1 < len(whole) else "the start"
        tell(f"{checkpoint.name} is damaged ({name} changed on the disk): trying {before}")
        shutil.rmtree(checkpoint, ignore_errors=True)
    return None


def _newest_first(folder: Path) -> list[Path]:
    """Whole checkpoints by their steps."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{COMPLETE}")]
    return sorted(whole, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)


def _damaged_file(checkpoint: Path) -> str | None:
    """The first file that is not as it was saved; of those before 0.5 none can be told."""
    try:
        marked = (checkpoint / COMPLETE).read_bytes()
        known: dict[str, str] = dict(json.loads(marked) if marked else {})
    except (OSError, ValueError, TypeError):
        return COMPLETE
    for name in known:
        try:
            if digest(checkpoint / name) != known[name]:
                return name
        except OSError:
            return name
    return None
