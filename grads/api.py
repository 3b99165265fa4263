"""All that the pages and the command line may call. Imports in under a second, without torch."""

import hashlib
import io
import json
import re
import shutil
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock

from grads import __version__, jobs, preview
from grads.config import RunConfig, SelectionConfig
from grads.decisions import decide, decisions, with_decisions
from grads.drafts import (
    allowed_roots,
    check,
    columns_of,
    data_place,
    draft,
    examples,
    lengths,
    save_upload,
)
from grads.errors import RunError, SelectionError
from grads.export import Subset, export
from grads.pool import Pool
from grads.runs import (
    ACTIVE,
    Run,
    Status,
    TokenRequest,
    list_runs,
    new_run_path,
    runs_root,
)

__all__ = [
    "NAME",
    "RunSummary",
    "allowed_roots",
    "ask_token_signals",
    "bundle",
    "busy",
    "check",
    "columns_of",
    "create_run",
    "data_place",
    "decide",
    "decisions",
    "delete_run",
    "draft",
    "examples",
    "export_selection",
    "lengths",
    "load_pool",
    "resume_run",
    "save_upload",
    "select_samples",
    "start_new",
    "start_run",
    "stop_run",
    "summaries",
    "summary",
    "with_decisions",
]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class RunSummary:
    """What a list of runs shows of each."""

    id: str
    path: str
    dataset: str
    model: str
    status: Status
    counts: dict[str, int]
    scored: bool
    selections: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**vars(self), "status": self.status.model_dump(mode="json")}


def create_run(config: RunConfig, run_dir: str | None = None, root: str | None = None) -> Run:
    """The run's directory with its config: `run_dir`, or a new one under the runs root."""
    path = Path(run_dir).expanduser() if run_dir else new_run_path(runs_root(root), config)
    return Run.create(config, path)


def start_run(run: Run) -> bool:
    """Start the run's job in the background; False where one is already at work."""
    return jobs.start(run)


def resume_run(run: Run) -> bool:
    """Go on from the last finished step or part; raises RunError on a finished run."""
    state = jobs.observe(run).state
    if state == "finished":
        raise RunError(f"run {run.id} is finished: there is nothing to resume")
    return jobs.start(run)


def stop_run(run: Run) -> Status:
    """Stop the run's job; returns when its process tree is gone."""
    return jobs.stop(run)


def summary(run: Run) -> RunSummary:
    """One run at a glance."""
    config = run.config_values()
    return RunSummary(
        id=run.id,
        path=str(run.path),
        dataset=str(config.get("dataset")),
        model=str(config.get("model")),
        status=jobs.observe(run),
        counts=run.read_manifest().get("counts", {}),
        scored=run.scores_file.exists(),
        selections=run.selection_names(),
    )


def summaries(root: str | None = None) -> list[RunSummary]:
    """Every run under the root, newest first."""
    return [summary(run) for run in list_runs(runs_root(root))]


def load_pool(run: Run) -> Pool:
    """The scored samples of a run as columns; raises RunError before its scoring has ended."""
    return Pool(run)


def select_samples(
    run: Run, name: str, options: SelectionConfig, pool: Pool | None = None
) -> dict[str, Any]:
    """Choose a subset, save it under `name` (which becomes a file name); returns its record.

    What people have decided about single samples (`decide`) joins the options' pins and
    exclusions, and is kept with the record.
    """
    if not NAME.fullmatch(name):
        raise SelectionError(
            f"'{name}' is no name for a selection: use letters, digits, dot, dash and underscore"
        )
    pool = pool or load_pool(run)
    options = with_decisions(run, options)
    chosen = preview.preview(pool, options)
    ranking = chosen.ranking
    people = [d for d in decisions(run).values() if d["sample_id"] in options.by_hand]
    record = {
        "name": name,
        "options": options.model_dump(mode="json"),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "scores_sha256": hashlib.sha256(run.scores_file.read_bytes()).hexdigest(),
        "samples": {"kept": chosen.count, "pool": len(pool)},
        "response_tokens": chosen.response_tokens,
        "decisions": people,
        "notes": ranking.notes,
        "warnings": chosen.warnings,
    }
    table = pa.table(
        {
            "sample_id": pool.scores.sample_id,
            "kept": chosen.kept,
            "score": ranking.score.astype(np.float32),
            "log_density": ranking.log_density.astype(np.float32),
            "signal": ranking.x.astype(np.float32),
        }
    )
    run.write_selection(name, record, table)
    return record


def export_selection(
    run: Run, name: str, kind: str, out: Path | None = None, with_scores: bool = False
) -> dict[str, Any]:
    """Write a saved selection as `kind` to `out`, or into the run; returns the manifest.

    An export into the run replaces an earlier one of the same name and format.
    """
    record, table = run.read_selection(name)
    target = out or run.exports / name / kind
    config, manifest = run.config(), run.read_manifest()
    ids = table.filter(table["kept"])["sample_id"]
    subset = _subset(run, name, ids, with_scores)
    about = {
        "selection": name,
        "options": record["options"],
        "decisions": record.get("decisions", []),
        "run": run.id,
        "config": run.config_values(),
        "model": config.model,
        "source": manifest.get("source", {}),
        "gradients_taken": manifest.get("gradients_taken"),
        "samples": record["samples"],
        "response_tokens": record["response_tokens"],
        "versions": manifest.get("versions", {}) | {"grads": __version__},
    }
    return export(subset, kind, target, config, about, overwrite=out is None) | {
        "path": str(target)
    }


def _subset(run: Run, name: str, ids: pa.ChunkedArray, with_scores: bool) -> Subset:
    samples = run.read_table(run.samples_file, ["sample_id", "raw", "turns"])
    mask = pc.is_in(samples["sample_id"], ids)
    samples = samples.filter(mask)
    table = run.read_table(run.source_file).filter(mask) if run.source_file.exists() else None
    raw = samples["raw"].to_pylist()
    rows = [json.loads(line) for line in raw] if table is None else table.to_pylist()
    scores = None
    if with_scores:
        scored = run.read_table(run.scores_file)
        scores = scored.filter(pc.is_in(scored["sample_id"], ids)).to_pylist()
    return Subset(
        name=name,
        lines=raw if run.read_manifest()["source"]["lines"] else None,
        rows=rows,
        table=table,
        turns=samples["turns"].to_pylist(),
        scores=scores,
    )


# -- around a run


def start_new(config: RunConfig, root: str | None = None, at_once: bool = False) -> Run:
    """A new run in the background; it waits for others unless it is to start at once.

    Where a job with these very settings is at work already (a double click, a second tab), that
    one is the answer. What was measured for the settings goes with the run, to be held against
    what it took.
    """
    values = config.model_dump(mode="json")
    place = runs_root(root)
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / ".start.lock"):
        for run in list_runs(place):
            if run.config_values() == values and jobs.observe(run).state in ACTIVE:
                return run
        run = create_run(config, root=root)
        measured = draft(config, "cost", root).estimate_file
        if measured.exists():
            shutil.copy2(measured, run.estimate_file)
        jobs.start(run, at_once)
        return run


def busy(root: str | None = None) -> list[Run]:
    """Runs whose job is at work or waits."""
    return [run for run in list_runs(runs_root(root)) if jobs.observe(run).state in ACTIVE]


def delete_run(run: Run) -> None:
    """Remove a run and all its files; raises RunError while its job is at work."""
    if jobs.observe(run).state in ACTIVE:
        raise RunError(f"run {run.id} is at work: stop it first")
    shutil.rmtree(run.path)


def ask_token_signals(run: Run, sample_ids: list[int]) -> TokenRequest:
    """Start a job that computes the per-token signals of samples the run kept none of."""
    request = TokenRequest(run)
    if jobs.observe(request).state not in ACTIVE:
        request.ask(sample_ids)
        jobs.start(request)
    return request


def bundle(path: Path) -> tuple[str, bytes]:
    """An export as one file to download: itself, or a folder as a zip; its name and content."""
    if path.is_file():
        return path.name, path.read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in sorted(path.rglob("*")):
            archive.write(member, Path(path.name) / member.relative_to(path))
    return f"{path.name}.zip", buffer.getvalue()
