"""A selection -> files a trainer reads, and their manifest. Each is loaded back and counted.

Rows that the target would drop or die on are changed where their meaning stays, and otherwise left
out: the manifest counts the first and lists the second, with the reasons.

Rows come in source order. From a line format, `jsonl` gives the source's lines back byte for
byte; the run keeps them, so the source may be gone.
"""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from grads.config.run import RunConfig
from grads.data.rejects import place
from grads.errors import ExportError, of_the_machine
from grads.export import axolotl, files, llamafactory, openai, torchtune, trl
from grads.export.corrections import correction_lines
from grads.export.replay import Replay, mixed, replay_lines
from grads.export.rows import Fitted, Subset, row_count, write_text
from grads.export.weighted import Weighting, weight_lines, weighted
from grads.store.files import digest, replacing
from grads.text import Sentence

FORMATS = {
    format.name: format
    for format in (
        *files.FORMATS,
        llamafactory.FORMAT,
        trl.FORMAT,
        axolotl.FORMAT,
        openai.FORMAT,
        torchtune.FORMAT,
    )
}


def export(
    subset: Subset,
    kind: str,
    out: Path,
    config: RunConfig,
    *,
    manifest: dict[str, Any],
    weighting: Weighting | None = None,
    replayed: Replay | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write `subset` as `kind` to `out`, check it, and return the manifest written beside it.

    With a `weighting` it is every row by its weight, with `replayed` also drawn general rows.
    `out` is a file for jsonl, csv and parquet where it has that suffix, and otherwise a folder.
    Raises ExportError if it exists (unless `overwrite`) or does not load back as it should.
    """
    if kind not in FORMATS:
        raise ExportError(f"unknown format '{kind}': use one of {', '.join(FORMATS)}")
    if not overwrite:
        _refuse_taken(out)
    fit = FORMATS[kind].fit
    fitted = subset.fitted(fit) if fit else Fitted(subset, [], 0)
    if fitted.refused and not len(fitted.subset):
        first = fitted.refused[0]
        raise ExportError(
            f"{kind} takes none of the {len(subset)} rows; {place(first)}: {first['reason']}"
        )
    subset, weights, replay = fitted.subset, None, None
    if weighting is not None:
        subset, weights = weighted(subset, weighting, FORMATS[kind])
    if replayed is not None:
        subset, replay = mixed(subset, replayed, FORMATS[kind])
    manifest = manifest | {
        "format": kind,
        "rows": len(subset),
        "weights": weights,
        "replay": replay,
        "converted": fitted.converted,
        "refused": fitted.refused,
    }
    try:
        _write_and_check(subset, kind, out, config, manifest=manifest, overwrite=overwrite)
    except (OSError, ValueError, TypeError, OverflowError, csv.Error, pa.ArrowException) as error:
        told = of_the_machine(error) or error
        raise ExportError(f"cannot write {kind} to {out}: {told}") from error
    return manifest


def _refuse_taken(out: Path) -> None:
    if out.exists():
        raise ExportError(f"{out} exists already: give another --out, or remove it first")


def _write_and_check(
    subset: Subset,
    kind: str,
    out: Path,
    config: RunConfig,
    *,
    manifest: dict[str, Any],
    overwrite: bool,
) -> None:
    """Write data and manifest beside their place, and move them there once they load back."""
    form = FORMATS[kind]
    as_file = form.alone and out.suffix == f".{kind}"
    beside = out.with_name(out.name + ".manifest.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as draft:
        folder = draft.parent if as_file else draft
        folder.mkdir(parents=True, exist_ok=True)
        data = draft if as_file else folder / form.data_name.format(name=subset.name)
        form.write(subset, data, config)
        count = form.count(data)
        if count != len(subset):
            raise ExportError(f"{out} loads back as {count} rows, {len(subset)} were chosen")
        manifest["sha256"] = digest(data) if data.is_file() else None
        if not as_file:
            write_text(folder / "manifest.json", json.dumps(manifest, indent=2))
        if not overwrite:
            _refuse_taken(out)  # by another process, meanwhile
        beside.unlink(missing_ok=True)  # of an earlier file: it says nothing of this one
    if as_file:
        with replacing(beside) as draft:
            write_text(draft, json.dumps(manifest, indent=2))


def changed_lines(manifest: dict[str, Any]) -> list[Sentence]:
    """What people should know of rows that the target takes otherwise, or does not take."""
    lines = []
    if manifest.get("other_scores"):
        lines.append(Sentence("the run's scores are others than it was chosen by"))
    if since := manifest.get("decided_since"):
        told = Sentence(
            "people have decided otherwise since it was saved, which is followed here: row {rows}",
            rows=", ".join(map(str, since)),
        )
        lines.append(told)
    if apart := manifest.get("disagreed"):
        told = Sentence(
            "reviewers disagree, and the stricter word holds until it is settled: row {rows}",
            rows=", ".join(map(str, apart)),
        )
        lines.append(told)
    lines += correction_lines(manifest)
    if converted := manifest["converted"]:
        rows = row_count(converted)
        told = Sentence(
            "changed for {format}, their meaning kept: {rows}", format=manifest["format"], rows=rows
        )
        lines.append(told)
    reasons = Counter(row["reason"] for row in manifest["refused"])
    for reason, count in reasons.most_common():
        first = next(row for row in manifest["refused"] if row["reason"] == reason)
        known = {"rows": row_count(count), "place": place(first), "reason": reason}
        lines.append(Sentence("left out: {rows}, as {place}: {reason}", **known))
    lines += weight_lines(manifest["weights"])
    return lines + replay_lines(manifest["replay"], manifest["rows"])
