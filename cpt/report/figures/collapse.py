"""Figure 6: neural-collapse measures of text and image features over the epochs."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from cpt.experiment.exhibits import Experiment, VariantsFigure
from cpt.experiment.sections import known_measures
from cpt.files.paths import CURVES as SCHEMA
from cpt.files.stage_files import read_parquet
from cpt.metrics.reported import CURVES, MEASURES
from cpt.report.drawing import style
from cpt.report.words import counted, ratio_title, sentence
from cpt.results.cells import Results, average, over_epochs, row_names, summarize
from cpt.validation import once

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADER = ("measure", "method", "imbalance_ratio", "epoch", "seed", "value")
_PANELS_PER_LINE = 3
_OF_TEXTS = ("etf_distance", "cluster_etf_distance", "collapse_degree", "effective_rank")
"""Measures that no image enters: a method without epochs has the same of them, whatever images it was tested on."""

Curves = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Run -> measure -> value by epoch; runs without epochs are missing."""


class Collapse(VariantsFigure):
    """Neural-collapse measures over the epochs (Figure 6)."""

    kind: Literal["collapse"]
    measures: Annotated[list[str], AfterValidator(once), AfterValidator(known_measures(CURVES))] = Field(
        min_length=1, description="panels: " + ", ".join(CURVES)
    )

    def further(self, experiment: Experiment) -> dict[str, Any]:
        """The panels."""
        return {"measures": self.measures}


def draw(results: Results, exhibit: Mapping[str, Any]) -> style.Drawing:
    """Draw a panel per measure and a line per method and ratio: mean over datasets, then over seeds.

    A method without epochs is a level line in the panels of texts alone; other measures of it are of other images.
    """
    measures = exhibit["measures"]
    columns = min(len(measures), _PANELS_PER_LINE)
    lines = -(-len(measures) // columns)
    figure = style.new_figure(style.FULL_WIDTH, 1.9 * lines + 0.4)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True).flatten().tolist()
    curves = _read(results, {run for cell in exhibit["cells"] for run in cell["runs"]})
    rows: list[tuple] = []
    for axes, measure, letter in zip(panels, measures, style.letters(), strict=False):
        rows += _draw_measure(axes, results, exhibit, measure, curves)
        axes.set_title(f"({letter}) {CURVES[measure]}")
    for axes in panels[len(measures) :]:
        axes.set_axis_off()
    handles = {
        text: handle
        for axes in panels
        for handle, text in zip(*axes.get_legend_handles_labels(), strict=True)
    }  # fmt: skip
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(len(handles), 5))
    return style.Drawing(figure, HEADER, rows, _note(exhibit, rows))


def _note(exhibit: Mapping[str, Any], rows: list[tuple]) -> str:
    datasets = len({cell["dataset"] for cell in exhibit["cells"]})
    seeds = len({row[4] for row in rows if row[3] is not None})
    explained = [MEASURES[name].meanings for name in exhibit["measures"] if name in MEASURES]
    meanings = dict.fromkeys(f"{text[0].upper()}{text[1:]}" for texts in explained for text in texts)
    level = "Dashed: methods that learn nothing, where no image enters." if any(row[3] is None for row in rows) else ""
    clusters = "Clusters are those that a method trains with: others have no curve there."
    parts = (
        "After every epoch, of the trained classes: text features, and image features of the epoch's batches.",
        f"Means over {counted(datasets, 'dataset')} and n = {counted(seeds, 'seed')}; bands: ± one sample standard "
        "deviation over seeds. Every panel has its own scale.",
        level,
        clusters if "cluster_etf_distance" in exhibit["measures"] else "",
        *map(sentence, meanings),
    )
    return " ".join(filter(None, parts))


def _read(results: Results, runs: set[str]) -> Curves:
    import pyarrow.compute as pc

    table, _ = read_parquet(results.folder / "curves.parquet", SCHEMA)
    table = table.filter(pc.field("run").isin(sorted(runs)) & pc.is_finite(pc.field("value")))
    found: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    columns = [table[name].to_pylist() for name in ("run", "measure", "epoch", "value")]
    for run, measure, epoch, value in zip(*columns, strict=True):
        found[run][measure][epoch] = value
    return found


def _draw_measure(
    axes: Axes, results: Results, exhibit: Mapping[str, Any], measure: str, curves: Curves
) -> list[tuple]:
    names, looks = row_names(exhibit["rows"]), style.looks(results)
    rows: list[tuple] = []
    for row, (step, ratio) in itertools.product(exhibit["rows"], enumerate(exhibit["ratios"])):
        cells = [cell for cell in exhibit["cells"] if (cell["row"], cell["ratio"]) == (row["id"], ratio)]
        look, where = looks[row["id"]].again(step), (measure, names[row["id"]], f"{ratio:g}")
        label = names[row["id"]] + (f", {ratio_title(ratio)}" if len(exhibit["ratios"]) > 1 else "")
        epochs = over_epochs(results, cells, lambda run, _: curves.get(run, {}).get(measure, {}).items())
        if epochs:
            style.draw_band(axes, list(epochs), [summarize(values) for values in epochs.values()], look, label)
            rows += [(*where, epoch, seed, value) for epoch, values in epochs.items() for seed, value in values.items()]
        elif measure in _OF_TEXTS and not any(run in curves for cell in cells for run in cell["runs"]):
            values = average([results.measured(cell, measure) for cell in cells])
            if values:
                style.draw_level(axes, summarize(values), look, label)
            rows.extend((*where, None, seed, value) for seed, value in values.items())
    if not rows:
        style.empty_panel(axes)
    axes.set_xlabel("epoch")
    axes.set_xlim(left=0)
    style.whole_numbers(axes)
    axes.grid(axis="y")
    return rows
