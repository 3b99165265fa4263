"""Subsets of a run's samples that are kept: saved under a name, and exported as files."""

import re
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from grads import __version__
from grads.errors import SelectionError
from grads.selection import preview
from grads.selection.decisions import decisions, disagreements, with_decisions
from grads.selection.filters import Filter
from grads.selection.options import SelectionConfig
from grads.selection.pool import Pool
from grads.selection.record import SampleCounts, SelectionRecord, TokenCounts, write_selection
from grads.store.runs import Run

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def select_samples(
    run: Run, name: str, options: SelectionConfig, pool: Pool | None = None
) -> SelectionRecord:
    """Choose a subset, save it under `name` (which becomes a file name); returns its record.

    What people have decided about single samples (`decide`) joins the options' pins and
    exclusions, and is kept with the record. Raises SelectionError where the name or the options
    cannot be, and RunError before the run's scoring has ended.
    """
    check_name(name)
    pool = pool or Pool(run)
    options = with_decisions(run, options)
    chosen = preview.preview(pool, options)
    ranking = chosen.ranking
    followed = {"pin": options.pins, "exclude": options.excluded}
    record = SelectionRecord(
        name=name,
        options=options,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        scores_sha256=pool.scores_sha256,
        samples=SampleCounts(kept=chosen.count, pool=len(pool)),
        response_tokens=TokenCounts(
            **chosen.response_tokens, random=round(chosen.random_tokens.mean)
        ),
        decisions=[d for d in decisions(run).values() if d.sample_id in followed[d.decision]],
        notes=[*ranking.notes],
        warnings=[*chosen.warnings, *_apart(run, options)],
    )
    table = pa.table(
        {
            "sample_id": pool.scores.sample_id,
            "kept": chosen.kept,
            "score": ranking.score.astype(np.float32),
            "log_density": ranking.log_density.astype(np.float32),
            "signal": ranking.x.astype(np.float32),
        }
    )
    return write_selection(run, record, table)


def _apart(run: Run, options: SelectionConfig) -> list[str]:
    """What is to be said where reviewers disagree about samples that are left out for it."""
    ids = sorted(disagreements(run).keys() & set(options.excluded))
    rows = ", ".join(map(str, ids))
    return [f"reviewers disagree about samples {rows}: left out until it is settled"] if ids else []


def all_matching(pool: Pool, wanted: Filter) -> SelectionConfig:
    """Options that keep every sample which passes a filter, but for those that people veto.

    Ranges and topics stay as they are; what options cannot say is a list of samples.
    """
    if wanted == Filter(bounds=wanted.bounds, clusters=wanted.clusters):
        same = {"bounds": wanted.bounds, "clusters": wanted.clusters}
        return SelectionConfig.parse({"criterion": "random", "ratio": 1.0, **same})
    vetoed = [row.sample_id for row in decisions(pool.run).values() if row.decision == "exclude"]
    ids = np.setdiff1d(pool.scores.sample_id[pool.matching(wanted)], vetoed).tolist()
    if not ids:
        raise SelectionError("nothing is left to save: widen the filter")
    return SelectionConfig.parse({"criterion": "random", "count": len(ids), "pins": ids})


def check_name(name: str) -> None:
    """Raise SelectionError where a name cannot become a file name."""
    if not NAME.fullmatch(name):
        raise SelectionError(
            f"'{name}' is no name for a selection: use letters, digits, dot, dash and underscore"
        )
