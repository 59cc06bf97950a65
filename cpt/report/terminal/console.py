"""Printing of tables: fitted to a terminal, whole in a file."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

_WIDE = 1000
"""Columns of a file or a pipe: nothing is cut, no path is broken."""


def console(least: int = 0) -> Console:
    """Return a console for standard output that takes names as they are; it has at least so many columns."""
    found = Console()
    width = max(found.width, least) if found.is_terminal else _WIDE
    return Console(width=width, markup=False, emoji=False, highlight=False)


def table(*heads: str, **style: Any) -> Table:
    """Return an empty table; a head that begins with > is that of a right-aligned column."""
    found = Table(**style)
    for head in heads:
        found.add_column(head.removeprefix(">"), justify="right" if head.startswith(">") else "left", no_wrap=True)
    return found
