"""The command line, a thin shell over grads.api."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from grads import api, config, jobs
from grads.config import RunConfig, SelectionConfig
from grads.errors import ConfigError, GradsError
from grads.runs import ACTIVE, Run, Status, open_folder

app = typer.Typer(
    help="Choose the samples worth fine-tuning on, by their gradients.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would take "[default: 16]" for a style and swallow it
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
console = Console(stderr=True)


def _option(settings: type[config.Settings], name: str, *flags: str) -> Any:
    """An option whose help, choices and default are the setting's own."""
    field = settings.model_fields[name]
    text = " ".join((field.description or "").split())
    if get_origin(field.annotation) is Literal:
        text += f" One of {', '.join(get_args(field.annotation))}."
    default = field.default
    if not (field.is_required() or default is None or default is False or default in ((), {})):
        text += f" [default: {default}]"
    return typer.Option(*(flags or (f"--{name.replace('_', '-')}",)), help=text, show_default=False)


RunDir = Annotated[str, typer.Option("--run-dir", help="The run's directory.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file with settings by these names; options win over it."),
]
Root = Annotated[
    str | None,
    typer.Option("--runs-dir", help="Where runs live [default: GRADS_RUNS_DIR, else ./runs]."),
]


def _settings(path: Path | None, **given: Any) -> dict[str, Any]:
    """Settings of the YAML file, overruled by the options that were given."""
    values = config.read_yaml(path) if path else {}
    return values | {name: value for name, value in given.items() if value not in (None, [])}


def _r(name: str, *flags: str) -> Any:
    return _option(RunConfig, name, *flags)


def _s(name: str, *flags: str) -> Any:
    return _option(SelectionConfig, name, *flags)


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
    settings = RunConfig.parse(_settings(config_file, **given))
    made = api.create_run(settings, run_dir, runs_dir)
    _follow(made, as_json)


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
    options = SelectionConfig.parse(_settings(config_file, **given))
    record = api.select_samples(Run.open(run_dir), name, options)
    _print(record, as_json, _selection_lines)


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


def _selection_lines(record: dict[str, Any]) -> list[str]:
    samples, tokens = record["samples"], record["response_tokens"]
    lines = [
        f"selection {record['name']}: keeps {samples['kept']:,} of {samples['pool']:,} samples"
        f" ({samples['kept'] / samples['pool']:.1%})",
        f"response tokens: {tokens['kept']:,} of {tokens['pool']:,}"
        f" ({tokens['kept'] / tokens['pool']:.1%}); a random subset of its size keeps"
        f" {tokens['random']:,}",
    ]
    lines += [f"note: {note}" for note in record["notes"]]
    return lines + [f"warning: {warning}" for warning in record["warnings"]]


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
    _print(manifest, as_json, lambda _: [line])


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
    """Show what a run's job is doing."""
    summary = api.summary(Run.open(run_dir))
    _print(summary.as_dict(), as_json, lambda _: _status_lines(summary))


def _status_lines(summary: api.RunSummary) -> list[str]:
    now = summary.status
    place = f", {now.stage} {now.done:,} of {now.total:,} {now.unit}" if now.total else ""
    left = f", about {_duration(now.eta_s)} left" if now.eta_s is not None else ""
    lines = [f"{summary.id}: {now.state}{place}{left}"]
    if summary.counts:
        lines.append(", ".join(f"{value:,} {name}" for name, value in summary.counts.items()))
    return lines + [text for text in (now.error, now.message) if text]


@app.command()
def stop(run_dir: RunDir) -> None:
    """Stop a run's job; what is finished stays for a resume."""
    opened = Run.open(run_dir)
    state = api.stop_run(opened).state
    print(f"{opened.id} is {state}; go on with: python -m grads resume --run-dir {opened.path}")


@app.command()
def resume(run_dir: RunDir, as_json: Json = False) -> None:
    """Go on with a stopped, failed or interrupted run, from its last finished step or part."""
    opened = Run.open(run_dir)
    if jobs.observe(opened).state == "finished":
        api.resume_run(opened)
    _follow(opened, as_json)


@app.command(hidden=True)
def worker(folder: str, at_once: bool = False) -> None:
    """Work in a job's folder, in this process (what `run` starts in the background)."""
    from grads.worker import main

    raise typer.Exit(main(open_folder(folder), at_once))


@app.command()
def dashboard(
    port: Annotated[int | None, typer.Option(help="Port [default: a free one from 8501].")] = None,
    runs_dir: Root = None,
) -> None:
    """Open the dashboard, bound to this machine alone; Ctrl-C ends it, not its jobs."""
    from grads.dashboard import main

    raise typer.Exit(main(port, runs_dir))


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("build/bench.json"),
    dataset: Annotated[
        str, typer.Option(help="Data file; its first 24 rows are measured on.")
    ] = "assets/demo/medical_qa.jsonl",
) -> None:
    """Measure speed and memory of scoring, as ratios in one process."""
    from grads.bench import main

    main(out, dataset)


def _follow(run: Run, as_json: bool) -> None:
    """Start the run's job and show its progress until it ends; Ctrl-C stops it."""
    if jobs.observe(run).state != "finished":
        api.start_run(run)
    try:
        _watch(run)
    except KeyboardInterrupt:
        console.print("stopping ...")
        jobs.stop(run)
        console.print(f"stopped; go on with: python -m grads resume --run-dir {run.path}")
        raise typer.Exit(130) from None
    summary = api.summary(run)
    now = summary.status
    if now.state == "stopped":
        console.print(f"stopped; go on with: python -m grads resume --run-dir {run.path}")
        raise typer.Exit(1)
    if now.state != "finished":
        raise GradsError(f"{now.error} (run {run.path})")
    _print(summary.as_dict(), as_json, lambda _: _run_lines(run, summary))


def _run_lines(run: Run, summary: api.RunSummary) -> list[str]:
    manifest, counts = run.read_manifest(), summary.counts
    check = manifest["self_check"]["largest_relative_difference"]
    seconds = sum(manifest["seconds"].values())
    lines = [
        f"run {run.path}",
        f"{counts['usable']:,} of {counts['rows']:,} rows usable, {counts['refused']:,} refused,"
        f" {counts['heldout']:,} held out, {counts['truncated']:,} cut to {manifest['max_length']}"
        " tokens",
        f"layout {manifest['source']['layout']}; model {summary.model} on {manifest['device']},"
        f" {manifest['dtype']}; {_duration(seconds)} in all",
        f"self-check against plain autograd: largest relative difference {check:.1e}",
    ]
    if counts["refused"]:
        first = run.read_rejects()[0]
        lines.append(
            f"first refused row: {first['row']}, {first['reason']}; {first['advice']}"
            f" (all in {run.rejects_file.name})"
        )
    return [*lines, f"next: python -m grads select --run-dir {run.path} --name mine --ratio 0.1"]


def _watch(run: Run) -> None:
    """Show progress until the job has ended: a bar on a terminal, else a line a stage."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None, note="")
        shown = ""
        while True:
            now = jobs.observe(run)
            stage = now.stage or now.message or now.state
            if stage != shown and not console.is_terminal:
                console.print(stage)
            shown = stage
            bar.update(
                task,
                description=stage,
                completed=now.done,
                total=now.total or None,
                note=_note(now),
            )
            if now.state not in ACTIVE:
                return
            time.sleep(0.3)


def _note(now: Status) -> str:
    rate = f"{now.rate:.1f} {now.unit}/s" if now.rate and not now.eta_s else ""
    return f"about {_duration(now.eta_s)} left" if now.eta_s is not None else rate


def _duration(seconds: float | None) -> str:
    whole = round(seconds or 0)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"


def _print(value: Any, as_json: bool, lines: Callable[[Any], list[str]]) -> None:
    if as_json:
        print(json.dumps(value))
    else:
        print("\n".join(lines(value)))


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
