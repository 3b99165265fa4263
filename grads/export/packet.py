"""A packet: a page that stands alone, on which someone without the tool decides about samples.

It works from a file, without a network. The texts are data to it, never code: they stand in a block
that nothing executes, and its policy lets no script run but its own.
"""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from grads.errors import ExportError
from grads.export.corrections import corrected_turns
from grads.store.files import digest_of
from grads.store.runs import Run

PAGE = Path(__file__).with_name("packet.html")
REASONS = ("wrong", "outdated", "unclear", "duplicate")  # that are offered everywhere
SHOWN = ("role", "content", "reasoning", "tool_calls")  # of a turn


def page(
    run: Run,
    entries: list[tuple[int, ...]],
    title: str,
    *,
    columns: tuple[str, ...],
    opinions: dict[int, list[str]] | None = None,
) -> str:
    """The page as text; an entry is looked at as one.

    `columns` are those of a file of decisions. With `opinions`, which are shown, decisions settle.
    Raises ExportError where nothing is to be looked at.
    """
    if not entries:
        raise ExportError("there is nothing to look at in this queue: choose another one")
    samples = _samples(run, [sample for entry in entries for sample in entry], opinions or {})
    found: dict[str, Any] = {
        "run": run.id,
        "title": title,
        "columns": columns,
        "reasons": REASONS,
        "settles": opinions is not None,
        "entries": [[samples[sample] for sample in entry] for entry in entries],
    }
    block = _inert(found | {"packet": digest_of(found)[:16]})
    text = PAGE.read_text(encoding="utf-8").replace('"POLICY"', f'"{_policy()}"')
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
