"""The stage that reads the data: a stream of rows, tokenised in blocks, merged into the run."""

import os
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from grads import __version__
from grads.data.blocks import Source
from grads.data.chat import PLAIN_TEMPLATE
from grads.data.merging import Merged
from grads.data.prepare import hold_out, layout_of, nothing_usable
from grads.data.rows import BLOCK
from grads.data.sources import open_source
from grads.data.stream import Stream
from grads.data.tokenising import TOKENS, Tokenised
from grads.engine import models
from grads.errors import DataError, Stopped
from grads.jobs.job import Job
from grads.stages.row_parts import KEPT, RowParts
from grads.store import manifest
from grads.store.files import SINGLE_SAMPLES, digest_of, replacing, write_tables
from grads.store.runs import Run

ROWS_A_PROCESS = 10_000  # for which one more process is worth its start
TOKENISERS = ("transformers", "tokenizers")  # whose versions have a say in the tokens


def prepare(job: Job[Run]) -> None:
    """Read and tokenise the data set of a run, and set the held-out samples aside.

    Raises DataError as `grads.data.prepare.prepare` does; rejects.jsonl is written even then.
    """
    run, config = job.folder, job.folder.config()
    tokenizer = models.load_tokenizer(config.model)
    limit = models.position_limit(config.model) or config.max_length
    max_length = min(config.max_length, limit)
    stream = open_source(config)
    _refuse_other_source(run, stream)
    broken = stream.blocks() if stream.readable < stream.count else iter([])
    run.write_rejects(reject for block in broken for reject in block.refused())
    layout = layout_of(stream, config)
    run.row_parts.mkdir(exist_ok=True)
    told = [stream.digest, config.model_dump(mode="json"), run.read_manifest().model_digest]
    made_from = digest_of(
        [*told, max_length, layout.roles, BLOCK, [__version__, *map(version, TOKENISERS)]]
    )
    parts = RowParts(run.row_parts, made_from, layout, tokenizer, max_length)
    merged, count = _tokenise(job, stream, parts)
    run.write_rejects(reject for n in range(count) for reject in parts.read(n, KEPT).rejects)
    if not len(merged):
        raise nothing_usable(stream, layout, parts.read(0, KEPT).rejects[0])
    heldout = hold_out(merged.hashes, config.heldout, config.seed)
    try:
        _merge(run, stream, parts, merged=merged, heldout=heldout)
    finally:  # whatever may come of parts and rows that do not belong together
        if not stream.is_unchanged():
            raise DataError(f"{config.dataset} has changed while it was read: start again")
    counts = manifest.Counts(
        rows=stream.count,
        usable=len(merged),
        refused=merged.refused,
        heldout=int(heldout.sum()),
        truncated=merged.truncated,
        response_tokens=merged.response_tokens,
    )
    run.update_manifest(
        source=manifest.Source(
            name=stream.name, digest=stream.digest, layout=layout.name, lines=stream.has_lines
        ),
        columns=layout.roles,
        unused_columns=merged.own.unused,
        without_end_of_turn=merged.unended,
        spelled_out=merged.spelled,
        max_length=max_length,
        counts=counts,
    )
    keep_template(run, tokenizer)
    shutil.rmtree(run.row_parts)


def _refuse_other_source(run: Run, stream: Stream) -> None:
    """Damaged samples are read again, but from other data they would be other samples."""
    known = run.read_manifest().source.digest
    if known not in (None, stream.digest):
        raise DataError(
            f"{run.config().dataset} has changed since run {run.id} read it, so what is damaged"
            " cannot be made again from it: put the old file back, or start a new run"
        )


def _tokenise(job: Job[Run], stream: Stream, parts: RowParts) -> tuple[Merged, int]:
    """Every block as a part on disk: what they have in common, and their number."""
    merged, count, done, rows = Merged(parts.layout, stream.texts_only), 0, 0, stream.readable

    def progress(of_block: int) -> None:
        if job.should_stop():
            raise Stopped
        job.progress(done + of_block, rows)

    processes = min(cores(), rows // ROWS_A_PROCESS)
    for number, block in parts.made(stream.blocks(), processes, progress):
        merged.add(block, parts.read(number, KEPT))
        count, done = number + 1, done + block.readable
        progress(0)
    return merged, count


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _merge(
    run: Run, stream: Stream, parts: RowParts, *, merged: Merged, heldout: np.ndarray
) -> None:
    """Write what the run keeps, block by block."""

    def blocks(columns: list[str] | None = None) -> Iterator[tuple[Source, Tokenised]]:
        for number, block in enumerate(stream.blocks()):
            yield block, parts.read(number, columns)

    def samples() -> Iterator[pa.Table]:
        start = 0
        for block, done in blocks():
            end = start + len(done.table)
            yield merged.samples(block, done, heldout[start:end])
            start = end

    if stream.typed:
        write_tables(run.source_file, (merged.source(*found) for found in blocks(KEPT)))
    write_tables(run.samples_file, samples(), SINGLE_SAMPLES)
    names = TOKENS if merged.spelled else TOKENS[:-1]
    tokens = (done.table.select(names) for _, done in blocks(names))
    write_tables(run.tokens_file, tokens, SINGLE_SAMPLES)


def keep_template(run: Run, tokenizer: Any) -> None:
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
