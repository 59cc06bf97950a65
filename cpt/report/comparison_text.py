"""The tables of ``cpt compare`` in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from rich import box
from rich.table import Table

from cpt.report.comparison import Images, Line, Runs
from cpt.report.results import TASKS
from cpt.stats import Interval

WIDTH = 120
"""Columns that a comparison needs; a narrower terminal wraps its lines."""


def over_datasets(lines: Sequence[Line], names: Sequence[str]) -> Table:
    """Return the table of differences paired by dataset and seed."""
    table = _table("task", "τ", "", *names, "difference", "95 % interval", "higher on", "p", "Holm")
    for line in lines:
        table.add_row(
            TASKS[line.task],
            f"{line.ratio:g}",
            line.metric,
            f"{line.first:.2f}",
            f"{line.second:.2f}",
            f"{line.difference.estimate:+.2f}",
            _bounds(line.difference, "+.2f"),
            f"{line.higher} of {line.datasets}",
            f"{line.p:.3f}",
            f"{line.corrected:.3f}",
        )
    return table


def over_runs(found: Sequence[Runs], names: Sequence[str]) -> Table:
    """Return the table of interquartile means and of the chance that the second side's run is better."""
    table = _table("task", "τ", "", *(f"middle of {name}" for name in names), f"{names[1]} beats {names[0]}")
    for line in found:
        middles = [f"{side.estimate:.2f} [{_bounds(side, '.2f')}]" for side in (line.first, line.second)]
        percent = Interval(*(100 * value for value in line.improvement))
        chance = f"{percent.estimate:.0f} % [{_bounds(percent, '.0f')}]"
        table.add_row(TASKS[line.task], f"{line.ratio:g}", line.metric, *middles, chance)
    return table


def over_images(found: Sequence[Images]) -> Table:
    """Return the table of differences image by image."""
    table = _table("task", "τ", "dataset", "", "images", "difference", "95 % interval over images")
    for line in found:
        shown = f"{line.difference.estimate:+.2f}", _bounds(line.difference, "+.2f")
        where = TASKS[line.task], f"{line.ratio:g}", line.dataset, line.metric
        table.add_row(*where, f"{line.images:,}", *shown)
    return table


def _table(*titles: str) -> Table:
    """An empty table; the task and titles of no words stand left."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    for title in titles:
        table.add_column(title, justify="left" if title in ("task", "", "dataset") else "right", no_wrap=True)
    return table


def _bounds(interval: Interval, form: str) -> str:
    return "–" if isnan(interval.low) else f"{interval.low:{form}} … {interval.high:{form}}"
