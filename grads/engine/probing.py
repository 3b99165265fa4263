"""What is measured of a pool beside its gradients' size: a set's mean gradient, answers alone."""

from collections.abc import Callable

import numpy as np
import torch

from grads.data.tokens import TokenPool, token_batches
from grads.engine.autograd import accumulate_in
from grads.engine.directions import Direction, MeanGradient, sketch_map
from grads.engine.gradients import GradientScorer
from grads.errors import Stopped


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


def without_questions(pool: TokenPool) -> TokenPool:
    """Each sample's answers as they would stand if nothing had been asked.

    What stands before an answer is cut to what all samples of the pool have there: the template's
    beginning, and what it writes last before an answer. Samples that nothing was cut from, as they
    hold no question of their own, are left out; so are those that would have nothing to begin with.
    """
    leading = [_leading(pool.trained[a:b]) for a, b in _spans(pool)]
    prompts = [pool.input_ids[a : a + n] for (a, _), n in zip(_spans(pool), leading, strict=True)]
    begin, end = common_ends([prompt for prompt in prompts if len(prompt)])
    kept, pieces, marks = [], [], []
    for i, (a, b) in enumerate(_spans(pool)):
        keep = answer_context(pool.trained[a:b], begin, end)
        if keep.all() or not (keep & ~pool.trained[a:b]).any():
            continue
        kept.append(i)
        pieces.append(pool.input_ids[a:b][keep])
        marks.append(pool.trained[a:b][keep])
    lengths = [len(piece) for piece in pieces]
    empty = pool.input_ids[:0], pool.trained[:0]
    return TokenPool(
        sample_ids=pool.sample_ids[kept],
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        input_ids=np.concatenate([*pieces, empty[0]]),
        trained=np.concatenate([*marks, empty[1]]),
    )


def common_ends(rows: list[np.ndarray]) -> tuple[int, int]:
    """How many ids all rows begin with, and how many all end with."""
    shortest = min(map(len, rows), default=0)

    def shared(cut: Callable[[np.ndarray], np.ndarray]) -> int:
        table = np.stack([cut(row) for row in rows])
        same = (table == table[0]).all(axis=0)
        return int(shortest if same.all() else np.argmin(same))

    if not shortest:
        return 0, 0
    return shared(lambda row: row[:shortest]), shared(lambda row: row[::-1][:shortest])


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


def _spans(pool: TokenPool) -> list[tuple[int, int]]:
    return list(zip(pool.offsets[:-1].tolist(), pool.offsets[1:].tolist(), strict=True))
