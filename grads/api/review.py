"""What people look at, and the page by which they do so without the tool."""

from pathlib import Path

from grads.api.runs import load_pool
from grads.config.queue import QueueConfig
from grads.export import packet
from grads.selection import queues
from grads.selection.decision_files import COLUMNS
from grads.selection.decisions import REASONS, disagreements, in_words
from grads.selection.queues import Entry
from grads.store.files import write_out
from grads.store.runs import Run
from grads.text import Sentence, Tell

TITLES = {
    "random": Sentence("Examples of the run {run}, drawn at random"),
    "highest": Sentence("Examples of the run {run}, of the highest learning signal"),
    "lowest": Sentence("Examples of the run {run}, of the lowest learning signal"),
    "duplicates": Sentence("Examples of the run {run}, near-duplicates"),
    "disagreements": Sentence("Examples of the run {run}, that reviewers disagree about"),
    "topic": Sentence("Examples of the run {run}, of the topic {topic}"),
    "tag": Sentence("Examples of the run {run}, tagged {tag}"),
    "borderline": Sentence("Examples of the run {run}, where the selection {selection} ends"),
}


def review_queue(run: Run, config: QueueConfig) -> list[Entry]:
    """Which samples to look at, and in which order; what an entry holds is looked at together.

    Raises SelectionError where the run has no such topic or tag, and RunError where it has no
    such selection, or is not scored yet.
    """
    return queues.queue(load_pool(run), config)


def packet_page(run: Run, config: QueueConfig, tell: Tell = str) -> str:
    """An HTML page that stands alone, on which someone decides about a queue.

    `tell` puts its texts into a language. Raises as `review_queue` does, and ExportError where the
    queue is empty.
    """
    entries = review_queue(run, config)
    said: dict[int, list[str]] | None = None
    if config.kind == "disagreements":
        said = {sample: [*map(in_words, here)] for sample, here in disagreements(run).items()}
    title, given = _title(run, config), {"columns": COLUMNS, "reasons": REASONS}
    return packet.page(run, entries, title, **given, opinions=said, tell=tell)


def write_packet(run: Run, config: QueueConfig, out: Path) -> int:
    """Write that page to a file; how many entries its queue has.

    Raises as `packet_page` does, and RunError where it cannot be written.
    """
    write_out(out, packet_page(run, config))
    return len(review_queue(run, config))


def _title(run: Run, config: QueueConfig) -> Sentence:
    values: dict[str, str] = {"run": run.id}
    if config.kind == "topic":
        values["topic"] = load_pool(run).cluster_names()[config.topic or 0]
    elif config.kind == "tag":
        values["tag"] = config.tag or ""
    elif config.kind == "borderline":
        values["selection"] = config.selection or ""
    return TITLES[config.kind].filled(**values)
