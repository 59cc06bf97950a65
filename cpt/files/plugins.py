"""Methods and datasets that other packages bring: entry points in their metadata, found without a list to edit.

A package that cannot be loaded, or a name that two packages have, is a ``CptError`` where the name is asked for and
nowhere else. The packages that a command has used are part of the records that it writes (``cpt.files.provenance``).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cpt import __version__
from cpt.errors import CptError

METHODS, DATASETS = "cpt.methods", "cpt.datasets"
"""Groups of entry points."""
KINDS = {METHODS: "method", DATASETS: "dataset"}
OWN = f"cpt-longtail {__version__}"
"""This package, in messages."""

_used: dict[str, str] = {}


@dataclass(frozen=True)
class Plugin:
    """A method or dataset of another package.

    Attributes:
        group: ``METHODS`` or ``DATASETS``.
        name: by which configurations ask for it.
        module: that defines it.
        package, version: of the distribution that brings it.
        point: its entry point.
    """

    group: str
    name: str
    module: str
    package: str
    version: str
    point: importlib.metadata.EntryPoint

    def __str__(self) -> str:
        return f"{self.package} {self.version}"

    def load(self) -> Any:
        """Return what the entry point names.

        Raises:
            CptError: it cannot be imported.
        """
        try:
            return self.point.load()
        except Exception as error:
            raise self.broken(f"{type(error).__name__}: {error}") from error

    def broken(self, reason: str) -> CptError:
        """Return the error that it cannot be used, in one line."""
        fix = f"mend that package or `pip uninstall {self.package}`"
        return CptError(f"{KINDS[self.group]} {self.name!r} of {self}: {' '.join(reason.split())}; {fix}")

    def use(self) -> None:
        """Note the package for the record that is being made."""
        _used[self.package] = self.version


@cache
def of(group: str) -> dict[str, tuple[Plugin, ...]]:
    """Return the plugins of a group by name; several have one name where packages collide."""
    found: dict[str, tuple[Plugin, ...]] = {}
    for point in importlib.metadata.entry_points(group=group):
        package, version = (point.dist.name, point.dist.version) if point.dist else (point.module, "unknown")
        plugin = Plugin(group, point.name, point.module, package, version, point)
        found[point.name] = (*found.get(point.name, ()), plugin)
    return dict(sorted(found.items()))


def only(group: str, name: str, built_in: str = "") -> Plugin | None:
    """Return the plugin of a name; None where no other package has it.

    Args:
        group: ``METHODS`` or ``DATASETS``.
        name: of the method or dataset.
        built_in: who else has the name, empty for nobody.

    Raises:
        CptError: several have it.
    """
    found = of(group).get(name, ())
    owners = [built_in] * bool(built_in) + [str(plugin) for plugin in found]
    if found and len(owners) > 1:
        fix = f"`pip uninstall {found[-1].package}` or rename its entry point"
        raise CptError(f"{KINDS[group]} {name!r}: is in {' and in '.join(owners)}; {fix}")
    return found[0] if found else None


def forget() -> None:
    """Begin the notes of used packages anew."""
    _used.clear()


def used() -> dict[str, str]:
    """Return the versions of the packages that were used since ``forget``."""
    return dict(_used)


@cache
def source(package: str) -> Path | None:
    """Return the folder of a top-level package that has plugins, or its file if it is one module; None for others."""
    named = {plugin.module.split(".")[0] for group in KINDS for plugins in of(group).values() for plugin in plugins}
    spec = importlib.util.find_spec(package) if package in named else None
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or [])
    place = folders[0] if folders else spec.origin
    return Path(place) if place else None
