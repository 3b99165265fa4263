"""What a choice amounts to, shown: numbers, coverage, and which examples enter and leave."""

import numpy as np
import streamlit as st

from grads.api import (
    Pool,
    Preview,
    SelectionConfig,
    coverage,
    emptied,
    reasons,
    saved_last,
)
from studio import charts, doors, filters, keep, listing, tags, titles, url, words
from studio.language import mark, say, told

LISTS = {
    "shown": mark("All"),
    "kept": mark("Kept"),
    "aside": mark("Set aside"),
    "entering": mark("Entering"),
    "leaving": mark("Leaving"),
    "decided": mark("Decided"),
}
NOBODY = {
    "shown": mark("No example matches."),
    "kept": mark("Nothing is kept."),
    "aside": mark("Everything is kept."),
    "entering": mark("No example enters."),
    "leaving": mark("No example leaves."),
    "decided": mark("Nobody has decided about an example yet: open one and say so."),
}


def numbers(pool: Pool, shown: Preview) -> None:
    """Count, tokens, share of the signal, price."""
    tokens, luck, price = shown.response_tokens, shown.random_tokens, shown.price
    kept, length, signal, time = st.columns(4)
    kept.metric(
        say("Examples"),
        f"{shown.count:,}",
        say("{share} of all", share=words.share(shown.count, len(pool))),
        delta_color="off",
        delta_arrow="off",
    )
    length.metric(
        say("Answer tokens"),
        f"{tokens['kept']:,}",
        say("random: {low} to {high}", low=f"{luck.low:,.0f}", high=f"{luck.high:,.0f}"),
        delta_color="off",
        delta_arrow="off",
        help=say(
            "Random subsets of as many examples hold {mean:,.0f} on average; 95% of them lie in the"
            " range. All examples hold {all:,}.",
            mean=luck.mean,
            all=tokens["pool"],
        ),
    )
    signal.metric(
        say("Signal share"),
        words.share(shown.signal_share, 1),
        say(
            "random: {low} to {high}",
            low=words.share(shown.random_signal_share.low, 1),
            high=words.share(shown.random_signal_share.high, 1),
        ),
        delta_color="off",
        delta_arrow="off",
        help=say(
            "Of the summed gradient norms of all examples, before any correction for length. The"
            " range holds 95% of random subsets of as many."
        ),
    )
    if price.epoch_kept is None or price.epoch_all is None:
        lacking = say("This run trained no warm-up to measure by.")
        time.metric(say("Training time"), say("unknown"), help=lacking)
        return
    time.metric(
        say("One training pass"),
        words.duration(price.epoch_kept),
        say("all: {time}", time=words.duration(price.epoch_all)),
        delta_color="off",
        delta_arrow="off",
        help=say("At the speed of this run's warm-up on this machine."),
    )


def warn(shown: Preview) -> None:
    """What is wrong with the choice."""
    for warning in shown.warnings:
        said = told(warning)
        st.warning(words.literal(said[0].upper() + said[1:]), icon=":material/warning:")


def remarks(pool: Pool, shown: Preview) -> None:
    """What the ranking had to assume, what is the seed's, what choosing cost."""
    for note in shown.ranking.notes:
        st.caption(words.literal(say("Note: {note}.", note=told(note))))
    if shown.stability is not None:
        st.caption(
            say(
                "Drawn at random: another seed would keep **{share}** of these examples again, of a"
                " random subset {random}.",
                share=words.share(shown.stability, 1),
                random=words.share(shown.count, len(pool)),
            )
        )
    price = shown.price
    if price.epoch_kept is None or price.epoch_all is None:
        return
    cost = words.duration(price.choosing)
    if price.break_even is None:
        st.caption(
            say("Choosing took {time}, and training on this subset saves no time.", time=cost)
        )
    else:
        st.caption(
            say(
                "Choosing took {time} once. It has paid for itself in time after **{number:.1f}**"
                " passes of training on this subset instead of all examples; with a larger model or"
                " several trainings, sooner.",
                time=cost,
                number=price.break_even,
            )
        )


def goes_by(pool: Pool, options: SelectionConfig) -> str:
    """The column that a choice goes by most, of those that there are."""
    targets = [name for name, one in pool.probes.items() if one.role == "target"]
    by_criterion = {
        "aligned": [f"embed_cosine_{name}" for name in targets],
        "rds": [f"rds_{name}" for name in targets],
        "question_gain": ["question_gain_z"],
        "loss_high": ["loss"],
        "loss_low": ["loss"],
        "longest": ["response_tokens"],
        "shortest": ["response_tokens"],
    }
    directed = options.towards and options.directed and targets
    found = by_criterion["aligned"] if directed else by_criterion.get(options.criterion, [])
    return next((name for name in found if name in pool.numbers), "signal")


def covered(pool: Pool, shown: Preview) -> None:
    """How the subset spreads over topics or another column, beside pool and random."""
    if not pool.categories:
        return
    columns = list(pool.categories)
    by = url.choose(st.selectbox, say("Coverage of"), columns, "by", format_func=filters.named)
    rows = coverage(pool, shown, by)
    gone = emptied(rows)
    if gone:
        named = ", ".join(f"{told(name)} ({expected:.1f})" for name, expected in gone.items())
        st.warning(
            say(
                "Nothing is kept of: {names}. In brackets: how many a random subset of this size"
                " would keep on average.",
                names=words.literal(named),
            ),
            icon=":material/warning:",
        )
    st.markdown("#### " + titles.covered(rows))
    whole = (len(pool), max(shown.count, 1))
    doors.draw(
        charts.coverage(
            [told(row.name) for row in rows],
            [100 * row.pool / whole[0] for row in rows],
            [100 * row.kept / whole[1] for row in rows],
            [(100 * row.random.low / whole[1], 100 * row.random.high / whole[1]) for row in rows],
        ),
        pool,
        by,
        [row.name for row in rows],
        key="coverage",
        alt=say(
            "Share of each {column} among all and kept examples, and the range of random subsets",
            column=filters.named(by),
        ),
    )
    st.caption(say("The grey line holds 95% of the random subsets of this size."))


def lists(pool: Pool, shown: Preview | None, matching: np.ndarray, *, first: str) -> None:
    """Of what the filters show: who is kept and who is not, who enters and leaves, and why."""
    names = pool.run.selection_names()
    which, controls = st.container(), st.columns([3, 2, 3, 3], vertical_alignment="bottom")
    found = {"shown": matching}
    if shown is not None:
        found |= {"kept": shown.kept, "aside": ~shown.kept}
        if names:
            base = url.choose(
                controls[3].selectbox,
                say("Entering, against"),
                names,
                "base",
                default=saved_last(pool.run),
                format_func=keep.marked(pool.run),
            )
            saved = pool.kept(base)
            found |= {"entering": shown.kept & ~saved, "leaving": saved & ~shown.kept}
        found["decided"] = np.isin(pool.scores.sample_id, sorted(shown.options.by_hand))
    found = {name: member & matching for name, member in found.items()}
    chosen = url.choose(
        which.segmented_control,
        say("List"),
        list(found),
        "show",
        default=first if first in found else "shown",
        format_func=lambda name: f"{say(LISTS[name])} {int(found[name].sum()):,}",
        required=True,
        label_visibility="collapsed",
    )
    if names and shown is not None:
        keep.warn_of_stale(pool.run, [base])
    elif not names:
        st.caption(say("Save this selection; later moves will then show who enters and leaves."))
    if not found[chosen].any():
        st.caption(say(NOBODY[chosen]))
        return
    texts: listing.Told = tags.listed(pool)  # before the reason, which is wide
    ranks = {}
    if shown is not None:
        texts |= listing.fate(shown.kept) if chosen in ("shown", "decided") else {}
        texts |= {mark("reason"): lambda places: list(map(told, reasons(pool, shown, places)))}
        ranks = {mark("score"): shown.ranking.score}
    if url.get("alike"):
        texts = listing.twins(pool) | texts
    listing.table(pool, found[chosen], "list", ranks=ranks, told=texts, beside=controls)
