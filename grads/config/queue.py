"""Which samples people are to look at, and in which order."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from grads.config.base import Flag, Settings

Kind = Literal[
    "random",
    "topic",
    "tag",
    "highest",
    "lowest",
    "borderline",
    "duplicates",
    "disagreements",
]
QUEUES: tuple[Kind, ...] = get_args(Kind)


class QueueConfig(Settings):
    """A queue of samples for people to decide about."""

    kind: Annotated[Kind, Flag("--queue")] = "random"
    """What is looked at: samples drawn at random, a topic, those with a tag, those of the highest
    or lowest learning signal, those nearest to where a saved selection ends, groups of
    near-duplicates, or those that reviewers disagree about."""
    topic: int | None = Field(None, ge=0)
    """Number of the topic, of the queue topic; clusters.json names them."""
    tag: str | None = None
    """Tag, of the queue tag."""
    selection: str | None = None
    """Saved selection, of the queue borderline."""
    count: int = Field(60, ge=1, le=10_000)
    """Longest queue, in samples; of near-duplicates, in groups."""
    seed: int = Field(0, ge=0)
    """Seed of the order of the queues random, topic and tag."""

    @model_validator(mode="after")
    def _has_what_it_is_of(self) -> Self:
        if self.kind == "topic" and self.topic is None:
            raise ValueError("the queue 'topic' needs the number of one: give --topic")
        if self.kind == "tag" and self.tag is None:
            raise ValueError("the queue 'tag' needs one: give --tag")
        if self.kind == "borderline" and self.selection is None:
            raise ValueError("the queue 'borderline' needs a saved selection: give --selection")
        return self
