"""Tables 6 and 7: a column per measure of ``cpt.metrics.reported``, a block per ratio."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from cpt.files.paths import Ratio
from cpt.metrics.reported import MEASURES
from cpt.report.layout import Cells, Key, Layout, LongForm
from cpt.report.shown import Block, Column, Shown
from cpt.report.words import AVERAGE, ratio_title
from cpt.results.cells import SeedValues, Summary, average, averaged_datasets, summarize

_PLAIN = {"macro_base": "base", "macro_new": "new"}
"""Measures of classes -> the same of images."""
ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}


class Measures(Layout):
    """Measures beyond accuracy, averaged over the datasets."""

    of_measures = True
    of_base_to_new = True
    undefined = ", or a measure that the method does not have"
    gaps = "It never counts as 0: a measure that lacks a run is missing."

    def numbers(self, ratio: Ratio, row: str, task: str, cells: Cells) -> dict[Key, Summary]:
        """Return the average of every measure."""
        averaged = [cells[dataset] for dataset in averaged_datasets(self.exhibit, task)]
        return {Key(ratio, row, AVERAGE, name): self._measured(averaged, name) for name in self.exhibit["measures"]}

    def _measured(self, cells: Sequence[Mapping[str, Any] | None], measure: str) -> Summary:
        """Return the mean over the datasets that have a measure: one without a class to mix up has no confusion."""
        parts: list[SeedValues] = []
        for cell in cells:
            values = self.results.measured(cell, measure) if cell else {}
            if values or not (cell and self.results.finished.issuperset(cell["runs"])):
                parts.append(values)
        return summarize(average(parts))

    def columns(self) -> list[Column]:
        """Return one per measure, with an arrow where one way is better."""
        chosen = [MEASURES[name].of(self.exhibit["tasks"][0]) for name in self._columns]
        return [Column(f"{measure.title}{ARROWS[measure.better]}") for measure in chosen]

    def blocks(self, numbers: LongForm, differs: Collection[tuple[Ratio, str]]) -> list[Block]:
        """Return one per ratio."""

        def column(ratio: Ratio, name: str) -> list[Shown]:
            measure = MEASURES[name]
            decimals = self.decimals if measure.unit == "percent" else self.decimals + 1
            return self.column(numbers, ratio, AVERAGE, name, better=measure.better, decimals=decimals)

        return [
            Block(ratio_title(ratio), self.lines([column(ratio, name) for name in self._columns]))
            for ratio in self.exhibit["ratios"]
        ]

    @cached_property
    def _columns(self) -> list[str]:
        """The measures without those that say nothing new: macro accuracy where it is the accuracy everywhere."""
        return [name for name in self.exhibit["measures"] if not self._repeats(name)]

    def _repeats(self, measure: str) -> bool:
        other = _PLAIN.get(measure)
        if other is None or other not in self.exhibit["measures"]:
            return False
        pairs = [
            (self.results.measured(cell, measure), self.results.measured(cell, other)) for cell in self.exhibit["cells"]
        ]
        return any(macro for macro, _ in pairs) and all(
            macro.keys() == plain.keys() and all(math.isclose(macro[seed], plain[seed]) for seed in macro)
            for macro, plain in pairs
        )

    def unit_note(self) -> str:
        """Return the unit, or where the measures are from."""
        units = {MEASURES[name].unit for name in self.exhibit["measures"]}
        if units == {"1"}:
            return "On the test images of the trained classes."
        return "Percent." if units == {"percent"} else "Accuracies, confusion and calibration errors in percent."

    def meaning_notes(self) -> list[str]:
        """Return what the columns mean."""
        sizes = list(self.results.grid["class_groups"].values())
        parts = "thirds" if len(set(sizes)) == 1 else f"parts ({':'.join(f'{size:g}' for size in sizes)})"
        found = dict.fromkeys(text for name in self._columns for text in MEASURES[name].meanings)
        meanings = [text.format(groups=parts) for text in found]
        task = self.exhibit["tasks"][0]
        same = [MEASURES[name].of(task) for name in self.exhibit["measures"] if name not in self._columns]
        why = "classes have equally many test images"
        equal = [f"{m.title} equals {'accuracy' if m.subset == 'all' else m.subset}: {why}" for m in same]
        return [f"{meaning[0].upper()}{meaning[1:]}." for meaning in [*meanings, *equal]]

    def average_note(self, task: str) -> str:
        """Return what an average is over."""
        count = len(averaged_datasets(self.exhibit, task))
        return "One dataset." if count == 1 else f"Means over {count} datasets, or those of them that have the measure."
