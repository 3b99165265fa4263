"""The stages of a run: what each is called, makes, and is made from; and whether that still holds.

A stage's files count only while they are the ones it wrote and what it was made from is what is
there now: both are digests in the manifest. That a file exists says nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from grads.errors import RunError
from grads.store.files import digest, digest_of
from grads.store.manifest import Manifest, ProbeSet
from grads.store.runs import Run

MODEL = "model"  # among what a stage needs: the digest of the model's and tokenizer's files
OF_SETS = ("probe_sets", "probes")  # folders with a file of each probe set, signed one by one


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
    files = manifest.files | _there_now(run, _files(stage.makes, manifest.probes))
    sources = _sources(stage, manifest.model_copy(update={"files": files}))
    made = manifest.made | {stage.name: sources}
    order = list(STAGES.values())
    for later in order[order.index(stage) + 1 :]:
        if set(later.makes) & set(stage.makes):
            made.pop(later.name, None)
    run.update_manifest(files=files, made=made)


def holds(run: Run, stage: Stage) -> bool:
    """Whether the stage's files are those that it made from what is there now."""
    manifest = run.read_manifest()
    made = manifest.made.get(stage.name)
    if made is None or _there(made) != _there(_sources(stage, manifest)):
        return False
    return _as_noted(run, manifest, stage.makes)


def set_holds(run: Run, name: str) -> bool:
    """Whether a probe set was read and the samples held against it, and both files are as noted."""
    manifest = run.read_manifest()
    files = _of_sets([name])
    known = set(files) <= set(manifest.files)
    return name in manifest.probes and known and _as_noted(run, manifest, files)


def grown(run: Run, files: tuple[str, ...] = (), probes: dict[str, ProbeSet] | None = None) -> None:
    """Note in one step what a job has added after the stages had ended: files, probe sets.

    Nothing else is noted anew: what was damaged before is so still.
    """
    manifest, sets = run.read_manifest(), probes or {}
    new = manifest.model_copy(
        update={
            "files": manifest.files | _there_now(run, (*files, *_of_sets(sets))),
            "probes": manifest.probes | sets,
        }
    )
    made = {}
    for name, sources in manifest.made.items():
        before, now = (_sources(STAGES[name], one) for one in (manifest, new))
        made[name] = {n: now[n] if old == before.get(n) else old for n, old in sources.items()}
    run.update_manifest(files=new.files, probes=new.probes, made=made)


def refuse_changed(run: Run, *names: str) -> None:
    """Raise RunError where one of these files or folders is not what its stage has made."""
    manifest = run.read_manifest()
    for name in names:
        if name in manifest.files and not _as_noted(run, manifest, [name]):
            raise RunError(f"{run.path / name} is damaged or gone: {run.remedy(run.path / name)}")


def damaged(run: Run) -> list[str]:
    """Names of stages whose files a resume would make anew; none can be told before 0.5."""
    made = run.read_manifest().made
    return [name for name, stage in STAGES.items() if name in made and not holds(run, stage)]


def _there(digests: dict[str, str | None]) -> dict[str, str]:
    """Without what was not there: a version before may not have known its name."""
    return {name: digest for name, digest in digests.items() if digest is not None}


def _of_sets(sets: Iterable[str]) -> tuple[str, ...]:
    """The files of these probe sets."""
    return tuple(f"{folder}/{name}.parquet" for folder in OF_SETS for name in sorted(sets))


def _files(names: Iterable[str], sets: Iterable[str]) -> list[str]:
    """What is signed of what a stage makes: each file of the sets, all others as a whole."""
    of_sets = [file for file in _of_sets(sets) if file.split("/")[0] in names]
    return [name for name in names if name not in OF_SETS] + of_sets


def _there_now(run: Run, files: Iterable[str]) -> dict[str, str | None]:
    """Digests of the files or folders of these names; None for those that are not there."""
    paths = {name: run.path / name for name in files}
    return {name: digest(path) if path.exists() else None for name, path in paths.items()}


def _as_noted(run: Run, manifest: Manifest, names: Iterable[str]) -> bool:
    files = _files(names, manifest.probes)
    return {name: manifest.files.get(name) for name in files} == _there_now(run, files)


def _sources(stage: Stage, manifest: Manifest) -> dict[str, str | None]:
    known = manifest.files | {MODEL: manifest.model_digest}
    for folder in OF_SETS:
        files = _files([folder], manifest.probes)
        known[folder] = digest_of([(file, known.get(file)) for file in files]) if files else None
    return {name: known.get(name) for name in stage.needs}
