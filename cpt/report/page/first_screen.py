"""What the page says first: what was run, and what came out, task by task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cpt.files.paths import ratio_order, ratio_text
from cpt.report.layout import DECIMALS, Key, can_differ
from cpt.report.tables import by_dataset, long_form, significance
from cpt.report.words import (
    AVERAGE,
    SIGNIFICANCE_LEVEL,
    counted,
    exhibit_label,
    natural_order,
    ratio_title,
    sentence,
)
from cpt.results.cells import Results, Summary, averaged_datasets, judged_by

# ---- what was run ------------------------------------------------------------------------------


def facts(results: Results) -> list[tuple[str, str]]:
    """Return what was run: experiment, backbone, datasets, ratios, methods, seeds, runs."""
    grid, runs = results.grid, results.grid["runs"]
    cells = [cell for exhibit in grid["exhibits"].values() for cell in exhibit["cells"]]
    # of cells: an untrained run has none of its own
    ratios = sorted({cell["ratio"] for cell in cells}, key=ratio_order)
    finished = sum(run["run"] in results.finished for run in runs)
    return [
        ("Experiment", grid["experiment"]),
        ("Backbone", grid["backbone"]),
        (f"Datasets ({len(grid['datasets'])})", ", ".join(map(_dataset, grid["datasets"].values()))),
        ("Imbalance ratios τ", ", ".join(map(ratio_text, ratios))),
        ("Methods", _listed(_methods(results))),
        ("Seeds", _seeds(results)),
        ("Runs", f"{finished} of {len(runs)} finished"),
    ]


def _dataset(entry: Mapping[str, Any]) -> str:
    counterpart = entry["counterpart"]
    notes = [f"for {counterpart}"] if counterpart not in (None, entry["title"]) else []
    notes += ["derived split, not comparable with published numbers"] if entry["derived_split"] else []
    return f"{entry['title']} ({'; '.join(notes)})" if notes else entry["title"]


def _methods(results: Results) -> list[str]:
    """The rows of the tables by dataset, and the methods that only other exhibits have."""
    tables = _main_tables(results)
    rows = dict.fromkeys(_row_title(row) for table in tables for row in table["rows"])
    compared = {results.run(run)["method"] for table in tables for cell in table["cells"] for run in cell["runs"]}
    others = dict.fromkeys(run["method"] for run in results.grid["runs"] if run["method"] not in compared)
    facts = (results.grid["methods"][method] for method in others)
    return [*rows, *(f"{fact['title']}{' (reconstruction)' if fact['reconstruction'] else ''}" for fact in facts)]


def _listed(names: Sequence[str]) -> str:
    return ("; " if any("," in name for name in names) else ", ").join(names)


def _row_title(row: Mapping[str, Any]) -> str:
    return f"{row['label']} ({row['note']})" if row.get("note") else row["label"]


def _seeds(results: Results) -> str:
    """The seeds that most exhibits have, and those of the others; without single runs beside repeated ones."""
    found: dict[tuple[int, ...], list[str]] = {}
    for name in sorted(results.grid["exhibits"], key=natural_order):
        cells = results.grid["exhibits"][name]["cells"]
        repeated = [cell for cell in cells if len(cell["runs"]) > 1] or cells
        seeds = tuple(sorted({results.run(run)["seed"] for cell in repeated for run in cell["runs"]}))
        found.setdefault(seeds, []).append(exhibit_label(name))
    if not found:
        return ""
    usual = max(found, key=lambda seeds: len(found[seeds]))
    others = [f"{', '.join(names)}: {_ranges(seeds)}" for seeds, names in found.items() if seeds != usual]
    return _ranges(usual) + (f" ({'; '.join(others)})" if others else "")


def _ranges(numbers: Sequence[int]) -> str:
    """Sorted numbers as people write them: ``1–5, 7``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]}–{p[-1]}" if len(p) > 2 else ", ".join(map(str, p)) for p in parts)


# ---- what came out -----------------------------------------------------------------------------


class Headline(NamedTuple):
    """What one table says: its name, label and title, and a sentence per imbalance ratio."""

    name: str
    label: str
    title: str
    lines: list[tuple[str, str]]


def headlines(results: Results) -> list[Headline]:
    """Return what came out of every table whose columns are datasets: one per task, whoever is best there."""
    return [_headline(results, table) for table in _main_tables(results)]


def _main_tables(results: Results) -> list[Mapping[str, Any]]:
    exhibits = results.grid["exhibits"]
    return [exhibits[name] for name in sorted(exhibits, key=natural_order) if by_dataset(exhibits[name])]


def _headline(results: Results, table: Mapping[str, Any]) -> Headline:
    task = table["tasks"][0]
    metric, datasets = judged_by(task), len(averaged_datasets(table, task))
    numbers, tested = long_form(results, table), significance(results, table)
    titles = {row["id"]: _row_title(row) for row in table["rows"] if not row.get("control")}
    lines = []
    for ratio in table["ratios"]:
        averages = {title: numbers[Key(ratio, row, AVERAGE, metric)] for row, title in titles.items()}
        p_values = {titles[row]: p for (where, row), p in tested.items() if where == ratio}
        said = [ranking(averages, titles.get(table["reference"]), metric)]
        if any(cell.mean is not None for cell in averages.values()):
            said.append(significant_differences(averages, titles.get(table["reference"]), p_values, datasets))
        lines.append((ratio_title(ratio), " ".join(said)))
    return Headline(table["name"], exhibit_label(table["name"]), sentence(table["title"]).removesuffix("."), lines)


def ranking(averages: Mapping[str, Summary], reference: str | None, metric: str) -> str:
    """Return a sentence that names the methods with the highest averages, the next, and where the reference stands.

    It describes means. Whether they differ is for ``significant_differences`` to say.
    """
    means = {name: round(cell.mean, DECIMALS) for name, cell in averages.items() if cell.mean is not None}
    if not means:
        return "No method has finished on every dataset."
    steps = sorted(set(means.values()), reverse=True)
    places = [[name for name, mean in means.items() if mean == step] for step in steps]
    said = [f"Highest average {metric}: {_named(places[0], averages)}"]
    said += [f"next: {_named(places[1], averages)}"] if len(places) > 1 else []
    if reference in means and means[reference] < steps[min(1, len(steps) - 1)]:
        ahead = sum(mean > means[reference] for mean in means.values())
        said.append(f"{reference} is {_ordinal(ahead + 1)} of {len(means)} with {_number(averages[reference])}")
    return "; ".join(said) + "."


def significant_differences(
    averages: Mapping[str, Summary], reference: str | None, p_values: Mapping[str, float], datasets: int
) -> str:
    """Return a sentence on the differences from the reference: only those that pass the corrected test are named.

    ``p_values`` are those of ``cpt.report.tables.significance``, of one ratio.
    """
    if reference is None or not p_values:
        return "Differences were not tested."
    if not can_differ(datasets, len(p_values)):
        few = f"{counted(datasets, 'dataset')} {'is' if datasets == 1 else 'are'} too few"
        return f"{few} to tell any row from {reference}."
    passed = {name: p for name, p in p_values.items() if p < SIGNIFICANCE_LEVEL}
    if not passed:
        return f"No difference from {reference} passes the test (corrected p ≥ {SIGNIFICANCE_LEVEL})."
    own, said = averages[reference].mean, []
    assert own is not None
    for side, sign in (("above", 1), ("below", -1)):
        names = [
            f"{name} (corrected p {p:.3f})"
            for name, p in passed.items()
            if (mean := averages[name].mean) is not None and sign * (mean - own) > 0
        ]
        said += [f"{side} {reference}: {', '.join(names)}"] if names else []
    rest = len(p_values) - len(passed)
    said += [f"{rest} other{'s' if rest > 1 else ''} cannot be told from it"] if rest else []
    return f"Significantly {'; '.join(said)}."


def _named(names: Iterable[str], averages: Mapping[str, Summary]) -> str:
    return " and ".join(f"{name}, {_number(averages[name])}" for name in names)


def _number(cell: Summary) -> str:
    return f"{cell.mean:.{DECIMALS}f}" + (f" ± {cell.std:.{DECIMALS}f}" if cell.std is not None else "")


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
