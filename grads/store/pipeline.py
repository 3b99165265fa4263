"""The stages of a run: what each is called, makes, and is made from; and whether that still holds.

A stage's files count only while they are the ones it wrote and what it was made from is what is
there now: both are digests in the manifest. That a file exists says nothing.
"""

from dataclasses import dataclass

from grads.store.files import digest
from grads.store.manifest import Manifest
from grads.store.runs import Run

MODEL = "model"  # among what a stage needs: the digest of the model's and tokenizer's files


@dataclass(frozen=True)
class Stage:
    """One step of a run. Files and folders are named as in the run directory."""

    name: str
    label: str  # for people
    help: str
    """A sentence for people: what happens in it."""
    unit: str = ""  # of its progress
    makes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    chooses: bool = False  # whether its time is a price of choosing samples
    asked: bool = False  # whether it is a stage only of runs that ask for it


_IN_ORDER = (
    Stage(
        "prepare",
        "Read the data",
        "Finds the rows' layout, writes them by the model's template, marks what is trained.",
        "rows",
        makes=(
            "samples.parquet",
            "source.parquet",
            "rejects.jsonl",
            "tokens.parquet",
            "chat_template.jinja",
        ),
        needs=(MODEL,),
    ),
    Stage(
        "probe sets",
        "Read the probe sets",
        "Reads the examples that every sample's gradient will be held against.",
        makes=("probe_sets",),
        needs=(MODEL,),
        asked=True,
    ),
    Stage(
        "warm-up",
        "Warm up the model",
        "Trains on a random part of the data, so that the gradients speak of this task.",
        "steps",
        makes=("adapter", "weights", "during.parquet"),
        needs=(MODEL, "tokens.parquet"),
        chooses=True,
    ),
    Stage(
        "self-check",
        "Check the gradients",
        "Holds a few batched gradients against plain autograd on this very model.",
        chooses=True,
    ),
    Stage(
        "score",
        "Score every sample",
        "Takes every sample's gradient at the embedding layer and at the LM head.",
        "samples",
        makes=("scores.parquet", "features.parquet", "token_signal/signals.parquet", "probes"),
        needs=(
            *(MODEL, "samples.parquet", "tokens.parquet", "adapter", "weights", "during.parquet"),
            "probe_sets",
        ),
        chooses=True,
    ),
    Stage(
        "extras",
        "Read the answers alone",
        "Takes the loss of every answer without its question: what the question saves.",
        "samples",
        makes=("extras.parquet",),
        needs=(MODEL, "tokens.parquet", "scores.parquet", "adapter", "weights"),
        chooses=True,
        asked=True,
    ),
    Stage(
        "cluster",
        "Find the topics",
        "Groups samples whose texts the model reads alike.",
        makes=("features.parquet", "clusters.json"),  # it adds columns to the features
        needs=("samples.parquet", "scores.parquet"),
    ),
)
STAGES = {stage.name: stage for stage in _IN_ORDER}


def wanted(run: Run) -> list[str]:
    """Names of the stages of this run: all but those that its settings leave out.

    What was asked for later counts as asked for.
    """
    config, manifest = run.config(), run.read_manifest()
    left_out = {
        "warm-up": config.warmup == "none",
        "probe sets": not config.sets and not manifest.probes,
        "extras": not config.extras and "extras" not in manifest.made,
    }
    return [name for name in STAGES if not left_out.get(name)]


def record(run: Run, stage: Stage) -> None:
    """Note what the stage has made and from what; its files are in place.

    A later stage that had added to one of these files has to do so again.
    """
    manifest = run.read_manifest()
    files = manifest.files | sign(run, stage.makes)
    sources = _sources(stage, manifest.model_copy(update={"files": files}))
    made = manifest.made | {stage.name: sources}
    order = list(STAGES.values())
    for later in order[order.index(stage) + 1 :]:
        if set(later.makes) & set(stage.makes):
            made.pop(later.name, None)
    run.update_manifest(files=files, made=made)


def sign(run: Run, names: tuple[str, ...]) -> dict[str, str | None]:
    """Digests of the files or folders of these names; None for those that are not there."""
    paths = {name: run.path / name for name in names}
    return {name: digest(path) if path.exists() else None for name, path in paths.items()}


def holds(run: Run, stage: Stage) -> bool:
    """Whether the stage's files are those that it made from what is there now."""
    manifest = run.read_manifest()
    made = manifest.made.get(stage.name)
    if made is None or _there(made) != _there(_sources(stage, manifest)):
        return False
    return {name: manifest.files.get(name) for name in stage.makes} == sign(run, stage.makes)


def grown(run: Run, names: tuple[str, ...]) -> None:
    """Note that a job has added to files or folders of these names after their stages had ended."""
    manifest = run.read_manifest()
    new = sign(run, names)
    made = {
        stage: sources | {n: new[n] for n in names if n in STAGES[stage].needs}
        for stage, sources in manifest.made.items()
    }
    run.update_manifest(files=manifest.files | new, made=made)


def damaged(run: Run) -> list[str]:
    """Names of stages whose files a resume would make anew; none can be told before 0.5."""
    made = run.read_manifest().made
    return [name for name, stage in STAGES.items() if name in made and not holds(run, stage)]


def _there(digests: dict[str, str | None]) -> dict[str, str]:
    """Without what was not there: a version before may not have known its name."""
    return {name: digest for name, digest in digests.items() if digest is not None}


def _sources(stage: Stage, manifest: Manifest) -> dict[str, str | None]:
    known = manifest.files | {MODEL: manifest.model_digest}
    return {name: known.get(name) for name in stage.needs}
