"""Table 5: the average and its standard deviation in columns of their own, side by side for every ratio."""

from __future__ import annotations

from collections.abc import Collection

from cpt.report.layout import Key, Layout, LongForm, marked
from cpt.report.shown import Block, Column, Shown
from cpt.report.words import AVERAGE, ratio_title
from cpt.results.cells import averaged_datasets, judged_by


class Clusterings(Layout):
    """Clustering algorithms, on the table's first task."""

    corner = "Clustering"
    spread = "std"
    unranked = "; standard deviations are not ranked"

    def columns(self) -> list[Column]:
        """Return two per ratio."""
        titles = judged_by(self.exhibit["tasks"][0]), "std ↓"
        return [Column(title, ratio_title(ratio)) for ratio in self.exhibit["ratios"] for title in titles]

    def blocks(self, numbers: LongForm, differs: Collection[tuple[float, str]]) -> list[Block]:
        """Return one block."""
        metric = judged_by(self.exhibit["tasks"][0])
        stacked: list[list[Shown]] = []
        for ratio in self.exhibit["ratios"]:
            cells = [numbers[Key(ratio, row["id"], AVERAGE, metric)] for row in self.exhibit["rows"]]
            stacked += [
                self.column(numbers, ratio, AVERAGE, metric, spread=False),
                marked([cell.std for cell in cells], None, self.decimals),  # of few seeds: too uncertain to be ranked
            ]
        return [Block("", self.lines(stacked))]

    def average_note(self, task: str) -> str:
        """Return what an average is over."""
        return "One dataset." if len(averaged_datasets(self.exhibit, task)) == 1 else super().average_note(task)
