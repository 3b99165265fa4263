"""What a choice of samples amounts to: counts, price, coverage, and what enters and leaves."""

from dataclasses import dataclass

import numpy as np

from grads.selection.cut import Cut
from grads.selection.luck import Band, kept_again, random_count, random_sum
from grads.selection.options import SelectionConfig
from grads.selection.pool import Pool
from grads.selection.select import Ranking
from grads.store.pipeline import STAGES
from grads.text import Sentence


@dataclass(frozen=True)
class Coverage:
    """A category's samples in the pool, in the subset, and in random subsets of its size."""

    name: str
    pool: int
    kept: int
    random: Band


@dataclass(frozen=True)
class Price:
    """Seconds on this machine, from the run's own warm-up; None where it trained nothing."""

    choosing: float  # warm-up, self-check and scoring: paid once
    epoch_kept: float | None
    epoch_all: float | None

    @property
    def break_even(self) -> float | None:
        """Epochs of training after which choosing has paid for itself; None if it never does."""
        if self.epoch_kept is None or self.epoch_all is None:
            return None
        saved = self.epoch_all - self.epoch_kept
        return self.choosing / saved if saved > 0 else None


@dataclass(frozen=True)
class Preview:
    """A subset that is looked at, not yet saved."""

    options: SelectionConfig
    kept: np.ndarray  # (n,) bool
    ranking: Ranking
    response_tokens: dict[str, int]  # kept, pool
    random_tokens: Band  # of random subsets of as many samples
    signal_share: float  # of the summed root sum of squares of the gradient norms
    random_signal_share: Band
    again: np.ndarray | None  # (n,) chance to be kept under another seed; None if none has a say
    price: Price
    warnings: list[Sentence]
    cut: Cut | None  # where the budget ends; None where no score alone tells who is kept

    @property
    def count(self) -> int:
        """Samples kept."""
        return int(self.kept.sum())

    @property
    def stability(self) -> float | None:
        """Share of the kept that another seed would keep too; None where no seed has a say."""
        return None if self.again is None else float(self.again[self.kept].mean())


def preview(pool: Pool, options: SelectionConfig) -> Preview:
    """Choose under these options and say what the choice amounts to."""
    chosen = pool.select(options)
    kept = chosen.kept
    count, tokens = int(kept.sum()), pool.scores.response_tokens
    total = float(pool.l2.sum()) or 1.0
    return Preview(
        options=options,
        kept=kept,
        ranking=chosen.ranking,
        response_tokens={"kept": int(tokens[kept].sum()), "pool": int(tokens.sum())},
        random_tokens=random_sum(tokens, count),
        signal_share=float(pool.l2[kept].sum() / total),
        random_signal_share=random_sum(pool.l2, count).of(total),
        again=kept_again(
            pool.scores,
            options,
            chosen,
            cluster=pool.cluster if options.draw == "stratified" else None,
            duplicate_group=pool.heeded_groups(options),
        ),
        price=price(pool, kept),
        warnings=chosen.warnings,
        cut=chosen.cut,
    )


def price(pool: Pool, kept: np.ndarray) -> Price:
    """What choosing has cost, and what an epoch on the subset and on everything takes."""
    manifest = pool.run.read_manifest()
    seconds = manifest.seconds
    choosing = sum(seconds.get(name, 0.0) for name, stage in STAGES.items() if stage.chooses)
    trained = manifest.warmup.samples if manifest.warmup else None
    if not trained or not seconds.get("warm-up"):
        return Price(choosing, None, None)
    epochs, tokens = pool.run.config().epochs, pool.tokens.sum()
    per_token = seconds["warm-up"] / (epochs * tokens * trained / len(pool))
    return Price(choosing, float(per_token * pool.tokens[kept].sum()), float(per_token * tokens))


def coverage(pool: Pool, shown: Preview, by: str) -> list[Coverage]:
    """Each category of a column in pool, subset and random subsets, largest first."""
    column = pool.categories[by]
    whole, kept = (
        np.bincount(column.code[mask], minlength=len(column.names)).tolist()
        for mask in (slice(None), shown.kept)
    )
    rows = [
        Coverage(name, mine, kept_, random_count(mine, len(pool), shown.count))
        for name, mine, kept_ in zip(column.names, whole, kept, strict=True)
    ]
    return sorted(rows, key=lambda row: -row.pool)


def emptied(rows: list[Coverage]) -> dict[str, float]:
    """Categories of which the subset keeps nothing, with how many a random one would on average."""
    return {row.name: row.random.mean for row in rows if row.kept == 0 and row.pool}


@dataclass(frozen=True)
class Shared:
    """How two subsets of one pool relate, in samples."""

    both: int
    only_first: int
    only_second: int
    jaccard: float  # shared ones among those of either
    by_chance: float  # how many two random subsets of these sizes would share


def overlap(first: np.ndarray, second: np.ndarray) -> Shared:
    """How two subsets of one pool relate; masks (n,) bool."""
    both = int((first & second).sum())
    either = int((first | second).sum())
    return Shared(
        both=both,
        only_first=int((first & ~second).sum()),
        only_second=int((~first & second).sum()),
        jaccard=both / either if either else 1.0,
        by_chance=float(first.sum()) * float(second.sum()) / len(first),
    )
