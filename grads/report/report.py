"""A run, a saved selection and an evaluation as one HTML page that needs nothing else."""

from grads import __version__
from grads.config.evaluation import EvaluationConfig
from grads.config.spelling import command
from grads.evaluation.result import read_result
from grads.report import choice
from grads.report import run as of_run
from grads.report.markup import line, page, telling, text
from grads.report.measured import measured
from grads.selection.pool import Pool
from grads.selection.record import SelectionRecord
from grads.store.folders import Evaluation, ProbeRequest
from grads.store.runs import Run
from grads.text import Sentence, Tell

PROMISE = Sentence(
    "What a setting picks is shown here; whether it helps, only an evaluation tells. This page"
    " holds texts of examples and paths of the machine it was made on."
)


def report(
    pool: Pool, selection: str | None = None, evaluation: str | None = None, *, tell: Tell = str
) -> str:
    """The page, as HTML, in the language that `tell` tells: no script, nothing from elsewhere.

    Without a selection it tells of the run alone. Raises RunError where there is no such selection
    or evaluation, or a file of the run is damaged, and SelectionError where the selection cannot be
    worked out any more.
    """
    with telling(tell):
        return _page(pool, selection, evaluation)


def _page(pool: Pool, selection: str | None, evaluation: str | None) -> str:
    run = pool.run
    manifest, about = run.read_manifest(), run.read_about()
    record, shown = choice.saved(pool, selection) if selection else (None, None)
    found = Evaluation.open(run, evaluation) if evaluation else None
    result = read_result(found.result_file) if found and found.result_file.exists() else None
    title = about.title or run.id
    made = f"{run.made:%Y-%m-%d %H:%M} UTC"
    kept, of = (record.samples.kept, record.samples.pool) if record else (0, len(pool))
    keeps, scored = (
        Sentence("Keeps {kept:,} of {of:,} examples"),
        Sentence("{of:,} examples are scored"),
    )
    lead = (keeps if record else scored).filled(kept=kept, of=of)
    about_run = Sentence(
        "Run {run}, {made}; {model}; GrADS Studio {version}",
        run=run.id,
        made=made,
        model=run.config().model,
        version=__version__,
    )
    parts = [
        f"<h1>{text(title)}</h1>",
        line(about_run, "soft"),
        line(lead, "lead"),
        line(about.notes, "turn") if about.notes else "",
        choice.chosen(pool, record, shown) if record and shown else "",
        measured(found, result, selection) if found else "",
        choice.drawn(pool, shown),
        choice.examples(pool, shown),
        choice.decided(run),
        of_run.data(run, manifest),
        of_run.settings(run),
        of_run.model(run, manifest),
        of_run.time_taken(manifest),
        choice.repeated(commands(run, record, found)),
        line(PROMISE, "soft"),
    ]
    return page(title, parts)


def commands(run: Run, record: SelectionRecord | None, found: Evaluation | None) -> list[str]:
    """The lines that make the run, the selection and the evaluation again."""
    made = [command("run", run.config(), run_dir=str(run.path))]
    request = ProbeRequest(run)
    if request.config_file.exists():
        made.append(command("probe", request.config(), run_dir=str(run.path)))
    if record:
        made.append(command("select", record.options, run_dir=str(run.path), name=record.name))
    if found:
        made.append(evaluation_command(found))
    return made


def evaluation_command(found: Evaluation) -> str:
    """The line that makes an evaluation, or a search for a setting."""
    settings = found.config()
    verb = "evaluate" if isinstance(settings, EvaluationConfig) else "tune"
    return command(verb, settings, run_dir=str(found.run.path), name=found.id)
