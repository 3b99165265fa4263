"""What each stage of a job does: read the run's files, call the engine, write the result."""

import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from grads.data import prepare as data
from grads.data.chat import PLAIN_TEMPLATE
from grads.data.sources import Source, read_source
from grads.data.tokens import TokenPool
from grads.engine import models, scoring, training
from grads.engine.gradients import GradientScorer
from grads.errors import DataError, ModelError, ScoringError, Stopped, WarmupError
from grads.jobs.job import Job, turn
from grads.selection import topics
from grads.stages import cost
from grads.store import manifest, pipeline
from grads.store.columns import MEASURED, SCORES
from grads.store.files import SINGLE_SAMPLES, digest_of, matrix, replacing, write_table
from grads.store.folders import Draft, TokenRequest
from grads.store.runs import Run
from grads.store.topics import Topic, Topics

LIBRARIES = ("torch", "transformers", "peft", "numpy", "scikit-learn", "pyarrow")
TOKEN_SIGNALS_UP_TO = 5_000  # samples, unless the config says otherwise


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
        model_digest=refuse_other_model(run),
        seed=config.seed,
        gradients_taken="before any warm-up" if config.warmup == "none" else "after the warm-up",
    )
    with _making(job, "prepare") as missing:
        if missing:
            _prepare(job)
    pool = load_pool(run)
    with _making(job, "warm-up", wanted=config.warmup != "none") as missing:
        if missing:
            _warm_up(job, pool, dtype, device)
    if not pipeline.holds(run, pipeline.STAGES["score"]):
        scorer = GradientScorer(load_scoring_model(run, dtype, device))
        with _stage(job, "self-check"):
            run.update_manifest(self_check=scoring.self_check(scorer, pool, device))
        with _stage(job, "score"):
            _score(job, scorer, pool, device)
            pipeline.record(run, pipeline.STAGES["score"])
    with _making(job, "cluster") as missing:
        if missing:
            _cluster(job)
    shutil.rmtree(run.parts, ignore_errors=True)
    shutil.rmtree(run.checkpoints, ignore_errors=True)


@contextmanager
def _making(job: Job[Run], name: str, wanted: bool = True) -> Iterator[bool]:
    """Whether the stage has work to do; if so, it is announced, and what it makes is noted."""
    stage = pipeline.STAGES[name]
    if not wanted or pipeline.holds(job.folder, stage):
        yield False
        return
    with _stage(job, name):
        yield True
        pipeline.record(job.folder, stage)


@contextmanager
def _stage(job: Job[Run], name: str) -> Iterator[None]:
    """Announce the stage and add its time to the manifest, attempts summed."""
    job.stage(name, pipeline.STAGES[name].unit)
    started = time.monotonic()
    try:
        yield
    finally:
        seconds = job.folder.read_manifest().seconds
        spent = seconds.get(name, 0.0) + time.monotonic() - started
        job.folder.update_manifest(seconds=seconds | {name: round(spent, 1)})


def refuse_other_model(run: Run) -> str:
    """The digest of the run's model; raises ModelError where it is not what the run was made with.

    Runs from before 0.5 kept none, and take what is there.
    """
    model, known = run.config().model, run.read_manifest().model_digest
    found = models.model_digest(model)
    if known not in (None, found):
        raise ModelError(
            f"the files of the model '{model}' are not those that run {run.id} was made with"
            f" ({found[:20]}, then {known[:20]}): put those back, or start a new run"
        )
    return found


def load_base_model(run: Run, dtype: torch.dtype, device: str) -> Any:
    """The model before any training; raises ModelError where two loads of it differ."""
    model = models.load_model(run.config().model, device, dtype)
    kept = dict(run.read_manifest().weights)
    name, found = str(dtype).removeprefix("torch."), models.fingerprint(model)
    if kept.setdefault(name, found) != found:
        raise ModelError(
            f"two loads of the model '{run.config().model}' gave different weights: some of them"
            " are made up, as its files do not hold them; give a complete model"
        )
    run.update_manifest(weights=kept)
    return model


def load_pool(run: Run) -> TokenPool:
    """The tokens of every sample that is not held out."""
    heldout = run.read_table(run.samples_file, ["heldout"])["heldout"]
    tokens = run.read_table(run.tokens_file, ["sample_id", "input_ids", "trained"])
    return TokenPool.from_table(tokens.filter(pc.invert(heldout)))


def load_scoring_model(run: Run, dtype: torch.dtype, device: str) -> Any:
    """The base model with the run's warm-up in place."""
    if run.weights.exists():
        return models.load_model(str(run.weights), device, dtype)
    model = load_base_model(run, dtype, device)
    return models.load_adapter(model, run.adapter) if run.adapter.exists() else model


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
    model = load_base_model(run, training_dtype, device)
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


def _score(job: Job[Run], scorer: GradientScorer, pool: TokenPool, device: str) -> None:
    run, config = job.folder, job.folder.config()
    wanted = config.token_signals
    token_signals = len(pool) <= TOKEN_SIGNALS_UP_TO if wanted is None else wanted
    made_from = _parts_source(run, scorer, token_signals)
    started, batch = time.monotonic(), 0

    def report(now: scoring.Progress) -> None:
        nonlocal batch
        batch += 1
        job.progress(now.done, now.total, left=now.tokens_left, work=now.tokens)
        rate = now.tokens / (time.monotonic() - started)
        job.metrics(step=batch, loss=now.loss, tokens_per_s=round(rate, 1))

    scoring.score_pool(
        run,
        scorer,
        pool,
        batch_tokens=config.batch_tokens,
        device=device,
        seed=config.seed,
        with_tokens=token_signals,
        made_from=made_from,
        report=report,
        should_stop=job.should_stop,
    )
    merged = scoring.merge_parts(run, pool, config.batch_tokens)
    if token_signals:
        signals = ["sample_id", "embed_token_norm", "head_token_norm"]
        run.token_signal_file.parent.mkdir(exist_ok=True)
        write_table(run.token_signal_file, merged.select(signals), SINGLE_SAMPLES)
    else:  # those that were asked for belong to the scores before
        run.token_signal_file.unlink(missing_ok=True)
    features = topics.reduce_features(matrix(merged["feature"]), config.seed)
    width = features.shape[1]
    columns = {
        "sample_id": merged["sample_id"],
        "feature": pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), width),
    }
    write_table(run.features_file, pa.table(columns))
    copied = [name for name in SCORES if name not in MEASURED]
    samples = run.read_table(run.samples_file, copied)
    write_table(run.scores_file, scoring.scores_table(merged, samples))


def _parts_source(run: Run, scorer: GradientScorer, token_signals: bool) -> str:
    """The digest of all that decides what the parts of the scoring pass hold."""
    made, config = run.read_manifest(), run.config()
    needed = {name: made.files.get(name) for name in pipeline.STAGES["score"].needs}
    needed |= {"model": made.model_digest, "dtype": str(scorer.model.dtype)}
    return digest_of([needed, MEASURED, config.batch_tokens, config.seed, token_signals])


def check(job: Job[Draft]) -> None:
    """Prepare a draft's data and, where it wants to know, measure what the run will cost."""
    draft = job.folder
    with _making(job, "prepare") as missing:
        if missing:
            _prepare(job)
    if draft.wants_cost and not draft.estimate_file.exists():
        with turn(job):
            job.stage("measure")
            stored = sum(f.stat().st_size for f in draft.path.glob("*.parquet"))
            cost.measure(draft.config(), load_pool(draft), stored).write(draft.estimate_file)


def add_token_signals(job: Job[TokenRequest]) -> None:
    """Score the wanted samples once more and keep their per-token signals."""
    run = job.folder.run
    wanted = job.folder.config_values()["sample_ids"]
    job.stage("token signals", "samples")
    if run.config().warmup != "none" and not (run.adapter.exists() or run.weights.exists()):
        raise ScoringError(
            f"run {run.id} has no warmed-up model any more, so the signals of its tokens cannot be"
            " computed: score the data again"
        )
    pool = load_pool(run)
    device = models.pick_device(run.config().device)
    dtype = models.pick_dtype(run.config().dtype, device)
    scorer = GradientScorer(load_scoring_model(run, dtype, device))
    position = {int(sample): i for i, sample in enumerate(pool.sample_ids)}
    tables = [run.read_table(run.token_signal_file)] if run.token_signal_file.exists() else []
    known = set(tables[0]["sample_id"].to_pylist()) if tables else set()
    for done, sample in enumerate(s for s in wanted if s not in known):
        if job.should_stop():
            raise Stopped
        index = np.array([position[sample]])
        signals = scoring.token_signals(scorer.score(*pool.collate(index, device)))
        ids = pa.array([sample], pa.int64())
        tables.append(pa.table({"sample_id": ids, **signals}))
        job.progress(done + 1, len(wanted))
    write_table(run.token_signal_file, pa.concat_tables(tables), SINGLE_SAMPLES)
    kept = run.read_manifest().files
    run.update_manifest(files=kept | pipeline.sign(run, ("token_signal/signals.parquet",)))


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
