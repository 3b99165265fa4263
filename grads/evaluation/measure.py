"""What a model knows: loss, token accuracy, options, and how far it moved from the base model.

Everything is measured sample by sample as a pair of sums, (what, of how many), so that a metric is
one sum over another, and samples can be drawn anew. Only response positions enter the head.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from grads.data.chat import Encoded, encode
from grads.data.tokens import TokenPool, token_batches
from grads.data.turns import Turn, Unusable
from grads.engine.loss import response_logits
from grads.errors import Stopped
from grads.evaluation.metrics import METRICS, Batch, Sums
from grads.store.files import replacing, reserve

KL_POSITIONS = 2_048  # at most so many response positions are held against the base model
CHECKED = 4  # samples on which an adapter must change something
LOWEST = float(np.finfo(np.float16).min)  # what a log-probability of minus infinity counts as


@dataclass(frozen=True)
class Probe:
    """n samples that models are measured on."""

    name: str
    samples: TokenPool  # n samples
    turns: list[list[Turn]]  # (n,)
    source: np.ndarray  # (n,) which file each comes from
    options: TokenPool  # an entry an option; its sample_ids are positions in `samples`
    answers: dict[int, int]  # position of a sample with options -> number of the right one

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def tokens(self) -> int:
        """Tokens that one measurement passes through the model, options included."""
        return len(self.samples.input_ids) + len(self.options.input_ids)

    def part(self, index: np.ndarray) -> "Probe":
        """The samples at these positions, in this order, with their options."""
        new = {int(old): position for position, old in enumerate(index)}
        owners = self.options.sample_ids
        kept = np.flatnonzero(np.isin(owners, index))
        options = self.options.subset(kept) if len(kept) else pool_of([], [])
        moved = np.array([new[int(owner)] for owner in options.sample_ids], dtype=np.int64)
        return Probe(
            name=self.name,
            samples=self.samples.subset(index),
            turns=[self.turns[i] for i in index],
            source=self.source[index],
            options=TokenPool(moved, options.offsets, options.input_ids, options.trained),
            answers={new[old]: right for old, right in self.answers.items() if old in new},
        )


def pool_of(sample_ids: list[int], samples: list[Encoded]) -> TokenPool:
    """Encoded samples as one flat pool."""
    offsets = np.concatenate([[0], np.cumsum([len(s.input_ids) for s in samples])])
    ids = [sample.input_ids for sample in samples] or [np.zeros(0, np.int32)]
    trained = [sample.trained for sample in samples] or [np.zeros(0, bool)]
    return TokenPool(
        np.array(sample_ids, dtype=np.int64),
        offsets.astype(np.int64),
        np.concatenate(ids),
        np.concatenate(trained),
    )


def encode_options(
    turns: list[Turn], options: list[str], tokenizer: Any, max_length: int
) -> list[Encoded] | None:
    """Each option in the place of the last answer, only its own tokens marked; None if one is cut.

    The end-of-turn token counts as the option's last.
    """
    found = []
    for text in options:
        try:
            sample = encode([*turns[:-1], Turn("assistant", text)], tokenizer, max_length)
        except Unusable:
            return None
        if sample.truncated:
            return None
        last = len(sample.trained) - 1 - int(np.argmax(sample.trained[::-1]))
        before = np.flatnonzero(~sample.trained[:last])
        own = np.zeros_like(sample.trained)
        own[(before[-1] + 1 if len(before) else 0) : last + 1] = True
        found.append(Encoded(sample.input_ids, own, truncated=False, pieces=[]))
    return found


class Reference:
    """The base model's predictions at some response positions of a probe, kept in a file.

    The positions are drawn by a fixed seed, at most KL_POSITIONS. The file holds log-probabilities
    (positions, V) as float16; they are normalised again when read, so that the divergence of the
    base model from itself is zero to within 1e-5.
    """

    def __init__(self, path: Path, probe: Probe) -> None:
        self.path = path
        counts = response_counts(probe.samples)
        self.first = np.concatenate([[0], np.cumsum(counts)])
        total = int(self.first[-1])
        order = np.random.default_rng(0).permutation(total)
        self.row = np.full(total, -1)  # of each response position in the file
        self.chosen = np.sort(order[:KL_POSITIONS])
        self.row[self.chosen] = np.arange(len(self.chosen))
        self._table: Any = None
        self._writing = False

    @contextmanager
    def being_written(self) -> Iterator[None]:
        """While the base model is measured: keep its predictions instead of comparing."""
        self._writing = True
        with replacing(self.path) as draft:
            try:
                self._draft = draft
                yield
                self._table.flush()
            finally:
                self._table, self._writing = None, False

    def divergence(self, samples: np.ndarray, log_probs: torch.Tensor) -> tuple[Any, np.ndarray]:
        """KL(base || model) summed over each sample's chosen positions, in nats, and their number.

        `log_probs` (N, V) are the model's, at all N response positions of `samples`, in order.
        """
        places = [np.arange(self.first[i], self.first[i + 1]) for i in samples]
        rows = np.concatenate([self.row[place] for place in places])
        owner = np.repeat(np.arange(len(samples)), [len(place) for place in places])
        kept = np.flatnonzero(rows >= 0)
        number = np.bincount(owner[kept], minlength=len(samples))
        if not len(kept):
            return np.zeros(len(samples)), number
        ours = log_probs[torch.from_numpy(kept).to(log_probs.device)].clamp(min=LOWEST)
        if self._writing:
            self._keep(rows[kept], ours)
            return np.zeros(len(samples)), number
        if self._table is None:
            self._table = np.load(self.path, mmap_mode="r")
        stored = torch.from_numpy(self._table[rows[kept]].astype(np.float32)).to(ours.device)
        base = F.log_softmax(stored, dim=-1)
        gap = (base.exp() * (base - ours)).sum(dim=-1).double().cpu().numpy()
        return np.bincount(owner[kept], gap, len(samples)), number

    def _keep(self, rows: np.ndarray, log_probs: torch.Tensor) -> None:
        if self._table is None:
            shape = (len(self.chosen), log_probs.shape[1])
            self._table = np.lib.format.open_memmap(
                self._draft, mode="w+", dtype=np.float16, shape=shape
            )
            reserve(self._draft)
        self._table[rows] = log_probs.cpu().numpy().astype(np.float16)


def response_counts(pool: TokenPool) -> np.ndarray:
    """Response positions of each sample, (n,): trained tokens that something precedes."""
    first = pool.offsets[:-1]
    return np.asarray(np.add.reduceat(pool.trained, first, dtype=np.int64) - pool.trained[first])


@torch.inference_mode()
def measure(
    model: Any,
    probe: Probe,
    batch_tokens: int,
    device: str,
    *,
    reference: Reference | None = None,
    report: Callable[[int], None] = lambda tokens: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Sums]:
    """Every metric by sample, by its name; those of metrics.py that apply.

    Each is a pair of sums. What needs the base model's predictions is measured where there is a
    reference, what needs options where samples carry some. `report` gets the tokens of each batch;
    raises Stopped between batches.
    """
    wanted = {
        metric.name: metric.of_batch
        for metric in METRICS
        if metric.of_batch and (reference is not None or not metric.against_base)
    }
    found = {name: (np.zeros(len(probe)), np.zeros(len(probe))) for name in wanted}

    def passes(pool: TokenPool) -> Iterator[Batch]:
        return _passes(
            model,
            pool,
            batch_tokens,
            device,
            reference=reference,
            report=report,
            should_stop=should_stop,
        )

    for batch in passes(probe.samples):
        for name, of_batch in wanted.items():
            for whole, part in zip(found[name], of_batch(batch), strict=True):
                whole[batch.samples] = part
    if probe.answers:
        scores = _option_scores(probe, passes(probe.options))
        for metric in METRICS:
            if metric.of_question:
                found[metric.name] = _by_question(probe, scores, metric.of_question)
    return found


@torch.inference_mode()
def adapter_counts(model: Any, probe: Probe, device: str) -> bool:
    """Whether a model's adapter is in use: predictions of the first samples differ without it."""
    batch = probe.samples.collate(np.arange(min(len(probe), CHECKED)), device)
    ours, _ = response_logits(model, *batch)
    with model.disable_adapter():
        base, _ = response_logits(model, *batch)
    return not torch.equal(ours, base)


def _by_question(
    probe: Probe, scores: np.ndarray, of_question: Callable[[np.ndarray, int], float]
) -> Sums:
    sums, asked = np.zeros(len(probe)), np.zeros(len(probe))
    for position, right in probe.answers.items():
        sums[position] = of_question(scores[probe.options.sample_ids == position], right)
        asked[position] = 1.0
    return sums, asked


def _option_scores(probe: Probe, batches: Iterator[Batch]) -> np.ndarray:
    """(options,) mean log-likelihood per token of each option, in nats."""
    scores = np.zeros(len(probe.options))
    for batch in batches:
        likely = batch.log_probs.gather(1, batch.targets[:, None])[:, 0]
        sums, counts = batch.summed(likely)
        scores[batch.samples] = sums / counts
    return scores


def _passes(
    model: Any,
    pool: TokenPool,
    batch_tokens: int,
    device: str,
    *,
    reference: Reference | None,
    report: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> Iterator[Batch]:
    """The pool as the model predicts it, batch by batch."""
    counts = response_counts(pool)
    for samples in token_batches(pool.lengths, batch_tokens):
        if should_stop():
            raise Stopped
        logits, targets = response_logits(model, *pool.collate(samples, device))
        owner = np.repeat(np.arange(len(samples)), counts[samples])
        yield Batch(samples, owner, F.log_softmax(logits.float(), dim=-1), targets, reference)
        report(int(pool.lengths[samples].sum()))
