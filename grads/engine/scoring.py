"""The pass over all samples: batches by token budget, parts on disk, resume.

Samples are sorted by length, so padding is small, and cut into parts of about `PART_TOKENS`
tokens. A part is written whole or not at all; a resume computes only the missing ones. The plan
depends on the lengths and the budget alone, so an interrupted pass ends as an undisturbed one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from grads.data.tokens import TokenPool, token_batches
from grads.engine.autograd import autograd_norms
from grads.engine.gradients import GradientScorer, SampleGradients
from grads.engine.models import refuse_broken
from grads.errors import ScoringError, Stopped
from grads.store.columns import MEASURED, SCORES
from grads.store.files import open_table, write_table
from grads.store.manifest import SelfCheck
from grads.store.runs import Run

PART_TOKENS = 32_768
MADE_FROM = "made_from"  # in a part's metadata: the digest of all that decides its numbers
PROJECTED = 256  # numbers of a mean hidden state that a part keeps, for the clusters
SELF_CHECK_SAMPLES = 4
# Largest relative difference between the fast path and plain autograd that is let pass. Under
# bfloat16 autograd itself rounds every logit to 8 bits.
SELF_CHECK_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1e-1}


@dataclass(frozen=True)
class Progress:
    """How far the pass is."""

    done: int  # samples
    total: int
    tokens: int  # of this attempt, padding not counted
    tokens_left: int
    loss: float  # mean of the last batch, nats per token


def plan_parts(pool: TokenPool, batch_tokens: int) -> list[list[np.ndarray]]:
    """Batches (positions in the pool), gathered into parts of about PART_TOKENS tokens."""
    parts: list[list[np.ndarray]] = []
    room = 0
    for batch in token_batches(pool.lengths, batch_tokens):
        if room <= 0:
            parts.append([])
            room = PART_TOKENS
        parts[-1].append(batch)
        room -= int(pool.lengths[batch].sum())
    return parts


def score_pool(
    run: Run,
    scorer: GradientScorer,
    pool: TokenPool,
    *,
    batch_tokens: int,
    device: str,
    seed: int,
    with_tokens: bool,
    made_from: str = "",
    report: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Write every missing part; raises Stopped between batches when asked to.

    A part that is damaged, or was made from something else than `made_from`, is missing.
    """
    parts = plan_parts(pool, batch_tokens)
    run.parts.mkdir(exist_ok=True)
    projection = None
    done, tokens, left = 0, 0, int(pool.lengths.sum())
    for number, batches in enumerate(parts):
        file = run.part_file(number)
        if _holds(file, made_from):
            done += sum(len(batch) for batch in batches)
            left -= sum(int(pool.lengths[batch].sum()) for batch in batches)
            continue
        tables = []
        for batch in batches:
            if should_stop():
                raise Stopped
            result = scorer.score(*pool.collate(batch, device))
            _refuse_non_finite(result, pool.sample_ids[batch], scorer.model)
            if projection is None:
                projection = random_projection(result.mean_hidden.shape[1], seed)
            tables.append(_rows(result, pool.sample_ids[batch], projection, with_tokens))
            done += len(batch)
            tokens += int(pool.lengths[batch].sum())
            left -= int(pool.lengths[batch].sum())
            report(Progress(done, len(pool), tokens, left, float(result.loss.mean())))
        part = pa.concat_tables(tables).replace_schema_metadata({MADE_FROM: made_from})
        write_table(file, part)


def _holds(file: Path, made_from: str) -> bool:
    """Whether a part is there, whole, and made from this."""
    if not file.exists():
        return False
    try:
        part = open_table(file).read()
    except (pa.ArrowException, OSError):
        return False
    return (part.schema.metadata or {}).get(MADE_FROM.encode()) == made_from.encode()


def merge_parts(run: Run, pool: TokenPool, batch_tokens: int) -> pa.Table:
    """All parts as one table, sorted by sample id; raises ScoringError if a sample is missing."""
    count = len(plan_parts(pool, batch_tokens))
    tables = [run.read_table(run.part_file(number)) for number in range(count)]
    merged = pa.concat_tables(tables).sort_by("sample_id").combine_chunks()
    if not np.array_equal(merged["sample_id"].to_numpy(), np.sort(pool.sample_ids)):
        raise ScoringError(
            f"the parts in {run.parts} do not hold each sample once: remove the folder and resume"
        )
    return merged


def scores_table(merged: pa.Table, samples: pa.Table) -> pa.Table:
    """scores.parquet: the contract's columns, from the parts and samples.parquet."""
    in_pool = pc.is_in(samples["sample_id"], merged["sample_id"])
    pool = samples.filter(in_pool).sort_by("sample_id")
    sources = {name: merged if name in MEASURED else pool for name in SCORES}
    return pa.table(
        {name: source[name].cast(SCORES[name].kind) for name, source in sources.items()}
    )


def self_check(scorer: GradientScorer, pool: TokenPool, device: str) -> SelfCheck:
    """Score a few samples, spread over the lengths, both ways; the differences, for the manifest.

    Raises ScoringError if they differ by more than the tolerance.
    """
    order = np.argsort(pool.lengths, kind="stable")
    # The longest samples cost most by autograd and show nothing more: stop at the 90th percentile.
    places = np.linspace(0, 0.9 * (len(order) - 1), SELF_CHECK_SAMPLES).astype(int)
    chosen = order[np.unique(places)]
    fast = scorer.score(*pool.collate(chosen, device))
    worst = 0.0
    for row in range(len(chosen)):
        ids, _, labels = pool.collate(chosen[row : row + 1], device)
        slow = autograd_norms(scorer.model, ids[0], labels[0])
        scale = slow.embed_grad_norm * slow.head_grad_norm
        pairs = [
            (fast.loss[row], slow.loss, slow.loss),
            (fast.embed_grad_norm[row], slow.embed_grad_norm, slow.embed_grad_norm),
            (fast.head_grad_norm[row], slow.head_grad_norm, slow.head_grad_norm),
            (fast.grad_dot[row], slow.grad_dot, scale),
        ]
        for mine, theirs, unit in pairs:
            if np.isfinite(theirs):
                worst = max(worst, abs(float(mine) - theirs) / max(unit, 1e-30))
    dtype = next(scorer.model.parameters()).dtype
    tolerance = SELF_CHECK_TOLERANCE[dtype]
    if not worst <= tolerance:
        raise ScoringError(
            f"self-check: the fast gradients differ from plain autograd by {worst:.2%}, allowed are"
            f" {tolerance:.2%}: this model's gradients would be wrong; use another model or"
            " --dtype float32"
        )
    return SelfCheck(
        samples=pool.sample_ids[chosen].tolist(),
        largest_relative_difference=worst,
        tolerance=tolerance,
    )


def random_projection(width: int, seed: int) -> np.ndarray | None:
    """(width, PROJECTED) seeded Gaussian map that keeps distances; None where none is needed."""
    if width <= PROJECTED:
        return None
    rng = np.random.default_rng(seed)
    projection: np.ndarray = rng.standard_normal((width, PROJECTED)) / np.sqrt(PROJECTED)
    return projection.astype(np.float32)


def _rows(
    result: SampleGradients,
    sample_ids: np.ndarray,
    projection: np.ndarray | None,
    with_tokens: bool,
) -> pa.Table:
    hidden = result.mean_hidden.float().cpu().numpy()
    features = hidden if projection is None else hidden @ projection
    columns: dict[str, Any] = {"sample_id": pa.array(sample_ids)}
    for name in MEASURED:
        columns[name] = pa.array(getattr(result, name).float().cpu().numpy())
    width = features.shape[1]
    columns["feature"] = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), width)
    if with_tokens:
        columns |= token_signals(result)
    return pa.table(columns)


def token_signals(result: SampleGradients) -> dict[str, pa.Array]:
    """Columns of a batch's per-token norms, a list a sample."""
    return {
        name: pa.array(
            [norms.float().cpu().numpy() for norms in getattr(result, name)],
            pa.large_list(pa.float32()),
        )
        for name in ("embed_token_norm", "head_token_norm")
    }


def _refuse_non_finite(result: SampleGradients, sample_ids: np.ndarray, model: Any) -> None:
    norms = torch.stack([result.loss, result.embed_grad_norm, result.head_grad_norm])
    bad = ~torch.isfinite(norms).all(dim=0).cpu().numpy()
    if bad.any():
        refuse_broken(model)
        raise ScoringError(
            f"samples {sample_ids[bad].tolist()} have a NaN or infinite gradient: look at those"
            " samples, or use --dtype float32"
        )
