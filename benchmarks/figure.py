"""The figure of docs/performance.md, drawn from the measured file: where a step's time goes, and a roofline.

Run: python -m benchmarks.figure results/benchmarks/bench.parquet docs/performance.svg (and .png, any number of files)
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks import rows
from benchmarks.rows import Row
from benchmarks.steps import PARTS
from cpt.files.stage_files import atomic
from cpt.report.drawing.style import FULL_WIDTH, PALETTE, house_style, look, new_figure

COLORS = dict(zip(PARTS, (PALETTE[0], PALETTE[5], PALETTE[1], PALETTE[4], PALETTE[2], "#999999"), strict=True))
"""Text blue, images orange, forward darker than backward."""


def draw(measured: Sequence[Row]) -> Figure:
    """Draw both panels; lines that were not measured are left out."""
    figure = new_figure(FULL_WIDTH, 3.1)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _parts(left, [row for row in measured if row.name == "step"])
    _roofline(right, measured)
    return figure


def _parts(axes: Axes, steps: Sequence[Row]) -> None:
    """Stacked bars of a step's parts, naive above ours, as shares of the naive step."""
    counts = sorted({row.classes for row in steps if row.classes}, reverse=True)
    ticks, labels = [], []
    for i, count in enumerate(counts):
        by_part = {row.part: row for row in steps if row.classes == count}
        whole = by_part["whole"]
        assert whole.naive is not None
        for j, kind in enumerate(("naive", "ours")):
            y, start = 2.6 * i + j, 0.0
            for part in PARTS:
                share = getattr(by_part[part], kind) / whole.naive
                label = part if (i, j) == (0, 0) else None
                axes.barh(y, share, 0.8, start, color=COLORS[part], edgecolor="white", linewidth=0.4, label=label)
                start += share
            total = getattr(whole, kind)
            times = f" ({whole.ratio:.1f} times)" if kind == "ours" else ""
            axes.text(start + 0.015, y, f"{_seconds(total)}{times}", va="center", fontsize=6.5)
            ticks.append(y)
            labels.append(f"{kind}, K={count}")
    axes.set_yticks(ticks, labels)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
    axes.set_xlabel("% of the naive step")
    axes.set_title("a  Where a training step's time goes")
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.2), ncols=3, handlelength=1, columnspacing=1)


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _roofline(axes: Axes, measured: Sequence[Row]) -> None:
    """Operations per second over operations per byte, below what the machine does."""
    peak = next(row.ours for row in measured if row.name == "peak" and row.unit == "GFLOP/s" and row.device == "cpu")
    bandwidth = next(row.ours for row in measured if row.name == "peak" and row.unit == "GB/s")
    points = _points(measured)
    intensity = np.array([row.flops / row.bytes for _, row in points if row.flops and row.bytes])
    x = np.geomspace(min([peak / bandwidth, *intensity]) / 3, 3 * max([peak / bandwidth, *intensity]), 200)
    axes.loglog(x, np.minimum(peak, bandwidth * x), color="black", linewidth=1)
    axes.annotate(f"{peak:.0f} GFLOP/s", (x[-1], peak), (0, 3), textcoords="offset points", ha="right", fontsize=6.5)
    axes.annotate(
        f"{bandwidth:.1f} GB/s", (x[0], bandwidth * x[0]), (12, 2), textcoords="offset points", ha="left", fontsize=6.5
    )
    for i, ((label, row), at) in enumerate(zip(points, intensity, strict=True)):
        assert row.peak_fraction is not None
        series = look(i)
        share = f"{label} ({100 * row.peak_fraction:.0f} %)"
        axes.plot(at, row.peak_fraction * peak, series.marker, color=series.color, label=share, markersize=5)
    axes.set_xlabel("FLOP / byte (bytes: upper bound)")
    axes.set_ylabel("GFLOP/s")
    lowest = min([1.0, *(row.peak_fraction or 1.0 for _, row in points)]) * peak
    axes.set_ylim(min(lowest, bandwidth * x[0]) / 1.5, 2 * peak)
    axes.grid(color="#DDDDDD")
    axes.set_title("b  Roofline (% of the peak)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=2, handletextpad=0.2, columnspacing=1)


def _points(measured: Sequence[Row]) -> list[tuple[str, Row]]:
    """The rows that the roofline shows, by their labels."""
    chosen = []
    most = max((row.classes or 0 for row in measured if row.name == "step"), default=0)
    for row in measured:
        if row.name == "text":
            chosen.append((f"text path, K={row.classes}", row))
        elif row.name == "step" and row.part == "whole":
            chosen.append((f"step, K={row.classes}", row))
        elif row.name == "step" and row.classes == most and row.part.startswith("image"):
            chosen.append((row.part, row))
        elif row.name == "evaluation":
            chosen.append(("evaluation", row))
    return [(label, row) for label, row in chosen if row.flops and row.bytes and row.peak_fraction]


def main(words: Sequence[str]) -> None:
    """Draw the figure of a Parquet file into the given files."""
    source, *targets = map(Path, words)
    with house_style():
        figure = draw(rows.read(source))
        for target in targets:
            metadata = {"Date": None, "Creator": None} if target.suffix == ".svg" else {"Software": None}
            with atomic(target) as temporary:
                figure.savefig(temporary, metadata=metadata)


if __name__ == "__main__":
    main(sys.argv[1:])
