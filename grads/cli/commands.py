"""The command line, a thin shell over grads.api."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from grads import api
from grads.cli.evaluation import evaluate, tune
from grads.cli.options import ConfigFile, Json, Root, RunDir, option, settings_of
from grads.cli.terminal import bench_lines, selection_lines, show, state_lines, status_lines, work
from grads.config.run import RunConfig, SelectionConfig
from grads.errors import ConfigError, GradsError
from grads.jobs import processes as jobs
from grads.store.folders import open_folder
from grads.store.runs import Run

app = typer.Typer(
    help="Choose the samples worth fine-tuning on, by their gradients.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would take "[default: 16]" for a style and swallow it
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _r(name: str, *flags: str) -> Any:
    return option(RunConfig, name, *flags)


def _s(name: str, *flags: str) -> Any:
    return option(SelectionConfig, name, *flags)


@app.command()
def run(
    dataset: Annotated[str | None, _r("dataset")] = None,
    model: Annotated[str | None, _r("model")] = None,
    run_dir: Annotated[
        str | None, typer.Option(help="Directory of the run [default: a new one].")
    ] = None,
    runs_dir: Root = None,
    config_file: ConfigFile = None,
    dataset_config: Annotated[str | None, _r("dataset_config")] = None,
    split: Annotated[str | None, _r("split")] = None,
    revision: Annotated[str | None, _r("revision")] = None,
    columns: Annotated[list[str] | None, _r("columns", "--map")] = None,
    limit: Annotated[int | None, _r("limit")] = None,
    heldout: Annotated[int | None, _r("heldout")] = None,
    max_length: Annotated[int | None, _r("max_length")] = None,
    warmup: Annotated[str | None, _r("warmup")] = None,
    warmup_fraction: Annotated[float | None, _r("warmup_fraction")] = None,
    warmup_from: Annotated[str | None, _r("warmup_from")] = None,
    epochs: Annotated[float | None, _r("epochs")] = None,
    lr: Annotated[float | None, _r("lr")] = None,
    lora_rank: Annotated[int | None, _r("lora_rank")] = None,
    batch_size: Annotated[int | None, _r("batch_size")] = None,
    batch_tokens: Annotated[int | None, _r("batch_tokens")] = None,
    dtype: Annotated[str | None, _r("dtype")] = None,
    device: Annotated[str | None, _r("device")] = None,
    seed: Annotated[int | None, _r("seed")] = None,
    clusters: Annotated[int | None, _r("clusters")] = None,
    token_signals: Annotated[
        bool | None, _r("token_signals", "--token-signals/--no-token-signals")
    ] = None,
    as_json: Json = False,
) -> None:
    """Warm up a model on a data set and score every sample's gradients."""
    given = dict(locals())
    for name in ("run_dir", "runs_dir", "config_file", "as_json", "columns"):
        given.pop(name)
    if columns:
        given["columns"] = dict(_pair(text) for text in columns)
    settings = RunConfig.parse(settings_of(config_file, **given))
    made = api.create_run(settings, run_dir, runs_dir)
    work(made, as_json)


def _pair(text: str) -> tuple[str, str]:
    role, equals, column = text.partition("=")
    if not equals or not column:
        raise ConfigError(f"--map is {text!r}: write ROLE=COLUMN, as in prompt=question")
    return role, column


@app.command()
def select(
    run_dir: RunDir,
    name: Annotated[str, typer.Option(help="Name to save the selection under.")],
    config_file: ConfigFile = None,
    criterion: Annotated[str | None, _s("criterion")] = None,
    signal: Annotated[str | None, _s("signal")] = None,
    length_control: Annotated[str | None, _s("length_control")] = None,
    bandwidth: Annotated[str | None, _s("bandwidth")] = None,
    floor: Annotated[float | None, _s("floor")] = None,
    typicality: Annotated[float | None, _s("typicality")] = None,
    focus: Annotated[float | None, _s("focus")] = None,
    draw: Annotated[str | None, _s("draw")] = None,
    ratio: Annotated[float | None, _s("ratio")] = None,
    count: Annotated[int | None, _s("count")] = None,
    auto: Annotated[bool | None, _s("auto", "--auto")] = None,
    budget_unit: Annotated[str | None, _s("budget_unit")] = None,
    bounds: Annotated[list[str] | None, _s("bounds", "--bound")] = None,
    clusters: Annotated[list[int] | None, _s("clusters", "--cluster")] = None,
    pins: Annotated[list[int] | None, _s("pins", "--pin")] = None,
    excluded: Annotated[list[int] | None, _s("excluded", "--exclude")] = None,
    seed: Annotated[int | None, _s("seed")] = None,
    as_json: Json = False,
) -> None:
    """Choose a subset of a finished run's samples and save it under a name."""
    given = dict(locals())
    for key in ("run_dir", "name", "config_file", "as_json", "bounds"):
        given.pop(key)
    if bounds:
        given["bounds"] = [_bound(text) for text in bounds]
    options = SelectionConfig.parse(settings_of(config_file, **given))
    record = api.select_samples(Run.open(run_dir), name, options)
    show(record, as_json, selection_lines)


def _bound(text: str) -> dict[str, Any]:
    parts = text.rsplit(":", 2)
    try:
        column, low, high = parts
        ends = {"low": float(low) if low else None, "high": float(high) if high else None}
    except ValueError:
        raise ConfigError(
            f"--bound is {text!r}: write COLUMN:LOW:HIGH; an end may be empty"
        ) from None
    return {"column": column, **ends}


@app.command()
def export(
    run_dir: RunDir,
    selection: Annotated[str, typer.Option(help="Name of a saved selection.")],
    kind: Annotated[
        str,
        typer.Option("--format", help="jsonl, csv, parquet, hf, llamafactory, trl or axolotl."),
    ] = "jsonl",
    out: Annotated[
        Path | None,
        typer.Option(
            help="File or folder to write; it must not exist yet"
            " [default: exports/SELECTION/FORMAT in the run, replaced]."
        ),
    ] = None,
    with_scores: Annotated[bool, typer.Option(help="Add the scores as grads_ columns.")] = False,
    as_json: Json = False,
) -> None:
    """Write a selection as files a trainer reads, loaded back and counted."""
    manifest = api.export_selection(Run.open(run_dir), selection, kind, out, with_scores)
    line = f"wrote {manifest['rows']:,} samples as {kind} to {manifest['path']}, loaded back"
    show(manifest, as_json, lambda _: [line])


app.command()(evaluate)
app.command()(tune)


@app.command("list")
def list_command(runs_dir: Root = None, as_json: Json = False) -> None:
    """List the runs with their states, newest first."""
    rows = api.summaries(runs_dir)
    if as_json:
        print(json.dumps([row.as_dict() for row in rows]))
        return
    table = Table("run", "state", "stage", "samples", "data set", "model", "selections")
    for row in rows:
        usable = str(row.counts.get("usable", ""))
        count = str(len(row.selections) or "")
        stage = "" if row.status.state == "finished" else row.status.stage
        data = Path(row.dataset).name
        table.add_row(row.id, row.status.state, stage, usable, data, row.model, count)
    Console().print(table if rows else "no runs yet: start one with `python -m grads run`")


@app.command()
def status(run_dir: RunDir, as_json: Json = False) -> None:
    """Show what the job of a run or of an evaluation's folder is doing."""
    folder = open_folder(run_dir)
    if isinstance(folder, Run):
        summary = api.summary(folder)
        show(summary.as_dict(), as_json, lambda _: status_lines(summary))
    else:
        now = jobs.observe(folder)
        values = {"name": folder.id, "status": now.model_dump(mode="json")}
        show(values, as_json, lambda _: state_lines(folder.id, now))


@app.command()
def stop(run_dir: RunDir, as_json: Json = False) -> None:
    """Stop the job of a run or of an evaluation's folder; what is finished stays for a resume."""
    opened = open_folder(run_dir)
    now = api.stop_run(opened)
    again = f"go on with: python -m grads resume --run-dir {opened.path}"
    values = {"name": opened.id, "status": now.model_dump(mode="json")}
    show(values, as_json, lambda _: [f"{opened.id} is {now.state}; {again}"])


@app.command()
def resume(run_dir: RunDir, as_json: Json = False) -> None:
    """Go on with a stopped, failed or interrupted run or evaluation, without repeating a part.

    Of a finished run, what is damaged or gone is made anew.
    """
    opened = open_folder(run_dir)
    if jobs.observe(opened).state == "finished":
        api.resume_run(opened)
    work(opened, as_json)


@app.command(hidden=True)
def worker(folder: str, at_once: bool = False) -> None:
    """Work in a job's folder, in this process (what `run` starts in the background)."""
    from grads.stages.worker import main

    raise typer.Exit(main(open_folder(folder), at_once))


@app.command()
def dashboard(
    port: Annotated[int | None, typer.Option(help="Port [default: a free one from 8501].")] = None,
    runs_dir: Root = None,
) -> None:
    """Open the dashboard, bound to this machine alone; Ctrl-C ends it, not its jobs."""
    from grads.cli.dashboard import main

    raise typer.Exit(main(port, runs_dir))


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("build/bench.json"),
    dataset: Annotated[
        str, typer.Option(help="Data file; its first 24 rows are measured on.")
    ] = "assets/demo/medical_qa.jsonl",
    as_json: Json = False,
) -> None:
    """Measure speed and memory of scoring, as ratios in one process."""
    from grads.bench.scoring import main

    show(main(out, dataset), as_json, bench_lines)


def main() -> None:
    """Run the command line: exit code 0 on success, 1 on failure, 2 on bad usage."""
    try:
        app()
    except ConfigError as error:
        _fail(error, 2)
    except GradsError as error:
        _fail(error, 1)


def _fail(error: GradsError, code: int) -> None:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
