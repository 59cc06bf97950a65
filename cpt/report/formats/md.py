"""Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cpt.report.shown import DIFFERS, Shown, Table


def write(table: Table) -> str:
    """Return GitHub-flavored Markdown: one table per block, best bold, second underlined."""
    parts = [f"**{_escaped(table.label)}. {_escaped(table.title)}** {_escaped(table.caption)}"]
    titles = [" ".join(filter(None, (column.group, column.title))) for column in table.columns]
    for block in table.blocks:
        lines = [_row(map(_escaped, [table.corner, *titles])), "|:--|" + "--:|" * len(titles)]
        for family, own in block.families():
            lines += [_row([f"_{_escaped(family)}_", *[""] * len(titles)])] if family else []
            for line in own:
                note = f" _({_escaped(line.note)})_" if line.note else ""
                lines.append(_row([_escaped(line.label) + note, *map(_cell, line.cells)]))
        heading = f"**{_escaped(block.title)}**\n\n" if block.title else ""
        parts.append(heading + "\n".join(lines))
    parts.append(_escaped(table.notes))
    return "\n\n".join(parts) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#~&$])", r"\\\1", " ".join(text.split()))


def _cell(cell: Shown) -> str:
    text = {"best": f"**{cell.text}**", "second": f"<u>{cell.text}</u>", None: cell.text}[cell.mark]
    text += DIFFERS if cell.differs else ""
    return f"{text} <sub>±{cell.spread}</sub>" if cell.spread else text
