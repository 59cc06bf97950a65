"""Rechecking a submission: everything that can be computed again from its files alone is, and compared.

``cpt verify`` compares files with their records, which tells of accidents. Here the records are not trusted: splits are
drawn again, and numbers are computed again from the predictions. What was computed by a model is taken as it is.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cpt.data.classes import reindex, subset_labels
from cpt.data.entry import Entry
from cpt.data.manifest import Manifest, read_manifest
from cpt.data.split import SCHEMA as SPLIT
from cpt.data.split import make_split
from cpt.errors import CptError
from cpt.evaluation.score import matching, scored
from cpt.experiment.grid import PROTOCOL
from cpt.files import paths
from cpt.files.stage_files import canonical_json, column, read_json, read_parquet, sha256_text
from cpt.methods.base import registry
from cpt.results.aggregate import SCHEMAS, gathered
from cpt.results.cells import TRANSFER_TASKS
from cpt.workflow.published import how_known
from cpt.workflow.verify import Report, left_out, verify

TOLERANCE = 1e-6
"""Relative and absolute, of numbers that are computed again: processors differ in the last digits."""
ODD = "does not hold what files of its schemas do"
CHECKS = {
    "chain": "every file is the one that its record and its readers' records tell, and none is a link",
    "grid": "every cell shows runs of its own task, dataset and τ",
    "runs": "every run is named by its settings, and tells the text knowledge that its method has",
    "images": "datasets are those that this package makes or expects",
    "splits": "training images are those that this package draws by the stated seed",
    "predictions": "every test image is predicted once, with its own class",
    "metrics": "metrics follow from the predictions",
    "tables of runs": "runs, costs, counts and curves.parquet hold what the runs' files do",
}
"""What is checked, in order; a check that fails ends it."""


@dataclass(frozen=True)
class Check:
    """One of ``CHECKS``: its outcome, ``passed`` or ``failed``, and what was found."""

    name: str
    outcome: str
    found: str


@dataclass(frozen=True)
class Strict:
    """What ``cpt verify --strict`` tells: the report of ``cpt verify``, and the checks up to the first that failed."""

    report: Report | None
    checks: list[Check]

    @property
    def refusal(self) -> str | None:
        """Why it is not accepted; None if it is."""
        return next((f"{check.name}: {check.found}" for check in self.checks if check.outcome == "failed"), None)

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        report = self.report.as_json() if self.report else {}
        return {**report, "strict": [asdict(check) | {"meaning": CHECKS[check.name]} for check in self.checks]}


class _FailedError(Exception):
    """A check has failed: what does not fit."""


def strict(folder: Path, catalog: Mapping[str, Entry], log: Callable[[str], None] = print) -> Strict:
    """Check ``results/<experiment>`` as a submission of somebody else.

    Args:
        folder: of the experiment, or of an unpacked bundle.
        catalog: datasets with what a complete copy of them holds.
        log: gets lines of progress.
    """
    submission, checks, report = _Submission(folder, catalog, log), [], None
    for name in CHECKS:
        try:
            found, outcome = getattr(submission, name.replace(" ", "_"))(), "passed"
        except (_FailedError, CptError) as error:
            found, outcome = str(error), "failed"
        except Exception as error:  # of files that a stranger wrote, whatever is in them
            found, outcome = f"{ODD} ({type(error).__name__}: {error})", "failed"
        checks.append(Check(name, outcome, " ".join(found.replace(f"{folder}/", "").split())))
        report = submission.report
        if outcome == "failed":
            break
    return Strict(report, checks)


class _Submission:
    """An experiment whose files nobody vouches for; a method per check."""

    def __init__(self, folder: Path, catalog: Mapping[str, Entry], log: Callable[[str], None]) -> None:
        self.folder, self.catalog, self.log = folder, catalog, log
        self.report: Report | None = None

    # ---- the checks, by their names ------------------------------------------------------------

    def chain(self) -> str:
        _refuse(_links(self.folder))
        self.report = verify(self.folder, self.log)
        _refuse(f"{finding.file}: {finding.problem}" for finding in self.report.findings)
        if out := [name for name in left_out(self.folder) if name.startswith("runs/")]:
            raise _FailedError(
                f"{out[0]}: is left out; pack it with its predictions (`cpt bundle` without --no-predictions)"
            )
        return f"{self.report.files:,} files fit"

    def grid(self) -> str:
        cells = [(name, cell) for name, exhibit in self._grid["exhibits"].items() for cell in self._cells(exhibit)]
        _refuse(f"grid.json: {name}: {problem}" for name, (own, cell) in cells if (problem := self._cell(own, cell)))
        return f"{len(cells):,} cells"

    def runs(self) -> str:
        self.log(f"{len(self._runs):,} runs ...")
        _refuse(f"runs/{name}/run.json: {problem}" for name in self._runs for problem in self._identity(name))
        return f"{len(self._runs):,} runs of {len({run['method'] for run in self._runs.values()})} methods"

    def images(self) -> str:
        found: dict[str, list[str]] = defaultdict(list)
        for name, manifest in self._datasets.items():
            self.log(f"images of {name} ...")
            found[how_known(manifest, self.catalog.get(name))].append(name)
        return "; ".join(f"{', '.join(names)}: {how}" for how, names in found.items())

    def splits(self) -> str:
        places = {paths.split(*self._where(run)): self._where(run) for run in self._runs.values()}
        for place, where in places.items():
            self._split(place, *where)
        return f"{len(places):,} splits drawn again, all equal"

    def predictions(self) -> str:
        images = sum(self._predicted(name, run) for name, run in self._runs.items())
        return f"{images:,} predictions of {len(self._runs):,} runs"

    def metrics(self) -> str:
        largest, count = 0.0, 0
        for name, run in self._runs.items():
            for difference in self._differences(name, run):
                largest, count = max(largest, difference), count + 1
        return f"{count:,} numbers computed again; largest difference {largest:.2g}"

    def tables_of_runs(self) -> str:
        made = gathered(self.folder / "grid.json")
        for name, schema in SCHEMAS.items():
            table, _ = read_parquet(self.folder / f"{name}.parquet", schema)
            if not _equal(table, made[name]):
                raise _FailedError(f"{name}.parquet: does not hold what the runs' files do")
        return f"{len(made['runs']):,} metrics of {len(made['costs']):,} runs"

    # ---- what they use -------------------------------------------------------------------------

    @cached_property
    def _grid(self) -> dict[str, Any]:
        return read_json(self.folder / "grid.json", paths.GRID)

    @cached_property
    def _runs(self) -> dict[str, dict[str, Any]]:
        return {run["run"]: run for run in self._grid["runs"]}

    @cached_property
    def _records(self) -> dict[str, dict[str, Any]]:
        return {name: read_json(self.folder / "runs" / name / "run.json", paths.RUN) for name in self._runs}

    @cached_property
    def _datasets(self) -> dict[str, Manifest]:
        """Manifests of all datasets that are trained on or tested."""
        tested = {dataset for run in self._runs.values() for dataset, _ in run["targets"]}
        names = sorted(tested | {run["dataset"] for run in self._runs.values()})
        found = {name: read_manifest(self.folder / paths.manifest(name)) for name in names}
        _refuse(
            f"{paths.manifest(name)}: is of {made.metadata['dataset']}"
            for name, made in found.items()
            if made.metadata["dataset"] != name
        )
        return found

    @staticmethod
    def _where(run: Mapping[str, Any]) -> tuple[str, str, Any, int]:
        return run["protocol"], run["dataset"], run["imbalance_ratio"], run["seed"]

    @staticmethod
    def _cells(exhibit: Mapping[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
        """The ratio that a cell's row has of its own, or None, and the cell."""
        own = {row["id"]: row.get("imbalance_ratio") for row in exhibit["rows"]}
        for cell in exhibit["cells"]:
            yield own[cell["row"]], cell

    def _cell(self, own: Any, cell: Mapping[str, Any]) -> str | None:
        """What is wrong with a cell."""
        task, dataset, ratio = cell["task"], cell["dataset"], cell["ratio"] if own is None else own
        subsets = {"base", "new"} if task == "base_to_new" else {"all"}
        for name in cell["runs"]:
            if name not in self._runs:
                return f"names run {name!r}, which the grid does not list"
            run = self._runs[name]
            at = paths.NATURAL if ratio == paths.NATURAL else 1.0 if _is_untrained(run["method"]) else ratio
            home = run["dataset"] == dataset
            fits = cell["source"] == home if task in TRANSFER_TASKS else home
            tested = {subset for target, subset in run["targets"] if target == dataset}
            if not (fits and subsets <= tested and (run["protocol"], run["imbalance_ratio"]) == (PROTOCOL[task], at)):
                return f"a cell of {task} on {dataset} at τ = {ratio} names run {name!r}"
        seeds, keys = ([self._runs[name][field] for name in cell["runs"]] for field in ("seed", "key"))
        same = len(set(seeds)) == len(seeds) and len(set(keys)) <= 1
        return None if same else f"the runs of a cell of {cell['row']!r} are not those of one setting, one per seed"

    def _identity(self, name: str) -> Iterator[str]:
        """What is wrong with a run's record."""
        run, record = self._runs[name], self._records[name]
        method = record["method"]
        if method not in registry.names():
            yield f"its method {method!r} is not known here; install the package that has it"
            return
        key = f"{method}-{sha256_text(canonical_json(record['hyperparameters']))[:8]}"
        protocol, dataset, ratio, seed = self._where(record)
        if name != paths.run(protocol, dataset, ratio, key, seed) or (key, method) != (run["key"], run["method"]):
            yield f"tells settings of another run ({key})"
        kind = registry.get(method)
        told = kind.needs_descriptions or (kind.needs_new_classes and protocol == "base_to_new")
        if told and record["text_knowledge"] is None:
            yield f"tells no text knowledge, but {method} is given some"

    def _split(self, place: str, protocol: str, dataset: str, ratio: Any, seed: int) -> None:
        """Draw a split again, and compare it.

        Raises:
            _FailedError: it is another one.
        """
        table, told = read_parquet(self.folder / place, SPLIT)
        stated = {"n_max": told["n_max"], "class_order": told["class_order"]}
        if ratio == paths.NATURAL:
            stated = {"n_max": 1, "class_order": "label"}  # neither counts
        manifest = self._datasets[dataset]
        made, facts = make_split(manifest, protocol=protocol, imbalance_ratio=ratio, seed=seed, **stated)
        if not _equal(table, made) or any(told[name] != fact for name, fact in facts.items()):
            raise _FailedError(f"{place}: is not the split that seed {seed} draws from {paths.manifest(dataset)}")
        for name, run in self._runs.items():
            used = self._records[name]["inputs"]["split"]
            if self._where(run) == (protocol, dataset, ratio, seed) and used != told["split_hash"]:
                raise _FailedError(f"runs/{name}/run.json: was trained on another split than {place}")

    def _predicted(self, name: str, run: Mapping[str, Any]) -> int:
        """Compare the images of a run's predictions with the manifests; return their number.

        Raises:
            _FailedError: an image is absent, twice, of another class, or no test image.
        """
        place = f"runs/{name}/predictions.parquet"
        table, _ = read_parquet(self.folder / place, paths.PREDICTIONS)
        keys = table.select(["target", "subset", "epoch"])
        each = keys.group_by(["target", "subset", "epoch"]).aggregate([]).to_pylist()
        if {(key["target"], key["subset"]) for key in each if key["epoch"] is None} != set(map(tuple, run["targets"])):
            raise _FailedError(f"{place}: is not of the targets that grid.json names")
        for key in each:
            if not self._are_tested(key["target"], key["subset"], table.filter(matching(keys, key))):
                where = f"{key['target']}/{key['subset']}"
                raise _FailedError(f"{place}: is not of every test image of {where} once, with its class")
        return len(table)

    def _are_tested(self, dataset: str, subset: str, predictions: pa.Table) -> bool:
        """Whether predictions are of all images of a subset that belong to one part, validation or test."""
        manifest, rows = self._datasets[dataset], np.sort(column(predictions, "row"))
        if not len(rows) or rows[0] < 0 or rows[-1] >= len(manifest.label):
            return False
        labels, part = subset_labels(manifest.label, subset), str(manifest.part[rows[0]])
        expected = manifest.rows(part)
        expected = expected[np.isin(manifest.label[expected], labels)]
        row, label = column(predictions, "row"), column(predictions, "label")
        right = reindex(manifest.label[row], labels)
        return part != "train" and np.array_equal(rows, expected) and np.array_equal(label, right)

    def _differences(self, name: str, run: Mapping[str, Any]) -> Iterator[float]:
        """Compute a run's metrics and counts again; yield how far each number is from the one that is told.

        Raises:
            _FailedError: too far.
        """
        place, split = self.folder / "runs" / name, self.folder / paths.split(*self._where(run))
        clusters = run["measured_clusters"] and self.folder / run["measured_clusters"]
        metrics, counts = scored(place, split, clusters, self._grid["class_groups"])
        again = {_key(row): row["value"] for row in metrics.to_pylist()}
        for row in read_parquet(place / "metrics.parquet", paths.METRICS)[0].to_pylist():
            value = again.get(_key(row), math.nan)
            if not _close(value, row["value"]):
                where = f"{row['metric']} of {row['target']}/{row['subset']}"
                told = f"tells {row['value']:.6g} where its predictions give {value:.6g}"
                raise _FailedError(f"runs/{name}/metrics.parquet: {where} {told}")
            yield abs(value - row["value"])
        if not _equal(read_parquet(place / "counts.parquet", paths.COUNTS)[0], counts):
            raise _FailedError(f"runs/{name}/counts.parquet: does not follow from the predictions")


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["target"], row["subset"], row["epoch"], row["metric"]


def _close(one: float, other: float) -> bool:
    """Whether two numbers are the same up to ``TOLERANCE``."""
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _equal(table: pa.Table, other: pa.Table) -> bool:
    """Whether two tables have the same columns and rows, numbers up to ``TOLERANCE``."""
    names = table.column_names
    return (names, len(table)) == (other.column_names, len(other)) and all(
        _equal_columns(table[name], other[name]) for name in names
    )


def _equal_columns(one: pa.ChunkedArray, other: pa.ChunkedArray) -> bool:
    if not (pa.types.is_floating(one.type) and pa.types.is_floating(other.type)):
        return bool(one.equals(other)) or (one.type != other.type and one.to_pylist() == other.to_pylist())
    first, second = (column.fill_null(0).to_numpy() for column in (one, other))
    near = np.allclose(first, second, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
    return near and bool(one.is_null().equals(other.is_null()))


def _is_untrained(method: str) -> bool:
    """Whether no prediction of a method depends on training images, so that one run serves at every τ."""
    if method not in registry.names():
        return False
    kind = registry.get(method)
    return not (kind.trains or kind.needs_training_features)


def _refuse(problems: Iterable[str]) -> None:
    """Raise the first problem, if there is one, with the number of the others."""
    if found := list(problems):
        more = f" (and {len(found) - 1:,} more)" if len(found) > 1 else ""
        raise _FailedError(f"{found[0]}{more}")


def _links(folder: Path) -> Iterator[str]:
    """Links in a folder: an archive that others can unpack has none, and they could lead anywhere."""
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in sorted([*folders, *files])):
            if path.is_symlink():
                yield f"{path.relative_to(folder)}: is a link; pack the experiment with `cpt bundle`"
