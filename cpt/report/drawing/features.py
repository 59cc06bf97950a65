"""Text features of a run's classes, their clusters and the measures that figures print about them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cpt.errors import CptError
from cpt.features.clusters import SCHEMA
from cpt.files.paths import CLASSIFIER, TEXT_FEATURES
from cpt.files.stage_files import read_parquet, read_tensors
from cpt.report.drawing import style
from cpt.results.cells import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage


class Clusters(NamedTuple):
    """Clusters of the trained classes, in label order: names (K) and cluster numbers (K,)."""

    names: Sequence[str]
    of_class: np.ndarray

    def order(self) -> np.ndarray:
        """Return the labels sorted by cluster, (K,)."""
        return np.argsort(self.of_class, kind="stable")

    def bounds(self) -> list[tuple[int, int]]:
        """Return first and last+1 position of every cluster in ``order``."""
        edges = [0, *np.cumsum(np.unique(self.of_class, return_counts=True)[1]).tolist()]
        return list(itertools.pairwise(edges))


def read_clusters(results: Results, run: str) -> Clusters | None:
    """Return the clusters that a run was trained with; None for a method without clusters."""
    path = results.run(run)["clusters"]
    if path is None:
        return None
    table, _ = read_parquet(results.folder / path, SCHEMA)  # the room's own reader needs the centroids beside it
    rows = sorted(zip(*(table[name].to_pylist() for name in ("label", "class_name", "cluster")), strict=True))
    return Clusters([name for _, name, _ in rows], np.array([cluster for _, _, cluster in rows], dtype=np.int64))


def tuned_features(results: Results, cell: Mapping[str, Any]) -> np.ndarray | None:
    """Return the normalized text features of the trained classes after a cell's first run, (K, D).

    None where the run is not finished.

    Raises:
        CptError: the run keeps no text features (its classifier depends on the image).
    """
    run = cell["runs"][0]
    if run not in results.finished:
        return None
    path = results.folder / "runs" / run / "classifier.safetensors"
    tensors, _ = read_tensors(path, CLASSIFIER)
    name = f"{cell['dataset']}/{'base' if cell['task'] == 'base_to_new' else 'all'}"
    if name not in tensors:
        raise CptError(f"{path}: no text features {name!r}; choose a method whose text features are fixed")
    return normalize(tensors[name].double().numpy())


def frozen_features(results: Results, run: str) -> np.ndarray:
    """Return the normalized frozen text features of all classes of a run's dataset, (C, D)."""
    tensors, _ = read_tensors(results.folder / results.run(run)["text_features"], TEXT_FEATURES)
    return normalize(tensors["features"].double().numpy())


def normalize(features: np.ndarray) -> np.ndarray:
    """Return rows of length one, (K, D)."""
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def effective_rank(cosines: np.ndarray) -> float:
    """Return exp of the entropy of the normalized eigenvalues of a cosine matrix (K, K): 1 to K.

    ``cpt.metrics.geometry`` has the same of features. Here only their cosines are left, and torch stays out of the
    imports.
    """
    shares = np.clip(np.linalg.eigvalsh(cosines), 0, None)
    shares = shares[shares > 0] / shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def draw_cosines(axes: Axes, cosines: np.ndarray, clusters: Clusters | None, lowest: float) -> AxesImage:
    """Draw a cosine matrix (K, K) with its classes ordered by cluster and every cluster's block outlined."""
    from matplotlib.patches import Rectangle

    if clusters is not None:
        cosines = cosines[np.ix_(clusters.order(), clusters.order())]
    image = axes.imshow(cosines, cmap=style.SEQUENTIAL, vmin=lowest, vmax=1, interpolation="none")
    for first, last in clusters.bounds() if clusters is not None else ():
        block = Rectangle((first - 0.5, first - 0.5), last - first, last - first, fill=False, ec="white", lw=0.9)
        axes.add_patch(block)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return image
