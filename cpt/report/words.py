"""Headings and notes that tables, figures and the page share."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cpt.report.results import TASKS, TRANSFER_TASKS, averaged_datasets, judged_by

MISSING = "–"
AVERAGE = "Avg"


def exhibit_label(name: str) -> str:
    """Return an exhibit's name for people: ``table2`` is ``Table 2``."""
    match = re.fullmatch(r"([a-z]+)(\d+)", name)
    return f"{match[1].capitalize()} {match[2]}" if match else name


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


def notes(exhibit: Mapping[str, Any], seed_counts: Collection[int], backbone: str) -> str:
    """Return what the numbers of a table are: unit, seeds, ±, averages, marks, gaps, backbone.

    ``seed_counts`` are the numbers of seeds that occur among the table's numbers.
    """
    counts = sorted(seed_counts)
    parts = ["Percent.", _seed_note(counts)]
    if any(judged_by(task) == "H" for task in exhibit["tasks"]):
        parts.append("H is the harmonic mean of base and new accuracy.")
    parts += [_average_note(exhibit, task) for task in exhibit["tasks"]]
    parts.append("Bold: best of the column and ratio; underlined: second.")
    if 0 in counts:
        parts.append(f"{MISSING}: no finished run.")
    parts.append(f"Backbone: {backbone}.")
    return " ".join(parts)


def _seed_note(counts: Sequence[int]) -> str:
    if not any(counts):
        return "No run has finished."
    repeated = [count for count in counts if count > 1]
    if not repeated:
        return "Single runs (one seed), so no standard deviation."
    seeds = f"{repeated[0]}–{repeated[-1]}" if len(repeated) > 1 else f"{repeated[0]}"
    alone = " (without ±: a single run)" if 1 in counts else ""
    return f"Mean over {seeds} seeds{alone}, ± the sample standard deviation over seeds."


def _average_note(exhibit: Mapping[str, Any], task: str) -> str:
    count = len(averaged_datasets(exhibit, task))
    what = f"the per-dataset {judged_by(task)}"
    where = f"{TASKS[task]}:" if exhibit["layout"] == "tasks" else f"{AVERAGE}:"
    if exhibit["layout"] == "clusterings" and count == 1:
        return "One dataset."
    left_out = "; the source is left out" if task in TRANSFER_TASKS else ""
    plural = "s" if count != 1 else ""
    return f"{where} mean over {count} dataset{plural} of {what}{left_out}."
