"""Before a run: where its data may lie, what they look like, what the run will cost."""

import hashlib
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock

from grads.config.base import DEMO_MODEL, is_path, members
from grads.config.run import RunConfig
from grads.data.layouts import recognise_in
from grads.data.places import data_files
from grads.data.sources import read_source
from grads.data.tables import is_saved
from grads.errors import DataError, GradsError, ModelError, of_the_machine
from grads.jobs import processes as jobs
from grads.jobs.identity import begun
from grads.store.files import remove_drafts, replacing
from grads.store.folders import DRAFTS, Checker, Draft
from grads.store.runs import ACTIVE, Run, runs_root

FIRST_ROWS = 200  # rows that tell the layout
AT_ONCE_BYTES = 32 * 2**20  # a file up to this size is looked at while a person waits
UPLOAD_BYTES = 200 * 2**20  # as .streamlit/config.toml says it to the browser
KEPT_S = 86_400.0  # seconds that a draft stays after the last change in its folder


def allowed_roots() -> list[Path]:
    """Folders below which a page may read data: the working folder, runs, and GRADS_DATA_DIRS."""
    more = os.environ.get("GRADS_DATA_DIRS", "")
    named = [Path(p).resolve() for p in more.split(os.pathsep) if p]
    return list(dict.fromkeys([Path.cwd().resolve(), *named, runs_root()]))


def data_place(text: str) -> str:
    """A path, glob or hub id from a page; raises DataError for a path outside the allowed roots.

    So it does for a folder or glob of which one file is a link to outside.
    """
    text = _held(text, DataError, "upload it, ")
    folder = Path(text).expanduser()
    files = folder.rglob("*") if text and is_saved(folder) else members(text) if text else []
    for file in files:
        _held(str(file), DataError, "upload it, ")
    return text


def model_place(text: str) -> str:
    """A model's folder, file or hub id from a page; raises ModelError as `data_place` does."""
    text = _held(text, ModelError)
    folder = Path(text).expanduser()
    if text not in ("", DEMO_MODEL) and (folder / "config.json").exists():
        for file in folder.rglob("*"):
            _held(str(file), ModelError)
    return text


def _held(text: str, kind: type[GradsError], other_way: str = "") -> str:
    """Text that is no path outside the allowed roots; a relative one, below the first that has it.

    The server's own folder comes first, and holds nothing of the user's where it is installed.
    """
    text = text.strip()
    roots = allowed_roots()
    try:
        path = Path(text).expanduser()
        if is_path(text):
            path = next((place for root in roots if (place := root / path).exists()), path)
        named = path.exists() or is_path(text)
        place = path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise kind(f"'{text[:80]}' is no path that can be read ({error}): check it") from None
    if text and named and not any(place.is_relative_to(root) for root in roots):
        allowed = ", ".join(map(str, roots))
        raise kind(
            f"{path} lies outside the folders this dashboard may read ({allowed}): move it there,"
            f" {other_way}or start the dashboard with GRADS_DATA_DIRS naming its folder"
        )
    return str(path) if is_path(text) and path.exists() else text


def save_upload(name: str, content: bytes, root: str | None = None) -> str:
    """Keep an uploaded file under the runs root, once for the same content; its path.

    Raises DataError where it is too large, or cannot be kept.
    """
    if len(content) > UPLOAD_BYTES:
        raise DataError(
            f"{name} has {len(content) / 2**20:,.1f} MB, and an upload at most"
            f" {UPLOAD_BYTES / 2**20:,.0f}: put it into a folder that this dashboard may read, and"
            " give its path"
        )
    digest = hashlib.sha256(content).hexdigest()[:12]
    tame = re.sub(r"[^\w.-]+", "_", Path(name).name).strip(".")[-100:]
    uploads = runs_root(root) / ".uploads"
    path = uploads / digest / (tame or "data")
    try:
        if not path.exists() or path.read_bytes() != content:  # damaged, or changed by hand
            remove_drafts(uploads)
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as draft:
                draft.write_bytes(content)
    except OSError as error:
        raise DataError(f"{name} cannot be kept: {of_the_machine(error) or error}") from None
    return str(path)


def draft(config: RunConfig, purpose: Literal["data", "cost"], root: str | None = None) -> Draft:
    """The draft of a run with these settings, as far as it has got."""
    return Draft.of(config.absolute(), runs_root(root), purpose)


def look(config: RunConfig) -> None:
    """Say at once what is plainly wrong with a data set: its path, its form, its columns.

    Raises DataError, or LayoutError where a person has to say what the columns are. What takes
    long to read, or lies elsewhere, is left to `check`.
    """
    config = config.absolute()
    size = sum(file.stat().st_size for file in members(config.dataset))
    if is_path(config.dataset) and size <= AT_ONCE_BYTES:
        source = read_source(config.model_copy(update={"limit": FIRST_ROWS, "subsample": None}))
        if source.rows:  # else each row's reason is listed
            recognise_in(source, config)


def first_rows(dataset: str, count: int = 5) -> list[dict[str, Any]]:
    """The first rows of a data set as they stand, for a person who maps its columns."""
    source = read_source(RunConfig(dataset=dataset, limit=count).absolute())
    return [row for row in source.rows if row]


_warm = False  # whether this process is a server that keeps a checker


def keep_warm(root: str | None = None) -> None:
    """Have data looked at by a process beside this one, whose libraries are loaded already."""
    global _warm
    _warm = True
    _checker(runs_root(root))


def _checker(root: Path) -> Checker:
    """The checker that a server keeps; one that is gone starts anew, with nothing to do."""
    checker = Checker(root)
    checker.path.mkdir(parents=True, exist_ok=True)
    with FileLock(checker.start_lock):
        if jobs.observe(checker).state not in ACTIVE:
            for left in checker.waiting():  # a person has it tried again
                checker.taken(left)
            jobs.spawn(checker, ["checker", str(root), str(os.getpid())])
    return checker


def check(
    config: RunConfig,
    purpose: Literal["data", "cost"],
    root: str | None = None,
    again: bool = False,
) -> Draft:
    """The draft of a run whose data are looked at, or whose cost is measured; starts its job.

    One draft at a time is worked at; the others wait. One that was given up goes on. One that
    failed, or whose job is gone, is tried again when asked to, or when its data file has changed:
    what was killed for its memory would be killed again.
    """
    _prune(runs_root(root))
    made = draft(config, purpose, root)
    status = jobs.observe(made)
    if status.state in ACTIVE:
        made.stop_file.unlink(missing_ok=True)
        return made
    fresh = status.state == "interrupted" and status.heartbeat is None  # never begun
    if not (fresh or status.state == "stopped" or (again and status.state != "finished")):
        return made
    if _warm and purpose == "data":
        checker = _checker(runs_root(root))
        made.stop_file.unlink(missing_ok=True)
        made.write_status(begun(checker.read_status().pid))
        checker.ask(made)
    else:
        jobs.start(made, at_once=True)
    return made


def give_up(made: Draft) -> None:
    """Ask the job of a draft that nobody waits for any more to end."""
    if jobs.observe(made).state in ACTIVE:
        with suppress(OSError):  # a full disk: then it works to its end
            made.stop_file.touch()


def _prune(root: Path) -> None:
    """Remove drafts that are older than a day: each holds a copy of its data."""
    for path in (root / DRAFTS).glob("*-*"):
        old = time.time() - path.stat().st_mtime > KEPT_S
        if old and jobs.observe(Draft(path)).state not in ACTIVE:
            shutil.rmtree(path, ignore_errors=True)


def columns_of(dataset: str) -> list[str]:
    """The columns of the first rows; none for what names no readable files of this machine."""
    if not members(dataset):
        return []
    try:
        first = data_files(dataset, None)[0]
        return read_source(RunConfig(dataset=str(first), limit=200).absolute()).columns
    except DataError:  # the check itself will say what is wrong
        return []


def examples(run: Run, count: int = 20) -> list[dict[str, Any]]:
    """The first usable samples with their tokens, for a look."""
    tokens = run.read_table(run.tokens_file, ["sample_id", "pieces", "trained"])
    samples = run.read_table(
        run.samples_file, ["sample_id", "turns", "prompt_tokens", "response_tokens", "truncated"]
    )
    rows = zip(samples.slice(0, count).to_pylist(), tokens.slice(0, count).to_pylist(), strict=True)
    return [sample | token for sample, token in rows]


def lengths(run: Run) -> dict[str, np.ndarray]:
    """Prompt and response tokens of every usable sample, whether it was cut, or is held out."""
    names = ["prompt_tokens", "response_tokens", "truncated", "heldout"]
    table = run.read_table(run.samples_file, names)
    return {name: table[name].to_numpy() for name in names}
