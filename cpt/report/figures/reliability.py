"""Figure 7: how often predictions of a confidence are right, on base and on new classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cpt.experiment.exhibits import VariantsFigure
from cpt.files.paths import COUNTS
from cpt.files.stage_files import read_parquet
from cpt.metrics.predictions import BINS
from cpt.report.drawing import style
from cpt.report.words import counted, ratio_title
from cpt.results.cells import Results, row_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADER = ("method", "imbalance_ratio", "half", "bin", "images", "confidence", "accuracy")
HALVES = ("base", "new")
_PANELS_PER_LINE = 4
_AREA = 300  # square points of the marks of all bins together: a panel is about a hundred points wide

Bins = Mapping[tuple[str, str, str], np.ndarray]
"""(run, target, half) -> (15, 3) images, right ones, sum of confidences."""


class Reliability(VariantsFigure):
    """How often predictions of a confidence are right (Figure 7)."""

    kind: Literal["reliability"]


def draw(results: Results, exhibit: Mapping[str, Any]) -> style.Drawing:
    """Draw a panel per method and ratio, pooled over datasets and seeds; the marks' size tells the share of images."""
    places = [(row, ratio) for ratio in exhibit["ratios"] for row in exhibit["rows"]]
    columns = min(len(places), _PANELS_PER_LINE)
    lines = -(-len(places) // columns)
    figure = style.new_figure(style.FULL_WIDTH, 1.75 * lines + 0.35)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    panels = grid.flatten().tolist()
    bins, names, looks = _read(results), row_names(exhibit["rows"]), style.looks(results)
    rows: list[tuple] = []
    for axes, (row, ratio), letter in zip(panels, places, style.letters(), strict=False):
        cells = [cell for cell in exhibit["cells"] if (cell["row"], cell["ratio"]) == (row["id"], ratio)]
        title = names[row["id"]] + (f", {ratio_title(ratio)}" if len(exhibit["ratios"]) > 1 else "")
        axes.set_title(f"({letter}) {title}")
        rows += _draw_panel(axes, looks[row["id"]], cells, bins, (names[row["id"]], f"{ratio:g}"))
    for axes in panels[len(places) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("mean confidence")
    for axes in grid[:, 0]:
        axes.set_ylabel("accuracy")
    datasets = len({cell["dataset"] for cell in exhibit["cells"]})
    pooled = {run for run, _, _ in bins}
    seeds = max((len(pooled.intersection(cell["runs"])) for cell in exhibit["cells"]), default=0)
    note = (
        f"Test images of {counted(datasets, 'dataset')} and at most {counted(seeds, 'seed')} pooled in {BINS} bins of "
        "equal width of the top-1 probability; filled: base, open: new; a mark's area is its share of "
        "the images. Dotted: perfect calibration; below it predictions are too confident. ECE: expected calibration "
        "error of these pooled images, percent: the marks' mean distance from the dotted line, by area. Tables have "
        "the mean of the datasets' own errors, which is usually larger: gaps of opposite signs do not cancel there. No "
        "error bars."
    )
    return style.Drawing(figure, HEADER, rows, note)


def _read(results: Results) -> Bins:
    import pyarrow.compute as pc

    table, _ = read_parquet(results.folder / "counts.parquet", COUNTS)
    table = table.filter((pc.field("by") == "confidence") & pc.field("subset").isin(HALVES))
    found: dict[tuple[str, str, str], np.ndarray] = defaultdict(lambda: np.zeros((BINS, 3)))
    names = ("run", "target", "subset", "index", "images", "correct", "confidence")
    columns = [table[name].to_pylist() for name in names]
    for run, target, subset, index, images, correct, confidence in zip(*columns, strict=True):
        found[run, target, subset][index] = images, correct, images * confidence
    return found


def _draw_panel(
    axes: Axes, own: style.Look, cells: list[Mapping[str, Any]], bins: Bins, where: tuple[str, str]
) -> list[tuple]:
    rows: list[tuple] = []
    axes.plot([0, 1], [0, 1], color=style.GREY, linestyle=(0, (1, 1.5)), linewidth=0.9, zorder=0)
    for index, half in enumerate(HALVES):
        parts = [bins[key] for cell in cells for run in cell["runs"] if (key := (run, cell["dataset"], half)) in bins]
        if not parts:
            continue
        images, right, confidence = np.sum(parts, axis=0).T
        used = images > 0
        x, y = confidence[used] / images[used], right[used] / images[used]
        look = own.again(index)
        error = 100 * np.abs(right - confidence).sum() / images.sum()
        label, dash = f"{half}, ECE {error:.1f}", style.DASHES[index]
        axes.plot(x, y, color=look.color, linestyle=dash, linewidth=0.7, label=label)
        sizes = _AREA * images[used] / images.sum()
        axes.scatter(x, y, s=sizes, facecolor=look.face, edgecolor=look.color, marker=look.marker, linewidth=0.7,
                     clip_on=False, zorder=3)  # fmt: skip
        rows += [
            (*where, half, int(b), int(images[b]), float(confidence[b] / images[b]), float(right[b] / images[b]))
            for b in np.flatnonzero(used)
        ]
    if rows:
        axes.legend(loc="lower right", handlelength=1.8, borderpad=0.1)
    else:
        style.empty_panel(axes)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_aspect("equal")
    axes.grid()
    return rows
