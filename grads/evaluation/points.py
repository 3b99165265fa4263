"""Marks in pictures of an evaluation: what was learned and forgotten, at a share or a size."""

from grads.store.records import Part


class ReplayPoint(Part):
    """What an arm learned and forgot with a share of general rows mixed in."""

    share: float
    """0 for the arm alone."""
    learning: float
    """Held-out loss."""
    forgetting: float
    """Rise of the general loss over the base model's."""


class BudgetPoint(Part):
    """What a criterion, random or everything has come to at a size."""

    criterion: str
    """`everything` at a budget of 100."""
    budget: float
    """In percent of the pool."""
    arm: str
    """Its label."""
    samples: int
    learning: float
    """Held-out loss."""
    learning_interval: tuple[float, float] | None
    """None with one seed; so is that of forgetting."""
    forgetting: float
    """Rise of the general loss over the base model's."""
    forgetting_interval: tuple[float, float] | None
    gain: float | None
    """Share of what everything gains in held-out loss over the base model; None where that is
    nothing."""


class Point(Part):
    """A pilot's place in the picture of a search."""

    learning: float
    """Held-out loss."""
    forgetting: float
    """Rise of the general loss over the base model's."""


class Noise(Part):
    """How far one pilot may lie from the mean by chance, at 95%; None where it is unknown."""

    learning: float | None
    forgetting: float | None
