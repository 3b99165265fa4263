"""A run's saved selection -> an export, and the export as one file to download."""

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grads import __version__
from grads.errors import RunError
from grads.export.corrections import Encoder, corrected
from grads.export.replay import Replay
from grads.export.rows import Subset, Template
from grads.export.weighted import Weighting
from grads.export.write import export
from grads.store.files import digest
from grads.store.runs import Run


def export_kept(
    run: Run,
    name: str,
    ids: np.ndarray,
    kind: str,
    *,
    out: Path | None = None,
    with_scores: bool = False,
    weighting: Weighting | None = None,
    replayed: Replay | None = None,
    encode: Encoder | None = None,
    record: dict[str, Any],
) -> dict[str, Any]:
    """Write the samples of these ids (n,) as `kind` to `out`, or into the run; the manifest.

    What people have corrected is written as corrected; `encode` makes its tokens, where the format
    has need of them. `record` holds what the manifest is to say of the selection called `name`. An
    export into the run replaces an earlier one of the same name, format, kind of weights, and with
    or without replay. Raises ExportError as `export` does.
    """
    folder = f"{kind}-{weighting.by}" if weighting else kind
    folder += "-replay" if replayed else ""
    target = out or run.exports / name / folder
    config, manifest = run.config(), run.read_manifest()
    subset, written = corrected(_subset(run, name, ids, with_scores), run, encode)
    about = {
        "selection": name,
        **record,
        "run": run.id,
        "config": run.config_values(),
        "model": config.model,
        "source": manifest.source.as_json(),
        "gradients_taken": manifest.gradients_taken,
        "corrected": sorted({one.sample_id for one in written}),
        "corrections": [one.as_json() for one in written],
        "versions": manifest.versions | {"grads": __version__},
    }
    # What was scored may be shorter: a model has its own limit.
    config = config.model_copy(update={"max_length": manifest.max_length or config.max_length})
    made = export(
        subset,
        kind,
        target,
        config,
        manifest=about,
        weighting=weighting,
        replayed=replayed,
        overwrite=out is None,
    )
    return made | {"path": str(target)}


def _subset(run: Run, name: str, ids: np.ndarray, with_scores: bool) -> Subset:
    there = run.column_names(run.samples_file)
    wanted = ["sample_id", "raw", "turns", "truncated", *({"tools"} & set(there))]
    samples = run.read_table(run.samples_file, wanted)
    mask = pc.is_in(samples["sample_id"], pa.array(ids))
    samples = samples.filter(mask)
    if len(samples) != len(ids):
        raise RunError(
            f"run {run.id} does not have all samples of selection '{name}': save it again"
        )
    table = run.read_table(run.source_file).filter(mask) if run.source_file.exists() else None
    raw = samples["raw"].to_pylist()
    rows = [json.loads(line) for line in raw] if table is None else table.to_pylist()
    scores = None
    if with_scores:
        scored = run.read_table(run.scores_file)
        scores = scored.filter(pc.is_in(scored["sample_id"], pa.array(ids))).to_pylist()
    return Subset(
        name=name,
        lines=raw if run.read_manifest().source.lines else None,
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
    """The template that the run keeps since 0.5; raises RunError where it is not the one kept."""
    manifest, file = run.read_manifest(), run.template_file
    about, known = manifest.chat_template, manifest.files.get(file.name)
    if about is None or (known is None and not file.exists()):
        return None
    if known is not None and (not file.exists() or digest(file) != known):
        raise RunError(f"{file} is damaged: {run.remedy(file)}")
    source = file.read_bytes().decode("utf-8")
    return Template(source, about.of_the_model, about.special_tokens)


def _tokens(run: Run, samples: pa.Table) -> pa.Table | None:
    """The tokens of these samples, in their order."""
    if not run.tokens_file.exists():
        return None
    tokens = run.read_table(run.tokens_file)
    if "spelled" not in tokens.column_names:
        tokens = tokens.append_column("spelled", pa.repeat(False, len(tokens)))
    tokens = tokens.filter(pc.is_in(tokens["sample_id"], samples["sample_id"]))
    if not tokens["sample_id"].equals(samples["sample_id"]):
        return None
    return tokens.append_column("truncated", samples["truncated"])


def bundle_name(path: Path) -> str:
    """What `bundle` calls its file: of an export in a run, RUN-SELECTION-FORMAT.zip."""
    return path.name if path.is_file() else f"{_called(path)}.zip"


def _called(path: Path) -> str:
    """A folder's name, with those of its run and selection where it lies in a run's exports."""
    selection = path.parent
    if selection.parent.name != "exports":
        return path.name
    return "-".join((selection.parent.parent.name, selection.name, path.name))


def bundle(path: Path) -> tuple[str, bytes]:
    """An export as one file to download: itself, or a folder as a zip; its name and content."""
    if not path.exists():
        raise RunError(f"{path} is gone: make the files again")
    if path.is_file():
        return path.name, path.read_bytes()
    buffer, folder = io.BytesIO(), path.stat()
    try:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for member in sorted(path.rglob("*")):
                archive.write(member, Path(_called(path)) / member.relative_to(path))
        whole = os.path.samestat(path.stat(), folder)
    except FileNotFoundError:
        whole = False
    if not whole:
        raise RunError(f"{path} was made anew meanwhile: download it again")
    return bundle_name(path), buffer.getvalue()
