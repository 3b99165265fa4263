"""What stays of a choice: decisions by people, saved selections, comparisons, exported files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from grads import api
from grads.api import FORMATS, WEIGHTS, Decision, Pool, Run, SelectionConfig, overlap
from studio import frame, uploads, url, words
from studio.language import mark, say, told

WEIGHTED = {
    None: mark("the chosen ones"),
    "repeat": mark("all, each as often as its weight asks for"),
    "sample": mark("all, with their weights as a column"),
}
WEIGHTS_HELP = mark(
    "Instead of a subset, a trainer can see every example, the wanted ones more often: by the"
    " weights that the draw goes by. Examples that you excluded or that are out of range have none."
)
DECISION = (  # the columns of the table of decisions
    *(mark("sample_id"), mark("decision"), mark("reason"), mark("reviewer"), mark("time")),
    mark("settles"),
)


def decide(run: Run, sample_id: int) -> None:
    """Always keep or never keep the open example, with a reason and a name."""
    made = api.decisions(run).get(sample_id)
    warn_of_disagreement(run, sample_id)
    if made:
        note, undo = st.columns([4, 1], vertical_alignment="center")
        note.info(_told(made), icon=":material/gavel:")
        if undo.button(say("Undo"), key="undo", help=say("Takes back what anyone has said of it.")):
            api.decide(run, sample_id, "clear")
            st.rerun()
        return
    reason, reviewer = st.columns([3, 2])
    pin, exclude = st.columns(2)  # of their own: beside two fields a narrow pane cuts their words
    why = reason.text_input(say("Why (optional)"), key=f"reason-{sample_id}")
    who = reviewer.text_input(say("Your name (optional)"), key="reviewer", persist_state="session")
    if pin.button(say("Always keep"), icon=":material/push_pin:", shortcut="K", width="stretch"):
        api.decide(run, sample_id, "pin", why, reviewer=who)
        st.rerun()
    if exclude.button(say("Never keep"), icon=":material/block:", shortcut="X", width="stretch"):
        api.decide(run, sample_id, "exclude", why, reviewer=who)
        st.rerun()


def _told(made: Decision) -> str:
    """What stands decided about an example."""
    pinned, row = made.decision == "pin", made.sample_id
    always, never = mark("Row {row} is always kept"), mark("Row {row} is never kept")
    text = say(always if pinned else never, row=row)
    if made.reviewer:
        text = say("{said} by {reviewer}", said=text, reviewer=words.literal(made.reviewer))
    if made.reason:
        why = words.literal(told(api.why_in_words(made.reason)))
        text = say("{said}: {reason}", said=text, reason=why)
    return text


def warn_of_disagreement(run: Run, sample_id: int) -> None:
    """Say what reviewers say of an example where they disagree."""
    if said := api.disagreements(run).get(sample_id):
        st.warning(
            say(
                "Reviewers disagree about row {row}. {opinions}. It is left out until someone"
                " settles it: on the page Review, in the queue of disagreements.",
                row=sample_id,
                opinions="; ".join(words.literal(told(api.in_words(one))) for one in said),
            ),
            icon=":material/groups:",
        )


def decided(run: Run) -> None:
    """Everything that people have decided, and what of it was lost in writing."""
    for number in run.unreadable_decisions():
        st.warning(
            say(
                "A decision was broken off while it was written (line {number} of `{file}`) and is"
                " passed over. Decide again.",
                number=number,
                file=run.decisions_file.name,
            ),
            icon=":material/warning:",
        )
    for number in run.unreadable_corrections():
        st.warning(
            say(
                "A correction was broken off while it was written (line {number} of `{file}`) and"
                " is passed over. Correct the text again.",
                number=number,
                file=run.corrections_file.name,
            ),
            icon=":material/warning:",
        )
    for number in run.unreadable_tags():
        st.warning(
            say(
                "A tag was broken off while it was written (line {number} of `{file}`) and is"
                " passed over. Tag again.",
                number=number,
                file=run.tags_file.name,
            ),
            icon=":material/warning:",
        )
    said = api.opinions(run)
    if not said:
        return
    if apart := sorted(api.disagreements(run)):
        st.warning(
            say(
                "Reviewers disagree about row {rows}: left out until someone settles it on the page"
                " Review.",
                rows=", ".join(map(str, apart)),
            ),
            icon=":material/groups:",
        )
    examples = words.count(len(said), "example")
    with st.expander(say("{examples} decided by people", examples=examples)):
        table = pd.DataFrame([one.as_json() for here in said.values() for one in here])
        called = {"pin": say("always keep"), "exclude": say("never keep")}
        table["decision"] = table["decision"].map(called)
        st.dataframe(
            table,
            hide_index=True,
            alt=say("Decisions by people"),
            column_config={name: say(name) for name in DECISION},
        )


def save(
    pool: Pool, options: Callable[[], SelectionConfig], count: int, *, key: str = "name"
) -> None:
    """Save under a name what these options make; the field's `key` is its own on a page."""
    name = st.text_input(
        say("Save as a selection"), key=key, placeholder=say("a name, such as first-try")
    )
    if name in pool.run.selection_names():
        called = words.literal(name)
        st.caption(say("{name} is saved already and would be replaced.", name=called))
    if not st.button(
        say("Save these {count:,}", count=count),
        type="primary",
        icon=":material/save:",
        disabled=not name,
        width="stretch",
    ):
        return
    with frame.telling():
        record = api.select_samples(pool.run, name, options(), pool)
        st.session_state["saved"] = name
        count, called = record.samples.kept, words.literal(name)
        st.toast(say("Saved {count:,} examples as {name}", count=count, name=called))
        st.rerun()


def marked(run: Run) -> Callable[[str], str]:
    """How this run's saved selections are called wherever they are named: those that people have
    decided otherwise about since are marked."""
    stale = api.stale_names(run)
    return lambda name: say("{name} (stale)", name=name) if name in stale else name


def warn_of_stale(run: Run, names: list[str]) -> None:
    """Say of which samples people have decided otherwise since these selections were saved."""
    for name in names:
        rows = ", ".join(str(made.sample_id) for made in api.stale(run, name))
        if rows:
            st.warning(
                say(
                    "{name} is stale: people have decided otherwise about row {rows}. Exports"
                    " follow the decisions; save it again to fill its budget.",
                    name=words.literal(name),
                    rows=rows,
                ),
                icon=":material/history:",
            )


def export(run: Run) -> None:
    """A saved selection as files, loaded back and counted before they are offered."""
    names = run.selection_names()
    if not names:
        st.caption(say("Save a selection first; then it can be exported."))
        return
    first = st.session_state.get("saved")
    name = st.selectbox(
        say("Saved selection"),
        names,
        index=names.index(first) if first in names else 0,
        format_func=marked(run),
    )
    warn_of_stale(run, [name])
    form = st.selectbox(
        say("Format"), list(FORMATS), format_func=lambda name: say(FORMATS[name].label)
    )
    st.caption(say(FORMATS[form].help))
    scores = st.checkbox(say("Add the scores as columns"))
    asked = {"with_scores": scores} | _by_weight(run, name, form) | _mixed_in()
    # Another save under the same name is another selection, and so are other decisions.
    since = [(made.sample_id, made.decision) for made in api.stale(run, name)]
    identity = [run.id, name, form, asked, run.selection_saved(name), since]
    if st.button(say("Make the files"), icon=":material/file_export:"):
        manifest = api.export_selection(run, name, form, **asked)
        st.session_state["export"] = {"of": identity, **manifest}
    made = st.session_state.get("export")
    if made and made["of"] == identity:
        st.success(
            say("{rows} written, loaded back and counted.", rows=words.count(made["rows"], "row")),
            icon=":material/check_circle:",
        )
        for line in map(told, api.changed_lines(made)):
            st.caption(words.literal(line[0].upper() + line[1:]))
        place = Path(made["path"])
        st.download_button(
            say("Download {file}", file=api.bundle_name(place)),
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
    weights = st.selectbox(
        say("Rows"), ways, format_func=lambda way: say(WEIGHTED[way]), help=say(WEIGHTS_HELP)
    )
    if weights != "repeat":
        return {"weights": weights}
    pool = record.samples.pool
    return {
        "weights": weights,
        "rows": st.number_input(say("Rows in all"), 1, 100 * pool, pool, key=f"rows-{pool}"),
    }


def _mixed_in() -> dict[str, Any]:
    """General rows between the others, where a file of them is named."""
    file = st.text_input(
        say("General rows to mix in"),
        key="mixed-in",
        placeholder=say("a file: none are mixed in"),
        help=say("They keep what a training on the others alone would make the model forget."),
    )
    uploads.offer(st, say("or upload them"), "mixed-in")
    if not file.strip():
        return {}
    share = st.number_input(
        say("Their share of all rows, in percent"), 1, 90, 10, key="mixed-share"
    )
    return {"replay": file.strip(), "replay_share": share / 100}


def compare(pool: Pool) -> None:
    """Two saved selections side by side."""
    names = pool.run.selection_names()
    if len(names) < 2:
        st.caption(say("Two saved selections can be compared here."))
        return
    left, right = st.columns(2)
    called = marked(pool.run)
    one = url.choose(left.selectbox, say("First"), names, "first", format_func=called)
    two = url.choose(
        right.selectbox, say("Second"), names, "second", default=names[1], format_func=called
    )
    warn_of_stale(pool.run, sorted({one, two}))
    if one == two:
        st.caption(say("The same selection."))
        return
    a, b = pool.kept(one), pool.kept(two)
    found = overlap(a, b)
    choices = [api.read_record(pool.run, name).options for name in (one, two)]
    lots = [choice.seed for choice in choices if choice.by_lot]
    alike = len(lots) == 2 and lots[0] == lots[1]
    told = say(
        "They share **{examples}**; {only_first:,} are only in {first}, {only_second:,} only in"
        " {second}. Two unrelated random subsets of these sizes would share about {by_chance:.0f}",
        examples=words.count(found.both, "example"),
        only_first=found.only_first,
        first=words.literal(one),
        only_second=found.only_second,
        second=words.literal(two),
        by_chance=found.by_chance,
    )
    st.markdown(
        say("{told}; these two were drawn with one seed, which makes them share more.", told=told)
        if alike
        else say("{told}.", told=told)
    )
    rows = {
        words.label(column): [float(pool.numbers[column][mask].mean()) for mask in (a, b)]
        for column in ("signal", "loss", "response_tokens")
    }
    table = pd.DataFrame(rows, index=[one, two]).T.reset_index(names=say("mean of"))
    st.dataframe(table, hide_index=True, alt=say("Means of the two selections"))
    first, second = (choice.model_dump(mode="json") for choice in choices)
    differ = {
        key: {one: str(value), two: str(second[key])}
        for key, value in first.items()
        if value != second[key]
    }
    if differ:
        st.caption(say("Options that differ:"))
        st.dataframe(
            pd.DataFrame(differ).T.reset_index(names=say("option")),
            hide_index=True,
            alt=say("Options that differ between the two selections"),
        )
