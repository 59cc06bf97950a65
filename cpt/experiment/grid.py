"""From configuration to runs and paths: the only place that knows both.

A table or figure asks for cells (variant × task × dataset × imbalance ratio × seeds); variants that resolve to the
same hyperparameters are the same run, and a run is evaluated on every target that some cell asks for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NoReturn

from cpt.data.catalog import Catalog, load_catalog
from cpt.errors import CptError, nearest
from cpt.experiment import config as cfg
from cpt.experiment.exhibits import Cell, Exhibit, Experiment, Place
from cpt.experiment.rows import row
from cpt.experiment.runs import Job, Run
from cpt.experiment.variants import CLUSTERED, Variants
from cpt.files import paths
from cpt.files.paths import NATURAL, Ratio
from cpt.files.stage_files import canonical_json, sha256_text
from cpt.methods.base import registry
from cpt.methods.base.describe import facts
from cpt.methods.base.hyperparameters import Hyperparameters
from cpt.metrics.reported import MEASURES

PROTOCOL = {
    "base_to_new": "base_to_new",
    "cross_dataset": "all_classes",
    "domain_generalization": "all_classes",
    "few_shot": "few_shot",
}

LISTED = [
    *("protocol", "dataset", "imbalance_ratio", "method", "key", "seed", "clusters", "measured_clusters"),
    *("descriptions", "start", "text_features", "targets"),
]
"""What grid.json holds of a job."""

RANDOM = " (random weights: the numbers mean nothing)"


@dataclass
class Grid:
    """All runs of an experiment and the exhibits over them.

    Attributes:
        clusterings: (protocol, dataset) -> hyperparameters of CPT there.
    """

    config: cfg.Config
    catalog: Catalog
    runs: dict[str, Run]
    exhibits: dict[str, dict[str, Any]]
    clusterings: dict[tuple[str, str], Hyperparameters]

    @property
    def root(self) -> str:
        """Folder of the experiment."""
        return f"results/{self.config.experiment}"

    def frozen_image_parts(self, run: Run) -> list[tuple[str, str]]:
        """(dataset, part) of the frozen image features that a run can use instead of encoding images itself."""
        kind = registry.get(run.method)
        train = [(run.dataset, "train")] if kind.needs_training_features or self.trains_on_frozen(run) else []
        if kind.prompts_images:
            return train
        part: str = self.config.evaluate_on
        return [*train, *((dataset, part) for dataset in sorted({dataset for dataset, _ in run.targets}))]

    def trains_on_frozen(self, run: Run) -> bool:
        """Whether frozen features take the place of images in a run's training."""
        kind = registry.get(run.method)
        reads = kind.uses_frozen_images or (kind.trains and not kind.prompts_images)
        return reads and self.config.augmentation == "none"

    def clustered(self, run: Run) -> Run | None:
        """The run whose clusters a run is measured within; None where no table shows such a measure.

        It is CPT's with the experiment's first seed, for all methods and seeds; it need not be one of the experiment.
        """
        if not self._shows_clusters:
            return None
        hp = self.clusterings[run.protocol, run.dataset]
        return Run(run.protocol, run.dataset, run.ratio, CLUSTERED, hp, self.config.seeds[0])

    @cached_property
    def _shows_clusters(self) -> bool:
        shown = {name for exhibit in self.exhibits.values() for name in exhibit.get("measures", [])}
        return any(name in MEASURES and MEASURES[name].in_clusters for name in shown)

    @cached_property
    def pixels(self) -> set[str]:
        """Datasets whose test images are cached decoded: those of image files that a prompted vision tower reads."""
        prompted = (run for run in self.runs.values() if registry.get(run.method).prompts_images)
        tested = {dataset for run in prompted for dataset, _ in run.targets}
        return {dataset for dataset in tested if self.catalog[dataset].has_files}

    def descriptions(self, run: Run) -> str | None:
        """Path of the class descriptions' features that a run needs: of the dataset's file, or of templates."""
        hp: Any = run.hyperparameters
        if not registry.get(run.method).needs_descriptions:
            return None
        own = self.catalog[run.dataset].descriptions
        return paths.descriptions(run.dataset, "file" if own else f"templates-{hp.descriptions}")

    def as_json(self) -> dict[str, Any]:
        """Return the content of grid.json (docs/files.md)."""
        backbone = self.config.backbone
        used = {dataset for run in self.runs.values() for dataset in (run.dataset, *(d for d, _ in run.targets))}
        return {
            "schema": paths.GRID,
            "experiment": self.config.experiment,
            "backbone": backbone.name + (RANDOM if backbone.pretrained == "random" else ""),
            "printed": self.config.printed,
            "class_groups": self.config.class_groups.model_dump(),
            "runs": [self._listed(name, run) for name, run in self.runs.items()],
            "methods": {method: facts(method) for method in sorted({run.method for run in self.runs.values()})},
            "datasets": {
                name: self.catalog[name].model_dump(include={"title", "counterpart", "layout", "derived_split"})
                for name in sorted(used)
            },
            "exhibits": self.exhibits,
        }

    def job(self, run: Run) -> Job:
        """What the workflow and grid.json know of a run."""
        hp: Any = run.hyperparameters
        measured, descriptions = self.clustered(run), self.descriptions(run)
        own = self.catalog[run.dataset].descriptions
        return Job(
            protocol=run.protocol,
            dataset=run.dataset,
            imbalance_ratio=run.ratio,
            method=run.method,
            key=run.key,
            seed=run.seed,
            targets=[list(target) for target in sorted(run.targets)],
            hyperparameters=run.hyperparameters_json,
            templates=hp.templates,
            split=run.split,
            text_features=run.text_features,
            clusters=run.clusters,
            measured_clusters=measured.clusters if measured else None,
            descriptions=descriptions,
            stand_in=None if own or not descriptions else hp.descriptions,
            start=run.start.id if run.start else None,
            frozen_images=[list(pair) for pair in self.frozen_image_parts(run)],
            modules=list(run.modules),
            tower_needs=registry.get(run.method).tower_needs(hp),
        )

    def _listed(self, name: str, run: Run) -> dict[str, Any]:
        job = self.job(run)
        return {"run": name, **{field: getattr(job, field) for field in LISTED}}


def build(config: cfg.Config, source: str, notify: Callable[[str], None] = lambda _: None) -> Grid:
    """Resolve a configuration.

    Args:
        config: a parsed configuration.
        source: the file it came from, for messages.
        notify: gets a line for anything valid that may be unintended.

    Raises:
        CptError: unknown datasets, methods, variants or hyperparameters, or impossible values; a line for each.
    """
    made = _Builder(config, source).build()
    for method in sorted({run.method for run in made.runs.values() if _is_overlooked(run.method, config)}):
        notify(
            f"{source}: overrides choose epochs for other methods and name {method} nowhere, so it trains with its own "
            f"defaults (`cpt methods {method}`); a rule with `methods: [{method}]` sets others"
        )
    return made


class _Builder:
    def __init__(self, config: cfg.Config, source: str) -> None:
        self.config, self.source = config, source
        self.catalog = load_catalog(Path(config.catalog))
        self.variants = Variants(config, self._refuse)
        self.runs: dict[str, Run] = {}
        self.problems: list[str] = []

    def build(self) -> Grid:
        for name, variant in self.config.variants.items():
            with self._noted():
                if variant.method not in registry.names():
                    hint = nearest(variant.method, registry.names())
                    self._refuse(f"variants.{name}.method", f"unknown method {variant.method!r}; {hint}")
        self._check_tasks()
        self._check_overrides()
        self._require_no_problem()
        for name in self.config.variants:  # also those that no exhibit shows
            with self._noted():
                self.variants.resolved(f"variants.{name}", name, "base_to_new", "")
        exhibits = {}
        for name, exhibit in self.config.exhibits.items():
            with self._noted():
                exhibits[name] = self._exhibit(name, exhibit)
        self._require_no_problem()
        places = sorted({(run.protocol, run.dataset) for run in self.runs.values()})
        clusterings = {place: self.variants.clustering(*place) for place in places}
        made = Grid(self.config, self.catalog, dict(sorted(self.runs.items())), exhibits, clusterings)
        for run in made.runs.values():
            file = self.catalog[run.dataset].descriptions
            if file and made.descriptions(run) and not Path(file).is_file():
                where = f"{self.config.catalog}: {run.dataset}.descriptions"
                self._refuse(where, f"{file!r}: no such file; put it there, or delete the line to use templates")
        return made

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        """Keep a problem for later, to tell it together with others."""
        try:
            yield
        except CptError as error:
            self.problems.append(str(error))

    def _require_no_problem(self) -> None:
        if self.problems:
            raise CptError("\n".join(dict.fromkeys(self.problems)))

    # ---- exhibits ----------------------------------------------------------------------------------

    def _exhibit(self, name: str, exhibit: Exhibit) -> dict[str, Any]:
        """What grid.json holds of an exhibit; registers the runs of its cells."""
        where, rows = f"exhibits.{name}", exhibit.named_variants()
        for key, datasets in exhibit.named_datasets().items():
            self._check_datasets(f"{where}.{key}", datasets)
        for key, variants in rows.items():
            for variant in variants:
                if variant not in self.config.variants:
                    hint = nearest(variant, self.config.variants)
                    self._refuse(f"{where}.{key}", f"unknown variant {variant!r}; {hint}")
        experiment = Experiment(
            ratios=exhibit.ratios or self.config.imbalance_ratios,
            seeds=exhibit.seeds or self.config.seeds,
            places=partial(self._places, where, exhibit.datasets),
            hyperparameters=lambda variant, dataset: self.variants.resolved(where, variant, "base_to_new", dataset),
        )
        title, caption = exhibit.headed()
        named = dict.fromkeys(variant for variants in rows.values() for variant in variants)
        shown = [row(variant, self.config.variants[variant]) for variant in named]
        further = exhibit.further(experiment)
        if any(each["id"] == further.get("reference") and each.get("control") for each in shown):
            self._refuse(
                f"{where}.reference", f"{further['reference']!r} is a control, which is not tested; name another"
            )
        return {
            "name": name,
            "kind": exhibit.kind,
            "title": title,
            "caption": caption,
            "ratios": experiment.ratios,
            "tasks": exhibit.of_tasks(),
            "rows": exhibit.ordered(shown),
            **further,
            "cells": [self._cell(where, cell) for cell in exhibit.cells(experiment)],
        }

    def _places(self, where: str, only: list[str] | None, task: str) -> list[Place]:
        """Where a task trains and tests; ``only`` on some datasets."""
        section = getattr(self.config.tasks, task)
        if section is None:
            self._refuse(
                where,
                f"asks for the task {task}, which tasks does not declare; add tasks.{task}, or {_without(where)}",
            )
        if isinstance(section, cfg.Transfer):
            places = [Place(section.source, section.source, source=True)]
            places += [Place(section.source, target) for target in section.targets]
        else:
            places = [Place(dataset, dataset) for dataset in section.datasets]
        if only is None:
            return places
        chosen = [place for place in places if place.tested in only]
        if not chosen:
            known = ", ".join(place.tested for place in places)
            self._refuse(
                f"{where}.datasets",
                f"none of {', '.join(only)} belongs to the task {task}; choose of {known}, or {_without(where)}",
            )
        return chosen

    def _cell(self, where: str, cell: Cell) -> dict[str, Any]:
        """What grid.json holds of a cell; registers its runs."""
        protocol, (trained, tested, source) = PROTOCOL[cell.task], cell.place
        place = where if cell.parameter is None else f"{where}.sweep"
        hp = self.variants.resolved(place, cell.variant, protocol, trained, cell.changes)
        variant = self.config.variants[cell.variant]
        method, own = variant.method, variant.imbalance_ratio
        kind, ratio = registry.get(method), cell.ratio if own is None else own
        identities: list[tuple[Ratio, int]] = [(ratio, seed) for seed in cell.seeds]
        if not (kind.trains or kind.needs_training_features):
            # no prediction depends on the training set; groups of classes by its counts do
            identities = [(NATURAL if ratio == NATURAL else 1.0, 0)]
        subsets = ("base", "new") if protocol == "base_to_new" else ("all",)
        runs = [Run(protocol, trained, ratio, method, hp, seed) for ratio, seed in identities]
        return {
            "row": cell.variant,
            "task": cell.task,
            "dataset": tested,
            "ratio": cell.ratio,
            "source": source,
            "parameter": cell.parameter,
            "x": cell.x,
            "runs": [self._register(run, tested, subsets).id for run in runs],
        }

    def _register(self, run: Run, target: str, subsets: Iterable[str]) -> Run:
        """Add a run and the one that it starts from, which is tested like it."""
        if run.start:
            self._register(run.start, target, subsets)
        same = self.runs.setdefault(run.id, run)
        if same.hyperparameters != run.hyperparameters:
            raise CptError(
                f"{self.source}: two settings of {run.method} have the same key {run.key}; change any value of one of "
                "them by a little"
            )
        same.targets |= {(target, subset) for subset in subsets}
        return same

    # ---- checks of what the configuration names ------------------------------------------------------

    def _check_tasks(self) -> None:
        for task, section in self.config.tasks:
            for key in () if section is None else ("datasets", "source", "targets"):
                with self._noted():
                    self._check_datasets_of(task, section, key)

    def _check_datasets_of(self, task: str, section: Any, key: str) -> None:
        names, where = getattr(section, key, []), f"tasks.{task}.{key}"
        names = [names] if isinstance(names, str) else names
        self._check_datasets(where, names)
        if task == "base_to_new":
            self._check_halves(where, names)
        if key != "targets":
            self._check_trainable(where, names)
        elif names and section.source in names:
            self._refuse(where, f"{section.source!r} is the source; it is tested anyway")

    def _check_overrides(self) -> None:
        for i, rule in enumerate(self.config.overrides):
            with self._noted():
                self._check_rule(self.config.place_of_rule(i), rule)

    def _check_rule(self, where: str, rule: cfg.Override) -> None:
        for name in rule.methods or []:
            if name not in registry.names():
                self._refuse(f"{where}.methods", f"unknown method {name!r}; {nearest(name, registry.names())}")
        self._check_datasets(f"{where}.datasets", rule.datasets or [])
        methods = rule.methods or registry.usable()
        known = {key for name in methods for key in registry.get(name).hyperparameters.model_fields}
        for key in rule.set:
            if key not in known:
                written = key if key.isprintable() else repr(key)
                self._refuse(f"{where}.set.{written}", f"unknown hyperparameter; {nearest(key, known)}")

    def _check_trainable(self, where: str, names: Iterable[str]) -> None:
        for name in names:
            if self.catalog[name].shift_of:
                self._refuse(where, f"{name!r} is a shift with test images only; it can be a target, not trained on")

    def _check_halves(self, where: str, names: Iterable[str]) -> None:
        """Refuse datasets that cannot be halved, as far as the catalog tells."""
        for name in names:
            classes = self.catalog[name].class_names
            if classes is not None and len(classes) < 2:
                self._refuse(where, f"{name!r} has one class, and base_to_new needs two; add one or delete it here")

    def _check_datasets(self, where: str, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.catalog:
                self._refuse(where, self.catalog.absent(name))

    def _refuse(self, *parts: str) -> NoReturn:
        raise CptError(": ".join((self.source, *parts)))


def _without(exhibit: str) -> str:
    """How to leave out the exhibit at a place of the configuration."""
    return f"write exhibits: {{{exhibit.removeprefix('exhibits.')}: null}}"


def _is_overlooked(method: str, config: cfg.Config) -> bool:
    """Whether the experiment chooses epochs method by method, and a trained method is in none of its rules."""
    named = {name for rule in config.overrides for name in rule.methods or []}
    chosen = any(rule.methods and "epochs" in rule.set for rule in config.overrides)
    general = any(rule.methods is None and "epochs" in rule.set for rule in config.overrides)
    own = any("epochs" in variant.set for variant in config.variants.values() if variant.method == method)
    return chosen and not general and not own and method not in named and registry.get(method).trains


def digest(grid: Grid) -> str:
    """Return a hash of what grid.json would hold."""
    return sha256_text(canonical_json(grid.as_json()))
