"""Figure 1: what tuning does to the similarity of classes, and how steady accuracy is over epochs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from cpt.experiment.exhibits import Cell, Exhibit, Experiment, Place
from cpt.experiment.sections import Names, Section, Seeds
from cpt.files.paths import METRICS as METRICS_SCHEMA
from cpt.files.stage_files import read_parquet
from cpt.report.drawing import style
from cpt.report.drawing.features import Clusters, draw_cosines, effective_rank, read_clusters, tuned_features
from cpt.report.words import counted
from cpt.results.cells import METRICS, Results, judged_by, over_epochs, row_names, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

HEADER = ("panel", "method", "class", "other_class", "epoch", "seed", "value")


class Stability(Section):
    """Accuracy over the epochs, seed by seed."""

    variants: Names = Field(description="its curves, by name")
    dataset: str = Field(description="trained on")
    epochs: int = Field(15, ge=1, description="epochs of its runs")
    seeds: Seeds | None = Field(None, description="default: those of the figure")


class Similarity(Exhibit):
    """Class similarity matrices and stability over the epochs (Figure 1)."""

    kind: Literal["similarity"]
    variants: Names = Field(description="one heat map each, by name")
    dataset: str = Field(description="trained on")
    stability: Stability = Field(description="the panel of accuracy over the epochs")

    def named_variants(self) -> Mapping[str, Sequence[str]]:
        """Matrices first, then curves."""
        return {"variants": self.variants, "stability.variants": self.stability.variants}

    def named_datasets(self) -> Mapping[str, Sequence[str]]:
        """That of the matrices and that of the curves, too."""
        shown = {"dataset": [self.dataset], "stability.dataset": [self.stability.dataset]}
        return {**super().named_datasets(), **shown}

    def cells(self, experiment: Experiment) -> Iterator[Cell]:
        """One per matrix, and one per curve: of runs that keep every epoch."""
        ratio, panel = experiment.ratios[0], self.stability
        for variant in self.variants:
            yield Cell(variant, "base_to_new", Place(self.dataset, self.dataset), ratio, experiment.seeds)
        place, seeds, kept = Place(panel.dataset, panel.dataset), panel.seeds or experiment.seeds, {"snapshots": True}
        for variant in panel.variants:
            yield Cell(variant, "base_to_new", place, ratio, seeds, "epochs", panel.epochs, kept)


def draw(results: Results, exhibit: Mapping[str, Any]) -> style.Drawing:
    """Draw heat maps from the cells without a parameter and the stability panel from those over epochs."""
    figure = style.new_figure(style.FULL_WIDTH, 4.6)
    grid = figure.add_gridspec(2, 1, height_ratios=(1.25, 1))
    top, bottom = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    first_cells = {cell["row"]: cell for cell in reversed(exhibit["cells"]) if cell["parameter"] is None}
    rows = _draw_heat_maps(top, results, exhibit, first_cells)
    axes = bottom.subplots()
    rows += _draw_stability(axes, results, exhibit)
    axes.set_title(f"({ascii_lowercase[len(first_cells)]}) stability over epochs and seeds")
    seeds = len({row[HEADER.index("seed")] for row in rows} - {None})
    note = (
        "Maps: the first seed of each method; effective rank: exponential of the entropy of the normalized "
        f"eigenvalues. Curves: means over n = {counted(seeds, 'seed')}, bands: ± one sample standard deviation."
    )
    return style.Drawing(figure, HEADER, rows, note)


# ---- heat maps ---------------------------------------------------------------------------------


def _draw_heat_maps(
    part: SubFigure, results: Results, exhibit: Mapping[str, Any], first_cells: Mapping[str, Any]
) -> list[tuple]:
    """Draw one matrix per row id of ``first_cells``, in the rows' order."""
    shown = [row for row in exhibit["rows"] if row["id"] in first_cells]
    features = {row["id"]: tuned_features(results, first_cells[row["id"]]) for row in shown}
    matrices = {row: f @ f.T for row, f in features.items() if f is not None}
    lowest = min((float(matrix.min()) for matrix in matrices.values()), default=0.0)
    clusters = _first_clusters(results, [first_cells[row["id"]] for row in shown])
    names = row_names(exhibit["rows"])

    data, image = [], None
    panels = part.subplots(1, len(shown), squeeze=False)[0]
    for axes, row, letter in zip(panels, shown, ascii_lowercase, strict=False):
        title = f"({letter}) {names[row['id']]}"
        if row["id"] not in matrices:
            axes.set_title(title)
            style.empty_panel(axes)
            axes.set_axis_off()
            continue
        matrix = matrices[row["id"]]
        image = draw_cosines(axes, matrix, clusters, lowest)
        axes.set_title(f"{title}\neffective rank {effective_rank(matrix):.1f} of {len(matrix)}")
        data += _matrix_rows(names[row["id"]], matrix, clusters)
    if image is not None:
        part.colorbar(image, ax=list(panels), label="cosine similarity", shrink=0.85, aspect=18)
    return data


def _first_clusters(results: Results, cells: Sequence[Mapping[str, Any]]) -> Clusters | None:
    """Return the clusters of the first row that has them: all heat maps share one order."""
    return next((found for cell in cells if (found := read_clusters(results, cell["runs"][0]))), None)


def _matrix_rows(method: str, matrix: np.ndarray, clusters: Clusters | None) -> list[tuple]:
    order = range(len(matrix)) if clusters is None else clusters.order().tolist()
    names = [str(label) for label in range(len(matrix))] if clusters is None else clusters.names
    pairs = [(i, j) for position, i in enumerate(order) for j in order[position + 1 :]]
    rows = [("effective_rank", method, None, None, None, None, effective_rank(matrix))]
    return rows + [("similarity", method, names[i], names[j], None, None, float(matrix[i, j])) for i, j in pairs]


# ---- stability ---------------------------------------------------------------------------------


def _draw_stability(axes: Axes, results: Results, exhibit: Mapping[str, Any]) -> list[tuple]:
    cells = [cell for cell in exhibit["cells"] if cell["parameter"] == "epochs"]
    names, looks, data = row_names(exhibit["rows"]), style.looks(results), []
    for row in exhibit["rows"]:
        own = [cell for cell in cells if cell["row"] == row["id"]]
        epochs = over_epochs(results, own, partial(_snapshots, results))
        if not epochs:
            continue
        x = list(epochs)
        summaries = [summarize(epochs[epoch]) for epoch in x]
        label = f"{names[row['id']]}, n = {counted(max(summary.n for summary in summaries), 'seed')}"
        style.draw_band(axes, x, summaries, looks[row["id"]], label)
        data += [("stability", names[row["id"]], None, None, e, s, v) for e in x for s, v in epochs[e].items()]
    if not data:
        style.empty_panel(axes)
        axes.set_axis_off()
        return data
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{judged_by(cells[0]['task'])} (%), mean ± std")
    style.whole_numbers(axes)
    axes.grid(axis="y")
    axes.legend(loc="best")
    return data


def _snapshots(results: Results, run: str, cell: Mapping[str, Any]) -> list[tuple[int, float]]:
    """(epoch, value) of a run's snapshots; none of an unfinished run."""
    if run not in results.finished:
        return []
    table, _ = read_parquet(results.folder / "runs" / run / "metrics.parquet", METRICS_SCHEMA)
    wanted = (cell["dataset"], *METRICS[judged_by(cell["task"])])
    columns = [table[name].to_pylist() for name in ("target", "subset", "metric", "epoch", "value")]
    return [
        (epoch, value)
        for *where, epoch, value in zip(*columns, strict=True)
        if epoch is not None and tuple(where) == wanted
    ]
