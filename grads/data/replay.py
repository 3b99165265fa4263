"""General rows beside those of a task: how many make a share of all, and which."""

import numpy as np


def replay_count(samples: int, share: float) -> int:
    """How many rows go with that many samples to be a share (above 0, below 1) of all; at least
    one."""
    return max(1, round(samples * share / (1 - share)))


def draw_rows(available: int, count: int, seed: int) -> np.ndarray:
    """Positions of `count` rows without replacement, all if there are fewer; in no order.

    Under one seed, fewer rows are a part of what more rows are.
    """
    order: np.ndarray = np.random.default_rng(seed).permutation(available)
    return order[:count]
