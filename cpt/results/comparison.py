"""Two methods of one experiment, or one method in two experiments, paired: is the difference more than noise?"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from cpt.errors import CptError, nearest
from cpt.files.paths import PREDICTIONS, RUNS, Ratio, ratio_order
from cpt.files.stage_files import read_parquet
from cpt.results import stats
from cpt.results.cells import METRICS, TASKS, TRANSFER_TASKS, Results, judged_by

SEED = 0
"""Of the generator that draws sign flips; the same numbers come out every time."""


class Place(NamedTuple):
    """What both sides are paired by."""

    task: str
    metric: str
    ratio: Ratio
    dataset: str
    seed: int


class Line(NamedTuple):
    """A paired difference, second minus first.

    Attributes:
        datasets, seeds: how many are paired: every dataset with the same seeds.
        first, second: means over datasets and seeds.
        difference: mean over datasets, with the t interval of the datasets' differences.
        higher: datasets on which the second is higher.
        p: two-sided, by flipping the signs of the datasets' differences.
        corrected: p after Holm's correction over all lines of the comparison.
    """

    task: str
    metric: str
    ratio: Ratio
    datasets: int
    seeds: int
    first: float
    second: float
    difference: stats.Interval
    higher: int
    p: float
    corrected: float


class Runs(NamedTuple):
    """All runs of both sides at one task and ratio, by what the task is judged by.

    Attributes:
        first, second: interquartile means over seeds and datasets.
        improvement: chance that a run of the second side beats one of the first on a dataset.
    """

    task: str
    metric: str
    ratio: Ratio
    first: stats.Interval
    second: stats.Interval
    improvement: stats.Interval


class Images(NamedTuple):
    """A paired difference on one dataset's test images, second minus first, mean over the seeds that both have.

    Attributes:
        images: number of test images.
        difference: with the interval of the choice of test images.
    """

    task: str
    metric: str
    ratio: Ratio
    dataset: str
    images: int
    difference: stats.Interval


class Changed(NamedTuple):
    """A hyperparameter by which two rows of one method differ.

    Attributes:
        first, second: its values on the two sides.
        datasets: trained on which they differ; empty: wherever both sides meet.
    """

    name: str
    first: list[Any]
    second: list[Any]
    datasets: list[str]


class Comparison(NamedTuple):
    """Everything that is told of two sides.

    Attributes:
        first, second: what each side is: a row in a folder of results.
        changed: what the runs differ in, if both sides are of one method.
        over_images: empty if it was not asked for.
        left_out: places with a number on one side that is in no difference.
    """

    first: str
    second: str
    changed: list[Changed]
    over_datasets: list[Line]
    over_runs: list[Runs]
    over_images: list[Images]
    left_out: list[Place]


Side = tuple[Results, str]
"""Results and a row of theirs."""
Key = tuple[str, Ratio, str]
"""Task, ratio, dataset."""
Numbers = Mapping[Place, float]


def row_id(results: Results, row: str) -> str:
    """Return the id of a row that is called by its id or its label.

    Raises:
        CptError: no exhibit has such a row, or several rows share the label.
    """
    labels = labels_of(results)
    ids = [row] if row in labels else [name for name, label in labels.items() if label == row]
    if not ids:
        raise CptError(f"{results.folder}: no row {row!r}; {nearest(row, labels)}")
    if len(ids) > 1:
        raise CptError(f"{results.folder}: {row!r} is the label of several rows; give one of {', '.join(sorted(ids))}")
    return ids[0]


def compare_sides(first: Side, second: Side, *, images: bool = False, datasets: Collection[str] = ()) -> Comparison:
    """Compare two rows in every way.

    Args:
        first, second: the rows.
        images: also image by image.
        datasets: that count; empty: all.

    Raises:
        CptError: a row or a dataset is unknown or ambiguous, both are the same runs, or there is nothing to pair.
    """
    require_two_sides(first, second)
    values = values_of(*first), values_of(*second)
    if datasets:
        known = sorted({place.dataset for side in values for place in side})
        for name in datasets:
            if name not in known:
                raise CptError(f"{first[0].folder}: neither row has a dataset {name!r}; {nearest(name, known)}")
        one, other = ({p: value for p, value in side.items() if p.dataset in datasets} for side in values)
        values = one, other
    lines, left = compare(*values)
    by_image = over_images(first, second, datasets) if images else []
    a_name, b_name = (f"{row} in {results.folder}" for results, row in (first, second))
    return Comparison(a_name, b_name, changed(first, second), lines, over_runs(*values), by_image, left)


def changed(first: Side, second: Side) -> list[Changed]:
    """Return by which hyperparameters two rows differ; empty if they are of different methods."""
    sides = [(results, runs_of(results, row), _hyperparameters(results)) for results, row in (first, second)]
    met = sorted(sides[0][1].keys() & sides[1][1].keys(), key=lambda key: (key[0], ratio_order(key[1]), key[2]))
    values: dict[str, tuple[list[Any], list[Any]]] = {}
    where: dict[str, set[str]] = {}
    trained: set[str] = set()
    for key in met:
        pairs = [(results.run(of[key][0]), known.get(of[key][0])) for results, of, known in sides]
        (one, own), (two, other) = pairs
        if one["method"] != two["method"]:
            return []
        if own is None or other is None:  # not finished
            continue
        trained.add(one["dataset"])
        for name in sorted(own.keys() | other.keys()):
            if own.get(name) != other.get(name):
                for known, value in zip(values.setdefault(name, ([], [])), (own, other), strict=True):
                    known += [value.get(name)] if value.get(name) not in known else []
                where.setdefault(name, set()).add(one["dataset"])
    return [
        Changed(name, *both, sorted(where[name]) if where[name] != trained else []) for name, both in values.items()
    ]


def _hyperparameters(results: Results) -> dict[str, dict[str, Any]]:
    """Finished run -> its hyperparameters."""
    table, _ = read_parquet(results.gathered / "runs.parquet", RUNS)
    found = dict(zip(*(table[name].to_pylist() for name in ("run", "hyperparameters")), strict=True))
    return {run: json.loads(text) for run, text in found.items()}


def require_two_sides(first: Side, second: Side) -> None:
    """Refuse two sides that are the same runs wherever they meet.

    Raises:
        CptError: they are; or a row is unknown or ambiguous.
    """
    (one, row), (two, other) = first, second
    runs, others = runs_of(*first), runs_of(*second)
    met = runs.keys() & others.keys()
    distinct = not met or any(set(runs[key]).isdisjoint(others[key]) for key in met)
    if distinct or one.folder.resolve() != two.folder.resolve():
        return
    left = sorted(set(labels_of(one)) - {row_id(one, row), row_id(two, other)})
    same = f"{row} is compared with itself" if row == other else f"{row} and {other} are the same runs"
    raise CptError(f"{one.folder}: {same}; give another row ({', '.join(left)}) or another folder")


def labels_of(results: Results) -> dict[str, str]:
    """Row's id -> label, over all exhibits."""
    return {row["id"]: row["label"] for exhibit in results.grid["exhibits"].values() for row in exhibit.get("rows", [])}


def runs_of(results: Results, row: str) -> dict[Key, list[str]]:
    """Runs of a row by place, over all exhibits that have it: each may ask for seeds of its own.

    Raises:
        CptError: as ``row_id``.
    """
    chosen = row_id(results, row)
    found: dict[Key, dict[str, None]] = {}
    for exhibit in results.grid["exhibits"].values():
        for cell in exhibit["cells"]:
            source = cell["source"] and cell["task"] in TRANSFER_TASKS  # averages of transfer tasks leave it out
            if cell["row"] == chosen and cell["parameter"] is None and not source:
                runs = found.setdefault((cell["task"], cell["ratio"], cell["dataset"]), {})
                runs.update(dict.fromkeys(cell["runs"]))
    return {key: sorted(runs) for key, runs in found.items()}


def values_of(results: Results, row: str) -> dict[Place, float]:
    """Every number of a row.

    Raises:
        CptError: as ``row_id``, or none of its runs is finished.
    """
    found: dict[Place, float] = {}
    for (task, ratio, dataset), runs in runs_of(results, row).items():
        for metric in ["H", "base", "new"] if judged_by(task) == "H" else ["accuracy"]:
            cell = {"task": task, "dataset": dataset, "runs": runs}
            for seed, value in results.seeds(cell, metric).items():
                found[Place(task, metric, ratio, dataset, seed)] = value
    if not found:
        raise CptError(f"{results.folder}: row {row!r} has no finished runs; run `snakemake` first")
    return found


def compare(first: Numbers, second: Numbers) -> tuple[list[Line], list[Place]]:
    """Pair two sets of numbers; return the differences and the places that are left out.

    A line is over the seeds that both sides have on all of its datasets. A seedless method (one run, seed 0) is paired
    with every seed of the other side.

    Raises:
        CptError: nothing can be paired.
    """
    first, second = _spread(first, second), _spread(second, first)
    groups: dict[tuple[str, str, Ratio], dict[str, list[int]]] = {}
    for place in sorted(first.keys() & second.keys(), key=_order):
        groups.setdefault(place[:3], {}).setdefault(place.dataset, []).append(place.seed)
    lines: list[Line] = []
    used: set[Place] = set()
    for group, seeds_of in groups.items():
        seeds = sorted(set.intersection(*map(set, seeds_of.values())))
        if seeds:
            places = [Place(*group, dataset, seed) for dataset in seeds_of for seed in seeds]
            used.update(places)
            shape = len(seeds_of), len(seeds)
            numbers = (np.array([side[place] for place in places]).reshape(shape) for side in (first, second))
            lines.append(_line(group, *numbers))
    if not lines:
        raise CptError(
            "nothing can be paired: at no task and τ have both sides a seed on all datasets that they share; compare "
            "two rows of one table"
        )
    corrected = stats.holm([line.p for line in lines])
    lines = [line._replace(corrected=float(p)) for line, p in zip(lines, corrected, strict=True)]
    return lines, sorted((first.keys() | second.keys()) - used, key=_order)


def _line(group: tuple[str, str, Ratio], first: NDArray[np.float64], second: NDArray[np.float64]) -> Line:
    """Compare the (datasets, seeds) numbers of both sides; p is not corrected yet."""
    task, metric, ratio = group
    datasets, seeds = first.shape
    one, other = first.mean(axis=1), second.mean(axis=1)
    change = other - one
    p = stats.sign_flip_test(change, np.random.default_rng(SEED))
    means, higher = (float(one.mean()), float(other.mean())), int((change > 0).sum())
    return Line(task, metric, ratio, datasets, seeds, *means, stats.t_interval(change), higher, p, p)


def over_runs(first: Numbers, second: Numbers) -> list[Runs]:
    """Compare all runs of two sides, over the datasets that both have and each side's seeds of all of these."""
    sides = _spread(first, second), _spread(second, first)
    groups = dict.fromkeys(place[:3] for place in sorted(sides[0], key=_order) if place.metric == judged_by(place.task))
    found = []
    for group in groups:
        own = [{place[3:]: value for place, value in side.items() if place[:3] == group} for side in sides]
        datasets = sorted(set.intersection(*({dataset for dataset, _ in values} for values in own)))
        scores = []
        for values in own:
            seeds = sorted({seed for _, seed in values if all((name, seed) in values for name in datasets)})
            scores.append([[values[name, seed] for name in datasets] for seed in seeds])
        if datasets and all(scores):
            one, other = (stats.interquartile_mean(side, np.random.default_rng(SEED)) for side in scores)
            improvement = stats.probability_of_improvement(scores[0], scores[1], np.random.default_rng(SEED))
            found.append(Runs(*group, one, other, improvement))
    return found


def over_images(first: Side, second: Side, datasets: Collection[str] = ()) -> list[Images]:
    """Compare two rows image by image, from their predictions; ``datasets``: those that count, empty: all.

    Raises:
        CptError: as ``row_id``; predictions are missing or damaged, or are of other images.
    """
    sides = [(results, runs_of(results, row)) for results, row in (first, second)]
    keys = sides[0][1].keys() & sides[1][1].keys()
    found = []
    for key in sorted(keys, key=lambda key: (list(TASKS).index(key[0]), ratio_order(key[1]), key[2])):
        task, ratio, dataset = key
        if datasets and dataset not in datasets:
            continue
        finished = (
            {results.run(run)["seed"]: run for run in of[key] if run in results.finished} for results, of in sides
        )
        runs = _same_seeds(*finished)
        if not all(runs):
            continue
        right = [_right(results, of_seeds, task, dataset) for (results, _), of_seeds in zip(sides, runs, strict=True)]
        one, other = ([side[subset] for subset in sorted(side)] for side in right)
        if [len(part) for part in one] != [len(part) for part in other]:
            raise CptError(f"{dataset}: the two sides predict other test images; compare results of the same datasets")
        difference = stats.paired_bootstrap(one, other, np.random.default_rng(SEED))
        points = stats.Interval(*(100 * value for value in difference))
        found.append(Images(task, judged_by(task), ratio, dataset, sum(map(len, one)), points))
    return found


def _same_seeds(first: dict[int, str], second: dict[int, str]) -> tuple[list[str], list[str]]:
    """Runs of the seeds that both sides have; all of them where one side knows no seed."""
    if set(first) == {0} or set(second) == {0}:
        return list(first.values()), list(second.values())
    seeds = sorted(first.keys() & second.keys())
    return [first[seed] for seed in seeds], [second[seed] for seed in seeds]


def _right(results: Results, runs: Sequence[str], task: str, dataset: str) -> dict[str, NDArray[np.float64]]:
    """Subset -> share of the runs by which every test image is right, in manifest order."""
    subsets = ("base", "new") if task == "base_to_new" else ("all",)
    parts: dict[str, list[NDArray]] = {subset: [] for subset in subsets}
    for run in runs:
        table, _ = read_parquet(results.folder / "runs" / run / "predictions.parquet", PREDICTIONS)
        final = table.filter(pc.and_(pc.is_null(table["epoch"]), pc.equal(table["target"], dataset)))
        for subset in subsets:
            rows = final.filter(pc.equal(final["subset"], subset)).sort_by("row")
            first = pc.list_element(rows["top_labels"], 0)
            parts[subset].append(pc.equal(first, rows["label"]).to_numpy())
    return {subset: np.mean(found, axis=0) for subset, found in parts.items()}


def _spread(own: Mapping[Place, float], other: Mapping[Place, float]) -> dict[Place, float]:
    """Give numbers of a method that knows no seed the seeds of the other side."""
    if {place.seed for place in own} != {0}:
        return dict(own)
    seeds: dict[tuple, list[int]] = {}
    for place in other:
        seeds.setdefault(place[:4], []).append(place.seed)
    return {Place(*place[:4], seed): value for place, value in own.items() for seed in seeds.get(place[:4], [0])}


def _order(place: Place) -> tuple:
    task, metric = list(TASKS).index(place.task), list(METRICS).index(place.metric)
    return task, ratio_order(place.ratio), metric, place.dataset, place.seed
