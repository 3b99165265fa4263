"""What people call a run and its topics, and what they note: shown, and set."""

from datetime import datetime

import streamlit as st

from grads import api
from grads.api import Pool, Run
from studio import frame, words
from studio.language import say, told

NAMED = "topic named last"  # in the session


def edit(run: Run) -> None:
    """A run's title and notes, to be set; its folder and its links stay."""
    about = run.read_about()
    with st.expander(say("Name and notes")), st.form("about", border=False):
        title = st.text_input(say("Name"), about.title, key=f"title-{run.id}", placeholder=run.id)
        notes = st.text_area(say("Notes"), about.notes, key=f"notes-{run.id}", height=120)
        if st.form_submit_button(say("Save name and notes"), icon=":material/save:"):
            with frame.telling():
                api.describe(run, title=title, notes=notes)
                st.rerun()


def noted(run: Run) -> None:
    """What was noted about a run, as it stands."""
    notes = run.read_about().notes
    if notes:
        st.markdown("  \n".join(map(words.literal, notes.splitlines())))


def made(time: str) -> str:
    """A time in ISO 8601 as people here write it: 26 Nov 2026, 02:16."""
    return datetime.fromisoformat(time).astimezone().strftime(say("%d %b %Y, %H:%M"))


def name_topics(pool: Pool) -> None:
    """Call a topic otherwise, in every view, in coverage and in reports."""
    names = list(map(told, pool.cluster_names()))
    with st.popover(say("Rename a topic"), icon=":material/edit:"):
        # Another key with other names: a box goes on showing the words that it was drawn with.
        topic = st.selectbox(
            say("Topic"),
            range(len(names)),
            index=min(st.session_state.get(NAMED, 0), len(names) - 1),
            format_func=names.__getitem__,
            key=f"topic-to-name-{pool.run.id}-{names}",
        )
        terms = ", ".join(pool.clusters[topic].terms)
        if terms:
            st.caption(say("Its terms: {terms}", terms=words.literal(terms)))
        given = pool.run.topic_names().get(topic, "")
        name = st.text_input(
            say("Name"),
            given,
            key=f"topic-name-{topic}-{given}",
            placeholder=say("by its terms"),
        )
        if st.button(say("Save the name"), key="save-topic-name", icon=":material/save:"):
            with frame.telling():
                api.name_topic(pool.run, topic, name)
                st.session_state[NAMED] = topic
                st.rerun()
