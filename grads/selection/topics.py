"""Topics from the scoring pass's features.

A sample's feature is the mean of its hidden states over response positions, reduced to 64 numbers.
Clusters are topics, named by the terms that set their texts apart (class-based TF-IDF over how
many texts hold a term; runs of characters for Chinese and its like). Texts that are damaged are a
topic of their own.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from grads.selection.broken import is_broken

FEATURES = 64
MOST_CLUSTERS = 24
TERMS = 6
SET_APART = 1.25  # how much more frequent in its cluster than in the others a term must be
SAID_TWICE = 3  # texts of a cluster from which one that holds a term is not enough
READ = 2_000  # texts of a cluster that its terms are looked for in
PART_OF = 0.7  # of the texts with a term that hold a longer one around it: then it is a fragment
LARGE = 20_000  # samples above which k-means takes mini-batches
HAN = r"[\u3005\u3400-\u9fff]"
KATAKANA = r"[\u30a1-\u30fa\u30fc]"
HANGUL = r"[\uac00-\ud7af]"
CJK = r"[\u3005\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
# Chinese characters of grammar: a term neither begins nor ends with one.
GRAMMAR = frozenset("的了吗呢吧啊呀们和与及或也而但被把这那是我你他她它")


@dataclass(frozen=True)
class Clusters:
    """k topics over n samples; cluster 0 is the largest."""

    label: np.ndarray  # (n,) int32
    sizes: list[int]  # (k,)
    terms: list[list[str]]  # (k,) the terms that set each apart, best first
    broken: int | None = None  # which of them holds the damaged texts


@dataclass(frozen=True)
class Components:
    """The principal components of n samples' features."""

    mean: np.ndarray  # (width,) float64
    axes: np.ndarray  # (width, <= 64) float64; the largest weight of each is positive

    def of(self, features: np.ndarray) -> np.ndarray:
        """(m, width) -> (m, <= 64) float32."""
        return np.asarray((features - self.mean) @ self.axes, dtype=np.float32)


def principal_components(blocks: Iterable[np.ndarray]) -> Components:
    """Of n rows that come as blocks (m, width), which are read once and never held together.

    From their covariance in float64, which is exact enough for features in float32.
    """
    count, total, products = 0, np.zeros(1), np.zeros((1, 1))
    for block in blocks:
        rows = block.astype(np.float64)
        count += len(rows)
        total = total + rows.sum(axis=0)
        products = products + rows.T @ rows
    mean = total / count
    _, axes = np.linalg.eigh(products - count * np.outer(mean, mean))  # smallest variance first
    axes = axes[:, ::-1][:, : min(FEATURES, count, len(mean))]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    return Components(mean, axes * np.sign(largest))


def default_count(n: int) -> int:
    """How many clusters a pool of n samples gets: about the root of n / 2, at most 24."""
    return int(np.clip(round((n / 2) ** 0.5), 1, MOST_CLUSTERS))


def find_clusters(features: np.ndarray, texts: Iterable[str], seed: int, k: int | None) -> Clusters:
    """k-means on the features (n, f), seeded, largest first, with the terms of each.

    The n texts are read twice, one at a time. Damaged ones are a further cluster, whatever their
    features.
    """
    broken = np.fromiter(map(is_broken, texts), dtype=bool)
    label = np.full(len(features), -1)
    whole = np.flatnonzero(~broken)
    if len(whole):
        found = features[whole] if broken.any() else features
        wanted = _distinct_rows(found, k or default_count(len(whole)))
        label[whole] = _k_means(found, wanted, seed)
    label[broken] = label.max() + 1
    k = int(label.max()) + 1
    order = np.argsort(-np.bincount(label, minlength=k), kind="stable")
    rank = np.empty(k, dtype=np.int32)
    rank[order] = np.arange(k)
    label = rank[label]
    apart = int(label[broken][0]) if broken.any() else None
    terms = cluster_terms(texts, label, k)
    if apart is not None:
        terms[apart] = []
    return Clusters(label, np.bincount(label, minlength=k).tolist(), terms, apart)


def _distinct_rows(features: np.ndarray, most: int) -> int:
    """How many rows of (n, f) differ, counted up to `most`."""
    seen: set[bytes] = set()
    for row in features:
        seen.add((row + 0.0).tobytes())  # -0.0 is 0.0
        if len(seen) == most:
            break
    return len(seen)


def _k_means(features: np.ndarray, k: int, seed: int) -> np.ndarray:
    kind = MiniBatchKMeans if len(features) > LARGE else KMeans
    return np.asarray(kind(k, random_state=seed, n_init=4).fit_predict(features))


def cluster_terms(texts: Iterable[str], label: np.ndarray, k: int) -> list[list[str]]:
    """Class-based TF-IDF: terms that many texts of a cluster hold, and few of the others."""
    read = [_evenly(np.flatnonzero(label == c)) for c in range(k)]
    wanted = np.isin(np.arange(len(label)), np.concatenate(read))
    held = {i: text for i, text in enumerate(texts) if wanted[i]}
    counter = CountVectorizer(analyzer=_terms, max_features=50_000, binary=True)
    try:
        found = counter.fit_transform([held[i] for members in read for i in members.tolist()])
    except ValueError:  # nothing but stop words or punctuation
        return [[] for _ in range(k)]
    words = counter.get_feature_names_out()
    sizes = np.array([[len(members)] for members in read])
    ends = np.cumsum(sizes)[:-1]
    parts = np.split(np.arange(found.shape[0]), ends)
    counts = np.array([np.asarray(found[part].sum(axis=0)).ravel() for part in parts], float)
    frequency = counts / np.maximum(sizes, 1)
    others = (counts.sum(axis=0) - counts) / np.maximum(sizes.sum() - sizes, 1)
    rarity = np.log1p(frequency / np.maximum(others, 0.5 / sizes.sum()))
    often = (counts > 1) | (sizes < SAID_TWICE)
    weight = frequency * rarity * (frequency > SET_APART * others) * often
    return [
        _distinct([(words[i], row[i]) for i in np.argsort(-mark, kind="stable") if mark[i]])
        for mark, row in zip(weight, counts, strict=True)
    ]


def _evenly(members: np.ndarray) -> np.ndarray:
    """At most READ of them, evenly from all."""
    if len(members) <= READ:
        return members
    return np.asarray(members[np.linspace(0, len(members) - 1, READ).astype(int)])


def _terms(text: str) -> Iterator[str]:
    """Words that are no stop words; for scripts without spaces, runs of 2 to 4 characters.

    Of Japanese those are of Chinese characters; words in katakana are words, hiragana is grammar.
    """
    for run in re.findall(f"{HAN}+|{HANGUL}+", text):
        for size in (2, 3, 4):
            for i in range(len(run) - size + 1):
                if not GRAMMAR & {run[i], run[i + size - 1]}:
                    yield run[i : i + size]
    yield from re.findall(f"{KATAKANA}{{2,}}", text)
    # An apostrophe beside it makes a word half of a contraction.
    words = re.findall(r"(?<![\w'’])[^\W\d_]{3,}(?![\w'’])", re.sub(CJK, " ", text.lower()))
    yield from (word for word in words if word not in ENGLISH_STOP_WORDS)


def _distinct(ranked: list[tuple[str, float]]) -> list[str]:
    """The first terms that are no fragments of others and do not lie within one another.

    `ranked` are terms, the best first, each with how many texts hold it.
    """
    chosen: list[str] = []
    ranked = ranked[: 20 * TERMS]
    for term, count in ranked:
        longer = (other for other in ranked if term != other[0] and term in other[0])
        if any(with_it >= PART_OF * count for _, with_it in longer):
            continue
        if not any(term in other or other in term for other in chosen):
            chosen.append(term)
        if len(chosen) == TERMS:
            break
    return chosen
