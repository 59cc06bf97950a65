"""The sections of ``cpt.report.printed.audit`` as Markdown, HTML and tables in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from cpt.report.formats import templates
from cpt.report.printed.audit import Section


def shown(section: Section) -> list[list[str]]:
    """The section's cells as text, its heading first; quotients with four decimals, percentages with two."""
    four = {"mean", "std", "min", "max"} if section.name == "proportions" else set()

    def write(column: str) -> Callable[[object], str]:
        if section.rows[column].dtype == bool:
            return lambda value: "yes" if value else "no"
        if column == "τ":
            return lambda value: f"{value:g}"
        if column == "std of rounding":
            return lambda value: f"{value:.5f}"
        if column in ("difference", "gain", "average − zero-shot's"):
            return lambda value: f"{value:+.3f}" if section.name == "averages" else f"{value:+.2f}"
        if pd.api.types.is_float_dtype(section.rows[column]):
            digits = 4 if column in four else 3 if column == "mean of cells" else 1 if column == "std / rounding" else 2
            return lambda value: f"{value:.{digits}f}"
        return str

    columns = [section.rows[column].map(write(column)).tolist() for column in section.rows.columns]
    return [list(section.rows.columns), *(list(line) for line in zip(*columns, strict=True))]


def markdown(sections: Sequence[Section]) -> str:
    """All sections as Markdown."""
    parts = [
        "# Arithmetic on the printed tables",
        "Computed by `cpt audit` from published.csv and published_claims.yaml.",
    ]
    for section in sections:
        head, *body = shown(section)
        lines = [_line(head), _line(["---"] * len(head)), *map(_line, body)]
        parts += [f"## {section.title}", _sentence(section.arithmetic), "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _line(words: Sequence[str]) -> str:
    return "| " + " | ".join(word.replace("|", "\\|") for word in words) + " |"


def html(sections: Sequence[Section]) -> str:
    """All sections as a fragment of HTML."""
    return (
        templates()
        .get_template("templates/audit.html.j2")
        .render(sections=[(section, *_split(shown(section))) for section in sections])
    )


def print_section(section: Section, limit: int | None) -> None:
    """Print a section as a table in the terminal, at most ``limit`` rows of it."""
    from rich import box
    from rich.table import Table

    from cpt.report.terminal.console import console

    head, body = _split(shown(section))
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


def _split(lines: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    return lines[0], lines[1:]
