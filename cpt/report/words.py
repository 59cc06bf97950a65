"""Headings and notes that tables, figures and the page share."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from cpt.metrics.measures import MEANINGS, MEASURES
from cpt.report.formats import DIFFERS
from cpt.results.cells import TASKS, TRANSFER_TASKS, averaged_datasets, judged_by

MISSING = "–"
AVERAGE = "Avg"
LEVEL = 0.05
"""Of the significance marks."""
PARTIAL = (
    "Datasets differ in their seeds: averages, and tests of them, are over the seeds that all datasets of the row have."
)


def exhibit_label(name: str) -> str:
    """Return an exhibit's name for people: ``table2`` is ``Table 2``."""
    match = re.fullmatch(r"([a-z]+)(\d+)", name)
    return f"{match[1].capitalize()} {match[2]}" if match else name


def caption_begins(name: str, exhibit: Mapping[str, Any]) -> str:
    """Return what a figure's caption begins with: ``Figure 6. Its title.``"""
    return f"{exhibit_label(name)}. {sentence(exhibit['title'])}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 seed``, ``2 seeds``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def ratio_title(ratio: float) -> str:
    """Return a ratio for headings: ``τ = 0.06``."""
    return f"τ = {ratio:g}"


def task_title(task: str) -> str:
    """Return a task for column headings, with the metric where it is not the accuracy."""
    return TASKS[task] + (" H" if judged_by(task) == "H" else "")


def sentence(text: str) -> str:
    """Return a text of one line that ends in a full stop."""
    text = " ".join(text.split())
    return text if not text or text.endswith((".", "!", "?")) else f"{text}."


def notes(
    exhibit: Mapping[str, Any],
    seed_counts: Collection[int],
    backbone: str,
    *,
    groups: Mapping[str, float],
    partial: bool = False,
) -> str:
    """Return what the numbers of a table are: unit, seeds, ±, averages, marks, gaps, backbone.

    Args:
        exhibit: the table's declaration.
        seed_counts: numbers of seeds that occur among the table's numbers.
        backbone: its name.
        groups: sizes of head, medium and tail relative to each other.
        partial: whether an average leaves out seeds that some of its datasets have.
    """
    counts, layout = sorted(seed_counts), exhibit["layout"]
    own_column = layout == "clusterings"  # for the standard deviation
    parts = [_unit_note(exhibit), _seed_note(counts, "std" if own_column else "±")]
    if layout == "measures":
        parts += [f"{meaning[0].upper()}{meaning[1:]}." for meaning in _meanings(exhibit["measures"], groups)]
    elif any(judged_by(task) == "H" for task in exhibit["tasks"]):
        parts.append("H is the harmonic mean of base and new accuracy.")
    parts += [_average_note(exhibit, task) for task in exhibit["tasks"]]
    if partial:
        parts.append(PARTIAL)
    unmarked = "; standard deviations are not ranked" if own_column else ""
    parts.append(f"Bold: best of the column and ratio; underlined: second{unmarked}.")
    if layout == "datasets":
        parts.append(_significance_note(exhibit))
    if 0 in counts:
        undefined = ", or a measure that the method does not have" if layout == "measures" else ""
        parts.append(f"{MISSING}: no finished run{undefined}.")
    parts.append(f"Backbone: {backbone}.")
    return " ".join(filter(None, parts))


def _unit_note(exhibit: Mapping[str, Any]) -> str:
    units = {MEASURES[name].unit for name in exhibit["measures"]} if exhibit["layout"] == "measures" else {"percent"}
    if units == {"1"}:
        return "On the test images of the trained classes."
    return "Percent." if units == {"percent"} else "Accuracies, confusion and calibration errors in percent."


def _meanings(measures: Sequence[str], groups: Mapping[str, float]) -> list[str]:
    """What the columns of a table of measures mean."""
    sizes = list(groups.values())
    parts = "thirds" if len(set(sizes)) == 1 else f"parts ({':'.join(f'{size:g}' for size in sizes)})"
    found = dict.fromkeys(text for name in measures for text in MEANINGS.get(name, ()))
    return [text.format(groups=parts) for text in found]


def _significance_note(exhibit: Mapping[str, Any]) -> str:
    """What the mark says, and whether it can appear at all: of n signs, 2 of 2^n flips are as extreme."""
    datasets, others = len(averaged_datasets(exhibit, exhibit["tasks"][0])), len(exhibit["rows"]) - 1
    if exhibit["reference"] is None or datasets < 2:
        return ""
    best = next(row["label"] for row in exhibit["rows"] if row["id"] == exhibit["reference"])
    how = "flipping the signs of the datasets' differences, Holm's correction over the rows of a ratio"
    if others * 2 ** (1 - datasets) < LEVEL:
        return f"{DIFFERS}: average differs from that of {best}, p < {LEVEL} ({how})."
    return f"{datasets} datasets are too few to tell {counted(others, 'row')} from {best} ({how})."


def _seed_note(counts: Sequence[int], spread: Literal["±", "std"]) -> str:
    if not any(counts):
        return "No run has finished."
    repeated = [count for count in counts if count > 1]
    if not repeated:
        return "Single runs (one seed), so no standard deviation."
    seeds = f"{repeated[0]}–{repeated[-1]}" if len(repeated) > 1 else f"{repeated[0]}"
    alone = f" (without {spread}: a single run)" if 1 in counts else ""
    shown = spread if spread == "±" else f"{spread} is"
    return f"Mean over {seeds} seeds{alone}, {shown} the sample standard deviation over seeds."


def _average_note(exhibit: Mapping[str, Any], task: str) -> str:
    count = len(averaged_datasets(exhibit, task))
    what = f"the per-dataset {judged_by(task)}"
    where = f"{TASKS[task]}:" if exhibit["layout"] == "tasks" else f"{AVERAGE}:"
    if exhibit["layout"] == "clusterings" and count == 1:
        return "One dataset."
    if exhibit["layout"] == "measures":
        return "One dataset." if count == 1 else f"Means over {count} datasets, or those of them that have the measure."
    left_out = "; the source is left out" if task in TRANSFER_TASKS else ""
    plural = "s" if count != 1 else ""
    return f"{where} mean over {count} dataset{plural} of {what}{left_out}."
