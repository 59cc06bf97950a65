"""Clustering algorithms: groups of classes with similar frozen text features, and their file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cpt.errors import CptError, nearest
from cpt.files import stage_files as files
from cpt.seeds import numpy_stream, stream_seed

SCHEMA = "cpt.clusters/1"
RESTARTS = 10
ITERATIONS = 300
# Widths of the spectral affinity, in units of the mean 1 - cos between two classes. The cosines of some backbones are
# closer together than those of others, so no absolute width suits all.
WIDTHS = (0.1, 0.3, 1.0, 3.0)

Labels = NDArray[np.int64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Clustering:
    """Clusters of K classes.

    Attributes:
        labels: (K,) cluster of every class, 0..M-1, numbered by first appearance; no cluster is empty.
        centroids: (M, D) float64: as the algorithm defines them.
        objective: distance to the centroid summed over classes: 1 - cos, or squared Euclidean of raw features. Spectral
            clustering minimizes a relaxed cut instead; for it this is only a comparison.
        silhouette: mean cosine silhouette; None if undefined (one cluster, or only singletons).
        width: affinity width that spectral clustering chose, in units of the mean 1 - cos; None for the others.
    """

    labels: Labels
    centroids: Matrix
    objective: float
    silhouette: float | None
    width: float | None = None


@dataclass(frozen=True)
class Algorithm:
    """A way to cluster; ``ALGORITHMS`` names it, and nothing else has to know of it.

    Attributes:
        labels: (K, D) float64 features, number of clusters M with 1 < M < K, seed of the run -> (K,) cluster 0..M-1 of
            every class, none empty; and the width that spectral clustering chose, None for the others.
        centroids: features, labels -> (M, D).
        raw: both get the unchanged features, not their directions.
    """

    labels: Callable[[Matrix, int, int], tuple[Labels, float | None]]
    centroids: Callable[[Matrix, Labels], Matrix]
    raw: bool = False


@dataclass(frozen=True)
class Clusters:
    """Clusters read from files: (K,) ``labels``, ``class_names``, (M, D) float32 ``centroids`` and the metadata."""

    labels: Labels
    class_names: list[str]
    centroids: NDArray[np.float32]
    metadata: dict[str, Any]


def number_of_clusters(classes: int, *, per: int = 16, fixed: int | None = None) -> int:
    """Return M = max(1, round(K/per)), or ``fixed``, at most K.

    Halves are rounded to even (Python's ``round``): 1000 classes make 62 clusters, not 63.

    Raises:
        CptError: ``per`` or ``fixed`` below 1.
    """
    wanted = per if fixed is None else fixed
    if wanted < 1:
        raise CptError(f"clusters: {wanted} is below 1; give 1 or more")
    return min(classes, max(1, round(classes / per)) if fixed is None else fixed)


def mine(features: ArrayLike, algorithm: str, clusters: int, seed: int) -> Clustering:
    """Group classes by their features.

    Args:
        features: (K, D) frozen text features.
        algorithm: a name of ``ALGORITHMS``.
        clusters: M, at least 1 and at most K.
        seed: the run's seed.

    Raises:
        CptError: unknown algorithm, impossible M, or features that are not finite or zero.
    """
    if algorithm not in ALGORITHMS:
        raise CptError(f"algorithm: unknown {algorithm!r}; {nearest(algorithm, ALGORITHMS)}")
    raw = np.asarray(features, dtype=np.float64)
    if not 1 <= clusters <= len(raw):
        raise CptError(f"clusters: {clusters} clusters of {len(raw)} classes; give 1 to {len(raw)}")
    norms = np.linalg.norm(raw, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise CptError("features: some are zero, infinite or NaN; compute the text features again")
    chosen, unit = ALGORITHMS[algorithm], raw / norms
    space = raw if chosen.raw else unit
    width = None
    if clusters == 1:
        labels = np.zeros(len(raw), dtype=np.int64)
    elif clusters == len(raw):
        labels = np.arange(len(raw))
    else:
        labels, width = chosen.labels(space, clusters, seed)
    labels = by_first_appearance(labels)
    centroids = chosen.centroids(space, labels)
    distances = np.square(space - centroids[labels]) / (1 if chosen.raw else 2)  # of directions: 1 - cos
    return Clustering(labels, centroids, float(distances.sum()), cosine_silhouette(unit, labels), width)


def spherical(unit: Matrix, clusters: int, seed: int) -> tuple[Labels, None]:
    """k-means on the sphere: nearest by cosine, centroid = normalized mean, k-means++ starts; best of ten restarts."""
    dissimilarity = _dissimilarity(unit)
    streams = [numpy_stream(seed, "clusters", restart) for restart in range(RESTARTS)]
    found = [_lloyd(unit, unit[_starts(dissimilarity, clusters, stream)]) for stream in streams]
    return min(found, key=lambda result: result[1])[0], None


def euclidean(raw: Matrix, clusters: int, seed: int) -> tuple[Labels, None]:
    """scikit-learn's k-means on the unchanged features."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # empty clusters are filled below
        labels = KMeans(clusters, n_init=RESTARTS, random_state=_sklearn_seed(seed)).fit_predict(raw)
    return _filled(labels, clusters, np.linalg.norm(raw, axis=1)), None


def spectral(unit: Matrix, clusters: int, seed: int) -> tuple[Labels, float]:
    """scikit-learn's spectral clustering of exp((cos - 1)/σ), with σ of ``WIDTHS`` chosen by cosine silhouette."""
    from sklearn.cluster import SpectralClustering

    dissimilarity = _dissimilarity(unit)
    unit_width = dissimilarity.sum() / (len(unit) * (len(unit) - 1)) or 1.0
    results = []
    for width in WIDTHS:
        model = SpectralClustering(clusters, affinity="precomputed", n_init=RESTARTS, random_state=_sklearn_seed(seed))
        labels = model.fit_predict(np.exp(-dissimilarity / (width * unit_width)))
        labels = _filled(labels, clusters, dissimilarity.mean(axis=1))
        results.append((cosine_silhouette(unit, labels) or 0.0, width, labels))
    _, width, labels = max(results, key=lambda result: result[0])
    return labels, width


def kmedoids(unit: Matrix, clusters: int, seed: int) -> tuple[Labels, None]:
    """Partitioning around medoids (BUILD and SWAP) with the dissimilarity 1 - cos; uses no randomness.

    Source: Kaufman and Rousseeuw, "Finding Groups in Data", 1990. The cost of every swap is evaluated at once from
    the nearest and second nearest medoid (Schubert and Rousseeuw, "Faster k-Medoids Clustering", 2019).
    """
    d = _dissimilarity(unit)
    medoids: list[int] = []
    nearest_distance = np.full(len(d), np.inf)
    for _ in range(clusters):
        cost = np.minimum(d, nearest_distance).sum(axis=1)
        cost[medoids] = np.inf
        medoids.append(int(cost.argmin()))
        nearest_distance = np.minimum(nearest_distance, d[medoids[-1]])
    while True:
        to_medoids = d[:, medoids]
        owner = to_medoids.argmin(axis=1)
        nearest_distance, second = np.sort(to_medoids, axis=1)[:, :2].T
        # change[j, m]: change of the total cost when point j replaces medoid m. A point keeps its medoid or moves to j.
        # If m was its medoid, it moves to j or to its second nearest medoid.
        stays = np.minimum(d - nearest_distance, 0)
        goes = np.minimum(d, second) - nearest_distance
        change = stays.sum(axis=1, keepdims=True) + (goes - stays) @ np.eye(clusters)[owner]
        change[medoids] = np.inf
        point, replaced = np.unravel_index(change.argmin(), change.shape)
        if change[point, replaced] > -1e-10:
            break
        medoids[replaced] = int(point)
    owner[medoids] = np.arange(clusters)  # two medoids can be equal points; each keeps its own cluster
    return owner, None


def cosine_silhouette(unit: Matrix, labels: Labels) -> float | None:
    """Return the mean silhouette with the dissimilarity 1 - cos; None with one cluster or only singletons.

    A class alone in its cluster counts as 0. Source: Rousseeuw, J. Comput. Appl. Math. 20, 1987.

    Args:
        unit: (K, D) normalized features.
        labels: (K,) clusters, 0..M-1 without gaps.
    """
    sizes = np.bincount(labels)
    if not 1 < len(sizes) < len(labels):
        return None
    rows = np.arange(len(labels))
    sums = _dissimilarity(unit) @ np.eye(len(sizes))[labels]
    inside = sums[rows, labels] / np.maximum(sizes[labels] - 1, 1)
    means = sums / sizes
    means[rows, labels] = np.inf
    outside = means.min(axis=1)
    larger = np.maximum(inside, outside)
    alone_or_equal = (sizes[labels] == 1) | (larger == 0)
    return float(np.where(alone_or_equal, 0, (outside - inside) / np.where(larger == 0, 1, larger)).mean())


def by_first_appearance(labels: ArrayLike) -> Labels:
    """Renumber clusters 0, 1, … in the order in which they first appear."""
    _, first, inverse = np.unique(np.asarray(labels), return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


def write_clusters(
    path: Path,
    clustering: Clustering,
    class_names: Sequence[str],
    *,
    algorithm: str,
    seed: int,
    **settings: object,
) -> None:
    """Write the centroids as ``s<seed>.safetensors``, then the clusters beside them as ``s<seed>.parquet``.

    Args:
        path: the Parquet file.
        clustering: what ``mine`` returned.
        class_names: names of the K classes in label order.
        algorithm: the algorithm used.
        seed: the run's seed.
        settings: further metadata: ``classes_per_cluster`` or ``clusters``, and ``source_hash`` of the features.
    """
    import pyarrow as pa
    import torch

    metadata = {
        "algorithm": algorithm,
        "seed": seed,
        "silhouette": clustering.silhouette,
        "objective": clustering.objective,
        "width": clustering.width,
        **settings,
    }
    labels = clustering.labels
    columns = {"label": np.arange(len(labels)), "class_name": list(class_names), "cluster": labels}
    centroids = torch.from_numpy(clustering.centroids).float()
    files.write_tensors(path.with_suffix(".safetensors"), {"centroids": centroids}, SCHEMA, **metadata)
    files.write_parquet(path, pa.table(columns), SCHEMA, **metadata)


def read_clusters(path: Path) -> Clusters:
    """Read clusters and their centroids.

    Raises:
        CptError: one of the two files is missing, damaged or of another schema.
    """
    table, metadata = files.read_parquet(path, SCHEMA)
    tensors, _ = files.read_tensors(path.with_suffix(".safetensors"), SCHEMA)
    labels = files.column(table, "cluster")
    return Clusters(labels, table["class_name"].to_pylist(), tensors["centroids"].numpy(), metadata)


def _starts(dissimilarity: Matrix, clusters: int, generator: np.random.Generator) -> list[int]:
    """k-means++: draw starts with probability proportional to 1 - cos to the nearest start so far.

    Each start is the best of a few candidates: the one that lowers the sum most, as in scikit-learn.
    """
    classes = len(dissimilarity)
    chosen = [int(generator.integers(classes))]
    gap = dissimilarity[chosen[0]]
    while len(chosen) < clusters:
        weight = gap if gap.any() else np.isin(np.arange(classes), chosen, invert=True)  # only duplicates are left
        candidates = generator.choice(classes, size=2 + int(np.log(clusters)), p=weight / weight.sum())
        left = np.minimum(gap, dissimilarity[candidates])
        best = left.sum(axis=1).argmin()
        chosen.append(int(candidates[best]))
        gap = left[best]
    return chosen


def _lloyd(unit: Matrix, centroids: Matrix) -> tuple[Labels, float]:
    """Alternate assignment and centroids until nothing moves; return labels and the sum of 1 - cos."""
    labels = np.full(len(unit), -1)
    for _ in range(ITERATIONS):
        cosines = unit @ centroids.T
        moved = _filled(cosines.argmax(axis=1), len(centroids), -cosines.max(axis=1))
        if np.array_equal(moved, labels):
            break
        labels = moved
        centroids = directions(unit, labels)
    return labels, float((1 - (unit * centroids[labels]).sum(axis=1)).sum())


def _filled(labels: ArrayLike, clusters: int, outlying: Matrix) -> Labels:
    """Give every empty cluster the most outlying class that is not alone in its own."""
    full = np.array(labels, dtype=np.int64)
    for empty in np.setdiff1d(np.arange(clusters), full):
        shared = np.bincount(full, minlength=clusters)[full] > 1
        full[np.where(shared, outlying, -np.inf).argmax()] = empty
    return full


def means(features: Matrix, labels: Labels) -> Matrix:
    """Return the mean of every cluster, (M, D)."""
    membership = np.eye(labels.max() + 1)[labels]
    return (membership.T @ features) / membership.sum(axis=0)[:, None]


def directions(unit: Matrix, labels: Labels) -> Matrix:
    """Return the normalized mean of every cluster, (M, D); if its members cancel out, its first member."""
    centers = means(unit, labels)
    norms = np.linalg.norm(centers, axis=1, keepdims=True)
    first = unit[np.unique(labels, return_index=True)[1]]
    canceled = norms < 1e-12
    return np.where(canceled, first, centers / np.where(canceled, 1, norms))


def medoids(unit: Matrix, labels: Labels) -> Matrix:
    """Return the member of every cluster with the smallest total dissimilarity to the others, (M, D)."""
    together = np.where(labels[:, None] == labels, _dissimilarity(unit), 0).sum(axis=1)
    return np.stack(
        [unit[np.where(labels == cluster, together, np.inf).argmin()] for cluster in range(labels.max() + 1)]
    )


def _dissimilarity(unit: Matrix) -> Matrix:
    return np.clip(1 - unit @ unit.T, 0, None) * (1 - np.eye(len(unit)))


def _sklearn_seed(seed: int) -> int:
    return stream_seed(seed, "clusters") % 2**32


ALGORITHMS = {
    "spherical": Algorithm(spherical, directions),
    "euclidean": Algorithm(euclidean, means, raw=True),
    "spectral": Algorithm(spectral, directions),
    "kmedoids": Algorithm(kmedoids, medoids),
}
"""What the hyperparameter ``clustering`` and ``cpt clusters --algorithm`` may name."""
