"""clusters.json of a run: its topics."""

from grads.store.records import Part, Stored


class Topic(Part):
    """A cluster of samples."""

    cluster: int
    """Its number, by size from 0 on."""
    size: int
    """Samples."""
    terms: list[str]
    """What sets its texts apart, best first."""


class Topics(Stored):
    """clusters.json."""

    clusters: list[Topic]
    """Largest first."""
