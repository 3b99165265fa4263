"""Which examples Review shows, and in which order: the queue as widgets, kept in the address."""

from typing import Any

from grads import api
from grads.api import QUEUES, Pool, QueueConfig
from studio import keep, url
from studio.language import mark, say, told

NAMES = {
    "random": mark("At random"),
    "topic": mark("A topic"),
    "tag": mark("A tag"),
    "highest": mark("Highest learning signal"),
    "lowest": mark("Lowest learning signal"),
    "borderline": mark("Where a saved selection ends"),
    "duplicates": mark("Near-duplicates, group by group"),
    "disagreements": mark("Where reviewers disagree"),
}
ADDRESS = ("queue", "topic", "tag", "edge", "shuffle", "size", "at")  # all that says where one is
PLACE = "at"  # the entry that is open, from 1


def chosen(pool: Pool, place: Any) -> QueueConfig:
    """The queue that is asked for, of those that the run has; widgets are drawn in `place`."""
    queue, which, size = place.columns([3, 4, 1.4], vertical_alignment="bottom")
    lacking = {
        "topic": not pool.clusters,
        "tag": not api.tags(pool.run),
        "borderline": not pool.run.selection_names(),
        "duplicates": not (pool.duplicate_group >= 0).any(),
    }
    kinds = [kind for kind in QUEUES if not lacking.get(kind)]
    kind = url.choose(
        queue.selectbox,
        say("Queue"),
        kinds,
        "queue",
        format_func=lambda kind: say(NAMES[kind]),
        on_change=restart,
    )
    values: dict[str, Any] = {"kind": kind, **_of(kind, pool, which)}
    values["count"] = url.whole_number(
        size.number_input, say("At most"), 60, key="size", low=1, high=10_000, on_change=restart
    )
    return QueueConfig.parse({name: one for name, one in values.items() if one is not None})


def _of(kind: str, pool: Pool, place: Any) -> dict[str, Any]:
    """What a kind of queue is of, or the order that it is in."""
    if kind == "topic":
        names = list(map(told, pool.cluster_names()))
        topics = list(range(len(names)))
        topic = url.choose(
            place.selectbox,
            say("Topic"),
            topics,
            "topic",
            format_func=names.__getitem__,
            on_change=restart,
        )
        return {"topic": topic}
    if kind == "tag":
        tag = url.choose(
            place.selectbox, say("Tag"), list(api.tags(pool.run)), "tag", on_change=restart
        )
        return {"tag": tag}
    if kind == "borderline":
        saved = pool.run.selection_names()
        name = url.choose(
            place.selectbox,
            say("Saved selection"),
            saved,
            "edge",
            format_func=keep.marked(pool.run),
            on_change=restart,
        )
        return {"selection": name}
    if kind == "random":
        return {
            "seed": url.whole_number(
                place.number_input, say("Seed of the order"), 0, key="shuffle", on_change=restart
            )
        }
    return {}


def restart() -> None:
    """Begin another queue where its reviewer has not decided yet."""
    url.put(PLACE)
