"""What an experiment will do and cost, before anything starts: jobs, runs, steps, hours, disk, memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpt.clip.device import DEVICES, PRECISIONS
from cpt.costs import backbone_bytes, host_model, measured_costs, stated_costs, step_costs
from cpt.costs.gpu_model import CARDS, CONTEXT
from cpt.costs.hours import TOGETHER, ToCome, schedule
from cpt.costs.known import known, steps_per_epoch, training_images
from cpt.data.classes import trained_rows
from cpt.data.download.prepare import needed, present
from cpt.data.manifest import PARTS
from cpt.data.memory import room
from cpt.data.world.render import SIZE
from cpt.errors import CptError, nearest
from cpt.experiment import resolved
from cpt.experiment.grid import Grid
from cpt.experiment.preflight import has_cuda
from cpt.experiment.runs import Run
from cpt.experiment.stages import Stages
from cpt.files import paths
from cpt.methods.base import describe, registry

SCHEMA = "cpt.plan/1"
ROW_BYTES = 56
"""Bytes of a row of predictions.parquet, as measured with 1000 classes and image files; fewer with fewer classes."""


DRAWN = ("table", "figure", "ledger", "audit", "page")
"""Rules of what people read."""


@dataclass(frozen=True)
class Estimate:
    """What one run costs; None where it is unknown.

    Attributes:
        steps: optimizer steps, without those of a run that it starts from.
        train, test: seconds of its training's steps and of its test images.
        busy: seconds of its steps in which the GPU is busy.
        images: test images, once for every pass.
        bytes: what it leaves on the disk.
        trained, tested: it is there already.
    """

    steps: int | None
    train: float | None
    test: float | None
    busy: float | None
    images: int
    bytes: int
    trained: bool
    tested: bool

    @property
    def left(self) -> float:
        """Seconds that are still to come, as far as known."""
        return (0 if self.trained else self.train or 0) + (0 if self.tested else self.test or 0)


class Plan:
    """The numbers of an experiment.

    Args:
        grid: the resolved configuration.
        device: ``auto``, ``cpu`` or ``cuda``: whose costs count.
        precision: that of the costs.
        card: the GPU that the model is of, a key of ``cpt.costs.gpu_model.CARDS``.
        cards: number of GPUs that share the work.

    Raises:
        CptError: unknown device, precision, card or architecture, or a manifest that is damaged.
    """

    def __init__(self, grid: Grid, device: str, precision: str, card: str = "h100", cards: int = 1) -> None:
        for option, value, names in (
            ("device", device, DEVICES),
            ("precision", precision, PRECISIONS),
            ("card", card, CARDS),
        ):
            if value not in names:
                raise CptError(f"{option}: unknown {value!r}; {nearest(value, names)}")
        self.grid, self.device, self.precision, self.card, self.cards = grid, device, precision, card, cards
        stages = Stages(grid.config, resolved.of(grid))
        self.jobs = stages.jobs
        manifests = {name: Path(grid.root, paths.manifest(name)) for name in stages.datasets}
        self.known = {name: known(grid.catalog[name], manifest) for name, manifest in manifests.items()}
        self.classes = {
            run.id: len(trained_rows(count, run.protocol))
            for run in grid.runs.values()
            if (count := self.known[run.dataset].classes)
        }
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
        costs = costs or stated_costs.stated(self.grid, self.classes, self.device, self.precision, self.card)
        runs = list(self.grid.runs)
        estimates = {run.id: self._estimate(run, costs) for run in self.grid.runs.values()}
        config = self.grid.config
        return {
            "schema": SCHEMA,
            "experiment": config.experiment,
            "backbone": {"name": config.backbone.name, "architecture": config.backbone.architecture},
            "costs": {"basis": costs.basis, "text": costs.text, "assumptions": costs.assumptions, "card": costs.card},
            "jobs": self._jobs(),
            "exhibits": self._exhibits(estimates),
            "total": _total("all runs", runs, runs, estimates),
            "frozen_image_seconds": self._frozen(costs),
            **self._hours(estimates, costs),
            "groups": self._groups(costs),
            "disk": self._disk(estimates),
            "memory": self._memory(costs),
            "notes": self._notes(costs),
        }

    def steps(self, run: Run) -> int | None:
        """Return the optimizer steps of a run, without those of one that it starts from; None if unknown."""
        hp: Any = run.hyperparameters
        if not registry.get(run.method).trains:
            return 0
        images = self._training_images(run)
        return None if images is None else hp.epochs * steps_per_epoch(images, hp.batch_size)

    def _training_images(self, run: Run) -> int | None:
        key = run.dataset, run.protocol, run.ratio, run.seed
        if key not in self._images:
            self._images[key] = training_images(self.grid.config, self.known[run.dataset], *key[1:])
        return self._images[key]

    def _estimate(self, run: Run, costs: step_costs.Costs) -> Estimate:
        hp: Any = run.hyperparameters
        passes = 1 + (hp.epochs if getattr(hp, "snapshots", False) else 0)
        steps, train, busy, tested = self.steps(run), None, None, 0
        test = 0.0 if costs.basis != "none" else None
        if steps is not None and (each := costs.step(run, self.classes[run.id])) is not None:
            train, busy = steps * each, steps * (costs.busy(run, self.classes[run.id]) or 0)
        if run.key not in self._stored:
            self._stored[run.key] = describe.stored_values(run.method, run.hyperparameters)
        kept = passes * 4 * self._stored[run.key]
        for name in sorted({name for name, _ in run.targets}):
            dataset, part = self.known[name], self.grid.config.evaluate_on
            images = passes * dataset.images.get(part, 0)
            tested += images
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
        folder = Path(self.grid.root, "runs", run.id)
        there = ((folder / name).is_file() for name in (paths.TRAINED[0], paths.PREDICTED[0]))
        return Estimate(steps, train, test, busy, tested, kept, *there)

    def _jobs(self) -> dict[str, dict[str, int]]:
        counts = {
            rule: {"total": len(outputs), "there": sum(Path(output).is_file() for output in outputs)}
            for rule, outputs in self.jobs.items()
        }
        complete = all(count["there"] == count["total"] for rule, count in counts.items() if rule != "all")
        return counts | {"all": {"total": 1, "there": int(complete)}}

    def _exhibits(self, estimates: dict[str, Estimate]) -> list[dict[str, Any]]:
        """Sums of every exhibit: over its runs and those that they start from."""
        seen: set[str] = set()
        rows = []
        for name, exhibit in self.grid.exhibits.items():
            asked = {run for cell in exhibit["cells"] for run in cell["runs"]}
            ids = sorted(asked | {start.id for run in asked if (start := self.grid.runs[run].start)})
            rows.append(_total(name, ids, [run for run in ids if run not in seen], estimates))
            seen |= set(ids)
        return rows

    def _frozen(self, costs: step_costs.Costs) -> float | None:
        """Seconds of all frozen image features, which are computed once."""
        pairs = {pair for run in self.grid.runs.values() for pair in self.grid.frozen_image_parts(run)}
        images = sum(self.known[name].images.get(part, 0) for name, part in pairs)
        return None if costs.frozen_image is None else images * costs.frozen_image

    def _hours(self, estimates: dict[str, Estimate], costs: step_costs.Costs) -> dict[str, Any]:
        """What is still to come, stage by stage, and how long several runs at once on several GPUs take."""
        if costs.basis == "none":
            return {"stages": [], "schedule": []}
        found = ToCome()
        for name, own in estimates.items():
            run = self.grid.runs[name]
            if not own.trained:
                found.trainings += 1
                found.train, found.busy = found.train + (own.train or 0), found.busy + (own.busy or 0)
                augment, decode = self._prepared(run, own)
                found.augment, found.decode = found.augment + augment, found.decode + decode
                hp: Any = run.hyperparameters
                found.measure += hp.epochs * host_model.epoch(self.classes[name]) if own.steps else 0
            if not own.tested:
                found.predictions += 1
                found.test, found.images = found.test + (own.test or 0), found.images + own.images
        found.exhibits = sum(not Path(output).is_file() for rule in DRAWN for output in self.jobs.get(rule, []))
        found.frozen = self._images_to_come("image_features", paths.image_features) * (costs.frozen_image or 0)
        found.cached = self._images_to_come("pixels", paths.pixels)
        stages = found.stages(self.grid.config.threads, on_gpu=bool(costs.card))
        most = (self._fit(costs) or TOGETHER) if costs.card else 1
        return {
            "stages": [stage._asdict() for stage in stages],
            "schedule": list(schedule(stages, self.cards, most)),
        }

    def _prepared(self, run: Run, estimate: Estimate) -> tuple[float, float]:
        """Core seconds in which a run's training images are augmented, and decoded."""
        config, kind, hp = self.grid.config, registry.get(run.method), run.hyperparameters
        images = self._training_images(run)
        if config.augmentation == "none" or not estimate.steps or images is None:
            return 0.0, 0.0
        views = estimate.steps * getattr(hp, "batch_size", 0) * kind.views
        augment = views * host_model.AUGMENT[kind.training_augmentation(config.augmentation)]
        if not self.grid.catalog[run.dataset].has_files:
            return augment, 0.0
        return augment, host_model.DECODE * images

    def _fit(self, costs: step_costs.Costs) -> int | None:
        """How many runs at once the memory of a GPU holds; None if unknown."""
        peaks = [cost.peak_memory_mb for cost in costs.groups.values() if cost.peak_memory_mb]
        if costs.memory is None or not peaks:
            return None
        return max(1, int(costs.memory // (max(peaks) * 2**20 + CONTEXT)))

    def _groups(self, costs: step_costs.Costs) -> list[dict[str, Any]]:
        """What a step costs, group by group, at the smallest and the largest number of classes."""
        rows = []
        for key, members in step_costs.typical(self.grid.runs, self.classes, 2).items():
            cost, ends = costs.groups.get(key), (members[0][0], members[-1][0])
            step, image = (cost.step, cost.image) if cost else (None, None)
            rows.append(
                {
                    **key._asdict(),
                    "classes": list(ends),
                    "step_seconds": [step_costs.linear(step, end) for end in ends] if step else None,
                    "image_seconds": None if image is None else [step_costs.linear(image, end) for end in ends],
                    "peak_memory_mb": cost.peak_memory_mb if cost else None,
                }
            )
        return rows

    def _disk(self, estimates: dict[str, Estimate]) -> dict[str, Any]:
        entries = {name: self.grid.catalog[name] for name in self.known}
        fetched = [entry for entry in entries.values() if entry.files]
        missing = [item for entry in fetched for item in needed(entry) if not present(entry.folder, item)]
        sizes = [item.sources[0].bytes for item in missing]
        downloads = sum(size or 0 for size in sizes)
        side, joint = (self.shape.image, self.shape.joint) if self.shape else (0, 0)
        drawn = sum(
            sum(self.known[name].images.values())
            for name, entry in entries.items()
            if not entry.has_files and not Path(self.grid.root, paths.manifest(name)).is_file()
        )
        pixels = (self._images_to_come("pixels", paths.pixels) * side**2 + drawn * SIZE**2) * 3
        features = self._images_to_come("image_features", paths.image_features) * joint * 4
        kept = sum(estimate.bytes for estimate in estimates.values() if not estimate.tested)
        weights = backbone_bytes.to_come(self.grid.config.backbone, self.grid.root, plain=self.shape is not None)
        return {
            "downloads_bytes": downloads,
            "downloads_files": len(sizes),
            "downloads_of_unknown_size": sum(size is None for size in sizes),
            "unpacked_bytes": downloads,
            "weights_download_bytes": weights.download,
            "weights_bytes": weights.export,
            "pixels_bytes": pixels,
            "features_bytes": features,
            "runs_bytes": kept,
            "needed_bytes": downloads + sum(weights) + pixels + features + kept,  # an archive goes when it is unpacked
            "free_bytes": min(map(_free, [Path(), *(entry.folder for entry in fetched)])),
        }

    def _images_to_come(self, rule: str, path: Callable[[str, str], str]) -> int:
        """Images in the files (dataset, part) that a rule has still to make, as far as known."""
        wanted = {output for output in self.jobs.get(rule, []) if not Path(output).is_file()}
        return sum(
            dataset.images.get(part, 0)
            for name, dataset in self.known.items()
            for part in PARTS
            if f"{self.grid.root}/{path(name, part)}" in wanted
        )

    def _memory(self, costs: step_costs.Costs) -> dict[str, Any]:
        decodes = self.grid.config.augmentation != "none" and any(
            self.grid.catalog[run.dataset].has_files for run in self.grid.runs.values()
        )
        return {
            "decoded_images_bytes": room() if decodes else 0,
            "threads": self.grid.config.threads,
            "runs_that_fit": self._fit(costs),
        }

    def _notes(self, costs: step_costs.Costs) -> list[str]:
        part, lines = self.grid.config.evaluate_on, []
        if self.grid.config.device == "cuda" and not has_cuda():
            lines.append("device: cuda: this machine has no GPU, so start the experiment on one that has")
        if unknown := [name for name, dataset in self.known.items() if dataset.classes is None]:
            lines.append(
                f"{', '.join(unknown)}: the number of classes is unknown until the data are there; the runs on them "
                "are left out of steps and hours"
            )
        if counted := [name for name, d in self.known.items() if d.classes is not None and part not in d.images]:
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
            lines.append("no hours are of downloads, manifests, splits, text features and clusters")
        return lines


def _total(name: str, ids: list[str], new: list[str], estimates: dict[str, Estimate]) -> dict[str, Any]:
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
        "left_seconds": sum(e.left for e in own),
        "unknown_steps": sum(e.steps is None for e in own),
        "unknown_seconds": sum(e.train is None or e.test is None for e in own),
    }


def _free(folder: Path) -> int:
    """Free bytes of the disk that a folder is on or would be on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
