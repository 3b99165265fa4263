"""A run on one page, to send on; and the command lines that repeat what a page shows."""

from pathlib import Path

from grads.api.runs import load_pool
from grads.config.queue import QueueConfig
from grads.config.run import RunConfig
from grads.config.spelling import command
from grads.errors import ConfigError
from grads.report import report as page
from grads.selection.options import SelectionConfig
from grads.store.files import write_out
from grads.store.folders import Evaluation
from grads.store.runs import Run
from grads.text import Tell


def report(
    run: Run, selection: str | None = None, evaluation: str | None = None, *, tell: Tell = str
) -> str:
    """A scored run, a saved selection and an evaluation as one HTML page that needs nothing else.

    `tell` puts its texts into a language. Raises RunError where the run is not scored, has no such
    selection or evaluation, or a file is damaged, and SelectionError where the selection cannot be
    worked out any more.
    """
    return page.report(load_pool(run), selection, evaluation, tell=tell)


def write_report(
    run: Run, out: Path, selection: str | None = None, evaluation: str | None = None
) -> None:
    """The same as a file, in the place of one that is there.

    Raises ConfigError where its name is not that of an HTML file, and RunError as `report` does and
    where it cannot be written.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"out is {out}: give the name of an HTML file")
    write_out(out, report(run, selection, evaluation))


def run_command(config: RunConfig, run: Run | None = None) -> str:
    """The line that starts a run of these settings: a new one, or in the place of this one."""
    if run is None:
        return command("run", config.absolute())
    return command("run", config, run_dir=str(run.path))


def select_command(run: Run, options: SelectionConfig, name: str) -> str:
    """The line that saves a selection of these options under a name."""
    return command("select", options, run_dir=str(run.path), name=name)


def packet_command(run: Run, config: QueueConfig) -> str:
    """The line that writes the page on which someone without this tool goes through a queue."""
    return command("packet", config, run_dir=str(run.path), out="packet.html")


def evaluation_command(run: Run, name: str) -> str:
    """The line that makes an evaluation, or a search; raises RunError where there is none."""
    return page.evaluation_command(Evaluation.open(run, name))
