"""What people call a run and its topics, and what they note about it."""

from grads.errors import ConfigError
from grads.store.runs import Run

LONGEST = {"title": 120, "notes": 10_000, "name": 60}  # in characters


def describe(run: Run, *, title: str | None = None, notes: str | None = None) -> None:
    """Give a run a title or notes, in the place of those it has; empty ones take them away.

    Its folder keeps its name, so links and commands stay good. Raises ConfigError where a text is
    too long.
    """
    given = {}
    if title is not None:
        given["title"] = _checked("title", " ".join(title.split()))
    if notes is not None:
        given["notes"] = _checked("notes", notes.strip())
    run.update_about(**given)


def name_topic(run: Run, topic: int, name: str) -> None:
    """Call a topic so in every view; an empty name gives it back the one by its terms.

    Raises ConfigError where the run has no such topic, or the name is too long.
    """
    there = len(run.read_clusters())
    if not 0 <= topic < there:
        known = f"they are numbered from 0 to {there - 1}" if there else "it has none yet"
        raise ConfigError(f"run {run.id} has no topic {topic}: {known}")
    run.name_topic(topic, _checked("name", " ".join(name.split())))


def _checked(what: str, text: str) -> str:
    most = LONGEST[what]
    if len(text) > most:
        raise ConfigError(f"the {what} has {len(text):,} characters: at most {most:,} are kept")
    return text
