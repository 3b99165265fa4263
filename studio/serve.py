"""The dashboard's server: Streamlit, with what pages need loaded before the first visit."""

import pandas as pd  # noqa: F401
from streamlit.web.cli import main

from grads import api, charts  # noqa: F401

if __name__ == "__main__":
    charts.loss_curve([0], [0], "step")  # Plotly loads most of itself with the first figure
    main(prog_name="streamlit")
