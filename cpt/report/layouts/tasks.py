"""Table 1: a column per task, averages over its datasets."""

from __future__ import annotations

from collections.abc import Collection

from cpt.files.paths import Ratio
from cpt.report.layout import Cells, Key, Layout, LongForm
from cpt.report.shown import Block, Column
from cpt.report.words import ratio_title, task_title
from cpt.results.cells import TASKS, Summary, judged_by


class Tasks(Layout):
    """Components of a method by task; the ratios stand side by side."""

    corner = "Components"

    def numbers(self, ratio: Ratio, row: str, task: str, cells: Cells) -> dict[Key, Summary]:
        """Return the average over the datasets."""
        judged = judged_by(task)
        return {Key(ratio, row, self.average_name(task), judged): self.mean(task, cells, judged)}

    def columns(self) -> list[Column]:
        """Return one per ratio and task."""
        exhibit = self.exhibit
        return [
            Column(task_title(task), ratio_title(ratio)) for ratio in exhibit["ratios"] for task in exhibit["tasks"]
        ]

    def blocks(self, numbers: LongForm, differs: Collection[tuple[Ratio, str]]) -> list[Block]:
        """Return one block."""
        places = [(ratio, task) for ratio in self.exhibit["ratios"] for task in self.exhibit["tasks"]]
        stacked = [self.column(numbers, ratio, self.average_name(task), judged_by(task)) for ratio, task in places]
        return [Block("", self.lines(stacked))]

    def average_name(self, task: str) -> str:
        """Return the task's name."""
        return TASKS[task]
