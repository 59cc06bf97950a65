"""Figure 2: the method as it really ran, from one run's features before and after tuning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from cpt.errors import CptError
from cpt.experiment.exhibits import Cell, Exhibit, Experiment, Place
from cpt.report.drawing import style
from cpt.report.drawing.features import Clusters, draw_cosines, frozen_features, read_clusters, tuned_features
from cpt.results.cells import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

HEADER = ("panel", "class", "other_class", "cluster", "x", "y", "cosine")
MOST_LABELS = 40


class MethodPicture(Exhibit):
    """The method as it really ran, from one run (Figure 2)."""

    kind: Literal["method"]
    variant: str = Field(description="what was trained")
    dataset: str = Field(description="on what")

    def named_variants(self) -> Mapping[str, Sequence[str]]:
        """Its one row."""
        return {"variant": [self.variant]}

    def named_datasets(self) -> Mapping[str, Sequence[str]]:
        """The one that it shows, too."""
        return {**super().named_datasets(), "dataset": [self.dataset]}

    def cells(self, experiment: Experiment) -> Iterator[Cell]:
        """One run."""
        place = Place(self.dataset, self.dataset)
        yield Cell(self.variant, "base_to_new", place, experiment.ratios[0], experiment.seeds[:1])


class Plane(NamedTuple):
    """The two principal directions of some features: mean (D,), axes (2, D), shares of the variance (2,)."""

    mean: np.ndarray
    axes: np.ndarray
    shares: np.ndarray

    def project(self, features: np.ndarray) -> np.ndarray:
        """Return the coordinates of features (N, D) in the plane, (N, 2)."""
        return (features - self.mean) @ self.axes.T


def draw(results: Results, exhibit: Mapping[str, Any]) -> style.Drawing:
    """Draw prototypes and clusters before and after tuning, and the cosines between classes."""
    cell = exhibit["cells"][0]
    run = cell["runs"][0]
    figure = style.new_figure(style.FULL_WIDTH, 7.2)
    tuned = tuned_features(results, cell)
    if tuned is None:
        axes = figure.subplots()
        style.empty_panel(axes)
        axes.set_axis_off()
        return style.Drawing(figure, HEADER, [])
    clusters = read_clusters(results, run)
    if clusters is None:
        raise CptError(f"grid.json: {exhibit['name']} needs a run of a method with clusters, {run} has none")
    frozen = frozen_features(results, run)[: len(clusters.names)]

    (before, after), matrices = figure.subplots(2, 2, height_ratios=(1.3, 1))
    plane = principal_plane(frozen)
    rows = _draw_prototypes(before, after, plane, frozen, tuned, clusters)
    found, image = _draw_matrices(matrices, frozen @ frozen.T, tuned @ tuned.T, clusters)
    rows += found
    figure.colorbar(image, ax=list(matrices), label="cosine similarity", location="bottom", shrink=0.5, aspect=30)
    _name_classes(before, plane.project(frozen), clusters)
    note = (
        f"One run (n = 1, seed {results.run(run)['seed']}), no error bars. (a, b) in the two principal directions of "
        "the frozen features; color and mark: cluster. Simplex: the cosine of the k classes of a cluster at equal, "
        f"maximal angles, −1/(k−1). {_moved(frozen @ frozen.T, tuned @ tuned.T, clusters)}"
    )
    return style.Drawing(figure, HEADER, rows, note.strip())


# ---- prototypes in the plane -------------------------------------------------------------------


def principal_plane(features: np.ndarray) -> Plane:
    """Return the plane of largest variance of features (N, D), each axis with its largest entry positive."""
    mean = features.mean(axis=0)
    _, singular, directions = np.linalg.svd(features - mean, full_matrices=True)
    axes = directions[:2]
    axes = axes * np.sign(axes[np.arange(2), np.abs(axes).argmax(axis=1)])[:, None]
    variance = np.zeros(2)
    variance[: len(singular[:2])] = singular[:2] ** 2
    return Plane(mean, axes, variance / max((singular**2).sum(), 1e-12))


def _draw_prototypes(
    before: Axes, after: Axes, plane: Plane, frozen: np.ndarray, tuned: np.ndarray, clusters: Clusters
) -> list[tuple]:
    from matplotlib.collections import LineCollection

    old, new = plane.project(frozen), plane.project(tuned)
    rows: list[tuple] = []
    for panel, axes, points in (("frozen", before, old), ("tuned", after, new)):
        for m in np.unique(clusters.of_class).tolist():
            members = clusters.of_class == m
            look = style.look(m)
            axes.scatter(
                points[members, 0],
                points[members, 1],
                s=16,
                color=look.color,
                marker=look.marker,
                linewidth=0,
                zorder=3,
            )
            if panel == "frozen":
                x, y = points[members].mean(axis=0).tolist()
                axes.scatter(x, y, s=70, color=look.color, marker="+", linewidth=1.0, zorder=2)
                rows.append(("centroid", None, None, m, x, y, None))
        rows += [
            (panel, name, None, int(m), float(x), float(y), None)
            for name, m, (x, y) in zip(clusters.names, clusters.of_class, points, strict=True)
        ]
        axes.set_xlabel(f"component 1 ({100 * plane.shares[0]:.0f} % of the frozen variance)")
    before.set_ylabel(f"component 2 ({100 * plane.shares[1]:.0f} %)")
    _same_limits((before, after), np.concatenate([old, new]))
    colors = [style.look(m).color for m in clusters.of_class.tolist()]
    after.add_collection(LineCollection(list(np.stack([old, new], axis=1)), colors=colors, linewidths=0.5, alpha=0.7))
    after.scatter(old[:, 0], old[:, 1], s=8, facecolor="white", edgecolor=colors, linewidth=0.5, zorder=2)
    after.set_title("(b) after tuning, in the same plane\nlines from the frozen positions (open)")
    return rows


def _same_limits(panels: Sequence[Axes], points: np.ndarray) -> None:
    """Give panels the same limits and scale, around all points (N, 2), so that positions can be compared."""
    lowest, highest = points.min(axis=0), points.max(axis=0)
    room = 0.12 * max(float((highest - lowest).max()), 1e-9)
    for axes in panels:
        axes.set(xlim=(lowest[0] - room, highest[0] + room), ylim=(lowest[1] - room, highest[1] + room))
        axes.set_aspect("equal", adjustable="box")


def _name_classes(axes: Axes, points: np.ndarray, clusters: Clusters) -> None:
    named, count = _named(points, clusters), len(points)
    axes.set_title(
        f"(a) frozen text features\n{count} classes in {len(clusters.bounds())} clusters, + centroids"
        + (f", {len(named)} named" if len(named) < count else "")
    )
    centroids = [points[clusters.of_class == m].mean(axis=0) for m in np.unique(clusters.of_class)]
    from cpt.report.drawing.labels import place_labels

    names = {i: (clusters.names[i], style.darker(style.look(int(clusters.of_class[i])).color)) for i in named}
    place_labels(axes, points, names, np.array(centroids))


def _named(points: np.ndarray, clusters: Clusters) -> list[int]:
    """Return the classes to name: all of them, or those nearest to the centroids when there are too many."""
    distance = np.empty(len(points))
    place = np.empty(len(points), dtype=np.int64)
    for m in np.unique(clusters.of_class):
        members = np.flatnonzero(clusters.of_class == m)
        distance[members] = np.linalg.norm(points[members] - points[members].mean(axis=0), axis=1)
        place[members[np.argsort(distance[members], kind="stable")]] = np.arange(len(members))
    return np.lexsort((distance, place))[:MOST_LABELS].tolist()


# ---- cosines -----------------------------------------------------------------------------------


def _draw_matrices(
    panels: Sequence[Axes], before: np.ndarray, after: np.ndarray, clusters: Clusters
) -> tuple[list[tuple], AxesImage]:
    """Draw the cosine matrices (K, K) before and after tuning on one scale."""
    lowest, rows = float(min(before.min(), after.min())), []
    for axes, letter, when, cosines in zip(panels, "cd", ("before", "after"), (before, after), strict=True):
        image = draw_cosines(axes, cosines, clusters, lowest)
        axes.set_title(f"({letter}) cosine similarity {when} tuning\n{_within_text(cosines, clusters)}")
        rows += _cosine_rows(f"cosine_{when}", cosines, clusters)
    return rows, image


def within_cluster(cosines: np.ndarray, clusters: Clusters) -> tuple[float, float] | None:
    """Return the mean cosine of two classes of one cluster, and the mean of its target -1/(k-1).

    None when every cluster is a single class. Shapes: cosines (K, K).
    """
    found: list[float] = []
    targets: list[float] = []
    for m in np.unique(clusters.of_class):
        members = np.flatnonzero(clusters.of_class == m)
        pairs = cosines[np.ix_(members, members)][np.triu_indices(len(members), 1)]
        found.extend(pairs.tolist())
        targets.extend(-1 / (len(members) - 1) for _ in pairs)
    return (float(np.mean(found)), float(np.mean(targets))) if found else None


def _within_text(cosines: np.ndarray, clusters: Clusters) -> str:
    measured = within_cluster(cosines, clusters)
    if measured is None:
        return "every cluster is a single class"
    return f"mean within clusters {measured[0]:.2f} (simplex: {measured[1]:.2f})".replace("-", "−")


def _moved(before: np.ndarray, after: np.ndarray, clusters: Clusters) -> str:
    """Return what tuning did to the cosines (K, K) within clusters, as a sentence."""
    old, new = within_cluster(before, clusters), within_cluster(after, clusters)
    if old is None or new is None:
        return ""
    share = 100 * (old[0] - new[0]) / (old[0] - old[1])
    way = f"{share:.1f} % of the way to" if share >= 0 else f"away from (by {-share:.1f} % of the distance)"
    text = f"Tuning moved the mean cosine within clusters from {old[0]:.2f} to {new[0]:.2f}, {way} that of simplices, "
    return f"{text}{old[1]:.2f}.".replace("-", "−")


def _cosine_rows(panel: str, cosines: np.ndarray, clusters: Clusters) -> list[tuple]:
    order = clusters.order().tolist()
    rows = []
    for position, i in enumerate(order):
        for j in order[position + 1 :]:
            same = clusters.of_class[i] == clusters.of_class[j]
            cluster = int(clusters.of_class[i]) if same else None
            rows.append((panel, clusters.names[i], clusters.names[j], cluster, None, None, float(cosines[i, j])))
    return rows
