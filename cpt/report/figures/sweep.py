"""Figures 3 and 5: one panel per swept hyperparameter."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from cpt.experiment.exhibits import Cell, Exhibit, Experiment
from cpt.experiment.sections import Text
from cpt.files.paths import ratio_text
from cpt.report.drawing import style
from cpt.report.words import counted, ratio_title
from cpt.results.cells import Results, SeedValues, average, judged_by, row_names, summarize
from cpt.validation import once

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

HEADER = ("parameter", "method", "imbalance_ratio", "x", "statistic", "seed", "value")
_PANELS_PER_LINE = 3
_CROWDED = 0.15  # a gap smaller than this share of the range: space the values evenly


class Sweep(Exhibit):
    """One hyperparameter at a time (Figures 3 and 5)."""

    kind: Literal["sweep"]
    variant: str = Field(description="whose hyperparameters are varied")
    sweep: dict[str, Annotated[list[int | float], AfterValidator(once)]] = Field(
        min_length=1, description="hyperparameter: values"
    )
    labels: dict[str, Text] = Field({}, description="hyperparameter: what its axis is called; default: its name")

    def named_variants(self) -> Mapping[str, Sequence[str]]:
        """Its one row."""
        return {"variant": [self.variant]}

    def cells(self, experiment: Experiment) -> Iterator[Cell]:
        """The variant with every value of every hyperparameter."""
        for parameter, values in self.sweep.items():
            for x in values:
                for cell in experiment.cells(self.of_tasks(), [self.variant]):
                    yield replace(cell, parameter=parameter, x=x)

    def further(self, experiment: Experiment) -> dict[str, Any]:
        """Names of the axes, and the variant's own values, where the dotted lines are."""
        first = experiment.places("base_to_new")[0]
        own = experiment.hyperparameters(self.variant, first.trained)
        defaults = {parameter: getattr(own, parameter, None) for parameter in self.sweep}
        return {"defaults": defaults, "labels": self.labels}


def draw(results: Results, exhibit: Mapping[str, Any]) -> style.Drawing:
    """Draw the mean and standard deviation over seeds against each swept parameter's value."""
    parameters = list(dict.fromkeys(cell["parameter"] for cell in exhibit["cells"]))
    columns = min(len(parameters), _PANELS_PER_LINE)
    lines = -(-len(parameters) // columns)
    width = style.COLUMN_WIDTH if columns == 1 else style.FULL_WIDTH
    figure = style.new_figure(width, 2.3 * lines)
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).flatten().tolist()
    rows: list[tuple] = []
    for axes, parameter in zip(panels, parameters, strict=False):
        rows += _draw_parameter(axes, results, exhibit, parameter)
    for axes in panels[::columns]:
        _describe(axes, exhibit, rows, series=_series_of(panels))
    for axes in panels[len(parameters) :]:
        axes.set_axis_off()
    return style.Drawing(figure, HEADER, rows, _note(exhibit, rows))


def _note(exhibit: Mapping[str, Any], rows: Sequence[tuple]) -> str:
    datasets = len({cell["dataset"] for cell in exhibit["cells"]})
    over = f"n = {counted(_seeds(rows), 'seed')}" + (f", averaged over {datasets} datasets" if datasets > 1 else "")
    return f"Lines: means ({over}); bands: ± one sample standard deviation; circles: seeds; dotted: defaults."


def _seeds(rows: Sequence[tuple]) -> int:
    return len({row[HEADER.index("seed")] for row in rows} - {None})


def _draw_parameter(axes: Axes, results: Results, exhibit: Mapping[str, Any], parameter: str) -> list[tuple]:
    cells = [cell for cell in exhibit["cells"] if cell["parameter"] == parameter]
    values = sorted({cell["x"] for cell in cells})
    place = positions(values)
    names, looks = row_names(exhibit["rows"]), style.looks(results)
    rows: list[tuple] = []
    for row, (step, ratio) in itertools.product(exhibit["rows"], enumerate(exhibit["ratios"])):
        series = _series(results, [c for c in cells if c["row"] == row["id"] and c["ratio"] == ratio])
        if series:
            label = f"{names[row['id']]}, {ratio_title(ratio)}"
            _draw_series(axes, series, place, looks[row["id"]].again(step), label)
            rows += _rows((parameter, names[row["id"]], ratio_text(ratio)), series)
    if not rows:
        style.empty_panel(axes)
    _draw_default(axes, exhibit["defaults"].get(parameter), values, place)
    axes.set_xticks([place[value] for value in values], [f"{value:g}" for value in values])
    axes.set_xlabel(exhibit.get("labels", {}).get(parameter, parameter.replace("_", " ")))
    axes.grid(axis="y")
    return rows


def _describe(axes: Axes, exhibit: Mapping[str, Any], rows: Sequence[tuple], series: Mapping[str, Artist]) -> None:
    """Say at the left of a line of panels what is drawn in all of them."""
    axes.set_ylabel(f"{judged_by(exhibit['cells'][0]['task'])} (%)\nmean ± std, n = {counted(_seeds(rows), 'seed')}")
    if len(exhibit["rows"]) * len(exhibit["ratios"]) > 1 and series:
        axes.legend(series.values(), series.keys(), loc="best")


def _series_of(panels: Iterable[Axes]) -> dict[str, Artist]:
    """Label -> mark for the legend, of the series in any of the panels: an unfinished panel lacks some."""
    found: dict[str, Artist] = {}
    for axes in panels:
        for mark, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, mark)
    return found


def positions(values: Sequence[float]) -> dict[float, float]:
    """Return where the sorted values lie on the x axis: to scale, or evenly where they would crowd."""
    gaps = np.diff(values)
    if len(values) > 1 and gaps.min() < _CROWDED * (values[-1] - values[0]):
        return {value: float(i) for i, value in enumerate(values)}
    return {value: float(value) for value in values}


def _series(results: Results, cells: Sequence[Mapping[str, Any]]) -> dict[float, SeedValues]:
    """Return x -> value per seed, averaged over the datasets; an x with an unfinished dataset is left out."""
    parts: dict[float, list[SeedValues]] = defaultdict(list)
    for cell in cells:
        parts[cell["x"]].append(results.seeds(cell))
    return {x: values for x in sorted(parts) if (values := average(parts[x]))}


def _draw_series(
    axes: Axes, series: Mapping[float, SeedValues], place: Mapping[float, float], look: style.Look, label: str
) -> None:
    x = [place[value] for value in series]
    summaries = [summarize(values) for values in series.values()]
    style.draw_band(axes, x, summaries, look, label)
    places = [place[value] for value, values in series.items() for _ in values]
    numbers = [number for values in series.values() for number in values.values()]
    axes.scatter(places, numbers, s=9, facecolor="none", edgecolor=look.color, alpha=0.7, linewidth=0.6)


def _draw_default(axes: Axes, default: float | None, values: Sequence[float], place: Mapping[float, float]) -> None:
    if default is None:
        return
    x = float(np.interp(default, values, [place[value] for value in values]))
    axes.axvline(x, color=style.GREY, linestyle=(0, (1, 1.5)), linewidth=0.9, zorder=0)
    axes.annotate(
        "default",
        (x, 1),
        (0, 1),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=6,
        color=style.GREY,
    )


def _rows(where: tuple, series: Mapping[float, SeedValues]) -> list[tuple]:
    rows: list[tuple] = []
    for x, values in series.items():
        summary = summarize(values)
        rows += [(*where, f"{x:g}", "seed", seed, value) for seed, value in values.items()]
        rows += [(*where, f"{x:g}", "mean", None, summary.mean), (*where, f"{x:g}", "std", None, summary.std)]
    return rows
