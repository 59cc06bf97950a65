"""Tables 2 to 4: a column per dataset and, of several, their average, a block per ratio."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from cpt.files.paths import Ratio
from cpt.report.layout import Layout, LongForm, can_differ
from cpt.report.shown import DIFFERS, Block, Column
from cpt.report.words import AVERAGE, SIGNIFICANCE_LEVEL, ratio_title
from cpt.results.cells import averaged_datasets, datasets_of, judged_by, tested_rows


class Datasets(Layout):
    """Methods by dataset, on the table's first task."""

    by_dataset = True

    def columns(self) -> list[Column]:
        """Return one per dataset, the source of a transfer marked, and that of the average if there are several."""
        task = self.exhibit["tasks"][0]
        averaged = averaged_datasets(self.exhibit, task)
        titles = {d: self.results.dataset_title(d) for d in datasets_of(self.exhibit, task)}
        columns = [Column(title + ("" if d in averaged else " (source)")) for d, title in titles.items()]
        return [*columns, Column(AVERAGE, average=True)] if len(averaged) > 1 else columns

    def blocks(self, numbers: LongForm, differs: Collection[tuple[Ratio, str]]) -> list[Block]:
        """Return one per ratio."""
        task = self.exhibit["tasks"][0]
        datasets, several = datasets_of(self.exhibit, task), len(averaged_datasets(self.exhibit, task)) > 1
        shown = [*datasets, *([AVERAGE] if several else [])]
        blocks = []
        for ratio in self.exhibit["ratios"]:
            stacked = [self.column(numbers, ratio, dataset, judged_by(task)) for dataset in shown]
            marks = [(ratio, row["id"]) in differs for row in self.exhibit["rows"]]
            if several:
                stacked[-1] = [replace(cell, differs=mark) for cell, mark in zip(stacked[-1], marks, strict=True)]
            blocks.append(Block(ratio_title(ratio), self.lines(stacked)))
        return blocks

    def average_note(self, task: str) -> str:
        """Return what an average is over, if there is one."""
        return super().average_note(task) if len(averaged_datasets(self.exhibit, task)) > 1 else ""

    def test_note(self) -> str:
        """Return what the mark says, or that it cannot appear."""
        exhibit = self.exhibit
        datasets, others = len(averaged_datasets(exhibit, exhibit["tasks"][0])), len(tested_rows(exhibit)) - 1
        if exhibit["reference"] is None or datasets < 2:
            return ""
        reference = next(row["label"] for row in exhibit["rows"] if row["id"] == exhibit["reference"])
        how = "flipping the signs of the datasets' differences, Holm's correction over the rows of a ratio"
        if can_differ(datasets, others):
            return f"{DIFFERS}: average differs from that of {reference}, p < {SIGNIFICANCE_LEVEL} ({how})."
        least = f"With {datasets} datasets the smallest possible p is above {SIGNIFICANCE_LEVEL} after the correction"
        return f"{least}: no row can be told from {reference} ({how})."
