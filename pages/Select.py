"""Which ones, and what changes if I move?"""

import numpy as np
import streamlit as st

from grads.api import Filter, Pool, Preview
from studio import frame, keep, probes, words, workspace
from studio.language import mark, say


def aside(pool: Pool, shown: Preview | None, wanted: Filter, matching: np.ndarray) -> None:
    """What stays of the choice."""
    st.caption(
        say("What a setting picks is shown here; whether it helps, only the page Evaluate tells.")
    )
    if shown is not None:
        keep.save(pool, lambda: shown.options, shown.count)
    with st.expander(say("Examples of what I want, and of what must stay")):
        probes.offer(pool)
    keep.decided(pool.run)
    with st.expander(say("Export a saved selection"), expanded=True):
        keep.export(pool.run)
    with st.expander(say("Compare two saved selections")):
        keep.compare(pool)
    with st.expander(say("Show the maths")):
        st.markdown(say(words.SIGNAL_MATHS) + say(words.CHOICE_MATHS))


with frame.page("Select") as corner:
    workspace.draw(mark("Keep {kept} of {all}"), aside, corner, options_aside=True)
