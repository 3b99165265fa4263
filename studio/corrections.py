"""An example's text as people have corrected it, and correcting it."""

import streamlit as st

from grads import api
from grads.api import Run
from studio import frame, reader, words
from studio.language import say


def read(run: Run, sample_id: int) -> None:
    """The conversation as it is now; where it was corrected, with the original."""
    turns = run.read_sample(sample_id)["turns"]
    corrected = api.corrected_turns(run, [sample_id]).get(sample_id)
    reader.conversation(corrected or turns)
    if corrected is None:
        return
    who = sorted({made.reviewer for made in api.corrections(run)[sample_id] if made.reviewer})
    told = say("Corrected")
    if who:
        told = say("{said} by {reviewer}", said=told, reviewer=words.literal(", ".join(who)))
    st.caption(
        say(
            "{said}. Exports give this text; its numbers are those of the original.",
            said=told,
        )
    )
    with st.expander(say("The original")):
        reader.conversation(turns)


def offer(run: Run, sample_id: int, reviewer: str) -> None:
    """Fields with the example's texts, to be written anew."""
    if not st.toggle(say("Correct the text"), key=f"correct-{sample_id}"):
        return
    with frame.telling():
        there = api.texts_of(run, sample_id)
        made = api.corrections(run).get(sample_id, [])
        stamp = made[-1].time if made else ""
        written = {
            path: st.text_area(
                words.literal(api.name_of(path)),
                text,
                key=f"text-{sample_id}-{api.name_of(path)}-{stamp}",
                height="content",
            )
            for path, text in there.items()
        }
        why = st.text_input(say("Why (optional)"), key=f"corrected-{sample_id}")
        changed = {path: text for path, text in written.items() if text != there[path]}
        save, back = st.columns(2)
        if save.button(
            say("Save the correction"),
            icon=":material/edit:",
            disabled=not reviewer,
            width="stretch",
        ):
            if not changed:
                st.info(say("Nothing is changed yet."))
                return
            for path, text in changed.items():
                api.correct(run, sample_id, path, text, reason=why, reviewer=reviewer)
            st.rerun()
        if made and back.button(
            say("Back to the original"),
            icon=":material/undo:",
            disabled=not reviewer,
            width="stretch",
        ):
            for one in made:
                path = tuple(one.field)
                api.correct(run, sample_id, path, one.before, reviewer=reviewer)
            st.rerun()
