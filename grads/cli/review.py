"""The commands for what people say of samples: decide, decisions, tag, tags, packet and correct."""

from pathlib import Path
from typing import Annotated, Any

import typer

from grads import api
from grads.api import ConfigError, QueueConfig, Run
from grads.cli.options import Json, RunDir, with_settings
from grads.cli.terminal import decision_lines, refused_lines, say, show, tag_lines

Reason = Annotated[str, typer.Option(help="Why.")]
Reviewer = Annotated[str, typer.Option(help="Who decides.")]


def decide(
    *,
    run_dir: RunDir,
    exclude: Annotated[list[int] | None, typer.Option(help="Never keep this sample.")] = None,
    pin: Annotated[list[int] | None, typer.Option(help="Always keep this sample.")] = None,
    clear: Annotated[
        list[int] | None,
        typer.Option(
            help="Leave this sample to the numbers again: with --reviewer, that one's word is taken"
            " back, without, everyone's."
        ),
    ] = None,
    reason: Reason = "",
    reviewer: Reviewer = "",
    settle: Annotated[
        bool,
        typer.Option("--settle", help="Stand in the place of all that reviewers said before."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Decide about single samples, by id; later selections and exports follow.

    Options that take several values are given several times. The last word of each reviewer
    counts; where they disagree, the sample is left out until someone settles it.
    """
    opened = Run.open(run_dir)
    wanted = {"exclude": exclude, "pin": pin, "clear": clear}
    named = [(kind, sample) for kind, samples in wanted.items() for sample in samples or ()]
    if not named:
        raise ConfigError("nothing is decided: give --exclude, --pin or --clear with a sample id")
    api.decide_all(opened, named, reason, reviewer=reviewer, settles=settle)
    say_what_is_lost(opened)
    show(_decided(opened), as_json, decision_lines)


def decisions(
    *,
    run_dir: RunDir,
    to_file: Annotated[
        Path | None,
        typer.Option("--export", help="File to write them to, .csv or .jsonl: a row a reviewer."),
    ] = None,
    from_file: Annotated[
        Path | None,
        typer.Option(
            "--import",
            help="File to take decisions from, .csv or .jsonl, of --export or of a packet; taken in"
            " again, it changes nothing.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List what people have decided, and the saved selections that do not follow it yet.

    Rows of --import that cannot be taken are told by line and reason; the exit code is then 1.
    """
    opened = Run.open(run_dir)
    taken = None if from_file is None else api.take_in(opened, _content(from_file), from_file.name)
    say_what_is_lost(opened)
    values, lines = _decided(opened), []
    if taken is not None:
        values["imported"] = vars(taken)
        lines.append(f"took in {taken.taken:,} decisions; {taken.known:,} were known already")
        lines += refused_lines(taken.refused)
    if to_file is not None:
        values["exported"] = api.write_decisions(opened, to_file)
        lines.append(f"wrote {values['exported']:,} decisions to {to_file}")
    show(values, as_json, lambda found: lines or decision_lines(found))
    if taken is not None and taken.refused:
        raise typer.Exit(1)


def tag(
    name: Annotated[str, typer.Argument(help="The tag, up to 60 characters.")],
    *,
    run_dir: RunDir,
    sample: Annotated[list[int], typer.Option(help="Id of a sample that gets it.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take it off them.")] = False,
    reviewer: Annotated[str, typer.Option(help="Who tags.")] = "",
    as_json: Json = False,
) -> None:
    """Put a tag on samples, by which they are found again on the pages and in queues.

    --sample is given several times. A tag keeps or excludes nothing: that is what `decide` is for.
    """
    opened = Run.open(run_dir)
    changed = api.tag(opened, name, sample, off=remove, reviewer=reviewer)
    say_what_is_lost(opened)
    values = {"changed": changed} | _tagged(opened)
    show(values, as_json, tag_lines)


def tags(*, run_dir: RunDir, as_json: Json = False) -> None:
    """List the tags of a run, with the samples that have them."""
    opened = Run.open(run_dir)
    say_what_is_lost(opened)
    show(_tagged(opened), as_json, tag_lines)


@with_settings(QueueConfig)
def packet(
    run_dir: RunDir,
    given: dict[str, Any],
    out: Annotated[Path, typer.Option(help="HTML file to write.")],
    as_json: Json = False,
) -> None:
    """Write a page on which someone without this tool decides about samples.

    It works from a file, in any browser and without a network, and gives a CSV file back that
    `decisions --import` takes.
    """
    count = api.write_packet(Run.open(run_dir), QueueConfig.parse(given), out)
    values = {"entries": count, "path": str(out)}
    show(values, as_json, lambda _: [f"wrote a packet of {count:,} to {out}"])


def correct(
    *,
    run_dir: RunDir,
    sample: Annotated[int, typer.Option(help="Id of the sample.")],
    field: Annotated[
        str | None, typer.Option(help="Name of the text, such as answer or messages.1.content.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="What stands in its place; the original takes it back.")
    ] = None,
    reason: Reason = "",
    reviewer: Annotated[str, typer.Option(help="Who corrects.")] = "",
    as_json: Json = False,
) -> None:
    """Correct a text of a sample; exports hold the corrected one, and tell the original.

    Without --field and --text it shows the texts that the sample has.
    """
    opened = Run.open(run_dir)
    names = {api.name_of(path): path for path in api.texts_of(opened, sample)}
    if (field is None) != (text is None):
        raise ConfigError("give --field and --text together, or none of them")
    if field is not None and text is not None:
        path = names.get(field, (field,))
        api.correct(opened, sample, path, text, reason=reason, reviewer=reviewer)
    say_what_is_lost(opened)
    now = {api.name_of(path): one for path, one in api.texts_of(opened, sample).items()}
    made = [one.as_json() for one in api.corrections(opened).get(sample, ())]
    values = {"sample_id": sample, "texts": now, "corrections": made}
    show(values, as_json, lambda _: [f"{name}: {one}" for name, one in now.items()])


def say_what_is_lost(opened: Run) -> None:
    """Tell of decisions, corrections and tags that a broken-off write has left."""
    for line in api.broken_lines(opened.unreadable_decisions()):
        say(line)
    for line in api.broken_lines(opened.unreadable_corrections(), opened.corrections_file.name):
        say(line)
    for line in api.broken_lines(opened.unreadable_tags(), opened.tags_file.name):
        say(line)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from None


def _tagged(opened: Run) -> dict[str, Any]:
    return {"tags": {name: ids.tolist() for name, ids in api.tags(opened).items()}}


def _decided(opened: Run) -> dict[str, Any]:
    made = [one.as_json() for one in api.decisions(opened).values()]
    stale = {
        name: [d.sample_id for d in api.stale(opened, name)] for name in opened.selection_names()
    }
    return {
        "decisions": made,
        "disagreements": {
            sample: [one.as_json() for one in said]
            for sample, said in api.disagreements(opened).items()
        },
        "stale": {name: ids for name, ids in stale.items() if ids},
    }
