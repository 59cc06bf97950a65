"""What ``cpt across`` writes: tables for a terminal or in Markdown, and the unrounded numbers as CSV or JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isnan
from typing import Any

from rich.console import Group

from cpt.files.paths import ratio_text
from cpt.files.stage_files import json_text
from cpt.report.terminal.sections import Section, bounds, bullets, drawn, markdown_table
from cpt.report.words import SIGNIFICANCE_LEVEL, counted, p_text
from cpt.results.cells import TASKS, csv_text
from cpt.results.over_models import Across, Line, Place

SCHEMA = "cpt.across/1"
WIDTH = 100
"""Columns in which every table fits; long names of rows are folded, numbers never cut."""

COLUMNS = (
    "task", "metric", "imbalance_ratio", "row", "label", "mean", "reference_mean", "difference", "difference_low",
    "difference_high", "higher", "datasets", "p", "p_holm", "lowest_model", "highest_model", "models_agree", "models",
)  # fmt: skip
"""Columns of the unrounded numbers (docs/files.md)."""


def sections(found: Across) -> Iterator[Section]:
    """Return a table per task, τ and metric."""
    for place, lines in found.lines.items():
        heads = ["row", "mean", f"- {found.reference}", "95 % interval", "higher on", "p", "Holm", "models", "agree"]
        own = [found.reference, f"{lines[0].reference:.2f}", *["–"] * 7] if lines else []
        yield Section(_title(found, place), heads, [own, *map(_cells, lines)] if lines else [])


def legend(found: Across) -> list[str]:
    """Return which models are compared on what."""
    lines = []
    for number, datasets in enumerate(found.worlds, 1):
        own = [model for model in found.models if model.world == number - 1]
        names = ", ".join(f"{model.name} ({model.folder})" for model in own)
        lines.append(f"World {number}, {counted(len(datasets), 'dataset')} ({', '.join(datasets)}): {names}")
    return lines


def notes(found: Across) -> list[str]:
    """Return what stands below the tables: what exactly a number, an interval and a test is, and of what it tells."""
    units = sum(map(len, found.worlds))
    worlds, seeds = counted(len(found.worlds), "world"), sorted({model.seeds for model in found.models})
    return [
        f"Percentage points, row minus {found.reference}. Each model on each dataset counts by its mean over "
        f"{' or '.join(map(str, seeds))} seed{'' if seeds == [1] else 's'}; these are averaged over the models of a "
        "world first, because its models share the datasets: every dataset counts once.",
        "Interval (Student's t), higher on, and p (flipping signs; Holm: corrected over the rows of a table) are over "
        f"the {units} datasets of {worlds}. They tell of the choice of datasets, not of models and worlds.",
        "Models: smallest and largest mean difference of one model; agree: how many have the sign of the mean.",
        *map(str, _beyond(found, units)),
    ]


def _beyond(found: Across, units: int) -> Iterator[str]:
    told = [
        f"{_where(place)}, {line.label} ({line.difference.estimate:+.2f})"
        for place, lines in found.lines.items()
        for line in lines
        if line.corrected < SIGNIFICANCE_LEVEL
    ]
    if told:
        yield f"Significant (Holm < {SIGNIFICANCE_LEVEL}): {'; '.join(told)}."
    elif max(map(len, found.lines.values()), default=0) * 2 ** (1 - units) < SIGNIFICANCE_LEVEL:
        yield f"Significant (Holm < {SIGNIFICANCE_LEVEL}): none."
    else:
        yield f"None can be significant: with {counted(units, 'dataset')}, the smallest possible Holm p is too large."


def terminal(found: Across) -> list[Group]:
    """Return the tables for a terminal of ``WIDTH`` columns."""
    return [drawn(section) for section in sections(found)]


def markdown(found: Across) -> str:
    """Return the tables, their legend and notes as GitHub-flavored Markdown."""
    parts = [f"**{title}**\n\n{markdown_table(heads, rows)}" for title, heads, rows in sections(found)]
    return "\n\n".join([bullets(legend(found)), *parts, bullets(notes(found))])


def csv(found: Across) -> str:
    """Return the unrounded numbers: ``COLUMNS``."""
    rows = [[record[name] for name in COLUMNS] for record in records(found)]
    return csv_text(COLUMNS, rows).rstrip("\n")


def json(found: Across) -> str:
    """Return the unrounded numbers, and those of every model and world; null where a number is not defined."""
    value = {
        "schema": SCHEMA,
        "reference": found.reference,
        "worlds": found.worlds,
        "models": [model._asdict() for model in found.models],
        "rows": records(found),
    }
    return json_text(value).rstrip("\n")


FORMATS: dict[str, Callable[[Across], str]] = {"md": markdown, "csv": csv, "json": json}
"""Formats of ``cpt across`` but the terminal's tables."""


def records(found: Across) -> list[dict[str, Any]]:
    """Return a mapping from names of ``COLUMNS``, ``by_model`` and ``by_world`` per row of the tables."""
    rows = []
    for place, lines in found.lines.items():
        for line in lines:
            ends = [None if isnan(value) else value for value in line.difference]
            counts = [line.higher, line.units, line.p, line.corrected]
            models = [min(line.by_model), max(line.by_model), line.agree, len(line.by_model)]
            values = [*place, line.row, line.label, line.mean, line.reference, *ends, *counts, *models]
            beside = {"by_model": line.by_model, "by_world": line.by_world}
            rows.append(dict(zip(COLUMNS, values, strict=True)) | beside)
    return rows


def _title(found: Across, place: Place) -> str:
    models, worlds = counted(len(found.models), "model"), counted(len(found.worlds), "world")
    return f"{_where(place)}, mean over {models} of {worlds}"


def _where(place: Place) -> str:
    return f"{TASKS[place.task]} {place.metric} at τ = {ratio_text(place.ratio)}"


def _cells(line: Line) -> list[str]:
    models = f"{min(line.by_model):+.2f} … {max(line.by_model):+.2f}"
    means = [line.label, f"{line.mean:.2f}", f"{line.difference.estimate:+.2f}", bounds(line.difference, "+.2f")]
    tests = [f"{line.higher} of {line.units}", p_text(line.p), p_text(line.corrected)]
    return [*means, *tests, models, f"{line.agree} of {len(line.by_model)}"]
