"""A run's saved selection -> an export, and the export as one file to download."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from grads import __version__
from grads.errors import RunError
from grads.export.rows import Subset, Template
from grads.export.write import export
from grads.store.runs import Run


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
    # What was scored may be shorter: a model has its own limit.
    config = config.model_copy(update={"max_length": manifest.get("max_length", config.max_length)})
    return export(subset, kind, target, config, about, overwrite=out is None) | {
        "path": str(target)
    }


def _subset(run: Run, name: str, ids: pa.ChunkedArray, with_scores: bool) -> Subset:
    there = run.column_names(run.samples_file)
    wanted = ["sample_id", "raw", "turns", "truncated", *({"tools"} & set(there))]
    samples = run.read_table(run.samples_file, wanted)
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
        ids=samples["sample_id"].to_pylist(),
        tools=_tools(samples),
        template=_template(run),
        tokens=_tokens(run, samples),
    )


def _tools(samples: pa.Table) -> list[list[dict[str, Any]]] | None:
    if "tools" not in samples.column_names:
        return None
    return [json.loads(tools) if tools else [] for tools in samples["tools"].to_pylist()]


def _template(run: Run) -> Template | None:
    """The template that the run keeps since 0.5."""
    about = run.read_manifest().get("chat_template")
    if about is None or not run.template_file.exists():
        return None
    source = run.template_file.read_bytes().decode("utf-8")
    return Template(source, about["of_the_model"], about["special_tokens"])


def _tokens(run: Run, samples: pa.Table) -> pa.Table | None:
    """The tokens of these samples, in their order."""
    if not run.tokens_file.exists():
        return None
    tokens = run.read_table(run.tokens_file)
    tokens = tokens.filter(pc.is_in(tokens["sample_id"], samples["sample_id"]))
    if not tokens["sample_id"].equals(samples["sample_id"]):
        return None
    return tokens.append_column("truncated", samples["truncated"])


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
