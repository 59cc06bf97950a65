"""Find methods: modules of ``cpt.methods``, and the entry points ``cpt.methods`` of other packages."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from cpt.errors import CptError, nearest
from cpt.files import plugins
from cpt.files.plugins import Plugin

if TYPE_CHECKING:
    from cpt.methods.base.hyperparameters import Hyperparameters
    from cpt.methods.base.method import Method


def built_in() -> tuple[str, ...]:
    """Return the names of this package's methods: the modules of ``cpt.methods``."""
    import cpt.methods

    return tuple(sorted(module.name for module in pkgutil.iter_modules(cpt.methods.__path__) if not module.ispkg))


@cache
def names() -> tuple[str, ...]:
    """Return the names of all methods."""
    return tuple(sorted({*built_in(), *plugins.of(plugins.METHODS)}))


def usable() -> tuple[str, ...]:
    """Return the names of the methods without those of other packages that cannot be loaded."""
    return tuple(name for name in names() if _is_usable(name))


def _is_usable(name: str) -> bool:
    try:
        if package(name) is not None:
            get(name)
    except CptError:
        return False
    return True


@cache
def package(name: str) -> Plugin | None:
    """Return the package that a method is from; None for this one.

    Raises:
        CptError: several have a method of this name.
    """
    return plugins.only(plugins.METHODS, name, plugins.OWN if name in built_in() else "")


def every_module() -> list[str]:
    """Return the modules that define methods, also those that cannot be loaded."""
    others = [plugin.module for found in plugins.of(plugins.METHODS).values() for plugin in found]
    return [*(f"cpt.methods.{name}" for name in built_in()), *others]


def check(name: str) -> str:
    """Return ``name`` if it is a method.

    Raises:
        CptError: it is not; suggests the nearest known name.
    """
    if name not in names():
        raise CptError(f"unknown method {name!r}; {nearest(name, names())}")
    return name


def modules(name: str, hyperparameters: Hyperparameters) -> tuple[str, ...]:
    """Return the modules that define a run's method: its own, and that of the run from which it starts."""
    from cpt.methods.base.hyperparameters import Starting

    start = hyperparameters.start if isinstance(hyperparameters, Starting) else None
    return tuple(_module(method) for method in (name, start) if method)


def _module(name: str) -> str:
    plugin = package(name)
    return plugin.module if plugin else f"cpt.methods.{name}"


def get(name: str) -> type[Method]:
    """Return the ``Method`` subclass that the module ``cpt.methods.<name>`` or another package defines.

    Raises:
        CptError: there is none, several packages have it, or it cannot be loaded.
    """
    if (plugin := package(check(name))) is not None:
        return _loaded(plugin)
    return _defined(name, importlib.import_module(f"cpt.methods.{name}"))


@cache
def _defined(name: str, module: ModuleType) -> type[Method]:
    from cpt.methods.base.method import Method

    found = [
        v
        for v in vars(module).values()
        if isinstance(v, type) and issubclass(v, Method) and v.__module__ == module.__name__
    ]
    if len(found) != 1 or found[0].name != name:
        raise CptError(f"cpt/methods/{name}.py must define exactly one Method, with name = {name!r}")
    return found[0]


def _loaded(plugin: Plugin) -> type[Method]:
    from cpt.methods.base.method import Method

    found = plugin.load()
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise plugin.broken(f"{plugin.point.value} is no subclass of cpt.methods.base.method.Method")
    if getattr(found, "name", None) != plugin.name:
        raise plugin.broken(f"its class must have name = {plugin.name!r}, as its entry point is called")
    plugin.use()
    return found


def continuable(name: str) -> bool:
    """Whether another run can start from a finished run of the method.

    It can if the method trains, classifies by its text features, the same way for every target, and does not start from
    a run itself.
    """
    from cpt.methods.base.hyperparameters import Starting

    kind = get(name)
    plain = kind.trains and not kind.own_classifier and not kind.depends_on_target
    return plain and not issubclass(kind.hyperparameters, Starting)
