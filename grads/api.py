"""All that the pages and the command line may call. Imports in under a second, without torch."""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grads import __version__, jobs, selection
from grads.config import RunConfig, SelectionConfig
from grads.errors import RunError, SelectionError
from grads.export import Subset, export
from grads.runs import Run, Status, list_runs, new_run_path, runs_root
from grads.selection import Scores

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SCORE_COLUMNS = ("loss", "embed_grad_norm", "head_grad_norm", "grad_dot")


@dataclass(frozen=True)
class RunSummary:
    """What a list of runs shows of each."""

    id: str
    path: str
    dataset: str
    model: str
    status: Status
    counts: dict[str, int]
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
        selections=run.selection_names(),
    )


def summaries(root: str | None = None) -> list[RunSummary]:
    """Every run under the root, newest first."""
    return [summary(run) for run in list_runs(runs_root(root))]


def load_scores(run: Run) -> Scores:
    """scores.parquet as arrays, sorted by sample id."""
    table = run.read_table(run.scores_file)
    names = ("sample_id", "response_tokens", *SCORE_COLUMNS)
    return Scores(**{name: table[name].to_numpy() for name in names})


def select_samples(run: Run, name: str, options: SelectionConfig) -> dict[str, Any]:
    """Choose a subset, save it under `name` (which becomes a file name); returns its record."""
    if not NAME.fullmatch(name):
        raise SelectionError(
            f"'{name}' is no name for a selection: use letters, digits, dot, dash and underscore"
        )
    scores = load_scores(run)
    cluster, _ = _clusters(run)
    columns = _number_columns(run) if options.bounds else {}
    chosen = selection.select(scores, options, columns, cluster)
    everything = SelectionConfig(
        criterion="random", count=int(chosen.kept.sum()), seed=options.seed
    )
    random = selection.select(scores, everything)
    record = {
        "name": name,
        "options": options.model_dump(mode="json"),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "scores_sha256": hashlib.sha256(run.scores_file.read_bytes()).hexdigest(),
        "samples": {"kept": int(chosen.kept.sum()), "pool": len(scores)},
        "response_tokens": {
            "kept": int(scores.response_tokens[chosen.kept].sum()),
            "pool": int(scores.response_tokens.sum()),
            "random": int(scores.response_tokens[random.kept].sum()),
        },
        "notes": chosen.ranking.notes,
        "warnings": chosen.warnings,
    }
    table = pa.table(
        {
            "sample_id": scores.sample_id,
            "kept": chosen.kept,
            "score": chosen.ranking.score.astype(np.float32),
            "log_density": chosen.ranking.log_density.astype(np.float32),
            "signal": chosen.ranking.x.astype(np.float32),
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


def _clusters(run: Run) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Cluster and near-duplicate group of each scored sample, where the run has them."""
    if not run.features_file.exists():
        return None, None
    table = run.read_table(run.features_file, ["cluster", "duplicate_group"])
    return table["cluster"].to_numpy(), table["duplicate_group"].to_numpy()


def _number_columns(run: Run) -> dict[str, np.ndarray]:
    """Every column of numbers that a bound may name: scores first, then the source's own."""
    scores = run.read_table(run.scores_file)
    found = {
        name: scores[name].to_numpy()
        for name in ("sample_id", "prompt_tokens", "response_tokens", *SCORE_COLUMNS)
    }
    if "columns" not in pq.read_schema(run.samples_file).names:
        return found
    samples = run.read_table(run.samples_file, ["sample_id", "columns"])
    in_pool = pc.is_in(samples["sample_id"], scores["sample_id"])
    extra = samples.filter(in_pool).sort_by("sample_id")["columns"].combine_chunks()
    for field in extra.type:
        values = pc.struct_field(extra, field.name)
        if field.name not in found and (
            pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
        ):
            found[field.name] = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return found
