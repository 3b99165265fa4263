"""What leaves a page: its link, the command line that repeats it, and a report to send on."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import streamlit as st

from grads import api
from grads.api import Filter, GradsError, Pool, Run, SelectionConfig
from studio import frame, keep, language, url, words
from studio.language import mark, say

UNNAMED = "mine"  # the name of a selection that has none yet
MOST_PINS = 100  # samples that a command names one by one


def offer(
    place: Any,
    run: Run | None,
    command: str,
    says: str,
    *,
    selection: str | None = None,
    evaluation: str | None = None,
) -> None:
    """A button at the page's top that opens all three; the report, where the run is scored.

    `command` may be empty, where there is none; `says` tells what it does, or why there is none.
    The report begins with this selection and evaluation.
    """
    with place.popover(say("Share"), icon=":material/share:", key="share"):
        st.caption(say("A link to this page as it stands, for who can reach this server:"))
        st.code(url.link(), language=None, wrap_lines=True)
        st.caption(words.literal(says))
        if command:
            st.code(command, language=None, wrap_lines=True)
        if run is not None and run.scores_file.exists():
            _report(run, selection, evaluation)


def listed(place: Any) -> None:
    """What Start and the queue show: all runs, with what they are at."""
    offer(place, None, "python -m grads list", say("The command that lists the runs:"))


def selected(place: Any, run: Run, chosen: SelectionConfig | None) -> None:
    """What Select shows: the choice, under the name that it is saved by, if it has one."""
    name = st.session_state.get("name") or UNNAMED
    if chosen is None:
        command = ""
        says = say("These options do not go together: there is no command for them.")
    else:
        command = api.select_command(run, chosen, name)
        says = say("The command that saves this choice; it follows what people have decided:")
    offer(place, run, command, says, selection=api.saved_last(run))


def explored(place: Any, pool: Pool, wanted: Filter, shown: np.ndarray) -> None:
    """What Explore shows: the samples of a mask (n,) bool, which the filter has made."""
    ranges = wanted == Filter(bounds=wanted.bounds, clusters=wanted.clusters)
    count = int(shown.sum())
    command, says = "", say("No command keeps what is shown: filter further.")
    with suppress(GradsError):  # people have decided against all of them
        if count and (ranges or count <= MOST_PINS):
            options = api.all_matching(pool, wanted)
            command = api.select_command(pool.run, options, UNNAMED)
            examples = words.count(count, "example")
            says = say("The command that keeps all {examples} shown:", examples=examples)
    offer(place, pool.run, command, says, selection=api.saved_last(pool.run))


def evaluated(place: Any, run: Run, name: str) -> None:
    """What Evaluate shows."""
    command, says = "", say("Its settings cannot be read: there is no command for it.")
    with suppress(GradsError):
        command = api.evaluation_command(run, name)
        says = say("The command that makes this evaluation:")
    chosen = api.read_evaluation(run, name).config.get("selections") or [None]
    offer(place, run, command, says, selection=chosen[0], evaluation=name)


def _report(run: Run, selection: str | None, evaluation: str | None) -> None:
    """A report of the run, with a saved selection and an evaluation, as a file."""
    st.caption(
        say(
            "A report as one HTML file: data, settings, pictures, examples, and whether it helped."
            " It holds texts of examples."
        )
    )
    names, measured = run.selection_names(), [one.name for one in api.evaluations(run)]
    chosen = _one_of(mark("Selection"), names, selection, run, called=keep.marked(run))
    tested = _one_of(mark("Evaluation"), measured, evaluation, run)
    with frame.telling():
        st.download_button(
            say("Download the report"),
            partial(_made, run, chosen, tested, language.current()),
            "-".join([run.id, *([chosen] if chosen else [])]) + ".html",
            mime="text/html",
            icon=":material/download:",
            on_click="ignore",
        )


def _made(run: Run, selection: str | None, evaluation: str | None, spoken: str) -> str:
    """A report, made when it is asked for, in the language of the page that offered it."""
    with language.speaking(spoken):
        return api.report(run, selection, evaluation, tell=language.told)


def _one_of(
    label: str,
    names: list[str],
    first: str | None,
    run: Run,
    *,
    called: Callable[[str], str] = str,
) -> str | None:
    """One of these or none; at first the one that the page shows."""
    return st.selectbox(
        say(label),
        names,
        index=names.index(first) if first in names else None,
        placeholder=say("none"),
        format_func=called,
        key=f"report-{label}-{run.id}-{first}",
    )
