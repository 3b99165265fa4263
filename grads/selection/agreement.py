"""How far two runs agree: how they rank the samples that both have, and how far the best overlap.

Two samples are the same where they have the same text, and the same row number if both runs read
the same source; copies of a text are told apart by their order. Every number is that of the run's
whole pool, as its own selections see it; only the ranking is among the shared samples.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from grads.errors import RunError
from grads.selection.options import SelectionConfig
from grads.selection.pool import SIGNALS, Pool
from grads.store.columns import EXTRAS, MEASURED, TOWARDS, towards_name

SHARES = (0.05, 0.1, 0.5)  # of the shared samples, from the highest down
FEWEST = 3  # samples that can be ranked at all
SCORE = "score"  # what the default selection ranks by


@dataclass(frozen=True)
class SharedRows:
    """The samples that two pools both have, in the order of the first."""

    first: np.ndarray  # (m,) positions in the first pool
    second: np.ndarray  # (m,) positions of the same samples in the second
    by: Literal["row", "text"]


@dataclass(frozen=True)
class Ranks:
    """How alike two columns rank m samples."""

    samples: int
    rank_correlation: float  # Spearman's
    overlap: dict[float, float]
    """By share: how much of the highest share of the first is also in that of the second."""


def shared_rows(first: Pool, second: Pool) -> SharedRows:
    """The samples of two pools that are the same; raises RunError where they are too few."""
    digests = {pool.run.read_manifest().source.digest for pool in (first, second)}
    one_source = len(digests) == 1 and None not in digests
    key = ["hash", "sample_id" if one_source else "copy"]
    found = _texts(first).merge(_texts(second), on=key, suffixes=("", "_second"))
    if len(found) < FEWEST:
        raise RunError(
            f"{first.run.path} and {second.run.path} have {len(found)} scored samples in common:"
            f" give two runs on the same data, with at least {FEWEST}"
        )
    found = found.sort_values("position")
    return SharedRows(
        found["position"].to_numpy(),
        found["position_second"].to_numpy(),
        "row" if one_source else "text",
    )


def _texts(pool: Pool) -> pd.DataFrame:
    """Of each sample its place, its id, the digest of its text, and which copy of that it is."""
    run = pool.run
    if "hash" not in run.column_names(run.samples_file):
        raise RunError(f"{run.path} keeps no digests of its texts: run it again")
    table = run.read_table(run.samples_file, ["sample_id", "hash"])
    own = pd.DataFrame(
        {"sample_id": pool.scores.sample_id, "position": np.arange(len(pool), dtype=np.int64)}
    )
    own = own.merge(table.to_pandas(), on="sample_id")
    return own.assign(copy=own.groupby("hash").cumcount())


def comparable(
    first: Pool, second: Pool
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], list[str]]:
    """The columns that both pools measure, as pairs of their arrays, and the sets left out.

    Probe sets of one name are the same where their rows are. Lengths and columns of the source
    say nothing of a run.
    """
    sets = [pool.run.read_manifest().probes for pool in (first, second)]
    named = [name for name in first.probes if name in second.probes]
    same = [n for n in named if len({(s[n].role, s[n].digest) for s in sets}) == 1]
    names = [*SIGNALS, *MEASURED, *EXTRAS]
    names += [towards_name(field, name) for name in same for field in TOWARDS]
    there = [name for name in names if name in first.numbers and name in second.numbers]
    pairs = {SCORE: (_score(first), _score(second))}
    pairs |= {name: (first.numbers[name], second.numbers[name]) for name in there}
    return pairs, [name for name in named if name not in same]


def _score(pool: Pool) -> np.ndarray:
    return pool.select(SelectionConfig(ratio=SHARES[0])).ranking.score


def ranks(first: np.ndarray, second: np.ndarray) -> Ranks | None:
    """How alike two columns (m,) rank the same samples; None where one of them ranks nothing.

    Samples that one of them has no number for are left out. Of equal numbers the earlier sample
    ranks higher.
    """
    from scipy.stats import spearmanr  # takes longer to load than a command should

    known = np.isfinite(first) & np.isfinite(second)
    a, b = first[known], second[known]
    if len(a) < FEWEST or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return Ranks(
        samples=len(a),
        rank_correlation=float(spearmanr(a, b).statistic),
        overlap={share: _overlap(a, b, share) for share in SHARES},
    )


def _overlap(a: np.ndarray, b: np.ndarray, share: float) -> float:
    return float((highest(a, share) & highest(b, share)).sum()) / _count(a, share)


def highest(values: np.ndarray, share: float) -> np.ndarray:
    """(m,) bool: the highest share of the values, at least one."""
    mask = np.zeros(len(values), bool)
    mask[np.argsort(-values, kind="stable")[: _count(values, share)]] = True
    return mask


def _count(values: np.ndarray, share: float) -> int:
    return max(1, round(share * len(values)))
