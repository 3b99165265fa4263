"""The options of a selection as widgets, all of them in the URL."""

from typing import Any

import numpy as np
import streamlit as st

from grads.api import ConfigError, Pool, SelectionConfig, criteria, usual_draw
from studio import filters, url, words
from studio.language import mark, say

DEFAULTS = SelectionConfig.model_fields
PERCENTS = np.arange(1, 201) / 2  # that the budget can be
PRESETS = (2.5, 5.0, 10.0, 25.0, 50.0)
AUTO = mark("auto")
BOUND = "bound"  # query parameter: COLUMN:LOW:HIGH, repeated
UNITS = {"samples": mark("of examples"), "tokens": mark("of answer tokens")}
DRAWS = {
    "sample": mark("at random, better scores more often"),
    "top": mark("the best scores"),
    "stratified": mark("the best scores of every topic"),
}
SIGNALS = {
    "joint": mark("both, as a pair"),
    "l2": mark("both, as one number"),
    "tied": mark("both, as one shared matrix"),
    "embed": mark("input words only"),
    "head": mark("output words only"),
}
DIRECTIONS = {
    "towards": (
        "target",
        mark("Like my good examples"),
        mark(
            "To the right: examples whose learning moves the model the way your good examples do."
            " 0: no preference. With typicality and focus at 0 nothing else counts."
        ),
    ),
    "away": (
        "protect",
        mark("Away from what must stay"),
        mark(
            "To the right: examples that pull another way than those you protect. To the left:"
            " examples that pull the same way, and so support them. 0: no preference. In our study"
            " neither kept more than chance; general examples mixed in did (page Evaluate)."
        ),
    ),
}
FOCUS = mark(
    "To the right: examples the model would still learn much from. To the left: examples it nearly"
    " knows. 0: no preference. Where it stands at first did best in our study, on medical answers;"
    " Evaluate tells what does best on yours."
)
TYPICALITY = mark(
    "How much to prefer examples that are like many others. 0: outliers count as much."
)
# What did best in our study where there is a target (docs/benchmarks.md), as the address holds it.
STUDIED = {
    "criterion": ["aligned"],
    "bound": ["question_gain_z:-0.5:"],
    "deduplicate": ["true"],
    "draw": ["top"],
    "auto": [],
}
COSINES = {"embed": mark("input words"), "head": mark("output words"), "both": mark("both")}
LENGTHS = {
    "residual": mark("compare with answers of the same length"),
    "sqrt": mark("scale by the root of the length"),
    "none": mark("none: short answers win"),
}


def budget() -> dict[str, Any]:
    """Slider and presets; the budget they make, but for what it counts."""
    automatic = url.get("auto") == "true"
    slider, presets = st.columns([3, 4], gap="medium", vertical_alignment="bottom")
    presets = presets.container(horizontal=True, gap="xsmall")

    percent = url.slide(
        say("Budget"),
        (PERCENTS[0], PERCENTS[-1]),
        10.0,
        PERCENTS[0],
        draw=slider.slider,
        key="budget",
        format="%g%%",
        disabled=automatic,
    )
    stands = AUTO if automatic else percent
    for preset in (*PRESETS, AUTO):
        # Buttons: they hold nothing that could disagree with the slider.
        presets.button(
            say(AUTO) if preset == AUTO else f"{preset:g}%",
            key=f"preset-{preset}",
            type="secondary" if preset == stands else "tertiary",
            on_click=set_budget,
            args=(preset,),
        )
    return {"ratio": percent / 100}


def set_budget(to: float | str) -> None:
    """Hold a budget in percent, or `AUTO`."""
    url.put("auto", *(["true"] if to == AUTO else []))
    if to != AUTO:
        url.put("budget", f"{to:g}")


def counted() -> dict[str, Any]:
    """Whether the data decide the budget, and what it counts."""
    automatic = url.flag(
        st.toggle,
        say("Let the data decide"),
        "auto",
        help=say("Keeps every example near the peak: needs GrADS or typical, and the best scores."),
    )
    unit = url.choose(
        st.radio,
        say("The budget is a share"),
        list(UNITS),
        "unit",
        format_func=lambda unit: say(UNITS[unit]),
        horizontal=True,
        disabled=automatic,
    )
    return {"auto": True, "ratio": None} if automatic else {"budget_unit": unit}


def taste(pool: Pool) -> dict[str, Any]:
    """Focus, typicality, towards and away, which only the default criterion knows."""
    unused = url.get("criterion", "grads") != "grads"

    def weight(name: str, label: str, low: float, help_text: str) -> float:
        ends, default = (low, 3.0), DEFAULTS[name].default
        more: dict[str, Any] = {"disabled": unused, "help": say(help_text)}
        return url.slide(say(label), ends, default, 0.1, key=name, **more)

    found = {
        "focus": weight("focus", mark("Focus"), -3.0, FOCUS),
        "typicality": weight("typicality", mark("Typicality"), 0.0, TYPICALITY),
    }
    roles = {one.role for one in pool.probes.values()}
    for name, (role, label, help_text) in DIRECTIONS.items():
        if role in roles:
            found[name] = weight(name, label, -3.0, help_text)
    return found


def method(pool: Pool, automatic: bool) -> dict[str, Any]:
    """Criterion, draw, signal, length control, near-duplicates and seed."""
    labels = {
        name: criterion.label
        for name, criterion in criteria().items()
        if pool.lacks(criterion) is None
    }
    criterion = _choice("criterion", say("What counts"), labels)
    draw = _choice("draw", say("Take"), DRAWS, usual_draw(criterion, automatic))
    by_value = not criteria()[criterion].by_density
    signal = _choice("signal", say("Learning signal from"), SIGNALS, unused=by_value)
    lengths = say("Correct for answer length")
    length = _choice("length_control", lengths, LENGTHS, unused=by_value)
    compared, unused = say("Compare with my examples"), criterion != "grads"
    cosine = _choice("cosine", compared, COSINES, unused=unused) if pool.probes else "embed"
    groups = pool.duplicate_groups
    once = url.flag(
        st.toggle,
        say("Keep one of each group of near-duplicates"),
        "deduplicate",
        help=say(
            "{number:,} examples are in {groups}. Explore shows them.",
            number=sum(groups.values()),
            groups=words.count(len(groups), "group"),
        ),
    )
    seed = url.whole_number(st.number_input, say("Seed of random draws"), 0, key="seed")
    return {
        "criterion": criterion,
        "draw": draw,
        "signal": signal,
        "length_control": length,
        "cosine": cosine,
        "deduplicate": once,
        "seed": seed,
    }


def studied(pool: Pool) -> None:
    """A button that sets what did best in our study, where the run has what that takes."""
    if not any(one.role == "target" for one in pool.probes.values()):
        return
    if pool.question_gain is None:
        st.caption(
            say(
                "Measure what the question saves too (below “Examples of what I want”), and the"
                " setting that did best in our study can be had here."
            )
        )
        return
    stands = all(url.get_all(name) == texts for name, texts in STUDIED.items())

    def apply() -> None:
        for name, texts in STUDIED.items():
            url.put(name, *texts)

    st.button(
        say("Most like my good examples"),
        key="studied",
        icon=":material/thumb_up:",
        type="secondary" if stands else "tertiary",
        on_click=apply,
        help=say(
            "The examples that pull most like your good ones, without those whose answer hardly"
            " belongs to its question, and one of each group of near-duplicates. In our study,"
            " where two answers in five were flawed, it did best for a tenth, and likeness alone"
            " for a half; among sound ones of one kind, a tenth by likeness alone taught less than"
            " chance. Evaluate tells about yours."
        ),
    )


def _choice(
    key: str, label: str, names: dict[str, str], default: str | None = None, *, unused: bool = False
) -> str:
    more: dict[str, Any] = {
        "default": default,
        "disabled": unused,
        "format_func": lambda name: say(names[name]),
    }
    return str(url.choose(st.selectbox, label, list(names), key, **more))


def ranges(pool: Pool) -> dict[str, Any]:
    """Sliders for the columns that are limited; a brush in the picture sets them too."""
    limited = {b.column: b for b in filters.bounds(BOUND) if b.column in pool.numbers}

    def change() -> None:
        if url.outdated("limited"):
            return
        wanted = st.session_state["limited"]
        for column in set(limited) - set(wanted):
            filters.drop_bound(column, BOUND)
        for column in set(wanted) - set(limited):
            filters.set_bound(column, *extent(pool, column), BOUND)

    follow, state = url.follows(BOUND), st.session_state
    if follow or "limited" not in state:
        url.show("limited", list(limited))
    st.multiselect(
        say("Limit to a range of"),
        [name for name, values in pool.numbers.items() if np.isfinite(values).any()],
        key="limited",
        format_func=words.label,
        on_change=change,
        placeholder=say("nothing"),
    )
    for column, bound in limited.items():
        low, high = extent(pool, column)
        key = f"range-{column}"

        def drag(column: str = column, key: str = key) -> None:
            if not url.outdated(key):
                url.hold(BOUND, filters.with_bound(BOUND, column, *st.session_state[key]))

        if follow or key not in state:
            ends = (
                low if bound.low is None else bound.low,
                high if bound.high is None else bound.high,
            )
            url.show(key, tuple(float(np.clip(end, low, high)) for end in ends))
        st.slider(words.literal(words.label(column)), low, high, key=key, on_change=drag)
    return {"bounds": [b.model_dump() for b in limited.values()]}


def extent(pool: Pool, column: str) -> tuple[float, float]:
    """Smallest and largest value of a column, widened to what six digits hold."""
    values = pool.numbers[column]
    low, high = float(f"{np.nanmin(values):.6g}"), float(f"{np.nanmax(values):.6g}")
    margin = 1e-5 * max(abs(low), abs(high), 1e-9)
    return low - margin, high + margin


def chosen(pool: Pool, budgeted: dict[str, Any]) -> SelectionConfig | None:
    """All options, as the widgets stand; None, and why, where they do not go together."""
    values = budgeted | counted() | taste(pool)
    studied(pool)
    with st.expander(say("More: criterion, draw, ranges")):
        values |= method(pool, values.get("auto", False)) | ranges(pool)
    try:
        return SelectionConfig.parse(values)
    except ConfigError as error:
        st.warning(
            say(
                "These options do not go together: {error}. Switch off “Let the data decide”, or"
                " choose another criterion or draw.",
                error=words.literal(str(error)),
            ),
            icon=":material/warning:",
        )
        return None
