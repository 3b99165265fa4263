"""estimate.json of a run or a draft: what was measured of its cost before the start."""

from grads.store.records import Stored


class RunCost(Stored):
    """estimate.json: what a run will take on this machine."""

    seconds: dict[str, float]
    """By the name of the stage."""
    memory_bytes: int = 0
    """At most, of the process or the GPU."""
    disk_bytes: int = 0
    training_tokens_per_s: float | None = None
    """None where nothing is trained."""
    scoring_tokens_per_s: float = 0.0
    samples: int = 0
    tokens: int = 0
    """Of all samples."""
    device: str = ""
