"""The dashboard's server: Streamlit, with what pages need loaded before the first visit."""

import threading
from contextlib import suppress

import pandas as pd  # noqa: F401
from streamlit import net_util
from streamlit.web.cli import main

from grads import api
from grads.api import GradsError, list_runs, runs_root
from studio import charts


def read_newest_run() -> None:
    """Read what Explore shows of the newest scored run; what is wrong there, the page will say."""
    scored = [run for run in list_runs(runs_root()) if run.scores_file.exists()]
    with suppress(GradsError):
        for run in scored[:1]:
            pool = api.load_pool(run)
            _ = pool.numbers, pool.categories


def stay_here() -> None:
    """Have Streamlit ask nobody for this machine's address when a stranger knocks."""
    net_util.get_external_ip = lambda: None


if __name__ == "__main__":
    stay_here()
    charts.loss_curve([0], [0], "step")  # Plotly loads most of itself with the first figure
    threading.Thread(target=read_newest_run, daemon=True).start()
    api.keep_warm()
    main(prog_name="streamlit")
