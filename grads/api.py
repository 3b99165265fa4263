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

from grads import __version__, arms, estimates, jobs, selection, tuning
from grads.config import RunConfig, SelectionConfig
from grads.errors import EvaluationError, RunError, SelectionError
from grads.evaluation_config import EvaluationConfig, TuneConfig
from grads.export import Subset, export
from grads.runs import (
    Evaluation,
    JobFolder,
    Run,
    Status,
    list_runs,
    new_run_path,
    read_json,
    runs_root,
)
from grads.scored import choose, load_scores

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
    selections: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {**vars(self), "status": self.status.model_dump(mode="json")}


def create_run(config: RunConfig, run_dir: str | None = None, root: str | None = None) -> Run:
    """The run's directory with its config: `run_dir`, or a new one under the runs root."""
    path = Path(run_dir).expanduser() if run_dir else new_run_path(runs_root(root), config)
    return Run.create(config, path)


def start_run(run: JobFolder) -> bool:
    """Start the job of a run or an evaluation in the background; False where one is at work."""
    return jobs.start(run)


def resume_run(run: JobFolder) -> bool:
    """Go on from the last finished step or part; raises RunError on a finished run."""
    state = jobs.observe(run).state
    if state == "finished":
        raise RunError(f"{run.id} is finished: there is nothing to resume")
    return jobs.start(run)


def stop_run(run: JobFolder) -> Status:
    """Stop the job of a run or of an evaluation; returns when its process tree is gone."""
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


def select_samples(run: Run, name: str, options: SelectionConfig) -> dict[str, Any]:
    """Choose a subset, save it under `name` (which becomes a file name); returns its record."""
    _check_name(name)
    scores = load_scores(run)
    chosen = choose(run, scores, options)
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


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise SelectionError(
            f"'{name}' is no name for a selection: use letters, digits, dot, dash and underscore"
        )


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


# -- evaluations: does a subset teach more and forget less?


def create_evaluation(run: Run, name: str, config: EvaluationConfig | TuneConfig) -> Evaluation:
    """The folder of an evaluation (or of a search for a setting) with its config.

    Raises RunError where a selection is missing, the run is not scored, or the folder holds
    another config, and EvaluationError where there is nothing to measure on.
    """
    if not NAME.fullmatch(name):
        raise EvaluationError(
            f"'{name}' is no name for an evaluation: use letters, digits, dot, dash and underscore"
        )
    if isinstance(config, TuneConfig):
        _check_name(config.save_as)
    _planned_trials(run, config)
    if config.heldout is None and not run.read_manifest()["counts"]["heldout"]:
        raise EvaluationError(
            f"run {run.id} has no held-out samples: give a file with --heldout FILE, or score the"
            " data again with --heldout N"
        )
    for file in (config.heldout, *config.general):
        if file is not None and not Path(file).expanduser().exists():
            raise EvaluationError(f"no file at {file}: check the path")
    return Evaluation.create(run, name, config.model_dump(mode="json"))


def evaluations(run: Run) -> list[dict[str, Any]]:
    """Name, kind (evaluation or tune) and status of each evaluation of a run, newest first."""
    found = [Evaluation(run, name) for name in run.evaluation_names()]
    found.sort(key=lambda one: one.config_file.stat().st_mtime, reverse=True)
    return [
        {
            "name": one.id,
            "kind": one.config_values().get("kind", "evaluation"),
            "status": jobs.observe(one).model_dump(mode="json"),
        }
        for one in found
    ]


def read_evaluation(run: Run, name: str) -> dict[str, Any]:
    """Its name, config, status, and so far as they are there result and answers (else None)."""
    found = Evaluation.open(run, name)
    files = {"result": found.result_file, "answers": found.answers_file}
    return {
        "name": name,
        "config": found.config_values(),
        "status": jobs.observe(found).model_dump(mode="json"),
    } | {key: read_json(file) if file.exists() else None for key, file in files.items()}


def estimate_evaluation(run: Run, config: EvaluationConfig | TuneConfig) -> dict[str, Any]:
    """What it will take, before it starts, by the speed that the run itself has measured.

    `seconds` with `low` and `high` (None without a measured speed), `tokens`, and `arms`: how many
    models are trained and measured, each seed counted.
    """
    trials = _planned_trials(run, config)
    return estimates.estimate(run, config, trials)


def _planned_trials(run: Run, config: EvaluationConfig | TuneConfig) -> list[arms.Trial]:
    scores = load_scores(run)
    if isinstance(config, TuneConfig):
        return tuning.trials(run, scores, config)
    planned = arms.plan(run, config, len(scores))
    return arms.trials(run, scores, planned, config, range(config.seeds))


def subset_overlap(run: Run, ratio: float = 0.1) -> dict[str, Any]:
    """How far the subsets of the tune grid overlap, and their length and loss; no training."""
    return tuning.overlap(run, load_scores(run), ratio)
