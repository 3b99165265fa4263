"""What each stage of a job does: read the run's files, call the engine, write the result."""

import platform
import shutil
import time
from collections.abc import Iterator
from importlib.metadata import version
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from grads.config.run import RunConfig
from grads.data.tokens import TokenPool
from grads.engine import team, training
from grads.engine.anatomy import refuse_unknown_tokens
from grads.engine.collecting import Collector
from grads.engine.device import dtype_name, pick_device, refuse_attention
from grads.engine.during import TrainingTap
from grads.engine.full_checkpoints import whole_weights
from grads.engine.gradients import GradientScorer
from grads.errors import GradsError, Stopped, WarmupError
from grads.jobs.job import Job
from grads.jobs.turns import turn
from grads.selection import duplicates, text_map, topics
from grads.stages import cost, loading, preparing, probes, together
from grads.stages.linear_algebra import one_thread
from grads.stages.scoring import (
    check_gradients,
    collector_of,
    losses_for_extras,
    measure,
    score_parts,
    scorer_of,
)
from grads.stages.steps import making
from grads.store import manifest
from grads.store.columns import MAP
from grads.store.files import as_lists, digest, matrix, replacing, scratch, write_table
from grads.store.folders import Draft
from grads.store.machine import processes
from grads.store.runs import Run
from grads.store.topics import Topic, Topics

LIBRARIES = ("torch", "transformers", "peft", "numpy", "scikit-learn", "pyarrow")


def run_all(job: Job[Run]) -> None:
    """Every stage in order, each skipped while what it has made holds."""
    run, config = job.folder, job.folder.config()
    device = pick_device(config.device)
    team.join(device)
    try:
        _stages(job, device)
    except (GradsError, Stopped):
        together.end()
        raise
    together.end()
    shutil.rmtree(run.parts, ignore_errors=True)
    shutil.rmtree(run.checkpoints, ignore_errors=True)


def help_with(run: Run) -> int:
    """What a process does that does not lead; its exit code."""
    helping = _Helping()
    return together.help_with(
        run,
        {
            "warm-up": helping.train,
            "model": helping.load,
            "self-check": helping.check,
            "score": helping.score,
            "extras": helping.extras,
        },
    )


class _Helping:
    """What such a process does; the model that scores, and the tokens, are kept for all calls."""

    scorer: GradientScorer
    pool: TokenPool
    device: str

    def train(self, job: together.Helper) -> None:
        loaded = _loaded(job)
        together.helped(lambda: _train(job, *loaded))

    def load(self, job: together.Helper) -> None:
        self.pool, dtype, self.device = _loaded(job)
        together.helped(lambda: self._load_model(job.folder, dtype))

    def _load_model(self, run: Run, dtype: torch.dtype) -> None:
        self.scorer = scorer_of(run, dtype, self.device)

    def check(self, job: together.Helper) -> None:
        together.helped(lambda: check_gradients(job, self.scorer, self.pool, self.device))

    def score(self, job: together.Helper) -> None:
        together.helped(lambda: score_parts(job, self.scorer, self.pool, self.device))

    def extras(self, job: together.Helper) -> None:
        run, mine = job.folder, team.current()
        folder = run.parts / "extras"
        together.helped(lambda: losses_for_extras(job, run, self.scorer, folder, mine=mine))


def _loaded(job: Job[Run]) -> tuple[TokenPool, torch.dtype, str]:
    config = job.folder.config()
    device = pick_device(config.device)
    return loading.load_pool(job.folder), loading.number_format(job.folder, device), device


def _stages(job: Job[Run], device: str) -> None:
    run, config = job.folder, job.folder.config()
    dtype = loading.number_format(run, device)
    refuse_attention(config.attention, device, dtype)
    run.update_manifest(
        run=run.id,
        versions={name: version(name) for name in LIBRARIES}
        | {"python": platform.python_version()},
        device=_device_name(device),
        dtype=dtype_name(dtype),
        model=config.model,
        model_digest=loading.refuse_other_model(run),
        seed=config.seed,
        gradients_taken=_taken(config),
    )
    with making(job, "prepare") as missing:
        if missing:
            preparing.prepare(job)
    with making(job, "probe sets") as missing:
        if missing:
            run.update_manifest(probes=probes.read_sets(job, probes.known(run)))
    pool = loading.load_pool(run)
    with making(job, "warm-up") as missing:
        if missing:
            _warm_up(job, pool, dtype, device)
    measure(job, pool, dtype, device)
    with making(job, "cluster") as missing:
        if missing:
            with one_thread():
                _cluster(job)


def _taken(config: RunConfig) -> str:
    return "before any warm-up" if config.warmup == "none" else f"{config.when} the warm-up"


def _device_name(device: str) -> str:
    if device == "cuda":
        device = f"cuda ({torch.cuda.get_device_name()})"
    if device == "cpu":
        device = f"cpu ({torch.get_num_threads()} threads)"
    return device if processes() == 1 else f"{processes()} x {device}"


def _warm_up(job: Job[Run], pool: TokenPool, dtype: torch.dtype, device: str) -> None:
    run, config = job.folder, job.folder.config()
    if config.warmup_from:
        _take_over(run, Run.open(config.warmup_from))
        return
    together.call("warm-up")
    trained, weights, collector = team.settled(lambda: _train(job, pool, dtype, device))
    if collector is not None:
        write_table(run.during_file, collector.merged())
    samples = len(training.sample_fraction(len(pool), config.warmup_fraction, config.seed))
    run.update_manifest(warmup=manifest.WarmUp(kind=config.warmup, samples=samples))
    if config.warmup == "lora":
        with replacing(run.adapter) as draft:
            trained.save_pretrained(draft, save_embedding_layers=False)
    else:
        with replacing(run.weights) as draft:
            trained.save_pretrained(draft, state_dict=weights)


def _train(
    job: Job[Run], pool: TokenPool, dtype: torch.dtype, device: str
) -> tuple[Any, dict[str, torch.Tensor] | None, Collector | None]:
    """The warmed-up model, its weights, and what its passes have shown where the run wants to know.

    The weights are given where they are spread, and all were trained.
    """
    run, config = job.folder, job.folder.config()
    chosen = training.sample_fraction(len(pool), config.warmup_fraction, config.seed)
    training_dtype = torch.float32 if config.warmup == "full" else dtype
    model = loading.load_base_model(run, training_dtype, device)
    tap = TrainingTap(model, dtype)  # what cannot be scored is not trained either
    refuse_unknown_tokens(model, pool.input_ids)
    last = time.monotonic()

    def report(step: training.Step) -> None:
        nonlocal last
        now = time.monotonic()
        rate, last = step.tokens / (now - last), now
        job.progress(step.step, step.steps)
        job.metrics(step=step.step, loss=step.loss, lr=step.lr, tokens_per_s=round(rate, 1))

    collector = collector_of(job, tap, pool) if config.when == "during" else None
    trained = training.train(
        model,
        pool if len(chosen) == len(pool) else pool.subset(chosen),
        config,
        dtype=dtype,
        device=device,
        checkpoints=run.checkpoints,
        report=report,
        should_stop=job.should_stop,
        collector=collector,
    )
    gathered = whole_weights(trained) if loading.in_step(run) and config.warmup == "full" else None
    return trained, gathered, collector


def _take_over(run: Run, other: Run) -> None:
    """Copy the finished warm-up of a run on the same data and model."""
    mine, theirs = run.read_manifest(), other.read_manifest()
    models_ = [(m.model_digest, r.config().model) for m, r in ((mine, run), (theirs, other))]
    told = 0 if all(digest for digest, _ in models_) else 1  # by name where 0.4 kept no digest
    for what, a, b in (
        ("model", models_[0][told], models_[1][told]),
        ("data", mine.source.digest, theirs.source.digest),
        ("warmup", run.config().warmup, other.config().warmup),
    ):
        if a != b:
            raise WarmupError(
                f"cannot take over the warm-up of {other.path}: its {what} is {b!r}, this run's is"
                f" {a!r}; train one, or choose a run with the same {what}"
            )
    name = "adapter" if run.config().warmup == "lora" else "weights"
    if not (other.path / name).is_dir():
        raise WarmupError(f"{other.path} has no finished warm-up to take over: wait, or resume it")
    with replacing(run.path / name) as draft:
        shutil.copytree(other.path / name, draft)
        if theirs.files.get(name) not in (None, digest(draft)):  # of before 0.5 none is known
            raise WarmupError(
                f"cannot take over the warm-up of {other.path}: its {name} is damaged; resume that"
                " run, which makes it anew, or train one"
            )
    taken = manifest.WarmUp(kind=run.config().warmup, taken_from=str(other.path))
    run.update_manifest(warmup=taken)


def check(job: Job[Draft]) -> None:
    """Prepare a draft's data and, where it wants to know, measure what the run will cost.

    One draft at a time is worked at; what is measured also waits for the jobs of the runs folder.
    """
    draft = job.folder
    drafts = draft.path.parent
    with turn(job, drafts), making(job, "prepare") as missing:
        if missing:
            preparing.prepare(job)
    if draft.wants_cost and not draft.estimate_file.exists():
        with turn(job, draft.root), turn(job, drafts):
            job.stage("measure")
            stored = sum(f.stat().st_size for f in draft.path.glob("*.parquet"))
            cost.measure(draft.config(), loading.load_pool(draft), stored).write(
                draft.estimate_file
            )


def _cluster(job: Job[Run]) -> None:
    run, config = job.folder, job.folder.config()
    ids, features = _features(run)
    table = pa.table({"sample_id": ids, "feature": as_lists(features)})
    texts = _Texts(run)
    found = topics.find_clusters(features, texts, config.seed, config.clusters)
    table = table.append_column("cluster", pa.array(found.label, pa.int32()))
    groups = duplicates.near_duplicates(
        texts, config.seed, room=lambda size: scratch(run.path, size, np.int32)
    )
    table = table.append_column("duplicate_group", pa.array(groups))
    for name, along in zip(MAP, text_map.text_map(features, config.seed).T, strict=True):
        table = table.append_column(name, pa.array(along, pa.float32()))
    write_table(run.features_file, table)
    rows = [
        Topic(cluster=number, size=size, terms=terms, broken=number == found.broken)
        for number, (size, terms) in enumerate(zip(found.sizes, found.terms, strict=True))
    ]
    Topics(clusters=rows).write(run.clusters_file)


def _features(run: Run) -> tuple[pa.ChunkedArray, np.ndarray]:
    """The samples' ids, and their features (n, <= 64), read some at a time: they are held once."""
    ids = run.read_table(run.features_file, ["sample_id"])["sample_id"]
    batches = run.read_batches(run.features_file, ["feature"])
    blocks = (matrix(pa.chunked_array([batch["feature"]])) for batch in batches)
    first = next(blocks)
    features, end = np.empty((len(ids), first.shape[1]), np.float32), 0
    for block in chain([first], blocks):
        start, end = end, end + len(block)
        features[start:end] = block
    return ids, features


class _Texts:
    """What the pool's samples say, without the system's words, in order; read anew each time."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __iter__(self) -> Iterator[str]:
        for batch in self._run.read_batches(self._run.samples_file, ["turns", "heldout"]):
            for turns in batch.filter(pc.invert(batch["heldout"]))["turns"].to_pylist():
                yield " ".join(turn["content"] for turn in turns if turn["role"] != "system")
