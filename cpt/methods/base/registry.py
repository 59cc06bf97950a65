"""Find methods by module name: a new method needs only a new module in ``cpt.methods``."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

from cpt.errors import CptError, nearest

if TYPE_CHECKING:
    from cpt.methods.base.hyperparameters import Hyperparameters
    from cpt.methods.base.method import Method


@cache
def names() -> tuple[str, ...]:
    """Return the names of all methods: the modules of ``cpt.methods``."""
    import cpt.methods

    return tuple(sorted(module.name for module in pkgutil.iter_modules(cpt.methods.__path__) if not module.ispkg))


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
    return tuple(f"cpt.methods.{method}" for method in (name, start) if method)


def get(name: str) -> type[Method]:
    """Return the ``Method`` subclass that the module ``cpt.methods.<name>`` defines."""
    from cpt.methods.base.method import Method

    module = importlib.import_module(f"cpt.methods.{check(name)}")
    found = [
        v
        for v in vars(module).values()
        if isinstance(v, type) and issubclass(v, Method) and v.__module__ == module.__name__
    ]
    if len(found) != 1 or found[0].name != name:
        raise CptError(f"cpt/methods/{name}.py must define exactly one Method, with name = {name!r}")
    return found[0]


def continuable(name: str) -> bool:
    """Whether another run can start from a finished run of the method.

    It can if the method trains, classifies by its text features, the same way for every target, and does not start from
    a run itself.
    """
    from cpt.methods.base.hyperparameters import Starting

    kind = get(name)
    plain = kind.trains and not kind.own_classifier and not kind.depends_on_target
    return plain and not issubclass(kind.hyperparameters, Starting)
