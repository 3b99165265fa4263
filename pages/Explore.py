"""What does the model find in my data?"""

import numpy as np
import streamlit as st

from grads.api import Filter, Pool, Preview
from studio import agreement, bulk, frame, probes, url, words, workspace


def aside(pool: Pool, shown: Preview | None, wanted: Filter, matching: np.ndarray) -> None:
    """What can be done with all that the filters show."""
    st.caption(
        "Every example gets a learning signal: how strongly the model would change by learning it."
        " Draw in a picture to narrow down; choose a point or a row to read."
    )
    if matching.any():
        bulk.act(pool, wanted, matching)
    if 0 < matching.sum() <= min(probes.MOST_ROWS, len(pool) - 1):
        with st.expander(f"Use these {words.count(int(matching.sum()), 'example')} as a set"):
            probes.offer(pool, pool.scores.sample_id[matching].tolist())
    with st.expander("Does another run find the same?", expanded=bool(url.get("other"))):
        agreement.compare(pool.run)
    with st.expander("Show the maths"):
        st.markdown(words.SIGNAL_MATHS)


with frame.page("Explore") as corner:
    workspace.draw("What the model finds in {all}", aside, corner, options_aside=False)
