"""The run directory: create, list, and read and write its files, each replaced atomically.

It is the only channel between a job and everything that looks at it, so a reader at any moment
sees a valid state: files are written beside their place and moved into it.
"""

import json
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from filelock import FileLock
from pydantic import BaseModel, ValidationError

from grads.config.base import Settings
from grads.config.run import RunConfig
from grads.errors import RunError, of_the_machine
from grads.store.about import About
from grads.store.cost import RunCost
from grads.store.files import (
    JSON_ESCAPES,
    SINGLE_SAMPLES,
    digest,
    member,
    open_table,
    read_json,
    read_rows,
    replacing,
    write_json,
)
from grads.store.lines import Lines, append_line, append_lines, read_lines
from grads.store.manifest import Manifest
from grads.store.topics import Topic, TopicNames, Topics
from grads.text import brief

State = Literal["queued", "running", "stopping", "stopped", "failed", "interrupted", "finished"]
ACTIVE: tuple[State, ...] = ("queued", "running", "stopping")
NOTED = {  # by people, in files of these names
    "decisions": "decided",
    "corrections": "corrected",
    "ratings": "rated",
    "tags": "tagged",
}


class Status(BaseModel):
    """What a job says of itself, rewritten at every heartbeat."""

    state: State = "queued"
    stage: str = ""
    done: int = 0
    """Units of the stage that are finished, those of earlier attempts included."""
    total: int = 0
    unit: str = ""
    rate: float | None = None
    """Units a second, this attempt only."""
    eta_s: float | None = None
    """Seconds to the end of the stage."""
    left_s: float | None = None
    """Seconds to the end of all, where the job itself foresees it: evaluations do."""
    pid: int | None = None
    machine: str | None = None
    """Where the PID means that process (grads/store/machine.py); files of before 0.5 have none."""
    process_ticks: int | None = None
    """From boot to the start of the process: tells it from a later one with the same PID."""
    process_started: float | None = None
    """The same in seconds since 1970, by the clock; counts where there are no ticks."""
    turn: int | None = None
    """The job's number in the queue, drawn as it was started."""
    heartbeat: float | None = None
    error: str | None = None
    message: str = ""


class JobFolder:
    """A folder that a job works in: its settings, status, metrics, log and lock."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.id = self.path.name
        self.config_file = self.path / "config.json"
        self.status_file = self.path / "status.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.log_file = self.path / "worker.log"
        self.stop_file = self.path / "STOP"
        self.lock_file = self.path / ".lock"
        self.start_lock = self.path / ".start.lock"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def root(self) -> Path:
        """The runs folder, whose jobs wait for each other."""
        return self.path.parent

    def config_values(self) -> dict[str, Any]:
        """config.json as it stands."""
        return read_json(self.config_file)

    def refuse_other_config(self, what: str, old: Settings, new: Settings, option: str) -> None:
        """Raise RunError where the settings differ from the old ones, those of config.json.

        Both are validated settings, so one that config.json is too old to know has its default.
        """
        before, values = (one.model_dump(mode="json") for one in (old, new))
        differ = sorted(k for k in before | values if before.get(k) != values.get(k))
        if differ:
            name = differ[0]
            was, now = brief(before.get(name)), brief(values.get(name))
            raise RunError(
                f"{what} {self.path} was made with another config ({name} was {was}, now {now}):"
                f" give another {option}, or resume it"
            )

    def read_status(self) -> Status:
        """What the job last said; jobs.observe tells whether it is still true."""
        if not self.status_file.exists():
            return Status(state="interrupted", message="no status yet")
        try:
            return Status.model_validate(read_json(self.status_file))
        except (RunError, ValidationError) as error:
            line = str(error).splitlines()[0]
            return Status(state="interrupted", error=f"{self.status_file} is damaged: {line}")

    def write_status(self, status: Status) -> None:
        """Replace status.json."""
        write_json(self.status_file, status.model_dump(mode="json"))

    def write_last_status(self, status: Status) -> None:
        """Replace status.json; on a full disk write over the old one, whose blocks it has."""
        try:
            self.write_status(status)
        except OSError:
            with self.status_file.open("r+b") as file:
                file.write(status.model_dump_json().encode())
                file.truncate()

    def is_gone(self) -> bool:
        """Whether the folder was deleted or moved; a disk that does not answer says nothing."""
        try:
            self.path.stat()
        except OSError as error:
            return isinstance(error, FileNotFoundError)
        return False

    @contextmanager
    def held(self, lock: Path) -> Iterator[None]:
        """A lock of the folder, which to take would bring back the folder of a deleted run.

        Raises RunError where the folder is gone, and leaves none behind.
        """
        with FileLock(lock):
            if not self.config_file.is_file():
                lock.unlink(missing_ok=True)
                left = self.path
                with suppress(OSError):  # something else lies there
                    while left != self.root:
                        left.rmdir()
                        left = left.parent
                raise RunError(f"there is no run at {self.path} any more: was it deleted or moved?")
            yield

    def append_metrics(self, **values: Any) -> None:
        """Add a line to metrics.jsonl."""
        append_line(self.metrics_file, {"time": round(time.time(), 3), **values})

    def note(self, path: Path, what: str, again: str, rows: list[dict[str, Any]]) -> None:
        """Add lines to a file of what people have said.

        Raises RunError where they cannot be kept; then none is.
        """
        _refuse_lost(path)
        try:
            with self.held(path.with_name(f".{path.stem}.lock")):
                append_lines(path, rows, lasting=True)
        except OSError as error:
            raise RunError(
                f"the {what} could not be kept in {path}"
                f" ({error.strerror or error}): make room or give access there, and {again}"
            ) from None

    def read_noted(self, path: Path) -> Lines:
        """What people have said, and the lines of it that a broken-off write has left.

        Raises RunError where the file is there and empty: no writer leaves it so.
        """
        _refuse_lost(path)
        return read_lines(path)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Every whole line of metrics.jsonl (a killed job may leave a broken one)."""
        return read_lines(self.metrics_file).rows


class Run(JobFolder):
    """One run directory. Knows where everything lies; computes nothing."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.manifest_file = self.path / "manifest.json"
        self.about_file = self.path / "about.json"  # a title and notes, by people
        self.topic_names_file = self.path / "topic_names.json"
        self.estimate_file = self.path / "estimate.json"  # measured before the start
        self.samples_file = self.path / "samples.parquet"
        self.tokens_file = self.path / "tokens.parquet"
        # The rows of a typed source, in the order of samples.parquet.
        self.source_file = self.path / "source.parquet"
        self.row_parts = self.path / "rows"  # blocks of rows that are tokenised, until all are
        self.rejects_file = self.path / "rejects.jsonl"
        self.template_file = self.path / "chat_template.jinja"  # what the samples were written with
        self.checkpoints = self.path / "checkpoints"
        self.adapter = self.path / "adapter"
        self.weights = self.path / "weights"
        self.during_file = self.path / "during.parquet"  # what was read in the warm-up's passes
        self.parts = self.path / "scores"
        self.scores_file = self.path / "scores.parquet"
        self.extras_file = self.path / "extras.parquet"
        self.probe_sets = self.path / "probe_sets"  # the rows of each
        self.probes = self.path / "probes"  # how the samples lie to each
        self.features_file = self.path / "features.parquet"
        self.clusters_file = self.path / "clusters.json"
        self.token_signal_file = self.path / "token_signal" / "signals.parquet"
        self.decisions_file = self.path / "decisions.jsonl"
        self.corrections_file = self.path / "corrections.jsonl"
        self.tags_file = self.path / "tags.jsonl"
        self.selections = self.path / "selections"
        self.exports = self.path / "exports"
        self.evaluations = self.path / "evaluations"

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """An existing run; raises RunError where there is none."""
        run = cls(path)
        if not run.config_file.is_file():
            raise RunError(f"no run at {path}: there is no config.json; see `python -m grads list`")
        return run

    @classmethod
    def create(cls, config: RunConfig, path: Path) -> "Run":
        """Make the directory with its config; an existing run must have the same config."""
        run = cls(path)
        if run.config_file.exists():
            run.refuse_other_config("run", run.config(), config, "--run-dir")
            return run
        if run.path.exists() and any(p.name != ".lock" for p in run.path.iterdir()):
            raise RunError(f"{run.path} is not empty and not a run: give another --run-dir")
        run.path.mkdir(parents=True, exist_ok=True)
        write_json(
            run.config_file, config.model_dump(mode="json")
        )  # first: without it the folder would be no run
        run.write_status(Status())
        return run

    # -- settings and state

    @property
    def has_model(self) -> bool:
        """Whether the model that scores its samples is there: the base one, or warmed up."""
        return self.config().warmup == "none" or self.adapter.exists() or self.weights.exists()

    def helper_error_file(self, rank: int | str) -> Path:
        """What has ended one of the run's processes that do not lead."""
        return self.path / f"process-{rank}.error"

    def config(self) -> RunConfig:
        """The validated settings of the run."""
        return RunConfig.parse(self.config_values())

    def read_manifest(self) -> Manifest:
        """Versions, hashes, seeds, self-check, timings; all defaults before the first stage.

        Raises RunError where the file cannot be read.
        """
        return Manifest.read(self.manifest_file) if self.manifest_file.exists() else Manifest()

    def update_manifest(self, **values: Any) -> None:
        """Put values of these names into manifest.json, in the place of those it has.

        Raises RunError where the file cannot be read, or a value is none that it may hold.
        """
        new = self.read_manifest().as_json() | values
        Manifest.checked(new, self.manifest_file).write(self.manifest_file)

    @property
    def made(self) -> datetime:
        """When it was set up: its settings are written once."""
        return datetime.fromtimestamp(self.config_file.stat().st_mtime, UTC)

    # -- what people call it

    def read_about(self) -> About:
        """Title and notes, empty where nobody gave any; raises RunError where they are damaged."""
        return About.read(self.about_file) if self.about_file.exists() else About()

    def update_about(self, **values: str) -> None:
        """Put a title or notes in the place of those it has; raises as `read_about` does."""
        with self.held(self.path / ".about.lock"):
            self.read_about().model_copy(update=values).write(self.about_file)

    def topic_names(self) -> dict[int, str]:
        """What people call its topics, by number; those of other topics than it has do not count.

        Raises RunError where they, or the topics, cannot be read.
        """
        if not self.topic_names_file.exists() or not self.clusters_file.exists():
            return {}
        found = TopicNames.read(self.topic_names_file)
        self.read_clusters()  # damaged ones are not other topics
        return found.names if found.clusters_sha256 == digest(self.clusters_file) else {}

    def name_topic(self, topic: int, name: str) -> None:
        """Call a topic so, or by its terms again where the name is empty."""
        with self.held(self.path / ".about.lock"):
            names = self.topic_names() | {topic: name}
            TopicNames(
                names={number: said for number, said in names.items() if said},
                clusters_sha256=digest(self.clusters_file),
            ).write(self.topic_names_file)

    # -- tables

    def read_table(self, path: Path, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file of the run; raises RunError where its stage has not run."""
        with self._readable(path):
            return open_table(path).read(columns)

    def read_batches(
        self, path: Path, columns: list[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """A Parquet file of the run, some rows at a time; raises as `read_table` does."""
        with self._readable(path):
            yield from open_table(path).iter_batches(SINGLE_SAMPLES, columns=columns)

    def sha256(self, path: Path) -> str:
        """Of a file of the run; raises as `read_table` does."""
        with self._readable(path):
            return digest(path)

    def column_names(self, path: Path) -> list[str]:
        """The columns of a Parquet file of the run; raises as `read_table` does."""
        with self._readable(path):
            return list(open_table(path).schema_arrow.names)

    @contextmanager
    def _readable(self, path: Path) -> Iterator[None]:
        if not path.exists():
            raise RunError(
                f"run {self.path} has no {path.relative_to(self.path)} yet: its state is"
                f" '{self.read_status().state}'; wait for it, or resume it"
            )
        with self._told_if_damaged(path):
            yield

    @contextmanager
    def _told_if_damaged(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise RunError(
                of_the_machine(error) or f"{path} is damaged ({error}): {self.remedy(path)}"
            ) from None

    def remedy(self, path: Path) -> str:
        """What helps where a file that a stage has made is damaged.

        A finished run is resumed only where the digest tells that the file is another one.
        """
        name = path.relative_to(self.path).as_posix()
        noted = (known for known, digest in self.read_manifest().files.items() if digest)
        if self.read_status().state != "finished" or any(
            name == known or name.startswith(f"{known}/") for known in noted
        ):
            return "resume the run, which makes it anew"
        return "put a copy in its place, or start a new run; this one keeps no digest of it"

    def read_estimate(self) -> RunCost:
        """What was measured before the start; raises RunError where that cannot be read."""
        return RunCost.read(self.estimate_file)

    def write_rejects(self, rejects: Iterable[dict[str, Any]]) -> None:
        """Replace the list of rows that could not be used, as they come."""
        with (
            replacing(self.rejects_file) as draft,
            draft.open("w", encoding="utf-8", errors=JSON_ESCAPES) as file,
        ):
            file.writelines(json.dumps(reject, ensure_ascii=False) + "\n" for reject in rejects)

    def read_rejects(self) -> list[dict[str, Any]]:
        """Rows that could not be used: sample_id, row, line, file, reason, advice.

        `row` is the sample's id, and the file named where there are several; before 0.5 `row`
        counted from 1, and there was no line. Raises RunError where not all of them can be read.
        """
        found, refused = read_lines(self.rejects_file), self.read_manifest().counts.refused
        if found.unreadable or len(found.rows) < refused:
            raise RunError(
                f"{self.rejects_file} is damaged ({len(found.rows)} of {refused} rows can be read):"
                f" {self.remedy(self.rejects_file)}"
            )
        return found.rows

    def read_clusters(self) -> list[Topic]:
        """Each topic, largest first; none before that stage."""
        return Topics.read(self.clusters_file).clusters if self.clusters_file.exists() else []

    def read_sample(self, sample_id: int) -> dict[str, Any]:
        """One usable row: turns, columns, token counts; raises RunError if the run has none."""
        found = self.read_samples([sample_id])
        if not found:
            raise RunError(f"run {self.id} has no sample {sample_id}: it may have been refused")
        return found[sample_id]

    def read_samples(self, sample_ids: list[int]) -> dict[int, dict[str, Any]]:
        """Usable rows by sample id; ids that the run does not have are left out."""
        return self._rows(self.samples_file, sample_ids)

    def _rows(self, path: Path, sample_ids: list[int]) -> dict[int, dict[str, Any]]:
        with self._told_if_damaged(path):
            return read_rows(path, sample_ids)

    def read_tokens(self, sample_id: int) -> dict[str, Any] | None:
        """A sample's token texts and which of them are trained; None in runs that keep no texts."""
        row = self._rows(self.tokens_file, [sample_id]).get(sample_id, {})
        return row if "pieces" in row else None

    def read_token_signal(self, sample_id: int) -> dict[str, Any] | None:
        """Per-token gradient norms of a sample, where the run keeps them."""
        return self._rows(self.token_signal_file, [sample_id]).get(sample_id)

    def decide(self, *decisions: dict[str, Any]) -> None:
        """Note down what people decided about samples; each reviewer's last word counts.

        Raises RunError where it cannot be kept; then nothing is.
        """
        self.note(self.decisions_file, "decision", "decide again", list(decisions))

    def correct(self, correction: dict[str, Any]) -> None:
        """Note down a corrected text; raises RunError where it cannot be kept."""
        self.note(self.corrections_file, "correction", "correct it again", [correction])

    def read_decisions(self) -> list[dict[str, Any]]:
        """Everything that was decided, in order; `unreadable_decisions` tells what is missing.

        Raises RunError where the file is there and empty: no writer leaves it so.
        """
        return self.read_noted(self.decisions_file).rows

    def read_corrections(self) -> list[dict[str, Any]]:
        """Everything that was corrected, in order; raises as `read_decisions` does."""
        return self.read_noted(self.corrections_file).rows

    def unreadable_decisions(self) -> list[int]:
        """Numbers, from 1, of the lines of decisions.jsonl that a broken-off write has left."""
        return read_lines(self.decisions_file).unreadable

    def unreadable_corrections(self) -> list[int]:
        """The same of corrections.jsonl."""
        return read_lines(self.corrections_file).unreadable

    def unreadable_tags(self) -> list[int]:
        """The same of tags.jsonl."""
        return read_lines(self.tags_file).unreadable

    def probe_set_file(self, name: str) -> Path:
        """Where the rows of a probe set lie."""
        return member(self.probe_sets, f"{name}.parquet")

    def probe_file(self, name: str) -> Path:
        """Where it stands how every sample lies to a probe set."""
        return member(self.probes, f"{name}.parquet")

    def selection_names(self) -> list[str]:
        """Names of the saved selections."""
        return sorted(p.stem for p in self.selections.glob("*.json") if not p.name.startswith("."))

    def selection_saved(self, name: str) -> int:
        """When a selection was saved last, in nanoseconds."""
        return self.selection_file(name).stat().st_mtime_ns

    def selection_file(self, name: str) -> Path:
        """Where a selection's record lies; its table lies beside it, as .parquet.

        Raises RunError where the name would lead out of the run.
        """
        return member(self.selections, f"{name}.json")

    def evaluation_names(self) -> list[str]:
        """Names of the evaluations."""
        return sorted(path.parent.name for path in self.evaluations.glob("*/config.json"))


def _refuse_lost(path: Path) -> None:
    """Raise RunError where what people have noted is lost."""
    if path.exists() and not path.stat().st_size:
        raise RunError(
            f"{path} is empty, so what was {NOTED[path.stem]} is lost: put a copy in its place, or"
            " remove it to go on without"
        )


def runs_root(path: str | Path | None = None) -> Path:
    """Where runs live: the argument, GRADS_RUNS_DIR, or ./runs."""
    return Path(path or os.environ.get("GRADS_RUNS_DIR") or "runs").resolve()


def new_run_path(root: Path, config: RunConfig) -> Path:
    """A fresh name that says when and on what: 20260131-154500-medicine-train-0a1b2c3d."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(config.dataset).stem).strip("-").lower()[:24]
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return root / f"{stamp}-{stem or 'run'}-{secrets.token_hex(4)}"


def list_runs(root: Path) -> list[Run]:
    """Every run under the root, newest first."""
    if not root.is_dir():
        return []
    named = [path for path in root.iterdir() if not path.name.startswith(".")]  # others are drafts
    found = [Run(path) for path in named if (path / "config.json").is_file()]
    return sorted(found, key=lambda run: run.config_file.stat().st_mtime, reverse=True)
