"""HTML."""

from __future__ import annotations

from cpt.report.shown import Table
from cpt.report.templates import templates


def write(table: Table, *, linked: bool = False) -> str:
    """Return a ``<table class="results">`` fragment.

    ``linked``: every number leads to what is behind it, ``#open=<table>/<position of a cell>,...``.
    """
    return templates().get_template("templates/table.html.j2").render(table=table, linked=linked)
