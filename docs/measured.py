"""Results of the embedded experiments, as text for the documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cpt.errors import CptError
from cpt.metrics.reported import MEASURES
from cpt.report import tables
from cpt.report.terminal import across as texts
from cpt.report.terminal.sections import markdown_table
from cpt.report.words import SIGNIFICANCE_LEVEL
from cpt.results.cells import Results, tested_rows
from cpt.results.over_models import across
from docs.kept import (
    KEPT,
    WORLDS,
    by_dataset,
    cell,
    difference_table,
    differences,
    holm,
    kept,
    label,
    markdown,
    numbers,
    paired,
)

Text = Callable[[], str]

OTHER_CPU = "embedded_other_cpu"
TITLES = ("base", "new", "H", "cross-dataset", "domain generalization")
PROFILE = ("head", "medium", "tail", "ece_base", "ece_new")


def averages(experiment: str, halves: str = "table2", transfer: str = "table3", shifts: str = "table4") -> Text:
    """One line per imbalance ratio and method: averages over the datasets, mean ± std over seeds, of three tables."""
    columns = [*((halves, metric) for metric in ("base", "new", "H")), (transfer, "accuracy"), (shifts, "accuracy")]

    def text() -> str:
        lines = [f"| τ | method | {' | '.join(TITLES)} |", "|--:|:--" + "|--:" * len(TITLES) + "|"]
        seeds: set[int] = set()
        found: dict[tuple[Any, str], dict[tuple[str, str], str]] = {}
        for table, metric in columns:
            for key, number in numbers(experiment, table).items():
                if (key.dataset, key.metric) == ("Avg", metric) and number.mean is not None:
                    spread = "" if number.std is None else f" ± {number.std:.2f}"
                    found.setdefault((key.ratio, label(experiment, table, key.row)), {})[table, metric] = (
                        f"{number.mean:.2f}{spread}"
                    )
                    seeds.add(number.n)
        for (ratio, name), by_metric in sorted(found.items(), key=lambda item: -item[0][0]):
            lines.append(f"| {ratio:g} | {name} | {' | '.join(by_metric.get(each, '–') for each in columns)} |")
        count = max(seeds)
        note = f"Mean over {count} seeds (zero-shot CLIP: untrained, one run). ±: sample standard deviation over seeds."
        return markdown([*lines, "", note])

    return text


def against(experiment: str, table: str, reference: str, ratios: Sequence[float], task: str = "base_to_new") -> Text:
    """Every row of a table but controls minus one, paired by dataset and seed; a family is the lines of one τ."""

    def text() -> str:
        rows = [row["id"] for row in tested_rows(kept(experiment).exhibit(table)) if row["id"] != reference]
        return difference_table(
            {
                (f"{ratio:g}", label(experiment, table, row)): paired(experiment, table, ratio, row, reference, task)
                for ratio in ratios
                for row in rows
            },
            ("τ", f"minus {label(experiment, table, reference)}"),
            family=1,
        )

    return text


def beyond(experiment: str, table: str, reference: str, ratios: Sequence[float]) -> Text:
    """Rows that differ significantly from one of them after correction; a family of tests is the rows of one τ."""

    def text() -> str:
        lines = []
        for ratio in ratios:
            rows = [row["id"] for row in tested_rows(kept(experiment).exhibit(table)) if row["id"] != reference]
            found = [paired(experiment, table, ratio, row, reference) for row in rows]
            sides: dict[str, list[str]] = {"above": [], "below": []}
            for row, difference, p in zip(rows, found, holm(found), strict=True):
                if p < SIGNIFICANCE_LEVEL:
                    interval = f"{difference.mean:+.2f}, {difference.low:+.2f} to {difference.high:+.2f}, p {p:.3f}"
                    side = "above" if difference.mean > 0 else "below"
                    sides[side].append(f"{label(experiment, table, row)} ({interval})")
            name = label(experiment, table, reference)
            said = "; ".join(f"{side} {name}: {', '.join(own) or 'none'}" for side, own in sides.items())
            lines.append(f"- τ = {ratio:g}: {said}.")
        return markdown(lines)

    return text


def pairs(experiment: str, table: str, rows: Sequence[tuple[str, str]], ratios: Sequence[float]) -> Text:
    """Rows of a table minus others of it, paired by dataset and seed; all lines are one family of tests."""

    def text() -> str:
        return difference_table(
            {
                (f"{ratio:g}", f"{label(experiment, table, one)} - {label(experiment, table, other)}"): paired(
                    experiment, table, ratio, one, other
                )
                for ratio in ratios
                for one, other in rows
            },
            ("τ", "difference"),
        )

    return text


def remedies(experiment: str, table: str, ratio: float) -> Text:
    """Rows of a table minus the row of the same method without a remedy, whose name begins theirs."""

    def text() -> str:
        names = [row["id"] for row in kept(experiment).exhibit(table)["rows"]]
        return pairs(
            experiment, table, [(name, own) for name in names if (own := name.split("_")[0]) != name], (ratio,)
        )()

    return text


def below(experiment: str, ratio: float) -> Text:
    """On which datasets each row of Table 2 has a lower H than zero-shot CLIP."""

    def text() -> str:
        results, lines = kept(experiment), ["| method | datasets with H below zero-shot CLIP's |", "|:--|:--|"]
        zeroshot = by_dataset(experiment, "table2", ratio, "zeroshot")
        for row in tested_rows(results.exhibit("table2")):
            values = by_dataset(experiment, "table2", ratio, row["id"])
            found = zip(values, differences(values, zeroshot), strict=True)
            names = [f"{results.dataset_title(dataset)} ({value:+.2f})" for dataset, value in found if value < 0]
            if row["id"] != "zeroshot":
                lines.append(f"| {label(experiment, 'table2', row['id'])} | {', '.join(names) or 'none'} |")
        return markdown(lines)

    return text


def profiles(experiment: str, ratio: float, table: str = "table6") -> Text:
    """Base accuracy of head, medium and tail classes, and calibration: lines of a table of measures."""

    def text() -> str:
        titles = " | ".join(MEASURES[name].title for name in PROFILE)
        lines = [f"| method | {titles} |", "|:--" + "|--:" * len(PROFILE) + "|"]
        for row in kept(experiment).exhibit(table)["rows"]:
            values = " | ".join(f"{cell(experiment, table, ratio, row['id'], name):.2f}" for name in PROFILE)
            lines.append(f"| {label(experiment, table, row['id'])} | {values} |")
        return markdown(lines)

    return text


def largest_difference(experiment: str, other: Results) -> tuple[float, str]:
    """The largest difference of a table's cell from the kept results, in points, and where it is.

    Raises:
        CptError: a cell has other seeds.
    """
    largest = (0.0, "none")
    for name, exhibit in other.grid["exhibits"].items():
        if exhibit["kind"] == "table":
            old = numbers(experiment, name)
            for key, number in tables.long_form(other, exhibit).items():
                where = f"{name}, {key.row} on {key.dataset}"
                if (number.n, number.mean is None) != (old[key].n, old[key].mean is None):
                    raise CptError(f"{other.folder}: {where}: {number.n} seeds, kept {old[key].n}")
                if number.mean is not None and (before := old[key].mean) is not None:
                    largest = max(largest, (abs(number.mean - before), where))
    return largest


def other_cpu() -> str:
    """What changes in the default experiment on another kind of CPU."""
    one, other = kept("embedded"), kept(OTHER_CPU)
    accuracies = [key for key in one.values if key[-1] == "accuracy"]
    changes = [abs(one.values[key] - other.values[key]) for key in accuracies]
    cell, _ = largest_difference("embedded", other)
    moved = sum(change > 0 for change in changes)
    return (
        f"{moved} of {len(changes)} accuracies, by at most {max(changes):.2f} points, and a table's cell by at most "
        f"{cell:.2f}"
    )


def worlds() -> str:
    """Rows minus CPT over the models of both generated worlds, as ``cpt across`` computes them."""
    missing = [name for name in WORLDS if not (KEPT / f"{name}.parquet").is_file()]
    if missing:
        # a line that begins with a mark is HTML on GitHub
        return f"\n**Not measured yet: of the {len(WORLDS)} experiments, {len(missing)} have no kept results.**\n"
    found = across([kept(name) for name in WORLDS], "cpt")
    parts = [f"**{title}**\n\n{markdown_table(heads, rows)}" for title, heads, rows in texts.sections(found)]
    names = [", ".join(model.name for model in found.models if model.world == i) for i in range(len(found.worlds))]
    lines = [f"{own}: {', '.join(titles)}." for own, titles in zip(names, found.worlds, strict=True)]
    return "\n" + "\n\n".join([*parts, "\n".join(f"- {line}" for line in [*lines, *texts.notes(found)])]) + "\n"
