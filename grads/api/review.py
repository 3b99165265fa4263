"""What people look at, and the page by which they do so without the tool."""

from pathlib import Path

from grads.api.runs import load_pool
from grads.config.queue import QueueConfig
from grads.errors import ExportError, of_the_machine
from grads.export import packet
from grads.selection import queues
from grads.selection.decision_files import COLUMNS
from grads.selection.decisions import disagreements, in_words
from grads.selection.queues import Entry
from grads.store.files import replacing
from grads.store.runs import Run

TITLES = {
    "random": "drawn at random",
    "highest": "of the highest learning signal",
    "lowest": "of the lowest learning signal",
    "duplicates": "near-duplicates",
    "disagreements": "that reviewers disagree about",
}


def review_queue(run: Run, config: QueueConfig) -> list[Entry]:
    """Which samples to look at, and in which order; what an entry holds is looked at together.

    Raises SelectionError where the run has no such topic, and RunError where it has no such
    selection, or is not scored yet.
    """
    return queues.queue(load_pool(run), config)


def packet_page(run: Run, config: QueueConfig) -> str:
    """An HTML page that stands alone, on which someone decides about a queue.

    Raises as `review_queue` does, and ExportError where the queue is empty.
    """
    entries = review_queue(run, config)
    said = None
    if config.kind == "disagreements":
        said = {sample: [*map(in_words, here)] for sample, here in disagreements(run).items()}
    return packet.page(run, entries, _title(run, config), columns=COLUMNS, opinions=said)


def write_packet(run: Run, config: QueueConfig, out: Path) -> int:
    """Write that page to a file; how many entries its queue has. Raises as `packet_page` does."""
    text = packet_page(run, config)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as draft:
            draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ExportError(f"cannot write {out}: {of_the_machine(error) or error}") from None
    return len(review_queue(run, config))


def _title(run: Run, config: QueueConfig) -> str:
    if config.kind == "topic":
        what = f"of the topic {load_pool(run).cluster_names()[config.topic or 0]}"
    elif config.kind == "borderline":
        what = f"where the selection {config.selection} ends"
    else:
        what = TITLES[config.kind]
    return f"Examples of the run {run.id}, {what}"
