"""Where a budget cuts the score, in a choice that takes the best."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cut:
    """A budget as a threshold: of some samples it takes the highest scores."""

    score: np.ndarray  # (n,)
    among: np.ndarray  # (n,) bool: what is taken by score: nothing pinned, nothing below the floor
    taken: np.ndarray  # (n,) bool: of those, what the budget holds
    cost: np.ndarray  # (n,) of each sample, in the unit of the budget
    pinned: float  # what pinned samples take of the budget
    more: bool  # whether a budget beyond all of them goes on below the floor

    def way(self, values: np.ndarray) -> int:
        """1 where these numbers (n,) rank what is among as the score does, in equal steps; -1 where
        they do from the lowest on; else 0. Missing ones do not count.
        """
        there = self.among & np.isfinite(values)
        x, y = values[there].astype(float), self.score[there]
        if not len(x) or not x.min() < x.max():
            return 0
        low, high = x.argmin(), x.argmax()
        slope = (y[high] - y[low]) / (x[high] - x[low])
        line = y[low] + slope * (x - x[low])
        return int(np.sign(slope)) if np.allclose(line, y, rtol=0, atol=1e-6 * np.ptp(y)) else 0

    def steps(self, place: np.ndarray, shares: np.ndarray) -> list[tuple[float, int]]:
        """Each share of the pool as a budget, and down to which place it takes.

        `place` (n,) are whole numbers from 0 on that rise with the score, `shares` (m,) rise too.
        Those that go on below the floor are left out, and all but the first that take everything.
        """
        top = int(place.max())
        used = np.bincount(top - place[self.among], self.cost[self.among], top + 1).cumsum()
        budgets = np.maximum(np.round(shares * self.cost.sum()), 1) - self.pinned
        whole = np.searchsorted(budgets, used[-1])
        if not self.more and whole < len(budgets):
            budgets[whole] = used[-1]
        within = (budgets > 0) & (budgets <= used[-1]) & (np.arange(len(budgets)) <= whole)
        found = top - np.searchsorted(used, budgets[within])
        return list(zip(shares[within].tolist(), found.tolist(), strict=True))
