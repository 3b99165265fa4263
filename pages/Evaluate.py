"""Did it help?"""

import streamlit as st

from studio import frame

with frame.page("Evaluate"):
    run = frame.scored_run()
    frame.headline("Did it help?")
    st.info("No evaluation of this run yet.")
