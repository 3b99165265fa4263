"""The frame around every page: navigation, the chosen run, and what errors look like."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from grads import api
from grads.api import ACTIVE, GradsError, Overlap, Run, list_runs, runs_root
from studio import language, url, words
from studio.language import mark, say

PAGES = {
    mark("Start"): ("app.py", ":material/home:"),
    mark("Data"): ("pages/Data.py", ":material/table_rows:"),
    mark("Run"): ("pages/Run.py", ":material/play_arrow:"),
    mark("Explore"): ("pages/Explore.py", ":material/scatter_plot:"),
    mark("Review"): ("pages/Review.py", ":material/rate_review:"),
    mark("Select"): ("pages/Select.py", ":material/tune:"),
    mark("Evaluate"): ("pages/Evaluate.py", ":material/query_stats:"),
}
DONE = ":material/check_circle:"  # in the place of the icon of a page whose step is taken
WORKSPACE = ("Explore", "Select")  # one workspace: what is set on one page stands on the other
ICON = Path(__file__).parents[1] / "assets" / "icon.png"
LOG = logging.getLogger("studio")
UNCAUGHT = logging.getLogger("streamlit.error_util")  # of what no page catches: callbacks
STYLE = """<style>
[data-testid="stMainBlockContainer"] {padding-top: 1.5rem; max-width: 1320px}
[data-testid="stHeader"] {background: none; pointer-events: none}
[data-testid="stMain"]:focus-visible {outline: none; box-shadow: none}
@media (max-width: 1000px) {
  [data-testid="stHorizontalBlock"] {flex-wrap: wrap; row-gap: 1rem}
  [data-testid="stColumn"] {min-width: 45%}
  [data-testid="stColumn"]:has([data-testid="stColumn"], [data-testid="stPlotlyChart"],
    [data-testid="stSlider"], .turn, [data-testid="stDataFrame"]) {min-width: 100%}
  /* The views, and an example that is open, before the options. */
  [data-testid="stColumn"]:has(.st-key-middle, .st-key-reading .turn) {order: -1}
}
@media (max-width: 600px) {
  .st-key-run {flex: 1 1 7rem; max-width: 280px}  /* in a line with what stands behind it */
  [data-testid="stColumn"]:has([data-testid="stPageLink"], [data-testid="stFileUploader"]) {
    min-width: 100%}
}
[data-testid="stMainBlockContainer"]:has(.st-key-strip) {
  max-width: 1920px; padding: .6rem 1.6rem 0}
.st-key-heading h2 {padding: 0}
@media (min-width: 1200px) and (min-height: 700px) {  /* the workspace takes what is left */
  [data-testid="stMainBlockContainer"]:has(.st-key-strip) {height: 100vh}
  [data-testid="stMainBlockContainer"]:has(.st-key-strip) > [data-testid="stVerticalBlock"] {
    height: 100%}
  [data-testid="stLayoutWrapper"]:has(> [data-testid="stHorizontalBlock"] .st-key-middle) {
    flex: 1 1 0 !important; min-height: 20rem}
  [data-testid="stHorizontalBlock"]:has(.st-key-middle) {height: 100%}
  [data-testid="stColumn"]:has(.st-key-side, .st-key-middle, .st-key-reading) {
    height: 100%; overflow-y: auto; overflow-x: hidden; padding-right: .4rem}
}
.key {margin-right: .9rem; font-size: .875rem; white-space: nowrap}
.key i {display: inline-block; width: .7rem; height: .7rem; border-radius: 50%;
  margin-right: .3rem; border: 2px solid var(--colour); vertical-align: -1px}
.key i.full {background: var(--colour)}
@media (pointer: coarse) {  /* a finger that moves over a picture scrolls the page */
  .js-plotly-plot .nsewdrag {pointer-events: none !important; touch-action: auto}
}
/* Three sizes of letters: small, text, and what a page says first. */
h2, [data-testid="stMetricValue"] {font-size: 1.4rem !important}
h4 {font-size: 1rem !important}
[data-testid="stMetricLabel"] *, [data-testid="stMetricDelta"] {font-size: .875rem}
.stApp {font-variant-numeric: tabular-nums}
.modebar-container {display: none}  /* of Plotly: it lies over titles and legends */
.st-key-here {border-bottom: 2px solid #2f7ed8}
.st-key-here * {font-weight: 600}
.st-key-here [data-testid="stPageLink-NavLink"]:not(:hover, :focus-visible) {background: none}
[data-testid="stMultiSelect"] :has(> span[title]) {background-color: #1f66b8}  /* under white */
.st-key-fetch, .st-key-kept, .st-key-spoken {display: none}
.st-key-next a {background: #1f66b8; border-radius: .5rem; padding: .45rem .9rem}
.st-key-next a:hover {background: #184f90}
.st-key-next a * {color: #fff}
/* The accent of the dark theme is too light below white words. */
button[kind="primary"]:enabled {background: #1f66b8; border-color: #1f66b8}
button[kind="primary"]:enabled:hover {background: #184f90; border-color: #184f90}
/* What is drawn anew every second does not fade on the way. */
.st-key-live [data-stale="true"], .st-key-live summary {opacity: 1; transition: none}
[data-testid="stColumn"]:has(.st-key-verdict) {position: sticky; top: 1rem; align-self: flex-start}
.st-key-verdict [data-testid="stButton"] button:not([kind="tertiary"]) {min-height: 3.2rem}
.turn {white-space: pre-wrap; overflow-wrap: anywhere; border-left: 4px solid #8b919c;
  padding: .35rem .8rem; margin: .4rem 0; line-height: 1.5}
.turn.assistant {border-color: #3a86d8}
.who {font-size: .875rem; opacity: .75; margin-bottom: .15rem; white-space: normal}
.learned {text-decoration: underline #3a86d8 2px; text-underline-offset: 3px}
.special {opacity: .45; font-size: .875rem}
</style>"""


@contextmanager
def page(name: str) -> Iterator[Any]:
    """The page's frame; errors inside become messages that say what to do.

    What it gives is the place at the top for what leaves the page (studio/share.py).
    """
    st.set_page_config(page_icon=str(ICON), layout="wide")
    st.html(STYLE)
    _keep_traces()
    with url.opened(name), guard():
        language.use()
        tab(say(name))
        places, behind = _navigation(name)
        yield behind
        for other in set(WORKSPACE) - {name} if name in WORKSPACE else ():
            _to(other, places[other], name)


@contextmanager
def guard() -> Iterator[None]:
    """Expected errors are shown as they are; of others the log gets the trace."""
    try:
        yield
    except GradsError as error:
        st.error(words.error(str(error)), icon=":material/error:")
        st.stop()
    except Exception as error:
        if refused := api.of_the_machine(error):
            st.error(words.error(refused), icon=":material/error:")
            st.stop()
        LOG.exception("a page failed")
        st.error(
            say(
                "Something went wrong while drawing this page. Reload it; if it happens again, the"
                " details are in {file}.",
                file=words.literal(str(log_file())),
            ),
            icon=":material/error:",
        )
        st.stop()


@contextmanager
def telling() -> Iterator[None]:
    """Around one part of a page: an expected error is said in its place, and the rest stands."""
    try:
        yield
    except GradsError as error:
        st.error(words.error(str(error)), icon=":material/error:")


class _LogFile(logging.Handler):
    """Appends to the log of the runs folder that is in use now."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            file = log_file()
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as out:
                lines = self.format(record).split("\n")
                out.writelines(f"{api.visible(line)}\n" for line in lines)
        except OSError:  # a full disk must not hide the message on the page
            self.handleError(record)


def log_file() -> Path:
    """Where the traces of unexpected errors go."""
    return runs_root() / "studio.log"


def _keep_traces() -> None:
    """Send the traces of failed pages, and of what fails outside a page, to the log file."""
    if not LOG.handlers:
        handler = _LogFile()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        for logger in (LOG, UNCAUGHT):
            logger.addHandler(handler)


def tab(says: str) -> None:
    """Put this before the name of all in the title of the browser's tab."""
    st.set_page_config(page_title=f"{says} · GrADS Studio")


def _navigation(name: str) -> tuple[dict[str, tuple[Any, str]], Any]:
    """The pages, and the run that they are about; where each link stands with which icon, and the
    place behind all."""
    places: dict[str, tuple[Any, str]] = {}
    with st.container(horizontal=True, vertical_alignment="center", key="navigation"):
        st.markdown("**GrADS Studio**", width="content")
        place = st.container(horizontal=True, width="content")
        run = _run_box()
        language.switch()
        behind = st.container(width="content")
        done = _steps_taken(run)
        with place:
            for title in PAGES:
                with st.container(key="here" if title == name else None, width="content"):
                    places[title] = st.empty(), DONE if title in done else PAGES[title][1]
                _to(title, places[title], name)
    return places, behind


def _steps_taken(run: Run | None) -> set[str]:
    """The pages whose step has been taken with the run; a look at Explore leaves nothing there."""
    if run is None:
        return set()
    taken = {
        "Data": True,
        "Run": run.scores_file.exists(),
        "Review": run.decisions_file.exists(),
        "Select": bool(run.selection_names()),
        "Evaluate": any(run.evaluations.glob("*/result.json")),
    }
    return {title for title, is_so in taken.items() if is_so}


def _to(title: str, link_at: tuple[Any, str], name: str) -> None:
    """A link to a page, with its icon; within the workspace it carries all that is set there."""
    place, icon = link_at
    params = url.held() if {name, title} == set(WORKSPACE) else link()
    place.page_link(PAGES[title][0], label=say(title), icon=icon, query_params=params)


def _run_box() -> Run | None:
    """The run; it always stands in the address, so that a copied link shows the same."""
    runs = list_runs(runs_root())
    names = [run.id for run in runs]
    if not names:
        return None
    titles = {run.id: called(run) for run in runs}
    alike = Counter(titles.values())
    asked = url.get("run")
    if asked and asked not in names:
        st.toast(
            say(
                "There is no run {asked} here; this is {shown}.",
                asked=words.literal(asked),
                shown=words.literal(names[0]),
            )
        )
    chosen = url.choose(
        st.selectbox,
        say("Run"),
        names,
        "run",
        always=True,
        on_change=url.forget_run,
        format_func=lambda name: (
            titles[name] if alike[titles[name]] == 1 else f"{titles[name]} ({name})"
        ),
        label_visibility="collapsed",
        width=280,
    )
    return next(run for run in runs if run.id == chosen)


def called(run: Run) -> str:
    """What people call a run; by its folder where nobody named it, or that cannot be read."""
    with suppress(GradsError):
        return run.read_about().title or run.id
    return run.id


def link(**more: str) -> dict[str, str]:
    """Query parameters that keep run, open example and language when the page changes."""
    kept = ("run", "sample", language.KEY)
    return {name: url.get(name) for name in kept if url.get(name)} | more


def run_link(run: str) -> dict[str, str]:
    """Query parameters that lead to another run."""
    return {name: text for name, text in link(run=run).items() if name != "sample"}


def chosen_run() -> Run:
    """The run of the URL, or the newest; ends the page with a hint where there is none."""
    run_id = url.get("run")
    if run_id not in {run.id for run in list_runs(runs_root())}:
        headline(say("There is no run yet"))
        st.info(say("Start with your data."), icon=":material/info:")
        st.page_link("pages/Data.py", label=say("Choose data"), icon=":material/table_rows:")
        st.stop()
    return Run.open(runs_root() / run_id)


def scored_run() -> Run:
    """The chosen run if its samples are scored; else ends the page with its state."""
    run = chosen_run()
    if run.scores_file.exists():
        return run
    status = api.observe(run)
    word = words.state(status.state)[0]
    headline(
        say("This run is {state}", state=word)
        if status.state in ACTIVE
        else say("Nothing is scored yet")
    )
    if status.state == "finished":
        st.error(say("This run's scores are gone. Score the data again."), icon=":material/error:")
    elif status.state in ACTIVE:
        st.info(
            say(
                "This run is {state}: its examples are not scored yet. Watch it on the page Run.",
                state=word,
            ),
            icon=":material/hourglass_top:",
        )
    else:
        reason = f" ({status.error})" if status.error else ""
        told = say(
            "This run is {state} before its examples were scored{reason}.",
            state=word,
            reason=reason,
        )
        st.warning(
            words.error(told) + " " + say("Resume it on the page Run."), icon=":material/warning:"
        )
    st.page_link(
        "pages/Run.py", label=say("Go to Run"), icon=":material/play_arrow:", query_params=link()
    )
    st.stop()


def overlap(run: Run) -> Overlap:
    """How the subsets of the search's grid overlap, worked out once."""
    with st.spinner(say("Comparing the settings")):
        return _overlap(str(run.path), run.scores_file.stat().st_mtime_ns)


@st.cache_data(max_entries=8, show_spinner=False)
def _overlap(path: str, stamp: int) -> Overlap:
    return api.subset_overlap(Run(path))


def fetch_pictures() -> None:
    """Have the browser fetch what draws pictures and tables before a page needs it."""
    with st.container(key="fetch"):
        st.plotly_chart(go.Figure(), key="fetch-picture")
        st.dataframe({})


def next_link(path: str, label: str, icon: str, params: dict[str, str]) -> None:
    """The page's primary step onward, as a link: it keeps what widgets have put into the URL."""
    with st.container(key="next"):
        st.page_link(path, label=label, icon=icon, query_params=params)


def headline(text: str, below: str = "") -> None:
    """The one sentence of a page."""
    st.markdown(f"## {text}")
    if below:
        st.markdown(below)
