"""The page that people open: what was run, what came out first, every table and every figure, in one file."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cpt.experiment import exhibits
from cpt.files.integrity import configuration, snakemake
from cpt.files.stage_files import note_read, require_unchanged, unusable, write_text
from cpt.report.formats import html
from cpt.report.page import web
from cpt.report.page.charts import charts
from cpt.report.page.details import details
from cpt.report.page.fairness import fairness
from cpt.report.page.first_screen import facts, headlines
from cpt.report.page.origin import links, origin
from cpt.report.tables import laid_out, long_form
from cpt.report.templates import templates
from cpt.report.words import caption_begins, exhibit_label, natural_order, sentence
from cpt.results.cells import Results, read_results

TABLE_FILES = [suffix for suffix in exhibits.table_suffixes() if suffix != "html"]  # the page holds it itself
_SCRIPTS = ("dom.js", "frame.js", "charts.js", "tables.js", "page.js")  # one module
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
    fragments = {name: report / f"{name}.html" for name in ("ledger", "audit")}
    files = _files(folder, shown)
    behind = details(results) | {"root": f"results/{grid['experiment']}", "command": again}
    packed = {"data": behind, "charts": charts(results, files), "files": files}
    page = templates().get_template("page/page.html.j2")
    text = page.render(
        experiment=grid["experiment"],
        printed=grid["printed"],
        generated=all(entry["layout"] == "embedded" for entry in grid["datasets"].values()),
        facts=facts(results),
        headlines=headlines(results),
        sheet=fairness(results),
        tables=[_table(results, exhibit) for exhibit in shown if exhibit["kind"] == "table"],
        figures=[
            _figure(results, exhibit, explored=exhibit["name"] in packed["charts"])
            for exhibit in shown
            if exhibit["kind"] != "table"
        ],
        **{name: Markup(_read(path).decode()) if path.exists() else "" for name, path in fragments.items()},
        ledger_file="ledger.csv" in files,
        command=shlex.join(again),
        origin=origin(results),
        links=links(),
        style=_own("page.css"),
        script=Markup("").join(_own(name) for name in _SCRIPTS),
        packed=[
            *((name, web.library(name)) for name in web.LIBRARIES),
            *((name, web.packed_json(value)) for name, value in packed.items()),
        ],
    )
    write_text(report / "index.html", text)


def _files(folder: Path, shown: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Name -> text of the files that the page holds, so that it needs none beside it."""
    found = {}
    for exhibit in shown:
        table = exhibit["kind"] == "table"
        for suffix in TABLE_FILES if table else ["csv"]:
            name = f"{exhibit['name']}.{suffix}"
            found[name] = _read(folder / ("tables" if table else "figures") / name).decode()
    ledger = folder / "report/ledger.csv"
    return found | ({ledger.name: _read(ledger).decode()} if ledger.exists() else {})


def command(folder: Path) -> list[str]:
    """Return the words that run the experiment of a folder, with its configuration (``cpt.files.integrity``)."""
    return snakemake(configuration(folder))


def _own(name: str) -> Markup:
    """A file of this package, which goes into the page as it is."""
    return Markup(Path(__file__).with_name(name).read_text(encoding="utf-8"))


# ---- tables and figures ------------------------------------------------------------------------


def _table(results: Results, exhibit: Mapping[str, Any]) -> dict[str, Any]:
    shown = laid_out(results, exhibit, long_form(results, exhibit))
    files = [(suffix.upper(), f"{exhibit['name']}.{suffix}") for suffix in TABLE_FILES]
    body = Markup(html.write(shown, linked=True))
    return _described(exhibit) | {"files": files, "body": body, "caption": shown.caption, "notes": shown.notes}


def _figure(results: Results, exhibit: Mapping[str, Any], *, explored: bool) -> dict[str, Any]:
    name, path = exhibit["name"], results.folder / f"figures/{exhibit['name']}.svg"
    drawing = _read(path)
    width = re.search(rb'<svg[^>]* width="([\d.]+)pt"', drawing)
    if width is None:
        raise unusable(path, "damaged (no width)")
    caption = _read(path.with_suffix(".txt")).decode().removeprefix(caption_begins(name, exhibit)).strip()
    return _described(exhibit) | {
        "caption": caption,
        "explored": explored,
        "files": [("SVG", f"{name}.svg"), ("CSV", f"{name}.csv")],
        "source": f"data:image/svg+xml;base64,{base64.b64encode(drawing).decode()}",
        "width": round(float(width[1]) * _POINT * _SCREEN_SCALE),
    }


def _described(exhibit: Mapping[str, Any]) -> dict[str, Any]:
    name = exhibit["name"]
    return {"name": name, "label": exhibit_label(name), "title": sentence(exhibit["title"]).removesuffix(".")}


def _read(path: Path) -> bytes:
    require_unchanged(path)
    try:
        found = path.read_bytes()
    except OSError as error:
        raise unusable(path, error) from None
    note_read(path)
    return found
