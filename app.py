"""What is this, and where was I? The dashboard's first page; start it with `make run`."""

from pathlib import Path

import streamlit as st

from grads import api
from studio import about, frame, share, words
from studio.language import say


def recent(summary: api.RunSummary) -> None:
    """A line of the list of runs."""
    state, icon, colour = words.state(summary.status.state)
    line = st.container(border=True)
    name, what, go = line.columns([4, 5, 2], vertical_alignment="center")
    title = summary.title or summary.id
    name.markdown(f"**{words.literal(title)}**  \n:{colour}[{icon} {state}]")
    usable = summary.counts.get("usable")
    size = words.count(usable, "example") if usable else say("not read yet")
    chosen = words.count(len(summary.selections), "saved selection")
    if summary.stale:
        chosen = say(
            "{selections} ({number:,} stale)", selections=chosen, number=len(summary.stale)
        )
    what.markdown(words.literal(f"{Path(summary.dataset).name}, {size}, {chosen}"))
    told = [about.made(summary.made), say("model {name}", name=summary.model)]
    told += [say("folder {name}", name=summary.id)] if summary.title else []
    told += [words.shorten(summary.notes)] if summary.notes else []
    what.caption(words.literal(" · ".join(told)))
    page, text = (
        ("pages/Explore.py", say("Explore it"))
        if summary.scored
        else ("pages/Run.py", say("Watch it"))
    )
    go.page_link(
        page,
        label=text,
        icon=":material/arrow_forward:",
        query_params=frame.run_link(summary.id),
    )


with frame.page("Start") as corner:
    share.listed(corner)
    frame.headline(say("Which of my examples should I train on?"))
    st.markdown(
        say(
            "You have examples of good answers, and want a language model to learn from them."
            " This tool lets a model read every example once and measures **how much it would"
            " learn** from each. Then you choose, with its numbers and your own knowledge, which"
            " ones to train on; export them; and **measure whether the choice helped**."
        )
    )
    use, look = st.columns(2, gap="medium")
    with use, st.container(border=True, height="stretch"):
        st.markdown("#### " + say("Use my data"))
        st.markdown(
            say("A file of questions and answers, or of conversations. Nothing is sent away.")
        )
        frame.next_link("pages/Data.py", say("Choose data"), ":material/table_rows:", frame.link())
    with look, st.container(border=True, height="stretch"):
        st.markdown("#### " + say("Look at the demo first"))
        st.markdown(
            say(
                "300 medical questions and answers, good and flawed, scored by a small model. For"
                " demonstration, **not medical advice**."
            )
        )
        st.page_link(
            "pages/Explore.py",
            label=say("Explore the demo"),
            icon=":material/scatter_plot:",
            query_params=frame.run_link("demo"),
        )
    frame.fetch_pictures()
    summaries, unreadable = api.listed()
    if summaries or unreadable:
        st.markdown("#### " + say("Runs"))
        for summary in summaries:
            recent(summary)
        for name, problem in unreadable.items():
            st.warning(words.error(f"{name}: {problem}"), icon=":material/warning:")
    with st.expander(say("How it works, and what is known about it")):
        st.markdown(
            say(
                "A short warm-up fine-tune, then the gradient of every example at the model's input"
                " and output words, then criteria on their size and spread: gradient-aware data"
                " selection (GrADS, [arXiv 2511.08620](https://arxiv.org/abs/2511.08620)). The"
                " paper reports that 5% of the data can match or beat all of it; **those are the"
                " paper's results**. In our own first look, the examples with the largest signals"
                " taught less than random ones. So every selection here is shown beside a random"
                " one of its size, and the page Evaluate tells whether it helped on your data."
            )
        )
