"""One look for every figure, and files with the same bytes for the same data.

Reading a configuration imports this module with the kinds of figures: matplotlib is imported by what draws.

Colors are Okabe and Ito's, which people with color-blindness can tell apart; every series has its own marker
and dash too, so that figures read in grey. A row of an experiment looks the same in all of its figures.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cpt.files.stage_files import atomic, write_text
from cpt.results.cells import Results, Summary, csv_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_WIDTH = 3.3
FULL_WIDTH = 6.9
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A6D00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1.5, 1, 1.5)))
_USUAL = {"cpt": 0, "ivlp": 1, "coop": 2, "npt": 3, "zeroshot": 6}
"""Looks of the rows that most experiments draw: the same in all of them."""
GREY = "#555555"
SEQUENTIAL = "viridis"

_RC = {
    "font.family": "DejaVu Sans",
    "text.parse_math": False,  # a $ in a label is a $
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "cpt",
    "pdf.fonttype": 42,
}
_NO_DATES = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


class Drawing(NamedTuple):
    """A figure, the data drawn in it (column names and rows), and what its marks are: n, error bars."""

    figure: Figure
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""


class Look(NamedTuple):
    """How one series is drawn."""

    color: str
    marker: str
    dash: object
    open: bool = False

    @property
    def face(self) -> str:
        """What fills its marks."""
        return "white" if self.open else self.color

    def again(self, step: int) -> Look:
        """Return the look of a further series of the same row (another ratio, another half): lighter, marks open."""
        from matplotlib.colors import to_hex, to_rgb

        share = 0.6**step
        red, green, blue = (share * part + 1 - share for part in to_rgb(self.color))
        return self._replace(color=to_hex((red, green, blue)), open=True) if step else self


def darker(color: str) -> tuple[float, ...]:
    """Return a color of the palette dark enough for small text."""
    from matplotlib.colors import to_rgb

    return tuple(0.6 * part for part in to_rgb(color))


@contextmanager
def house_style() -> Iterator[None]:
    """Draw in the package's style, whatever the user's matplotlib settings are."""
    import matplotlib.style

    with matplotlib.style.context(["default", _RC], after_reset=True):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of the given size in inches that makes room for its labels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def look(index: int) -> Look:
    """Return the ``index``-th look; looks differ in color, marker and dash, after eight in pairs of them."""
    turn, place = divmod(index, len(PALETTE))
    return Look(PALETTE[place], MARKERS[(place + turn) % len(MARKERS)], DASHES[(place + turn) % len(DASHES)])


def looks(results: Results) -> Mapping[str, Look]:
    """Return the look of every row of the experiment's figures, by row id."""
    exhibits: list[dict[str, Any]] = [e for e in results.grid["exhibits"].values() if e["kind"] != "table"]
    rows = dict.fromkeys(row["id"] for exhibit in exhibits for row in exhibit["rows"])
    free = (place for place in itertools.count() if place not in _USUAL.values())
    return {row: look(_USUAL[row] if row in _USUAL else next(free)) for row in rows}


def letters() -> Iterator[str]:
    """Names of panels: a to z, then aa, ab and so on."""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(ascii_lowercase, repeat=length))


def draw_band(axes: Axes, x: Sequence[float], summaries: Sequence[Summary], series: Look, label: str) -> None:
    """Draw the means as a line and ± one standard deviation as a band around it."""
    mean = np.array([summary.mean for summary in summaries])
    std = np.array([summary.std or 0.0 for summary in summaries])
    axes.plot(x, mean, color=series.color, marker=series.marker, linestyle=series.dash, label=label,
              markerfacecolor=series.face)  # fmt: skip
    axes.fill_between(x, mean - std, mean + std, color=series.color, alpha=0.18, linewidth=0)


def draw_level(axes: Axes, summary: Summary, series: Look, label: str) -> None:
    """Draw the mean of a method that has no x of its own as a dashed line across the panel."""
    assert summary.mean is not None
    axes.axhline(summary.mean, color=series.color, linestyle=(0, (4, 2)), linewidth=0.9, zorder=1, label=label)


def whole_numbers(axes: Axes) -> None:
    """Tick the x axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def empty_panel(axes: Axes) -> None:
    """Say in a panel without data that there is none."""
    axes.text(0.5, 0.5, "no finished run", ha="center", va="center", color=GREY, transform=axes.transAxes)


def save(drawing: Drawing, output: Path, name: str, caption: str) -> None:
    """Write ``<name>.svg``, ``.pdf``, ``.png``, the data as ``.csv`` and the caption as ``.txt`` into ``output``."""
    for suffix, metadata in _NO_DATES.items():
        with atomic(output / f"{name}.{suffix}") as temporary:
            drawing.figure.savefig(temporary, metadata=metadata)
    write_text(output / f"{name}.csv", csv_text(drawing.header, drawing.rows))
    write_text(output / f"{name}.txt", caption + "\n")
