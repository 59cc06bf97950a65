"""One training job of the grid: its identity, and the files that it reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cpt.clip.inside import Needs
from cpt.files import paths
from cpt.files.paths import Ratio
from cpt.files.stage_files import canonical_json, sha256_text
from cpt.methods.base import registry
from cpt.methods.base.hyperparameters import Hyperparameters, Starting


@dataclass
class Run:
    """One training job and the targets it is evaluated on, which alone may change."""

    protocol: str
    dataset: str
    ratio: Ratio
    method: str
    hyperparameters: Hyperparameters
    seed: int
    targets: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def of(cls, record: dict[str, Any]) -> Run:
        """Return the run that a ``run.json`` tells of."""
        hp = registry.get(record["method"]).hyperparameters(**record["hyperparameters"])
        protocol, dataset, ratio, method = (record[key] for key in ("protocol", "dataset", "imbalance_ratio", "method"))
        return cls(protocol, dataset, ratio, method, hp, record["seed"])

    @cached_property
    def hyperparameters_json(self) -> str:
        """Canonical JSON of the resolved hyperparameters."""
        return canonical_json(self.hyperparameters.model_dump())

    @cached_property
    def key(self) -> str:
        """Method and hash of the resolved hyperparameters."""
        return f"{self.method}-{sha256_text(self.hyperparameters_json)[:8]}"

    @cached_property
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
    def modules(self) -> tuple[str, ...]:
        """Modules that define its method."""
        return registry.modules(self.method, self.hyperparameters)

    @property
    def start(self) -> Run | None:
        """The run that this one starts from: another method on the same training set."""
        hp = self.hyperparameters
        if not isinstance(hp, Starting):
            return None
        own = registry.get(hp.start).hyperparameters(**hp.start_hyperparameters)
        return Run(self.protocol, self.dataset, self.ratio, hp.start, own, self.seed)

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


@dataclass(frozen=True)
class Job:
    """What the workflow and grid.json know of a run. Paths are relative to the experiment's folder.

    Attributes:
        key: method and hash of the hyperparameters.
        targets: (dataset, subset) that it is tested on, sorted.
        hyperparameters: canonical JSON of the resolved ones.
        templates: template set of its text features.
        clusters: those that it trains with, None when it needs none.
        measured_clusters: those that it is measured within, None where no table shows it.
        descriptions: features of class descriptions, None when it needs none.
        stand_in: template set that stands in for a file of descriptions.
        start: folder of the run that it starts from.
        frozen_images: (dataset, part) of the frozen image features that it can use.
        modules: modules that define its method.
        tower_needs: what it needs inside the image tower (``cpt.clip.inside``).
    """

    protocol: str
    dataset: str
    imbalance_ratio: Ratio
    method: str
    key: str
    seed: int
    targets: list[list[str]]
    hyperparameters: str
    templates: str
    split: str
    text_features: str
    clusters: str | None
    measured_clusters: str | None
    descriptions: str | None
    stand_in: str | None
    start: str | None
    frozen_images: list[list[str]]
    modules: list[str]
    tower_needs: Needs
