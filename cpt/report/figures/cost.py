"""Figure 8: accuracy against what it costs, and the methods that no other one beats in both."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from cpt.experiment.exhibits import VariantsFigure
from cpt.files.paths import COSTS, Ratio, ratio_text
from cpt.files.stage_files import read_parquet
from cpt.report.drawing import style
from cpt.report.words import counted, ratio_title
from cpt.results.cells import Results, average, judged_by, row_names, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADER = ("cost", "method", "imbalance_ratio", "value", "accuracy", "std", "n_seeds", "undominated")
COST = {
    "seconds": ("training time", "training of a run, s"),
    "peak_memory_mb": ("memory", "peak memory, MiB"),
    "learnable_parameters": ("learned values", "learned values"),
}
"""Columns of costs.parquet, and what panels and axes call them."""
_CROWDED = 12
"""Of more methods than these only some have a name and a color."""
_ALWAYS_NAMED = ("cpt", "zeroshot")
_DECADES = 2.5
"""From so many on, a logarithmic axis has powers of ten only."""
_LOGARITHMIC = 3
"""Costs that differ by this factor get a logarithmic axis; others one from zero: small differences look small."""


class Cost(VariantsFigure):
    """Accuracy against what it costs (Figure 8)."""

    kind: Literal["cost"]


class Point(NamedTuple):
    """A row's cost and accuracy, with the standard deviation over seeds; a control is on no front."""

    row: str
    name: str
    cost: float
    accuracy: float
    std: float | None
    seeds: int
    control: bool = False


def draw(results: Results, exhibit: Mapping[str, Any]) -> style.Drawing:
    """Draw a line of panels per ratio: accuracy against seconds, memory and learned values."""
    ratios = exhibit["ratios"]
    figure = style.new_figure(style.FULL_WIDTH, 2.6 * len(ratios))
    grid = figure.subplots(len(ratios), len(COST), squeeze=False, sharey="row")
    table, _ = read_parquet(results.gathered / "costs.parquet", COSTS)
    spent = {row["run"]: row for row in table.to_pylist()}
    rows: list[tuple] = []
    letters, looks = style.letters(), style.looks(results)
    drawn = []
    for ratio, panels in zip(ratios, grid, strict=True):
        for axes, cost in zip(panels, COST, strict=True):
            points = _points(results, exhibit, ratio, cost, spent)
            title, label = COST[cost]
            axes.set_title(f"({next(letters)}) {title}" + (f", {ratio_title(ratio)}" if len(ratios) > 1 else ""))
            axes.set_xlabel(label)
            rows += _draw_points(axes, points, looks, cost, ratio)
            drawn.append((axes, points))
        panels[0].set_ylabel(f"{judged_by(exhibit['cells'][0]['task'])} (%), mean ± std")
    for axes, points in drawn:
        if points:
            _name(axes, points, looks)
    datasets = len({cell["dataset"] for cell in exhibit["cells"]})
    seeds = max((point.seeds for _, points in drawn for point in points), default=0)
    note = (
        f"Means over {counted(datasets, 'dataset')} and n = {counted(seeds, 'seed')}; bars: ± one sample standard "
        "deviation over seeds. Cost: median over the runs; where a run starts from another one, the seconds of both "
        "trainings and the larger memory. Memory on a CPU is that of the whole process, libraries included. Steps: "
        "Pareto front, the highest mean for a cost of at most x. Dashed: methods that learn nothing."
    )
    note += " Controls are on no front." if any(row.get("control") for row in exhibit["rows"]) else ""
    if any(len(named(points)) < len(points) for _, points in drawn):
        note += " Named: the front, CPT and zero-shot CLIP. Grey: all others, which the figure's CSV file names."
    return style.Drawing(figure, HEADER, rows, note)


def _points(
    results: Results, exhibit: Mapping[str, Any], ratio: Ratio, cost: str, spent: Mapping[str, Mapping[str, Any]]
) -> list[Point]:
    names, points = row_names(exhibit["rows"]), []
    for row in exhibit["rows"]:
        cells = [cell for cell in exhibit["cells"] if (cell["row"], cell["ratio"]) == (row["id"], ratio)]
        accuracy = summarize(average([results.seeds(cell) for cell in cells]))
        runs = [run for cell in cells for run in cell["runs"] if run in spent]
        if accuracy.mean is not None and runs:
            trains = any(_spent(results, run, "steps", spent) for run in runs)
            middle = statistics.median(_spent(results, run, cost, spent) for run in runs) if trains else 0.0
            known = middle, accuracy.mean, accuracy.std, accuracy.n
            points.append(Point(row["id"], names[row["id"]], *known, control=row.get("control", False)))
    return points


def _spent(results: Results, run: str, cost: str, spent: Mapping[str, Mapping[str, Any]]) -> float:
    """A run's cost with that of the run that it starts from; learned values are its own, if it learns any."""
    own, start = spent[run], spent.get(results.run(run)["start"] or "")
    if start is None:
        return float(own[cost])
    if cost == "learnable_parameters":
        return float(own[cost] or start[cost])
    return float(max(own[cost], start[cost]) if cost == "peak_memory_mb" else own[cost] + start[cost])


def undominated(points: Sequence[Point]) -> list[Point]:
    """Return the Pareto front, by ascending cost."""
    methods = [point for point in points if not point.control]

    def beaten(point: Point) -> bool:
        return any(
            (other.cost <= point.cost and other.accuracy >= point.accuracy)
            and (other.cost < point.cost or other.accuracy > point.accuracy)
            for other in methods
        )

    return sorted((point for point in methods if not beaten(point)), key=lambda point: point.cost)


def named(points: Sequence[Point]) -> list[Point]:
    """The points that have a name and a color: all, or of many the front and what it is compared with."""
    front = undominated(points) if len(points) > _CROWDED else points
    return [point for point in points if point in front or point.row in _ALWAYS_NAMED]


def _draw_points(
    axes: Axes, points: Sequence[Point], looks: Mapping[str, style.Look], cost: str, ratio: Ratio
) -> list[tuple]:
    front, told = undominated(points), named(points)
    costly = [point.cost for point in points if point.cost > 0]
    for point in points:
        look, shown = looks[point.row], point in told
        color, width = (look.color, 0.9) if shown else ("0.7", 0.6)
        if point.cost == 0:
            axes.axhline(point.accuracy, color=color, linestyle=(0, (4, 2)), linewidth=width, zorder=1)
            continue
        axes.errorbar(point.cost, point.accuracy, yerr=point.std, color=color, marker=look.marker, linewidth=width,
                      zorder=2 + shown)  # fmt: skip
    line = np.reshape([(point.cost, point.accuracy) for point in front if point.cost > 0], (-1, 2))
    axes.plot(*line.T, color=style.GREY, linewidth=0.8, zorder=2, drawstyle="steps-post")
    if costly:
        _scale(axes, costly)
    else:
        style.empty_panel(axes)
    axes.grid(axis="y")
    return [
        (cost, p.name, ratio_text(ratio), p.cost, p.accuracy, p.std, p.seeds, int(p in front)) for p in points
    ]  # fmt: skip


def _scale(axes: Axes, costs: Sequence[float]) -> None:
    """Make room for the names, on a logarithmic axis or on one from zero."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    axes.margins(x=0.2, y=0.15)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.6g}")
    if max(costs) < _LOGARITHMIC * min(costs):
        axes.set_xlim(0, 1.3 * max(costs))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        return
    axes.set_xscale("log")
    many = max(costs) > 10**_DECADES * min(costs)
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if many else (1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:,.6g}k" if many and x >= 1000 else f"{x:,.6g}")
    axes.xaxis.set_minor_locator(NullLocator())


def _name(axes: Axes, points: Sequence[Point], looks: Mapping[str, style.Look]) -> None:
    """Write the methods' names beside their points, and beside the lines of those that learn nothing."""
    from cpt.report.drawing.labels import place_labels

    left, right = axes.get_xlim()
    places = np.array([(point.cost or left, point.accuracy) for point in points])
    told = named(points)
    names = {i: (p.name, style.darker(looks[p.row].color)) for i, p in enumerate(points) if p in told}
    lines = [np.array([(left, p.accuracy), (right, p.accuracy)]) for p in points if p.cost == 0]
    bars = [(p.cost, p.accuracy, p.std) for p in points if p.cost and p.std]
    lines += [np.array([(cost, mean - std), (cost, mean + std)]) for cost, mean, std in bars]
    for one, other in pairwise(p for p in undominated(points) if p.cost):
        corner = other.cost, one.accuracy
        lines.append(np.array([(one.cost, one.accuracy), corner, (other.cost, other.accuracy)]))
    place_labels(axes, places, names, lines=lines)
