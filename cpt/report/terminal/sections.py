"""Tables of text below titles, for a terminal or in Markdown: what ``cpt compare`` and ``cpt across`` share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan
from typing import NamedTuple

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from cpt.results.stats import Interval

_WORDS = ("metric", "dataset", "row")
"""Heads of columns that are aligned left."""
_LONG = ("dataset", "row")
"""Of these, those whose cells may be folded."""


class Section(NamedTuple):
    """A table of text below its title."""

    title: str
    heads: Sequence[str]
    rows: list[list[str]]


def drawn(section: Section) -> Group:
    """A table below its title, which rich would wrap to the table's width; names give way before numbers."""
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False, collapse_padding=True)
    for name in section.heads:
        folds = name in _LONG
        table.add_column(name, justify="left" if _is_words(name) else "right", no_wrap=not folds, overflow="fold")
    for row in section.rows:
        table.add_row(*row)
    return Group(Text(f"\n{section.title}\n", style="bold"), table)


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as GitHub-flavored Markdown."""
    align = ["---" if _is_words(head) else "--:" for head in heads]
    return "\n".join(f"| {' | '.join(map(_cell, cells))} |" for cells in (heads, align, *rows))


def bullets(lines: Iterable[str]) -> str:
    """Return lines as a list in Markdown."""
    return "\n".join(f"- {line}" for line in lines)


def bounds(interval: Interval, form: str) -> str:
    """Return the bounds of an interval, a dash where it has none."""
    return "–" if isnan(interval.low) else f"{interval.low:{form}} … {interval.high:{form}}"


def _is_words(head: str) -> bool:
    return head in _WORDS


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
