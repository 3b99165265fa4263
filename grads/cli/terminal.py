"""What the command line shows of a job and its results: progress, durations, lines, tables."""

import json
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from grads import api
from grads.api import (
    ACTIVE,
    Agreement,
    BudgetPoint,
    ConfigError,
    Evaluation,
    EvaluationCost,
    EvaluationResult,
    FoundEvaluation,
    GradsError,
    JobFolder,
    Means,
    ProbeRequest,
    Run,
    SelectionRecord,
    Status,
    TuneResult,
    visible,
)

FIRST_ROWS = 20  # of the samples of a tag that are named

# What stands in brackets or between colons is text: names and paths of others.
console = Console(stderr=True, markup=False, emoji=False)


def work(folder: JobFolder, as_json: bool) -> None:
    """Work in a folder in the background, follow it, and show what came of it."""
    follow(folder)
    if isinstance(folder, Run):
        run, summary = folder, api.summary(folder)
        show(summary.as_dict(), as_json, lambda _: run_lines(run, summary))
    elif isinstance(folder, Evaluation):
        found = api.read_evaluation(folder.run, folder.id)
        show(found.as_dict(), as_json, lambda _: evaluation_lines(found))
    elif isinstance(folder, ProbeRequest):
        manifest = folder.run.read_manifest().as_json()
        show(manifest.get("probes", {}), as_json, lambda _: probe_lines(folder.run))


def follow(folder: JobFolder) -> None:
    """Start the folder's job unless it is finished, and show its progress until it ends.

    Ctrl-C stops the job. Raises GradsError if the job failed, and exits if it was stopped.
    """
    if api.is_launched():
        if not isinstance(folder, Run):
            raise ConfigError("several processes work at runs alone: call this without a launcher")
        api.take_part(folder)
    if api.observe(folder).state != "finished":
        api.start_run(folder)
    again = f"go on with: python -m grads resume --run-dir {folder.path}"
    try:
        watch(folder)
    except KeyboardInterrupt:
        say("stopping ...")
        api.stop_run(folder)
        say(f"stopped; {again}")
        raise typer.Exit(130) from None
    now = api.observe(folder)
    if now.state == "stopped":
        say(f"stopped; {again}")
        raise typer.Exit(1)
    if now.state != "finished":
        raise GradsError(f"{now.error} (in {folder.path})")


def watch(folder: JobFolder) -> None:
    """Show progress until the job has ended: a bar on a terminal, else a line a stage."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=None, note="")
        shown = ""
        while True:
            now = api.observe(folder)
            stage = now.stage or now.message or now.state
            if stage != shown and not console.is_terminal:
                say(stage)
            shown = stage
            bar.update(
                task,
                description=visible(stage),
                completed=now.done,
                total=now.total or None,
                note=visible(_note(now)),
            )
            if now.state not in ACTIVE:
                return
            time.sleep(0.3)


def _note(now: Status) -> str:
    rate = f"{now.rate:.1f} {now.unit}/s" if now.rate and not now.eta_s else ""
    left = f"about {duration(now.eta_s)} left" if now.eta_s is not None else rate
    place = now.message if now.stage else ""
    return ", ".join(text for text in (place, left) if text)


def duration(seconds: float | None) -> str:
    """Seconds as a person says them."""
    whole = round(seconds or 0)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"


def show(value: Any, as_json: bool, lines: Callable[[Any], list[str]]) -> None:
    """Print a value as JSON, or as the lines made of it."""
    if as_json:
        print(json.dumps(value))
    else:
        for line in lines(value):
            print(visible(line))


def say(text: str) -> None:
    """A line beside the results: on the error output."""
    console.print(visible(text), soft_wrap=True)


def run_table(rows: list[api.RunSummary]) -> Table:
    """What `list` shows of runs."""
    heads = ["run", "made", "state", "stage", "samples", "data set", "model", "selections"]
    titled = any(row.title for row in rows)
    table = Table(*heads, *(["title"] if titled else []))
    for row in rows:
        usable = str(row.counts.get("usable", ""))
        count = str(len(row.selections) or "")
        count += f" ({len(row.stale)} stale)" if row.stale else ""
        stage = "" if row.status.state == "finished" else row.status.stage
        data = Path(row.dataset).name
        made = f"{datetime.fromisoformat(row.made).astimezone():%Y-%m-%d %H:%M}"
        cells = [row.id, made, row.status.state, stage, usable, data, row.model, count]
        cells += [row.title] if titled else []
        table.add_row(*(Text(visible(cell)) for cell in cells))
    return table


def about_lines(values: dict[str, Any]) -> list[str]:
    """What people call a run and its topics, and what they noted."""
    lines = [f"title: {values.get('title') or 'none'}"]
    lines += [f"topic {number}: {name}" for number, name in values["topics"].items()]
    return lines + [f"note: {one}" for one in values.get("notes", "").splitlines()]


def selection_lines(record: SelectionRecord) -> list[str]:
    """What `select` says of a subset."""
    samples, tokens = record.samples, record.response_tokens
    lines = [
        f"selection {record.name}: keeps {samples.kept:,} of {samples.pool:,} samples"
        f" ({samples.kept / samples.pool:.1%})",
        f"response tokens: {tokens.kept:,} of {tokens.pool:,}"
        f" ({tokens.kept / tokens.pool:.1%}); a random subset of its size keeps"
        f" {tokens.random:,}",
    ]
    lines += [f"note: {note}" for note in record.notes]
    return lines + [f"warning: {warning}" for warning in record.warnings]


def run_lines(run: Run, summary: api.RunSummary) -> list[str]:
    """What `run` says at its end."""
    manifest = run.read_manifest()
    counts, check = manifest.counts, manifest.self_check
    seconds = sum(manifest.seconds.values())
    lines = [
        f"run {run.path}",
        f"{counts.usable:,} of {counts.rows:,} rows usable, {counts.refused:,} refused,"
        f" {counts.heldout:,} held out, {counts.truncated:,} cut to {manifest.max_length} tokens",
        f"layout {manifest.source.layout}; model {summary.model} on {manifest.device},"
        f" {manifest.dtype}; {duration(seconds)} in all",
    ]
    if check:
        worst = check.largest_relative_difference
        lines.append(f"self-check against plain autograd: largest relative difference {worst:.1e}")
    lines += probe_lines(run)
    if counts.refused:
        first = run.read_rejects()[0]
        lines.append(
            f"first refused: {api.row_place(first)}, {first['reason']}; {first['advice']}"
            f" (all in {run.rejects_file.name})"
        )
    if manifest.unused_columns:
        lines.append(f"columns that nothing uses: {', '.join(manifest.unused_columns)}")
    if manifest.without_end_of_turn:
        lines.append(
            f"{manifest.without_end_of_turn:,} samples train no end-of-turn token: the model's"
            " chat template shows none"
        )
    if manifest.spelled_out:
        lines.append(
            f"{manifest.spelled_out:,} samples spell out control tokens of the model, which are"
            " read as plain text"
        )
    return [*lines, f"next: python -m grads select --run-dir {run.path} --name mine --ratio 0.1"]


def agreement_lines(found: Agreement) -> list[str]:
    """What `reproduce` says at its end."""
    told = "identical" if found.identical else "alike" if found.agrees else "not the same"
    lines = [f"{found.of} {found.first}, repeated: {told}; {found.samples:,} samples in both"]
    for which, ids in (("the first", found.only_first), ("the second", found.only_second)):
        if ids:
            shown = ", ".join(map(str, ids[:10])) + (", ..." if len(ids) > 10 else "")
            lines.append(f"only in {which}: {shown}")
    if any(found.differences.values()):
        told = ", ".join(f"{name} {value:.1e}" for name, value in found.differences.items())
        lines.append(f"largest relative differences: {told}")
    return lines + [f"note: {note}" for note in found.notes]


def decision_lines(values: dict[str, Any]) -> list[str]:
    """What people have decided, where they disagree, and the selections that do not follow."""
    lines = []
    for made in values["decisions"]:
        what = "always kept" if made["decision"] == "pin" else "never kept"
        by = f" by {made['reviewer']}" if made.get("reviewer") else ""
        why = f": {made['reason']}" if made.get("reason") else ""
        lines.append(f"sample {made['sample_id']} is {what}{by}{why}")
    for sample, said in values["disagreements"].items():
        words = "; ".join(api.in_words(api.Decision(**one)) for one in said)
        lines.append(
            f"reviewers disagree about sample {sample}: {words}; it is left out until someone"
            " settles it (decide --settle)"
        )
    for name, ids in values["stale"].items():
        rows = ", ".join(map(str, ids))
        lines.append(
            f"selection {name} is stale, decided since it was saved: {rows}; exports follow the"
            " decisions, select again to fill its budget"
        )
    return lines or ["nobody has decided anything"]


def tag_lines(values: dict[str, Any]) -> list[str]:
    """The tags of a run, and the first samples that have them."""
    lines = []
    for name, ids in values["tags"].items():
        rows = ", ".join(map(str, ids[:FIRST_ROWS])) + (", ..." if len(ids) > FIRST_ROWS else "")
        lines.append(f"{name} ({len(ids):,}): {rows}")
    return lines or ["nobody has tagged anything"]


def probe_lines(run: Run) -> list[str]:
    """What is said of a run's probe sets, and of the columns beside the scores."""
    lines = []
    for name, one in run.read_manifest().probes.items():
        role = "target" if one.role == "target" else "to protect"
        told = [f"{one.samples:,} samples with {one.response_tokens:,} response tokens"]
        told += [f"{one.refused:,} rows refused"] if one.refused else []
        told += [f"{one.in_pool:,} of them also in the pool"] if one.in_pool else []
        lines.append(f"set {name}, {role}: {', '.join(told)}")
    if run.extras_file.exists():
        lines.append("question_gain measured: the loss that each question saves its answer")
    return lines


def status_lines(summary: api.RunSummary) -> list[str]:
    """What `status` says of a run."""
    lines = state_lines(summary.id, summary.status)
    if summary.counts:
        counts = ", ".join(f"{value:,} {name}" for name, value in summary.counts.items())
        lines.insert(1, counts)
    return lines + api.broken_lines(summary.unreadable_decisions)


def refused_lines(refused: list[dict[str, Any]]) -> list[str]:
    """What is said of a file's rows that are no decisions to take."""
    return [f"line {row['line'] or 'unknown'} is refused: {row['reason']}" for row in refused]


def state_lines(name: str, now: Status) -> list[str]:
    """What `status` says of any job."""
    place = f", {now.stage} {now.done:,} of {now.total:,} {now.unit}" if now.total else ""
    left = f", about {duration(now.eta_s)} left" if now.eta_s is not None else ""
    return [f"{name}: {now.state}{place}{left}", *(t for t in (now.error, now.message) if t)]


def estimate_line(cost: EvaluationCost) -> str:
    """What an evaluation will take, before it starts."""
    work = f"{cost.arms} trainings and measurements, {cost.tokens:,} tokens"
    if cost.answers:
        work += f", up to {cost.answers:,} written answers"
    if cost.requests:
        work += f", {cost.requests:,} requests of tasks"
    if cost.seconds is None:
        return f"{work}; the run has no measured speed to tell the time from"
    low, high = duration(cost.low), duration(cost.high)
    return f"{work}; about {duration(cost.seconds)} ({low} to {high})"


def bench_lines(result: dict[str, Any]) -> list[str]:
    """What `bench` says: the machine, then a line for each arm."""
    lines = [f"{result['model']}, {result['rows']}; {result['machine']}"]
    for name, arm in result["arms"].items():
        low, *_, high = arm["time_over_scoring"]
        lines.append(
            f"{name}: {arm['tokens_per_s']:,} tokens/s, {low} to {high} times the time of scoring,"
            f" peak memory {arm['peak_memory_mb']:,} MB"
        )
    for name, what in (
        ("scoring_over_training", "scoring takes {} times a training step"),
        ("scoring_over_bound", "and {} times the body's forward and backward alone"),
        ("during_over_lora_step", "a LoRA step that is read takes {} times one that is not"),
    ):
        lines.append(what.format(", ".join(f"{ratio:.2f}" for ratio in result[name])))
    for arm, found in result["long_answers_mb"].items():
        told = ", ".join(f"{mb:,} MB at batch {batch}" for batch, mb in found.items())
        lines.append(f"answers of 1,024 tokens, vocabulary 152,000: {arm}: {told}")
    return lines


def evaluation_lines(found: FoundEvaluation) -> list[str]:
    """What `evaluate` and `tune` say at their end: a table of arms, then sentences."""
    result = found.result
    if result is None:
        return [f"{found.name}: nothing is measured yet"]
    samples = ["samples", *(f"{arm.samples:,}" for arm in result.arms)]
    lines = _table(result, result.arms, samples)
    if isinstance(result, EvaluationResult) and result.curve:
        lines += ["", *columns_of(_curve(result.curve)), ""]
    if isinstance(result, TuneResult):
        lines.append(result.sentence)
    else:
        told = [one for one in result.comparisons if not one.ours.random]
        lines += [one.sentence for one in told if one.theirs.trains_on != "nothing"]
        lines += [f"{label}: {even.sentence}" for label, even in result.break_even.items()]
    for file in result.by_file:
        lines += [f"{file.probe} file {file.name}:", *_table(result, file.arms)]
        lines += [
            f"{one.arm} against {one.against}: {one.verdict}"
            for one in file.comparisons
            if one.theirs.random and not one.ours.random
        ]
    lines += [f"note: {note}" for note in result.notes]
    near = result.leaks.samples
    if near:
        lines.append(f"note: {near} held-out samples are near-duplicates of samples in the pool")
    return lines


def _table(
    result: EvaluationResult, arms: Sequence[Means], second: Sequence[str] = ()
) -> list[str]:
    """A line an arm: what it was measured by, after its name and a second column with its head."""
    measured = {
        metric: shown.label.lower()
        for metric, shown in result.shown.items()
        if any(arm.mean.get(metric) is not None for arm in arms)
    }
    columns = [["arm", *(arm.label for arm in arms)], *([second] if second else [])]
    columns += [[label, *(_cell(arm, name) for arm in arms)] for name, label in measured.items()]
    return columns_of(list(zip(*columns, strict=True)))


def columns_of(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows of a table as lines, each column as wide as its longest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _curve(points: list[BudgetPoint]) -> list[tuple[str, ...]]:
    """What each size comes to, a row each, below the names of the columns."""
    rows: list[tuple[str, ...]] = [
        ("budget", "chosen by", "samples", "held-out loss", "forgotten", "of all gain")
    ]
    for point in points:
        learned = _around(point.learning, point.learning_interval)
        forgotten = _around(point.forgetting, point.forgetting_interval, "+")
        gain = "-" if point.gain is None else f"{point.gain:.0%}"
        size = f"{point.budget:g}%"
        rows.append((size, point.criterion, f"{point.samples:,}", learned, forgotten, gain))
    return rows


def _around(mean: float, interval: tuple[float, float] | None, sign: str = "") -> str:
    """A mean with half the width of its interval, where it has one."""
    spread = f" ±{(interval[1] - interval[0]) / 2:.3f}" if interval else ""
    return f"{mean:{sign}.3f}{spread}"


def _cell(arm: Means, metric: str) -> str:
    mean = arm.mean.get(metric)
    return "-" if mean is None else _around(mean, arm.interval.get(metric))
