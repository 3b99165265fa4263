"""Rating answers blind: two answers to one question, and which of them an expert finds better."""

import html

import streamlit as st

from grads import api
from grads.api import Answers, Better, Evaluation
from studio import frame, words
from studio.language import mark, say
from studio.stored import told

CHOICES: dict[Better, str] = {
    "left": mark("Left is better"),
    "equal": mark("Equally good or bad"),
    "right": mark("Right is better"),
}
KEYS: dict[Better, str] = {"left": "1", "equal": "2", "right": "3"}


def rate(evaluation: Evaluation, answers: Answers) -> None:
    """One pair at a time, until all are rated; then, or on demand, what came of it."""
    rater = st.text_input(say("Your name (optional)"), key="reviewer", persist_state="session")
    rated = api.ratings(evaluation)
    for number in evaluation.unreadable_ratings():
        st.warning(
            say(
                "A rating was broken off while it was written (line {number} of `{file}`) and is"
                " passed over. Rate again.",
                number=number,
                file=evaluation.ratings_file.name,
            ),
            icon=":material/warning:",
        )
    waiting = api.open_pairs(answers, rated, rater)
    every = len(api.pairs(answers))
    if not every:
        st.caption(say("All answers are the same: there is nothing to rate."))
        return
    done = every - len(waiting)
    st.progress(done / every, say("{done} of {all} rated", done=done, all=every))
    if waiting:
        pair = waiting[0]
        prompt = answers.prompts[pair.prompt]
        st.markdown(f"**{words.literal(words.shorten(prompt.prompt, 400))}**")
        for place, arm in zip(st.columns(2), (pair.left, pair.right), strict=True):
            text = html.escape(prompt.answers[arm] or say("(nothing)"))
            place.html(f'<div class="turn">{text}</div>')
        with st.expander(say("The answer in the data")):
            st.text(prompt.reference)
        for place, (better, label) in zip(st.columns(3), CHOICES.items(), strict=True):
            if place.button(
                say(label), key=f"rate-{better}", shortcut=KEYS[better], width="stretch"
            ):
                with frame.telling():
                    api.rate(evaluation, pair, better, rater)
                    st.rerun()
        st.caption(say("Who wrote which is told after the last one."))
    else:
        st.success(say("All are rated."), icon=":material/check_circle:")
    if rated and (not waiting or st.toggle(say("Tell me now"), key="unblind")):
        for tally in api.tallies(rated):
            st.markdown("- " + words.literal(told(api.rating_sentence(tally))))
