"""The command line, a thin shell over grads.api."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from grads import api
from grads.api import (
    FORMATS,
    SCHEDULERS,
    ConfigError,
    GradsError,
    ProbeConfig,
    Run,
    RunConfig,
    SelectionConfig,
    open_folder,
)
from grads.cli.agreement import draw, lines_of
from grads.cli.evaluation import evaluate, tune
from grads.cli.options import Json, Root, RunDir, with_settings
from grads.cli.review import correct, decide, decisions, packet, say_what_is_lost, tag, tags
from grads.cli.terminal import (
    about_lines,
    agreement_lines,
    bench_lines,
    follow,
    run_table,
    say,
    selection_lines,
    show,
    state_lines,
    status_lines,
    work,
)

app = typer.Typer(
    help="Choose the samples worth fine-tuning on, by their gradients.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would take "[default: 16]" for a style and swallow it
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.command()
@with_settings(RunConfig)
def run(
    given: dict[str, Any],
    run_dir: Annotated[
        str | None, typer.Option(help="Directory of the run [default: a new one].")
    ] = None,
    runs_dir: Root = None,
    as_json: Json = False,
) -> None:
    """Warm up a model on a data set and score every sample's gradients."""
    work(api.create_run(RunConfig.parse(given), run_dir, runs_dir), as_json)


@app.command()
@with_settings(ProbeConfig)
def probe(run_dir: RunDir, given: dict[str, Any], as_json: Json = False) -> None:
    """Hold every sample of a scored run against examples of what you want, or must not lose.

    Options that take several values are given several times.
    """
    work(api.create_probe(Run.open(run_dir), ProbeConfig.parse(given)), as_json)


@app.command()
@with_settings(SelectionConfig)
def select(
    run_dir: RunDir,
    name: Annotated[str, typer.Option(help="Name to save the selection under.")],
    given: dict[str, Any],
    as_json: Json = False,
) -> None:
    """Choose a subset of a finished run's samples and save it under a name."""
    opened = Run.open(run_dir)
    record = api.select_samples(opened, name, SelectionConfig.parse(given))
    say_what_is_lost(opened)
    show(record.as_json(), as_json, lambda _: selection_lines(record))


@app.command()
def export(
    run_dir: RunDir,
    selection: Annotated[str, typer.Option(help="Name of a saved selection.")],
    kind: Annotated[
        str,
        typer.Option("--format", help=f"One of {', '.join(FORMATS)}."),
    ] = "jsonl",
    out: Annotated[
        Path | None,
        typer.Option(
            help="File or folder to write; it must not exist yet"
            " [default: exports/SELECTION/FORMAT in the run, replaced]."
        ),
    ] = None,
    with_scores: Annotated[bool, typer.Option(help="Add the scores as grads_ columns.")] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Write every usable row by its weight, not the subset: repeat (rows stand there as"
            " often as their weight asks for) or sample (the column grads_weight; for jsonl, csv,"
            " parquet and hf)."
        ),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(help="Rows in all, with --weights repeat [default: as many as are usable]."),
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option(help="File of general rows to mix in, drawn by the selection's seed."),
    ] = None,
    replay_share: Annotated[
        float | None,
        typer.Option(help="Share of those rows among all that are written, such as 0.05."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a selection as files a trainer reads, loaded back and counted."""
    opened = Run.open(run_dir)
    manifest = api.export_selection(
        opened,
        selection,
        kind,
        out,
        with_scores=with_scores,
        weights=weights,
        rows=rows,
        replay=replay,
        replay_share=replay_share,
    )
    say_what_is_lost(opened)
    line = f"wrote {manifest['rows']:,} rows as {kind} to {manifest['path']}, loaded back"
    show(manifest, as_json, lambda _: [line, *api.changed_lines(manifest)])


app.command()(decide)
app.command()(decisions)
app.command()(tag)
app.command()(tags)
app.command()(packet)
app.command()(correct)
app.command()(evaluate)
app.command()(tune)


@app.command()
def report(
    run_dir: RunDir,
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    selection: Annotated[str | None, typer.Option(help="Name of a saved selection.")] = None,
    evaluation: Annotated[str | None, typer.Option(help="Name of an evaluation.")] = None,
    as_json: Json = False,
) -> None:
    """Write a run as one HTML file to send on: data, settings, pictures, examples, what helped.

    The file needs no other and no connection. It holds texts of examples.
    """
    api.write_report(Run.open(run_dir), out, selection, evaluation)
    show({"out": str(out)}, as_json, lambda _: [f"wrote {out}"])


@app.command()
def rename(
    run_dir: Annotated[str, typer.Argument(help="The run's directory, which keeps its name.")],
    title: Annotated[str, typer.Argument(help="What people call it; empty takes that away.")],
    topic: Annotated[
        int | None, typer.Option(help="Call this topic so instead, by its number.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Give a run a title, or one of its topics a name; links and commands stay good."""
    opened = Run.open(run_dir)
    if topic is None:
        api.describe(opened, title=title)
    else:
        api.name_topic(opened, topic, title)
    _show_about(opened, as_json)


@app.command()
def note(
    run_dir: Annotated[str, typer.Argument(help="The run's directory.")],
    text: Annotated[str, typer.Argument(help="In the place of what is noted; empty for nothing.")],
    as_json: Json = False,
) -> None:
    """Note something about a run, as lists and reports show it."""
    opened = Run.open(run_dir)
    api.describe(opened, notes=text)
    _show_about(opened, as_json)


def _show_about(opened: Run, as_json: bool) -> None:
    values = {**opened.read_about().as_json(), "topics": opened.topic_names()}
    show(values, as_json, about_lines)


@app.command("list")
def list_command(runs_dir: Root = None, as_json: Json = False) -> None:
    """List the runs with their states, newest first."""
    rows, unreadable = api.listed(runs_dir)
    for name, problem in unreadable.items():
        say(f"{name} is left out: {problem}")
    if as_json:
        print(json.dumps([row.as_dict() for row in rows]))
        return
    if not rows:
        print("no runs yet: start one with `python -m grads run`")
        return
    Console().print(run_table(rows))


@app.command()
def status(run_dir: RunDir, as_json: Json = False) -> None:
    """Show what the job of a run or of an evaluation's folder is doing."""
    folder = open_folder(run_dir)
    if isinstance(folder, Run):
        summary = api.summary(folder)
        show(summary.as_dict(), as_json, lambda _: status_lines(summary))
    else:
        now = api.observe(folder)
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
    if api.observe(opened).state == "finished" and not api.is_launched():
        api.resume_run(opened)
    work(opened, as_json)


@app.command()
def reproduce(
    manifest: Annotated[
        Path,
        typer.Argument(
            help="A run's manifest.json or folder, or a selection's record, selections/NAME.json."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Repeat a run or a selection from what it recorded of itself, and compare.

    A run is repeated beside the first, as NAME-again. Exit code 0 where they agree: the same
    samples, and scores within a percent.
    """
    again = api.repetition(manifest)
    if again is not None:
        follow(again)
    found = api.compared(manifest)
    show(found.as_dict(), as_json, lambda _: agreement_lines(found))
    if not found.agrees:
        raise typer.Exit(1)


@app.command()
def agree(
    run_a: Annotated[str, typer.Argument(help="Directory of a run.")],
    run_b: Annotated[str, typer.Argument(help="Directory of another on the same data.")],
    again: Annotated[
        str | None,
        typer.Option(help="Directory of a run that differs from RUN_A by its --seed alone."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="HTML file to write: each sample's place in both, by learning signal."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare how two runs rank the samples that both have.

    Of every column: Spearman's rank correlation, and how much of the highest 5, 10 and 50% of
    RUN_A is also in that of RUN_B. With --again the same of a second seed stands beside it.
    """
    found = api.agree(Run.open(run_a), Run.open(run_b), Run.open(again) if again else None)
    if picture is not None:
        draw(found, picture)
    drawn = [f"picture in {picture}"] if picture else []
    show(found.as_dict(), as_json, lambda _: [*lines_of(found), *drawn])


@app.command("launch-script")
def launch_script(
    config: Annotated[Path, typer.Option(help="YAML file with the settings of the run.")],
    run_dir: Annotated[
        str, typer.Option(help="Directory of the run, on storage that every node sees.")
    ],
    scheduler: Annotated[str, typer.Option(help=f"One of {', '.join(SCHEDULERS)}.")],
    nodes: Annotated[int, typer.Option(help="Machines.")] = 1,
    gpus: Annotated[int, typer.Option(help="GPUs of each; a process for each.")] = 1,
    cpus: Annotated[int, typer.Option(help="CPU cores for each GPU.")] = 8,
    gpu: Annotated[
        str | None, typer.Option(help="Kind of GPU, as the scheduler calls it: H100, A100-80GB.")
    ] = None,
    volume: Annotated[
        str | None,
        typer.Option(help="SkyPilot volume, mounted where the run's directory lies."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write [default: the standard output].")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the script that starts a run on a cluster; it starts nothing itself."""
    text = api.launch_script(
        config,
        run_dir,
        scheduler,
        nodes=nodes,
        gpus=gpus,
        cpus=cpus,
        gpu=gpu,
        volume=volume,
    )
    if out is not None:
        api.write_out(out, text)
    where = {"script": text, "out": str(out) if out else None}
    show(where, as_json, lambda _: [f"wrote {out}"] if out else text.splitlines())


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
        str | None,
        typer.Option(help="Data file; its first 24 rows are measured on [default: the demo's]."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure speed and memory of scoring, as ratios in one process."""

    show(api.bench(out, dataset), as_json, bench_lines)


def main() -> None:
    """Run the command line: exit code 0 on success, 1 on failure, 2 on bad usage."""
    try:
        app()
    except ConfigError as error:
        _fail(error, 2)
    except GradsError as error:
        _fail(error, 1)
    except Exception as error:
        refused = api.of_the_machine(error)
        if refused is None:
            raise
        _fail(refused, 1)


def _fail(error: GradsError | str, code: int) -> None:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(code)
