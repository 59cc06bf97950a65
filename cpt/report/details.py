"""What a number of the page opens: its seeds, configuration, curves, classes and calibration, as plain data."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cpt.data.classes import subset_labels
from cpt.files import column, read_metadata, read_parquet
from cpt.paths import COSTS, COUNTS, CURVES, RUNS, TEXT_FEATURES
from cpt.report.results import FURTHER, METRICS, TASKS, Results, judged_by, row_names
from cpt.report.tables import DECIMALS

CURVE_DIGITS = 4


def details(results: Results, folder: Path) -> dict[str, Any]:
    """Return everything behind the numbers of an experiment's exhibits (docs/files.md, "page").

    Args:
        results: the grid with its metrics.
        folder: where runs, costs, counts and curves.parquet and features/ lie.

    Raises:
        CptError: a file is missing or damaged.
    """
    opens, cells = _cells(results)
    runs = sorted({run for cell in cells for run in cell["runs"]})
    groups = sorted({_group(run) for run in runs})
    place = {run: i for i, run in enumerate(runs)}
    configurations = _configurations(folder)
    curves = _curves(read_parquet(folder / "curves.parquet", CURVES)[0])
    tested = _tested(read_parquet(folder / "counts.parquet", COUNTS)[0], groups)
    spent = {row["run"]: row for row in read_parquet(folder / "costs.parquet", COSTS)[0].to_pylist()}
    for cell in cells:
        cell["group"] = groups.index(_group(cell["runs"][0]))
        cell["runs"] = [place[run] for run in cell["runs"]]
    return {
        "opens": opens,
        "cells": cells,
        "runs": [
            [run, results.run(run)["seed"], *(spent.get(run, {}).get(name) for name in ("seconds", "peak_memory_mb"))]
            for run in runs
        ],
        "groups": [
            {
                "folder": group,
                "configuration": configurations.get(group, {}),
                "curves": curves.get(group, {}),
                "tested": tested.get(group, {}),
            }
            for group in groups
        ],
        "names": _names(results, folder, {name for found in tested.values() for name in found}),
    }


def _group(run: str) -> str:
    """A run's folder without its seed."""
    return run.rpartition("/")[0]


# ---- cells -------------------------------------------------------------------------------------


def _cells(results: Results) -> tuple[dict[str, list[int]], list[dict[str, Any]]]:
    """Every cell once, and for every exhibit the places of its cells among them."""
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
                cells.append(
                    {
                        "method": labels[cell["row"]],
                        "task": TASKS[cell["task"]],
                        "dataset": results.dataset_title(cell["dataset"]),
                        "target": cell["dataset"],
                        "ratio": cell["ratio"],
                        "setting": f"{swept} = {cell['x']:g}" if swept else None,
                        "judged": judged_by(cell["task"]),
                        "numbers": _numbers(results, cell),
                        "runs": cell["runs"],
                    }
                )
            opens[name].append(known[key])
    return opens, cells


def _numbers(results: Results, cell: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """Metrics of a cell as shown, one value per run; those that no run has are left out."""
    judged = judged_by(cell["task"])
    wanted = {judged: METRICS[judged]} | FURTHER["base_to_new" if judged == "H" else "other"]
    found = {
        name: [results.values.get((run, cell["dataset"], *where)) for run in cell["runs"]]
        for name, where in wanted.items()
    }
    return {
        name: [None if value is None else round(value, DECIMALS) for value in values]
        for name, values in found.items()
        if any(value is not None for value in values)
    }


# ---- groups: runs that differ in their seed only -------------------------------------------------


def _configurations(folder: Path) -> dict[str, dict[str, Any]]:
    table, _ = read_parquet(folder / "runs.parquet", RUNS)
    return {
        _group(run): json.loads(hyperparameters)
        for run, hyperparameters in dict(
            zip(table["run"].to_pylist(), table["hyperparameters"].to_pylist(), strict=True)
        ).items()
    }


def _curves(table: pa.Table) -> dict[str, dict[str, list[list[float | None]]]]:
    """Return group -> measure -> one curve over epochs per seed."""
    found: dict[str, dict[str, dict[str, list[float | None]]]] = defaultdict(lambda: defaultdict(dict))
    columns = [table[name].to_pylist() for name in ("run", "measure", "value")]
    for run, measure, value in zip(*columns, strict=True):
        found[_group(run)][measure].setdefault(run, []).append(_short(value))
    return {
        group: {measure: list(by_run.values()) for measure, by_run in measures.items()}
        for group, measures in found.items()
    }


def _short(value: float | None) -> float | None:
    return float(f"{value:.{CURVE_DIGITS}g}") if value is not None and math.isfinite(value) else None


def _tested(table: pa.Table, groups: Sequence[str]) -> dict[str, dict[str, dict[str, list]]]:
    """Return group -> ``target/subset`` -> accuracies by class and calibration by bin, over all seeds.

    Accuracies are tenths of a percent: what is shown, in few characters.
    """
    names = table["run"].combine_chunks().dictionary_encode()
    of_run = {group: i for i, group in enumerate(groups)}
    group_of = np.array([of_run.get(_group(run), -1) for run in names.dictionary.to_pylist()], dtype=np.int64)
    weighted = column(table, "confidence") * column(table, "images")
    table = pa.table(
        {
            "group_of": group_of[np.from_dlpack(names.indices)],
            **{name: table[name] for name in table.column_names if name != "run"},
            "weighted": weighted,
        }
    )
    keys = ["group_of", "target", "subset", "by", "index"]
    sums = [(name, "sum") for name in ("images", "correct", "weighted")]
    aggregated = table.filter(pc.greater_equal(table["group_of"], 0)).group_by(keys)
    rows = aggregated.aggregate(
        [*sums, ("train_images", "mean"), ("group", "min"), ("group", "max"), ("images", "max")]
    )
    rows = rows.sort_by([(key, "ascending") for key in keys])
    columns = {name: rows[name].to_pylist() for name in rows.column_names}
    found: dict[str, dict[str, dict[str, list]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for i, (group, target, subset, by, index) in enumerate(zip(*(columns[key] for key in keys), strict=True)):
        entry = found[groups[group]][f"{target}/{subset}"]
        images, correct = columns["images_sum"][i], columns["correct_sum"][i]
        if by == "confidence":
            confidence = columns["weighted_sum"][i] / images
            entry["bins"].append([images, round(confidence, 3), round(correct / images, 3)])
            continue
        entry["label"].append(index)
        entry["accuracy"].append(round(1000 * correct / images))
        entry["images"].append(columns["images_max"][i])
        if columns["train_images_mean"][i] is not None:
            third = columns["group_min"][i]
            entry["train"].append(round(columns["train_images_mean"][i], 1))
            entry["third"].append(third if third == columns["group_max"][i] else None)
    return {group: {name: dict(entry) for name, entry in targets.items()} for group, targets in found.items()}


def _names(results: Results, folder: Path, wanted: set[str]) -> dict[str, list[str]]:
    """Return the names of the classes of every ``target/subset``."""
    templates = {run["text_features"].rpartition("/")[2] for run in results.grid["runs"]}
    found = {}
    for name in sorted(wanted):
        dataset, _, subset = name.rpartition("/")
        paths = [folder / "features" / dataset / file for file in sorted(templates)]
        path = next((path for path in paths if path.is_file()), paths[0])
        classes = read_metadata(path, TEXT_FEATURES)["classes"]
        found[name] = [classes[label] for label in subset_labels(np.arange(len(classes)), subset)]
    return found
