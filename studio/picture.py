"""Writes the picture of two runs to an HTML file that stands alone, for the command `agree`."""

import sys
from html import escape
from pathlib import Path

from grads import api
from grads.api import GradsError, Run
from studio import agreement

PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title></head>
<body style="font-family: sans-serif">
{parts}
</body>
</html>
"""


def main(file: str, *runs: str) -> None:
    """Where each sample that two runs have stands in either, by its learning signal.

    Of a third run, the first with another seed, there is a second picture.
    """
    found, parts = api.agree(*map(Run.open, runs)), []
    for number, (title, figure, _) in enumerate(agreement.figures(found, "signal")):
        parts += [f"<h2>{escape(title)}</h2>"] if title else []
        parts.append(figure.to_html(full_html=False, include_plotlyjs=number == 0))
    title = " and ".join(Path(run).name for run in runs[:2])
    api.write_out(Path(file), PAGE.format(title=escape(title), parts="\n".join(parts)))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except GradsError as error:
        sys.exit(str(error))
