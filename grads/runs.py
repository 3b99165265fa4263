"""The run directory: create, list, and read and write its files, each replaced atomically.

It is the only channel between a job and everything that looks at it, so a reader at any moment
sees a valid state: files are written beside their place and moved into it.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock
from pydantic import BaseModel, ValidationError

from grads.config import RunConfig
from grads.errors import RunError
from grads.evaluation_config import EvaluationConfig, TuneConfig

State = Literal["queued", "running", "stopping", "stopped", "failed", "interrupted", "finished"]
DRAFTS = ".drafts"
DATA_SETTINGS = (  # all that decides what the prepared data are
    "dataset dataset_config split revision columns limit heldout max_length model seed".split()
)
ROW_GROUP = 5_000  # rows
ACTIVE: tuple[State, ...] = ("queued", "running", "stopping")


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
    pid: int | None = None
    process_started: float | None = None
    """Creation time of the process, which tells it from a later one with the same PID."""
    heartbeat: float | None = None
    error: str | None = None
    message: str = ""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or folder at, moved into place on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        yield draft
        if draft.is_dir() and path.is_dir():
            shutil.rmtree(path)
        draft.replace(path)
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file."""
    with replacing(path) as draft:
        draft.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; raises RunError where it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} cannot be read: it holds no object")
    return value


def write_table(path: Path, table: pa.Table) -> None:
    """Replace a Parquet file. Its row groups are small, so that one sample is read fast."""
    with replacing(path) as draft:
        pq.write_table(table, draft, compression="zstd", row_group_size=ROW_GROUP)


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

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    @property
    def root(self) -> Path:
        """The runs folder, whose jobs wait for each other."""
        return self.path.parent

    def config_values(self) -> dict[str, Any]:
        """config.json as it stands."""
        return read_json(self.config_file)

    def refuse_other_config(self, what: str, values: dict[str, Any], option: str) -> None:
        """Raise RunError if config.json holds other settings than `values`."""
        old = self.config_values()
        differ = sorted(k for k in old | values if old.get(k) != values.get(k))
        if differ:
            name = differ[0]
            raise RunError(
                f"{what} {self.path} was made with another config ({name} was {old.get(name)!r},"
                f" now {values.get(name)!r}): give another {option}, or resume it"
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

    def append_metrics(self, **values: Any) -> None:
        """Add a line to metrics.jsonl."""
        line = json.dumps({"time": round(time.time(), 3), **values}) + "\n"
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(line)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Every whole line of metrics.jsonl (a killed job may leave a broken one)."""
        if not self.metrics_file.exists():
            return []
        rows = []
        for line in self.metrics_file.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                rows.append(json.loads(line))
        return rows


class Run(JobFolder):
    """One run directory. Knows where everything lies; computes nothing."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self.manifest_file = self.path / "manifest.json"
        self.estimate_file = self.path / "estimate.json"  # measured before the start
        self.samples_file = self.path / "samples.parquet"
        self.tokens_file = self.path / "tokens.parquet"
        # The rows of a typed source, in the order of samples.parquet.
        self.source_file = self.path / "source.parquet"
        self.rejects_file = self.path / "rejects.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.adapter = self.path / "adapter"
        self.weights = self.path / "weights"
        self.parts = self.path / "scores"
        self.scores_file = self.path / "scores.parquet"
        self.features_file = self.path / "features.parquet"
        self.clusters_file = self.path / "clusters.json"
        self.token_signal_file = self.path / "token_signal" / "signals.parquet"
        self.decisions_file = self.path / "decisions.jsonl"
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
        values = config.model_dump(mode="json")
        if run.config_file.exists():
            run.refuse_other_config("run", values, "--run-dir")
            return run
        if run.path.exists() and any(p.name != ".lock" for p in run.path.iterdir()):
            raise RunError(f"{run.path} is not empty and not a run: give another --run-dir")
        run.path.mkdir(parents=True, exist_ok=True)
        run.write_status(Status())
        write_json(run.config_file, values)
        return run

    # -- settings and state

    def config(self) -> RunConfig:
        """The validated settings of the run."""
        return RunConfig.parse(self.config_values())

    def read_manifest(self) -> dict[str, Any]:
        """Versions, hashes, seeds, self-check, timings; empty before the first stage."""
        return read_json(self.manifest_file) if self.manifest_file.exists() else {}

    def update_manifest(self, **values: Any) -> None:
        """Add to manifest.json."""
        write_json(self.manifest_file, self.read_manifest() | values)

    # -- tables

    def read_table(self, path: Path, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file of the run; raises RunError where its stage has not run."""
        if not path.exists():
            raise RunError(
                f"run {self.path} has no {path.relative_to(self.path)} yet: its state is"
                f" '{self.read_status().state}'; wait for it, or resume it"
            )
        try:
            return pq.read_table(path, columns=columns)
        except (pa.ArrowInvalid, OSError) as error:
            raise RunError(f"{path} is damaged ({error}): remove it and resume the run") from None

    def read_estimate(self) -> dict[str, Any]:
        """What was measured before the start: seconds by stage, memory and disk in bytes."""
        return read_json(self.estimate_file)

    def read_rejects(self) -> list[dict[str, Any]]:
        """Rows that could not be used: sample_id, row, reason, advice."""
        if not self.rejects_file.exists():
            return []
        lines = self.rejects_file.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line]

    def read_clusters(self) -> list[dict[str, Any]]:
        """Number, size and terms of each topic cluster, largest first; empty before that stage."""
        if not self.clusters_file.exists():
            return []
        rows: list[dict[str, Any]] = read_json(self.clusters_file)["clusters"]
        return rows

    def read_sample(self, sample_id: int) -> dict[str, Any]:
        """One usable row: turns, columns, token counts; raises RunError if the run has none."""
        found = self.read_samples([sample_id])
        if not found:
            raise RunError(f"run {self.id} has no sample {sample_id}: it may have been refused")
        return found[sample_id]

    def read_samples(self, sample_ids: list[int]) -> dict[int, dict[str, Any]]:
        """Usable rows by sample id; ids that the run does not have are left out."""
        return _rows(self.samples_file, sample_ids)

    def read_tokens(self, sample_id: int) -> dict[str, Any] | None:
        """A sample's token texts and which of them are trained; None in runs that keep no texts."""
        row = _rows(self.tokens_file, [sample_id]).get(sample_id, {})
        return row if "pieces" in row else None

    def read_token_signal(self, sample_id: int) -> dict[str, Any] | None:
        """Per-token gradient norms of a sample, where the run keeps them."""
        return _rows(self.token_signal_file, [sample_id]).get(sample_id)

    def decide(self, decision: dict[str, Any]) -> None:
        """Note down what a person decided about a sample; the last word on a sample counts."""
        with (
            FileLock(self.path / ".decisions.lock"),
            self.decisions_file.open("a", encoding="utf-8") as file,
        ):
            file.write(json.dumps(decision, ensure_ascii=False) + "\n")

    def read_decisions(self) -> list[dict[str, Any]]:
        """Everything that was decided, in order."""
        if not self.decisions_file.exists():
            return []
        lines = self.decisions_file.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line]

    def part_file(self, number: int) -> Path:
        """Where one part of the scoring pass lies."""
        return self.parts / f"part-{number:05d}.parquet"

    def selection_names(self) -> list[str]:
        """Names of the saved selections."""
        return sorted(p.stem for p in self.selections.glob("*.json") if not p.name.startswith("."))

    def selection_saved(self, name: str) -> int:
        """When a selection was saved last, in nanoseconds."""
        return (self.selections / f"{name}.json").stat().st_mtime_ns

    def read_selection(self, name: str) -> tuple[dict[str, Any], pa.Table]:
        """A saved selection's record and its table (sample_id, kept, score, log_density)."""
        path = self.selections / f"{name}.json"
        if not path.exists():
            there = ", ".join(self.selection_names()) or "none yet"
            raise RunError(f"run {self.path} has no selection '{name}': there are {there}")
        return read_json(path), self.read_table(path.with_suffix(".parquet"))

    def evaluation_names(self) -> list[str]:
        """Names of the evaluations."""
        return sorted(path.parent.name for path in self.evaluations.glob("*/config.json"))

    def write_selection(self, name: str, record: dict[str, Any], table: pa.Table) -> None:
        """Save a selection; the record comes last, so that it never names a missing table."""
        write_table(self.selections / f"{name}.parquet", table)
        write_json(self.selections / f"{name}.json", record)


def _rows(path: Path, sample_ids: list[int]) -> dict[int, dict[str, Any]]:
    """Rows of a Parquet file by sample id, reading only the row groups that may hold them."""
    if not path.exists() or not sample_ids:
        return {}
    file, wanted = pq.ParquetFile(path), np.unique(sample_ids)
    column = file.schema_arrow.get_field_index("sample_id")
    groups = []
    for group in range(file.num_row_groups):
        reach = file.metadata.row_group(group).column(column).statistics
        if np.searchsorted(wanted, reach.min) < np.searchsorted(wanted, reach.max, side="right"):
            groups.append(group)
    table = file.read_row_groups(groups)
    rows = table.filter(pc.is_in(table["sample_id"], pa.array(wanted))).to_pylist()
    return {row["sample_id"]: row for row in rows}


class Draft(Run):
    """A run that is only checked: its data prepared, its cost measured, before it is started.

    It lies in a hidden folder of the runs folder, under a name made of its settings.
    """

    @classmethod
    def of(cls, config: RunConfig, root: Path, purpose: Literal["data", "cost"]) -> "Draft":
        """The draft of these settings, made where there is none yet.

        A look at the data does not depend on how the model will be trained.
        """
        if purpose == "data":
            config = RunConfig(**{name: getattr(config, name) for name in DATA_SETTINGS})
        values = json.dumps(config.model_dump(mode="json"), sort_keys=True)
        source = Path(config.dataset).expanduser()
        changed = source.stat().st_mtime_ns if source.exists() else 0
        digest = hashlib.sha256(f"{values}{changed}".encode()).hexdigest()[:16]
        draft = cls(root / DRAFTS / f"{purpose}-{digest}")
        cls.create(config, draft.path)
        return draft

    @property
    def wants_cost(self) -> bool:
        """Whether the cost is to be measured, or only the data looked at."""
        return self.id.startswith("cost-")

    @property
    def root(self) -> Path:
        """The runs folder, whose jobs wait for each other."""
        return self.path.parent.parent


class TokenRequest(JobFolder):
    """The wish for per-token signals of samples that the scoring pass kept none of."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.path / "token_signal")
        self.run = run

    @property
    def root(self) -> Path:
        """The runs folder, whose jobs wait for each other."""
        return self.run.root

    def ask(self, sample_ids: list[int]) -> None:
        """Write down which samples are wanted; a job must not be at work."""
        write_json(self.config_file, {"sample_ids": sample_ids})


class Evaluation(JobFolder):
    """A comparison of trainings on a run's subsets: its arms one by one, and what they show."""

    def __init__(self, run: Run, name: str) -> None:
        super().__init__(run.evaluations / name)
        self.run = run
        self.arms = self.path / "arms"
        self.checkpoints = self.path / "checkpoints"
        self.answers_file = self.path / "answers.json"
        self.result_file = self.path / "result.json"

    @property
    def root(self) -> Path:
        """The runs folder, whose jobs wait for each other."""
        return self.run.root

    @classmethod
    def open(cls, run: Run, name: str) -> "Evaluation":
        """An existing evaluation; raises RunError where there is none."""
        found = cls(run, name)
        if not found.config_file.is_file():
            there = ", ".join(run.evaluation_names()) or "none yet"
            raise RunError(f"run {run.path} has no evaluation '{name}': there are {there}")
        return found

    @classmethod
    def create(cls, run: Run, name: str, values: dict[str, Any]) -> "Evaluation":
        """Make the folder with its config; an existing one must have the same config."""
        made = cls(run, name)
        if made.config_file.exists():
            made.refuse_other_config("evaluation", values, "--name")
            return made
        made.path.mkdir(parents=True, exist_ok=True)
        made.write_status(Status())
        write_json(made.config_file, values)
        return made

    def config(self) -> EvaluationConfig | TuneConfig:
        """The validated settings of the evaluation, or of the search for a setting."""
        values = self.config_values()
        return (TuneConfig if "kind" in values else EvaluationConfig).parse(values)

    def reference_file(self, phase: str) -> Path:
        """Where the base model's predictions lie while arms are measured against them."""
        return self.path / f"reference-{phase}.npy"

    def arm_file(self, name: str) -> Path:
        """Where one finished arm and seed lies."""
        return self.arms / f"{name}.json"

    def read_arms(self) -> dict[str, dict[str, Any]]:
        """Every finished arm and seed by the name of its file."""
        files = sorted(self.arms.glob("[!.]*.json"))
        return {path.stem: read_json(path) for path in files}


def open_folder(path: str | Path) -> JobFolder:
    """The job folder at a path: a run, a draft of one, or something within a run."""
    path = Path(path).resolve()
    if path.parent.name == DRAFTS:
        return Draft(path)
    if path.parent.name == "evaluations":
        return Evaluation.open(Run.open(path.parents[1]), path.name)
    return TokenRequest(Run.open(path.parent)) if path.name == "token_signal" else Run.open(path)


def runs_root(path: str | Path | None = None) -> Path:
    """Where runs live: the argument, GRADS_RUNS_DIR, or ./runs."""
    return Path(path or os.environ.get("GRADS_RUNS_DIR") or "runs").resolve()


def new_run_path(root: Path, config: RunConfig) -> Path:
    """A fresh directory name that says when and on what: 20260131-154500-medicine-train-a1b2."""
    stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(config.dataset).stem).strip("-").lower()[:24]
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return root / f"{stamp}-{stem or 'run'}-{secrets.token_hex(2)}"


def list_runs(root: Path) -> list[Run]:
    """Every run under the root, newest first."""
    if not root.is_dir():
        return []
    found = [Run(p) for p in root.iterdir() if (p / "config.json").is_file()]
    return sorted(found, key=lambda run: run.config_file.stat().st_mtime, reverse=True)
