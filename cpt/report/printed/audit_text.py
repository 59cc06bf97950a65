"""The sections of ``cpt.report.printed.audit`` as Markdown, HTML and tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cpt.report.printed.audit import Section
from cpt.report.templates import templates


def shown(section: Section) -> tuple[list[str], list[list[str]]]:
    """The section's heading, and its cells as text."""
    columns = []
    for name, column in section.rows.items():
        if column.dtype == bool:
            columns.append(column.map({True: "yes", False: "no"}))
        elif pd.api.types.is_float_dtype(column):
            columns.append(column.map(f"{{:{_form(section.name, str(name))}}}".format))
        else:
            columns.append(column.astype(str))
    return list(section.rows.columns), [list(line) for line in zip(*columns, strict=True)]


def _form(section: str, column: str) -> str:
    """Format of a column of numbers: quotients have four decimals, percentages two."""
    own = {"τ": "g", "std of rounding": ".5f", "mean of cells": ".3f", "std / rounding": ".1f"}
    if column in ("difference", "gain", "average − zero-shot's"):
        return "+.3f" if section == "averages" else "+.2f"
    if section == "proportions" and column in ("mean", "std", "min", "max"):
        return ".4f"
    return own.get(column, ".2f")


def markdown(sections: Sequence[Section]) -> str:
    """All sections as Markdown."""
    parts = [
        "# Arithmetic on the printed tables",
        "Computed by `cpt audit` from published.csv and published_claims.yaml.",
    ]
    for section in sections:
        head, body = shown(section)
        lines = [_line(head), _line(["---"] * len(head)), *map(_line, body)]
        parts += [f"## {section.title}", _sentence(section.arithmetic), "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _line(words: Sequence[str]) -> str:
    return "| " + " | ".join(word.replace("|", "\\|") for word in words) + " |"


def html(sections: Sequence[Section]) -> str:
    """All sections as a fragment of HTML."""
    template = templates().get_template("templates/audit.html.j2")
    return template.render(sections=[(section, *shown(section)) for section in sections])


def print_section(section: Section, limit: int | None) -> None:
    """Print a section as a table in the terminal, at most ``limit`` rows of it."""
    from rich import box
    from rich.table import Table

    from cpt.report.terminal.console import console

    head, body = shown(section)
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column, words in zip(head, zip(*body, strict=True), strict=False):
        numeric = all(word[:1] in "+-−0123456789" for word in words)
        table.add_column(column, justify="right" if numeric else "left")
    for line in body[:limit]:
        table.add_row(*line)
    printer = console()
    printer.print(_sentence(section.arithmetic), style="dim")
    printer.print(table)
    if limit is not None and len(body) > limit:
        printer.print(f"... {len(body) - limit} more rows; --all prints them", style="dim")
