"""Tables: their long form, and the layouts in which people read them.

Every table is first a long form, (ratio, row, dataset, metric) -> mean, std, number of seeds, that holds each
number once. The CSV is that long form; Markdown, LaTeX and HTML show a layout of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

import numpy as np

from cpt.errors import CptError
from cpt.files.stage_files import write_text
from cpt.metrics.measures import MEASURES
from cpt.report import formats
from cpt.report.formats import Block, Column, Line, Mark, Shown, Table
from cpt.report.words import AVERAGE, LEVEL, MISSING, exhibit_label, notes, ratio_title, sentence, task_title
from cpt.results import stats
from cpt.results.cells import (
    TASKS,
    Results,
    SeedValues,
    Summary,
    average,
    averaged_datasets,
    csv_text,
    datasets_of,
    judged_by,
    read_results,
    row_names,
    shared,
    summarize,
    uneven,
)

DECIMALS = 2
COLUMNS = ("table", "imbalance_ratio", "method", "dataset", "metric", "value", "std", "n_seeds", "p_holm")


class Key(NamedTuple):
    """Where a number stands: imbalance ratio, row id, dataset (or ``Avg``, or a task's name), metric."""

    ratio: float
    row: str
    dataset: str
    metric: str


Better = Literal["higher", "lower"] | None
LongForm = dict[Key, Summary]
Layout = tuple[list[Column], list[Block], str]
"""Columns, blocks of rows, and the heading of the row labels."""


def make_table(grid: Path, runs: Path, name: str, output: Path) -> None:
    """Write ``<name>.csv``, ``.md``, ``.tex`` and ``.html`` into the folder ``output``.

    Raises:
        CptError: an input is missing or damaged, or the grid has no table of this name.
    """
    results = read_results(grid, runs)
    exhibit = table_exhibit(results, name)
    numbers = long_form(results, exhibit)
    table = layout(results, exhibit, numbers)
    write_text(output / f"{name}.csv", long_form_csv(results, exhibit, numbers))
    write_text(output / f"{name}.md", formats.markdown(table))
    write_text(output / f"{name}.tex", formats.latex(table))
    write_text(output / f"{name}.html", formats.html(table))


def table_exhibit(results: Results, name: str) -> dict[str, Any]:
    """Return a table's declaration.

    Raises:
        CptError: the grid has no exhibit of this name, or it is a figure.
    """
    exhibit = results.exhibit(name)
    if exhibit["kind"] != "table":
        raise CptError(f"grid.json: {name!r} is a figure; make it with cpt figure")
    return exhibit


# ---- the numbers -------------------------------------------------------------------------------


def long_form(results: Results, exhibit: Mapping[str, Any]) -> LongForm:
    """Return every number of a table, in the order of the CSV; missing ones have ``n`` 0."""
    cells = {(c["ratio"], c["row"], c["task"], c["dataset"]): c for c in exhibit["cells"]}
    numbers: LongForm = {}
    for ratio in exhibit["ratios"]:
        for row in exhibit["rows"]:
            for task in exhibit["tasks"]:
                by_dataset = {
                    dataset: cells.get((ratio, row["id"], task, dataset)) for dataset in datasets_of(exhibit, task)
                }
                numbers |= _task_numbers(results, exhibit, (ratio, row["id"], task), by_dataset)
    return numbers


def _task_numbers(
    results: Results, exhibit: Mapping[str, Any], where: tuple, by_dataset: Mapping[str, Any]
) -> LongForm:
    """Return the numbers of one ratio, row and task; ``by_dataset`` holds its cells."""
    ratio, row, task = where
    averaged = averaged_datasets(exhibit, task)

    def mean_over_datasets(metric: str) -> Summary:
        return summarize(average([results.seeds(by_dataset[dataset], metric) for dataset in averaged]))

    judged = judged_by(task)
    if exhibit["layout"] == "measures":
        cells = [by_dataset[dataset] for dataset in averaged]
        return {Key(ratio, row, AVERAGE, name): _measured(results, cells, name) for name in exhibit["measures"]}
    if exhibit["layout"] == "tasks":
        return {Key(ratio, row, TASKS[task], judged): mean_over_datasets(judged)}
    metrics = ["H", "base", "new"] if judged == "H" else [judged]
    numbers = {
        Key(ratio, row, dataset, metric): summarize(results.seeds(cell, metric))
        for dataset, cell in by_dataset.items()
        for metric in metrics
    }
    return numbers | {Key(ratio, row, AVERAGE, metric): mean_over_datasets(metric) for metric in metrics}


def _measured(results: Results, cells: Sequence[Mapping[str, Any] | None], measure: str) -> Summary:
    """Return the mean of a measure over the datasets that have it: one without a class to mix up has no confusion."""
    parts = []
    for cell in cells:
        values = results.measured(cell, measure) if cell else {}
        if values or not (cell and results.finished.issuperset(cell["runs"])):
            parts.append(values)
    return summarize(average(parts))


def significance(results: Results, exhibit: Mapping[str, Any]) -> dict[tuple[float, str], float]:
    """Return (ratio, row id) -> p of the difference of its average from that of the table's reference row.

    Signs of the datasets' differences (means over the seeds that the average is over) are flipped, in all ways or
    10,000 drawn ones; p is corrected for the rows of a ratio by Holm's method. Only the layout ``datasets`` has
    averages over enough datasets, and only rows with every dataset are compared.
    """
    reference, task = exhibit["reference"], exhibit["tasks"][0]
    if exhibit["layout"] != "datasets" or reference is None:
        return {}
    parts = _averaged_parts(results, exhibit, task)
    found: dict[tuple[float, str], float] = {}
    for ratio in exhibit["ratios"]:
        rows = {row["id"]: parts[ratio, row["id"]] for row in exhibit["rows"]}
        known = {
            row: np.array([fmean(part[seed] for seed in seeds) for part in of_row])
            for row, of_row in rows.items()
            if (seeds := shared(of_row))
        }
        others = [row for row in known if row != reference]
        if reference not in known or not others:
            continue
        generator = np.random.default_rng(0)
        tested = [stats.sign_flip_test(known[row] - known[reference], generator) for row in others]
        found |= {(ratio, row): float(p) for row, p in zip(others, stats.holm(tested), strict=True)}
    return found


def _averaged_parts(
    results: Results, exhibit: Mapping[str, Any], task: str
) -> dict[tuple[float, str], list[SeedValues]]:
    """Return (ratio, row id) -> values by seed of every dataset that the average is over."""
    cells = {(c["ratio"], c["row"], c["dataset"]): c for c in exhibit["cells"] if c["task"] == task}
    averaged = averaged_datasets(exhibit, task)
    return {
        (ratio, row["id"]): [results.seeds(cells.get((ratio, row["id"], dataset))) for dataset in averaged]
        for ratio in exhibit["ratios"]
        for row in exhibit["rows"]
    }


def positions(exhibit: Mapping[str, Any]) -> dict[tuple[float, str, str], tuple[int, ...]]:
    """Return (ratio, row id, dataset or ``Avg`` or task's name) -> positions of the cells that make the number."""
    found: dict[tuple[float, str, str], list[int]] = {}
    averaged = {task: set(averaged_datasets(exhibit, task)) for task in exhibit["tasks"]}
    for position, cell in enumerate(exhibit["cells"]):
        task, dataset = cell["task"], cell["dataset"]
        over = [TASKS[task]] if exhibit["layout"] == "tasks" else [AVERAGE]
        for name in [dataset, *(over if dataset in averaged[task] else [])]:
            found.setdefault((cell["ratio"], cell["row"], name), []).append(position)
    return {key: tuple(cells) for key, cells in found.items()}


def long_form_csv(results: Results, exhibit: Mapping[str, Any], numbers: LongForm) -> str:
    """Return the long form as CSV; ``table`` is the table's number, ``method`` the row's label."""
    names, p_values = row_names(exhibit["rows"]), significance(results, exhibit)
    number, judged = exhibit["name"].removeprefix("table"), judged_by(exhibit["tasks"][0])
    rows = []
    for key, cell in numbers.items():
        p = p_values.get((key.ratio, key.row)) if (key.dataset, key.metric) == (AVERAGE, judged) else None
        where = number, f"{key.ratio:g}", names[key.row], key.dataset, key.metric
        rows.append((*where, cell.mean, cell.std, cell.n, p))
    return csv_text(COLUMNS, rows)


# ---- the layouts -------------------------------------------------------------------------------


def layout(results: Results, exhibit: Mapping[str, Any], numbers: LongForm) -> Table:
    """Return the table as it is read: best and second of each column and ratio marked."""
    builders = {"tasks": _by_task, "datasets": _by_dataset, "clusterings": _by_clustering, "measures": _by_measure}
    columns, blocks, corner = builders[exhibit["layout"]](results, exhibit, numbers)
    seeds = {cell.n for cell in numbers.values()}
    partial = any(uneven(p) for task in exhibit["tasks"] for p in _averaged_parts(results, exhibit, task).values())
    groups = results.grid["class_groups"]
    return Table(
        name=exhibit["name"],
        label=exhibit_label(exhibit["name"]),
        title=sentence(exhibit["title"]),
        caption=sentence(exhibit["caption"]),
        notes=notes(exhibit, seeds, results.grid["backbone"], groups=groups, partial=partial),
        corner=corner,
        columns=columns,
        blocks=blocks,
    )


def _by_task(_: Results, exhibit: Mapping[str, Any], numbers: LongForm) -> Layout:
    places = [(ratio, task) for ratio in exhibit["ratios"] for task in exhibit["tasks"]]
    columns = [Column(task_title(task), ratio_title(ratio)) for ratio, task in places]
    stacked = [_column(exhibit, numbers, ratio, TASKS[task], judged_by(task)) for ratio, task in places]
    return columns, [Block("", _lines(exhibit, stacked))], "Components"


def _by_dataset(results: Results, exhibit: Mapping[str, Any], numbers: LongForm) -> Layout:
    task = exhibit["tasks"][0]
    datasets = datasets_of(exhibit, task)
    averaged, p_values = averaged_datasets(exhibit, task), significance(results, exhibit)
    columns = [Column(results.dataset_title(d) + ("" if d in averaged else " (source)")) for d in datasets] + [
        Column(AVERAGE, average=True)
    ]
    blocks = []
    for ratio in exhibit["ratios"]:
        stacked = [_column(exhibit, numbers, ratio, dataset, judged_by(task)) for dataset in [*datasets, AVERAGE]]
        marked = [p_values.get((ratio, row["id"]), 1.0) < LEVEL for row in exhibit["rows"]]
        stacked[-1] = [replace(shown, differs=differs) for shown, differs in zip(stacked[-1], marked, strict=True)]
        blocks.append(Block(ratio_title(ratio), _lines(exhibit, stacked)))
    return columns, blocks, "Method"


def _by_measure(_: Results, exhibit: Mapping[str, Any], numbers: LongForm) -> Layout:
    chosen = {name: MEASURES[name] for name in exhibit["measures"]}
    arrows = {"higher": " ↑", "lower": " ↓", None: ""}
    columns = [Column(f"{measure.title}{arrows[measure.better]}") for measure in chosen.values()]
    blocks = [
        Block(
            ratio_title(ratio),
            _lines(exhibit, [_column(exhibit, numbers, ratio, AVERAGE, name, better=chosen[name].better,
                                     decimals=DECIMALS if chosen[name].unit == "percent" else DECIMALS + 1)
                             for name in chosen]),
        )
        for ratio in exhibit["ratios"]
    ]  # fmt: skip
    return columns, blocks, "Method"


def _by_clustering(_: Results, exhibit: Mapping[str, Any], numbers: LongForm) -> Layout:
    metric = judged_by(exhibit["tasks"][0])
    columns, stacked = [], []
    for ratio in exhibit["ratios"]:
        columns += [Column(metric, ratio_title(ratio)), Column("std ↓", ratio_title(ratio))]
        cells = [numbers[Key(ratio, row["id"], AVERAGE, metric)] for row in exhibit["rows"]]
        stacked += [
            _column(exhibit, numbers, ratio, AVERAGE, metric, spread=False),
            _marked([cell.std for cell in cells], None),  # of few seeds: too uncertain itself to be ranked
        ]
    return columns, [Block("", _lines(exhibit, stacked))], "Clustering"


def _lines(exhibit: Mapping[str, Any], stacked: Sequence[Sequence[Shown]]) -> list[Line]:
    """Return the rows of a block from its columns."""
    return [
        Line(row["label"], row.get("note"), [column[i] for column in stacked]) for i, row in enumerate(exhibit["rows"])
    ]


def _column(
    exhibit: Mapping[str, Any],
    numbers: LongForm,
    ratio: float,
    dataset: str,
    metric: str,
    *,
    spread: bool = True,
    better: Better = "higher",
    decimals: int = DECIMALS,
) -> list[Shown]:
    cells = [numbers[Key(ratio, row["id"], dataset, metric)] for row in exhibit["rows"]]
    behind = positions(exhibit)
    return [
        replace(
            shown,
            spread=f"{cell.std:.{decimals}f}" if spread and cell.std is not None else None,
            cells=behind.get((ratio, row["id"], dataset), ()),
        )
        for shown, cell, row in zip(
            _marked([cell.mean for cell in cells], better, decimals), cells, exhibit["rows"], strict=True
        )
    ]


def _marked(values: Sequence[float | None], better: Better, decimals: int = DECIMALS) -> list[Shown]:
    marks = rank(values, better, decimals)
    return [
        Shown(MISSING if value is None else f"{value:.{decimals}f}", mark=mark, order=value)
        for value, mark in zip(values, marks, strict=True)
    ]


def rank(values: Sequence[float | None], better: Better = "higher", decimals: int = DECIMALS) -> list[Mark | None]:
    """Return which values are best and second, as shown: values that round to the same text are tied.

    Nothing is marked where fewer than two values exist, or where neither direction is better.
    """
    rounded = [None if value is None else round(value, decimals) for value in values]
    known = [value for value in rounded if value is not None]
    if len(known) < 2 or better is None:
        return [None] * len(values)
    order = sorted(set(known), reverse=better == "higher")
    marks: dict[float | None, Mark] = dict(zip(order, ("best", "second"), strict=False))
    return [marks.get(value) for value in rounded]
