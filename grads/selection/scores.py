"""The scored pool as arrays: what every criterion sees."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scores:
    """The scored pool, n samples sorted by id; norms are those of engine/gradients.py."""

    sample_id: np.ndarray  # (n,) int64
    response_tokens: np.ndarray  # (n,)
    loss: np.ndarray  # (n,) nats per token
    embed_grad_norm: np.ndarray  # (n,)
    head_grad_norm: np.ndarray  # (n,)
    grad_dot: np.ndarray  # (n,)

    def __len__(self) -> int:
        return len(self.sample_id)
