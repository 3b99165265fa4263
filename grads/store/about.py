"""about.json of a run: what people call it, and what they noted about it."""

from grads.store.records import Stored


class About(Stored):
    """about.json: words of people; the folder's name stays what links and commands go by."""

    title: str = ""
    notes: str = ""
