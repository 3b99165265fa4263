"""A packet: a page that stands alone, on which someone without the tool decides about samples.

It works from a file, without a network. The texts are data to it, never code: they stand in a block
that nothing executes, and its policy lets no script run but its own.
"""

import base64
import hashlib
import json
import re
from html import escape
from pathlib import Path
from typing import Any

from grads.errors import ExportError
from grads.export.corrections import corrected_turns
from grads.store.files import digest_of
from grads.store.runs import Run
from grads.text import Sentence, Tell

PAGE = Path(__file__).with_name("packet.html")
SHOWN = ("role", "content", "reasoning", "tool_calls")  # of a turn
WORDS = {  # what the page says, in which braces hold what its script puts in
    "language": Sentence("en"),
    "asked": Sentence("Would you train on this?"),
    "name": Sentence("Your name"),
    "nameless": Sentence("First say who you are."),
    "progress": Sentence("{place} of {all} in this queue, {done} decided by you"),
    "all": Sentence("All {all} in this queue, {done} decided by you"),
    "row": Sentence("Row {row}"),
    "system": Sentence("Instruction to the model"),
    "user": Sentence("Question"),
    "assistant": Sentence("Answer"),
    "tool": Sentence("Result of a tool"),
    "text": Sentence("Text"),
    "reasoning": Sentence("Reasoning"),
    "calls": Sentence("Calls a tool"),
    "why": Sentence("Why (optional)"),
    "own": Sentence("A reason of your own"),
    "own_here": Sentence("a reason of your own"),
    "keep": Sentence("Keep"),
    "keep_all": Sentence("Keep all"),
    "exclude": Sentence("Exclude"),
    "exclude_all": Sentence("Exclude all"),
    "skip": Sentence("Skip"),
    "undo": Sentence("Undo"),
    "only": Sentence("Keep this one, exclude the others"),
    "kept": Sentence("You keep it"),
    "excluded": Sentence("You exclude it"),
    "because": Sentence("{said}: {reason}"),
    "twin": Sentence("duplicate of row {row}"),
    "help": Sentence(
        "What you keep is always trained on, what you exclude never; what you skip is left open."
        " Arrow keys go back and on. Nothing leaves this computer: send the downloaded file back."
    ),
    "through": Sentence("You are through. Download your decisions and send the file back."),
    "download": Sentence("Download my decisions"),
    "unkept": Sentence(
        "This browser keeps no progress: download your decisions before you close the page."
    ),
}


def page(
    run: Run,
    entries: list[tuple[int, ...]],
    title: str,
    *,
    columns: tuple[str, ...],
    reasons: tuple[str, ...],
    opinions: dict[int, list[str]] | None = None,
    tell: Tell = str,
) -> str:
    """The page as text, in the language that `tell` tells; an entry is looked at as one.

    `columns` are those of a file of decisions, `reasons` are offered for them: what comes back is
    the same in every language. With `opinions`, which are shown, decisions settle. Raises
    ExportError where nothing is to be looked at.
    """
    if not entries:
        raise ExportError("there is nothing to look at in this queue: choose another one")
    said = {sample: [*map(tell, here)] for sample, here in (opinions or {}).items()}
    samples = _samples(run, [sample for entry in entries for sample in entry], said)
    found: dict[str, Any] = {
        "run": run.id,
        "title": tell(title),
        "columns": columns,
        "reasons": reasons,
        "settles": opinions is not None,
        "entries": [[samples[sample] for sample in entry] for entry in entries],
    }
    words = {name: tell(text) for name, text in WORDS.items()}
    called = {reason: tell(Sentence(reason)) for reason in reasons}
    block = _inert(found | {"packet": digest_of(found)[:16], "words": words, "called": called})
    text = PAGE.read_text(encoding="utf-8").replace('"POLICY"', f'"{_policy()}"')
    text = re.sub(r"{{(\w+)}}", lambda place: escape(words[place[1]]), text)
    return text.replace(">DATA<", f">{block}<")


def _samples(run: Run, ids: list[int], opinions: dict[int, list[str]]) -> dict[int, dict[str, Any]]:
    rows, corrected = run.read_samples(ids), corrected_turns(run, ids)
    return {
        sample: {
            "id": sample,
            "hash": row.get("hash", ""),
            "turns": [
                {key: turn[key] for key in SHOWN if turn.get(key)}
                for turn in corrected.get(sample, row["turns"])
            ],
            "opinions": opinions.get(sample, []),
        }
        for sample, row in rows.items()
    }


def _inert(value: Any) -> str:
    """JSON in which nothing ends the block that it stands in."""
    return re.sub("[<>&]", lambda mark: f"\\u{ord(mark[0]):04x}", json.dumps(value))


def _policy() -> str:
    """What the page may do: its own script and style, and nothing from anywhere."""
    text = PAGE.read_text(encoding="utf-8")

    def digest(tag: str) -> str:
        inner = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)[0]
        return base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()

    style, script = digest("style"), digest("script")
    return f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'"
