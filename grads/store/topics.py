"""clusters.json of a run, its topics, and topic_names.json, what people call them."""

from pydantic import Field

from grads.store.records import Part, Stored


class Topic(Part):
    """A cluster of samples."""

    cluster: int
    """Its number, by size from 0 on."""
    size: int
    """Samples."""
    terms: list[str]
    """What sets its texts apart, best first."""
    broken: bool = False
    """Whether it holds the texts that are damaged, and no subject."""


class Topics(Stored):
    """clusters.json."""

    clusters: list[Topic]
    """Largest first."""


class TopicNames(Stored):
    """topic_names.json."""

    names: dict[int, str] = Field(default_factory=dict)
    """By the topic's number."""
    clusters_sha256: str = ""
    """Of the clusters.json whose topics they name; those of another have no names."""
