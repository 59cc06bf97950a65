"""Figures whose values a reader can ask for: on the page they are also drawn by Plotly, with axes one can choose.

The values are those of the figures: the same means over datasets, then over seeds.
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from cpt.files.paths import CURVES as SCHEMA
from cpt.files.paths import NATURAL, Ratio
from cpt.files.stage_files import read_parquet
from cpt.metrics.reported import CURVES
from cpt.report.drawing import style
from cpt.report.figures.cost import COST
from cpt.report.words import ratio_title
from cpt.results.cells import FURTHER, Results, SeedValues, average, judged_by, over_epochs, row_names, summarize

Exhibit = Mapping[str, Any]
Chart = dict[str, Any]
Measured = dict[str, SeedValues]
"""Measure -> value by seed."""


def charts(results: Results, files: Mapping[str, str]) -> dict[str, Chart]:
    """Return figure -> its chart, of the kinds that have one.

    A chart has ``views`` (name and series), of which one is shown at a time, and the names of the ``x`` and ``y`` axes
    to choose from; numbers of the axes ``percent`` have two decimals, as in tables. A series has ``name``, ``look``
    (color and marker), ``mode`` (Plotly's), ``values`` and ``spread`` by axis, ``cells`` (what each point opens) and
    ``notes`` (what is said of it).

    Args:
        results: finished and unfinished runs.
        files: name -> content of the figures' CSV files.

    Raises:
        CptError: curves.parquet is missing or damaged.
    """
    kinds: dict[str, Callable[[Results, Exhibit, str], Chart]] = {
        "cost": _cost, "sweep": _sweep, "violin": _seeds, "collapse": _epochs, "reliability": _bins,
    }  # fmt: skip
    found: dict[str, Chart] = {}
    for name, exhibit in results.grid["exhibits"].items():
        if exhibit["kind"] in kinds:
            chart = kinds[exhibit["kind"]](results, exhibit, files[f"{name}.csv"])
            chart["views"] = [view for view in chart["views"] if view["series"]]
            found |= {name: chart} if chart["views"] else {}
    return found


# ---- cells and their measures ----------------------------------------------------------------------


class Group(NamedTuple):
    """Cells of a row at a ratio: its name without and with the ratio, its look, and cell by place in the exhibit."""

    row: str
    title: str
    ratio: Ratio
    look: Mapping[str, str]
    cells: Mapping[int, Mapping[str, Any]]

    def series(
        self,
        mode: str,
        values: Mapping[str, list[Any]],
        spread: Mapping[str, list[float | None]],
        cells: Sequence[Iterable[int]],
        notes: Sequence[str],
    ) -> dict[str, Any]:
        """Return a series of a chart."""
        opened = [",".join(map(str, places)) for places in cells]
        said = {"values": values, "spread": spread, "cells": opened, "notes": notes}
        return {"name": self.title, "look": self.look, "mode": mode, **said}

    def means(self, mode: str, x: Mapping[str, list[Any]], points: Sequence[tuple[Iterable[int], Measured]]) -> Any:
        """Return a series of means with deviations, a point for each (places of cells, their measures)."""
        titles = dict.fromkeys(title for _, measures in points for title in measures)
        numbers = {title: [summarize(measures.get(title, {})) for _, measures in points] for title in titles}
        return self.series(
            mode,
            {**x, **{title: [number.mean for number in of] for title, of in numbers.items()}},
            {title: [number.std for number in of] for title, of in numbers.items()},
            [places for places, _ in points],
            [f"n = {max(map(len, measures.values()))}" for _, measures in points],
        )


def _groups(results: Results, exhibit: Exhibit) -> Iterator[Group]:
    """Every row at every ratio that has cells."""
    names, looks, several = row_names(exhibit["rows"]), _looks(results), len(exhibit["ratios"]) > 1
    for ratio in exhibit["ratios"]:
        for row, name in names.items():
            own = {i: c for i, c in enumerate(exhibit["cells"]) if (c["row"], c["ratio"]) == (row, ratio)}
            if own:
                yield Group(name, f"{name}, {ratio_title(ratio)}" if several else name, ratio, looks[row], own)


def _looks(results: Results) -> dict[str, dict[str, str]]:
    """The look of every row, as the figures have it."""
    return {row: {"color": look.color, "marker": look.marker} for row, look in style.looks(results).items()}


def _measured(results: Results, cells: Iterable[Mapping[str, Any]]) -> Measured:
    """Averages over the cells' datasets, of the measures that all of them have."""
    cells = list(cells)
    judged = judged_by(cells[0]["task"])
    found = {judged: average([results.seeds(cell) for cell in cells])}
    for title, where in FURTHER["base_to_new" if judged == "H" else "other"].items():
        found[title] = average([results.values_of(cell, *where) for cell in cells])
    return {title: values for title, values in found.items() if values}


def _ratio(text: str) -> Ratio:
    return NATURAL if text == NATURAL else float(text)


def _chart(views: list[dict[str, Any]], x: Iterable[str], y: Iterable[str], **more: Any) -> Chart:
    return {"views": views, "x": list(x), "y": list(y), **more}


# ---- kinds of figures --------------------------------------------------------------------------


def _cost(results: Results, exhibit: Exhibit, text: str) -> Chart:
    """Any measure against any cost, or against another measure."""
    spent = {(row["cost"], row["method"], _ratio(row["imbalance_ratio"])): float(row["value"]) for row in _rows(text)}
    series: dict[Ratio, list[Any]] = defaultdict(list)
    measures: dict[str, None] = {}
    for group in _groups(results, exhibit):
        found = _measured(results, group.cells.values())
        own = {title: spent.get((cost, group.row, group.ratio)) for cost, (_, title) in COST.items()}
        costs = {title: [value] for title, value in own.items() if value is not None}
        if found and costs:
            measures |= dict.fromkeys(found)
            series[group.ratio].append(group.means("markers", costs, [(group.cells, found)]))
    views = [{"name": ratio_title(ratio), "series": of} for ratio, of in series.items()]
    axes = [title for _, title in COST.values()]
    return _chart(views, [*axes, *measures], [*measures, *axes], costs=axes, percent=list(measures))


def _sweep(results: Results, exhibit: Exhibit, _: str) -> Chart:
    """A measure against a hyperparameter."""
    views: list[dict[str, Any]] = []
    measures: dict[str, None] = {}
    for parameter in dict.fromkeys(cell["parameter"] for cell in exhibit["cells"]):
        series = []
        for group in _groups(results, exhibit):
            at: dict[float, list[int]] = defaultdict(list)
            for place, cell in group.cells.items():
                if cell["parameter"] == parameter:
                    at[cell["x"]].append(place)
            points = {x: (at[x], _measured(results, (group.cells[place] for place in at[x]))) for x in sorted(at)}
            points = {x: point for x, point in points.items() if point[1]}
            measures |= dict.fromkeys(title for _, found in points.values() for title in found)
            if points:
                series.append(group.means("lines+markers", {"value": list(points)}, list(points.values())))
        default = exhibit["defaults"].get(parameter)
        name = exhibit.get("labels", {}).get(parameter, parameter.replace("_", " "))
        views.append({"name": name, "series": series, "default": default})
    return _chart(views, ["value"], measures, percent=list(measures))


def _seeds(results: Results, exhibit: Exhibit, _: str) -> Chart:
    """A measure of every seed."""
    series = []
    measures: dict[str, None] = {}
    for group in _groups(results, exhibit):
        found = _measured(results, group.cells.values())
        measures |= dict.fromkeys(found)
        seeds = sorted({seed for of in found.values() for seed in of})
        values: dict[str, list[Any]] = {"method": [group.title] * len(seeds)}
        values |= {title: [of.get(seed) for seed in seeds] for title, of in found.items()}
        if seeds:
            notes = [f"seed {seed}" for seed in seeds]
            series.append(group.series("markers", values, {}, [group.cells] * len(seeds), notes))
    return _chart([{"name": "", "series": series}], ["method"], measures, percent=list(measures))


def _epochs(results: Results, exhibit: Exhibit, _: str) -> Chart:
    """A measure of the features after every epoch."""
    table = read_parquet(results.folder / "curves.parquet", SCHEMA)[0]
    curves: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    columns = [table[name].to_pylist() for name in ("run", "measure", "epoch", "value")]
    for run, measure, epoch, value in zip(*columns, strict=True):
        if measure in exhibit["measures"] and value is not None and math.isfinite(value):
            curves[run, measure][epoch] = value

    def by_epoch(group: Group, measure: str) -> dict[int, SeedValues]:
        cells = list(group.cells.values())
        return over_epochs(results, cells, lambda run, _: curves.get((run, measure), {}).items())

    series = []
    for group in _groups(results, exhibit):
        found = {CURVES[measure]: by_epoch(group, measure) for measure in exhibit["measures"]}
        epochs = sorted({epoch for of in found.values() for epoch in of})
        at = [{title: of[epoch] for title, of in found.items() if epoch in of} for epoch in epochs]
        if epochs:
            points = [(group.cells, measures) for measures in at]
            series.append(group.means("lines+markers", {"epoch": epochs}, points))
    return _chart([{"name": "", "series": series}], ["epoch"], [CURVES[measure] for measure in exhibit["measures"]])


def _bins(results: Results, exhibit: Exhibit, text: str) -> Chart:
    """Accuracy against confidence, as the figure has them."""
    axes = "confidence", "accuracy"
    lines: dict[tuple[str, str, Ratio], list[dict[str, str]]] = defaultdict(list)
    for row in _rows(text):
        if all(row[axis] for axis in axes):
            lines[row["half"], row["method"], _ratio(row["imbalance_ratio"])].append(row)
    views = []
    for half in dict.fromkeys(half for half, _, _ in lines):
        series = []
        for group in _groups(results, exhibit):
            own = lines.get((half, group.row, group.ratio), [])
            values = {axis: [float(line[axis]) for line in own] for axis in axes}
            notes = [f"bin {line['bin']}" for line in own]
            if own:
                series.append(group.series("lines+markers", values, {}, [group.cells] * len(own), notes))
        views.append({"name": half, "series": series})
    return _chart(views, axes[:1], axes[1:], diagonal=True)


def _rows(text: str) -> Iterator[dict[str, str]]:
    return csv.DictReader(io.StringIO(text))
