"""What a configuration inherits and no longer fits what it changes: exhibits of other tasks, datasets and variants.

What its own file names is never left out: the grid refuses it where it does not fit.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cpt.data.catalog import load_catalog
from cpt.errors import CptError, nearest
from cpt.experiment.exhibits import Exhibit


def fitted(
    values: dict[str, Any], own: Mapping[str, Any], parsed: Mapping[str, Exhibit], catalog: str
) -> tuple[dict[str, Any], list[str]]:
    """Leave out exhibits that ``only`` does not name, and what is inherited and does not fit.

    Args:
        values: the merged configuration, which is valid; it stays as it is.
        own: what the topmost file holds.
        parsed: its exhibits.
        catalog: the file of datasets.

    Returns:
        The configuration that is left, and a notice per reason: what is left out.

    Raises:
        CptError: ``only`` names no exhibit, or nothing is left.
    """
    found = _Fitting(copy.deepcopy(values), own, parsed, Path(catalog))
    return found.values, found.notices


class _Fitting:
    def __init__(
        self, values: dict[str, Any], own: Mapping[str, Any], parsed: Mapping[str, Exhibit], catalog: Path
    ) -> None:
        self.values, self.own, self.parsed, self.catalog = values, own, parsed, catalog
        self.only: list[str] | None = values.get("only")
        self.dropped: dict[str, list[str]] = {}
        self.reduced: dict[str, list[str]] = {}
        self._choose()
        self._tasks()
        self.tested = self._tested()
        for name in list(values["exhibits"]):
            self._exhibit(name)
        if not values["exhibits"]:
            why = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in self.dropped.items())
            raise CptError(f"exhibits: none is left ({why}); add one, for example table2 of config/config.yaml")

    @property
    def notices(self) -> list[str]:
        """One line, or none."""
        gone = [f"{', '.join(names)} ({reason})" for reason, names in self.dropped.items()]
        less = [f"{reason} of {', '.join(names)}" for reason, names in self.reduced.items()]
        return [f"left out, because it no longer fits: {'; '.join(gone + less)}"] if gone or less else []

    # ---- which exhibits --------------------------------------------------------------------------

    def _choose(self) -> None:
        """Keep the exhibits that ``only`` names."""
        only, exhibits = self.only, self.values["exhibits"]
        if only is None:
            return
        for name in only:
            if name not in exhibits:
                raise CptError(f"only: unknown exhibit {name!r}; {nearest(name, exhibits)}")
        unnamed = [name for name in self._named("exhibits") if name in exhibits and name not in only]
        if unnamed and "only" not in self.own:
            names = ", ".join([*only, *unnamed])
            raise CptError(f"exhibits.{unnamed[0]}: `only` of a file below leaves it out; add `only: [{names}]`")
        self.values["exhibits"] = {name: exhibits[name] for name in exhibits if name in only}

    def _exhibit(self, name: str) -> None:
        """Leave out an inherited exhibit, or the parts of it, that do not fit."""
        parsed, section = self.parsed[name], self.values["exhibits"][name]
        own = self._named("exhibits").get(name) or {}
        asked = name in self._named("exhibits") or name in (self.only or [])
        if "tasks" in section and "tasks" not in own:
            declared = [task for task in section["tasks"] if task in self.tested]
            gone = [f"task {task}" for task in section["tasks"] if task not in self.tested]
            if not self._keep(name, section, "tasks", declared, gone, asked):
                return
        elif unmet := [task for task in parsed.of_tasks() if task not in self.tested]:
            if not asked:
                self._drop(name, f"task {unmet[0]}")
            return
        tasks = section.get("tasks", parsed.of_tasks())
        tested = {dataset for task in tasks for dataset in self.tested.get(task, ())}
        named = dict.fromkeys(parsed.named_datasets(), ("dataset", tested))
        named |= {path: ("row", set(self.values["variants"])) for path in parsed.named_variants()}
        for path, (what, known) in named.items():
            *above, last = path.split(".")
            part, mine = section, own
            for key in above:
                part, mine = part[key], mine.get(key) or {}
            if last not in part or last in mine:
                continue
            if isinstance(part[last], str):
                if part[last] not in known and not asked:
                    self._drop(name, f"{what} {part[last]}")
                    return
                continue
            kept = [item for item in part[last] if item in known]
            gone = [f"{what} {item}" for item in part[last] if item not in known]
            if not self._keep(name, part, last, kept, gone, asked):
                return
        if section.get("datasets") and "tasks" in section and "tasks" not in own:
            met = [task for task in tasks if self.tested[task].intersection(section["datasets"])]
            gone = [f"task {task}" for task in tasks if task not in met]
            if not self._keep(name, section, "tasks", met, gone, asked):
                return
        if section.get("reference") not in (None, *section.get("variants", [])) and "reference" not in own:
            del section["reference"]

    def _keep(self, name: str, part: dict[str, Any], key: str, kept: list[str], gone: list[str], asked: bool) -> bool:
        """Keep some items of a list of an exhibit; return whether the exhibit stays to be looked at."""
        if gone and not kept:
            if not asked:
                self._drop(name, gone[0])
            return False
        if gone:
            part[key] = kept
            for item in gone:
                self.reduced.setdefault(item, []).append(name)
        return True

    def _drop(self, name: str, reason: str) -> None:
        del self.values["exhibits"][name]
        self.dropped.setdefault(f"no {reason}", []).append(name)

    # ---- tasks and their datasets --------------------------------------------------------------------

    def _tasks(self) -> None:
        """Leave out inherited datasets that the catalog lacks, where the topmost file names another catalog."""
        if "catalog" not in self.own:
            return
        try:
            known = load_catalog(self.catalog)
        except CptError:  # the grid tells
            return
        for task, section in list(self.values["tasks"].items()):
            if section is None:
                continue
            mine = self._named("tasks").get(task) or {}
            lists = [key for key in ("datasets", "targets") if key in section and key not in mine]
            for key in lists:
                section[key] = [name for name in section[key] if name in known]
            lost = section.get("source") not in (None, *known) and "source" not in mine
            if lost or any(not section[key] for key in lists):
                del self.values["tasks"][task]
        mine = len(self.own.get("overrides") or [])
        rules = self.values.get("overrides", [])
        for rule in list(rules[: len(rules) - mine]):
            if rule.get("datasets"):
                rule["datasets"] = [name for name in rule["datasets"] if name in known]
                if not rule["datasets"]:
                    rules.remove(rule)

    def _tested(self) -> dict[str, set[str]]:
        """Declared task -> datasets that are tested."""
        found = {}
        for task, section in self.values["tasks"].items():
            if section is not None:
                found[task] = {*section.get("datasets", []), *section.get("targets", [])}
                found[task] |= {section["source"]} if "source" in section else set()
        return found

    def _named(self, section: str) -> Mapping[str, Any]:
        """Entries of a section that the topmost file names and does not take away."""
        entries = self.own.get(section)
        return (
            {name: entry for name, entry in entries.items() if entry is not None} if isinstance(entries, dict) else {}
        )
