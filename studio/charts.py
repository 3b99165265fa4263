"""Plotly figures from plain arrays, in the language of the reader. No widgets, no disk.

Two colours carry meaning throughout, each with a second cue (symbol or hatching): kept is blue,
set aside is grey; they stay apart under the common kinds of colour blindness.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from scipy.stats import rankdata

from grads.api import number_of_bars
from studio.language import mark, say

KEPT, NEUTRAL, SHOWN, AGAINST = "#3a86d8", "#8b919c", "#2a9d78", "#e07b1f"
# Of groups: none is near the blue of what is kept.
GROUPS = ("#e07b1f", "#2a9d78", "#c565a5", "#b8a31c", "#7a6fd0", "#9c6b4a", "#c8384e", "#1b6f7a")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star", "pentagon")
DIMMED = "rgba(139,145,156,0.22)"
CELLS = 60  # along each axis of a plane
# Points of a plane that go to the browser: as SVG, which also draws at once without a GPU.
MOST_POINTS = 2_000
OTHERS = mark("all others")
PLAIN = {"&": "&amp;", "<": "&lt;", "%": "&#37;", "$": "&#36;"}


def layout(figure: go.Figure, x: str, y: str, height: int, **more: Any) -> go.Figure:
    """The figure with axis titles, height in pixels, and the legend above it."""
    figure.update_layout(
        height=height,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        xaxis_title=x,
        yaxis_title=y,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        uirevision=f"{x}, {y}",  # what a person has zoomed to stays
        **more,
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure


def plain(text: str) -> str:
    """Text that Plotly shows as it stands, where it would look for tags, values and formulas."""
    return "".join(PLAIN.get(mark, mark) for mark in str(text))


def spread(values: np.ndarray) -> tuple[float, float]:
    """The range worth drawing: all but the outermost 0.1% at either end, where that matters."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, high = np.quantile(finite, [0.001, 0.999])
    full_low, full_high = finite.min(), finite.max()
    if full_high - full_low <= 1.5 * (high - low):
        low, high = full_low, full_high
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(high) + 0.5)


def density_curve(values: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """(256,) places and the Gaussian kernel density there, times the number of values."""
    edges, values = np.linspace(low, high, 257), values[np.isfinite(values)]
    counts = np.histogram(values, edges)[0].astype(float)
    step = edges[1] - edges[0]
    n = max(len(values), 1)
    bandwidth = float(np.std(values)) * n**-0.2 if len(values) > 1 else step
    smooth = gaussian_filter1d(counts, max(bandwidth / step, 0.5), mode="constant")
    return (edges[:-1] + edges[1:]) / 2, smooth / step


def sample_points(shown: np.ndarray, code: np.ndarray, limit: int = MOST_POINTS) -> np.ndarray:
    """Positions of at most `limit` shown samples, drawn evenly from each group, the same each time.

    shown (n,) bool, code (n,) group of each. Small groups keep at least 50 of theirs.
    """
    index = np.flatnonzero(shown)
    if len(index) <= limit:
        return index
    rng = np.random.default_rng(0)
    group = code[index]
    sizes = np.bincount(group)
    shares = np.maximum(limit * sizes // len(index), np.minimum(sizes, 50))
    while (missing := limit - int(shares.sum())) != 0:
        room = sizes - shares if missing > 0 else shares
        group_with_room = int(np.argmax(room))
        shares[group_with_room] += np.clip(missing, -room[group_with_room], room[group_with_room])
    chosen = [
        rng.choice(index[group == c], int(share), replace=False)
        for c, share in enumerate(shares)
        if share
    ]
    return np.sort(np.concatenate(chosen))


def ranks(
    first: np.ndarray,
    second: np.ndarray,
    *,
    highest: tuple[np.ndarray, np.ndarray],
    sample_id: np.ndarray,
    labels: tuple[str, str],
) -> tuple[go.Figure, int]:
    """The place of each sample in two rankings, in percent from the lowest to the highest.

    first and second (m,); highest, two (m,) bool, are those of each that are told apart. Returns
    the figure and how many samples it holds as points: the background is the density of all, the
    points are a stratified sample, one colour and symbol a group, with sample ids as customdata.
    """
    x, y = (100 * (rankdata(values) - 0.5) / len(values) for values in (first, second))
    reach = [_widened(*spread(values)) for values in (x, y)]
    counts, x_edges, y_edges = np.histogram2d(x, y, CELLS, reach)
    width = CELLS * max(len(x), 2) ** (-1 / 6) / 6  # Scott's bandwidth, in cells
    counts = gaussian_filter(counts, width, mode="constant")
    figure, labels = go.Figure(), (plain(labels[0]), plain(labels[1]))
    figure.add_heatmap(
        x=x_edges,
        y=y_edges,
        z=np.sqrt(counts).T,
        colorscale=[[0, "rgba(139,145,156,0)"], [1, "rgba(139,145,156,0.6)"]],
        showscale=False,
        hoverinfo="skip",
    )
    share, code = highest[0].mean(), highest[0] + 2 * highest[1]
    names = [
        say(OTHERS),
        say("highest {share:.0%} across alone", share=share),
        say("highest {share:.0%} up alone", share=share),
        say("highest {share:.0%} in both", share=share),
    ]
    looks = ((NEUTRAL, "x"), *zip(GROUPS, SYMBOLS, strict=True))
    points = sample_points(np.ones(len(x), bool), code)
    for group, (name, (colour, symbol)) in enumerate(zip(names, looks, strict=False)):
        member = points[code[points] == group]
        if not len(member):
            continue
        shown = plain(name)
        figure.add_scatter(
            x=x[member],
            y=y[member],
            mode="markers",
            name=shown,
            customdata=sample_id[member],
            marker={"color": colour, "symbol": symbol, "size": 7, "opacity": 0.75},
            hovertemplate=say("sample {row}", row="%{customdata}")
            + f"<br>{labels[0]} %{{x:.3g}}<br>{labels[1]} %{{y:.3g}}<extra>{shown}</extra>",
        )
    figure.update_layout(xaxis_range=reach[0], yaxis_range=reach[1])
    return layout(figure, *labels, 640), len(points)


def _widened(low: float, high: float) -> tuple[float, float]:
    """A range with room at both ends, where a smoothed density fades out."""
    room = 0.15 * (high - low)
    return low - room, high + room


def joined(names: list[str], sizes: np.ndarray) -> list[tuple[str, list[int]]]:
    """Groups that are there, largest first, as many as there are colours; the last are joined."""
    order = [int(c) for c in np.argsort(-sizes, kind="stable") if sizes[c]]
    if len(order) <= len(GROUPS):
        return [(names[c], [c]) for c in order]
    first, rest = order[: len(GROUPS) - 1], order[len(GROUPS) - 1 :]
    return [*((names[c], [c]) for c in first), (OTHERS, rest)]


def group_colour(name: str, number: int) -> str:
    """The colour of a group of samples by its place among them; of the joined ones, grey."""
    return NEUTRAL if name == OTHERS else GROUPS[number % len(GROUPS)]


def topics(names: Sequence[str], shown: Sequence[int], total: Sequence[int]) -> go.Figure:
    """Size of each topic, and how much of it is shown; marks carry the number of their topic."""
    figure = go.Figure()
    labels = [plain(name) for name in names]
    figure.add_bar(
        y=labels,
        x=list(total),
        customdata=list(range(len(names))),
        orientation="h",
        marker={"color": DIMMED},
        text=[
            say("{part:,} of {whole:,}", part=s, whole=t) if s != t else f"{t:,}"
            for s, t in zip(shown, total, strict=True)
        ],
        textposition="outside",
        textangle=0,
        cliponaxis=False,
        hovertemplate=say("{topic}: {count} in all", topic="%{y}", count="%{x:,}")
        + "<extra></extra>",
    )
    figure.add_bar(
        y=labels,
        x=list(shown),
        customdata=list(range(len(names))),
        orientation="h",
        marker={"color": SHOWN},
        hovertemplate="%{y}: %{x:,}<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(range=[0, 1.3 * max(total, default=1)])
    height = 80 + 22 * len(names)
    return layout(figure, say("examples"), "", height, barmode="overlay", showlegend=False)


def coverage(
    names: Sequence[str],
    pool: Sequence[float],
    kept: Sequence[float],
    random: Sequence[tuple[float, float]],
) -> go.Figure:
    """Share of each category, in percent, in pool and subset, and its range in random subsets.

    Marks carry the number of their category.
    """
    figure = go.Figure()
    labels = [plain(name) for name in names]
    figure.add_scatter(
        x=[end for low, high in random for end in (low, high, None)],
        y=[label for label in labels for _ in range(3)],
        customdata=[number for number in range(len(names)) for _ in range(3)],
        mode="lines",
        name=say("random subsets"),
        line={"color": "rgba(139,145,156,0.55)", "width": 8},
        hovertemplate=say(
            "{topic}: {share}%, an end of the range of random subsets",
            topic="%{y}",
            share="%{x:.1f}",
        )
        + "<extra></extra>",
    )
    for name, values, colour, symbol, size in (
        (say("all examples"), pool, NEUTRAL, "line-ns-open", 16),
        (say("kept"), kept, KEPT, "diamond", 11),
    ):
        figure.add_scatter(
            x=list(values),
            y=labels,
            customdata=list(range(len(names))),
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": size, "line": {"width": 2}},
            cliponaxis=False,  # a mark at 0 is whole
            hovertemplate=say(
                "{topic}: {share}% of {group}", topic="%{y}", share="%{x:.1f}", group=name
            )
            + "<extra></extra>",
        )
    figure.update_yaxes(autorange="reversed")
    most = max([*pool, *kept, *(high for _, high in random), 1])
    figure.update_xaxes(range=[-0.03 * most, 1.05 * most])  # a mark at 0 lies within, to be clicked
    return layout(figure, say("share, %"), "", 110 + 22 * len(names))


def lengths(prompt: np.ndarray, response: np.ndarray, limit: int) -> go.Figure:
    """Tokens of the samples, before and in the answer, with the longest that is read."""
    figure = go.Figure()
    most = max(int((prompt + response).max()), 8)
    bars = max(10, *(number_of_bars(values, 0, most) for values in (prompt, response)))
    edges = np.linspace(0, most, bars + 1)
    for name, values, colour, hatch in (
        (say("before the answer (read only)"), prompt, NEUTRAL, "/"),
        (say("answer (learned)"), response, KEPT, ""),
    ):
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=np.histogram(values, edges)[0],
            width=edges[1] - edges[0],
            name=name,
            opacity=0.7,
            marker={"color": colour, "pattern": {"shape": hatch, "size": 4}},
            hovertemplate=say(
                "about {tokens} tokens: {count} {part}",
                tokens="%{x:.0f}",
                count="%{y:,}",
                part=name,
            )
            + "<extra></extra>",
        )
    if limit <= edges[-1] * 1.05:
        cut = say("cut at {limit}", limit=limit)
        figure.add_vline(x=limit, line={"dash": "dash", "color": AGAINST}, annotation_text=cut)
    return layout(figure, say("tokens"), say("examples"), 260, barmode="overlay", bargap=0)


def loss_curve(steps: Sequence[float], loss: Sequence[float], unit: str) -> go.Figure:
    """The loss over the steps of a job's stage."""
    figure = go.Figure()
    figure.add_scatter(
        x=list(steps),
        y=list(loss),
        mode="lines+markers",
        line={"color": KEPT},
        marker={"size": 4},
        hovertemplate=say("{unit} {step}: loss {loss}", unit=unit, step="%{x}", loss="%{y:.3f}")
        + "<extra></extra>",
    )
    return layout(figure, unit, say("loss, nats per token"), 260, showlegend=False)
