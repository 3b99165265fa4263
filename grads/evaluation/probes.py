"""The samples that models are measured on: the held-out ones and the general ones.

A held-out sample that also stands in the pool is refused; near-duplicates are named.
"""

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grads.config.evaluation import Recipe
from grads.data.beside import read_beside
from grads.data.chat import Encoded
from grads.data.rejects import Spot, place
from grads.data.tokens import TokenPool
from grads.data.turns import Turn
from grads.errors import EvaluationError
from grads.evaluation import texts
from grads.evaluation.about import About, Leaks, MeasuredOn, NearDuplicate, Refused
from grads.evaluation.cost import general_files
from grads.evaluation.measure import Probe, encode_options, pool_of
from grads.selection.duplicates import alike_between
from grads.store.files import digest
from grads.store.runs import Run


@dataclass(frozen=True)
class _Part:
    """The usable rows of one file, or of the run's own split."""

    name: str
    table: pa.Table  # sample_id, turns, hash
    tokens: TokenPool
    rows: list[dict[str, Any]]  # with their options, in the order of the table
    spots: list[Spot]  # where the rows stand
    refused: list[dict[str, Any]]
    digest: str = ""  # of the file


@dataclass(frozen=True)
class Probes:
    """What an evaluation measures on, and what is to be said of it."""

    heldout: Probe
    general: Probe
    about: About
    texts: dict[str, str]  # where each text stands that is measured on, by its hash


def load_probes(run: Run, recipe: Recipe, tokenizer: Any) -> Probes:
    """Read, check and tokenise the held-out and the general samples.

    Raises EvaluationError where there is nothing held out, or a held-out sample stands in the pool.
    """
    max_length = run.read_manifest().longest
    notes: list[str] = []

    def read(files: list[str], limit: int | None) -> list[_Part]:
        parts = [_read(run, file, tokenizer, limit=limit, max_length=max_length) for file in files]
        twice = {name for name, count in Counter(part.name for part in parts).items() if count > 1}
        both = zip(files, parts, strict=True)
        return [replace(part, name=file) if part.name in twice else part for file, part in both]

    def joined(name: str, parts: list[_Part]) -> Probe:
        return _probe(name, parts, tokenizer, max_length=max_length, notes=notes)

    own = read(list(recipe.heldout), recipe.heldout_limit) or [_own_split(run, recipe)]
    pool = _pool(run)
    _refuse_leaks(pool, own)
    notes += _chosen_by(run, own, texts.CHOSEN_BY)
    heldout = joined("heldout", own)
    others = read(general_files(recipe), recipe.general_limit)
    if taught := len(_in_pool(pool, others)):
        notes.append(texts.TAUGHT.format(count=taught))
    notes += _chosen_by(run, others, texts.PROTECTED_BY)
    general = joined("general", others)
    about = About(
        heldout=[_facts(part, heldout, i) for i, part in enumerate(own)],
        general=[_facts(part, general, i) for i, part in enumerate(others)],
        leaks=Leaks(near_duplicates=_near_duplicates(run, own)),
        notes=notes,
    )
    places = {
        text: f"{place(spot)} of {one.name}"
        for one in [*own, *others]
        for text, spot in zip(one.table["hash"].to_pylist(), one.spots, strict=True)
    }
    return Probes(heldout, general, about, places)


def load_replay(run: Run, file: str, tokenizer: Any, probes: Probes, *, wanted: int) -> TokenPool:
    """The general rows of a file, of which up to `wanted` are mixed into a subset.

    Raises EvaluationError where one of them is measured on: it would not be forgotten.
    """
    part = _read(run, file, tokenizer, limit=None, max_length=run.read_manifest().longest)
    hashes = part.table["hash"].to_pylist()
    both = [i for i, text in enumerate(hashes) if text in probes.texts]
    if both:
        more = f" ({len(both)} such rows in all)" if len(both) > 1 else ""
        raise EvaluationError(
            f"{place(part.spots[both[0]])} of the replay file {part.name} is also measured on, as"
            f" {probes.texts[hashes[both[0]]]}{more}: a model would be asked what it was taught;"
            " remove it from one of the two"
        )
    if len(part.table) < wanted:
        probes.about.notes.append(
            texts.FEW_ROWS.format(file=part.name, found=len(part.table), wanted=wanted)
        )
    # Their numbers are those of another file than the pool's.
    return replace(part.tokens, sample_ids=-1 - part.tokens.sample_ids)


def _facts(part: _Part, probe: Probe, number: int) -> MeasuredOn:
    """What is said of a probe's part, the one of this number."""
    positions = set(np.flatnonzero(probe.source == number).tolist())
    return MeasuredOn(
        name=part.name,
        digest=part.digest,
        samples=len(part.table),
        response_tokens=int(pc.sum(part.table["response_tokens"]).as_py()),
        with_options=len(positions & set(probe.answers)),
        refused=len(part.refused),
        first_refused=Refused(**part.refused[0]) if part.refused else None,
    )


def _own_split(run: Run, recipe: Recipe) -> _Part:
    heldout = run.read_table(run.samples_file, ["heldout"])["heldout"]
    index = np.flatnonzero(heldout.to_numpy(zero_copy_only=False))[: recipe.heldout_limit]
    if not len(index):
        raise EvaluationError(
            f"run {run.id} has no held-out samples: give a file with --heldout FILE, or score the"
            " data again with --heldout N"
        )
    table = _taken(run, run.samples_file, index)
    if run.source_file.exists():
        rows = _taken(run, run.source_file, index).to_pylist()
    else:
        rows = [json.loads(line) for line in table["raw"].to_pylist()]
    tokens = _tokens(_taken(run, run.tokens_file, index))
    spots = [{"sample_id": sample} for sample in table["sample_id"].to_pylist()]
    return _Part(texts.OWN_SPLIT, table, tokens, rows, spots, [])


def _taken(run: Run, path: Path, index: np.ndarray) -> pa.Table:
    """The rows of a file of the run at these sorted positions; the others are not kept."""
    taken, start = [], 0
    for batch in run.read_batches(path):
        here = index[np.searchsorted(index, start) : np.searchsorted(index, start + len(batch))]
        taken.append(batch.take(pa.array(here - start)))
        start += len(batch)
    return pa.Table.from_batches(taken)


def _read(run: Run, file: str, tokenizer: Any, *, limit: int | None, max_length: int) -> _Part:
    """A file's usable rows, by the run's column mapping if it fits, else by recognition."""
    source, prepared = read_beside(
        run.config(),
        file,
        tokenizer,
        mapping=run.read_manifest().columns,
        max_length=max_length,
        limit=limit,
    )
    index = {sample_id: i for i, sample_id in enumerate(source.ids)}
    kept = [index[sample_id] for sample_id in prepared.samples["sample_id"].to_pylist()]
    rows = [source.rows[i] or {} for i in kept]
    spots = [source.spot(i) for i in kept]
    tokens = _tokens(prepared.tokens)
    whole = digest(Path(file).expanduser())
    return _Part(source.name, prepared.samples, tokens, rows, spots, prepared.rejects, whole)


def _tokens(table: pa.Table) -> TokenPool:
    """The pool of a table that may be a slice: its lists are laid out anew."""
    ids = [np.array(values, dtype=np.int32) for values in table["input_ids"].to_pylist()]
    trained = [np.array(values, dtype=bool) for values in table["trained"].to_pylist()]
    samples = [Encoded(a, b, truncated=False, pieces=[]) for a, b in zip(ids, trained, strict=True)]
    return pool_of(table["sample_id"].to_pylist(), samples)


def _probe(
    name: str, parts: list[_Part], tokenizer: Any, *, max_length: int, notes: list[str]
) -> Probe:
    """Parts as one probe, with their options."""
    turns = [
        [Turn.of(turn) for turn in row] for part in parts for row in part.table["turns"].to_pylist()
    ]
    samples = TokenPool.joined([part.tokens for part in parts])
    owners: list[int] = []
    encoded: list[Encoded] = []
    answers: dict[int, int] = {}
    unusable = 0
    for i, row in enumerate(row for part in parts for row in part.rows):
        if not row.get("options"):
            continue
        question = _question(row)
        found = encode_options(turns[i], question[0], tokenizer, max_length) if question else None
        if question is None or found is None:
            unusable += 1
            continue
        owners += [i] * len(found)
        encoded += found
        answers[i] = question[1]
    if unusable:
        notes.append(texts.BAD_OPTIONS.format(count=unusable, probe=name))
    source = np.repeat(np.arange(len(parts)), [len(part.table) for part in parts])
    return Probe(name, samples, turns, source, pool_of(owners, encoded), answers)


def _question(row: dict[str, Any]) -> tuple[list[str], int] | None:
    """The texts in `options` and the 0-based `answer` among them; None where they do not fit."""
    options, right = row["options"], row.get("answer")
    if not isinstance(options, list) or len(options) < 2:
        return None
    if not all(isinstance(text, str) and text.strip() for text in options):
        return None
    if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < len(options):
        return None
    return options, right


def _pool(run: Run) -> dict[str, int]:
    """The samples of the pool by the hashes of their texts."""
    samples = run.read_table(run.samples_file, ["sample_id", "hash", "heldout"])
    pool = samples.filter(pc.invert(samples["heldout"]))
    return dict(zip(pool["hash"].to_pylist(), pool["sample_id"].to_pylist(), strict=True))


def _refuse_leaks(pool: dict[str, int], parts: list[_Part]) -> None:
    if both := _in_pool(pool, parts):
        where, sample = both[0]
        more = f" ({len(both)} such rows in all)" if len(both) > 1 else ""
        raise EvaluationError(
            f"{where} also stands in the pool, as sample {sample}{more}: a model would be asked"
            " what it was taught; remove it from the held-out file"
        )


def _in_pool(pool: dict[str, int], parts: list[_Part]) -> list[tuple[str, int]]:
    """The rows that also stand in the pool: where they stand, and as which sample."""
    return [
        (f"{place(spot)} of {part.name}", pool[text])
        for part in parts
        for spot, text in zip(part.spots, part.table["hash"].to_pylist(), strict=True)
        if text in pool
    ]


def _chosen_by(run: Run, parts: list[_Part], said: str) -> list[str]:
    """What is to be said of samples that a probe set holds."""
    tested = {text for part in parts for text in part.table["hash"].to_pylist()}
    notes = []
    for name in run.read_manifest().probes:
        held = set(run.read_table(run.probe_set_file(name), ["hash"])["hash"].to_pylist())
        if both := len(tested & held):
            notes.append(said.format(count=both, name=name))
    return notes


def _near_duplicates(run: Run, parts: list[_Part]) -> list[NearDuplicate]:
    table = run.read_table(run.samples_file, ["sample_id", "heldout"])
    ids = table.filter(pc.invert(table["heldout"]))["sample_id"].to_pylist()
    blocks = run.read_batches(run.samples_file, ["turns", "heldout"])
    pool = (_texts(block.filter(pc.invert(block["heldout"]))) for block in blocks)
    rows = [(part.name, row) for part in parts for row in part.table["sample_id"].to_pylist()]
    held = [text for part in parts for text in _texts(part.table)]
    return [
        NearDuplicate(
            file=rows[i][0], heldout=rows[i][1], sample_id=ids[j], overlap=round(overlap, 3)
        )
        for i, j, overlap in sorted(alike_between(held, pool))
    ]


def _texts(table: pa.Table | pa.RecordBatch) -> list[str]:
    return [
        " ".join(turn["content"] for turn in turns if turn["role"] != "system")
        for turns in table["turns"].to_pylist()
    ]
