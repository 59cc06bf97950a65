"""A table ready to be shown: made by a layout (``cpt.report.layouts``), written by ``cpt.report.formats``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

DIFFERS = "†"
LONG_FORM = ("table", "imbalance_ratio", "method", "dataset", "metric", "value", "std", "n_seeds", "p_holm")
Mark = Literal["best", "second"]


@dataclass(frozen=True)
class Shown:
    """One cell: the number's text, the text of its standard deviation, its rank in the column, and what is behind it.

    ``order`` is the number by which a column is sorted, ``cells`` the positions of the exhibit's cells that make it,
    ``differs`` says that it differs significantly from the table's reference row, ``href`` is where it leads to.
    """

    text: str
    spread: str | None = None
    mark: Mark | None = None
    order: float | None = None
    cells: tuple[int, ...] = ()
    differs: bool = False
    href: str | None = None


@dataclass(frozen=True)
class Column:
    """One column's heading; neighbors of the same ``group`` share a heading above.

    ``text``: it holds words. ``plain``: no cell of it shows a ±, and it leaves no room for one.
    """

    title: str
    group: str = ""
    average: bool = False
    text: bool = False
    plain: bool = False


@dataclass(frozen=True)
class Line:
    """One row: its label, the note behind the label, and one cell per column.

    Neighbors of the same ``family`` share a heading above.
    """

    label: str
    note: str | None
    cells: Sequence[Shown]
    family: str = ""


@dataclass(frozen=True)
class Block:
    """Rows under one heading (empty: none)."""

    title: str
    lines: Sequence[Line]

    def families(self) -> list[tuple[str, list[Line]]]:
        """Return the rows under the heading of their family; it may be empty."""
        return [(family, list(lines)) for family, lines in groupby(self.lines, key=lambda line: line.family)]


@dataclass(frozen=True)
class Table:
    """A whole table of an experiment: ``label`` is ``Table 2``, ``notes`` say what the numbers are.

    ``long_form`` holds every number once, unrounded: one row per number, of the columns ``LONG_FORM``.
    """

    experiment: str
    name: str
    label: str
    title: str
    caption: str
    notes: str
    corner: str
    columns: Sequence[Column]
    blocks: Sequence[Block] = ()
    long_form: Sequence[Sequence[object]] = ()

    def groups(self) -> list[tuple[str, int]]:
        """Return the upper headings with the number of columns they span; empty when there are none."""
        spans = [(group, len(list(columns))) for group, columns in groupby(self.columns, key=lambda one: one.group)]
        return spans if any(group for group, _ in spans) else []

    def spreads(self) -> bool:
        """Return whether any cell shows a ±; then the others leave room for it, so that numbers align."""
        return any(cell.spread for block in self.blocks for line in block.lines for cell in line.cells)
