"""The stages that score: the gradients of every sample, how they lie to sets, answers alone."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from grads.config.run import RunConfig
from grads.data.tokens import TokenPool
from grads.engine import team
from grads.engine.anatomy import refuse_unknown_tokens
from grads.engine.collecting import Collector
from grads.engine.device import pick_device
from grads.engine.directions import Direction
from grads.engine.during import TrainingTap
from grads.engine.gradients import GradientScorer
from grads.engine.passes import Parts, Progress
from grads.engine.probing import mean_gradient, without_questions
from grads.engine.room import Room
from grads.engine.scoring import (
    TOKEN_SIGNALS,
    direct_pool,
    has_set,
    score_losses,
    score_pool,
    scores_table,
    token_signals,
    towards_table,
)
from grads.engine.self_check import self_check
from grads.engine.team import ALONE, Team
from grads.errors import Stopped
from grads.jobs.job import Job
from grads.selection import topics
from grads.stages import loading, together
from grads.stages.linear_algebra import one_thread
from grads.stages.steps import making, staged
from grads.store import pipeline
from grads.store.columns import MEASURED, SCORES
from grads.store.files import SINGLE_SAMPLES, as_lists, digest_of, matrix, write_table, write_tables
from grads.store.folders import TokenRequest
from grads.store.manifest import ProbeSet, SelfCheck
from grads.store.runs import Run

TOKEN_SIGNALS_UP_TO = 5_000  # samples, unless the config says otherwise
Read = Callable[[list[str] | None], Iterable[pa.Table]]  # of columns, None all of them


def measure(job: Job[Run], pool: TokenPool, dtype: torch.dtype, device: str) -> None:
    """The stages that need the warmed-up model, which is loaded once, if at all."""
    run, wanted = job.folder, pipeline.wanted(job.folder)
    missing = [
        name
        for name in ("score", "extras")
        if name in wanted and not pipeline.holds(run, pipeline.STAGES[name])
    ]
    if not missing:
        return
    together.call("model")
    scorer = team.settled(lambda: scorer_of(run, dtype, device))
    refuse_unknown_tokens(scorer.model, pool.input_ids)
    if "score" in missing:
        with staged(job, "self-check"):
            together.call("self-check")
            found = team.settled(lambda: check_gradients(job, scorer, pool, device))
            run.update_manifest(self_check=found)
        with staged(job, "score"):
            _score(job, scorer, pool, device)
            pipeline.record(run, pipeline.STAGES["score"])
    with making(job, "extras") as work_left:
        if work_left:
            together.call("extras")
            folder = run.parts / "extras"
            made = team.settled(
                lambda: losses_for_extras(job, run, scorer, folder, mine=team.current())
            )
            _write_extras(run, made)


def scorer_of(run: Run, dtype: torch.dtype, device: str) -> GradientScorer:
    """What scores with the warmed-up model."""
    return GradientScorer(loading.load_scoring_model(run, dtype, device))


def check_gradients(
    job: Job[Run], scorer: GradientScorer, pool: TokenPool, device: str
) -> SelfCheck:
    """The run's test of its own gradients, which every process of a team makes on its device."""
    run = job.folder
    checked = TrainingTap(scorer.model) if run.config().when == "during" else scorer
    return self_check(
        checked,
        pool,
        device,
        bool(run.read_manifest().probes),
        should_stop=lambda: team.current().asked(job.should_stop),
    )


def reporter(job: Job[Any]) -> Callable[[Progress], None]:
    """What tells the world of each batch of a pass."""
    started, batch = time.monotonic(), 0

    def report(now: Progress) -> None:
        nonlocal batch
        batch += 1
        job.progress(now.done, now.total, left=now.tokens_left, work=now.tokens)
        rate = now.tokens / (time.monotonic() - started)
        job.metrics(step=batch, loss=now.loss, tokens_per_s=round(rate, 1))

    return report


def directions(
    job: Job[Any],
    run: Run,
    scorer: GradientScorer,
    sets: Mapping[str, ProbeSet],
    *,
    mine: Team = ALONE,
) -> dict[str, Direction]:
    """The mean gradient of each of these sets, by its stored rows; of a team each makes it."""
    found, config = {}, run.config()
    for name in sorted(sets):
        found[name] = mean_gradient(
            scorer,
            _rows_of_set(run, scorer, name),
            batch_tokens=config.pass_tokens,
            device=pick_device(config.device),
            sketch=sets[name].sketch,
            seed=config.seed,
            should_stop=lambda: mine.asked(job.should_stop),
        )
    return found


def _rows_of_set(run: Run, scorer: GradientScorer, name: str) -> TokenPool:
    tokens = run.read_table(run.probe_set_file(name), ["sample_id", "input_ids", "trained"])
    rows = TokenPool.from_table(tokens)
    refuse_unknown_tokens(scorer.model, rows.input_ids)
    return rows


def hold_against(
    job: Job[Any],
    run: Run,
    scorer: GradientScorer,
    pool: TokenPool,
    *,
    sets: Mapping[str, ProbeSet],
    folder: Path,
) -> None:
    """How every sample lies to these sets, by a pass of its own whose parts lie in `folder`."""
    parts = parts_of(run, scorer, folder, pool, sets=sets)
    direct_pool(
        parts,
        scorer,
        device=pick_device(run.config().device),
        directions=directions(job, run, scorer, sets),
        report=reporter(job),
        should_stop=job.should_stop,
    )
    merged = parts.merged()
    run.probes.mkdir(exist_ok=True)
    for name in sets:
        write_table(run.probe_file(name), towards_table(merged, name))


def parts_of(
    run: Run,
    scorer: GradientScorer,
    folder: Path,
    pool: TokenPool,
    *,
    sets: Mapping[str, ProbeSet],
    **more: Any,
) -> Parts:
    """The parts of a pass over the pool, told apart by all that decides what they hold."""
    made, config = run.read_manifest(), run.config()
    needed = {name: made.files.get(name) for name in pipeline.STAGES["score"].needs}
    device = pick_device(config.device)
    needed |= {"model": made.model_digest, "dtype": str(scorer.model.dtype)}
    needed.pop("probe_sets")  # the sets that count are named one by one
    against = [(name, sets[name].digest, sets[name].sketch) for name in sorted(sets)]
    made_from = digest_of([needed, MEASURED, config.pass_tokens, config.seed, against, more])
    room = Room.of(config, device)
    return Parts(
        folder, pool, config.pass_tokens, made_from, room=room, in_step=loading.in_step(run)
    )


def collector_of(job: Job[Run], tap: TrainingTap, pool: TokenPool) -> Collector:
    """What reads the gradients of the run's samples out of its warm-up."""
    run, config = job.folder, job.folder.config()
    run.parts.mkdir(exist_ok=True)
    return Collector(
        run.parts / "during",
        tap,
        pool,
        seed=config.seed,
        with_tokens=_with_tokens(config, pool),
        sets={
            name: (_rows_of_set(run, tap.scorer, name), one.sketch)
            for name, one in run.read_manifest().probes.items()
        },
        batch_tokens=config.pass_tokens,
    )


def _with_tokens(config: RunConfig, pool: TokenPool) -> bool:
    wanted = config.token_signals
    return len(pool) <= TOKEN_SIGNALS_UP_TO if wanted is None else wanted


def _score(job: Job[Run], scorer: GradientScorer, pool: TokenPool, device: str) -> None:
    run, sets = job.folder, job.folder.read_manifest().probes
    if run.config().when == "after":
        together.call("score")
        parts = team.settled(lambda: score_parts(job, scorer, pool, device))
        _write_scores(run, parts.read, lambda columns: [parts.merged(columns)], sorted(sets))
        return

    def read(columns: list[str] | None) -> Iterator[pa.Table]:
        for batch in run.read_batches(run.during_file, columns):
            yield pa.Table.from_batches([batch])

    names = run.column_names(run.during_file)
    later = {name: one for name, one in sets.items() if not has_set(names, name)}
    _write_scores(run, read, read, sorted(sets.keys() - later))
    if later:
        hold_against(job, run, scorer, pool, sets=later, folder=run.parts)


def score_parts(job: Job[Run], scorer: GradientScorer, pool: TokenPool, device: str) -> Parts:
    """The parts of a pass over all samples; of a team each process makes its share of them."""
    run, config = job.folder, job.folder.config()
    sets, with_tokens = run.read_manifest().probes, _with_tokens(config, pool)
    parts = parts_of(run, scorer, run.parts, pool, sets=sets, with_tokens=with_tokens)
    mine = team.current()
    parts = replace(parts, team=mine)
    score_pool(
        parts,
        scorer,
        device=device,
        seed=config.seed,
        with_tokens=with_tokens,
        directions=directions(job, run, scorer, sets, mine=mine),
        report=reporter(job),
        should_stop=job.should_stop,
    )
    return parts


def _write_scores(run: Run, read: Read, in_order: Read, sets: list[str]) -> None:
    """What the parts hold as the run keeps it.

    `read` gives some of their columns, some samples at a time; `in_order` sorted by sample id.
    """
    names = next(iter(read(None))).column_names
    if TOKEN_SIGNALS[0] in names:
        run.token_signal_file.parent.mkdir(exist_ok=True)
        signals = in_order(["sample_id", *TOKEN_SIGNALS])
        write_tables(run.token_signal_file, signals, SINGLE_SAMPLES)
    else:  # those that were asked for belong to the scores before
        run.token_signal_file.unlink(missing_ok=True)
    numbers = [name for name in names if name not in {"feature", *TOKEN_SIGNALS}]
    merged = pa.concat_tables(in_order(numbers))
    with one_thread():
        _write_features(run, read, merged["sample_id"])
    if sets:
        run.probes.mkdir(exist_ok=True)
    for name in sets:
        write_table(run.probe_file(name), towards_table(merged, name))
    copied = [name for name in SCORES if name not in MEASURED]
    samples = run.read_table(run.samples_file, copied)
    write_table(run.scores_file, scores_table(merged, samples))


def _write_features(run: Run, read: Read, sample_ids: pa.ChunkedArray) -> None:
    """features.parquet, the samples in the order of their ids."""
    components = topics.principal_components(matrix(part["feature"]) for part in read(["feature"]))
    ids = sample_ids.to_numpy()
    features = np.empty((len(ids), components.axes.shape[1]), np.float32)
    for part in read(["sample_id", "feature"]):
        place = np.searchsorted(ids, part["sample_id"].to_numpy())
        features[place] = components.of(matrix(part["feature"]))
    columns = {"sample_id": sample_ids, "feature": as_lists(features)}
    write_table(run.features_file, pa.table(columns))


def read_answers_alone(job: Job[Any], run: Run, scorer: GradientScorer, folder: Path) -> None:
    """The stage `extras` of a run that is scored, unless what it makes is there."""
    stage = pipeline.STAGES["extras"]
    if not pipeline.holds(run, stage):
        job.stage(stage.name, stage.unit)
        _write_extras(run, losses_for_extras(job, run, scorer, folder))
        pipeline.record(run, stage)


def losses_for_extras(
    job: Job[Any], run: Run, scorer: GradientScorer, folder: Path, *, mine: Team = ALONE
) -> list[Parts]:
    """The parts of a pass over the answers without their questions, this process's share made.

    Where the scores are of other weights than these, a pass over the whole samples comes first.
    """
    pool = loading.load_pool(run)
    folder.parent.mkdir(exist_ok=True)
    wanted = {folder: without_questions(pool, folder.parent)}
    if run.config().when == "during":
        wanted = {folder.with_name(f"{folder.name}-whole"): pool} | wanted
    made = []
    for place, samples in wanted.items():
        parts = parts_of(run, scorer, place, samples, sets={}, stage=place.name)
        made.append(replace(parts, team=mine))
        if len(samples):
            score_losses(
                made[-1],
                scorer,
                device=pick_device(run.config().device),
                report=reporter(job),
                should_stop=job.should_stop,
            )
    return made


def _write_extras(run: Run, made: list[Parts]) -> None:
    """extras.parquet: the loss that the question saves, null where there is no question."""
    *whole, alone = made
    scores = whole[0].merged() if whole else run.read_table(run.scores_file, ["sample_id", "loss"])
    ids, loss = (scores[name].to_numpy() for name in ("sample_id", "loss"))
    gain = np.full(len(ids), np.nan, np.float32)
    if len(alone.pool):
        merged = alone.merged()
        place = np.searchsorted(ids, merged["sample_id"].to_numpy())
        gain[place] = merged["loss"].to_numpy() - loss[place]
    column = pa.array(gain, from_pandas=True)  # NaN becomes null
    write_table(run.extras_file, pa.table({"sample_id": ids, "question_gain": column}))


def add_token_signals(job: Job[TokenRequest]) -> None:
    """Score the wanted samples once more and keep their per-token signals."""
    run = job.folder.run
    wanted = job.folder.config_values()["sample_ids"]
    job.stage("token signals", "samples")
    scorer = GradientScorer(loading.scoring_model_again(run))
    pool, device = loading.load_pool(run), pick_device(run.config().device)
    position = {int(sample): i for i, sample in enumerate(pool.sample_ids)}
    # Its own checksums tell damage: a request that was killed may not have noted its digest.
    tables = [run.read_table(run.token_signal_file)] if run.token_signal_file.exists() else []
    known = set(tables[0]["sample_id"].to_pylist()) if tables else set()
    for done, sample in enumerate(s for s in wanted if s not in known):
        if job.should_stop():
            raise Stopped
        index = np.array([position[sample]])
        signals = token_signals(scorer.score(*pool.collate(index, device)))
        ids = pa.array([sample], pa.int64())
        tables.append(pa.table({"sample_id": ids, **signals}))
        job.progress(done + 1, len(wanted))
    write_table(run.token_signal_file, pa.concat_tables(tables), SINGLE_SAMPLES)
    pipeline.grown(run, ("token_signal/signals.parquet",))
