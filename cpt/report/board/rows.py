"""From an experiment to rows of the board: a method in a setting, with what can be compared of it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from cpt.data.manifest import read_manifest
from cpt.data.split import read_split
from cpt.files import paths
from cpt.files.paths import COSTS, PREDICTIONS, Ratio
from cpt.files.stage_files import canonical_json, column, read_json, read_parquet, sha256_text
from cpt.metrics.reported import MEASURES
from cpt.report.page.fairness import knowledge
from cpt.results import stats
from cpt.results.cells import (
    Results,
    SeedValues,
    average,
    averaged_datasets,
    hyperparameters,
    judged_by,
    read_results,
    shared,
)
from cpt.results.comparison import Place

NONE = "none"
LONGEST = 120
"""Characters of a label, which a stranger may have chosen."""
DIGITS = 8
Bounds = stats.Interval


@dataclass(frozen=True)
class Setting:
    """What rows must share to be compared: task, backbone, τ, datasets with their images, and how these are drawn.

    Attributes:
        facts: all of that; the backbone by the hash of its weights, datasets by the hashes of their manifests.
        titles: of the datasets that numbers are averaged over, by name.
        backbone: its name.
    """

    facts: Mapping[str, Any]
    titles: Mapping[str, str]
    backbone: str

    @cached_property
    def id(self) -> str:
        """Hash of the facts."""
        return sha256_text(canonical_json(self.facts))[:DIGITS]

    @property
    def task(self) -> str:
        """Its task, as in grid.json."""
        return str(self.facts["task"])

    @property
    def ratio(self) -> Ratio:
        """Its imbalance ratio τ."""
        found: Ratio = self.facts["imbalance_ratio"]
        return found


class Again(NamedTuple):
    """Another bundle that has a row: numbers of the same dataset and seed, and the largest difference among them."""

    bundle: str
    numbers: int
    largest: float


@dataclass(frozen=True)
class Row:
    """A method in a setting.

    Attributes:
        bundle: name of the bundle that it is from.
        label, note: what it is called there.
        row: its id there.
        method, hyperparameters: method, and hash of its hyperparameters; of those of all datasets where they differ.
        own_ratio: τ that it was trained at where that is not the setting's, else None.
        control: whether it only says what a number is worth.
        knowledge: text knowledge beyond the class names, for people.
        more: whether that is more than templates: descriptions, or names of new classes.
        seeds: those that all datasets have.
        means: measure -> mean over datasets and seeds with its interval over seeds; without those that lack a dataset.
        numbers: what the task is judged by, on every dataset and seed.
        hours: training of one seed on all datasets, with the runs that it starts from.
        also: other bundles that have this row.
    """

    setting: Setting
    bundle: str
    label: str
    note: str
    row: str
    method: str
    hyperparameters: str
    own_ratio: Ratio | None
    control: bool
    knowledge: str
    more: bool
    augmentation: str
    seeds: tuple[int, ...]
    means: Mapping[str, Bounds]
    numbers: Mapping[Place, float]
    hours: float
    device: str
    parameters: int
    also: list[Again] = field(default_factory=list)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What makes two rows the same, on whatever machine they were trained."""
        return self.setting.id, self.method, self.hyperparameters, self.own_ratio, self.augmentation

    @property
    def ranked(self) -> bool:
        """Whether it is compared with others: it has every dataset, at the setting's τ, and is no control."""
        return bool(self.seeds) and not self.control and self.own_ratio is None


def measures(task: str) -> list[str]:
    """Return what the board tells of a task: names of ``cpt.metrics.reported``, ``accuracy`` for some."""
    if judged_by(task) == "H":
        return ["H", "base", "new", "head", "medium", "tail"]
    return ["accuracy", "head", "medium", "tail"]


def read_rows(folder: Path, bundle: str) -> list[Row]:
    """Return the rows of an experiment's tables; one that several tables show stands there once.

    Raises:
        CptError: a file is missing, damaged or of another schema.
    """
    reader = _Reader(folder, bundle)
    found: dict[tuple[Any, ...], Row] = {}
    grid = reader.results.grid
    exhibits = [grid["exhibits"][name] for name in sorted(grid["exhibits"])]
    for exhibit in sorted(exhibits, key=lambda exhibit: exhibit.get("layout") != "datasets"):
        if exhibit["kind"] == "table":
            for row in reader.rows(exhibit):
                found.setdefault(row.identity, row)
    return list(found.values())


class _Reader:
    """An experiment's results, and what makes its settings."""

    def __init__(self, folder: Path, bundle: str) -> None:
        self.folder, self.bundle = folder, bundle
        self.results: Results = read_results(folder / "grid.json", folder / "runs.parquet")
        self.spent = {row["run"]: row for row in read_parquet(folder / "costs.parquet", COSTS)[0].to_pylist()}
        self.values = hyperparameters(self.results)
        self.backbone = read_json(folder / "backbone.json", "cpt.backbone/1")
        self._images: dict[str, str] = {}
        self._drawn: dict[str, list[Any]] = {}

    def rows(self, exhibit: Mapping[str, Any]) -> Iterator[Row]:
        """Yield the rows of a table, in every setting that it has."""
        for task in exhibit["tasks"]:
            datasets = averaged_datasets(exhibit, task)
            for ratio in exhibit["ratios"]:
                cells: dict[str, dict[str, Mapping[str, Any]]] = {}
                for cell in exhibit["cells"]:
                    here = (cell["task"], cell["ratio"], cell["parameter"]) == (task, ratio, None)
                    if here and cell["dataset"] in datasets:
                        cells.setdefault(cell["row"], {})[cell["dataset"]] = cell
                if cells:
                    setting = self._setting(exhibit, task, ratio, datasets, cells)
                    for row in exhibit["rows"]:
                        if len(cells.get(row["id"], {})) == len(datasets):
                            yield self._row(setting, row, [cells[row["id"]][dataset] for dataset in datasets])

    def _setting(
        self,
        exhibit: Mapping[str, Any],
        task: str,
        ratio: Ratio,
        datasets: Sequence[str],
        cells: Mapping[str, Mapping[str, Mapping[str, Any]]],
    ) -> Setting:
        own = {row["id"] for row in exhibit["rows"] if row.get("imbalance_ratio") is not None}
        usual = {row: of_row for row, of_row in cells.items() if row not in own} or cells
        runs = [
            self.results.run(name) for of_row in usual.values() for cell in of_row.values() for name in cell["runs"]
        ]
        facts = {
            "task": task,
            "backbone": self.backbone["sha256"],
            "imbalance_ratio": ratio,
            "datasets": {dataset: self._image_hash(dataset) for dataset in datasets},
            "trained_on": {dataset: self._image_hash(dataset) for dataset in sorted({run["dataset"] for run in runs})},
            "drawn": sorted({tuple(self._draw(run)) for run in runs}),
            "class_groups": self.results.grid["class_groups"],
            "part": self._part,
        }
        titles = {dataset: plain(self.results.dataset_title(dataset)) for dataset in datasets}
        return Setting(facts, titles, plain(self.results.grid["backbone"]))

    def _image_hash(self, dataset: str) -> str:
        if dataset not in self._images:
            manifest = read_manifest(self.folder / paths.manifest(dataset))
            self._images[dataset] = str(manifest.metadata["content_hash"])
        return self._images[dataset]

    def _draw(self, run: Mapping[str, Any]) -> list[Any]:
        """How the training images of a run are drawn: from how many, and how classes are ranked."""
        place = paths.split(run["protocol"], run["dataset"], run["imbalance_ratio"], run["seed"])
        if place not in self._drawn:
            told = read_split(self.folder / place).metadata
            self._drawn[place] = [run["dataset"], told["n_max"], told["class_order"]]
        return self._drawn[place]

    @cached_property
    def _part(self) -> str:
        """The part that all runs are tested on."""
        run = self.results.grid["runs"][0]
        table, _ = read_parquet(self.folder / "runs" / run["run"] / "predictions.parquet", PREDICTIONS)
        first = table.slice(0, 1)
        manifest = read_manifest(self.folder / paths.manifest(first["target"][0].as_py()))
        return str(manifest.part[column(first, "row")[0]])

    def _row(self, setting: Setting, row: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> Row:
        names = list(dict.fromkeys(name for cell in cells for name in cell["runs"]))
        runs = [self.results.run(name) for name in names]
        metric = judged_by(setting.task)
        parts = [self.results.seeds(cell) for cell in cells]
        costs = [self.spent[name] for name in names]
        starts = {run["start"] for run in runs} - {None}
        seconds = sum(cost["seconds"] for cost in [*costs, *(self.spent[name] for name in sorted(starts))])
        keys = {run["dataset"]: run["key"].rpartition("-")[2] for run in runs}
        one = len(set(keys.values())) == 1
        return Row(
            setting=setting,
            bundle=self.bundle,
            label=plain(row["label"]),
            note=plain(row.get("note") or ""),
            row=plain(row["id"]),
            method=runs[0]["method"],
            hyperparameters=next(iter(keys.values())) if one else sha256_text(canonical_json(keys))[:DIGITS],
            own_ratio=row.get("imbalance_ratio"),
            control=bool(row.get("control")),
            knowledge=plain(knowledge(self.values[names[0]], costs[0])),
            more=any(cost["text_knowledge"] != NONE for cost in costs),
            augmentation=plain(costs[0]["augmentation"]),
            seeds=tuple(shared(parts)),
            means=self._means(setting.task, cells),
            numbers={
                Place(setting.task, metric, setting.ratio, cell["dataset"], seed): value
                for cell, part in zip(cells, parts, strict=True)
                for seed, value in part.items()
            },
            hours=seconds / 3600 / max(1, len({run["seed"] for run in runs})),
            device=", ".join(sorted({plain(cost["device"]) for cost in costs})),
            parameters=max(int(cost["learnable_parameters"]) for cost in costs),
        )

    def _means(self, task: str, cells: Sequence[Mapping[str, Any]]) -> dict[str, Bounds]:
        found = {}
        for name in measures(task):
            values = average([self._measured(cell, name) for cell in cells])
            if values:
                found[name] = stats.t_interval(list(values.values()))
        return found

    def _measured(self, cell: Mapping[str, Any], name: str) -> SeedValues:
        return self.results.measured(cell, name) if name in MEASURES else self.results.seeds(cell, name)


def merged(rows: Sequence[Row]) -> list[Row]:
    """Return every row once: that of the bundle with most seeds, of several the one that was given first.

    The others stand in its ``also``, with the largest difference of a number of the same dataset and seed.
    """
    same: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        same.setdefault(row.identity, []).append(row)
    found = []
    for each in same.values():
        shown = max(each, key=lambda row: len(row.seeds))  # the first of several
        shown.also.extend(_again(shown, other) for other in each if other is not shown)
        found.append(shown)
    return found


def _again(shown: Row, other: Row) -> Again:
    both = shown.numbers.keys() & other.numbers.keys()
    differences = (abs(shown.numbers[place] - other.numbers[place]) for place in both)
    return Again(other.bundle, len(both), max(differences, default=0.0))


def plain(text: str, longest: int = LONGEST) -> str:
    """Return a stranger's text as a line: without characters that cannot be seen or turn the writing, and not long."""
    seen = "".join(char for char in re.sub(r"\s", " ", str(text)) if unicodedata.category(char)[0] != "C")
    line = " ".join(seen.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
