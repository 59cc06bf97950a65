"""Figures 1-5: each kind of figure is a module with ``draw(results, exhibit) -> Drawing``."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from cpt.errors import CptError
from cpt.report import style
from cpt.report.results import read_results

KINDS = ("similarity", "method", "sweep", "violin")


def make_figure(grid: Path, runs: Path, name: str, output: Path) -> None:
    """Write ``<name>.svg``, ``.pdf``, ``.png`` and the data drawn as ``.csv`` into the folder ``output``.

    Raises:
        CptError: an input is missing or damaged, or the grid has no figure of this name.
    """
    results = read_results(grid, runs)
    exhibit = results.exhibit(name)
    if exhibit["kind"] not in KINDS:
        raise CptError(f"grid.json: {name!r} is a table; make it with cpt table")
    kind = import_module(f"cpt.report.{exhibit['kind']}")
    with style.house_style():
        style.save(kind.draw(results, exhibit), output, name)
