"""The page that people open: what was run, what came out first, every table and every figure, in one file."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from cpt.experiment import exhibits
from cpt.files import paths
from cpt.files.integrity import configuration, snakemake
from cpt.files.paths import ratio_order, ratio_text
from cpt.files.stage_files import note_read, require_unchanged, unusable, write_text
from cpt.report.formats import html
from cpt.report.layout import DECIMALS, Key
from cpt.report.page import web
from cpt.report.page.details import details
from cpt.report.page.fairness import fairness
from cpt.report.tables import by_dataset, laid_out, long_form, significance
from cpt.report.templates import templates
from cpt.report.words import AVERAGE, caption_begins, exhibit_label, ratio_title, sentence
from cpt.results.cells import Results, Summary, read_results

TABLE_FILES = [suffix for suffix in exhibits.table_suffixes() if suffix != "html"]  # the page holds it itself
FIGURE_FILES = [suffix for suffix in paths.FIGURE if suffix != "txt"]
_SCREEN_SCALE = 1.35  # figures are drawn for print; on a screen they are shown larger
_POINT = 4 / 3  # CSS pixels


def make_page(folder: Path) -> None:
    """Write ``report/index.html`` of ``results/<experiment>``: one self-contained file with all its tables and figures.

    ``ledger.html`` and ``audit.html`` beside it become part of it.

    Raises:
        CptError: an input is missing or damaged.
    """
    results = read_results(folder / "grid.json", folder / "runs.parquet")
    grid, report, again = results.grid, folder / "report", command(folder)
    shown = [grid["exhibits"][name] for name in sorted(grid["exhibits"], key=natural_order)]
    behind = details(results) | {"root": f"results/{grid['experiment']}", "command": again}
    fragments = {name: report / f"{name}.html" for name in ("ledger", "audit")}
    page = templates().get_template("page/page.html.j2")
    text = page.render(
        experiment=grid["experiment"],
        printed=grid["printed"],
        generated=all(entry["layout"] == "embedded" for entry in grid["datasets"].values()),
        facts=facts(results),
        headline=headline(results),
        sheet=fairness(results),
        tables=[_table(results, exhibit) for exhibit in shown if exhibit["kind"] == "table"],
        figures=[_figure(results, exhibit) for exhibit in shown if exhibit["kind"] != "table"],
        **{name: Markup(_read(path).decode()) if path.exists() else "" for name, path in fragments.items()},
        command=shlex.join(again),
        style=_own("page.css"),
        script=_own("page.js"),
        packed=[*((name, web.library(name)) for name in web.LIBRARIES), ("data", web.packed_json(behind))],
    )
    write_text(report / "index.html", text)


def command(folder: Path) -> list[str]:
    """Return the words that run the experiment of a folder, with its configuration (``cpt.files.integrity``)."""
    return snakemake(configuration(folder))


def _own(name: str) -> Markup:
    """A file of this package, which goes into the page as it is."""
    return Markup(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def natural_order(name: str) -> tuple[str, int, str]:
    """Return a key that sorts ``table2`` before ``table2b`` and both before ``table10``."""
    match = re.fullmatch(r"(.*?)(\d+)([a-z]?)", name)
    return (match[1], int(match[2]), match[3]) if match else (name, 0, "")


# ---- the first screen --------------------------------------------------------------------------


def facts(results: Results) -> list[tuple[str, str]]:
    """Return what was run: experiment, backbone, datasets, ratios, methods, seeds, runs."""
    grid, runs = results.grid, results.grid["runs"]
    cells = [cell for exhibit in grid["exhibits"].values() for cell in exhibit["cells"]]
    # of cells: an untrained run has none of its own
    ratios = sorted({cell["ratio"] for cell in cells}, key=ratio_order)
    repeated = [cell for cell in cells if len(cell["runs"]) > 1] or cells  # means are over the seeds of these
    seeds = sorted({results.run(run)["seed"] for cell in repeated for run in cell["runs"]})
    table = main_table(results)
    methods = map(row_title, table["rows"]) if table else sorted({run["method"] for run in runs})
    finished = sum(run["run"] in results.finished for run in runs)
    return [
        ("Experiment", grid["experiment"]),
        ("Backbone", grid["backbone"]),
        (f"Datasets ({len(grid['datasets'])})", ", ".join(map(_dataset, grid["datasets"].values()))),
        ("Imbalance ratios τ", ", ".join(ratio_text(ratio) for ratio in ratios)),
        ("Methods", ", ".join(methods)),
        ("Seeds", ", ".join(map(str, seeds))),
        ("Runs", f"{finished} of {len(runs)} finished"),
    ]


def _dataset(entry: Mapping[str, Any]) -> str:
    counterpart = entry["counterpart"]
    notes = [f"for {counterpart}"] if counterpart not in (None, entry["title"]) else []
    notes += ["derived split, not comparable with published numbers"] if entry["derived_split"] else []
    return f"{entry['title']} ({'; '.join(notes)})" if notes else entry["title"]


def row_title(row: Mapping[str, Any]) -> str:
    """Return a row's label with its note."""
    return f"{row['label']} ({row['note']})" if row.get("note") else row["label"]


def main_table(results: Results) -> dict[str, Any] | None:
    """Return the table whose averages make the headline: methods by datasets, base-to-new (the paper's Table 2)."""
    shown = results.grid["exhibits"].values()
    return next((e for e in shown if by_dataset(e) and e["tasks"] == ["base_to_new"]), None)


def headline(results: Results) -> list[tuple[str, str]]:
    """Return one (ratio, sentence) per ratio of the main table: the best method and its margin."""
    table = main_table(results)
    if table is None:
        return []
    numbers = long_form(results, table)
    titles = {row["id"]: row_title(row) for row in table["rows"]}
    tested = significance(results, table)
    found = []
    for ratio in table["ratios"]:
        averages = {title: numbers[Key(ratio, row, AVERAGE, "H")] for row, title in titles.items()}
        p_values = {titles[row]: p for (where, row), p in tested.items() if where == ratio}
        found.append((ratio_title(ratio), best_method(averages, titles.get(table["reference"]), p_values)))
    return found


def best_method(averages: Mapping[str, Summary], reference: str | None, p_values: Mapping[str, float]) -> str:
    """Return a sentence that names the best of some methods by their averages, its margin over the second and its test.

    ``p_values`` are those of the others' differences from the reference (``cpt.report.tables.significance``).
    """
    means = {name: cell.mean for name, cell in averages.items() if cell.mean is not None}
    if not means:
        return "no method has finished on every dataset."
    order = sorted(means, key=lambda name: -means[name])
    level = [name for name in order if round(means[name], DECIMALS) == round(means[order[0]], DECIMALS)]
    if len(level) > 1:
        return f"{', '.join(level[:-1])} and {level[-1]} are level with an average H of {_number(averages[order[0]])}."
    said = f"{order[0]} has the highest average H, {_number(averages[order[0]])}"
    if len(order) == 1:
        return f"{said}; no other method has finished."
    best, second = order[:2]
    p = p_values.get(second if best == reference else best) if reference in (best, second) else None
    tested = "not tested" if p is None else f"corrected p {p:.3f}"
    margin = f"{means[best] - means[second]:.{DECIMALS}f}"
    return f"{said}, {margin} points above {second} ({_number(averages[second])}); {tested}."


def _number(cell: Summary) -> str:
    return f"{cell.mean:.{DECIMALS}f}" + (f" ± {cell.std:.{DECIMALS}f}" if cell.std is not None else "")


# ---- tables and figures ------------------------------------------------------------------------


def _table(results: Results, exhibit: Mapping[str, Any]) -> dict[str, Any]:
    for suffix in TABLE_FILES:  # the page leads to them
        _read(results.folder / f"tables/{exhibit['name']}.{suffix}")
    shown = laid_out(results, exhibit, long_form(results, exhibit))
    return _described(exhibit, "tables", TABLE_FILES) | {"body": Markup(html.write(shown, linked=True))}


def _figure(results: Results, exhibit: Mapping[str, Any]) -> dict[str, Any]:
    name, path = exhibit["name"], results.folder / f"figures/{exhibit['name']}.svg"
    drawing = _read(path)
    width = re.search(rb'<svg[^>]* width="([\d.]+)pt"', drawing)
    if width is None:
        raise unusable(path, "damaged (no width)")
    caption = _read(path.with_suffix(".txt")).decode().removeprefix(caption_begins(name, exhibit)).strip()
    return _described(exhibit, "figures", FIGURE_FILES) | {
        "caption": caption,
        "source": f"data:image/svg+xml;base64,{base64.b64encode(drawing).decode()}",
        "width": round(float(width[1]) * _POINT * _SCREEN_SCALE),
    }


def _described(exhibit: Mapping[str, Any], folder: str, suffixes: Iterable[str]) -> dict[str, Any]:
    name = exhibit["name"]
    return {
        "name": name,
        "label": exhibit_label(name),
        "title": sentence(exhibit["title"]).removesuffix("."),
        "caption": sentence(exhibit["caption"]),
        "links": [(suffix.upper(), quote(f"../{folder}/{name}.{suffix}")) for suffix in suffixes],
    }


def _read(path: Path) -> bytes:
    require_unchanged(path)
    try:
        found = path.read_bytes()
    except OSError as error:
        raise unusable(path, error) from None
    note_read(path)
    return found
