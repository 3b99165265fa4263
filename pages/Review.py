"""Would you train on this?"""

import streamlit as st

from grads import api
from studio import decision_files, frame, keep, queues, review, reviewer, share
from studio.language import say

with frame.page("Review") as corner:
    run = frame.scored_run()
    frame.headline(say("Would you train on this?"))
    asked, who = st.columns([5, 2], gap="large", vertical_alignment="bottom")
    name = reviewer.name(who)
    here = review.opened(run, queues.chosen(api.load_pool(run), asked), name)
    told = say("The command that writes this queue as a page for someone without this tool:")
    share.offer(
        corner, run, api.packet_command(run, here.config), told, selection=api.saved_last(run)
    )
    if not here.entries:
        st.info(say("There is nothing to look at in this queue."), icon=":material/inbox:")
        review.undo(run)
    else:
        review.progress(here)
        if here.at < len(here.entries):
            review.show(here)
        else:
            review.finished(here)
    with st.expander(say("Decisions as files, and a packet for a reviewer without this tool")):
        decision_files.offer(run, here.config, not here.entries)
    keep.decided(run)
