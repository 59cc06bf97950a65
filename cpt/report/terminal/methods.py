"""What ``cpt methods`` lists."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from cpt.errors import CptError
from cpt.methods.base import describe, registry


def listing() -> Table:
    """Return a line per method; one of another package says so, or why it cannot be used."""
    table = Table("name", "title", "what it does", "learns", "source", box=None)
    for name in registry.names():
        try:
            row = _listed(name)
        except CptError as error:
            row = ["", str(error), "", ""]
        table.add_row(name, *row)
    return table


def _listed(name: str) -> list[str]:
    package = registry.package(name)
    try:
        facts, learned = describe.facts(name), describe.learned_values(name, "base_to_new")
    except Exception as error:
        if package is None or isinstance(error, CptError):
            raise
        raise package.broken(f"{type(error).__name__}: {error}") from error
    mark = " (reconstruction)" if facts["reconstruction"] else ""
    source = f"{facts['source']}; {package}" if package else facts["source"]
    return [facts["title"] + mark, facts["summary"], f"{learned:,}", source]


def hyperparameters(name: str) -> list[Any]:
    """Return what a method is, and a table of its hyperparameters.

    Raises:
        CptError: there is no such method.
    """
    facts, package = describe.facts(registry.check(name)), registry.package(name)
    table = Table("hyperparameter", "default", "meaning", "source of the default", box=None)
    for field, about in facts["hyperparameters"].items():
        table.add_row(field, str(about["default"]), about["description"], about["source"])
    source = f"source: {facts['source']}" + (f"; {package}" if package else "")
    return [f"{facts['title']}: {facts['summary']}", source, "", table]
