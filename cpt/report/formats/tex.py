"""LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from cpt.report.shown import DIFFERS, Shown, Table

NARROW = 240
"""Points that fit a column of a two-column page."""
_SCRIPT, _TINY, _GAP = 3.6, 3.0, 6.0  # points: a character of either size, and what lies between columns
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


def write(table: Table) -> str:
    """Return a floating ``table`` with a booktabs ``tabular``; needs ``\\usepackage{booktabs}`` only.

    A wide one spans both columns of a page (``table*``). The caption is short; what the numbers are stands in a note
    below. The label has the experiment's name, so that tables of several experiments fit in one document.
    """
    width = len(table.columns)
    floating, gap_width = ("table", 3) if _points(table) <= NARROW else ("table*", 2)
    gap = "{\\tiny\\phantom{$\\pm$0.00}}" if table.spreads() else ""
    lines = [
        "% needs \\usepackage{booktabs}",
        f"\\begin{{{floating}}}[t]",
        "\\centering",
        f"\\caption{{{_escaped(f'{table.title} {table.caption}')}}}",
        f"\\label{{tab:{table.experiment}-{table.name}}}",
        "\\scriptsize",
        f"\\setlength{{\\tabcolsep}}{{{gap_width}pt}}",
        f"\\begin{{tabular}}{{l{'r' * width}}}",
        "\\toprule",
    ]
    if groups := table.groups():
        ends = accumulate((span for _, span in groups), initial=1)
        lines.append(_row(["", *(f"\\multicolumn{{{span}}}{{c}}{{{_escaped(group)}}}" for group, span in groups)]))
        lines.append(" ".join(f"\\cmidrule(lr){{{end + 1}-{after}}}" for end, after in pairwise(ends)))
    lines.append(_row([_escaped(table.corner), *(_escaped(column.title) for column in table.columns)]))
    for block in table.blocks:
        lines.append("\\midrule")
        if block.title:
            lines.append(_row([_across(width + 1, _escaped(block.title))]))
        for family, own in block.families():
            lines += [_row([_across(width + 1, f"\\textit{{{_escaped(family)}}}")])] if family else []
            for line in own:
                note = f" {{\\tiny({_escaped(line.note)})}}" if line.note else ""
                lines.append(_row([_escaped(line.label) + note, *(_cell(c, gap) for c in line.cells)]))
    note = f"\\begin{{minipage}}{{\\linewidth}}\\footnotesize {_escaped(table.notes)}\\end{{minipage}}"
    lines += ["\\bottomrule", "\\end{tabular}", "\\par\\smallskip", note, f"\\end{{{floating}}}"]
    return "\n".join(lines) + "\n"


def _points(table: Table) -> float:
    """Return about how wide a table is, in points."""
    lines = [line for block in table.blocks for line in block.lines]
    wide = max((_SCRIPT * len(line.label) + _TINY * len(line.note or "") for line in lines), default=0.0)
    for place, column in enumerate(table.columns):
        cells = [line.cells[place] for line in lines]
        spread = _TINY * max((len(cell.spread or "") + 1 for cell in cells), default=0) if table.spreads() else 0.0
        number = _SCRIPT * max((len(cell.text) for cell in cells), default=0) + spread
        wide += _GAP + max(_SCRIPT * len(column.title), number)
    return wide


def _across(columns: int, text: str) -> str:
    return f"\\multicolumn{{{columns}}}{{l}}{{{text}}}"


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _escaped(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in " ".join(text.split()))


def _cell(cell: Shown, gap: str) -> str:
    text = _escaped(cell.text)
    text = {"best": f"\\textbf{{{text}}}", "second": f"\\underline{{{text}}}", None: text}[cell.mark]
    spread = f"{{\\tiny$\\pm${cell.spread}}}" if cell.spread else gap
    return text + spread + (f"\\rlap{{{_TEX[DIFFERS]}}}" if cell.differs else "")
