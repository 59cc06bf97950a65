"""What an experiment will do and cost, before anything starts: jobs, runs, steps, hours, disk, memory.

Jobs are derived as the workflow's rules derive them (rules/*.smk); everything else from what the catalog says of the
datasets, or from their manifests where these are there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cpt.clip.device import DEVICES, PRECISIONS
from cpt.costs import measured_costs, stated_costs, step_costs
from cpt.data.classes import trained_rows
from cpt.data.download.prepare import needed, present
from cpt.data.entry import Entry
from cpt.data.fewshot import by_class
from cpt.data.images import MEMORY
from cpt.data.longtail import class_ranks, tail_counts
from cpt.data.make_manifest import LAYOUTS
from cpt.data.manifest import PARTS, read_manifest
from cpt.data.world.render import SIZE
from cpt.errors import CptError, nearest
from cpt.experiment.config import Config
from cpt.experiment.grid import Grid
from cpt.experiment.runs import Run
from cpt.files import paths
from cpt.methods.base import describe, registry
from cpt.training.batches import epoch_order

SCHEMA = "cpt.plan/1"
ROW_BYTES = 45
"""Bytes of a row of predictions.parquet, as measured with 5 to 1000 classes."""


def jobs(grid: Grid) -> dict[str, list[str]]:
    """Return the main output of every job of an experiment by rule; ``all`` has none and stands for itself."""
    root, config = grid.root, grid.config
    runs = list(grid.runs.values())
    made: dict[str, set[str]] = {rule: set() for rule in ("descriptions", "image_features", "clusters")}
    text, parts = set(), set()
    for run in runs:
        tested = sorted({dataset for dataset, _ in run.targets})
        text |= {run.text_features, *(paths.text_features(name, run.hyperparameters.templates) for name in tested)}
        frozen = grid.frozen_image_parts(run)
        parts |= set(frozen)
        made["descriptions"] |= {path for path in (grid.descriptions(run),) if path}
        measured = grid.clustered(run)
        made["clusters"] |= {one.clusters for one in (run, measured) if one and one.clusters}
        text |= {measured.text_features} if measured else set()
    made["image_features"] = {paths.image_features(name, part) for name, part in parts}
    names = datasets(grid)
    tables = [name for name, exhibit in grid.exhibits.items() if exhibit["kind"] == "table"]
    found: dict[str, Iterable[str]] = {
        "grid": ["grid.json"],
        "backbone": ["backbone.json"],
        "fetch": (paths.fetched(name) for name in names if grid.catalog[name].fetched),
        "data": map(paths.manifest, names),
        "pixels": (paths.pixels(name, config.evaluate_on) for name in grid.pixels),
        "split": {run.split for run in runs},
        "text_features": text,
        "descriptions": made["descriptions"],
        "image_features": made["image_features"],
        "clusters": made["clusters"],
        "train": (f"runs/{run.id}/{paths.TRAINED[0]}" for run in runs),
        "predict": (f"runs/{run.id}/{paths.PREDICTED[0]}" for run in runs),
        "score": (f"runs/{run.id}/{paths.SCORED[0]}" for run in runs),
        "aggregate": paths.GATHERED[:1],
        "table": (f"tables/{name}.{paths.TABLE[0]}" for name in tables),
        "figure": (f"figures/{name}.{paths.FIGURE[0]}" for name in grid.exhibits if name not in tables),
        "ledger": ["report/ledger.parquet"],
        "audit": ["report/audit.html"],
        "page": ["report/index.html"],
    }
    outputs = {rule: [f"{root}/{path}" for path in sorted(files)] for rule, files in found.items()}
    return {rule: files for rule, files in outputs.items() if files} | {"all": ["all"]}


def datasets(grid: Grid) -> list[str]:
    """Return the datasets that an experiment trains on or tests on."""
    return sorted({name for run in grid.runs.values() for name in (run.dataset, *(d for d, _ in run.targets))})


@dataclass(frozen=True)
class Known:
    """What is known of a dataset.

    Attributes:
        classes: number of its classes; None if unknown.
        images: part: number of images, as far as known.
        pool: (label, training images) of every class in the order of first appearance; None if unknown.
    """

    classes: int | None
    images: dict[str, int]
    pool: list[tuple[int, int]] | None = None


def known(entry: Entry, manifest: Path) -> Known:
    """Return what is known of a dataset: from its manifest, else what the catalog or its own folder says."""
    if manifest.is_file():
        read = read_manifest(manifest)
        images = {part: len(read.rows(part)) for part in PARTS}
        return Known(len(read.class_names), images, _pool(read.label[read.rows("train")]))
    if entry.layout == "embedded":
        from cpt.data import world

        key = entry.key or entry.name
        count = len(world.class_names(key)) if key in world.KEYS else 0
        each = entry.per_class.model_dump() if entry.shift_of is None else {"test": entry.per_class.test}
        pool = [(label, entry.per_class.train) for label in range(count)] if entry.shift_of is None else None
        return Known(count or None, {part: count * number for part, number in each.items()}, pool)
    expected = entry.expected
    if expected is None and entry.layout == "folders":
        try:
            listing = LAYOUTS["folders"](entry)
        except CptError:
            return Known(None, {})
        in_part = {part: [label for where, label, _ in listing.images if where == part] for part in PARTS}
        images = {part: len(labels) for part, labels in in_part.items()}
        return Known(len(listing.class_names), images, _pool(in_part["train"]))
    named = len(entry.class_names) if isinstance(entry.class_names, list | dict) else None
    return Known(expected.classes if expected else named, expected.images if expected else {})


def _pool(labels: Any) -> list[tuple[int, int]]:
    return [(label, len(positions)) for label, positions in by_class(labels).items()]


def training_images(config: Config, dataset: Known, protocol: str, ratio: float, seed: int) -> int | None:
    """Return how many images ``cpt.data.split.make_split`` chooses; None if the number of classes is unknown.

    Where the sizes of the classes are unknown they are taken to be at least n_max, so it is the most that it can be.
    """
    if dataset.classes is None:
        return None
    rows = trained_rows(dataset.classes, protocol)
    wanted = tail_counts(len(rows), config.n_max, ratio)
    sizes = {label: min(count, config.n_max) for label, count in dataset.pool or [] if label in rows}
    if len(sizes) < len(rows):
        return int(wanted.sum())
    shots = np.repeat(list(sizes), list(sizes.values()))  # class by class, as the shots are drawn
    ranks = class_ranks(shots, config.class_order, seed)
    return int(np.minimum(wanted[ranks], [sizes[label] for label in rows]).sum())


@cache
def steps_per_epoch(images: int, batch_size: int) -> int:
    """Return the number of batches of an epoch over so many images."""
    return len(epoch_order(images, batch_size, 0, 0))


@dataclass(frozen=True)
class Estimate:
    """What one run costs; None where it is unknown.

    Attributes:
        steps: optimizer steps, without those of a run that it starts from.
        train, test: seconds of its training and of its predictions.
        bytes: what it leaves on the disk.
        trained, tested: it is there already.
    """

    steps: int | None
    train: float | None
    test: float | None
    bytes: int
    trained: bool
    tested: bool


class Plan:
    """The numbers of an experiment.

    Args:
        grid: the resolved configuration.
        device: ``auto``, ``cpu`` or ``cuda``: whose measured costs count.
        precision: that of the measured costs.

    Raises:
        CptError: unknown device, precision or architecture, or a manifest that is damaged.
    """

    def __init__(self, grid: Grid, device: str, precision: str) -> None:
        for option, value, names in (("device", device, DEVICES), ("precision", precision, PRECISIONS)):
            if value not in names:
                raise CptError(f"{option}: unknown {value!r}; {nearest(value, names)}")
        self.grid, self.device, self.precision = grid, device, precision
        self.jobs = jobs(grid)
        self.known = {name: known(grid.catalog[name], Path(grid.root, paths.manifest(name))) for name in datasets(grid)}
        self.classes: dict[str, int] = {}
        for run in grid.runs.values():
            if count := self.known[run.dataset].classes:
                self.classes[run.id] = len(trained_rows(count, run.protocol))
        self.costs_path = Path("work", grid.config.experiment, "step-costs.json")
        self.shape = stated_costs.shape(grid)
        self._images: dict[tuple, int | None] = {}
        self._stored: dict[str, int] = {}

    def time_here(self, log: Callable[[str], None] = print) -> None:
        """Measure what steps cost on this machine and keep it for this and later plans.

        Raises:
            CptError: the device is absent, or the architecture cannot be made.
        """
        measured_costs.measure(self.grid, self.classes, self.costs_path, self.device, self.precision, log)

    def numbers(self) -> dict[str, Any]:
        """Return everything that ``cpt plan`` prints, as plain values: counts, seconds, bytes."""
        costs = measured_costs.read_measured(self.grid, self.costs_path, self.device, self.precision)
        costs = costs or stated_costs.stated(self.grid, self.classes)
        estimates = {run.id: self._estimate(run, costs) for run in self.grid.runs.values()}
        config = self.grid.config
        return {
            "schema": SCHEMA,
            "experiment": config.experiment,
            "backbone": {"name": config.backbone.name, "architecture": config.backbone.architecture},
            "costs": {"basis": costs.basis, "text": costs.text, "assumptions": costs.assumptions},
            "jobs": self._jobs(),
            "exhibits": self._exhibits(estimates),
            "total": self._total("all runs", list(self.grid.runs), list(self.grid.runs), estimates),
            "frozen_image_seconds": self._frozen(costs),
            "groups": self._groups(costs),
            "disk": self._disk(estimates),
            "memory": self._memory(),
            "notes": self._notes(costs),
        }

    def steps(self, run: Run) -> int | None:
        """Return the optimizer steps of a run, without those of one that it starts from; None if unknown."""
        hp: Any = run.hyperparameters
        if not registry.get(run.method).trains:
            return 0
        key = run.dataset, run.protocol, run.ratio, run.seed
        if key not in self._images:
            self._images[key] = training_images(self.grid.config, self.known[run.dataset], *key[1:])
        images = self._images[key]
        return None if images is None else hp.epochs * steps_per_epoch(images, hp.batch_size)

    def _estimate(self, run: Run, costs: step_costs.Costs) -> Estimate:
        hp: Any = run.hyperparameters
        folder = Path(self.grid.root, "runs", run.id)
        passes = 1 + (hp.epochs if getattr(hp, "snapshots", False) else 0)
        steps, train, test = self.steps(run), None, 0.0 if costs.basis != "none" else None
        if steps is not None and (each := costs.step(run, self.classes[run.id])) is not None:
            train = steps * each
        kept = passes * 4 * self._stored_values(run)
        for name in sorted({name for name, _ in run.targets}):
            dataset, part = self.known[name], self.grid.config.evaluate_on
            images = passes * dataset.images.get(part, 0)
            kept += images * ROW_BYTES
            if dataset.classes is None or part not in dataset.images:
                test = None
                continue
            count = len(trained_rows(dataset.classes, run.protocol))  # of a half, or of all
            each = costs.image(run, count)
            test = None if test is None or each is None else test + images * each
            if self.shape:
                features = 1 if registry.get(run.method).image_conditioned else 2  # of images, and of texts
                kept += features * dataset.classes * self.shape.joint * 4
        trained, tested = ((folder / name).is_file() for name in ("run.json", "predictions.parquet"))
        return Estimate(steps, train, test, kept, trained, tested)

    def _stored_values(self, run: Run) -> int:
        if run.key not in self._stored:
            self._stored[run.key] = describe.stored_values(run.method, run.hyperparameters)
        return self._stored[run.key]

    def _jobs(self) -> dict[str, dict[str, int]]:
        counts = {
            rule: {"total": len(outputs), "there": sum(Path(output).is_file() for output in outputs)}
            for rule, outputs in self.jobs.items()
        }
        complete = all(count["there"] == count["total"] for rule, count in counts.items() if rule != "all")
        return counts | {"all": {"total": 1, "there": int(complete)}}

    def _exhibits(self, estimates: dict[str, Estimate]) -> list[dict[str, Any]]:
        seen: set[str] = set()
        rows = []
        for name, exhibit in self.grid.exhibits.items():
            ids = self._with_starts({run for cell in exhibit["cells"] for run in cell["runs"]})
            rows.append(self._total(name, ids, [run for run in ids if run not in seen], estimates))
            seen |= set(ids)
        return rows

    def _with_starts(self, ids: set[str]) -> list[str]:
        """Runs and those that they start from."""
        starts = {start.id for run in ids if (start := self.grid.runs[run].start)}
        return sorted(ids | starts)

    def _total(self, name: str, ids: list[str], new: list[str], estimates: dict[str, Estimate]) -> dict[str, Any]:
        """Sums over the new runs of an exhibit; what is unknown is left out and counted."""
        own = [estimates[run] for run in new]
        return {
            "name": name,
            "runs": len(ids),
            "finished": sum(estimates[run].trained for run in ids),
            "new": len(new),
            "steps": sum(e.steps or 0 for e in own),
            "train_seconds": sum(e.train or 0 for e in own),
            "test_seconds": sum(e.test or 0 for e in own),
            "left_seconds": sum((0 if e.trained else e.train or 0) + (0 if e.tested else e.test or 0) for e in own),
            "unknown_steps": sum(e.steps is None for e in own),
            "unknown_seconds": sum(e.train is None or e.test is None for e in own),
        }

    def _frozen(self, costs: step_costs.Costs) -> float | None:
        """Seconds of all frozen image features, which are computed once."""
        pairs = {pair for run in self.grid.runs.values() for pair in self.grid.frozen_image_parts(run)}
        images = sum(self.known[name].images.get(part, 0) for name, part in pairs)
        return None if costs.frozen_image is None else images * costs.frozen_image

    def _groups(self, costs: step_costs.Costs) -> list[dict[str, Any]]:
        """What a step costs, group by group, at the smallest and the largest number of classes."""
        rows = []
        for key, members in step_costs.typical(self.grid.runs, self.classes, 2).items():
            cost = costs.groups.get(key)
            ends = (members[0][0], members[-1][0])
            rows.append(
                {
                    **key._asdict(),
                    "classes": list(ends),
                    "step_seconds": [step_costs.linear(cost.step, end) for end in ends] if cost and cost.step else None,
                    "image_seconds": [step_costs.linear(cost.image, end) for end in ends] if cost else None,
                    "peak_memory_mb": cost.peak_memory_mb if cost else None,
                }
            )
        return rows

    def _disk(self, estimates: dict[str, Estimate]) -> dict[str, Any]:
        missing = [
            item
            for name in self.known
            if (entry := self.grid.catalog[name]).files
            for item in needed(entry)
            if not present(entry.folder, item)
        ]
        folders = [Path(), *(self.grid.catalog[name].folder for name in self.known if self.grid.catalog[name].files)]
        sizes = [item.sources[0].bytes for item in missing]
        downloads = sum(size or 0 for size in sizes)
        side, joint = (self.shape.image, self.shape.joint) if self.shape else (0, 0)
        pixels = self._images_to_come("pixels", paths.pixels) * side**2 * 3
        pixels += sum(
            sum(dataset.images.values()) * SIZE**2 * 3
            for name, dataset in self.known.items()
            if not self.grid.catalog[name].has_files and not Path(self.grid.root, paths.manifest(name)).is_file()
        )
        features = self._images_to_come("image_features", paths.image_features) * joint * 4
        kept = sum(estimate.bytes for estimate in estimates.values() if not estimate.tested)
        return {
            "downloads_bytes": downloads,
            "downloads_files": len(sizes),
            "downloads_of_unknown_size": sum(size is None for size in sizes),
            "unpacked_bytes": downloads,
            "pixels_bytes": pixels,
            "features_bytes": features,
            "runs_bytes": kept,
            "needed_bytes": downloads + pixels + features + kept,  # an archive goes when it is unpacked
            "free_bytes": min(_free(folder) for folder in folders),
        }

    def _images_to_come(self, rule: str, path: Callable[[str, str], str]) -> int:
        """Images in the files (dataset, part) that a rule has still to make, as far as known."""
        wanted = set(self.jobs.get(rule, []))
        return sum(
            dataset.images.get(part, 0)
            for name, dataset in self.known.items()
            for part in PARTS
            if (output := f"{self.grid.root}/{path(name, part)}") in wanted and not Path(output).is_file()
        )

    def _memory(self) -> dict[str, Any]:
        decodes = self.grid.config.augmentation != "none" and any(
            self.grid.catalog[run.dataset].has_files for run in self.grid.runs.values()
        )
        return {"decoded_images_bytes": MEMORY if decodes else 0, "threads": self.grid.config.threads}

    def _notes(self, costs: step_costs.Costs) -> list[str]:
        part, lines = self.grid.config.evaluate_on, []
        unknown = [name for name, dataset in self.known.items() if dataset.classes is None]
        if unknown:
            lines.append(
                f"{', '.join(unknown)}: the number of classes is unknown until the data are there; the runs on them "
                "are left out of steps and hours"
            )
        counted = [name for name, d in self.known.items() if d.classes is not None and part not in d.images]
        if counted:
            lines.append(f"{', '.join(counted)}: the number of {part} images is unknown until the data are there")
        trained = {run.dataset for run in self.grid.runs.values() if registry.get(run.method).trains}
        if any(self.known[name].classes and self.known[name].pool is None for name in trained):
            lines.append(
                f"steps are at most these: classes with fewer than {self.grid.config.n_max} images are known when the "
                "manifests are there"
            )
        for name in self.known:
            entry = self.grid.catalog[name]
            if entry.gated and not (entry.folder / entry.images).is_dir():
                lines.append(f"{name}: is not there and cpt cannot fetch it; `cpt data check {name}` says what to do")
        if costs.basis != "none":
            groups = step_costs.typical(self.grid.runs, self.classes, 1)
            if absent := [key.label for key in groups if key not in costs.groups]:
                lines.append(f"{'; '.join(absent)}: not measured; measure again, the hours are without them")
            lines.append("hours are of one device, without starting jobs, decoding images, text features and reports")
        return lines


def _free(folder: Path) -> int:
    """Free bytes of the disk that a folder is on or would be on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
