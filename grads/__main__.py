"""`python -m grads`: the commands, and the worker that jobs start."""

import typer

from grads.cli.commands import app, main


@app.command(hidden=True)
def worker(folder: str, at_once: bool = False) -> None:
    """Work in a job's folder, in this process (what `run` starts in the background)."""
    from grads.stages.worker import main as work
    from grads.store.folders import open_folder

    raise typer.Exit(work(open_folder(folder), at_once))


if __name__ == "__main__":
    main()
