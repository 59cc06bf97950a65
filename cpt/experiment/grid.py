"""From configuration to runs and paths: the only place that knows both.

A table or figure asks for cells (variant × task × dataset × imbalance ratio × seeds); variants that resolve to the
same hyperparameters are the same run, and a run is evaluated on every target that some cell asks for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from cpt.data.catalog import load_catalog
from cpt.data.entry import Entry
from cpt.errors import CptError, nearest
from cpt.experiment import config as cfg
from cpt.experiment.runs import Job, Run
from cpt.features.templates import TEMPLATE_SETS
from cpt.files import paths
from cpt.files.stage_files import canonical_json, sha256_text
from cpt.methods.base import registry
from cpt.methods.base.describe import facts
from cpt.methods.base.hyperparameters import Continued, Hyperparameters, resolve
from cpt.metrics.measures import IN_CLUSTERS
from cpt.validation import one_line, problems_of

PROTOCOL = {
    "base_to_new": "base_to_new",
    "cross_dataset": "all_classes",
    "domain_generalization": "all_classes",
    "few_shot": "few_shot",
}


CLUSTERED = "cpt"
"""The method within whose clusters all methods are measured."""

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
    catalog: dict[str, Entry]
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
        needs_train = kind.uses_frozen_images or (kind.trains and not kind.prompts_images)
        train = [(run.dataset, "train")] if needs_train and self.config.augmentation == "none" else []
        if kind.prompts_images:
            return train
        part: str = self.config.evaluate_on
        return [*train, *((dataset, part) for dataset in sorted({dataset for dataset, _ in run.targets}))]

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
        return not shown.isdisjoint(IN_CLUSTERS)

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
        )

    def _listed(self, name: str, run: Run) -> dict[str, Any]:
        job = self.job(run)
        return {"run": name, **{field: getattr(job, field) for field in LISTED}}


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
                    if task == "base_to_new":
                        self._check_halves(f"tasks.{task}.{key}", names)
                    if key != "targets":
                        self._check_trainable(f"tasks.{task}.{key}", names)
                    elif names and section.source in names:
                        self._refuse(f"tasks.{task}.targets", f"{section.source!r} is the source; it is tested anyway")
        self._check_overrides()
        for name in self.config.variants:  # also those that no exhibit shows
            self._hyperparameters(f"variants.{name}", name, "base_to_new", "", {})
        exhibits = {name: self._exhibit(name, exhibit) for name, exhibit in self.config.exhibits.items()}
        places = sorted({(run.protocol, run.dataset) for run in self.runs.values()})
        clusterings = {place: self._clustering(*place) for place in places}
        made = Grid(self.config, self.catalog, dict(sorted(self.runs.items())), exhibits, clusterings)
        for run in made.runs.values():
            file = self.catalog[run.dataset].descriptions
            if file and made.descriptions(run) and not Path(file).is_file():
                where = f"{self.config.catalog}: {run.dataset}.descriptions"
                self._refuse(where, f"{file!r}: no such file; put it there, or delete the line to use templates")
        return made

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
            "tasks": _tasks(exhibit),
            "rows": [self._row(variant) for variant in variants],
        }
        if hasattr(exhibit, "measures"):
            description["measures"] = exhibit.measures
        cells = self._methods if isinstance(exhibit, cfg.Methods) else getattr(self, f"_{exhibit.kind}")
        description["cells"] = list(cells(where, exhibit, description))
        return description

    def _row(self, variant: str) -> dict[str, Any]:
        chosen = self.config.variants[variant]
        method = registry.get(chosen.method)
        notes = [chosen.note, "reconstruction" if method.reconstruction else None]
        return {
            "id": variant,
            "label": chosen.label or method.title,
            "note": ", ".join(note for note in notes if note) or None,
        }

    def _table(self, where: str, exhibit: cfg.Table, description: dict) -> Iterable[dict[str, Any]]:
        description["layout"] = exhibit.layout
        description["reference"] = exhibit.reference or ("cpt" if "cpt" in exhibit.variants else None)
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

    def _methods(self, where: str, exhibit: cfg.Methods, description: dict) -> Iterable[dict[str, Any]]:
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
            unfit = ", ".join(f"{name}: null" for name in self._of_other_datasets())
            known = ", ".join(pair[1] for pair in pairs)
            self._refuse(
                f"{where}.datasets",
                f"none of {', '.join(only)} belongs to the task {task}; choose of {known}, or leave out what is of "
                f"others: exhibits: {{{unfit}}}",
            )
        return chosen

    def _of_other_datasets(self) -> list[str]:
        """Exhibits that name datasets, none of which belongs to one of their tasks."""
        tested: dict[str, set[str]] = {}
        for task, section in self.config.tasks:
            if section is not None:
                transfer = isinstance(section, cfg.Transfer)
                tested[task] = {section.source, *section.targets} if transfer else set(section.datasets)
        return [
            name
            for name, exhibit in self.config.exhibits.items()
            if exhibit.datasets
            and any(tested.get(task, set()).isdisjoint(exhibit.datasets) for task in _tasks(exhibit))
        ]

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
            identities = [(1.0, 0)]  # no prediction of an untrained method depends on the training set
        subsets = ("base", "new") if protocol == "base_to_new" else ("all",)
        ids = []
        for run_ratio, seed in identities:
            run = self._register(Run(protocol, trained, run_ratio, method, hp, seed), target, subsets)
            ids.append(run.id)
        return ids

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
        run = same
        run.targets |= {(target, subset) for subset in subsets}
        return run

    def _hyperparameters(
        self, where: str, variant: str, protocol: str, dataset: str, changes: dict[str, Any]
    ) -> Hyperparameters:
        chosen = self.config.variants[variant]
        identity = (variant, protocol, dataset, canonical_json(changes))
        if identity not in self.resolved:
            kind = registry.get(chosen.method).hyperparameters
            where_set = f"variants.{variant}.set"
            own = self._resolve(kind, chosen.method, protocol, dataset, chosen.set, where_set)
            if isinstance(own, Continued):
                if "templates" in chosen.set:
                    self._refuse(f"{where_set}.templates", "are those of the started run; set start_hyperparameters")
                start = self._start(own, protocol, dataset, where_set)
                # the features that the started run knows of are those of its continuation
                given = {"start_hyperparameters": start.model_dump(), "templates": start.templates}
                own = own.model_copy(update=given)
                self._check_templates(where_set, "descriptions", getattr(start, "descriptions", None))
            for name in ("templates", "descriptions"):
                self._check_templates(f"variants.{variant}", name, getattr(own, name, None))
            try:
                self.resolved[identity] = kind(**(own.model_dump() | changes))
            except ValidationError as error:
                self._refuse(one_line(error, kind, where))
        return self.resolved[identity]

    def _resolve(
        self, kind: type[Hyperparameters], method: str, protocol: str, dataset: str, own: dict[str, Any], where: str
    ) -> Hyperparameters:
        """Defaults, then the experiment's overrides that apply, then ``own``, which stands at ``where``."""
        layers = [
            {key: value for key, value in rule.set.items() if key in kind.model_fields}
            for rule in self.config.overrides
            if (rule.methods is None or method in rule.methods)
            and (rule.protocols is None or protocol in rule.protocols)
            and (rule.datasets is None or dataset in rule.datasets)
        ]
        try:
            return resolve(kind, protocol, dataset, *layers, own)
        except ValidationError as error:
            self._refuse(one_line(error, kind, where if problems_of(error)[0]["loc"][0] in own else "overrides"))

    def _clustering(self, protocol: str, dataset: str) -> Hyperparameters:
        """Hyperparameters of CPT where this experiment trains, which need not have it as a variant."""
        hp = self._resolve(registry.get(CLUSTERED).hyperparameters, CLUSTERED, protocol, dataset, {}, "overrides")
        self._check_templates("overrides", "templates", hp.templates)
        return hp

    def _start(self, hp: Continued, protocol: str, dataset: str, where: str) -> Hyperparameters:
        """Resolved hyperparameters of the run that ``hp`` starts from."""
        known = [name for name in registry.names() if registry.continuable(name)]
        if hp.start not in known:
            self._refuse(f"{where}.start", f"no method to start from: {hp.start!r}; {nearest(hp.start, known)}")
        kind = registry.get(hp.start).hyperparameters
        return self._resolve(
            kind, hp.start, protocol, dataset, hp.start_hyperparameters, f"{where}.start_hyperparameters"
        )

    def _check_templates(self, where: str, name: str, templates: str | None) -> None:
        known = {*TEMPLATE_SETS, *self.config.templates}
        if templates is not None and templates not in known:
            self._refuse(where, f"{name}: unknown set {templates!r}; {nearest(templates, known)}")

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

    def _check_halves(self, where: str, names: Iterable[str]) -> None:
        """Refuse datasets that cannot be halved, as far as the catalog tells."""
        for name in names:
            classes = self.catalog[name].class_names
            if classes is not None and len(classes) < 2:
                self._refuse(where, f"{name!r} has one class, and base_to_new needs two; add one or delete it here")

    def _check_datasets(self, where: str, names: Iterable[str]) -> None:
        for name in names:
            if name not in self.catalog:
                self._refuse(where, f"unknown dataset {name!r}; {nearest(name, self.catalog)}")

    def _refuse(self, *parts: str) -> NoReturn:
        raise CptError(": ".join((self.source, *parts)))


def _tasks(exhibit: cfg.Exhibit) -> list[str]:
    return list(getattr(exhibit, "tasks", ["base_to_new"]))


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
