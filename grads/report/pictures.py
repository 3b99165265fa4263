"""Pictures as SVG, from plain arrays: they need no script, and take the page's colours.

Kept is blue, set aside is grey, as on the pages, and hatched, for print without colours.
"""

from collections.abc import Sequence

import numpy as np

from grads.report.markup import text, told
from grads.selection.density import number_of_bars
from grads.selection.preview import Coverage
from grads.text import Sentence

WIDTH = 860
LEFT, RIGHT, NAMES = 46, 24, 260  # pixels beside the axis, and for the names of rows
HEIGHT, ROW = 260, 22
HATCH = (
    '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse"'
    ' patternTransform="rotate(45)"><rect width="5" height="5" fill="var(--aside)"'
    ' fill-opacity="0.45"/><rect width="2" height="5" fill="var(--aside)"/></pattern></defs>'
)


def distribution(values: np.ndarray, kept: np.ndarray | None, label: str) -> str:
    """Counts of a column (n,) in bins, split by kept (n,) bool where a subset is given.

    Bins reach over all but the outermost 0.1% at either end, which count in the last ones.
    """
    low, high = (float(end) for end in np.nanquantile(values, [0.001, 0.999]))
    high = high if high > low else low + 1.0
    bars = number_of_bars(values, low, high)
    edges = np.linspace(low, high, bars + 1)
    parts = {Sentence("all"): ("var(--neutral)", np.ones(len(values), bool))}
    if kept is not None:
        parts = {
            Sentence("kept"): ("var(--kept)", kept),
            Sentence("set aside"): ("url(#hatch)", ~kept),
        }
    counts = {
        name: np.histogram(np.clip(values[member], low, high), edges)[0]
        for name, (_, member) in parts.items()
    }
    most = max(int(np.sum(list(counts.values()), axis=0).max()), 1)
    width, base, room = (WIDTH - LEFT - RIGHT) / bars, HEIGHT - 48, HEIGHT - 84
    drawn, floor = [HATCH if kept is not None else ""], np.zeros(bars)
    for place, (name, (colour, _)) in enumerate(parts.items()):
        for i, count in enumerate(counts[name].tolist()):
            tall = room * count / most
            y = base - room * floor[i] / most - tall
            x = LEFT + i * width
            drawn.append(_bar(x, y, width - 1, tall, fill=colour) if count else "")
        floor += counts[name]
        drawn.append(_bar(LEFT + 110 * place, 6, 12, 12, fill=colour))
        drawn.append(_words(LEFT + 110 * place + 18, 16, name))
    drawn.append(_rule(LEFT, base, WIDTH - RIGHT, base))
    for at in np.linspace(low, high, 6):
        x = LEFT + (at - low) / (high - low) * (WIDTH - LEFT - RIGHT)
        drawn += [_rule(x, base, x, base + 4), _words(x, base + 17, f"{at:.3g}", "middle")]
    drawn += [_words(LEFT - 6, base, "0", "end"), _words(LEFT - 6, 40, f"{most:,}", "end")]
    drawn.append(_words(WIDTH / 2, HEIGHT - 4, label, "middle"))
    says = Sentence(
        "Distribution of {label} over {number:,} examples", label=label, number=len(values)
    )
    return _svg(drawn, HEIGHT, says)


def coverage(rows: Sequence[Coverage], pool: int, kept: int) -> str:
    """Each topic's share in percent of all and of the kept samples, and its range by chance."""
    whole = [100 * row.pool / pool for row in rows]
    of_kept = 100 / max(kept, 1)
    mine = [of_kept * row.kept for row in rows]
    reach = [(of_kept * row.random.low, of_kept * row.random.high) for row in rows]
    most = max([*whole, *mine, *(high for _, high in reach)]) or 1.0
    height = 56 + ROW * len(rows)

    def across(percent: float) -> float:
        return NAMES + (WIDTH - NAMES - 60) * percent / most

    drawn = [
        _words(NAMES + 8, 14, f"│ {told(Sentence('all examples'))}"),
        _mark(NAMES + 130, 10),
        _words(NAMES + 140, 14, Sentence("kept")),
        _bar(NAMES + 200, 6, 30, 8, fill="var(--line)"),
        _words(NAMES + 236, 14, Sentence("95% of random subsets")),
    ]
    for i, row in enumerate(rows):
        y, name, (low, high) = 38 + ROW * i, told(row.name), reach[i]
        drawn += [
            _words(NAMES - 10, y + 4, name if len(name) <= 38 else name[:37] + "…", "end"),
            _bar(across(low), y - 4, max(across(high) - across(low), 1), 8, fill="var(--line)"),
            _rule(across(whole[i]), y - 8, across(whole[i]), y + 8),
            _mark(across(mine[i]), y),
            _words(WIDTH - 4, y + 4, f"{mine[i]:.1f}%", "end"),
        ]
    drawn.append(_words(NAMES, height - 4, "0%", "middle"))
    drawn.append(_words(across(most), height - 4, f"{most:.0f}%", "middle"))
    return _svg(drawn, height, Sentence("Share of each topic among all and kept examples"))


def _svg(drawn: Sequence[str], height: float, says: str) -> str:
    inner = "".join(drawn)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{text(says)}">{inner}</svg>'
    )


def _bar(x: float, y: float, width: float, height: float, *, fill: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{fill}"/>'
    )


def _mark(x: float, y: float) -> str:
    return f'<path d="M{x - 6:.1f},{y:g} l6,-6 6,6 -6,6 z" fill="var(--kept)"/>'


def _rule(x: float, y: float, to_x: float, to_y: float) -> str:
    ends = f'x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"'
    return f'<line {ends} stroke="currentColor" stroke-width="1.5"/>'


def _words(x: float, y: float, says: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text(says)}</text>'
