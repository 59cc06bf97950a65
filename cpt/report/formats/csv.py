"""CSV: the long form, with unrounded numbers."""

from __future__ import annotations

from cpt.report.shown import LONG_FORM, Table
from cpt.results.cells import csv_text


def write(table: Table) -> str:
    """Return every number of the table once, in a row of ``LONG_FORM``."""
    return csv_text(LONG_FORM, table.long_form)
