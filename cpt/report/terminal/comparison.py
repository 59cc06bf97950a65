"""The tables of ``cpt compare`` in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from math import isnan
from typing import TypeVar

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cpt.results.cells import TASKS
from cpt.results.comparison import Images, Line, Runs
from cpt.results.stats import Interval

Compared = TypeVar("Compared", Line, Runs, Images)

WIDTH = 80
"""Columns in which every table fits whose datasets have short names; long names are folded, numbers never cut."""


def over_datasets(lines: Sequence[Line]) -> Iterator[Group]:
    """Return a table per task of the differences paired by dataset and seed."""
    for task, of_task in _by_task(lines):
        table = _table("τ", "metric", "A", "B", "B - A", "95 % interval", "B higher", "p", "Holm")
        for line in of_task:
            means = f"{line.first:.2f}", f"{line.second:.2f}", f"{line.difference.estimate:+.2f}"
            tested = f"{line.higher} of {line.datasets}", f"{line.p:.3f}", f"{line.corrected:.3f}"
            table.add_row(f"{line.ratio:g}", line.metric, *means, _bounds(line.difference, "+.2f"), *tested)
        yield _titled(f"{task}, mean over datasets, paired by dataset and seed", table)


def over_runs(found: Sequence[Runs]) -> Iterator[Group]:
    """Return a table per task of interquartile means, and of the chance that a run of B is better than one of A."""
    for task, of_task in _by_task(found):
        table = _table("τ", "metric", "A", "B", "B beats A")
        for line in of_task:
            means = [f"{side.estimate:.2f} [{_bounds(side, '.2f')}]" for side in (line.first, line.second)]
            percent = Interval(*(100 * value for value in line.improvement))
            chance = f"{percent.estimate:.0f} % [{_bounds(percent, '.0f')}]"
            table.add_row(f"{line.ratio:g}", line.metric, *means, chance)
        yield _titled(f"{task}, interquartile mean over all runs", table)


def over_images(found: Sequence[Images]) -> Iterator[Group]:
    """Return a table per task of the differences image by image."""
    for task, of_task in _by_task(found):
        table = _table("τ", "dataset", "metric", "images", "B - A", "95 % interval")
        for line in of_task:
            numbers = f"{line.images:,}", f"{line.difference.estimate:+.2f}", _bounds(line.difference, "+.2f")
            table.add_row(f"{line.ratio:g}", line.dataset, line.metric, *numbers)
        yield _titled(f"{task}, image by image: intervals over test images", table)


def _by_task(lines: Iterable[Compared]) -> Iterator[tuple[str, Iterator[Compared]]]:
    """Title of a task and its lines, which stand together."""
    for task, of_task in groupby(lines, key=lambda line: line.task):
        yield TASKS[task], of_task


def _titled(title: str, table: Table) -> Group:
    """A table below its title, which rich would wrap to the table's width."""
    return Group(Text(f"\n{title}\n", style="bold"), table)


def _table(*columns: str) -> Table:
    """An empty table; words stand left, and names of datasets give way before numbers."""
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in columns:
        words = name in ("metric", "dataset")
        folds = name == "dataset"
        table.add_column(name, justify="left" if words else "right", no_wrap=not folds, overflow="fold")
    return table


def _bounds(interval: Interval, form: str) -> str:
    return "–" if isnan(interval.low) else f"{interval.low:{form}} … {interval.high:{form}}"
