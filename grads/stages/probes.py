"""Probe sets: their rows are read once and kept, then every sample is held against each set."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from grads.config.probe import ProbeConfig, Role, rows_of
from grads.data.beside import read_beside
from grads.data.tokens import TokenPool
from grads.engine import models
from grads.engine.device import pick_device
from grads.engine.gradients import GradientScorer
from grads.engine.self_check import self_check
from grads.errors import DataError
from grads.jobs.job import Job
from grads.stages import loading, scoring
from grads.store import pipeline
from grads.store.files import SINGLE_SAMPLES, digest_of, write_table
from grads.store.folders import ProbeRequest
from grads.store.manifest import ProbeSet
from grads.store.runs import Run

Sets = Mapping[str, tuple[Role, str]]  # role and place by name


def known(run: Run) -> Sets:
    """The sets that the run was started with, and those that were added."""
    added = {name: (one.role, one.source) for name, one in run.read_manifest().probes.items()}
    return run.config().sets | added


def read_sets(job: Job[Any], sets: Sets, sketch: int | None = None) -> dict[str, ProbeSet]:
    """Read these sets and keep their rows; raises DataError where one is not what it was.

    What each is stands in the manifest only once the caller has put it there.
    """
    run: Run = getattr(job.folder, "run", job.folder)
    tokenizer = models.load_tokenizer(run.config().model)
    run.probe_sets.mkdir(exist_ok=True)
    before, read = run.read_manifest().probes, {}
    for done, (name, (role, place)) in enumerate(sets.items()):
        ids = rows_of(place)
        found = _of_pool(run, ids, role) if ids else _of_file(run, place, role, tokenizer)
        table, one = found
        if name in before and before[name].digest != one.digest:
            raise DataError(
                f"the set '{name}', {place}, has changed since it was read: put the old file back,"
                " or give the new one another name"
            )
        one.sketch = before[name].sketch if name in before else sketch or run.config().sketch
        write_table(run.probe_set_file(name), table, SINGLE_SAMPLES)
        read[name] = one
        job.progress(done + 1, len(sets))
    return read


def _of_pool(run: Run, ids: list[int], role: Role) -> tuple[pa.Table, ProbeSet]:
    """A set of samples of the run's own pool."""
    wanted = pa.array(sorted(set(ids)), pa.int64())
    samples = _rows(run, run.samples_file, ["turns", "hash", "response_tokens"], wanted=wanted)
    tokens = _rows(run, run.tokens_file, ["input_ids", "trained"], wanted=wanted)
    unknown = sorted(set(ids) - set(samples["sample_id"].to_pylist()))
    if unknown:
        raise DataError(f"the run has no sample {unknown[0]} to put into a set: it may be refused")
    table = _joined(samples, tokens)
    hashes = table["hash"].to_pylist()
    return table, _described(run, table, role, source=f"rows:{','.join(map(str, ids))}").model_copy(
        update={"digest": digest_of(hashes)}
    )


def _of_file(run: Run, file: str, role: Role, tokenizer: Any) -> tuple[pa.Table, ProbeSet]:
    manifest = run.read_manifest()
    source, prepared = read_beside(
        run.config(), file, tokenizer, mapping=manifest.columns, max_length=manifest.longest
    )
    table = _joined(prepared.samples, prepared.tokens)
    described = _described(run, table, role, source=file)
    known = {"digest": source.digest, "refused": len(prepared.rejects)}
    return table, described.model_copy(update=known)


def _rows(run: Run, path: Path, columns: list[str], *, wanted: pa.Array) -> pa.Table:
    """The rows of a table of the run that are of the wanted samples."""
    batches = run.read_batches(path, ["sample_id", *columns])
    return pa.Table.from_batches([b.filter(pc.is_in(b["sample_id"], wanted)) for b in batches])


def _joined(samples: pa.Table, tokens: pa.Table) -> pa.Table:
    """probe_sets/NAME.parquet of two tables in one order."""
    kept = samples.select(["sample_id", "turns", "hash", "response_tokens"])
    return kept.append_column("input_ids", tokens["input_ids"]).append_column(
        "trained", tokens["trained"]
    )


def _described(run: Run, table: pa.Table, role: Role, *, source: str) -> ProbeSet:
    samples = run.read_table(run.samples_file, ["hash", "heldout"])
    pool = samples.filter(pc.invert(samples["heldout"]))["hash"]
    return ProbeSet(
        role=role,
        source=source,
        digest="",
        samples=len(table),
        response_tokens=int(pc.sum(table["response_tokens"]).as_py()),
        in_pool=int(pc.sum(pc.is_in(table["hash"], pool)).as_py() or 0),
    )


def add(job: Job[ProbeRequest]) -> None:
    """What was asked for of a run that is scored: sets read, samples held against them, extras."""
    request, run = job.folder, job.folder.run
    config: ProbeConfig = request.config()
    scorer = GradientScorer(loading.scoring_model_again(run))
    new = {n: s for n, s in config.sets.items() if not pipeline.set_holds(run, n)}
    read = {}
    if new:
        job.stage("probe sets", "sets")
        read = read_sets(job, new, config.sketch)
    pool, device = loading.load_pool(run), pick_device(run.config().device)
    if read:
        _hold_against(job, scorer, pool, device, sets=read)
    if "question_gain" in config.extras:
        request.parts.mkdir(exist_ok=True)
        scoring.read_answers_alone(job, run, scorer, request.parts / "extras")
    shutil.rmtree(request.parts, ignore_errors=True)


def _hold_against(
    job: Job[ProbeRequest],
    scorer: GradientScorer,
    pool: TokenPool,
    device: str,
    *,
    sets: dict[str, ProbeSet],
) -> None:
    run = job.folder.run
    job.stage("self-check")
    self_check(scorer, pool, device, directions=True, should_stop=job.should_stop)
    job.stage("score", "samples")
    scoring.hold_against(job, run, scorer, pool, sets=sets, folder=job.folder.parts)
    pipeline.grown(run, probes=sets)
