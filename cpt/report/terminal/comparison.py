"""What ``cpt compare`` writes: tables for a terminal or in Markdown, and the unrounded numbers as CSV or JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from math import isnan
from typing import Any, TypeVar

from rich.console import Group

from cpt.files.paths import ratio_text
from cpt.files.stage_files import canonical_json, json_text
from cpt.report.terminal.sections import Section, bounds, bullets, drawn, markdown_table
from cpt.report.words import SIGNIFICANCE_LEVEL, counted, p_text
from cpt.results.cells import TASKS, csv_text
from cpt.results.comparison import Comparison, Images, Line, Runs
from cpt.results.stats import Interval

Compared = TypeVar("Compared", Line, Runs, Images)

SCHEMA = "cpt.comparison/1"
WIDTH = 80
"""Columns in which every table fits whose datasets have short names; long names are folded, numbers never cut."""

COLUMNS = (
    "over", "task", "imbalance_ratio", "metric", "dataset", "datasets", "seeds", "images", "a", "a_low", "a_high", "b",
    "b_low", "b_high", "difference", "difference_low", "difference_high", "b_higher", "p", "p_holm", "b_beats_a",
    "b_beats_a_low", "b_beats_a_high",
)  # fmt: skip
"""Columns of the unrounded numbers (docs/files.md)."""


def sections(found: Comparison) -> Iterator[Section]:
    """Return a table per task of every way to compare two sides."""
    for task, lines in _by_task(found.over_datasets):
        heads = ["τ", "metric", "A", "B", "B - A", "95 % interval", "B higher", "p", "Holm"]
        title = f"{task}, mean over datasets, paired by dataset and seed"
        yield Section(title, heads, [_difference(line) for line in lines])
    for task, runs in _by_task(found.over_runs):
        title = f"{task}, interquartile mean over all runs"
        yield Section(title, ["τ", "metric", "A", "B", "B beats A"], [_all_runs(line) for line in runs])
    for task, images in _by_task(found.over_images):
        heads = ["τ", "dataset", "metric", "images", "B - A", "95 % interval"]
        title = f"{task}, image by image: intervals over test images"
        yield Section(title, heads, [_image_by_image(line) for line in images])


def legend(found: Comparison) -> list[str]:
    """Return which side is which, and by what two rows of one method differ."""
    lines = [f"A: {found.first}", f"B: {found.second}"]
    for name, first, second, datasets in found.changed:
        where = f", trained on {' or '.join(datasets)}" if datasets else ""
        own, other = (" or ".join(canonical_json(value) for value in values) for values in (first, second))
        lines.append(f"{name}: {own} in A, {other} in B{where}")
    return lines


def notes(found: Comparison) -> list[str]:
    """Return what stands below the tables: the unit, the test's result, the words, what is left out."""
    counts = sorted({line.seeds for line in found.over_datasets})
    lines = [
        f"Percentage points; means over {' or '.join(map(str, counts))} seed{'' if counts == [1] else 's'}.",
        significant(found.over_datasets),
        "Interquartile mean: of the middle half of all runs, without the lowest and the highest quarter.",
        "B beats A: chance that a run of B is better than one of A on the same dataset; ties count half.",
    ]
    if left := found.left_out:
        places = list(dict.fromkeys(f"{p.dataset} τ = {ratio_text(p.ratio)} seed {p.seed}" for p in left))
        shown = ", ".join(places[:3]) + (", ..." if len(places) > 3 else "")
        lines.append(f"Left out: {len(left)} numbers whose seed is not on both sides and all datasets ({shown}).")
    return lines


def significant(lines: Sequence[Line]) -> str:
    """Return which differences are significant, by the corrected p alone, or that none can be."""
    found = [line for line in lines if line.corrected < SIGNIFICANCE_LEVEL]
    if found:
        told = ", ".join(
            f"{TASKS[line.task]} {line.metric} at τ = {ratio_text(line.ratio)} ({line.difference.estimate:+.2f})"
            for line in found
        )
        return f"Significant (Holm < {SIGNIFICANCE_LEVEL}): {told}."
    most = max(line.datasets for line in lines)
    if len(lines) * 2 ** (1 - most) < SIGNIFICANCE_LEVEL:
        return f"Significant (Holm < {SIGNIFICANCE_LEVEL}): none."
    tests = counted(len(lines), "difference")
    least = f"the smallest possible Holm p is above {SIGNIFICANCE_LEVEL}"
    return f"None of {tests} can be significant: with {counted(most, 'dataset')}, {least}."


def terminal(found: Comparison) -> list[Group]:
    """Return the tables for a terminal of ``WIDTH`` columns."""
    return [drawn(section) for section in sections(found)]


def markdown(found: Comparison) -> str:
    """Return the tables, their legend and notes as GitHub-flavored Markdown."""
    parts = [bullets(legend(found))]
    for title, heads, rows in sections(found):
        parts.append(f"**{title}**\n\n{markdown_table(heads, rows)}")
    return "\n\n".join([*parts, bullets(notes(found))])


def csv(found: Comparison) -> str:
    """Return the unrounded numbers: ``COLUMNS``, before them the two sides."""
    rows = [[found.first, found.second, *(row.get(name) for name in COLUMNS)] for row in records(found)]
    return csv_text(["a_name", "b_name", *COLUMNS], rows).rstrip("\n")


def json(found: Comparison) -> str:
    """Return the unrounded numbers and the places that are left out; null where a number is not defined."""
    place_names = ("task", "metric", "imbalance_ratio", "dataset", "seed")
    value = {
        "schema": SCHEMA,
        "a_name": found.first,
        "b_name": found.second,
        "changed": [change._asdict() for change in found.changed],
        "rows": [{name: row.get(name) for name in COLUMNS} for row in records(found)],
        "left_out": [dict(zip(place_names, place, strict=True)) for place in found.left_out],
    }
    return json_text(value).rstrip("\n")


FORMATS: dict[str, Callable[[Comparison], str]] = {"md": markdown, "csv": csv, "json": json}
"""Formats of ``cpt compare`` but the terminal's tables."""


def records(found: Comparison) -> list[dict[str, Any]]:
    """Return a mapping from names of ``COLUMNS`` per row of the tables."""
    rows = []
    for line in found.over_datasets:
        numbers = {"a": line.first, "b": line.second, "b_higher": line.higher, "p": line.p, "p_holm": line.corrected}
        counts = {"datasets": line.datasets, "seeds": line.seeds}
        rows.append(_record("datasets", line) | counts | numbers | _ends("difference", line.difference))
    for runs in found.over_runs:
        sides = _ends("a", runs.first) | _ends("b", runs.second) | _ends("b_beats_a", runs.improvement)
        rows.append(_record("runs", runs) | sides)
    for images in found.over_images:
        where = {"dataset": images.dataset, "images": images.images}
        rows.append(_record("images", images) | where | _ends("difference", images.difference))
    return rows


def _record(over: str, line: Line | Runs | Images) -> dict[str, Any]:
    return {"over": over, "task": line.task, "imbalance_ratio": line.ratio, "metric": line.metric}


def _ends(name: str, interval: Interval) -> dict[str, float | None]:
    names = (name, f"{name}_low", f"{name}_high")
    return {key: None if isnan(value) else value for key, value in zip(names, interval, strict=True)}


def _difference(line: Line) -> list[str]:
    means = f"{line.first:.2f}", f"{line.second:.2f}", f"{line.difference.estimate:+.2f}"
    result = f"{line.higher} of {line.datasets}", p_text(line.p), p_text(line.corrected)
    return [ratio_text(line.ratio), line.metric, *means, bounds(line.difference, "+.2f"), *result]


def _all_runs(line: Runs) -> list[str]:
    means = [f"{side.estimate:.2f} [{bounds(side, '.2f')}]" for side in (line.first, line.second)]
    percent = Interval(*(100 * value for value in line.improvement))
    return [ratio_text(line.ratio), line.metric, *means, f"{percent.estimate:.0f} % [{bounds(percent, '.0f')}]"]


def _image_by_image(line: Images) -> list[str]:
    numbers = f"{line.images:,}", f"{line.difference.estimate:+.2f}", bounds(line.difference, "+.2f")
    return [ratio_text(line.ratio), line.dataset, line.metric, *numbers]


def _by_task(lines: Iterable[Compared]) -> Iterator[tuple[str, Iterator[Compared]]]:
    """Title of a task and its lines, which stand together."""
    for task, of_task in groupby(lines, key=lambda line: line.task):
        yield TASKS[task], of_task
