"""What a number of the page opens: its seeds, configuration, curves, classes and calibration, as plain data."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cpt.data.classes import subset_labels
from cpt.files.paths import COSTS, COUNTS, CURVES, TEXT_FEATURES, Ratio
from cpt.files.stage_files import read_metadata, read_parquet
from cpt.metrics.reported import MEASURES
from cpt.report.layout import DECIMALS
from cpt.report.tables import layout_of, long_form
from cpt.report.words import exhibit_label
from cpt.results.cells import (
    FURTHER,
    METRICS,
    TASKS,
    Results,
    averaged_datasets,
    hyperparameters,
    judged_by,
    row_names,
    summarize,
)

CURVE_DIGITS = 4


def details(results: Results) -> dict[str, Any]:
    """Return everything behind the numbers of an experiment's exhibits.

    ``opens``: exhibit -> places among ``cells``, in the order of its cells. A cell names its runs by their places among
    ``runs`` (name, seed, seconds, memory) and ``curves`` (measure -> value by epoch), and has in ``groups`` what is
    pooled over exactly these runs. ``averages``: table -> places of the cells that an average is over, as in its link
    -> metric -> mean, standard deviation, number of seeds. ``tells``: table of measures -> those that its numbers open;
    ``usual``: what other numbers open, by what they are judged by. ``digits``: decimals of metrics that have not two.
    ``names``: ``target/subset`` -> names of its classes. Numbers are in full precision.

    Raises:
        CptError: runs, costs, counts or curves.parquet or text features are missing or damaged.
    """
    folder = results.folder
    opens, cells = _cells(results)
    runs = sorted({run for cell in cells for run in cell["runs"]})
    groups = sorted({tuple(cell["runs"]) for cell in cells})
    of_seeds = {_without_seed(run): values for run, values in hyperparameters(results).items()}
    curves = _curves(read_parquet(folder / "curves.parquet", CURVES)[0])
    tested = _tested(read_parquet(folder / "counts.parquet", COUNTS)[0], groups)
    spent = {row["run"]: row for row in read_parquet(folder / "costs.parquet", COSTS)[0].to_pylist()}
    run_places = {run: place for place, run in enumerate(runs)}
    group_places = {group: place for place, group in enumerate(groups)}
    for cell in cells:
        cell["group"] = group_places[tuple(cell["runs"])]
        cell["runs"] = [run_places[run] for run in cell["runs"]]
    tables = {name: one for name, one in results.grid["exhibits"].items() if one["kind"] == "table"}
    return {
        "opens": opens,
        "labels": {name: exhibit_label(name) for name in opens},
        "averages": {name: _averages(results, table) for name, table in tables.items()},
        "tells": {name: [MEASURES[measure].title for measure in table["measures"]] for name, table in tables.items()},
        "usual": {"H": ["H", *FURTHER["base_to_new"]], "accuracy": ["accuracy", *FURTHER["other"]]},
        "digits": {one.title: DECIMALS + 1 for one in MEASURES.values() if one.unit != "percent"},
        "cells": cells,
        "runs": [
            [run, results.run(run)["seed"], *(spent.get(run, {}).get(name) for name in ("seconds", "peak_memory_mb"))]
            for run in runs
        ],
        "curves": [curves.get(run, {}) for run in runs],
        "groups": [
            {"configuration": of_seeds.get(_without_seed(group[0]), {}), "tested": found}
            for group, found in zip(groups, tested, strict=True)
        ],
        "names": _names(results, {name for found in tested for name in found}),
    }


def _without_seed(run: str) -> str:
    """A run's folder without its seed: runs of one such folder have one configuration."""
    return run.rpartition("/")[0]


# ---- cells -------------------------------------------------------------------------------------


def _cells(results: Results) -> tuple[dict[str, list[int]], list[dict[str, Any]]]:
    """Every cell once, and for every exhibit the places of its cells among them."""
    tables = [exhibit for exhibit in results.grid["exhibits"].values() if exhibit["kind"] == "table"]
    measures = list(dict.fromkeys(name for table in tables for name in table["measures"]))
    known: dict[tuple, int] = {}
    cells: list[dict[str, Any]] = []
    opens: dict[str, list[int]] = {}
    for name, exhibit in sorted(results.grid["exhibits"].items(), key=lambda item: item[1]["kind"] != "table"):
        labels = row_names(exhibit["rows"])
        opens[name] = []
        for cell in exhibit["cells"]:
            swept = cell["parameter"] if cell["x"] is not None else None
            key = labels[cell["row"]], cell["task"], cell["dataset"], cell["ratio"], swept, cell["x"], *cell["runs"]
            if key not in known:
                known[key] = len(cells)
                numbers, means = _numbers(results, cell, measures)
                cells.append(
                    {
                        "method": labels[cell["row"]],
                        "task": TASKS[cell["task"]],
                        "dataset": results.dataset_title(cell["dataset"]),
                        "target": cell["dataset"],
                        "ratio": cell["ratio"],
                        "setting": f"{swept} = {cell['x']:g}" if swept else None,
                        "judged": judged_by(cell["task"]),
                        "numbers": numbers,
                        "means": means,
                        "runs": cell["runs"],
                    }
                )
            opens[name].append(known[key])
    return opens, cells


def _numbers(
    results: Results, cell: Mapping[str, Any], measures: Sequence[str]
) -> tuple[dict[str, list[float | None]], dict[str, list[float | None]]]:
    """Metrics of a cell, one value per run, and their means with standard deviations, of what any run has."""
    judged = judged_by(cell["task"])
    wanted = {judged: METRICS[judged]} | FURTHER["base_to_new" if judged == "H" else "other"]
    wanted |= {MEASURES[name].title: MEASURES[name].where for name in measures}
    values: dict[str, list[float | None]] = {}
    means: dict[str, list[float | None]] = {}
    for name, where in wanted.items():
        found = [results.values.get((run, cell["dataset"], *where)) for run in cell["runs"]]
        known = {i: value for i, value in enumerate(found) if value is not None}
        if known:
            mean, std, _ = summarize(known)
            values[name], means[name] = found, [mean, std]
    return values, means


def _averages(results: Results, exhibit: Mapping[str, Any]) -> dict[str, dict[str, list[float | int | None]]]:
    """The averages of a table, under the places of the cells that each is over."""
    places: dict[tuple[Ratio, str, str], list[int]] = {}
    averaged = {task: set(averaged_datasets(exhibit, task)) for task in exhibit["tasks"]}
    layout = layout_of(exhibit)(results, exhibit)
    for place, cell in enumerate(exhibit["cells"]):
        if cell["dataset"] in averaged[cell["task"]]:
            key = cell["ratio"], cell["row"], layout.average_name(cell["task"])
            places.setdefault(key, []).append(place)
    found: dict[str, dict[str, list[float | int | None]]] = {}
    for where, number in long_form(results, exhibit).items():
        over = places.get((where.ratio, where.row, where.dataset), [])
        if len(over) > 1:
            title = MEASURES[where.metric].title if where.metric in MEASURES else where.metric
            found.setdefault(",".join(map(str, over)), {})[title] = list(number)
    return found


# ---- runs, and the groups of runs that make a cell -----------------------------------------------


def _curves(table: pa.Table) -> dict[str, dict[str, list[float | None]]]:
    """Return run -> measure -> value by epoch."""
    found: dict[str, dict[str, list[float | None]]] = defaultdict(lambda: defaultdict(list))
    columns = [table[name].to_pylist() for name in ("run", "measure", "value")]
    for run, measure, value in zip(*columns, strict=True):
        finite = value is not None and math.isfinite(value)
        found[run][measure].append(float(f"{value:.{CURVE_DIGITS}g}") if finite else None)
    return found


def _tested(table: pa.Table, pooled: Sequence[Sequence[str]]) -> list[dict[str, dict[str, list]]]:
    """Return for the runs of every entry of ``pooled``: ``target/subset`` -> accuracies by class, calibration by bin.

    Accuracies are tenths of a percent: what is shown, in few characters.
    """
    members = [(run, place) for place, together in enumerate(pooled) for run in dict.fromkeys(together)]
    runs, places = (
        pa.array([run for run, _ in members], pa.string()),
        pa.array([place for _, place in members], pa.int64()),
    )
    table = table.append_column("weighted", pc.multiply(table["confidence"], table["images"]))
    table = table.join(pa.table({"run": runs, "pool": places}), "run", join_type="inner", use_threads=False)
    keys = ["pool", "target", "subset", "by", "index"]
    sums = [(name, "sum") for name in ("images", "correct", "weighted")]
    rows = table.group_by(keys).aggregate(
        [*sums, ("train_images", "mean"), ("group", "min"), ("group", "max"), ("images", "max")]
    )
    found: list[dict[str, dict[str, list]]] = [defaultdict(lambda: defaultdict(list)) for _ in pooled]
    for row in rows.sort_by([(key, "ascending") for key in keys]).to_pylist():
        entry = found[row["pool"]][f"{row['target']}/{row['subset']}"]
        images, correct = row["images_sum"], row["correct_sum"]
        if row["by"] == "confidence":
            entry["bins"].append([images, round(row["weighted_sum"] / images, 3), round(correct / images, 3)])
            continue
        entry["label"].append(row["index"])
        entry["accuracy"].append(round(1000 * correct / images))
        entry["images"].append(row["images_max"])
        if row["train_images_mean"] is not None:
            entry["train"].append(round(row["train_images_mean"], 1))
            entry["class_group"].append(row["group_min"] if row["group_min"] == row["group_max"] else None)
    return [{name: dict(entry) for name, entry in targets.items()} for targets in found]


def _names(results: Results, wanted: set[str]) -> dict[str, list[str]]:
    """Return the names of the classes of every ``target/subset``."""
    templates = {run["text_features"].rpartition("/")[2] for run in results.grid["runs"]}
    found = {}
    for name in sorted(wanted):
        dataset, _, subset = name.rpartition("/")
        paths = [results.folder / "features" / dataset / file for file in sorted(templates)]
        path = next((path for path in paths if path.is_file()), paths[0])
        classes = read_metadata(path, TEXT_FEATURES)["classes"]
        found[name] = [classes[label] for label in subset_labels(np.arange(len(classes)), subset)]
    return found
