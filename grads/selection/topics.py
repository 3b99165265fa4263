"""Topics and near-duplicates from the scoring pass's features.

A sample's feature is the mean of its hidden states over response positions, reduced to 64 numbers.
Clusters are topics, named by the terms that set their texts apart (class-based TF-IDF; character
n-grams for Chinese and its like). Near-duplicates are close in feature space and share most of
their character n-grams.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import (
    ENGLISH_STOP_WORDS,
    CountVectorizer,
    HashingVectorizer,
)
from sklearn.neighbors import NearestNeighbors

FEATURES = 64
MOST_CLUSTERS = 24
TERMS = 6
SET_APART = 1.25  # how much more frequent in its cluster than in the others a term must be
LARGE = 20_000  # samples above which k-means takes mini-batches
CELL = 2_000  # samples among which near-duplicates are looked for at once
NEIGHBOURS = 8
ALIKE = 0.7  # Jaccard overlap of character 5-grams from which two texts are near-duplicates
CJK = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"


@dataclass(frozen=True)
class Clusters:
    """k topics over n samples; cluster 0 is the largest."""

    label: np.ndarray  # (n,) int32
    sizes: list[int]  # (k,)
    terms: list[list[str]]  # (k,) the terms that set each apart, best first


def reduce_features(features: np.ndarray, seed: int) -> np.ndarray:
    """(n, width) -> (n, <= 64) float32 by principal components, signs fixed."""
    width = min(FEATURES, *features.shape)
    reduced = PCA(width, svd_solver="auto", random_state=seed).fit_transform(features)
    return np.asarray(reduced, dtype=np.float32)


def default_count(n: int) -> int:
    """How many clusters a pool of n samples gets: about the root of n / 2, at most 24."""
    return int(np.clip(round((n / 2) ** 0.5), 1, MOST_CLUSTERS))


def find_clusters(features: np.ndarray, texts: list[str], seed: int, k: int | None) -> Clusters:
    """k-means on the features (n, f), seeded, largest first, with the terms of each."""
    n = len(features)
    k = min(k or default_count(n), len(np.unique(features, axis=0)))
    label = _k_means(features, k, seed)
    order = np.argsort(-np.bincount(label, minlength=k), kind="stable")
    rank = np.empty(k, dtype=np.int32)
    rank[order] = np.arange(k)
    label = rank[label]
    return Clusters(label, np.bincount(label, minlength=k).tolist(), cluster_terms(texts, label, k))


def _k_means(features: np.ndarray, k: int, seed: int) -> np.ndarray:
    kind = MiniBatchKMeans if len(features) > LARGE else KMeans
    return np.asarray(kind(k, random_state=seed, n_init=4).fit_predict(features))


def cluster_terms(texts: list[str], label: np.ndarray, k: int) -> list[list[str]]:
    """Class-based TF-IDF: terms frequent in a cluster and rare over all clusters."""
    joined = [" ".join(texts[i] for i in np.flatnonzero(label == c)) for c in range(k)]
    counter = CountVectorizer(analyzer=_terms, max_features=50_000)
    try:
        counts = counter.fit_transform(joined).toarray().astype(float)
    except ValueError:  # nothing but stop words or punctuation
        return [[] for _ in range(k)]
    words = counter.get_feature_names_out()
    frequency = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rarity = np.log1p(counts.sum(axis=1).mean() / counts.sum(axis=0))
    others = counts.sum(axis=0) - counts
    elsewhere = others / np.maximum(others.sum(axis=1, keepdims=True), 1)
    typical = frequency > SET_APART * elsewhere
    weight = frequency * rarity * typical
    ranked = [np.argsort(-row, kind="stable")[: np.count_nonzero(row)] for row in weight]
    return [_distinct([words[i] for i in order]) for order in ranked]


def _terms(text: str) -> Iterator[str]:
    """Words that are no stop words; for scripts without spaces, runs of 2 to 4 characters."""
    for run in re.findall(f"{CJK}+", text):
        for size in (2, 3, 4):
            yield from (run[i : i + size] for i in range(len(run) - size + 1))
    # An apostrophe beside it makes a word half of a contraction.
    words = re.findall(r"(?<![\w'’])[^\W\d_]{3,}(?![\w'’])", re.sub(CJK, " ", text.lower()))
    yield from (word for word in words if word not in ENGLISH_STOP_WORDS)


def _distinct(terms: list[str]) -> list[str]:
    """The first terms that do not lie within one another."""
    chosen: list[str] = []
    for term in terms[: 20 * TERMS]:
        if not any(term in other or other in term for other in chosen):
            chosen.append(term)
        if len(chosen) == TERMS:
            break
    return chosen


def near_duplicates(features: np.ndarray, texts: list[str], seed: int) -> np.ndarray:
    """(n,) group of each sample: samples of one group are near-duplicates; -1 has no other."""
    n = len(features)
    pairs = [
        pair
        for cell in _cells(features, seed)
        if len(cell) > 1
        for pair in _alike(cell, features[cell], [texts[i] for i in cell])
    ]
    group = np.full(n, -1, dtype=np.int64)
    if not pairs:
        return group
    left, right = np.array(pairs).T
    graph = csr_matrix((np.ones(len(pairs)), (left, right)), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    members = np.unique(np.concatenate([left, right]))
    first = {c: i for i, c in zip(members[::-1], component[members[::-1]], strict=True)}
    group[members] = [first[c] for c in component[members]]
    return group


def _cells(features: np.ndarray, seed: int) -> list[np.ndarray]:
    count = max(1, len(features) // CELL)
    label = _k_means(features, count, seed) if count > 1 else np.zeros(len(features), int)
    return [np.flatnonzero(label == c) for c in range(count)]


def _alike(cell: np.ndarray, features: np.ndarray, texts: list[str]) -> Iterator[tuple[int, int]]:
    """Pairs of a cell whose texts overlap, among each sample's nearest neighbours."""
    hashed = _grams(texts)
    sizes = np.asarray(hashed.sum(axis=1)).ravel()
    finder = NearestNeighbors(n_neighbors=min(NEIGHBOURS + 1, len(cell))).fit(features)
    near = finder.kneighbors(return_distance=False, n_neighbors=min(NEIGHBOURS, len(cell) - 1))
    left = np.repeat(np.arange(len(cell)), near.shape[1])
    right = near.ravel()
    shared = np.asarray(hashed[left].multiply(hashed[right]).sum(axis=1)).ravel()
    union = sizes[left] + sizes[right] - shared
    for i in np.flatnonzero(shared >= ALIKE * np.maximum(union, 1)):
        yield int(cell[left[i]]), int(cell[right[i]])


def _grams(texts: list[str]) -> csr_matrix:
    """(n, buckets) which character 5-grams each text holds."""
    vectorizer = HashingVectorizer(
        analyzer="char_wb", ngram_range=(5, 5), binary=True, norm=None, alternate_sign=False
    )
    return vectorizer.transform(texts)


def alike_between(ours: list[str], theirs: list[str]) -> list[tuple[int, int, float]]:
    """Near-duplicates of two sets of texts: (position in ours, position in theirs, overlap).

    All pairs are compared, one of our texts at a time; the overlap is at least ALIKE.
    """
    left, right = _grams(ours), _grams(theirs)
    sizes = np.asarray(right.sum(axis=1)).ravel()
    right = right.T.tocsr()
    found = []
    for i in range(len(ours)):
        row = left[i]
        shared = (row @ right).toarray().ravel()
        overlap = shared / np.maximum(row.sum() + sizes - shared, 1)
        found += [(i, int(j), float(overlap[j])) for j in np.flatnonzero(overlap >= ALIKE)]
    return found
