"""Tables: their long form, and the layouts in which people read them.

Every table is first a long form, (ratio, row, dataset, metric) -> mean, std, number of seeds, that holds each
number once. The CSV is that long form; Markdown, LaTeX and HTML show a layout of it (``cpt.report.layouts``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from cpt.errors import CptError
from cpt.experiment import exhibits
from cpt.files.paths import Ratio, ratio_text
from cpt.files.stage_files import write_text
from cpt.report.layout import Key, Layout, LongForm
from cpt.report.shown import Table
from cpt.report.words import AVERAGE, SIGNIFICANCE_LEVEL, exhibit_label, sentence
from cpt.results import stats
from cpt.results.cells import (
    Results,
    SeedValues,
    Summary,
    averaged_datasets,
    datasets_of,
    judged_by,
    read_results,
    row_names,
    shared,
    tested_rows,
    uneven,
)


def make_table(grid: Path, runs: Path, name: str, output: Path) -> None:
    """Write ``<name>`` in every format (``cpt.report.formats``) into the folder ``output``.

    Raises:
        CptError: an input is missing or damaged, or the grid has no table of this name.
    """
    results = read_results(grid, runs)
    exhibit = results.exhibit(name)
    if exhibit["kind"] != "table":
        raise CptError(f"{grid}: {name!r} is a figure; make it with cpt figure")
    numbers = long_form(results, exhibit)
    table = laid_out(results, exhibit, numbers)
    for suffix in exhibits.table_suffixes():
        write_text(output / f"{name}.{suffix}", exhibits.table_format(suffix)(table))


def layout_of(exhibit: Mapping[str, Any]) -> type[Layout]:
    """Return the layout of a table."""
    found = exhibits.layout(exhibit["layout"])
    assert issubclass(found, Layout)
    return found


def by_dataset(exhibit: Mapping[str, Any]) -> bool:
    """Whether an exhibit is a table whose columns are datasets and their average."""
    return exhibit["kind"] == "table" and layout_of(exhibit).by_dataset


# ---- the numbers -------------------------------------------------------------------------------


def long_form(results: Results, exhibit: Mapping[str, Any]) -> dict[Key, Summary]:
    """Return every number of a table, in the order of the CSV; missing ones have ``n`` 0."""
    cells = {(c["ratio"], c["row"], c["task"], c["dataset"]): c for c in exhibit["cells"]}
    layout = layout_of(exhibit)(results, exhibit)
    numbers: dict[Key, Summary] = {}
    for ratio in exhibit["ratios"]:
        for row in exhibit["rows"]:
            for task in exhibit["tasks"]:
                own = {dataset: cells.get((ratio, row["id"], task, dataset)) for dataset in datasets_of(exhibit, task)}
                numbers |= layout.numbers(ratio, row["id"], task, own)
    return numbers


def significance(results: Results, exhibit: Mapping[str, Any]) -> dict[tuple[Ratio, str], float]:
    """Return (ratio, row id) -> p of the difference of its average from that of the table's reference row.

    Signs of the datasets' differences (means over the seeds that the average is over) are flipped, in all ways or
    10,000 drawn ones; p is corrected for the rows of a ratio by Holm's method. Only layouts by dataset have averages
    over enough datasets, and only rows with every dataset are compared; controls are not.
    """
    reference, task = exhibit["reference"], exhibit["tasks"][0]
    if not layout_of(exhibit).by_dataset or reference is None:
        return {}
    parts = _averaged_parts(results, exhibit, task)
    found: dict[tuple[Ratio, str], float] = {}
    for ratio in exhibit["ratios"]:
        rows = {row["id"]: parts[ratio, row["id"]] for row in tested_rows(exhibit)}
        known = {
            row: np.array([fmean(part[seed] for seed in seeds) for part in of_row])
            for row, of_row in rows.items()
            if (seeds := shared(of_row))
        }
        others = [row for row in known if row != reference]
        if reference not in known or not others:
            continue
        generator = np.random.default_rng(0)
        tested = [stats.sign_flip_test(known[row] - known[reference], generator) for row in others]
        found |= {(ratio, row): float(p) for row, p in zip(others, stats.holm(tested), strict=True)}
    return found


def _averaged_parts(
    results: Results, exhibit: Mapping[str, Any], task: str
) -> dict[tuple[Ratio, str], list[SeedValues]]:
    """Return (ratio, row id) -> values by seed of every dataset that the average is over."""
    cells = {(c["ratio"], c["row"], c["dataset"]): c for c in exhibit["cells"] if c["task"] == task}
    averaged = averaged_datasets(exhibit, task)
    return {
        (ratio, row["id"]): [results.seeds(cells.get((ratio, row["id"], dataset))) for dataset in averaged]
        for ratio in exhibit["ratios"]
        for row in exhibit["rows"]
    }


def _long_form_rows(
    exhibit: Mapping[str, Any], numbers: LongForm, p_values: Mapping[tuple[Ratio, str], float]
) -> list[tuple[object, ...]]:
    """Return the rows of ``LONG_FORM``; ``table`` is the table's number, ``method`` the row's label."""
    names = row_names(exhibit["rows"])
    number, judged = exhibit["name"].removeprefix("table"), judged_by(exhibit["tasks"][0])
    rows: list[tuple[object, ...]] = []
    for key, cell in numbers.items():
        p = p_values.get((key.ratio, key.row)) if (key.dataset, key.metric) == (AVERAGE, judged) else None
        where = number, ratio_text(key.ratio), names[key.row], key.dataset, key.metric
        rows.append((*where, cell.mean, cell.std, cell.n, p))
    return rows


# ---- the layouts -------------------------------------------------------------------------------


def laid_out(results: Results, exhibit: Mapping[str, Any], numbers: LongForm) -> Table:
    """Return the table as it is read: best and second of each column and ratio marked."""
    layout = layout_of(exhibit)(results, exhibit)
    seeds = {cell.n for cell in numbers.values()}
    p_values = significance(results, exhibit)
    partial = any(uneven(p) for task in exhibit["tasks"] for p in _averaged_parts(results, exhibit, task).values())
    return Table(
        experiment=results.grid["experiment"],
        name=exhibit["name"],
        label=exhibit_label(exhibit["name"]),
        title=sentence(exhibit["title"]),
        caption=sentence(exhibit["caption"]),
        notes=layout.notes(seeds, partial=partial),
        corner=layout.corner,
        columns=layout.columns(),
        blocks=layout.blocks(numbers, {row for row, p in p_values.items() if p < SIGNIFICANCE_LEVEL}),
        long_form=_long_form_rows(exhibit, numbers, p_values),
    )
