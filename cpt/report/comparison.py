"""Two methods of one experiment, or one method in two experiments, paired: is the difference more than noise?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from cpt import stats
from cpt.errors import CptError, nearest
from cpt.files import read_parquet
from cpt.paths import PREDICTIONS
from cpt.report.results import METRICS, TASKS, TRANSFER_TASKS, Results, judged_by

SEED = 0
"""Of the generator that draws sign flips; the same numbers come out every time."""


class Place(NamedTuple):
    """What both sides are paired by."""

    task: str
    metric: str
    ratio: float
    dataset: str
    seed: int


@dataclass(frozen=True)
class Line:
    """A paired difference, second minus first.

    Attributes:
        task, metric, ratio: where.
        datasets, seeds: how many are paired.
        first, second: means over datasets of the means over seeds.
        difference: mean over datasets, with the t interval of the datasets' differences.
        higher: datasets on which the second is higher.
        p: two-sided, by flipping the signs of the datasets' differences.
        corrected: p after Holm's correction over all lines of the comparison.
    """

    task: str
    metric: str
    ratio: float
    datasets: int
    seeds: int
    first: float
    second: float
    difference: stats.Interval
    higher: int
    p: float
    corrected: float


@dataclass(frozen=True)
class Runs:
    """All runs of both sides at one task and ratio: (seeds, datasets) scores of what the task is judged by.

    Attributes:
        task, metric, ratio: where.
        first, second: interquartile means.
        improvement: chance that a run of the second side beats one of the first on a dataset.
    """

    task: str
    metric: str
    ratio: float
    first: stats.Interval
    second: stats.Interval
    improvement: stats.Interval


@dataclass(frozen=True)
class Images:
    """A paired difference on one dataset's test images, second minus first, seeds averaged.

    Attributes:
        task, metric, ratio, dataset: where.
        images: number of test images.
        difference: with the interval of the choice of test images.
    """

    task: str
    metric: str
    ratio: float
    dataset: str
    images: int
    difference: stats.Interval


def _cells(results: Results, row: str) -> Iterator[Mapping[str, Any]]:
    """Cells of a row, over all exhibits that have it.

    Raises:
        CptError: no exhibit has a row of this id or label.
    """
    known = {r["id"]: r["label"] for e in results.grid["exhibits"].values() for r in e.get("rows", [])}
    ids = [row] if row in known else [name for name, label in known.items() if label == row]
    if not ids:
        raise CptError(f"{results.folder}: no row {row!r}; {nearest(row, known)}")
    for exhibit in results.grid["exhibits"].values():
        for cell in exhibit["cells"]:
            if (
                cell["row"] in ids
                and cell["parameter"] is None
                and not (cell["source"] and cell["task"] in TRANSFER_TASKS)
            ):  # averages of transfer tasks leave their source out
                yield cell


def values_of(results: Results, row: str) -> dict[Place, float]:
    """Every number of a row.

    Raises:
        CptError: no exhibit has a row of this id or label, or none of its runs is finished.
    """
    found: dict[Place, float] = {}
    for cell in _cells(results, row):
        metrics = ["H", "base", "new"] if judged_by(cell["task"]) == "H" else ["accuracy"]
        for metric in metrics:
            for seed, value in results.seeds(cell, metric).items():
                found[Place(cell["task"], metric, cell["ratio"], cell["dataset"], seed)] = value
    if not found:
        raise CptError(f"{results.folder}: row {row!r} has no finished runs; run `snakemake` first")
    return found


def compare(first: Mapping[Place, float], second: Mapping[Place, float]) -> tuple[list[Line], list[Place]]:
    """Pair two sets of numbers; return the differences and the places that only one side has.

    A seedless method (one run, seed 0) is paired with every seed of the other side.

    Raises:
        CptError: nothing can be paired.
    """
    first, second = _spread(first, second), _spread(second, first)
    common = sorted(first.keys() & second.keys(), key=_order)
    if not common:
        raise CptError("nothing can be paired: no task, τ, dataset and seed is on both sides")
    groups: dict[tuple[str, str, float], list[Place]] = {}
    for place in common:
        groups.setdefault(place[:3], []).append(place)
    lines = []
    for (task, metric, ratio), places in groups.items():
        datasets = list(dict.fromkeys(place.dataset for place in places))
        sides = [
            np.array([np.mean([side[p] for p in places if p.dataset == name]) for name in datasets])
            for side in (first, second)
        ]
        change = sides[1] - sides[0]
        p = stats.sign_flip_test(change, np.random.default_rng(SEED))
        seeds = len({place.seed for place in places})
        means = float(sides[0].mean()), float(sides[1].mean())
        lines.append(
            Line(
                task,
                metric,
                ratio,
                len(datasets),
                seeds,
                *means,
                stats.t_interval(change),
                int((change > 0).sum()),
                p,
                p,
            )
        )
    corrected = stats.holm([line.p for line in lines])
    lines = [Line(**{**vars(line), "corrected": float(p)}) for line, p in zip(lines, corrected, strict=True)]
    return lines, sorted(first.keys() ^ second.keys(), key=_order)


def over_runs(first: Mapping[Place, float], second: Mapping[Place, float]) -> list[Runs]:
    """Compare all runs of two sides, over the datasets that both have and each side's seeds of all of these."""
    sides = _spread(first, second), _spread(second, first)
    where = {place[:3] for place in sides[0]} & {place[:3] for place in sides[1]}
    found = []
    for task, metric, ratio in sorted(where, key=lambda key: _order(Place(key[0], key[1], key[2], "", 0))):
        if metric != judged_by(task):
            continue
        own = [{(p.dataset, p.seed): v for p, v in side.items() if p[:3] == (task, metric, ratio)} for side in sides]
        datasets = sorted({dataset for dataset, _ in own[0]} & {dataset for dataset, _ in own[1]})
        scores = []
        for values in own:
            seeds = sorted({seed for _, seed in values if all((name, seed) in values for name in datasets)})
            scores.append([[values[name, seed] for name in datasets] for seed in seeds])
        if datasets and all(scores):
            one, other = (stats.interquartile_mean(side, np.random.default_rng(SEED)) for side in scores)
            improvement = stats.probability_of_improvement(scores[0], scores[1], np.random.default_rng(SEED))
            found.append(Runs(task, metric, ratio, one, other, improvement))
    return found


def over_images(first: tuple[Results, str], second: tuple[Results, str]) -> list[Images]:
    """Compare two rows image by image, from their predictions.

    Args:
        first: results and row of one side.
        second: those of the other.

    Raises:
        CptError: predictions are missing or damaged, or are of other images.
    """
    sides = [{(c["task"], c["ratio"], c["dataset"]): c for c in _cells(*side)} for side in (first, second)]
    found = []
    for key in sorted(sides[0].keys() & sides[1].keys(), key=lambda key: (list(TASKS).index(key[0]), -key[1], key[2])):
        task, ratio, dataset = key
        right = [_right(results, cells[key]) for (results, _), cells in zip((first, second), sides, strict=True)]
        if not all(right):
            continue
        one, other = ([side[subset] for subset in sorted(side)] for side in right)
        if [len(part) for part in one] != [len(part) for part in other]:
            raise CptError(f"{dataset}: the two sides predict other test images; compare results of the same datasets")
        difference = stats.paired_bootstrap(one, other, np.random.default_rng(SEED))
        points = stats.Interval(*(100 * value for value in difference))
        found.append(Images(task, judged_by(task), ratio, dataset, sum(map(len, one)), points))
    return found


def _right(results: Results, cell: Mapping[str, Any]) -> dict[str, NDArray[np.float64]]:
    """Subset -> share of the cell's finished seeds by which every test image is right, in manifest order."""
    subsets = ("base", "new") if cell["task"] == "base_to_new" else ("all",)
    parts: dict[str, list[NDArray]] = {subset: [] for subset in subsets}
    for run in cell["runs"]:
        if run in results.finished:
            table, _ = read_parquet(results.folder / "runs" / run / "predictions.parquet", PREDICTIONS)
            final = table.filter(pc.and_(pc.is_null(table["epoch"]), pc.equal(table["target"], cell["dataset"])))
            for subset in subsets:
                rows = final.filter(pc.equal(final["subset"], subset)).sort_by("row")
                first = pc.list_element(rows["top_labels"], 0)
                parts[subset].append(pc.equal(first, rows["label"]).to_numpy())
    return {subset: np.mean(found, axis=0) for subset, found in parts.items() if found}


def _spread(own: Mapping[Place, float], other: Mapping[Place, float]) -> dict[Place, float]:
    """Give numbers of a method that knows no seed the seeds of the other side."""
    if {place.seed for place in own} != {0}:
        return dict(own)
    seeds: dict[tuple, list[int]] = {}
    for place in other:
        seeds.setdefault(place[:4], []).append(place.seed)
    return {Place(*place[:4], seed): value for place, value in own.items() for seed in seeds.get(place[:4], [0])}


def _order(place: Place) -> tuple:
    return list(TASKS).index(place.task), -place.ratio, list(METRICS).index(place.metric), place.dataset, place.seed


def is_results(word: str) -> bool:
    """Whether a word of the command line is an experiment's folder."""
    return Path(word, "runs.parquet").is_file()
