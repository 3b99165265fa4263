"""Plotly figures of evaluations, from plain arrays."""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from grads.api import ARM_KINDS
from studio.charts import AGAINST, GROUPS, KEPT, NEUTRAL, SHOWN, SYMBOLS, layout, plain
from studio.language import mark, say
from studio.stored import arm

VERDICTS = {
    mark("better"): (KEPT, "circle"),
    mark("worse"): (AGAINST, "diamond"),
    mark("no difference seen"): (NEUTRAL, "circle-open"),
}
LEGEND = 6  # arms that a small figure has room to name
FAR = 1.5  # times the spread of the other arms, beyond which the base model is left out of view
STYLES = {  # of arms by what they train on; chosen subsets have one each
    "nothing": (NEUTRAL, "x"),
    "everything": (SHOWN, "star"),
    "a random subset": (AGAINST, "circle"),
}


def arm_styles(kinds: Sequence[str]) -> list[tuple[str, str]]:
    """Colour and symbol of each arm by its kind; the first chosen subset is blue."""
    colours, symbols = (KEPT, *GROUPS[2:7]), ("diamond", *SYMBOLS[2:])
    palette = zip(itertools.cycle(colours), itertools.cycle(symbols), strict=False)
    return [STYLES.get(ARM_KINDS[kind].trains_on) or next(palette) for kind in kinds]


def trade_off(
    labels: Sequence[str],
    kinds: Sequence[str],
    *,
    learning: Sequence[float],
    forgetting: Sequence[float],
    reach: Sequence[tuple[float, float]],
    front: Sequence[str] = (),
) -> go.Figure:
    """One mark an arm: held-out loss upwards, rise of the general loss to the right.

    `kinds` are names of ARM_KINDS. `reach` holds half the width of each arm's two intervals
    (learning, forgetting), 0 for none. A line joins the arms of the Pareto `front`, which no other
    beats in both.
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
            name=plain(arm(label)),
            meta=label,
            marker={
                "color": colour,
                "symbol": symbol + ("-open" if ARM_KINDS[kind].as_long_as_full else ""),
                "size": 12,
                "line": {"width": 2, "color": colour},
            },
            hovertemplate=say(
                "{arm}: held-out loss {learning}, general loss {forgetting}",
                arm=plain(arm(label)),
                learning="%{y:.3f}",
                forgetting="%{x:+.3f}",
            )
            + "<extra></extra>",
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
            name=say("no other is better in both"),
            hoverinfo="skip",
        )
    figure.update_yaxes(autorange="reversed")
    _look_at_the_arms(figure, kinds, learning, [up for up, _ in reach])
    return layout(
        figure,
        say("forgotten: rise of the loss on general questions") + "  →",
        say("held-out loss (higher up has learned more)"),
        440,
    )


def _look_at_the_arms(
    figure: go.Figure, kinds: Sequence[str], learning: Sequence[float], reach: Sequence[float]
) -> None:
    """Where the trained arms lie close together and the base model far away, say where it lies."""
    base = [
        loss
        for loss, kind in zip(learning, kinds, strict=True)
        if ARM_KINDS[kind].trains_on == "nothing"
    ]
    trained = [i for i, kind in enumerate(kinds) if ARM_KINDS[kind].trains_on != "nothing"]
    if not base or len(trained) < 2:
        return
    low = min(learning[i] - reach[i] for i in trained)
    high = max(learning[i] + reach[i] for i in trained)
    if max(base[0] - high, low - base[0]) <= FAR * (high - low):
        return
    room = 0.15 * (high - low)
    figure.update_yaxes(autorange=False, range=[high + room, low - room])
    figure.update_traces(visible="legendonly", selector={"meta": "base"})
    figure.add_annotation(
        text=say("{arm}: {loss:.3f}, out of view", arm=arm("base"), loss=base[0]),
        xref="paper",
        yref="paper",
        x=1,
        y=0 if base[0] > high else 1,
        showarrow=False,
    )


def replay(
    paths: Mapping[str, Sequence[tuple[float, float, float]]], kinds: Sequence[str]
) -> go.Figure:
    """The way of each arm as general rows are mixed in: [(share, held-out loss, rise), ...].

    `kinds` are names of ARM_KINDS.
    """
    figure = go.Figure()
    styles = arm_styles(kinds)
    for (label, points), (colour, symbol) in zip(paths.items(), styles, strict=True):
        figure.add_scatter(
            x=[rise for _, _, rise in points],
            y=[loss for _, loss, _ in points],
            text=[f"{100 * share:g}%" if share else say("none") for share, _, _ in points],
            mode="lines+markers+text",
            textposition="top center",
            cliponaxis=False,  # the outermost mark's text has room above it
            name=arm(label),
            line={"color": colour},
            marker={"symbol": symbol, "size": 8},
            hovertemplate=say(
                "{arm}, replay {share}: held-out loss {learning}, general loss {forgetting}",
                arm=arm(label),
                share="%{text}",
                learning="%{y:.3f}",
                forgetting="%{x:+.3f}",
            )
            + "<extra></extra>",
        )
    figure.update_yaxes(autorange="reversed")
    return layout(figure, say("forgotten") + "  →", say("held-out loss"), 300)


Measured = tuple[float, tuple[float, float] | None]  # a mean, and the ends of its interval


def budgets(
    lines: Mapping[str, Sequence[tuple[float, Measured, Measured]]], kinds: Sequence[str]
) -> go.Figure:
    """Held-out loss, and beside it the rise of the general loss, over the size of the subset.

    Each line is [(percent, learned, forgotten), ...]; `kinds` are names of ARM_KINDS. A band
    around a line is its interval, where all points have one.
    """
    figure = make_subplots(1, 2, horizontal_spacing=0.12)
    ticks = sorted({size for points in lines.values() for size, _, _ in points})
    learned = say("held-out loss (higher up has learned more)")
    forgotten = say("rise of the general loss (higher up has forgotten less)")
    sides = (
        (learned, say("held-out loss"), {name: [p[1] for p in lines[name]] for name in lines}),
        (forgotten, say("general loss"), {name: [p[2] for p in lines[name]] for name in lines}),
    )
    for column, (title, short, found) in enumerate(sides, 1):
        for (label, points), style in zip(lines.items(), arm_styles(kinds), strict=True):
            sizes = [size for size, _, _ in points]
            for trace in _banded(sizes, found[label], short, label=label, style=style):
                trace.showlegend = trace.mode != "none" and column == 1
                figure.add_trace(trace, row=1, col=column)
        figure.update_yaxes(title_text=title, autorange="reversed", row=1, col=column)
    layout(figure, "", learned, 380)
    figure.update_xaxes(
        type="log",
        tickvals=ticks,
        ticktext=[f"{size:g}%" for size in ticks],
        title_text=say("share of all examples"),
    )
    return figure


def _banded(
    sizes: list[float],
    found: list[Measured],
    what: str,
    *,
    label: str,
    style: tuple[str, str],
) -> Iterator[go.Scatter]:
    """A line over the sizes, and the band of its intervals where all points have one."""
    colour, symbol = style
    ends = [interval for _, interval in found if interval]
    if len(ends) == len(found):
        yield go.Scatter(
            x=[*sizes, *reversed(sizes)],
            y=[*(low for low, _ in ends), *(high for _, high in reversed(ends))],
            fill="toself",
            mode="none",
            fillcolor=colour,
            opacity=0.15,
            name=arm(label),
            legendgroup=label,
            hoverinfo="skip",
        )
    yield go.Scatter(
        x=sizes,
        y=[mean for mean, _ in found],
        mode="lines+markers",
        name=arm(label),
        legendgroup=label,
        line={"color": colour},
        marker={"symbol": symbol, "size": 8},
        hovertemplate=say(
            "{arm}, {share}%: {what} {loss}",
            arm=arm(label),
            share="%{x}",
            what=what,
            loss="%{y:.3f}",
        )
        + "<extra></extra>",
    )


Difference = tuple[float, float, float, str]  # mean, low and high end of its interval, verdict


def differences(
    labels: Sequence[str], learning: Sequence[Difference], forgetting: Sequence[Difference]
) -> go.Figure:
    """Each subset's losses minus those of random subsets, a row each; left of the line is better.

    A mark without colour is one whose interval holds zero.
    """
    titles = (say("learned more (held-out loss)"), say("forgot less (general loss)"))
    sides = tuple(f"←  {title}" for title in titles)
    figure = make_subplots(1, 2, shared_yaxes=True, horizontal_spacing=0.05)
    told: set[str] = set()  # verdicts that stand in the legend
    for column, (side, rows) in enumerate(zip(sides, (learning, forgetting), strict=True), 1):
        for verdict, (colour, symbol) in VERDICTS.items():
            chosen = [(label, row) for label, row in zip(labels, rows, strict=True)]
            chosen = [(label, row) for label, row in chosen if row[3] == verdict]
            figure.add_scatter(
                x=[row[0] for _, row in chosen],
                y=[plain(arm(label)) for label, _ in chosen],
                error_x={
                    "type": "data",
                    "array": [row[2] - row[0] for _, row in chosen],
                    "arrayminus": [row[0] - row[1] for _, row in chosen],
                    "thickness": 1.5,
                },
                mode="markers",
                name=say(verdict),
                showlegend=bool(chosen) and verdict not in told,
                legendgroup=verdict,
                marker={"color": colour, "symbol": symbol, "size": 10, "line": {"width": 2}},
                hovertemplate="%{y}: %{x:+.3f}<extra>" + say(verdict) + "</extra>",
                row=1,
                col=column,
            )
            told |= {row[3] for _, row in chosen}
        figure.add_vline(x=0, line={"color": NEUTRAL, "dash": "dash"}, row=1, col=column)
        figure.update_xaxes(title_text=side, row=1, col=column)
    figure.update_yaxes(
        categoryorder="array", categoryarray=[plain(arm(label)) for label in reversed(labels)]
    )
    height = 130 + 24 * len(labels)
    return layout(figure, sides[0], "", height)


def training_curves(
    curves: dict[str, Sequence[tuple[float, float]]], kinds: Sequence[str]
) -> go.Figure:
    """Training loss over the steps, a line an arm; each is [(step, loss), ...].

    Where a legend of many arms would crowd out the lines, only pointing at a line names it.
    """
    figure = go.Figure()
    dashes = ("solid", "dash", "dot", "dashdot")
    styles = arm_styles(kinds)
    for number, (label, points) in enumerate(curves.items()):
        figure.add_scatter(
            x=[step for step, _ in points],
            y=[loss for _, loss in points],
            mode="lines",
            name=plain(arm(label)),
            line={"color": styles[number][0], "dash": dashes[number % len(dashes)]},
            hovertemplate=say(
                "{arm}, step {step}: {loss}", arm=plain(arm(label)), step="%{x}", loss="%{y:.3f}"
            )
            + "<extra></extra>",
        )
    named = len(curves) <= LEGEND
    axes = say("training step"), say("training loss, nats per token")
    return layout(figure, *axes, 300, showlegend=named)


def overlap(labels: Sequence[str], shares: Sequence[Sequence[float]]) -> go.Figure:
    """How far subsets overlap: shared examples in percent of their union."""
    percent = 100 * np.array(shares)
    figure = go.Figure(
        go.Heatmap(
            x=[plain(arm(label)) for label in labels],
            y=[plain(arm(label)) for label in labels],
            z=percent,
            text=np.round(percent).astype(int),
            texttemplate="%{text}",
            # Opaque cells and dark text: readable on a white page and on a black one.
            textfont={"color": "#16202c"},
            colorscale=[[0, "#d3e1f1"], [1, KEPT]],
            xgap=1,
            ygap=1,
            showscale=False,
            hovertemplate=say(
                "{one} and {other}: {share}% shared", one="%{y}", other="%{x}", share="%{z:.0f}"
            )
            + "<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    return layout(figure, "", "", 130 + 26 * len(labels))
