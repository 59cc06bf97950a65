"""Two methods of one experiment, or one method in two experiments, paired: is the difference more than noise?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cpt import stats
from cpt.errors import CptError, nearest
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


def values_of(results: Results, row: str) -> dict[Place, float]:
    """Every number of a row, over all exhibits that have it.

    Raises:
        CptError: no exhibit has a row of this id or label.
    """
    known = {r["id"]: r["label"] for e in results.grid["exhibits"].values() for r in e.get("rows", [])}
    ids = [row] if row in known else [name for name, label in known.items() if label == row]
    if not ids:
        raise CptError(f"{results.folder}: no row {row!r}; {nearest(row, known)}")
    found: dict[Place, float] = {}
    for exhibit in results.grid["exhibits"].values():
        for cell in exhibit["cells"]:
            if (
                cell["row"] in ids
                and cell["parameter"] is None
                and not (cell["source"] and cell["task"] in TRANSFER_TASKS)
            ):  # averages of transfer tasks leave their source out
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
