"""Hyperparameters of an experiment's variants: the methods' defaults, the experiment's overrides, the variant's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from pydantic import ValidationError

from cpt.errors import nearest
from cpt.experiment.config import Config
from cpt.features.templates import TEMPLATE_SETS
from cpt.files.stage_files import canonical_json
from cpt.methods.base import registry
from cpt.methods.base.hyperparameters import Hyperparameters, Starting, resolve
from cpt.validation import one_line, problems_of

CLUSTERED = "cpt"
"""The method within whose clusters all methods are measured."""


class Variants:
    """Resolves variants.

    Args:
        config: the experiment's configuration; its methods exist.
        refuse: raises a ``CptError`` of the parts of a message.
    """

    def __init__(self, config: Config, refuse: Callable[..., NoReturn]) -> None:
        self.config, self._refuse = config, refuse
        self._known: dict[tuple[str, ...], Hyperparameters] = {}

    def resolved(
        self, where: str, variant: str, protocol: str, dataset: str, changes: Mapping[str, Any] | None = None
    ) -> Hyperparameters:
        """Return the hyperparameters of a variant where it is trained.

        Args:
            where: place in the configuration that asks, for messages about ``changes``.
            variant: its name.
            protocol: how it is trained.
            dataset: what it is trained on; empty for none in particular.
            changes: what differs from the variant's own.
        """
        changes = dict(changes or {})
        identity = (variant, protocol, dataset, canonical_json(changes))
        if identity not in self._known:
            kind = registry.get(self.config.variants[variant].method).hyperparameters
            try:
                self._known[identity] = kind(**(self._own(variant, protocol, dataset).model_dump() | changes))
            except ValidationError as error:
                self._refuse(one_line(error, kind, where))
        return self._known[identity]

    def clustering(self, protocol: str, dataset: str) -> Hyperparameters:
        """Return CPT's hyperparameters where this experiment trains, which need not have it as a variant."""
        hp = self._layered(CLUSTERED, protocol, dataset, {}, "overrides")
        self._check_templates("overrides", "templates", hp.templates)
        return hp

    def _own(self, variant: str, protocol: str, dataset: str) -> Hyperparameters:
        chosen, where = self.config.variants[variant], f"variants.{variant}.set"
        own = self._layered(chosen.method, protocol, dataset, chosen.set, where)
        if isinstance(own, Starting):
            if "templates" in chosen.set:
                self._refuse(f"{where}.templates", "are those of the started run; set start_hyperparameters")
            start = self._start(own, protocol, dataset, where)
            # the features that the started run knows of are those of its continuation
            given = {"start_hyperparameters": start.model_dump(), "templates": start.templates}
            own = own.model_copy(update=given)
            self._check_templates(where, "descriptions", getattr(start, "descriptions", None))
        for name in ("templates", "descriptions"):
            self._check_templates(f"variants.{variant}", name, getattr(own, name, None))
        return own

    def _layered(self, method: str, protocol: str, dataset: str, own: dict[str, Any], where: str) -> Hyperparameters:
        """Defaults, then the experiment's overrides that apply, then ``own``, which stands at ``where``."""
        kind = registry.get(method).hyperparameters
        rules = [
            (i, {key: value for key, value in rule.set.items() if key in kind.model_fields})
            for i, rule in enumerate(self.config.overrides)
            if (rule.methods is None or method in rule.methods)
            and (rule.protocols is None or protocol in rule.protocols)
            and (rule.datasets is None or dataset in rule.datasets)
        ]
        try:
            return resolve(kind, protocol, dataset, *(values for _, values in rules), own)
        except ValidationError as error:
            key = problems_of(error)[0]["loc"][0]
            places = [f"{self.config.place_of_rule(i)}.set" for i, values in rules if key in values]
            self._refuse(one_line(error, kind, where if key in own or not places else places[-1]))

    def _start(self, hp: Starting, protocol: str, dataset: str, where: str) -> Hyperparameters:
        """Hyperparameters of the run that ``hp`` starts from."""
        if hp.start in registry.names():
            registry.get(hp.start)  # tells why one of another package cannot be used
        known = [name for name in registry.usable() if registry.continuable(name)]
        if hp.start not in known:
            self._refuse(f"{where}.start", f"no method to start from: {hp.start!r}; {nearest(hp.start, known)}")
        place = f"{where}.start_hyperparameters"
        return self._layered(hp.start, protocol, dataset, hp.start_hyperparameters, place)

    def _check_templates(self, where: str, name: str, templates: str | None) -> None:
        known = {*TEMPLATE_SETS, *self.config.templates}
        if templates is not None and templates not in known:
            self._refuse(where, f"{name}: unknown set {templates!r}; {nearest(templates, known)}")
