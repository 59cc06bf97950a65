"""What the layouts of tables share: their numbers, their columns of marked cells, and the notes below them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

from cpt.experiment import exhibits
from cpt.files.paths import NATURAL, Ratio
from cpt.methods.base.families import FAMILIES
from cpt.report.shown import Block, Column, Line, Mark, Shown
from cpt.report.words import AVERAGE, MISSING, SIGNIFICANCE_LEVEL
from cpt.results.cells import (
    TRANSFER_TASKS,
    Results,
    Summary,
    average,
    averaged_datasets,
    judged_by,
    summarize,
)

DECIMALS = 2
"""Digits after the point of percentages, where a table does not say."""
PARTIAL = (
    "Datasets differ in their seeds: averages, and tests of them, are over the seeds that all datasets of the row have."
)
CONTROLS = "Controls say what a number is worth; they are neither ranked nor tested."
NATURAL_NOTE = (
    "τ = natural: trained on all training images that the datasets have, tested on their own test images. Where these "
    "are not balanced, macro accuracy weighs all classes alike, as a balanced test set does."
)


class Key(NamedTuple):
    """Where a number stands: imbalance ratio, row id, dataset (or ``Avg``, or a task's name), metric."""

    ratio: Ratio
    row: str
    dataset: str
    metric: str


Better = Literal["higher", "lower"] | None
LongForm = Mapping[Key, Summary]
Cells = Mapping[str, Mapping[str, Any] | None]
"""Dataset -> cell of one ratio, row and task."""


@dataclass(frozen=True)
class Layout(exhibits.Layout):
    """How a table shows its numbers. A layout is one module of ``cpt.report.layouts``; it overrides what differs.

    Attributes:
        results: the grid with its metrics.
        exhibit: the table's declaration.
    """

    results: Results
    exhibit: Mapping[str, Any]

    by_dataset: ClassVar[bool] = False
    """Whether columns are datasets and their average, which is tested against that of the reference row."""
    corner: ClassVar[str] = "Method"
    """Heading of the rows' labels."""
    spread: ClassVar[Literal["±", "std"]] = "±"
    """What the notes call the standard deviation."""
    ranked_in: ClassVar[str] = "the column and ratio"
    """Among which numbers best and second are marked."""
    unranked: ClassVar[str] = ""
    """What the notes add about the marks of best and second."""
    undefined: ClassVar[str] = ""
    """What the notes add about missing numbers."""
    gaps: ClassVar[str] = (
        "It never counts as 0: an average that lacks a dataset is missing, and is neither ranked nor tested."
    )
    """The rule for averages of missing numbers."""

    # ---- what a layout defines ---------------------------------------------------------------------

    def numbers(self, ratio: Ratio, row: str, task: str, cells: Cells) -> dict[Key, Summary]:
        """Return the numbers of one ratio, row and task: of every dataset, and their average."""
        metrics = ["H", "base", "new"] if judged_by(task) == "H" else [judged_by(task)]
        found = {
            Key(ratio, row, dataset, metric): summarize(self.results.seeds(cell, metric))
            for dataset, cell in cells.items()
            for metric in metrics
        }
        return found | {Key(ratio, row, AVERAGE, metric): self.mean(task, cells, metric) for metric in metrics}

    def columns(self) -> list[Column]:
        """Return the headings."""
        raise NotImplementedError

    def blocks(self, numbers: LongForm, differs: Collection[tuple[Ratio, str]]) -> list[Block]:
        """Return the rows, in one block or in one per ratio.

        Args:
            numbers: those of all ratios, rows and tasks.
            differs: (ratio, row id) whose average differs significantly from that of the reference row.
        """
        raise NotImplementedError

    def average_name(self, task: str) -> str:
        """Return what stands for the dataset of an average."""
        return AVERAGE

    def unit_note(self) -> str:
        """Return the unit of the numbers."""
        return "Percent."

    def meaning_notes(self) -> list[str]:
        """Return what metrics mean."""
        judged = {judged_by(task) for task in self.exhibit["tasks"]}
        return ["H is the harmonic mean of base and new accuracy."] if "H" in judged else []

    def average_note(self, task: str) -> str:
        """Return what an average is over."""
        count = len(averaged_datasets(self.exhibit, task))
        left_out = "; the source is left out" if task in TRANSFER_TASKS else ""
        over = f"{count} dataset{'s' if count != 1 else ''} of the per-dataset {judged_by(task)}"
        return f"{self.average_name(task)}: mean over {over}{left_out}."

    def test_note(self) -> str:
        """Return what the mark of a significant difference says."""
        return ""

    # ---- what they use -----------------------------------------------------------------------------

    @property
    def decimals(self) -> int:
        """Digits after the point of percentages."""
        found: int = self.exhibit.get("decimals", DECIMALS)
        return found

    @property
    def shows_spread(self) -> bool:
        """Whether numbers show their ±."""
        found: bool = self.exhibit.get("spread", True)
        return found

    def mean(self, task: str, cells: Cells, metric: str) -> Summary:
        """Return the mean over the datasets that a task's average is over."""
        averaged = averaged_datasets(self.exhibit, task)
        return summarize(average([self.results.seeds(cells[dataset], metric) for dataset in averaged]))

    def lines(self, stacked: Sequence[Sequence[Shown]]) -> list[Line]:
        """Return the rows of a block from its columns."""
        headings = FAMILIES if self.exhibit.get("families") else {}
        return [
            Line(row["label"], row.get("note"), [column[i] for column in stacked], headings.get(row.get("family"), ""))
            for i, row in enumerate(self.exhibit["rows"])
        ]

    def column(
        self,
        numbers: LongForm,
        ratio: Ratio,
        dataset: str,
        metric: str,
        *,
        spread: bool = True,
        better: Better = "higher",
        decimals: int | None = None,
    ) -> list[Shown]:
        """Return one cell per row: the means, with ± where ``spread``, ranked by which way is ``better``.

        ``decimals``: default that of percentages.
        """
        decimals, spread = self.decimals if decimals is None else decimals, spread and self.shows_spread
        cells = [numbers[Key(ratio, row["id"], dataset, metric)] for row in self.exhibit["rows"]]
        means = marked([cell.mean for cell in cells], better, decimals, self.controls)
        return [
            replace(
                shown,
                spread=f"{cell.std:.{decimals}f}" if spread and cell.std is not None else None,
                cells=self._positions.get((ratio, row["id"], dataset), ()),
            )
            for shown, cell, row in zip(means, cells, self.exhibit["rows"], strict=True)
        ]

    @cached_property
    def controls(self) -> frozenset[int]:
        """Positions of the rows that are controls."""
        return frozenset(i for i, row in enumerate(self.exhibit["rows"]) if row.get("control"))

    @cached_property
    def _positions(self) -> dict[tuple[Ratio, str, str], tuple[int, ...]]:
        """(ratio, row id, dataset or name of an average) -> positions of the cells that make the number."""
        found: dict[tuple[Ratio, str, str], list[int]] = {}
        averaged = {task: set(averaged_datasets(self.exhibit, task)) for task in self.exhibit["tasks"]}
        for position, cell in enumerate(self.exhibit["cells"]):
            task, dataset = cell["task"], cell["dataset"]
            for name in [dataset, *([self.average_name(task)] if dataset in averaged[task] else [])]:
                found.setdefault((cell["ratio"], cell["row"], name), []).append(position)
        return {key: tuple(cells) for key, cells in found.items()}

    def notes(self, seed_counts: Collection[int], *, partial: bool = False) -> str:
        """Return what the numbers are: unit, seeds, ±, averages, marks, gaps, backbone.

        Args:
            seed_counts: numbers of seeds that occur among the numbers.
            partial: whether an average leaves out seeds that some of its datasets have.
        """
        counts = sorted(seed_counts)
        parts = [
            self.unit_note(),
            _seed_note(counts, self.spread if self.spread == "std" or self.shows_spread else None),
            *self.meaning_notes(),
            *(self.average_note(task) for task in self.exhibit["tasks"]),
            NATURAL_NOTE if NATURAL in self.exhibit["ratios"] else "",
            PARTIAL if partial else "",
            f"Bold: best mean of {self.ranked_in}, underlined: second, significant or not{self.unranked}.",
            self.test_note(),
            CONTROLS if self.controls else "",
            f"{MISSING}: no finished run{self.undefined}. {self.gaps}" if 0 in counts else "",
            f"Backbone: {self.results.grid['backbone']}.",
        ]
        return " ".join(filter(None, parts))


def can_differ(datasets: int, others: int) -> bool:
    """Whether the test of ``cpt.report.tables.significance`` can tell a row from the reference at all.

    Of the 2^n flips of n signs, the observed one and its opposite are always as extreme; Holm's method multiplies the
    smallest p by the number of the other rows.
    """
    return others * 2.0 ** (1 - datasets) < SIGNIFICANCE_LEVEL


def _seed_note(counts: Sequence[int], spread: Literal["±", "std"] | None) -> str:
    if not any(counts):
        return "No run has finished."
    repeated = [count for count in counts if count > 1]
    if not repeated:
        return "Single runs (one seed), so no standard deviation."
    seeds = f"{repeated[0]}–{repeated[-1]}" if len(repeated) > 1 else f"{repeated[0]}"
    if spread is None:
        return f"Mean over {seeds} seeds{', or a single run' if 1 in counts else ''}."
    alone = f" (without {spread}: a single run)" if 1 in counts else ""
    shown = spread if spread == "±" else f"{spread} is"
    return f"Mean over {seeds} seeds{alone}, {shown} the sample standard deviation over seeds."


def marked(
    values: Sequence[float | None], better: Better, decimals: int, controls: Collection[int] = ()
) -> list[Shown]:
    """Return numbers as a column shows them, best and second marked; those at the positions ``controls`` never are."""
    marks = rank([None if i in controls else value for i, value in enumerate(values)], better, decimals)
    return [
        Shown(MISSING if value is None else f"{value:.{decimals}f}", mark=mark, order=value)
        for value, mark in zip(values, marks, strict=True)
    ]


def rank(values: Sequence[float | None], better: Better = "higher", decimals: int = DECIMALS) -> list[Mark | None]:
    """Return which values are best and second, as shown: values that round to the same text are tied.

    Nothing is marked where fewer than two values exist, or where neither direction is better.
    """
    rounded = [None if value is None else round(value, decimals) for value in values]
    known = [value for value in rounded if value is not None]
    if len(known) < 2 or better is None:
        return [None] * len(values)
    order = sorted(set(known), reverse=better == "higher")
    marks: dict[float | None, Mark] = dict(zip(order, ("best", "second"), strict=False))
    return [marks.get(value) for value in rounded]
