"""Where a row stands in its data set, as rejects.jsonl keeps it and as messages name it."""

from typing import Any

Spot = dict[str, Any]  # sample_id, row, line, and the file where there are several


def spot(sample_id: int, line: int | None, file: str | None) -> Spot:
    """The place of a row: its 0-based id, which is its number everywhere, and its file's line."""
    place = {"sample_id": sample_id, "row": sample_id, "line": line}
    return place | ({"file": file} if file else {})


def place(spot: Spot) -> str:
    """The place in words: row 3 (line 4 of b.jsonl).

    By its id, as runs from before 0.5 counted `row` from 1 and kept no line.
    """
    line, file = spot.get("line"), spot.get("file")
    inside = " of ".join([*([f"line {line}"] if line else []), *([file] if file else [])])
    return f"row {spot['sample_id']}" + (f" ({inside})" if inside else "")
