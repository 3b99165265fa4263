"""Writes the picture of two runs to an HTML file that stands alone, for the command `agree`."""

import sys
from pathlib import Path

from grads import api
from grads.api import GradsError, Run
from studio import agreement


def main(first: str, second: str, file: str) -> None:
    """Where each sample that both runs have stands in either, by its learning signal."""
    figure, _ = agreement.figure(api.agree(Run.open(first), Run.open(second)), "signal")
    api.write_out(Path(file), figure.to_html())


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except GradsError as error:
        sys.exit(str(error))
