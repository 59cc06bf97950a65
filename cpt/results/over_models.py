"""Rows over several backbones: is a difference more than one model's whim? What ``cpt across`` tells.

Each experiment is one backbone on some datasets. Experiments on the same datasets are the models of one *world* (the
generated worlds, or any benchmark). What is compared is a row minus the reference row:

- a *cell* is one model on one dataset: the mean over the seeds that both rows have on all of its datasets,
- a *unit* is one dataset: the mean of its cells over the models of its world. Models of a world share its datasets and
  their images, so their cells are no independent evidence, and a dataset counts once,
- the estimate is the mean over the units of all worlds, with Student's t interval and the sign-flip test over the
  units, p corrected by Holm's method over the rows of one task, metric and τ.

Interval and test tell of the choice of datasets. They do not tell of the choice of models and worlds, of which there
are few: for that, beside each difference stand those of every model and world alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cpt.errors import CptError
from cpt.files.paths import Ratio, ratio_order, ratio_text
from cpt.files.stage_files import parse_json
from cpt.results import stats
from cpt.results.cells import TASKS, Results, SeedValues, judged_by, row_names, shared
from cpt.results.comparison import SEED, Key, labels_of, row_id, runs_of


class Place(NamedTuple):
    """What rows are compared at."""

    task: str
    metric: str
    ratio: Ratio


class Line(NamedTuple):
    """A row minus the reference at one place.

    Attributes:
        label: of the row in tables.
        mean, reference: of the row and of the reference over the units.
        difference: mean over the units, with its t interval.
        higher: units on which the row is higher.
        units: number of datasets of all worlds.
        p: two-sided, by flipping the signs of the units' differences.
        corrected: p after Holm's correction over the rows of the place.
        by_model: the mean difference of each model over its datasets, in the order of ``Across.models``.
        by_world: the mean difference of each world's units, in the order of ``Across.worlds``.
        agree: models whose mean difference has the sign of the estimate.
    """

    row: str
    label: str
    mean: float
    reference: float
    difference: stats.Interval
    higher: int
    units: int
    p: float
    corrected: float
    by_model: list[float]
    by_world: list[float]
    agree: int


class Model(NamedTuple):
    """A backbone of one experiment.

    Attributes:
        world: position in ``Across.worlds``.
        seeds: how many its cells are means over.
    """

    name: str
    folder: str
    world: int
    seeds: int


class Across(NamedTuple):
    """Everything that is told of several experiments.

    Attributes:
        reference: label of the reference row.
        worlds: titles of each world's datasets.
        lines: by place, the rows in their order.
    """

    reference: str
    models: list[Model]
    worlds: list[list[str]]
    lines: dict[Place, list[Line]]


Cells = dict[str, dict[str, SeedValues]]
"""Row -> dataset -> value per seed."""


def across(experiments: Sequence[Results], reference: str) -> Across:
    """Compare every row with a reference row over the backbones of several experiments.

    Args:
        experiments: finished ones, with the same rows at the same tasks and ratios.
        reference: id or label of a row.

    Raises:
        CptError: fewer than two experiments, an unfinished one, other rows, tasks or ratios, datasets that are only
            partly another's, the same backbone twice on the same datasets, or two rows that share no seed.
    """
    if len(experiments) < 2:
        raise CptError("across: give the folders of at least two experiments; `cpt compare` is for one")
    chosen = row_id(experiments[0], reference)
    found = [_cells(results, chosen) for results in experiments]
    _require_same_rows(experiments, found)
    worlds = _worlds(experiments, found)
    _require_other_backbones(experiments, worlds)
    models = [
        Model(str(results.grid["backbone"]), str(results.folder), world, _count(of))
        for results, of, world in zip(experiments, found, worlds, strict=True)
    ]
    titles = [
        [experiments[worlds.index(world)].dataset_title(name) for name in _datasets(found[worlds.index(world)])]
        for world in range(max(worlds) + 1)
    ]
    shown = {row for rows in found[0].values() for row in rows}
    rows = {row["id"]: row for each in _exhibits(experiments[0]) for row in each.get("rows", [])}
    labels = row_names([row for name, row in rows.items() if name in shown])
    lines = {place: _lines(place, chosen, labels, experiments, found, worlds) for place in found[0]}
    return Across(labels[chosen], models, titles, lines)


def _lines(
    place: Place,
    reference: str,
    labels: Mapping[str, str],
    experiments: Sequence[Results],
    found: Sequence[Mapping[Place, Cells]],
    worlds: Sequence[int],
) -> list[Line]:
    """The rows of one place, p corrected."""
    lines = []
    for row in found[0][place]:
        if row == reference:
            continue
        pairs = [_pairs(results, of[place], row, reference) for results, of in zip(experiments, found, strict=True)]
        own, other = (
            _units([{name: pair[side] for name, pair in of.items()} for of in pairs], worlds) for side in (0, 1)
        )
        changes = [{name: of[name] - two[name] for name in of} for of, two in zip(own, other, strict=True)]
        values = _flat(changes)
        difference = stats.t_interval(values)
        by_model = [statistics.fmean(one - two for one, two in of.values()) for of in pairs]
        p = stats.sign_flip_test(values, np.random.default_rng(SEED))
        line = Line(
            row=row,
            label=labels[row],
            mean=statistics.fmean(_flat(own)),
            reference=statistics.fmean(_flat(other)),
            difference=difference,
            higher=sum(value > 0 for value in values),
            units=len(values),
            p=p,
            corrected=p,
            by_model=by_model,
            by_world=[statistics.fmean(of.values()) for of in changes],
            agree=sum(value * difference.estimate > 0 for value in by_model),
        )
        lines.append(line)
    if not lines:
        return []
    corrected = stats.holm([line.p for line in lines])
    return [line._replace(corrected=float(p)) for line, p in zip(lines, corrected, strict=True)]


def _units(models: Sequence[Mapping[str, float]], worlds: Sequence[int]) -> list[dict[str, float]]:
    """By world: dataset -> mean over the world's models of one number per model and dataset."""
    found = []
    for world in range(max(worlds) + 1):
        own = [model for model, of in zip(models, worlds, strict=True) if of == world]
        found.append({name: statistics.fmean(model[name] for model in own) for name in own[0]})
    return found


def _flat(worlds: Sequence[Mapping[str, float]]) -> list[float]:
    """The units of all worlds."""
    return [value for of in worlds for value in of.values()]


def _pairs(results: Results, cells: Cells, row: str, reference: str) -> dict[str, tuple[float, float]]:
    """Dataset -> the row's and the reference's mean over the seeds that both have on all datasets."""
    sides = [{name: dict(values) for name, values in cells[which].items()} for which in (row, reference)]
    for own, other in (sides, sides[::-1]):
        for name, values in own.items():
            if set(values) == {0}:  # nothing is drawn: the same for every seed of the other
                own[name] = dict.fromkeys(other[name], values[0])
    seeds = shared([values for side in sides for values in side.values()])
    if not seeds:
        raise CptError(
            f"{results.folder}: {row} and {reference} share no seed on all datasets; give both the same ones"
        )
    one, two = sides
    return {name: (_mean(one[name], seeds), _mean(two[name], seeds)) for name in sorted(one)}


def _mean(values: SeedValues, seeds: Sequence[int]) -> float:
    return statistics.fmean(values[seed] for seed in seeds)


def _cells(results: Results, reference: str) -> dict[Place, Cells]:
    """The numbers of all rows at the places of the reference row; controls are left out.

    Raises:
        CptError: a run of one is not finished, or the reference row is not there.
    """
    controls = {row["id"] for each in _exhibits(results) for row in each.get("rows", []) if row.get("control")}
    wanted: dict[tuple[str, Ratio], list[str]] = {}
    for task, ratio, dataset in sorted(runs_of(results, reference), key=_order):
        wanted.setdefault((task, ratio), []).append(dataset)
    found: dict[Place, Cells] = {}
    missing: set[str] = set()
    for row in labels_of(results):
        of_row = runs_of(results, row)
        for (task, ratio), datasets in wanted.items():
            if row in controls or any((task, ratio, dataset) not in of_row for dataset in datasets):
                continue  # a row of other exhibits
            for dataset in datasets:
                runs = of_row[task, ratio, dataset]
                missing.update(set(runs) - results.finished)
                cell = {"task": task, "dataset": dataset, "runs": runs}
                for metric in ["H", "base", "new"] if judged_by(task) == "H" else ["accuracy"]:
                    place = found.setdefault(Place(task, metric, ratio), {})
                    place.setdefault(row, {})[dataset] = results.seeds(cell, metric)
    if missing:
        raise CptError(f"{results.folder}: {len(missing)} runs are not finished; run `snakemake` first")
    return found


def _exhibits(results: Results) -> list[dict[str, Any]]:
    return list(results.grid["exhibits"].values())


def _order(key: Key) -> tuple[int, float, str]:
    task, ratio, dataset = key
    return list(TASKS).index(task), ratio_order(ratio), dataset


def _require_same_rows(experiments: Sequence[Results], found: Sequence[Mapping[Place, Cells]]) -> None:
    """Refuse experiments that were not asked for the same."""
    first, of_first = experiments[0], found[0]
    for results, of in zip(experiments[1:], found[1:], strict=True):
        if of.keys() != of_first.keys():
            place = sorted(of.keys() ^ of_first.keys(), key=lambda place: (*place[:2], ratio_text(place.ratio)))[0]
            where = f"{TASKS[place.task]} at τ = {ratio_text(place.ratio)}"
            raise CptError(f"{results.folder} and {first.folder}: only one has {where}; give both the same tasks and τ")
        for place, rows in of.items():
            if other := rows.keys() ^ of_first[place].keys():
                names = ", ".join(sorted(other))
                raise CptError(f"{results.folder} and {first.folder}: only one has {names}; give both the same rows")


def _datasets(cells: Mapping[Place, Cells]) -> list[str]:
    return sorted({name for rows in cells.values() for of_row in rows.values() for name in of_row})


def _worlds(experiments: Sequence[Results], found: Sequence[Mapping[Place, Cells]]) -> list[int]:
    """The world of every experiment: those on the same datasets are of one."""
    known: list[list[str]] = []
    worlds: list[int] = []
    for results, of in zip(experiments, found, strict=True):
        own = _datasets(of)
        if own not in known:
            for position, other in enumerate(known):
                if common := sorted(set(own) & set(other)):
                    first = experiments[worlds.index(position)].folder
                    raise CptError(
                        f"{results.folder} and {first}: share {', '.join(common)}, but not all datasets; give both the "
                        "same ones, or none in common"
                    )
            known.append(own)
        worlds.append(known.index(own))
    return worlds


def _require_other_backbones(experiments: Sequence[Results], worlds: Sequence[int]) -> None:
    """Refuse one backbone twice on the same datasets: by its weights, or by its name where they are not there."""
    seen: dict[tuple[int, str], Results] = {}
    for results, world in zip(experiments, worlds, strict=True):
        name = str(results.grid["backbone"])
        backbone = _weights(results) or name
        if (first := seen.setdefault((world, backbone), results)) is not results:
            raise CptError(
                f"{results.folder} and {first.folder}: the same backbone ({name}) on the same datasets; leave one out"
            )


def _weights(results: Results) -> str | None:
    """Hash of the backbone's weights, None where only the tables of the experiment are."""
    try:
        return str(parse_json((results.folder / "backbone.json").read_bytes())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _count(cells: Mapping[Place, Cells]) -> int:
    """Most seeds of a cell."""
    return max(len(values) for rows in cells.values() for of_row in rows.values() for values in of_row.values())
