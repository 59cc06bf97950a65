"""Figure 4: the spread over seeds: a point per seed, and a violin per method where seeds are many."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from cpt.experiment.exhibits import VariantsFigure
from cpt.report.drawing import style
from cpt.report.words import ratio_title
from cpt.results.cells import Results, SeedValues, average, judged_by, row_names, summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADER = ("imbalance_ratio", "method", "statistic", "seed", "value")
FEWEST_SEEDS = 10
"""Fewer values than this have no shape that could be told: only points and the mean are shown."""
_LABELS_WIDTH = 40  # characters that fit below the axis at column width


class Violin(VariantsFigure):
    """Distribution over seeds (Figure 4)."""

    kind: Literal["violin"]


def draw(results: Results, exhibit: Mapping[str, Any]) -> style.Drawing:
    """Draw each seed's value (averaged over the datasets), the mean, and a violin where seeds suffice."""
    ratios = exhibit["ratios"]
    figure = style.new_figure(style.COLUMN_WIDTH if len(ratios) == 1 else style.FULL_WIDTH, 2.7)
    rows: list[tuple] = []
    for axes, ratio in zip(figure.subplots(1, len(ratios), squeeze=False, sharey=True)[0], ratios, strict=True):
        rows += _draw_ratio(axes, results, exhibit, ratio)
    figure.axes[0].set_ylabel(f"{judged_by(exhibit['cells'][0]['task'])} (%)")
    datasets = len({cell["dataset"] for cell in exhibit["cells"]})
    seeds = max((len(cell["runs"]) for cell in exhibit["cells"]), default=0)
    violins = f"; violins: kernel density estimates, from {FEWEST_SEEDS} seeds on" if seeds >= FEWEST_SEEDS else ""
    averaged = f", averaged over {datasets} datasets" if datasets > 1 else ""
    note = f"Points: seeds (n below each method){averaged}; bars: their means{violins}."
    return style.Drawing(figure, HEADER, rows, note)


def _draw_ratio(axes: Axes, results: Results, exhibit: Mapping[str, Any], ratio: float) -> list[tuple]:
    names, looks, rows, labels = row_names(exhibit["rows"]), style.looks(results), [], []
    for place, row in enumerate(exhibit["rows"]):
        cells = [c for c in exhibit["cells"] if c["row"] == row["id"] and c["ratio"] == ratio]
        values = average([results.seeds(cell) for cell in cells])
        labels.append(
            textwrap.fill(names[row["id"]], max(6, _LABELS_WIDTH // len(exhibit["rows"]))) + f"\nn = {len(values)}"
        )
        if values:
            _draw_values(axes, place, list(values.values()), looks[row["id"]])
            rows += _rows((f"{ratio:g}", names[row["id"]]), values)
    if not rows:
        style.empty_panel(axes)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.set_title(ratio_title(ratio))
    axes.grid(axis="y")
    return rows


def _draw_values(axes: Axes, place: int, values: list[float], look: style.Look) -> None:
    import seaborn as sns

    if len(values) >= FEWEST_SEEDS:
        x = [place] * len(values)
        sns.violinplot(
            x=x,
            y=values,
            ax=axes,
            color=look.color,
            inner=None,
            cut=0,
            alpha=0.3,
            linewidth=0.6,
            width=0.75,
            native_scale=True,
        )
    spread = [place + 0.05 * (i - (len(values) - 1) / 2) for i in range(len(values))]
    axes.scatter(spread, values, s=16, color=look.color, marker=look.marker, linewidth=0, zorder=3)
    axes.hlines(fmean(values), place - 0.27, place + 0.27, color="black", linewidth=1.1, zorder=4)


def _rows(where: tuple, values: SeedValues) -> list[tuple]:
    summary = summarize(values)
    rows = [(*where, "seed", seed, value) for seed, value in values.items()]
    return [*rows, (*where, "mean", None, summary.mean), (*where, "std", None, summary.std)]
