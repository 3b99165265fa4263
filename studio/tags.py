"""Tags: names by which people find examples again, put on one or on all that is shown."""

import numpy as np
import streamlit as st

from grads import api
from grads.api import Pool, Run
from studio import frame, listing, reviewer, url
from studio.language import mark, say

TAGGED = "tagged"  # in the address: tags, of which an example has one


def of(run: Run, sample_id: int) -> None:
    """The tags of the open example: chosen, taken off, or made by typing a new one."""
    has, key = api.tags_of(run, sample_id), f"tags-{sample_id}"

    def changed() -> None:
        wanted = st.session_state[key]
        with frame.telling():
            for name in wanted:
                if name not in has:
                    api.tag(run, name, [sample_id], reviewer=reviewer.known())
            for name in has:
                if name not in wanted:
                    api.tag(run, name, [sample_id], off=True, reviewer=reviewer.known())

    st.session_state[key] = has  # as the run has them: another tab may have changed them
    st.multiselect(
        say("Tags"),
        list(api.tags(run)),
        key=key,
        on_change=changed,
        accept_new_options=True,
        placeholder=say("Choose a tag or type a new one"),
    )


def wanted(run: Run) -> tuple[str, ...]:
    """The tags that the filter asks for, of those that the run has."""
    found = url.choose_several(
        say("Tags"),
        list(api.tags(run)),
        TAGGED,
        placeholder=say("All tags"),
        label_visibility="collapsed",
    )
    return tuple(found)


def listed(pool: Pool) -> listing.Told:
    """A column of the list that names each example's tags, where there are some."""
    found = api.tags(pool.run)
    if not found:
        return {}

    def named(positions: np.ndarray) -> list[str]:
        has = {name: np.isin(pool.scores.sample_id[positions], ids) for name, ids in found.items()}
        return [
            ", ".join(name for name in found if has[name][place]) for place in range(len(positions))
        ]

    return {mark("tags"): named}
