"""What does the model find in my data?"""

import numpy as np
import streamlit as st

from grads.api import Filter, Pool, Preview
from studio import agreement, bulk, frame, probes, url, words, workspace
from studio.language import mark, say


def aside(pool: Pool, shown: Preview | None, wanted: Filter, matching: np.ndarray) -> None:
    """What can be done with all that the filters show."""
    st.caption(
        say(
            "Every example gets a learning signal: how strongly the model would change by learning"
            " it. Draw in a picture to narrow down; choose a point or a row to read."
        )
    )
    if matching.any():
        bulk.act(pool, wanted, matching)
    if 0 < matching.sum() <= min(probes.MOST_ROWS, len(pool) - 1):
        found = words.count(int(matching.sum()), "example")
        with st.expander(say("Use what is shown as a set: {examples}", examples=found)):
            probes.offer(pool, pool.scores.sample_id[matching].tolist())
    with st.expander(say("Does another run find the same?"), expanded=bool(url.get("other"))):
        agreement.compare(pool.run)
    with st.expander(say("Show the maths")):
        st.markdown(say(words.SIGNAL_MATHS))


with frame.page("Explore") as corner:
    workspace.draw(mark("What the model finds in {all}"), aside, corner, options_aside=False)
