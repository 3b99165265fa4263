"""Plotly figures of evaluations, from plain arrays."""

import itertools
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from grads.charts import ASIDE, GROUPS, KEPT, NEUTRAL, SHOWN, SYMBOLS, layout

ARMS = {
    "base": (NEUTRAL, "x"),
    "full": (SHOWN, "star"),
    "random": (ASIDE, "circle"),
}


def arm_styles(kinds: Sequence[str]) -> list[tuple[str, str]]:
    """Colour and symbol of each arm: the usual ones are fixed, the first chosen subset is blue."""
    palette = itertools.cycle(zip((KEPT, *GROUPS[3:]), ("diamond", *SYMBOLS[2:]), strict=False))
    return [ARMS.get(kind.removesuffix("_steps")) or next(palette) for kind in kinds]


def trade_off(
    labels: Sequence[str],
    kinds: Sequence[str],
    learning: Sequence[float],
    forgetting: Sequence[float],
    reach: Sequence[tuple[float, float]],
    front: Sequence[str] = (),
) -> go.Figure:
    """One mark an arm: held-out loss upwards, rise of the general loss to the right.

    `reach` holds half the width of each arm's two intervals (learning, forgetting), 0 for none.
    A line joins the arms of the Pareto `front`, which no other beats in both.
    """
    figure = go.Figure()
    styles = arm_styles(kinds)
    for i, (label, kind) in enumerate(zip(labels, kinds, strict=True)):
        colour, symbol = styles[i]
        figure.add_scatter(
            x=[forgetting[i]],
            y=[learning[i]],
            error_x={"type": "data", "array": [reach[i][1]], "thickness": 1},
            error_y={"type": "data", "array": [reach[i][0]], "thickness": 1},
            mode="markers",
            name=label,
            marker={
                "color": colour,
                "symbol": symbol + ("-open" if kind.endswith("_steps") else ""),
                "size": 12,
                "line": {"width": 2, "color": colour},
            },
            hovertemplate=f"{label}: held-out loss %{{y:.3f}}, general loss %{{x:+.3f}}"
            "<extra></extra>",
        )
    best = sorted(
        (forgetting[i], learning[i]) for i, label in enumerate(labels) if label in set(front)
    )
    if len(best) > 1:
        figure.add_scatter(
            x=[x for x, _ in best],
            y=[y for _, y in best],
            mode="lines",
            line={"color": NEUTRAL, "dash": "dot"},
            name="no other is better in both",
            hoverinfo="skip",
        )
    figure.update_yaxes(autorange="reversed")
    return layout(
        figure,
        "forgotten: rise of the loss on general questions  →",
        "held-out loss (higher up has learned more)",
        440,
    )


def training_curves(
    curves: dict[str, Sequence[tuple[float, float]]], kinds: Sequence[str]
) -> go.Figure:
    """Training loss over the steps, a line an arm; each is [(step, loss), ...]."""
    figure = go.Figure()
    dashes = ("solid", "dash", "dot", "dashdot")
    styles = arm_styles(kinds)
    for number, (label, points) in enumerate(curves.items()):
        figure.add_scatter(
            x=[step for step, _ in points],
            y=[loss for _, loss in points],
            mode="lines",
            name=label,
            line={"color": styles[number][0], "dash": dashes[number % len(dashes)]},
            hovertemplate=f"{label}, step %{{x}}: %{{y:.3f}}<extra></extra>",
        )
    return layout(figure, "training step", "training loss, nats per token", 300)


def overlap(labels: Sequence[str], shares: Sequence[Sequence[float]]) -> go.Figure:
    """How far subsets overlap: shared examples in percent of their union."""
    percent = 100 * np.array(shares)
    figure = go.Figure(
        go.Heatmap(
            x=list(labels),
            y=list(labels),
            z=percent,
            text=np.round(percent).astype(int),
            texttemplate="%{text}",
            colorscale=[[0, "rgba(58,134,216,0.04)"], [1, KEPT]],
            showscale=False,
            hovertemplate="%{y} and %{x}: %{z:.0f}% shared<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    return layout(figure, "", "", 130 + 26 * len(labels))
