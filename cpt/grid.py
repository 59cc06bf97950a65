"""From configuration to runs and paths: the only place that knows both.

A table or figure asks for cells (variant × task × dataset × imbalance ratio × seeds); variants that resolve to the
same hyperparameters are the same run, and a run is evaluated on every target that some cell asks for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cpt import config as cfg
from cpt import paths
from cpt.data.catalog import Entry, load_catalog
from cpt.errors import CptError, nearest
from cpt.files import canonical_json, sha256_text
from cpt.methods import registry
from cpt.methods.hyperparameters import Hyperparameters, resolve
from cpt.validation import one_line

PROTOCOL = {
    "base_to_new": "base_to_new",
    "cross_dataset": "all_classes",
    "domain_generalization": "all_classes",
    "few_shot": "few_shot",
}


@dataclass
class Run:
    """One training job and the targets it is evaluated on."""

    protocol: str
    dataset: str
    ratio: float
    method: str
    hyperparameters: Hyperparameters
    seed: int
    targets: set[tuple[str, str]] = field(default_factory=set)

    @property
    def hyperparameters_json(self) -> str:
        """Canonical JSON of the resolved hyperparameters."""
        return canonical_json(self.hyperparameters.model_dump())

    @property
    def key(self) -> str:
        """Method and hash of the resolved hyperparameters."""
        return f"{self.method}-{sha256_text(self.hyperparameters_json)[:8]}"

    @property
    def id(self) -> str:
        """Folder of the run below ``runs/``."""
        return paths.run(self.protocol, self.dataset, self.ratio, self.key, self.seed)

    @property
    def split(self) -> str:
        """Path of its training split."""
        return paths.split(self.protocol, self.dataset, self.ratio, self.seed)

    @property
    def text_features(self) -> str:
        """Path of the frozen text features of its training dataset."""
        return paths.text_features(self.dataset, self.hyperparameters.templates)

    @property
    def clustering(self) -> dict[str, Any] | None:
        """Algorithm, number rule and seed of the clusters it needs; None when it needs none."""
        hp: Any = self.hyperparameters
        if not registry.get(self.method).needs_clusters:
            return None
        count = f"fixed{hp.clusters}" if hp.clusters else f"per{hp.classes_per_cluster}"
        return {
            "name": f"{hp.clustering}-{count}-{hp.templates}",
            "algorithm": hp.clustering,
            "clusters": hp.clusters,
            "classes_per_cluster": hp.classes_per_cluster,
            "seed": self.seed if hp.cluster_seed is None else hp.cluster_seed,
        }

    @property
    def clusters(self) -> str | None:
        """Path of the clusters it needs."""
        found = self.clustering
        return paths.clusters(self.protocol, self.dataset, found["name"], found["seed"]) if found else None


@dataclass
class Grid:
    """All runs of an experiment and the exhibits over them."""

    config: cfg.Config
    catalog: dict[str, Entry]
    runs: dict[str, Run]
    exhibits: dict[str, dict[str, Any]]

    @property
    def root(self) -> str:
        """Folder of the experiment."""
        return f"results/{self.config.experiment}"

    def frozen_image_parts(self, run: Run) -> list[tuple[str, str]]:
        """(dataset, part) of the frozen image features that a run can use instead of encoding images itself."""
        if registry.get(run.method).prompts_images:
            return []
        part: str = self.config.evaluate_on
        targets = [(dataset, part) for dataset in sorted({dataset for dataset, _ in run.targets})]
        trained = registry.get(run.method).trains and self.config.augmentation == "none"
        return [(run.dataset, "train"), *targets] if trained else targets

    def as_json(self) -> dict[str, Any]:
        """Return the content of grid.json (docs/files.md)."""
        used = {dataset for run in self.runs.values() for dataset in (run.dataset, *(d for d, _ in run.targets))}
        return {
            "schema": paths.GRID,
            "experiment": self.config.experiment,
            "backbone": self.config.backbone.name,
            "printed": self.config.printed,
            "runs": [
                {
                    "run": run.id,
                    "protocol": run.protocol,
                    "dataset": run.dataset,
                    "imbalance_ratio": run.ratio,
                    "method": run.method,
                    "key": run.key,
                    "seed": run.seed,
                    "clusters": run.clusters,
                    "text_features": run.text_features,
                    "targets": [list(target) for target in sorted(run.targets)],
                }
                for run in self.runs.values()
            ],
            "datasets": {
                name: {"title": self.catalog[name].title, "counterpart": self.catalog[name].counterpart}
                for name in sorted(used)
            },
            "exhibits": self.exhibits,
        }


def build(config: cfg.Config, source: str) -> Grid:
    """Resolve a configuration.

    Args:
        config: a parsed configuration.
        source: the file it came from, for messages.

    Raises:
        CptError: an unknown dataset, method, variant or hyperparameter, or an impossible value; one line.
    """
    return _Builder(config, source).build()


class _Builder:
    def __init__(self, config: cfg.Config, source: str) -> None:
        self.config, self.source = config, source
        self.catalog = load_catalog(Path(config.catalog))
        self.runs: dict[str, Run] = {}
        self.resolved: dict[tuple, Hyperparameters] = {}

    def build(self) -> Grid:
        for name, variant in self.config.variants.items():
            if variant.method not in registry.names():
                hint = nearest(variant.method, registry.names())
                self._refuse(f"variants.{name}.method", f"unknown method {variant.method!r}; {hint}")
        for task in ("base_to_new", "few_shot", "cross_dataset", "domain_generalization"):
            section = getattr(self.config.tasks, task)
            if section is not None:
                for key in ("datasets", "source", "targets"):
                    names = getattr(section, key, [])
                    names = [names] if isinstance(names, str) else names
                    self._check_datasets(f"tasks.{task}.{key}", names)
                    if key != "targets":
                        self._check_trainable(f"tasks.{task}.{key}", names)
                    elif names and section.source in names:
                        self._refuse(f"tasks.{task}.targets", f"{section.source!r} is the source; it is tested anyway")
        self._check_overrides()
        exhibits = {name: self._exhibit(name, exhibit) for name, exhibit in self.config.exhibits.items()}
        return Grid(self.config, self.catalog, dict(sorted(self.runs.items())), exhibits)

    def _exhibit(self, name: str, exhibit: Any) -> dict[str, Any]:
        where = f"exhibits.{name}"
        if exhibit.datasets:
            self._check_datasets(f"{where}.datasets", exhibit.datasets)
        variants = getattr(exhibit, "variants", None) or [exhibit.variant]
        for variant in variants:
            if variant not in self.config.variants:
                hint = nearest(variant, self.config.variants)
                self._refuse(f"{where}.variants", f"unknown variant {variant!r}; {hint}")
        description = {
            "name": name,
            "kind": exhibit.kind,
            "title": exhibit.title,
            "caption": exhibit.caption,
            "ratios": exhibit.ratios or self.config.imbalance_ratios,
            "tasks": list(getattr(exhibit, "tasks", ["base_to_new"])),
            "rows": [self._row(variant) for variant in variants],
        }
        description["cells"] = list(getattr(self, f"_{exhibit.kind}")(where, exhibit, description))
        return description

    def _row(self, variant: str) -> dict[str, Any]:
        chosen = self.config.variants[variant]
        method = registry.get(chosen.method)
        note = chosen.note or ("reconstruction" if method.reconstruction else None)
        return {"id": variant, "label": chosen.label or method.title, "note": note}

    def _table(self, where: str, exhibit: cfg.Table, description: dict) -> Iterable[dict[str, Any]]:
        description["layout"] = exhibit.layout
        for task in exhibit.tasks:
            for variant in exhibit.variants:
                for ratio in description["ratios"]:
                    for trained, target, is_source in self._pairs(where, task, exhibit.datasets):
                        runs = self._runs(where, variant, task, trained, target, ratio, exhibit.seeds)
                        yield _cell(variant, task, target, ratio, runs, source=is_source)

    def _similarity(self, where: str, exhibit: cfg.Similarity, description: dict) -> Iterable[dict[str, Any]]:
        self._check_datasets(f"{where}.dataset", [exhibit.dataset, exhibit.stability.dataset])
        ratio = description["ratios"][0]
        for variant in exhibit.variants:
            runs = self._runs(where, variant, "base_to_new", exhibit.dataset, exhibit.dataset, ratio, exhibit.seeds)
            yield _cell(variant, "base_to_new", exhibit.dataset, ratio, runs)
        panel = exhibit.stability
        changes = {"epochs": panel.epochs, "snapshots": True}
        for variant in panel.variants:
            if variant not in self.config.variants:
                hint = nearest(variant, self.config.variants)
                self._refuse(f"{where}.stability.variants", f"unknown variant {variant!r}; {hint}")
            if variant not in exhibit.variants:
                description["rows"].append(self._row(variant))
            runs = self._runs(
                where,
                variant,
                "base_to_new",
                panel.dataset,
                panel.dataset,
                ratio,
                panel.seeds or exhibit.seeds,
                changes,
            )
            yield _cell(variant, "base_to_new", panel.dataset, ratio, runs, parameter="epochs", x=panel.epochs)

    def _method(self, where: str, exhibit: cfg.MethodPicture, description: dict) -> Iterable[dict[str, Any]]:
        self._check_datasets(f"{where}.dataset", [exhibit.dataset])
        ratio = description["ratios"][0]
        runs = self._runs(where, exhibit.variant, "base_to_new", exhibit.dataset, exhibit.dataset, ratio, exhibit.seeds)
        yield _cell(exhibit.variant, "base_to_new", exhibit.dataset, ratio, runs[:1])

    def _sweep(self, where: str, exhibit: cfg.Sweep, description: dict) -> Iterable[dict[str, Any]]:
        description["defaults"] = {}
        pairs = self._pairs(where, "base_to_new", exhibit.datasets)
        for parameter, values in exhibit.sweep.items():
            default = self._hyperparameters(where, exhibit.variant, "base_to_new", pairs[0][0], {})
            description["defaults"][parameter] = getattr(default, parameter, None)
            for x in values:
                for ratio in description["ratios"]:
                    for trained, target, _ in pairs:
                        runs = self._runs(
                            where, exhibit.variant, "base_to_new", trained, target, ratio, exhibit.seeds, {parameter: x}
                        )
                        yield _cell(exhibit.variant, "base_to_new", target, ratio, runs, parameter=parameter, x=x)

    def _violin(self, where: str, exhibit: cfg.Violin, description: dict) -> Iterable[dict[str, Any]]:
        for variant in exhibit.variants:
            for ratio in description["ratios"]:
                for trained, target, _ in self._pairs(where, "base_to_new", exhibit.datasets):
                    runs = self._runs(where, variant, "base_to_new", trained, target, ratio, exhibit.seeds)
                    yield _cell(variant, "base_to_new", target, ratio, runs)

    def _pairs(self, where: str, task: str, only: list[str] | None) -> list[tuple[str, str, bool]]:
        """(trained on, tested on, target is the source) of a task."""
        section = getattr(self.config.tasks, task)
        if section is None:
            self._refuse(where, f"asks for the task {task}, which tasks does not declare; add tasks.{task}")
        if isinstance(section, cfg.Transfer):
            pairs = [(section.source, section.source, True)]
            pairs += [(section.source, target, False) for target in section.targets]
        else:
            pairs = [(dataset, dataset, False) for dataset in section.datasets]
        if only is None:
            return pairs
        chosen = [pair for pair in pairs if pair[1] in only]
        if not chosen:
            self._refuse(f"{where}.datasets", f"none of {', '.join(only)} belongs to the task {task}")
        return chosen

    def _runs(
        self,
        where: str,
        variant: str,
        task: str,
        trained: str,
        target: str,
        ratio: float,
        seeds: list[int] | None,
        changes: dict[str, Any] | None = None,
    ) -> list[str]:
        """Register the runs of a cell and return their ids, one per seed."""
        protocol = PROTOCOL[task]
        hp = self._hyperparameters(where, variant, protocol, trained, changes or {})
        method = self.config.variants[variant].method
        if registry.get(method).trains:
            identities = [(ratio, seed) for seed in seeds or self.config.seeds]
        else:
            identities = [(1.0, 0)]  # nothing of an untrained method depends on the training set
        subsets = ("base", "new") if protocol == "base_to_new" else ("all",)
        ids = []
        for run_ratio, seed in identities:
            run = Run(protocol, trained, run_ratio, method, hp, seed)
            run = self.runs.setdefault(run.id, run)
            run.targets |= {(target, subset) for subset in subsets}
            ids.append(run.id)
        return ids

    def _hyperparameters(
        self, where: str, variant: str, protocol: str, dataset: str, changes: dict[str, Any]
    ) -> Hyperparameters:
        chosen = self.config.variants[variant]
        identity = (variant, protocol, dataset, canonical_json(changes))
        if identity not in self.resolved:
            kind = registry.get(chosen.method).hyperparameters
            layers = [
                {key: value for key, value in rule.set.items() if key in kind.model_fields}
                for rule in self.config.overrides
                if (rule.methods is None or chosen.method in rule.methods)
                and (rule.protocols is None or protocol in rule.protocols)
                and (rule.datasets is None or dataset in rule.datasets)
            ]
            try:
                own = resolve(kind, protocol, dataset, *layers, chosen.set)
            except ValidationError as error:
                in_variant = error.errors()[0]["loc"][0] in chosen.set
                self._refuse(one_line(error, kind, f"variants.{variant}.set" if in_variant else "overrides"))
            known = {"single", "dataset", "ensemble", *self.config.templates}
            if own.templates not in known:
                self._refuse(
                    f"variants.{variant}", f"templates: unknown set {own.templates!r}; {nearest(own.templates, known)}"
                )
            try:
                self.resolved[identity] = kind(**(own.model_dump() | changes))
            except ValidationError as error:
                self._refuse(one_line(error, kind, where))
        return self.resolved[identity]

    def _check_overrides(self) -> None:
        for i, rule in enumerate(self.config.overrides):
            for name in rule.methods or []:
                if name not in registry.names():
                    hint = nearest(name, registry.names())
                    self._refuse(f"overrides.{i}.methods", f"unknown method {name!r}; {hint}")
            self._check_datasets(f"overrides.{i}.datasets", rule.datasets or [])
            methods = rule.methods or registry.names()
            known = {key for name in methods for key in registry.get(name).hyperparameters.model_fields}
            for key in rule.set:
                if key not in known:
                    self._refuse(f"overrides.{i}.set.{key}", f"unknown hyperparameter; {nearest(key, known)}")

    def _check_trainable(self, where: str, names: Iterable[str]) -> None:
        for name in names:
            if self.catalog[name].shift_of:
                self._refuse(where, f"{name!r} is a shift with test images only; it can be a target, not trained on")

    def _check_datasets(self, where: str, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.catalog:
                self._refuse(where, f"unknown dataset {name!r}; {nearest(name, self.catalog)}")

    def _refuse(self, *parts: str) -> None:
        raise CptError(": ".join((self.source, *parts)))


def _cell(
    row: str, task: str, dataset: str, ratio: float, runs: list[str], *,
    source: bool = False, parameter: str | None = None, x: Any = None,
) -> dict[str, Any]:  # fmt: skip
    return {
        "row": row,
        "task": task,
        "dataset": dataset,
        "ratio": ratio,
        "source": source,
        "parameter": parameter,
        "x": x,
        "runs": runs,
    }


def digest(grid: Grid) -> str:
    """Return a hash of what grid.json would hold."""
    return sha256_text(canonical_json(grid.as_json()))
