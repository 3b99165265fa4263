"""What each stage of a job does: read the run's files, call the engine, write the result."""

import platform
import shutil
import time
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from grads.data import prepare as data
from grads.data.chat import PLAIN_TEMPLATE
from grads.data.sources import Source, read_source
from grads.data.tokens import TokenPool
from grads.engine import models, training
from grads.engine.anatomy import describe, refuse_unknown_tokens
from grads.errors import DataError, Stopped, WarmupError
from grads.jobs.job import Job
from grads.jobs.turns import turn
from grads.selection import topics
from grads.stages import cost, loading, probes
from grads.stages.scoring import measure
from grads.stages.steps import making
from grads.store import manifest
from grads.store.files import SINGLE_SAMPLES, matrix, replacing, write_table
from grads.store.folders import Draft
from grads.store.runs import Run
from grads.store.topics import Topic, Topics

LIBRARIES = ("torch", "transformers", "peft", "numpy", "scikit-learn", "pyarrow")


def run_all(job: Job[Run]) -> None:
    """Every stage in order, each skipped while what it has made holds."""
    run, config = job.folder, job.folder.config()
    device = models.pick_device(config.device)
    dtype = models.pick_dtype(config.dtype, device)
    run.update_manifest(
        run=run.id,
        versions={name: version(name) for name in LIBRARIES}
        | {"python": platform.python_version()},
        device=_device_name(device),
        dtype=str(dtype).removeprefix("torch."),
        model=config.model,
        model_digest=loading.refuse_other_model(run),
        seed=config.seed,
        gradients_taken="before any warm-up" if config.warmup == "none" else "after the warm-up",
    )
    with making(job, "prepare") as missing:
        if missing:
            _prepare(job)
    with making(job, "probe sets") as missing:
        if missing:
            probes.read_sets(job, probes.known(run))
    pool = loading.load_pool(run)
    with making(job, "warm-up") as missing:
        if missing:
            _warm_up(job, pool, dtype, device)
    measure(job, pool, dtype, device)
    with making(job, "cluster") as missing:
        if missing:
            _cluster(job)
    shutil.rmtree(run.parts, ignore_errors=True)
    shutil.rmtree(run.checkpoints, ignore_errors=True)


def _device_name(device: str) -> str:
    if device == "cuda":
        return f"cuda ({torch.cuda.get_device_name()})"
    return f"{device} ({torch.get_num_threads()} threads)" if device == "cpu" else device


def _prepare(job: Job[Run]) -> None:
    run, config = job.folder, job.folder.config()
    tokenizer = models.load_tokenizer(config.model)
    limit = models.position_limit(config.model) or config.max_length
    max_length = min(config.max_length, limit)
    source = read_source(config)
    _refuse_other_source(run, source)
    prepared = data.prepare(
        source,
        config,
        tokenizer,
        max_length,
        progress=lambda done: _row_read(job, done, len(source.rows)),
        refused=run.write_rejects,
    )
    if prepared.source is not None:
        write_table(run.source_file, prepared.source)
    write_table(run.samples_file, prepared.samples, SINGLE_SAMPLES)
    samples = prepared.samples
    run.update_manifest(
        source=manifest.Source(
            name=source.name,
            digest=source.digest,
            layout=prepared.layout.name,
            lines=source.raw is not None,
        ),
        columns=prepared.layout.roles,
        unused_columns=prepared.unused,
        without_end_of_turn=prepared.unended,
        max_length=max_length,
        counts=manifest.Counts(
            rows=source.count,
            usable=len(samples),
            refused=len(prepared.rejects),
            heldout=int(pc.sum(samples["heldout"]).as_py()),
            truncated=int(pc.sum(samples["truncated"]).as_py()),
            response_tokens=int(pc.sum(samples["response_tokens"]).as_py()),
        ),
    )
    _keep_template(run, tokenizer)
    write_table(run.tokens_file, prepared.tokens, SINGLE_SAMPLES)


def _row_read(job: Job[Run], done: int, rows: int) -> None:
    if job.should_stop():
        raise Stopped
    job.progress(done, rows)


def _keep_template(run: Run, tokenizer: Any) -> None:
    """Keep the chat template for exports, which load no tokenizer.

    Of a model with several, none is kept: which one a row took depends on its tools.
    """
    template = tokenizer.chat_template
    run.template_file.unlink(missing_ok=True)
    if not isinstance(template, str):
        return
    with replacing(run.template_file) as draft:
        draft.write_text(template, encoding="utf-8", newline="")
    marks = {name: str(mark) for name, mark in tokenizer.special_tokens_map.items()}
    own = template != PLAIN_TEMPLATE
    run.update_manifest(chat_template=manifest.ChatTemplate(of_the_model=own, special_tokens=marks))


def _refuse_other_source(run: Run, source: Source) -> None:
    """Damaged samples are read again, but from other data they would be other samples."""
    known = run.read_manifest().source.digest
    if known not in (None, source.digest):
        raise DataError(
            f"{run.config().dataset} has changed since run {run.id} read it, so what is damaged"
            " cannot be made again from it: put the old file back, or start a new run"
        )


def _warm_up(job: Job[Run], pool: TokenPool, dtype: torch.dtype, device: str) -> None:
    run, config = job.folder, job.folder.config()
    if config.warmup_from:
        _take_over(run, Run.open(config.warmup_from))
        return
    chosen = training.sample_fraction(len(pool), config.warmup_fraction, config.seed)
    training_dtype = torch.float32 if config.warmup == "full" else dtype
    model = loading.load_base_model(run, training_dtype, device)
    describe(model)  # what cannot be scored is not trained either
    refuse_unknown_tokens(model, pool.input_ids)
    last = time.monotonic()

    def report(step: training.Step) -> None:
        nonlocal last
        now = time.monotonic()
        rate, last = step.tokens / (now - last), now
        job.progress(step.step, step.steps)
        job.metrics(step=step.step, loss=step.loss, lr=step.lr, tokens_per_s=round(rate, 1))

    trained = training.train(
        model,
        pool.subset(chosen),
        config,
        dtype=dtype,
        device=device,
        checkpoints=run.checkpoints,
        report=report,
        should_stop=job.should_stop,
    )
    run.update_manifest(warmup=manifest.WarmUp(kind=config.warmup, samples=len(chosen)))
    if config.warmup == "lora":
        with replacing(run.adapter) as draft:
            trained.save_pretrained(draft, save_embedding_layers=False)
    else:
        with replacing(run.weights) as draft:
            trained.save_pretrained(draft)


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
    taken = manifest.WarmUp(kind=run.config().warmup, taken_from=str(other.path))
    run.update_manifest(warmup=taken)


def check(job: Job[Draft]) -> None:
    """Prepare a draft's data and, where it wants to know, measure what the run will cost."""
    draft = job.folder
    with making(job, "prepare") as missing:
        if missing:
            _prepare(job)
    if draft.wants_cost and not draft.estimate_file.exists():
        with turn(job):
            job.stage("measure")
            stored = sum(f.stat().st_size for f in draft.path.glob("*.parquet"))
            cost.measure(draft.config(), loading.load_pool(draft), stored).write(
                draft.estimate_file
            )


def _cluster(job: Job[Run]) -> None:
    run, config = job.folder, job.folder.config()
    table = run.read_table(run.features_file, ["sample_id", "feature"])
    features = matrix(table["feature"])
    samples = run.read_table(run.samples_file, ["sample_id", "turns"]).sort_by("sample_id")
    in_pool = samples.filter(pc.is_in(samples["sample_id"], table["sample_id"]))
    texts = [
        " ".join(turn["content"] for turn in turns if turn["role"] != "system")
        for turns in in_pool["turns"].to_pylist()
    ]
    found = topics.find_clusters(features, texts, config.seed, config.clusters)
    table = table.append_column("cluster", pa.array(found.label, pa.int32()))
    duplicates = pa.array(topics.near_duplicates(features, texts, config.seed))
    write_table(run.features_file, table.append_column("duplicate_group", duplicates))
    rows = [
        Topic(cluster=number, size=size, terms=terms)
        for number, (size, terms) in enumerate(zip(found.sizes, found.terms, strict=True))
    ]
    Topics(clusters=rows).write(run.clusters_file)
