"""`python -m grads`: the commands, and the worker that jobs start."""

import typer

from grads.cli.commands import app, main


@app.command(hidden=True)
def worker(folder: str, at_once: bool = False) -> None:
    """Work in a job's folder, in this process (what `run` starts in the background)."""
    from grads.stages.worker import main as work
    from grads.store.folders import open_folder

    raise typer.Exit(work(open_folder(folder), at_once))


@app.command(hidden=True)
def checker(root: str, server: int) -> None:
    """Look at data on demand for as long as the process `server` lives."""
    from pathlib import Path

    from grads.stages.checker import main as serve

    raise typer.Exit(serve(Path(root), server))


if __name__ == "__main__":
    main()
