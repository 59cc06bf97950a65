"""The numbers behind an exhibit: the grid's cells joined with the metrics of the finished runs.

A cell of a table or figure names the runs that make it, one per seed. Here it becomes ``{seed: value}``, and
that becomes a mean, a sample standard deviation and a number of seeds. An unfinished run has no value: it is
never counted as zero.
"""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cpt.errors import CptError, nearest
from cpt.experiment.exhibits import RECONSTRUCTION
from cpt.files.paths import GRID, RUNS
from cpt.files.stage_files import read_json, read_parquet
from cpt.metrics.reported import MEASURES

METRICS = {name: MEASURES[name].where for name in ("H", "base", "new")} | {"accuracy": ("all", "accuracy")}
"""Name of a metric in tables: its subset and metric in the metrics files."""

_SHOTS = ("many_shot", "medium_shot", "few_shot")
_BASE_TO_NEW = ("base", "new", "macro_base", "macro_new", "head", "medium", "tail", *_SHOTS, "ece_base", "ece_new")
FURTHER = {
    "base_to_new": {MEASURES[name].title: MEASURES[name].where for name in _BASE_TO_NEW},
    "other": {name: ("all", f"{name}_accuracy") for name in ("macro", "head", "medium", "tail")}
    | {MEASURES[name].title: MEASURES[name].of("few_shot").where for name in _SHOTS}
    | {"ECE": ("all", "calibration_error")},
}
"""What is told of a cell beside the number it is judged by: name -> subset and metric; head, medium and tail only where
the trained classes are tested; many, medium and few where they have all training images that there are."""

TASKS = {
    "base_to_new": "base-to-new",
    "cross_dataset": "cross-dataset",
    "domain_generalization": "domain-generalization",
    "few_shot": "few-shot",
}
"""Name of a task in the grid: its name in tables."""

TRANSFER_TASKS = ("cross_dataset", "domain_generalization")
"""Tasks that are scored on other datasets than the one trained on: their averages leave the source out."""

SeedValues = dict[int, float]


class Summary(NamedTuple):
    """Mean over seeds, sample standard deviation (None for fewer than two seeds), number of seeds."""

    mean: float | None
    std: float | None
    n: int


@dataclass(frozen=True)
class Results:
    """What was asked for and what was measured.

    Attributes:
        folder: the experiment's results folder.
        gathered: folder of runs, costs, counts and curves.parquet.
        grid: the content of grid.json.
        runs: the grid's run entries by run name.
        finished: names of the runs that have metrics.
        values: (run, target, subset, metric) -> value of the finished run, every metric.
    """

    folder: Path
    gathered: Path
    grid: dict[str, Any]
    runs: dict[str, dict[str, Any]]
    finished: frozenset[str]
    values: dict[tuple[str, str, str, str], float]

    def exhibit(self, name: str) -> dict[str, Any]:
        """Return a table's or figure's declaration.

        Raises:
            CptError: the grid has no exhibit of this name.
        """
        exhibits = self.grid["exhibits"]
        if name not in exhibits:
            raise CptError(f"{self.folder}/grid.json: no exhibit {name!r}; {nearest(name, exhibits)}")
        return exhibits[name]

    def run(self, name: str) -> dict[str, Any]:
        """Return the grid's entry of a run.

        Raises:
            CptError: an exhibit names a run that the grid does not list.
        """
        if name not in self.runs:
            raise CptError(f"grid.json: an exhibit names run {name!r}, which the grid does not list; run cpt grid")
        return self.runs[name]

    def seeds(self, cell: Mapping[str, Any] | None, metric: str | None = None) -> SeedValues:
        """Return a cell's value per finished seed, of the metric the task is judged by or another one."""
        return {} if cell is None else self.values_of(cell, *METRICS[metric or judged_by(cell["task"])])

    def measured(self, cell: Mapping[str, Any], measure: str) -> SeedValues:
        """Return a cell's value per finished seed of a measure of ``cpt.metrics.reported``."""
        return self.values_of(cell, *MEASURES[measure].of(cell["task"]).where)

    def values_of(self, cell: Mapping[str, Any], subset: str, metric: str) -> SeedValues:
        """Return a cell's value per finished seed of a metric of the metrics files."""
        found = {self.run(run)["seed"]: self.values.get((run, cell["dataset"], subset, metric)) for run in cell["runs"]}
        return {seed: value for seed, value in sorted(found.items()) if value is not None}

    def dataset_title(self, dataset: str) -> str:
        """Return the title of a dataset for headings, with a mark where its split is not the published one."""
        entry = self.grid["datasets"].get(dataset, {"title": dataset, "derived_split": False})
        return entry["title"] + (" (derived split)" if entry["derived_split"] else "")


def read_results(grid: Path, runs: Path) -> Results:
    """Read grid.json and runs.parquet.

    Raises:
        CptError: a file is missing, damaged or of another schema.
    """
    asked = read_json(grid, GRID)
    table, _ = read_parquet(runs, RUNS)
    columns = [table[name].to_pylist() for name in ("run", "target", "subset", "metric", "epoch", "value")]
    values = {
        (run, target, subset, metric): value
        for run, target, subset, metric, epoch, value in zip(*columns, strict=True)
        if epoch is None and value is not None and math.isfinite(value)
    }
    return Results(
        folder=grid.parent,
        gathered=runs.parent,
        grid=asked,
        runs={entry["run"]: entry for entry in asked["runs"]},
        finished=frozenset(columns[0]),
        values=values,
    )


def hyperparameters(results: Results) -> dict[str, dict[str, Any]]:
    """Return the hyperparameters of every finished run.

    Raises:
        CptError: runs.parquet is missing or damaged.
    """
    table, _ = read_parquet(results.gathered / "runs.parquet", RUNS)
    texts = dict(zip(table["run"].to_pylist(), table["hyperparameters"].to_pylist(), strict=True))
    return {run: json.loads(text) for run, text in texts.items()}


def judged_by(task: str) -> str:
    """Return the metric a task is judged by: H for base-to-new, accuracy for the others."""
    return "H" if task == "base_to_new" else "accuracy"


def shared(parts: Sequence[SeedValues]) -> list[int]:
    """Return the seeds that every dataset has: averages and tests over datasets are of these."""
    return sorted(set.intersection(*(set(part) for part in parts))) if parts else []


def uneven(parts: Sequence[SeedValues]) -> bool:
    """Whether all datasets have seeds, and some have seeds that others lack."""
    return all(parts) and any(set(part) != set(parts[0]) for part in parts)


def average(parts: Sequence[SeedValues]) -> SeedValues:
    """Return the mean over datasets per seed, for the seeds that every dataset has."""
    return {seed: statistics.fmean(part[seed] for part in parts) for seed in shared(parts)}


def over_epochs(
    results: Results,
    cells: Sequence[Mapping[str, Any]],
    of_run: Callable[[str, Mapping[str, Any]], Iterable[tuple[int, float]]],
) -> dict[int, SeedValues]:
    """Return epoch -> value per seed, averaged over the cells' datasets, for the epochs that every dataset has.

    ``cells`` are one per dataset; ``of_run`` gives (epoch, value) pairs of a run of a cell.
    """
    parts: dict[int, list[SeedValues]] = defaultdict(list)
    for cell in cells:
        by_epoch: dict[int, SeedValues] = defaultdict(dict)
        for run in cell["runs"]:
            for epoch, value in of_run(run, cell):
                by_epoch[epoch][results.run(run)["seed"]] = value
        for epoch, values in by_epoch.items():
            parts[epoch].append(values)
    averaged = {epoch: average(parts[epoch]) for epoch in sorted(parts) if len(parts[epoch]) == len(cells)}
    return {epoch: values for epoch, values in averaged.items() if values}


def summarize(values: SeedValues) -> Summary:
    """Return mean, sample standard deviation and number of the values over seeds."""
    if not values:
        return Summary(None, None, 0)
    numbers = list(values.values())
    std = statistics.stdev(numbers) if len(numbers) > 1 else None
    return Summary(statistics.fmean(numbers), std, len(numbers))


def datasets_of(exhibit: Mapping[str, Any], task: str) -> list[str]:
    """Return the test datasets of a task in the grid's order, the source of a transfer task first."""
    sources = {c["dataset"]: c["source"] for c in exhibit["cells"] if c["task"] == task}
    first = task in TRANSFER_TASKS
    return sorted(sources, key=lambda dataset: not (first and sources[dataset]))


def averaged_datasets(exhibit: Mapping[str, Any], task: str) -> list[str]:
    """Return the datasets that a task's average is over: all, without the source of a transfer task."""
    sources = {c["dataset"] for c in exhibit["cells"] if c["task"] == task and c["source"]}
    left_out = sources if task in TRANSFER_TASKS else set()
    return [dataset for dataset in datasets_of(exhibit, task) if dataset not in left_out]


def tested_rows(exhibit: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the rows whose differences are tested, the reference row among them: all but the controls."""
    return [row for row in exhibit["rows"] if not row.get("control")]


def row_names(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return row id -> name in figures and data files.

    That is the label, with the note where two rows share the label or where it says that a row is a reconstruction or a
    control.
    """
    rows = list(rows)
    labels = [row["label"] for row in rows]

    def name(row: Mapping[str, Any]) -> str:
        note = row.get("note") or ""
        noted = note and (labels.count(row["label"]) > 1 or RECONSTRUCTION in note or row.get("control"))
        return f"{row['label']} ({note})" if noted else row["label"]

    return {row["id"]: name(row) for row in rows}


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return CSV with full-precision floats; None is an empty field."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([repr(float(v)) if isinstance(v, float) else v for v in row] for row in rows)
    return buffer.getvalue()
