"""Saved selections as files that a trainer reads."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from grads.api.runs import load_pool
from grads.errors import ExportError, RunError
from grads.export import saved
from grads.export.corrections import Encoder
from grads.export.replay import check_replay
from grads.export.weighted import Way, Weighting, check_way
from grads.export.write import FORMATS
from grads.selection.decisions import (
    contradictions,
    decisions,
    disagreements,
    followed,
    obeyed,
    unheeded,
)
from grads.selection.options import SelectionConfig
from grads.selection.record import Decision, SelectionRecord, kept_of, read_selection
from grads.selection.weights import sampling_weights
from grads.store.files import digest, remove_drafts
from grads.store.runs import Run

TOLD = ("options", "samples", "response_tokens")  # of the record, in the manifest


def export_selection(
    run: Run,
    name: str,
    kind: str,
    out: Path | None = None,
    *,
    with_scores: bool = False,
    weights: str | None = None,
    rows: int | None = None,
    replay: str | None = None,
    replay_share: float | None = None,
) -> dict[str, Any]:
    """Write a saved selection as `kind` to `out`, or into the run; returns the manifest.

    What people have decided since it was saved is followed: the manifest's `decisions` are those
    that hold, `decided_since` names the rows that they changed, `disagreed` those that reviewers
    disagree about, which are left out. Texts that people have corrected are written as corrected;
    the manifest's `corrections` hold the originals. A format of tokens loads the run's tokenizer
    for them, and torch.

    With `weights` it is every row of the pool, by the weight that the selection's options give it:
    `repeat` writes each row as often as its weight asks for, `rows` in all (by default as many as
    the pool has), `sample` writes the weights as a column. With a file `replay`, rows drawn from it
    by the selection's seed stand between the others and make up `replay_share` of all (this loads
    the run's tokenizer, and torch). An export into the run replaces an earlier one of the same
    name, format, kind of weights, and with or without replay.

    Raises RunError where there is no such selection, SelectionError where it gives no weights,
    DataError where the file of general rows cannot be read, and ExportError where `out` exists
    already, the format or the kind of weights is unknown or does not go together with the other,
    nothing is left, or what was written does not load back as it should.
    """
    record, table = read_selection(run, name)
    by, kept = check_way(weights, rows), kept_of(table)
    # Read at once, before anything slow: people may decide while an export is at work.
    since = unheeded(run, record) if by else contradictions(run, record, kept)
    said, apart = decisions(run), sorted(disagreements(run))
    if by is None:
        weighting = None
        exported = there = obeyed(kept, since)
        if not len(exported):
            raise ExportError(f"people have decided against all that '{name}' keeps: choose anew")
    else:
        weighting = _weighting(run, record, followed(record.options, since), by=by, rows=rows)
        exported, there = weighting.sample_ids, weighting.sample_ids[weighting.share > 0]
    check_replay(replay, replay_share, weights)
    replayed = None
    if replay is not None and replay_share is not None:
        from grads.api.replay import read_replay  # loads torch and its kin

        replayed = read_replay(run, replay, replay_share, record.options.seed)
    remove_drafts(run.exports)
    told = {field: getattr(record, field).model_dump(mode="json") for field in TOLD}
    return saved.export_kept(
        run,
        name,
        exported,
        kind,
        out=out,
        with_scores=with_scores,
        weighting=weighting,
        replayed=replayed,
        encode=_encoder(run, kind),
        record={
            **told,
            "other_scores": _other_scores(run, record),
            "decisions": [made.as_json() for made in _holding(said, there)],
            "decided_since": [made.sample_id for made in since],
            "disagreed": apart,
        },
    )


def _encoder(run: Run, kind: str) -> Encoder | None:
    """What makes the tokens of corrected rows; None where the format has no need of them."""
    if kind not in FORMATS or FORMATS[kind].plain or not run.tokens_file.exists():
        return None

    @cache
    def made() -> Encoder:
        from grads.api.replay import encoder  # loads torch and its kin

        return encoder(run)

    return lambda said: made()(said)


def _holding(said: dict[int, Decision], kept: np.ndarray) -> list[Decision]:
    """The decisions that rows of these ids follow."""
    there = set(kept.tolist())
    return [one for one in said.values() if (one.decision == "pin") == (one.sample_id in there)]


def _weighting(
    run: Run, record: SelectionRecord, options: SelectionConfig, *, by: Way, rows: int | None
) -> Weighting:
    """How often each row of the pool is to stand there by these options."""
    if _other_scores(run, record):
        raise RunError(
            f"selection '{record.name}' was saved with other scores than the run has now: save it"
            " again"
        )
    found = sampling_weights(load_pool(run), options)
    return Weighting(by, found.sample_ids, found.share, found.pinned, rows)


def _other_scores(run: Run, record: SelectionRecord) -> bool:
    """Whether the run has other scores than the selection was chosen by, or none any more."""
    there = digest(run.scores_file) if run.scores_file.exists() else None
    return bool(record.scores_sha256) and record.scores_sha256 != there
