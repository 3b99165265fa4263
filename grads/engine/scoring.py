"""The scoring pass: every sample's gradients as the tables of the run directory hold them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from grads.engine.directions import Direction, Towards
from grads.engine.gradients import GradientScorer, SampleGradients
from grads.engine.passes import Parts, Progress
from grads.errors import ScoringError
from grads.store.columns import DURING, MEASURED, SCORES
from grads.store.files import as_lists

TOKEN_SIGNALS = ("embed_token_norm", "head_token_norm")  # columns of lists
PROJECTED = 256  # numbers of a mean hidden state that a part keeps, for the clusters


def score_pool(
    parts: Parts,
    scorer: GradientScorer,
    *,
    device: str,
    seed: int,
    with_tokens: bool,
    directions: Mapping[str, Direction] | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Write the missing parts of the scores; raises Stopped between batches when asked to.

    How the samples lie to each of `directions` stands in columns that `towards_table` finds.
    """
    pool, directions = parts.pool, directions or {}
    projection = None

    def measure(batch: np.ndarray) -> pa.Table:
        nonlocal projection
        result = scorer.score(*pool.collate(batch, device), list(directions.values()))
        if projection is None:
            projection = random_projection(result.mean_hidden.shape[1], seed)
        return batch_table(
            result,
            pool.sample_ids[batch],
            projection=projection,
            with_tokens=with_tokens,
            sets=list(directions),
        )

    parts.write(measure, report=report, should_stop=should_stop)


def direct_pool(
    parts: Parts,
    scorer: GradientScorer,
    *,
    device: str,
    directions: Mapping[str, Direction],
    report: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """As `score_pool`, of a pool that is scored already: only how the samples lie to each set."""
    pool = parts.pool

    def measure(batch: np.ndarray) -> pa.Table:
        result = scorer.score(*pool.collate(batch, device), list(directions.values()))
        ids, loss = pool.sample_ids[batch], _numpy(result.loss)
        _refuse_non_finite(result, ids)
        return pa.table(
            {"sample_id": ids, "loss": loss} | _towards_columns(result, list(directions))
        )

    parts.write(measure, report=report, should_stop=should_stop)


def score_losses(
    parts: Parts,
    scorer: GradientScorer,
    *,
    device: str,
    report: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """The loss of every sample of a pool, by forward passes alone, in parts."""
    pool = parts.pool

    def measure(batch: np.ndarray) -> pa.Table:
        loss = _numpy(scorer.losses(*pool.collate(batch, device)))
        return pa.table({"sample_id": pool.sample_ids[batch], "loss": loss})

    parts.write(measure, report=report, should_stop=should_stop)


def scores_table(merged: pa.Table, samples: pa.Table) -> pa.Table:
    """scores.parquet: the contract's columns, from the parts and samples.parquet."""
    in_pool = pc.is_in(samples["sample_id"], merged["sample_id"])
    pool = samples.filter(in_pool).sort_by("sample_id")
    sources = {name: merged if name in MEASURED else pool for name in SCORES}
    sources |= {name: merged for name in DURING if name in merged.column_names}
    declared = SCORES | DURING
    return pa.table(
        {name: source[name].cast(declared[name].kind) for name, source in sources.items()}
    )


def has_set(columns: list[str], name: str) -> bool:
    """Whether parts of these columns tell how the samples lie to the set."""
    return _column(name, Towards._fields[0]) in columns


def towards_table(merged: pa.Table, name: str) -> pa.Table:
    """probes/NAME.parquet: how every sample lies to the set, from the parts."""
    columns = {field: merged[_column(name, field)] for field in Towards._fields}
    return pa.table({"sample_id": merged["sample_id"], **columns})


def _column(name: str, field: str) -> str:
    return f"{name}:{field}"


def _towards_columns(result: SampleGradients, sets: list[str]) -> dict[str, Any]:
    return {
        _column(name, field): pa.array(_numpy(values))
        for name, towards in zip(sets, result.towards, strict=True)
        for field, values in towards._asdict().items()
    }


def random_projection(width: int, seed: int) -> np.ndarray | None:
    """(width, PROJECTED) seeded Gaussian map that keeps distances; None where none is needed."""
    if width <= PROJECTED:
        return None
    rng = np.random.default_rng(seed)
    projection: np.ndarray = rng.standard_normal((width, PROJECTED)) / np.sqrt(PROJECTED)
    return projection.astype(np.float32)


def batch_table(
    result: SampleGradients,
    sample_ids: np.ndarray,
    *,
    projection: np.ndarray | None,
    with_tokens: bool,
    sets: list[str],
) -> pa.Table:
    """A batch's numbers as a part holds them; `sets` name the directions that it was scored with.

    Raises ScoringError for numbers that are none.
    """
    _refuse_non_finite(result, sample_ids)
    hidden = _numpy(result.mean_hidden)
    features = hidden if projection is None else hidden @ projection
    columns: dict[str, Any] = {"sample_id": pa.array(sample_ids)}
    for name in MEASURED:
        columns[name] = pa.array(_numpy(getattr(result, name)))
    columns["feature"] = as_lists(features)
    if with_tokens:
        columns |= token_signals(result)
    return pa.table(columns | _towards_columns(result, sets))


def _numpy(values: torch.Tensor) -> np.ndarray:
    return np.asarray(values.float().cpu().numpy())


def token_signals(result: SampleGradients) -> dict[str, pa.Array]:
    """Columns of a batch's per-token norms, a list a sample."""
    return {
        name: pa.array(
            [norms.float().cpu().numpy() for norms in getattr(result, name)],
            pa.large_list(pa.float32()),
        )
        for name in TOKEN_SIGNALS
    }


def _refuse_non_finite(result: SampleGradients, sample_ids: np.ndarray) -> None:
    numbers = [result.loss, result.embed_grad_norm, result.head_grad_norm]
    numbers += [value for towards in result.towards for value in towards]
    bad = ~torch.stack([torch.isfinite(n) for n in numbers]).all(dim=0).cpu().numpy()
    if bad.any():
        raise ScoringError(
            f"samples {sample_ids[bad].tolist()} have a NaN or infinite gradient: look at those"
            " samples, or use --dtype float32"
        )
