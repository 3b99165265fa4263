"""A table of samples: sorted and cut into pages on the server; choosing a row opens its sample."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from grads.api import Pool
from studio import reader, url, words
from studio.language import mark, say

ROWS = 50  # of a page
LISTED = "listed"  # in the session: the ids of the page that is shown, in their order
SORTED = {"row": "sample_id", "tokens": "response_tokens"}  # what other headings sort by
Told = dict[str, Callable[[np.ndarray], list[str]]]


def table(
    pool: Pool,
    member: np.ndarray,
    key: str,
    *,
    ranks: dict[str, np.ndarray] | None = None,
    told: Told | None = None,
    beside: Sequence[Any],
) -> None:
    """The samples of a mask (n,) bool.

    `ranks` (n,) are further numbers to show and to sort by, the first of them at first; `told` are
    further columns of text, made for the positions of a page. Three controls stand `beside`.
    """
    ranks, told = ranks or {}, told or {}
    names = [*ranks, *(name for name in pool.sortable if name not in ranks)]
    sort, way, place = beside[:3]
    by = url.choose(
        sort.selectbox,
        say("Sort all by"),
        names,
        "sort",
        default=names[0] if ranks else "signal",
        format_func=lambda name: say(name) if name in ranks else words.label(name),
    )
    lowest = url.flag(way.toggle, say("Lowest first"), "up")
    if by in ranks:
        index = np.flatnonzero(member)
        order = index[np.argsort(ranks[by][index] * (1 if lowest else -1), kind="stable")]
    else:
        order = pool.ordered(by, member, not lowest)
    pages = max(-(-len(order) // ROWS), 1)
    if (url.number("page") or 1) > pages:
        url.put("page")
    page = url.whole_number(
        place.number_input,
        say("Page of {pages:,}", pages=pages),
        1,
        key="page",
        low=1,
        high=pages,
    )
    start = ((page or 1) - 1) * ROWS
    _show(pool, order[start : start + ROWS], key, ranks=ranks, told=told)


def beside(sample: int, step: int) -> int | None:
    """The example of the page so many rows below the open one, where both are there."""
    ids = st.session_state.get(LISTED, [])
    place = ids.index(sample) + step if sample in ids else -1
    return ids[place] if 0 <= place < len(ids) else None


def fate(kept: np.ndarray | None) -> Told:
    """A column that tells kept from set aside, where a subset (n,) bool is given."""
    if kept is None:
        return {}
    told = say("kept"), say("set aside")
    return {mark("fate"): lambda positions: np.where(kept[positions], *told).tolist()}


def twins(pool: Pool) -> Told:
    """A column that names the rows of each example's near-duplicates."""

    def named(position: int) -> str:
        others = pool.scores.sample_id[pool.near_duplicates(position)].tolist()
        return ", ".join(map(str, others[:5])) + (", …" if len(others) > 5 else "")

    return {
        mark("like rows"): lambda positions: [named(position) for position in positions.tolist()]
    }


def _show(
    pool: Pool, positions: np.ndarray, key: str, *, ranks: dict[str, np.ndarray], told: Told
) -> None:
    ids = pool.scores.sample_id[positions].tolist()
    samples = pool.run.read_samples(ids)
    turns = [samples[i]["turns"] for i in ids]
    columns: dict[str, Any] = {"row": ids}
    columns |= {name: tell(positions) for name, tell in told.items()}
    columns |= {name: values[positions] for name, values in ranks.items()}
    columns |= {
        "signal": pool.numbers["signal"][positions],
        "loss": pool.scores.loss[positions],
        "tokens": pool.scores.response_tokens[positions],
        "question": [reader.first(one, "user") for one in turns],
        "answer": [reader.first(one, "assistant") for one in turns],
    }
    heads = dict(SORTED)
    for name in pool.own_columns:
        head = say("{name} (own)", name=name) if name in columns else name
        values = [(samples[i].get("columns") or {}).get(name) for i in ids]
        columns[head] = [v if isinstance(v, bool | int | float | None) else str(v) for v in values]
        heads[head] = name
    state = f"{key}-{url.get('sort')}-{url.get('up')}-{url.get('page')}"
    rows = _mark_open(state, ids)
    st.session_state[LISTED] = ids

    def chosen() -> None:
        picked = st.session_state[state].selection
        if picked.columns:
            _sort_by(heads.get(picked.columns[0], picked.columns[0]), pool, ranks)
        elif picked.rows:
            reader.open_sample(ids[picked.rows[0]])
        elif rows:  # the mark was taken off
            url.put("sample")

    with st.container(key=key):
        st.dataframe(
            pd.DataFrame(columns),
            hide_index=True,
            height=min(38 + 35 * max(len(ids), 1), 270),
            key=state,
            on_select=chosen,
            selection_mode=["single-row", "single-column"],
            alt=say("Examples; choose a row to read it, a heading to sort all by it"),
            column_config=_config(ranks, told),
        )


def _mark_open(state: str, ids: list[int]) -> list[int]:
    """Mark the row of the open example in a table, and no other; the rows that are marked.

    The rows change under a mark with every filter, and an example is opened elsewhere too.
    """
    rows = [place for place, sample in enumerate(ids) if sample == reader.chosen_sample()]
    before = st.session_state.get(state)
    if (before["selection"]["rows"] if before else []) != rows:
        st.session_state[state] = {"selection": {"rows": rows, "columns": []}}
    return rows


def _sort_by(name: str, pool: Pool, ranks: dict[str, np.ndarray]) -> None:
    """Sort by a heading; by the same once more, the other way round."""
    if name not in ranks and name not in pool.sortable:
        return
    again = name == st.session_state["sort"]
    url.put("sort", name)
    url.put("up", *(["true"] if again and not st.session_state["up"] else []))
    url.put("page")


def _config(ranks: dict[str, np.ndarray], told: Told) -> dict[str, Any]:
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    found: dict[str, Any] = {
        "row": number(say("row"), width=60, format="%d"),
        "signal": number(say("signal"), width=70, format="%.2f", help=words.meaning("signal")),
        "loss": number(say("surprise"), width=75, format="%.2f", help=words.meaning("loss")),
        "tokens": number(
            say("tokens"), width=70, format="%d", help=words.meaning("response_tokens")
        ),
        "question": text(say("question"), width=330),
        "answer": text(say("answer"), width="large"),
    }
    found |= {name: number(say(name), width=70, format="%.2f") for name in ranks}
    return found | {name: text(say(name), width=540 if name == "reason" else 90) for name in told}
