"""Subsets of a run's samples that are kept: saved under a name, and exported as files."""

import hashlib
import io
import json
import re
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grads import __version__
from grads.config.run import SelectionConfig
from grads.errors import RunError, SelectionError
from grads.export.files import Subset, export
from grads.selection import preview
from grads.selection.decisions import decisions, with_decisions
from grads.selection.pool import Pool
from grads.store.runs import Run

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def select_samples(
    run: Run, name: str, options: SelectionConfig, pool: Pool | None = None
) -> dict[str, Any]:
    """Choose a subset, save it under `name` (which becomes a file name); returns its record.

    What people have decided about single samples (`decide`) joins the options' pins and
    exclusions, and is kept with the record.
    """
    check_name(name)
    pool = pool or Pool(run)
    options = with_decisions(run, options)
    chosen = preview.preview(pool, options)
    ranking = chosen.ranking
    followed = {"pin": options.pins, "exclude": options.excluded}
    people = [d for d in decisions(run).values() if d["sample_id"] in followed[d["decision"]]]
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


def check_name(name: str) -> None:
    """Raise SelectionError where a name cannot become a file name."""
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


def bundle_name(path: Path) -> str:
    """What `bundle` calls its file."""
    return path.name if path.is_file() else f"{path.name}.zip"


def bundle(path: Path) -> tuple[str, bytes]:
    """An export as one file to download: itself, or a folder as a zip; its name and content."""
    if not path.exists():
        raise RunError(f"{path} is gone: make the files again")
    if path.is_file():
        return path.name, path.read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in sorted(path.rglob("*")):
            archive.write(member, Path(path.name) / member.relative_to(path))
    return bundle_name(path), buffer.getvalue()
