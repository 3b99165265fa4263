"""A map of the texts: samples that the model reads alike lie side by side.

t-SNE (van der Maaten and Hinton, 2008) by openTSNE of the scoring pass's features, fitted on some
samples; each of the others takes a place among those it is nearest to.
"""

import numpy as np
from openTSNE import TSNE
from sklearn.neighbors import NearestNeighbors

FITTED = 5_000  # samples that the map is fitted on
PERPLEXITY = 30.0  # neighbours that a sample stays close to, about
PLACED_BY = 10  # nearest of the fitted samples, at whose median place another one comes to lie
BLOCK = 20_000  # samples placed at once
FEWEST = 8  # below, there is nothing to fit


def text_map(features: np.ndarray, seed: int) -> np.ndarray:
    """(n, f) features -> (n, 2) float32 places, each axis from -1 to 1; the same for one seed.

    Distances mean something near by alone: t-SNE keeps neighbours, not how far groups lie apart.
    """
    n = len(features)
    if n < FEWEST or features.shape[1] < 2 or not np.ptp(features, axis=0).any():
        first = np.zeros((n, 2))
        first[:, : features.shape[1]] = features[:, :2]
        return _scaled(first)
    draw = np.random.default_rng(seed)
    chosen = np.sort(draw.choice(n, min(n, FITTED), replace=False))
    places = np.empty((n, 2))
    places[chosen] = TSNE(
        perplexity=min(PERPLEXITY, (len(chosen) - 1) / 3),
        initialization="pca",
        neighbors="exact",
        negative_gradient_method="bh",
        random_state=seed,
        n_jobs=1,  # several threads add in any order
    ).fit(np.ascontiguousarray(features[chosen], dtype=np.float64))
    rest = np.setdiff1d(np.arange(n), chosen)
    near = NearestNeighbors(n_neighbors=PLACED_BY, algorithm="brute").fit(features[chosen])
    for start in range(0, len(rest), BLOCK):
        block = rest[start : start + BLOCK]
        found = near.kneighbors(features[block], return_distance=False)
        places[block] = np.median(places[chosen][found], axis=1)
    return _scaled(places)


def _scaled(places: np.ndarray) -> np.ndarray:
    if not len(places):
        return places.astype(np.float32)
    middle = (places.max(axis=0) + places.min(axis=0)) / 2
    reach = np.abs(places - middle).max() or 1.0
    return np.asarray((places - middle) / reach, dtype=np.float32)
