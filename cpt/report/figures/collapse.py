"""Figure 6: neural-collapse measures of text and image features over the epochs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from cpt.experiment.exhibits import Experiment, VariantsFigure
from cpt.experiment.sections import known_measures
from cpt.files.paths import CURVES as SCHEMA
from cpt.files.stage_files import read_parquet
from cpt.metrics.reported import CURVES
from cpt.report.drawing import style
from cpt.report.words import counted, ratio_title
from cpt.results.cells import Results, over_epochs, row_names, summarize
from cpt.validation import once

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HEADER = ("measure", "method", "imbalance_ratio", "epoch", "seed", "value")
_PANELS_PER_LINE = 3

Curves = Mapping[tuple[str, str], Mapping[int, float]]
"""(run, measure) -> value by epoch."""


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
    """Draw a panel per measure and a line per method and ratio: mean over datasets, then over seeds."""
    measures = exhibit["measures"]
    columns = min(len(measures), _PANELS_PER_LINE)
    lines = -(-len(measures) // columns)
    figure = style.new_figure(style.FULL_WIDTH, 1.9 * lines + 0.4)
    panels = figure.subplots(lines, columns, squeeze=False).flatten().tolist()
    curves = _read(results, set(measures))
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
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(len(handles), 4))
    datasets, seeds = len({cell["dataset"] for cell in exhibit["cells"]}), len({row[4] for row in rows})
    note = (
        "After every epoch, of the trained classes: text features, and image features of the epoch's batches. Means "
        f"over {counted(datasets, 'dataset')} and n = {counted(seeds, 'seed')}; bands: ± one sample standard deviation "
        "over seeds. Clusters are those that a method trains with: others have no curve there."
    )
    return style.Drawing(figure, HEADER, rows, note)


def _read(results: Results, measures: set[str]) -> Curves:
    import pyarrow.compute as pc

    table, _ = read_parquet(results.gathered / "curves.parquet", SCHEMA)
    table = table.filter(pc.field("measure").isin(sorted(measures)) & pc.is_finite(pc.field("value")))
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    columns = [table[name].to_pylist() for name in ("run", "measure", "epoch", "value")]
    for run, measure, epoch, value in zip(*columns, strict=True):
        found[run, measure][epoch] = value
    return found


def _draw_measure(
    axes: Axes, results: Results, exhibit: Mapping[str, Any], measure: str, curves: Curves
) -> list[tuple]:
    names, rows = row_names(exhibit["rows"]), []
    for index, (row, ratio) in enumerate((r, t) for r in exhibit["rows"] for t in exhibit["ratios"]):
        cells = [cell for cell in exhibit["cells"] if (cell["row"], cell["ratio"]) == (row["id"], ratio)]
        epochs = over_epochs(results, cells, lambda run, _: curves.get((run, measure), {}).items())
        if not epochs:
            continue
        label = names[row["id"]] + (f", {ratio_title(ratio)}" if len(exhibit["ratios"]) > 1 else "")
        style.draw_band(axes, list(epochs), [summarize(values) for values in epochs.values()], style.look(index), label)
        where = measure, names[row["id"]], f"{ratio:g}"
        rows += [(*where, epoch, seed, value) for epoch, values in epochs.items() for seed, value in values.items()]
    if not rows:
        style.empty_panel(axes)
    axes.set_xlabel("epoch")
    style.whole_numbers(axes)
    axes.grid(axis="y")
    return rows
