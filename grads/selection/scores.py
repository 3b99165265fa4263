"""The scored pool as arrays: what every criterion sees."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from grads.config.probe import Role


@dataclass(frozen=True)
class Towards:
    """How the n samples lie to one probe set, as probes/NAME.parquet holds it."""

    role: Role
    embed_dot: np.ndarray  # (n,); so are all below
    head_dot: np.ndarray
    embed_cosine: np.ndarray
    head_cosine: np.ndarray
    cosine: np.ndarray  # of both layers as one vector
    rds: np.ndarray


@dataclass(frozen=True)
class Scores:
    """The scored pool, n samples sorted by id; norms are those of engine/gradients.py.

    What a run need not have is there where a criterion says that it needs it.
    """

    sample_id: np.ndarray  # (n,) int64
    response_tokens: np.ndarray  # (n,)
    loss: np.ndarray  # (n,) nats per token
    embed_grad_norm: np.ndarray  # (n,)
    head_grad_norm: np.ndarray  # (n,)
    grad_dot: np.ndarray  # (n,)
    step: np.ndarray | None = None  # (n,) of the warm-up, where it was measured during that
    probes: Mapping[str, Towards] = field(default_factory=dict)  # by the set's name
    question_gain_z: np.ndarray | None = None  # (n,) nan where there is no question
    features: np.ndarray | None = None  # (n, k) what the texts are about

    def __len__(self) -> int:
        return len(self.sample_id)
