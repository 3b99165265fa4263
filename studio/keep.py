"""What stays of a choice: decisions by people, saved selections, comparisons, exported files."""

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from grads import api
from grads.api import FORMATS, WEIGHTS, Pool, Preview, Run, overlap
from studio import frame, url, words

WEIGHTED = {
    None: "the chosen ones",
    "repeat": "all, each as often as its weight asks for",
    "sample": "all, with their weights as a column",
}
WEIGHTS_HELP = (
    "Instead of a subset, a trainer can see every example, the wanted ones more often: by the"
    " weights that the draw goes by. Examples that you excluded or that are out of range have none."
)


def decide(run: Run, sample_id: int) -> None:
    """Always keep or never keep the open example, with a reason and a name."""
    made = api.decisions(run).get(sample_id)
    warn_of_disagreement(run, sample_id)
    if made:
        what = "always kept" if made.decision == "pin" else "never kept"
        by = f" by {made.reviewer}" if made.reviewer else ""
        why = f": {made.reason}" if made.reason else ""
        note, undo = st.columns([4, 1], vertical_alignment="center")
        note.info(words.literal(f"Row {sample_id} is {what}{by}{why}"), icon=":material/gavel:")
        if undo.button("Undo", key="undo", help="Takes back what anyone has said of it."):
            api.decide(run, sample_id, "clear")
            st.rerun()
        return
    reason, reviewer, pin, exclude = st.columns([3, 2, 1, 1], vertical_alignment="bottom")
    why = reason.text_input("Why (optional)", key=f"reason-{sample_id}")
    who = reviewer.text_input("Your name (optional)", key="reviewer", persist_state="session")
    if pin.button("Always keep", icon=":material/push_pin:", width="stretch"):
        api.decide(run, sample_id, "pin", why, reviewer=who)
        st.rerun()
    if exclude.button("Never keep", icon=":material/block:", width="stretch"):
        api.decide(run, sample_id, "exclude", why, reviewer=who)
        st.rerun()


def warn_of_disagreement(run: Run, sample_id: int) -> None:
    """Say what reviewers say of an example where they disagree."""
    if said := api.disagreements(run).get(sample_id):
        told = "; ".join(map(api.in_words, said))
        st.warning(
            words.literal(f"Reviewers disagree about row {sample_id}. {told}.")
            + " It is left out until someone settles it: on the page Review, in the queue of"
            " disagreements.",
            icon=":material/groups:",
        )


def decided(run: Run) -> None:
    """Everything that people have decided, and what of it was lost in writing."""
    for number in run.unreadable_decisions():
        st.warning(
            f"A decision was broken off while it was written (line {number} of"
            f" `{run.decisions_file.name}`) and is passed over. Decide again.",
            icon=":material/warning:",
        )
    for number in run.unreadable_corrections():
        st.warning(
            f"A correction was broken off while it was written (line {number} of"
            f" `{run.corrections_file.name}`) and is passed over. Correct the text again.",
            icon=":material/warning:",
        )
    said = api.opinions(run)
    if not said:
        return
    if apart := sorted(api.disagreements(run)):
        st.warning(
            f"Reviewers disagree about row {', '.join(map(str, apart))}: left out until someone"
            " settles it on the page Review.",
            icon=":material/groups:",
        )
    with st.expander(f"{words.count(len(said), 'example')} decided by people"):
        table = pd.DataFrame([one.as_json() for here in said.values() for one in here])
        table["decision"] = table["decision"].map({"pin": "always keep", "exclude": "never keep"})
        st.dataframe(table, hide_index=True, alt="Decisions by people")


def save(pool: Pool, shown: Preview) -> None:
    """Save the choice under a name."""
    name = st.text_input("Save as", key="name", placeholder="a name, such as first-try")
    if name in pool.run.selection_names():
        st.caption(words.literal(f"{name} is saved already and would be replaced."))
    if not st.button(
        f"Save these {shown.count:,}",
        type="primary",
        icon=":material/save:",
        disabled=not name,
        width="stretch",
    ):
        return
    with frame.telling():
        record = api.select_samples(pool.run, name, shown.options, pool)
        st.session_state["saved"] = name
        st.toast(f"Saved {record.samples.kept:,} examples as {words.literal(name)}")
        st.rerun()


def marked(run: Run, name: str) -> str:
    """A saved selection's name, marked where people have decided otherwise since."""
    return f"{name} (stale)" if api.stale(run, name) else name


def warn_of_stale(run: Run, names: list[str]) -> None:
    """Say of which samples people have decided otherwise since these selections were saved."""
    for name in names:
        rows = ", ".join(str(made.sample_id) for made in api.stale(run, name))
        if rows:
            st.warning(
                words.literal(f"{name} is stale: people have decided otherwise about row {rows}.")
                + " Exports follow the decisions; save it again to fill its budget.",
                icon=":material/history:",
            )


def export(run: Run) -> None:
    """A saved selection as files, loaded back and counted before they are offered."""
    names = run.selection_names()
    if not names:
        st.caption("Save a selection first; then it can be exported.")
        return
    first = st.session_state.get("saved")
    name = st.selectbox(
        "Saved selection",
        names,
        index=names.index(first) if first in names else 0,
        format_func=lambda name: marked(run, name),
    )
    warn_of_stale(run, [name])
    form = st.selectbox("Format", list(FORMATS), format_func=lambda name: FORMATS[name].label)
    st.caption(FORMATS[form].help)
    asked = {"with_scores": st.checkbox("Add the scores as columns")} | _by_weight(run, name, form)
    # Another save under the same name is another selection, and so are other decisions.
    since = [(made.sample_id, made.decision) for made in api.stale(run, name)]
    identity = [run.id, name, form, asked, run.selection_saved(name), since]
    if st.button("Make the files", icon=":material/file_export:"):
        manifest = api.export_selection(run, name, form, **asked)
        st.session_state["export"] = {"of": identity, **manifest}
    made = st.session_state.get("export")
    if made and made["of"] == identity:
        st.success(
            f"{words.count(made['rows'], 'row')} written, loaded back and counted.",
            icon=":material/check_circle:",
        )
        for line in api.changed_lines(made):
            st.caption(words.literal(line[0].upper() + line[1:]))
        place = Path(made["path"])
        st.download_button(
            f"Download {api.bundle_name(place)}",
            lambda: api.bundle(place)[1],
            api.bundle_name(place),
            icon=":material/download:",
            on_click="ignore",
        )


def _by_weight(run: Run, name: str, form: str) -> dict[str, Any]:
    """Whether it is the chosen rows or all by weight, where the selection gives weights."""
    record = api.read_record(run, name)
    criterion = api.criteria().get(record.options.criterion)
    if criterion is None or not criterion.has_weights:
        return {}
    ways = [None, *WEIGHTS] if FORMATS[form].plain else [None, "repeat"]
    weights = st.selectbox("Rows", ways, format_func=WEIGHTED.__getitem__, help=WEIGHTS_HELP)
    if weights != "repeat":
        return {"weights": weights}
    pool = record.samples.pool
    return {
        "weights": weights,
        "rows": st.number_input("Rows in all", 1, 100 * pool, pool, key=f"rows-{pool}"),
    }


def compare(pool: Pool) -> None:
    """Two saved selections side by side."""
    names = pool.run.selection_names()
    if len(names) < 2:
        st.caption("Two saved selections can be compared here.")
        return
    left, right = st.columns(2)
    one = url.choose(left.selectbox, "First", names, "first")
    two = url.choose(right.selectbox, "Second", names, "second", default=names[1])
    if one == two:
        st.caption("The same selection.")
        return
    a, b = pool.kept(one), pool.kept(two)
    found = overlap(a, b)
    choices = [api.read_record(pool.run, name).options for name in (one, two)]
    lots = [choice.seed for choice in choices if choice.by_lot]
    alike = len(lots) == 2 and lots[0] == lots[1]
    st.markdown(
        f"They share **{words.count(found.both, 'example')}**; {found.only_first:,} are only"
        f" in {words.literal(one)}, {found.only_second:,} only in {words.literal(two)}. Two"
        f" unrelated random subsets of these sizes would share about {found.by_chance:.0f}"
        + ("; these two were drawn with one seed, which makes them share more." if alike else ".")
    )
    rows = {
        words.label(column): [float(pool.numbers[column][mask].mean()) for mask in (a, b)]
        for column in ("signal", "loss", "response_tokens")
    }
    table = pd.DataFrame(rows, index=[one, two]).T.reset_index(names="mean of")
    st.dataframe(table, hide_index=True, alt="Means of the two selections")
    first, second = (choice.model_dump(mode="json") for choice in choices)
    differ = {
        key: {one: str(value), two: str(second[key])}
        for key, value in first.items()
        if value != second[key]
    }
    if differ:
        st.caption("Options that differ:")
        st.dataframe(
            pd.DataFrame(differ).T.reset_index(names="option"),
            hide_index=True,
            alt="Options that differ between the two selections",
        )
