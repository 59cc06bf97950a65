"""A table ready to be shown, and its Markdown, LaTeX and HTML."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, groupby, pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import jinja2

DIFFERS = "†"
NARROW = 6
"""Columns that fit a column of a two-column page."""
Mark = Literal["best", "second"]


@dataclass(frozen=True)
class Shown:
    """One cell: the number's text, the text of its standard deviation, its rank in the column, and what is behind it.

    ``order`` is the number by which a column is sorted, ``cells`` the positions of the exhibit's cells that make it,
    ``differs`` says that it differs significantly from the table's reference row.
    """

    text: str
    spread: str | None = None
    mark: Mark | None = None
    order: float | None = None
    cells: tuple[int, ...] = ()
    differs: bool = False


@dataclass(frozen=True)
class Column:
    """One column's heading; neighbors of the same ``group`` share a heading above."""

    title: str
    group: str = ""
    average: bool = False


@dataclass(frozen=True)
class Line:
    """One row: its label, the note behind the label, and one cell per column."""

    label: str
    note: str | None
    cells: Sequence[Shown]


@dataclass(frozen=True)
class Block:
    """Rows under one heading (empty: none)."""

    title: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Table:
    """A whole table: ``label`` is ``Table 2``, ``notes`` say what the numbers are."""

    name: str
    label: str
    title: str
    caption: str
    notes: str
    corner: str
    columns: Sequence[Column]
    blocks: Sequence[Block] = ()

    def groups(self) -> list[tuple[str, int]]:
        """Return the upper headings with the number of columns they span; empty when there are none."""
        spans = [(group, len(list(columns))) for group, columns in groupby(self.columns, key=lambda one: one.group)]
        return spans if any(group for group, _ in spans) else []

    def spreads(self) -> bool:
        """Return whether any cell shows a ±; then the others leave room for it, so that numbers align."""
        return any(cell.spread for block in self.blocks for line in block.lines for cell in line.cells)


# ---- Markdown ----------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """Return GitHub-flavored Markdown: one table per block, best bold, second underlined."""
    parts = [f"**{_md(table.label)}. {_md(table.title)}** {_md(table.caption)}"]
    titles = [" ".join(filter(None, (column.group, column.title))) for column in table.columns]
    for block in table.blocks:
        lines = [_md_row(map(_md, [table.corner, *titles])), "|:--|" + "--:|" * len(titles)]
        for line in block.lines:
            note = f" _({_md(line.note)})_" if line.note else ""
            lines.append(_md_row([_md(line.label) + note, *map(_md_cell, line.cells)]))
        heading = f"**{_md(block.title)}**\n\n" if block.title else ""
        parts.append(heading + "\n".join(lines))
    parts.append(_md(table.notes))
    return "\n\n".join(parts) + "\n"


def _md_row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _md(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#~&$])", r"\\\1", " ".join(text.split()))


def _md_cell(cell: Shown) -> str:
    text = {"best": f"**{cell.text}**", "second": f"<u>{cell.text}</u>", None: cell.text}[cell.mark]
    text += DIFFERS if cell.differs else ""
    return f"{text} <sub>±{cell.spread}</sub>" if cell.spread else text


# ---- LaTeX -------------------------------------------------------------------------------------

_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "η": "eta", "θ": "theta", "κ": "kappa",
    "λ": "lambda", "μ": "mu", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "phi", "Δ": "Delta", "Σ": "Sigma",
}  # fmt: skip
_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # at a row's start it would be an argument of the \\ before it, and so would a star
    "]": "{]}",
    "*": "{*}",
    "|": r"\textbar{}",
    "–": "--",
    "—": "---",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    DIFFERS: r"$^\dagger$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "…": r"\ldots{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{letter: f"$\\{name}$" for letter, name in _GREEK.items()},
}


def latex(table: Table) -> str:
    """Return a floating ``table`` with a booktabs ``tabular``; needs ``\\usepackage{booktabs}`` only.

    One with many columns spans both columns of a page (``table*``).
    """
    width = len(table.columns)
    floating, gap_width = ("table", 3) if width <= NARROW else ("table*", 2)
    gap = "{\\tiny\\phantom{$\\pm$0.00}}" if table.spreads() else ""
    lines = [
        "% needs \\usepackage{booktabs}",
        f"\\begin{{{floating}}}[t]",
        "\\centering",
        f"\\caption{{{_tex(table.title)} {_tex(table.caption)} {_tex(table.notes)}}}",
        f"\\label{{tab:{table.name}}}",
        "\\scriptsize",
        f"\\setlength{{\\tabcolsep}}{{{gap_width}pt}}",
        f"\\begin{{tabular}}{{l{'r' * width}}}",
        "\\toprule",
    ]
    if groups := table.groups():
        ends = accumulate((span for _, span in groups), initial=1)
        lines.append(_tex_row(["", *(f"\\multicolumn{{{span}}}{{c}}{{{_tex(group)}}}" for group, span in groups)]))
        lines.append(" ".join(f"\\cmidrule(lr){{{end + 1}-{after}}}" for end, after in pairwise(ends)))
    lines.append(_tex_row([_tex(table.corner), *(_tex(column.title) for column in table.columns)]))
    for block in table.blocks:
        lines.append("\\midrule")
        if block.title:
            lines.append(_tex_row([f"\\multicolumn{{{width + 1}}}{{l}}{{{_tex(block.title)}}}"]))
        for line in block.lines:
            note = f" {{\\tiny({_tex(line.note)})}}" if line.note else ""
            lines.append(_tex_row([_tex(line.label) + note, *(_tex_cell(c, gap) for c in line.cells)]))
    lines += ["\\bottomrule", "\\end{tabular}", f"\\end{{{floating}}}"]
    return "\n".join(lines) + "\n"


def _tex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in " ".join(text.split()))


def _tex_cell(cell: Shown, gap: str) -> str:
    text = _tex(cell.text)
    text = {"best": f"\\textbf{{{text}}}", "second": f"\\underline{{{text}}}", None: text}[cell.mark]
    spread = f"{{\\tiny$\\pm${cell.spread}}}" if cell.spread else gap
    return text + spread + (f"\\rlap{{{_TEX[DIFFERS]}}}" if cell.differs else "")


# ---- HTML --------------------------------------------------------------------------------------


@cache
def templates() -> jinja2.Environment:
    """Return the package's templates, with every inserted text escaped."""
    import jinja2  # not above: reading a configuration imports this module (cpt.experiment.exhibits)

    return jinja2.Environment(
        loader=jinja2.PackageLoader("cpt.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def html(table: Table, *, linked: bool = False) -> str:
    """Return a ``<table class="results">`` fragment.

    ``linked``: every number leads to what is behind it, ``#open=<table>/<position of a cell>,...``.
    """
    return templates().get_template("templates/table.html.j2").render(table=table, linked=linked)


WRITERS: dict[str, Callable[[Table], str]] = {"md": markdown, "tex": latex, "html": html}
"""Texts of a table's files by suffix (``cpt.files.paths.TABLE``); ``csv`` is the long form of ``cpt.report.tables``."""
