"""What is measured of a pool beside its gradients' size: a set's mean gradient, answers alone."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from grads.data.tokens import TokenPool, token_batches
from grads.engine.autograd import accumulate_in
from grads.engine.directions import Direction, MeanGradient, sketch_map
from grads.engine.gradients import GradientScorer
from grads.errors import Stopped
from grads.store.files import scratch


def mean_gradient(
    scorer: GradientScorer,
    pool: TokenPool,
    *,
    batch_tokens: int,
    device: str,
    sketch: int | None = None,
    seed: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
) -> Direction:
    """The mean gradient of all samples of a set; raises Stopped between batches when asked to.

    `sketch` is the width that the head's part is kept in, instead of the hidden size.
    """
    embedding, head = scorer.embedding, scorer.head
    tokens = torch.from_numpy(np.unique(pool.input_ids)).to(device, torch.long)
    hidden = head.weight.shape[1]
    narrow = None
    if sketch is not None and sketch < hidden:
        narrow = sketch_map(hidden, sketch, seed).to(device, accumulate_in(head.weight.dtype))
    total = MeanGradient(tokens, embedding, head, narrow)
    for batch in token_batches(pool.lengths, batch_tokens):
        if should_stop():
            raise Stopped
        total.add(scorer.flow(*pool.collate(batch, device)))
    return total.direction()


def without_questions(pool: TokenPool, folder: Path | None = None) -> TokenPool:
    """Each sample's answers as they would stand if nothing had been asked.

    What stands before an answer is cut to what all samples of the pool have there: the template's
    beginning, and what it writes last before an answer. Samples that nothing was cut from, as they
    hold no question of their own, are left out; so are those that would have nothing to begin with.
    The tokens lie in files without names in `folder`, as `scratch` has them.
    """
    prompts = (ids[: _leading(trained)] for ids, trained in _samples(pool))
    begin, end = common_ends(prompt for prompt in prompts if len(prompt))
    keep = scratch(folder, len(pool.trained), np.bool_)
    lengths = np.zeros(len(pool), np.int64)
    for i, (_, trained) in enumerate(_samples(pool)):
        context = answer_context(trained, begin, end)
        if not context.all() and (context & ~trained).any():
            keep[pool.offsets[i] : pool.offsets[i + 1]] = context
            lengths[i] = context.sum()
    kept = np.flatnonzero(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths[kept])])
    ids, marks = scratch(folder, offsets[-1], np.int32), scratch(folder, offsets[-1], np.bool_)
    for sample, start, stop in zip(kept, offsets[:-1], offsets[1:], strict=True):
        whole = slice(pool.offsets[sample], pool.offsets[sample + 1])
        ids[start:stop] = pool.input_ids[whole][keep[whole]]
        marks[start:stop] = pool.trained[whole][keep[whole]]
    return TokenPool(pool.sample_ids[kept], offsets, ids, marks)


def common_ends(rows: Iterable[np.ndarray]) -> tuple[int, int]:
    """How many ids all rows begin with, and how many all end with."""
    rows = iter(rows)
    first = next(rows, np.zeros(0))
    begin = end = len(first)
    for row in rows:
        begin, end = _shared(first, row, begin), _shared(first[::-1], row[::-1], end)
    return begin, end


def _shared(a: np.ndarray, b: np.ndarray, most: int) -> int:
    """How many ids both begin with, `most` at most."""
    most = min(most, len(a), len(b))
    differ = np.flatnonzero(a[:most] != b[:most])
    return int(differ[0]) if len(differ) else most


def answer_context(trained: np.ndarray, begin: int, end: int) -> np.ndarray:
    """(T,) bool: the answers, the sample's first `begin` tokens, and `end` ones before each answer.

    `begin` counts only before the first answer.
    """
    keep = trained.copy()
    keep[: min(begin, _leading(trained))] = True
    starts = np.flatnonzero(trained & ~np.concatenate([[False], trained[:-1]]))
    for start in starts:
        before = np.flatnonzero(trained[:start])
        floor = before[-1] + 1 if len(before) else 0
        keep[max(start - end, floor) : start] = True
    return keep


def _leading(trained: np.ndarray) -> int:
    """Tokens before the first trained one."""
    return int(np.argmax(trained)) if trained.any() else len(trained)


def _samples(pool: TokenPool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Tokens, and which are trained, of each sample."""
    for start, stop in zip(pool.offsets[:-1], pool.offsets[1:], strict=True):
        yield pool.input_ids[start:stop], pool.trained[start:stop]
