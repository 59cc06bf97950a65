"""Figures: each kind is a module of ``cpt.report.figures`` with ``draw(results, exhibit) -> Drawing``."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from cpt.errors import CptError
from cpt.experiment.exhibits import FIGURES
from cpt.report.drawing import style
from cpt.report.words import caption_begins, ratios_title, sentence
from cpt.results.cells import read_results


def make_figure(grid: Path, runs: Path, name: str, output: Path) -> None:
    """Write ``<name>.svg``, ``.pdf``, ``.png``, the data drawn as ``.csv`` and the caption as ``.txt`` into ``output``.

    Args:
        grid: grid.json.
        runs: runs.parquet; costs, counts and curves.parquet lie beside it.
        name: the figure.
        output: a folder.

    Raises:
        CptError: an input is missing or damaged, or the grid has no figure of this name.
    """
    results = read_results(grid, runs)
    exhibit = results.exhibit(name)
    if exhibit["kind"] == "table":
        raise CptError(f"{grid}: {name!r} is a table; make it with cpt table")
    kind = import_module(f"{FIGURES}.{exhibit['kind']}")
    with style.house_style():
        drawing = kind.draw(results, exhibit)
        shown = sentence(ratios_title(exhibit["ratios"]))
        parts = caption_begins(name, exhibit), shown, sentence(exhibit["caption"]), drawing.note
        style.save(drawing, output, name, " ".join(filter(None, parts)))
