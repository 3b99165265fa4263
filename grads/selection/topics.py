"""Topics from the scoring pass's features.

A sample's feature is the mean of its hidden states over response positions, reduced to 64 numbers.
Clusters are topics, named by the terms that set their texts apart (class-based TF-IDF; character
n-grams for Chinese and its like).
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

FEATURES = 64
MOST_CLUSTERS = 24
TERMS = 6
SET_APART = 1.25  # how much more frequent in its cluster than in the others a term must be
LARGE = 20_000  # samples above which k-means takes mini-batches
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


def find_clusters(features: np.ndarray, texts: Iterable[str], seed: int, k: int | None) -> Clusters:
    """k-means on the features (n, f), seeded, largest first, with the terms of each.

    The n texts are read once, one at a time.
    """
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


def cluster_terms(texts: Iterable[str], label: np.ndarray, k: int) -> list[list[str]]:
    """Class-based TF-IDF: terms frequent in a cluster and rare over all clusters."""
    said = [Counter[str]() for _ in range(k)]
    for text, cluster in zip(texts, label, strict=True):
        said[cluster].update(_terms(text))
    counter = CountVectorizer(analyzer=Counter.elements, max_features=50_000)
    try:
        counts = counter.fit_transform(said).toarray().astype(float)
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
