"""Reading one sample: its conversation, its numbers as percentiles, its neighbours, its heat."""

from html import escape
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from grads import api
from grads.api import ACTIVE, Pool, Run, TokenRequest
from studio import frame, url, words
from studio.language import mark, say, told

WHO = {
    "system": mark("Instruction to the model"),
    "developer": mark("Instruction to the model"),
    "user": mark("Question"),
    "assistant": mark("Answer"),
    "tool": mark("Result of a tool"),
    "text": mark("Text"),
}
SHOWN = ("signal", "embed_signal", "head_signal", "loss", "response_tokens", "prompt_tokens")
VIEWS = (mark("Text"), mark("Where the signal lies"))
HEAT = {
    mark("Input-word signal"): "embed_token_norm",
    mark("Output-word signal"): "head_token_norm",
}


def conversation(turns: list[dict[str, Any]]) -> None:
    """The turns as plain text; whatever they hold is shown, never run or rendered."""
    st.html("".join(_turn(turn) for turn in turns))


def _turn(turn: dict[str, Any]) -> str:
    role = turn["role"]
    who = say(WHO[role])
    if turn.get("trained") is False and role == "assistant":
        who = say("{who}, not learned", who=who)
    parts = [(who, turn["content"])]
    if turn.get("reasoning"):
        parts.insert(0, (say("Reasoning"), turn["reasoning"]))
    if turn.get("tool_calls"):
        parts.append((say("Calls a tool"), turn["tool_calls"]))
    inner = "".join(
        f'<div class="who">{label}</div>{escape(text)}' for label, text in parts if text
    )
    return f'<div class="turn {turn["role"]}">{inner}</div>'


def tokens(pieces: list[str], trained: list[bool], heat: np.ndarray | None = None) -> None:
    """Token texts with the learned ones underlined; `heat` (T,) in [0, 1] colours them."""
    spans = []
    for i, (piece, learned) in enumerate(zip(pieces, trained, strict=True)):
        kind = "learned" if learned else "special" if piece.startswith("<|") else ""
        colour = f' style="background: rgba(224,123,31,{heat[i]:.2f})"' if heat is not None else ""
        spans.append(f'<span class="{kind}"{colour}>{escape(piece)}</span>')
    st.html(f'<div class="turn">{"".join(spans)}</div>')


def chosen_sample() -> int | None:
    """The sample that the URL opens."""
    return url.number("sample")


def open_sample(sample_id: int) -> None:
    """Put a sample into the URL."""
    url.put("sample", str(sample_id))


def go_to(place: Any) -> None:
    """Open a sample by its row number, without a mouse."""

    def opened() -> None:
        if st.session_state["row"] is not None:
            open_sample(st.session_state["row"])

    place.number_input(
        say("Open row"),
        0,
        value=None,
        step=1,
        key="row",
        on_change=opened,
        placeholder=say("number"),
    )


def first(turns: list[dict[str, Any]], role: str) -> str:
    """The beginning of what a role first says, as one line."""
    return words.shorten(next((t["content"] for t in turns if t["role"] == role), ""), 160)


def read(pool: Pool, sample_id: int, kept: np.ndarray | None) -> bool:
    """Everything about one sample, or False where the pool does not have it.

    `kept` (n,) bool says which neighbours are in the subset.
    """
    found = pool.positions(np.array([sample_id]))
    if not len(found):
        st.warning(
            say("There is no example {row} in this run: it was refused or held out.", row=sample_id)
        )
        return False
    position = int(found[0])
    sample = pool.run.read_sample(sample_id)
    told = say("Example in row {row}", row=sample_id)
    if kept is not None:
        word, colour = (say("kept"), "blue") if kept[position] else (say("set aside"), "gray")
        told = say("{example}, {fate}", example=told, fate=f":{colour}[**{word}**]")
    st.markdown(f"#### {told}")
    view = st.segmented_control(
        say("View"),
        VIEWS,
        default=VIEWS[0],
        required=True,
        format_func=say,
        label_visibility="collapsed",
    )
    if view == VIEWS[0]:
        conversation(sample["turns"])
        corrected(pool.run, sample_id)
        if sample["truncated"]:
            st.caption(say("The end was cut at the longest length this run reads."))
    else:
        _heat(pool.run, sample_id)
    _percentiles(pool, position, sample)
    _neighbours(pool, position, kept)
    return True


def corrected(run: Run, sample_id: int) -> None:
    """Which texts of an example people have corrected, and what stands there now."""
    for made in api.corrections(run).get(sample_id, ()):
        told = say("{field}, corrected", field=words.literal(api.name_of(tuple(made.field))))
        if made.reviewer:
            told = say("{said} by {reviewer}", said=told, reviewer=words.literal(made.reviewer))
        if made.reason:
            told = say("{said}: {reason}", said=told, reason=words.literal(made.reason))
        st.caption(say("{said}. Exports give:", said=told))
        conversation([{"role": "text", "content": made.after}])


def _percentiles(pool: Pool, position: int, sample: dict[str, Any]) -> None:
    rows = [
        {
            "number": words.label(name),
            "value": float(pool.numbers[name][position]),
            "percentile": pool.percentile(name, position),
        }
        for name in (*SHOWN, *_towards(pool))
    ]
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        alt=say("The example's numbers, and the share of examples below it"),
        column_config={
            "number": st.column_config.TextColumn(say("this example's"), width=180),
            "value": st.column_config.NumberColumn(say("value"), format="%.2f", width=50),
            "percentile": st.column_config.ProgressColumn(
                say("above"),
                min_value=0,
                max_value=100,
                format="%.0f%%",
                help=say("The share of all examples that lie below this one."),
                width=100,
            ),
        },
    )
    own = {k: v for k, v in (sample.get("columns") or {}).items() if v is not None}
    if pool.cluster is not None:
        own = {say("found topic"): told(pool.cluster_names()[pool.cluster[position]])} | own
    st.caption(
        words.literal(" | ".join(f"{k}: {words.shorten(str(v), 60)}" for k, v in own.items()))
    )


def _towards(pool: Pool) -> list[str]:
    """The columns that tell where the example pulls, and what its question saves."""
    wanted = [f"embed_cosine_{name}" for name in pool.probes]
    return [name for name in (*wanted, "question_gain_z") if name in pool.numbers]


def _neighbours(pool: Pool, position: int, kept: np.ndarray | None) -> None:
    if pool.cluster is None:
        return
    everything = np.ones(len(pool), bool)
    groups = [(mark("Nearest in content"), pool.neighbours(position, everything, 3))]
    if kept is not None:
        groups = [
            (mark("Nearest kept"), pool.neighbours(position, kept, 2)),
            (mark("Nearest set aside"), pool.neighbours(position, ~kept, 2)),
        ]
    groups.append((mark("Near-duplicates"), pool.near_duplicates(position)[:3]))
    for title, positions in groups:
        if positions:
            st.markdown(f"**{say(title)}**")
        ids = [int(pool.scores.sample_id[p]) for p in positions]
        samples = pool.run.read_samples(ids)
        for sample in ids:
            question = words.literal(words.shorten(first(samples[sample]["turns"], "user"), 70))
            st.button(
                f"{sample}: {question}",
                key=f"near-{title}-{sample}",
                on_click=open_sample,
                args=(sample,),
                type="tertiary",
            )


def _heat(run: Run, sample_id: int) -> None:
    stored, signal = run.read_tokens(sample_id), run.read_token_signal(sample_id)
    if stored is None:
        st.info(say("This run was made by an earlier version that kept no token texts."))
        return
    if signal is None:
        _offer_heat(run, sample_id)
        return
    kind = st.radio(
        say("Signal"), list(HEAT), horizontal=True, format_func=say, label_visibility="collapsed"
    )
    norms = np.array(signal[HEAT[kind]])
    trained = np.array(stored["trained"])
    if len(norms) != len(trained):  # one number a response position, at the token it predicts
        full = np.zeros(len(trained))
        full[np.flatnonzero(trained)[-len(norms) :]] = norms
        norms = full
    top = float(norms.max()) or 1.0
    tokens(stored["pieces"], stored["trained"], 0.85 * np.sqrt(norms / top))
    largest = [stored["pieces"][i].strip() or "␣" for i in np.argsort(-norms)[:5]]
    st.caption(
        say(
            "Darker means more learning signal. Underlined is what the model learns to say. Most of"
            " it lies at: {words}.",
            words=words.literal(", ".join(largest)),
        )
    )


def _offer_heat(run: Run, sample_id: int) -> None:
    status = api.observe(TokenRequest(run))
    if status.state in ACTIVE:
        told = say("Signals of words are being computed in the background.")
        if status.message:
            told += " " + say("It is {what}.", what=words.literal(say(status.message)))
        st.info(told)
        _wait_for_heat(run, sample_id)
        return
    if status.error:
        st.warning(words.error(status.error))
    st.write(say("This run keeps no signals of single words for this example."))
    if st.button(say("Compute them"), icon=":material/local_fire_department:"):
        api.ask_token_signals(run, [sample_id])
        st.rerun()


@st.fragment(run_every=1.0)
def _wait_for_heat(run: Run, sample_id: int) -> None:
    with frame.guard():
        active = api.observe(TokenRequest(run)).state in ACTIVE
        if not active or run.read_token_signal(sample_id) is not None:
            st.rerun()
