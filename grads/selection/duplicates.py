"""Near-duplicates: texts that share most of their character n-grams.

Candidates come from MinHash with banding: two texts whose n-grams overlap by ALIKE agree in all
rows of one band or another with a probability of 0.995, those that overlap by 0.1 with one of
4 in 100,000. Many texts of few words are candidates by the hundred even so; those whose signatures
differ too much are passed over (of those that overlap by ALIKE, 2 in 10,000). What decides is the
overlap itself, so no chance joins two texts.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from hashlib import blake2b
from itertools import compress, islice
from typing import NamedTuple

import numpy as np
from rensa import RMinHash
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

ALIKE = 0.7  # Jaccard overlap of character 5-grams from which two texts are near-duplicates
GRAM, BITS = 5, 20
FACTORS = np.random.default_rng(0).integers(0, 2**64, GRAM, dtype=np.uint64) | np.uint64(1)
BANDS, ROWS = 42, 6  # of a signature
TEXTS = 1_024  # whose n-grams and signatures are made at once
EVERY = 2  # hash of a signature leaves a mark, its lowest byte
MARKED = 0.55  # share of equal marks from which texts are compared: where ALIKE gives 0.70 +- 0.04
PAIRS = 4_096  # whose overlap is counted at once
BESIDE = 8  # texts of a bucket that each is held against, so that no bucket costs its square
Pairs = tuple[np.ndarray, np.ndarray]  # positions of their left and right texts
Room = Callable[[int], np.ndarray]  # an int32 array of a size
IN_MEMORY: Room = partial(np.empty, dtype=np.int32)


def near_duplicates(texts: Iterable[str], seed: int, room: Room = IN_MEMORY) -> np.ndarray:
    """(n,) group of each sample: samples of one group are near-duplicates; -1 has no other.

    A group is called after its first sample. What is alike in steps is one group. The texts are
    read three times, some at a time. `room` gives the array that holds the n-grams of candidates.
    """
    copy_of = _first_alike(texts)
    news = np.diff(np.maximum.accumulate(copy_of), prepend=-1) > 0  # first of their kind
    signed = _signatures(_chosen(texts, news), int(news.sum()), seed)
    counts, in_a_bucket = signed.counts, _in_a_bucket(signed.bands)
    label = np.arange(len(counts))
    beside = np.flatnonzero(in_a_bucket)
    if len(beside):
        again = _chosen(texts, news & in_a_bucket[copy_of])
        signed = signed.of(beside)  # those of the others are let go
        label[beside] = beside[_alike(_Grams(again, signed.counts, room), signed)]
    _, place, member, count = np.unique(
        label[copy_of], return_index=True, return_inverse=True, return_counts=True
    )
    alone = (count[member] == 1) | (counts == 0)[copy_of]
    return np.where(alone, -1, place[member])


def _first_alike(texts: Iterable[str]) -> np.ndarray:
    """(n,) the number of each text among those that differ, in the order of their coming."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(_digest(text), len(first)) for text in texts], np.int64)


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _chosen(texts: Iterable[str], mask: np.ndarray) -> Iterator[list[str]]:
    """The texts of a mask (n,), TEXTS at a time."""
    chosen = compress(texts, mask)
    while some := list(islice(chosen, TEXTS)):
        yield some


class _Grams:
    """Which n-grams each of n texts holds."""

    def __init__(self, blocks: Iterator[list[str]], counts: np.ndarray, room: Room) -> None:
        """`counts` (n,) tells how many n-grams each text has."""
        self._offsets = np.concatenate([[0], np.cumsum(counts)])
        self._numbers = room(int(self._offsets[-1]))
        start = 0
        for texts in blocks:
            found = _grams(texts).indices
            self._numbers[start : start + len(found)] = found
            start += len(found)

    def of(self, rows: np.ndarray) -> csr_matrix:
        """(len(rows), 2^BITS) those of some texts."""
        spans = [slice(self._offsets[i], self._offsets[i + 1]) for i in rows]
        numbers = np.concatenate([self._numbers[span] for span in spans])
        pointers = np.concatenate([[0], np.cumsum(np.diff(self._offsets)[rows])])
        ones = np.ones(len(numbers), np.float32)
        return csr_matrix((ones, numbers, pointers), shape=(len(rows), 1 << BITS))


class _Signatures(NamedTuple):
    """What is kept of the signatures of n texts."""

    bands: np.ndarray  # (n, BANDS) uint32 a number of each band
    marks: np.ndarray  # (n, BANDS * ROWS / EVERY) uint8
    counts: np.ndarray  # (n,) how many n-grams a text has

    def of(self, rows: np.ndarray) -> "_Signatures":
        """Those of some texts."""
        return _Signatures(self.bands[rows], self.marks[rows], self.counts[rows])


def _signatures(blocks: Iterator[list[str]], count: int, seed: int) -> _Signatures:
    mix = np.random.default_rng(seed).integers(0, 2**64, ROWS, dtype=np.uint64) | np.uint64(1)
    bands = np.empty((count, BANDS), np.uint32)
    marks = np.empty((count, BANDS * ROWS // EVERY), np.uint8)
    counts = np.empty(count, np.int64)
    start = 0
    for texts in blocks:
        grams = _grams(texts)
        rows = RMinHash.digest_matrix_from_flat_token_hashes(
            grams.indices.astype(np.uint64), grams.indptr.astype(np.uint64), BANDS * ROWS, seed
        ).to_rows()
        hashes = np.array(rows, np.uint64)
        mixed = (hashes.reshape(-1, BANDS, ROWS) * mix).sum(axis=2, dtype=np.uint64)
        part = slice(start, start + len(texts))
        bands[part] = mixed >> np.uint64(32)
        marks[part] = hashes[:, ::EVERY] & np.uint64(255)
        counts[part] = np.diff(grams.indptr)
        start += len(texts)
    return _Signatures(bands, marks, counts)


def _alike(grams: _Grams, signed: _Signatures) -> np.ndarray:
    """(n,) a number of each text's group, below n."""
    label = np.arange(len(signed.counts))
    for left, right in _candidates(signed.bands):
        apart = label[left] != label[right]
        left, right = left[apart], right[apart]
        marked = _marked_alike(signed.marks, left, right)
        left, right = left[marked], right[marked]
        alike = _overlap(grams, left, right) >= ALIKE
        label = _joined(label, left[alike], right[alike])
    return label


def _in_a_bucket(bands: np.ndarray) -> np.ndarray:
    """(n,) bool: whether a text shares a band with another."""
    found = np.zeros(len(bands), bool)
    for band in bands.T:
        order = np.argsort(band, kind="stable")
        same = band[order[1:]] == band[order[:-1]]
        found[order[1:][same]] = found[order[:-1][same]] = True
    return found


def _candidates(bands: np.ndarray) -> Iterator[Pairs]:
    """Pairs of texts that share a band, band by band.

    In a bucket, those whose next band is alike lie beside each other.
    """
    for number in range(BANDS):
        band = bands[:, number]
        order = np.lexsort((bands[:, (number + 1) % BANDS], band))
        for step in range(1, BESIDE + 1):
            left, right = order[:-step], order[step:]
            same = band[left] == band[right]
            if not same.any():
                break
            yield left[same], right[same]


def _marked_alike(marks: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(p,) bool: whether so many marks of a pair are equal that its overlap may be ALIKE."""
    found = np.zeros(len(left), bool)
    for some in _some(len(left)):
        equal = marks[left[some]] == marks[right[some]]
        found[some] = equal.sum(axis=1) >= MARKED * marks.shape[1]
    return found


def _overlap(grams: _Grams, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(p,) Jaccard overlap of pairs of texts."""
    found = np.zeros(len(left))
    for some in _some(len(left)):
        a, b = grams.of(left[some]), grams.of(right[some])
        shared = np.asarray(a.multiply(b).sum(axis=1)).ravel()
        either = np.diff(a.indptr) + np.diff(b.indptr) - shared
        found[some] = shared / np.maximum(either, 1)
    return found


def _some(count: int) -> Iterator[slice]:
    """Where PAIRS of so many begin and end."""
    return (slice(start, start + PAIRS) for start in range(0, count, PAIRS))


def _joined(label: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The labels with those of each pair made one."""
    if not len(left):
        return label
    edges = (np.ones(len(left)), (label[left], label[right]))
    graph = csr_matrix(edges, shape=(len(label), len(label)))
    return np.asarray(connected_components(graph, directed=False)[1][label])


def _grams(texts: list[str]) -> csr_matrix:
    """(n, 2^BITS) which character 5-grams each text holds, by their hashes.

    A word is padded with a space at both ends, its 5-grams stay within it, and a shorter one is
    a gram itself: as scikit-learn's analyzer char_wb, for all texts at once.
    """
    padded = [f" {'  '.join(text.lower().split())} " for text in texts]
    row = np.repeat(np.arange(len(texts)), [len(text) for text in padded])
    ends = " " * GRAM  # so that every place has as many marks behind it
    joined = ("".join(padded) + ends).encode("utf-32-le", "surrogatepass")
    marks = np.frombuffer(joined, np.uint32).astype(np.uint64)
    # Where a word ends: its own space and that of the next one, or of the next text, meet.
    end = (marks[:-1] == ord(" ")) & (marks[1:] == ord(" "))
    begins = np.concatenate([[True], end[: len(row) - 1]])
    within, number = np.ones(len(row), bool), np.zeros(len(row), np.uint64)
    for k, factor in enumerate(FACTORS):
        number += np.where(within, marks[k : len(row) + k] * factor, 0).astype(np.uint64)
        if k == 1:
            word = begins & within  # begins one, and not with the space behind the last
        if k < GRAM - 1:
            within &= ~end[k : len(row) + k]
    taken = within | word
    key = np.sort((row[taken] << BITS) | (number[taken] >> np.uint64(64 - BITS)).astype(np.int64))
    key = key[np.diff(key, prepend=-1) > 0]  # as np.unique, which hashes and takes far longer
    counts = np.bincount(key >> BITS, minlength=len(texts))
    pointers = np.concatenate([[0], np.cumsum(counts)])
    shape = (len(texts), 1 << BITS)
    return csr_matrix((np.ones(len(key), np.float32), key & (shape[1] - 1), pointers), shape=shape)


def alike_between(ours: list[str], theirs: Iterable[list[str]]) -> Iterator[tuple[int, int, float]]:
    """Near-duplicates of two sets of texts: (position in ours, position in theirs, overlap).

    All pairs are compared, block by block of theirs; the overlap is at least ALIKE.
    """
    left = _grams(ours)
    size, start = np.asarray(left.sum(axis=1)), 0
    for block in theirs:
        right = _grams(block)
        shared = (left @ right.T).toarray()
        overlap = shared / np.maximum(size + np.asarray(right.sum(axis=1)).T - shared, 1)
        for i, j in np.argwhere(overlap >= ALIKE):
            yield int(i), start + int(j), float(overlap[i, j])
        start += len(block)
