"""Tables against numbers worked out by hand, and the structure of every format."""

from __future__ import annotations

import csv
import itertools
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cpt.errors import CptError
from cpt.report.formats import csv as csv_format
from cpt.report.formats import html, md, tex
from cpt.report.layout import Key, rank
from cpt.report.shown import Block, Column, Line, Shown, Table
from cpt.report.tables import laid_out, layout_of, long_form, make_table, significance
from cpt.report.words import SIGNIFICANCE_LEVEL
from cpt.results.cells import Results, Summary, average, read_results, summarize
from tests.helpers import fake_results, rough_results
from tests.helpers.workflow import install

NAMES = fake_results.TABLES


@pytest.fixture(scope="module")
def made(with_tables: Path) -> Path:
    """Every table of the invented results."""
    return with_tables


def numbers(made: Path, name: str) -> dict[tuple[str, ...], tuple[str, str, str]]:
    with open(made / "tables" / f"{name}.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["table", "imbalance_ratio", "method", "dataset", "metric", "value", "std", "n_seeds", "p_holm"]
    assert {row[0] for row in rows} == {name.removeprefix("table")}
    return {tuple(row[1:5]): tuple(row[5:8]) for row in rows}


class Cells(HTMLParser):
    """The texts of a table's rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.feed(text)
        self.rows = [[" ".join(cell.split()) for cell in row] for row in self.rows]

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def rough(uneven_with_tables: Path) -> Path:
    """Every table of results of which no two numbers are alike."""
    return uneven_with_tables


# ---- numbers -----------------------------------------------------------------------------------


def row_label(row: dict) -> str:
    noted = row["id"] in ("npt", "cptsum")  # a reconstruction, and the one of two labels alike that has a note
    return f"{row['label']} ({row['note']})" if noted else row["label"]


def expected(folder: Path, exhibit: dict) -> dict[tuple[str, ...], pd.Series]:
    """(ratio, method, dataset, metric) -> value by seed, cell by cell with pandas."""
    found, own_layout = {}, exhibit["layout"]
    for row, ratio, task in itertools.product(exhibit["rows"], exhibit["ratios"], exhibit["tasks"]):
        chosen = [c for c in exhibit["cells"] if (c["row"], c["ratio"], c["task"]) == (row["id"], ratio, task)]
        averaged = [cell for cell in chosen if task == "base_to_new" or not cell["source"]]
        where = f"{ratio:g}", row_label(row)
        metrics = ["H", "base", "new"] if task == "base_to_new" else ["accuracy"]
        if own_layout == "tasks":
            found[*where, task.replace("_", "-"), metrics[0]] = rough_results.over_datasets(
                folder, averaged, metrics[0]
            )
            continue
        if own_layout == "measures":
            for metric in exhibit["measures"]:
                finished = [len(rough_results.seeds(folder, cell, "base")) > 0 for cell in averaged]
                having = [cell for cell in averaged if len(rough_results.seeds(folder, cell, metric))]
                known = all(finished) and having
                found[*where, "Avg", metric] = (
                    rough_results.over_datasets(folder, having, metric) if known else pd.Series(dtype=float)
                )
            continue
        for metric in metrics:
            found |= {(*where, c["dataset"], metric): rough_results.seeds(folder, c, metric) for c in chosen}
            found[*where, "Avg", metric] = rough_results.over_datasets(folder, averaged, metric)
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.no_cover
def test_every_number_is_that_of_plain_arithmetic(rough: Path, name: str) -> None:
    exhibit = read_results(rough / "grid.json", rough / "runs.parquet").exhibit(name)
    table, own = numbers(rough, name), expected(rough, exhibit)
    assert table.keys() == own.keys()
    for key, values in own.items():
        mean, std, count = table[key]
        assert int(count) == len(values)
        assert float(mean or "nan") == pytest.approx(values.mean(), nan_ok=True)
        assert float(std or "nan") == pytest.approx(values.std(ddof=1), nan_ok=True)


def test_a_row_with_an_unfinished_dataset_has_no_mean_of_any_measure(rough: Path) -> None:
    """Not even of one that its finished datasets have, and that the unfinished one would not count for."""
    table = numbers(rough, "table6")
    for measure in fake_results.MEASURED:
        assert table["0.06", "NPT (reconstruction)", "Avg", measure] == ("", "", "0")
        assert (table["0.06", "IVLP", "Avg", measure][2]) == "3"


def ranked(texts: list[str], lowest: bool) -> tuple[set[int], set[int]]:
    """Places of the best and of the second among shown numbers."""
    known = {place: float(text) for place, text in enumerate(texts) if text != "–"}
    if len(known) < 2:
        return set(), set()
    order = sorted(set(known.values()), reverse=not lowest)
    first, second = [{place for place, value in known.items() if [value] == order[i : i + 1]} for i in (0, 1)]
    return first, second


@pytest.mark.parametrize("name", NAMES)
def test_marks_rank_the_numbers_that_are_shown(rough: Path, name: str) -> None:
    """Of every column and ratio, as read from the Markdown."""
    for block in (rough / "tables" / f"{name}.md").read_text().split("\n\n"):
        lines = [line.strip("| ").split(" | ") for line in block.splitlines() if line.startswith("| ")]
        for heading, *cells in zip(*lines, strict=True):
            texts = [re.sub(r" <sub>.*|[*†]|</?u>", "", cell) for cell in cells]
            if not re.fullmatch(r"[\d.]+|–", texts[0]):
                continue  # names of the rows
            unranked = heading.endswith(("effective rank", "std ↓"))
            best, second = (set(), set()) if unranked else ranked(texts, "↓" in heading)
            assert {i for i, cell in enumerate(cells) if cell.startswith("**")} == best
            assert {i for i, cell in enumerate(cells) if cell.startswith("<u>")} == second


@pytest.mark.parametrize(
    ("measure", "values", "texts", "best"),
    [
        ("etf_distance", [0.123, 0.1241, 0.1243, 0.2, 0.3], ["0.123", "0.124", "0.124", "0.200", "0.300"], [0]),
        ("etf_distance", [0.1231, 0.1234, 0.15, 0.2, 0.3], ["0.123", "0.123", "0.150", "0.200", "0.300"], [0, 1]),
        ("base", [50.123, 50.121, 40.0, 30.0, 20.0], ["50.12", "50.12", "40.00", "30.00", "20.00"], [0, 1]),
    ],
)
def test_measures_are_ranked_by_the_digits_they_are_shown_with(
    made: Path, measure: str, values: list[float], texts: list[str], best: list[int]
) -> None:
    results = read_results(made / "grid.json", made / "runs.parquet")
    exhibit = results.exhibit("table6") | {"measures": [measure], "ratios": [1.0]}
    shown = laid_out(
        results,
        exhibit,
        {Key(1.0, row["id"], "Avg", measure): Summary(value, None, 1)
         for row, value in zip(exhibit["rows"], values, strict=True)},
    )  # fmt: skip
    cells = [line.cells[0] for line in shown.blocks[0].lines]
    assert [cell.text for cell in cells] == texts
    assert [i for i, cell in enumerate(cells) if cell.mark == "best"] == best


def test_every_format_shows_the_number_of_the_csv(rough: Path) -> None:
    results = read_results(rough / "grid.json", rough / "runs.parquet")
    exhibit, table = results.exhibit("table2"), numbers(rough, "table2")
    shown = []
    for ratio, row in itertools.product(exhibit["ratios"], exhibit["rows"]):
        cells = [table[f"{ratio:g}", row_label(row), d, "H"] for d in ("world", "flowers", "scripts", "Avg")]
        shown.append([f"{float(m):.2f} ±{float(s):.2f}" if s else f"{float(m):.2f}" if m else "–" for m, s, _ in cells])
    page = [row[1:] for row in Cells((rough / "tables/table2.html").read_text()).rows if len(row) == 5]
    assert page[1:] == shown
    lines = [re.sub(r"\*|</?u>|†|</?sub>", "", line).strip("| ").split(" | ")[1:]
             for line in (rough / "tables/table2.md").read_text().splitlines() if line.startswith("| ")]  # fmt: skip
    assert [line for line in lines if line[0] != "World"] == shown
    tex = (rough / "tables/table2.tex").read_text()
    tex = re.sub(r"\{\\tiny\\phantom.*?0\.00\}\}|\\rlap\{\$\^\\dagger\$\}", "", tex)
    tex = re.sub(r"\{\\tiny\$\\pm\$(.*?)\}", r" ±\1", re.sub(r"\\(textbf|underline)\{(.*?)\}", r"\2", tex)).replace(
        "--", "–"
    )
    rows = [line.removesuffix(r" \\").split(" & ")[1:] for line in tex.splitlines() if line.count(" & ") == 4]
    assert rows[1:] == shown


def test_base_to_new_table_has_h_base_and_new_of_every_dataset_and_their_average(made: Path) -> None:
    table = numbers(made, "table2")
    # IVLP on flowers at 0.06: 51 + 8 + 0 and -1, 0, 1 over the seeds; base +3, new -2.5
    assert table["0.06", "IVLP", "flowers", "H"] == ("59.0", "1.0", "3")
    assert table["0.06", "IVLP", "flowers", "base"] == ("62.0", "1.0", "3")
    assert table["0.06", "IVLP", "flowers", "new"] == ("56.5", "1.0", "3")
    # world 61, flowers 59, scripts 45: mean 55
    assert table["0.06", "IVLP", "Avg", "H"] == ("55.0", "1.0", "3")
    assert table["1", "IVLP", "Avg", "base"] == ("62.0", "1.0", "3")
    assert len(table) == 3 * 5 * 4 * 3


def test_untrained_row_stands_once_per_ratio_with_one_seed_and_no_std(made: Path) -> None:
    table = numbers(made, "table2")
    found = {ratio: table[ratio, "Zero-shot", "flowers", "H"] for ratio in ("1", "0.25", "0.06")}
    assert set(found.values()) == {("54.0", "", "1")}


def test_missing_runs_are_dashes_and_empty_fields_never_zeros(made: Path) -> None:
    table = numbers(made, "table2")
    assert table["0.06", "NPT (reconstruction)", "scripts", "H"] == ("", "", "0")
    assert table["0.06", "NPT (reconstruction)", "Avg", "H"] == ("", "", "0")
    # flowers lacks seed 3: seeds 1 and 2 give 59 and 60
    assert table["0.06", "NPT (reconstruction)", "flowers", "H"] == ("59.5", "0.7071067811865476", "2")
    row = Cells((made / "tables" / "table2.html").read_text()).rows[-3]
    assert row[0].startswith("NPT")
    assert row[3:] == ["–", "–"]
    assert "–: no finished run." in (made / "tables" / "table2.html").read_text()


def test_transfer_averages_leave_the_source_out_and_show_it_first(made: Path) -> None:
    table = numbers(made, "table3")
    # CPT at 0.06 with +1 for accuracy: world 64, flowers 62, scripts 48
    assert table["0.06", "CPT", "world", "accuracy"] == ("64.0", "1.0", "3")
    assert table["0.06", "CPT", "Avg", "accuracy"] == ("55.0", "1.0", "3")
    header = Cells((made / "tables" / "table3.html").read_text()).rows[0]
    assert header[:3] == ["Method", "World (source)", "Flowers"]
    # world_r 52, world_a 42
    assert numbers(made, "table4")["0.06", "CPT", "Avg", "accuracy"] == ("47.0", "1.0", "3")


def test_table_of_tasks_averages_over_datasets(made: Path) -> None:
    table = numbers(made, "table1")
    assert table["0.25", "CPT", "base-to-new", "H"] == ("59.0", "1.0", "3")
    assert table["0.25", "CPT", "cross-dataset", "accuracy"] == ("57.0", "1.0", "3")
    assert table["0.25", "CPT", "domain-generalization", "accuracy"] == ("49.0", "1.0", "3")
    assert table["0.06", "CPT (as printed)", "base-to-new", "H"][0] == "54.0"
    assert len(table) == 2 * 3 * 3


def test_table_of_clusterings_shows_h_and_its_std(made: Path) -> None:
    rows = Cells((made / "tables" / "table5.html").read_text()).rows
    assert rows[1] == ["Clustering", "H", "std ↓", "H", "std ↓"]
    assert rows[2] == ["CPT", "65.00", "1.00", "63.00", "1.00"]
    text = (made / "tables" / "table5.md").read_text()
    assert "| **65.00** | 1.00 | **63.00** | 1.00 |" in text, "a deviation of three seeds ranks nothing"
    assert "standard deviations are not ranked" in text


def test_table_of_measures(made: Path) -> None:
    table = numbers(made, "table6")
    # base of IVLP at 0.06: world 64, flowers 62, scripts 48
    assert table["0.06", "IVLP", "Avg", "base"] == ("58.0", "1.0", "3")
    assert table["0.06", "IVLP", "Avg", "tail"] == ("38.0", "1.0", "3")
    assert table["0.06", "IVLP", "Avg", "tail_as_head"] == ("12.5", "0.0", "3"), "over the two datasets that have it"
    assert table["0.06", "IVLP", "Avg", "ece_base"] == ("6.0", "1.0", "3")
    assert table["0.06", "NPT (reconstruction)", "Avg", "effective_rank"] == ("", "", "0")
    rows = Cells((made / "tables" / "table6.html").read_text()).rows
    assert rows[0] == ["Method", "base ↑", "tail ↑", "tail as head ↓", "ECE base ↓", "effective rank"]
    assert rows[3] == ["IVLP", "58.00 ±1.00", "38.00 ±1.00", "12.50 ±0.00", "6.00 ±1.00", "3.250 ±0.000"]
    page = (made / "tables" / "table6.html").read_text()
    assert "<strong>4.00</strong>" in page, "the lowest calibration error is best"
    assert "<strong>3.250" not in page, "no rank is better"
    assert "Head, medium, tail: thirds of the trained classes" in page
    assert "–: no finished run, or a measure that the method does not have." in page
    assert "Means over 3 datasets, or those of them that have the measure." in page


def wide(values: dict[str, list[dict[int, float]]]) -> tuple[Results, dict]:
    """A table of datasets at one ratio: row -> {seed: H} of every dataset; the reference row is ``ours``."""
    cells, runs, numbers = [], {}, {}
    for row, parts in values.items():
        for i, part in enumerate(parts):
            names = {f"{row}/d{i}/s{seed}": seed for seed in part}
            runs |= {name: {"seed": seed} for name, seed in names.items()}
            numbers |= {(name, f"d{i}", "base+new", "harmonic_mean"): part[seed] for name, seed in names.items()}
            cells.append({"row": row, "task": "base_to_new", "dataset": f"d{i}", "ratio": 1.0, "source": False,
                          "parameter": None, "x": None, "runs": list(names)})  # fmt: skip
    exhibit = {
        "name": "table2", "layout": "datasets", "tasks": ["base_to_new"], "ratios": [1.0], "title": "", "caption": "",
        "rows": [{"id": row, "label": row, "note": None} for row in values], "measures": [], "reference": "ours",
        "cells": cells,
    }  # fmt: skip
    grid = {"experiment": "e", "exhibits": {"table2": exhibit}, "datasets": {}, "backbone": "b", "class_groups": {}}
    return Results(Path(), Path(), grid, runs, frozenset(runs), numbers), exhibit


def once(differences: dict[str, list[float]]) -> tuple[Results, dict]:
    """A table of single runs: ours is 50 on all eight datasets, the others differ from it as told."""
    return wide({row: [{1: 50 + by} for by in parts] for row, parts in {"ours": [0.0] * 8, **differences}.items()})


def test_rows_are_tested_against_the_reference() -> None:
    always, seven, half = [1.0] * 8, [0.9, *[-1.0] * 7], [1.0, -1.1] * 4
    results, exhibit = once({"always": always, "seven": seven, "half": half})
    found = significance(results, exhibit)
    single = {"always": sign_flips(always), "seven": sign_flips(seven), "half": sign_flips(half)}
    assert single["always"] == 2 / 256
    assert found[1.0, "always"] == pytest.approx(3 * single["always"]), "above it counts too"
    assert found[1.0, "seven"] == pytest.approx(max(2 * single["seven"], 3 * single["always"]))
    assert found[1.0, "half"] == pytest.approx(max(single["half"], 2 * single["seven"]))
    assert (1.0, "ours") not in found
    rows = csv_format.write(laid_out(results, exhibit, long_form(results, exhibit))).splitlines()
    assert sum(not row.endswith(",") for row in rows[1:]) == 3, "p stands beside averages only"
    assert significance(results, exhibit | {"reference": None}) == {}


def sign_flips(differences: list[float]) -> float:
    """Share of all sign patterns whose sum is as far from zero."""
    patterns = itertools.product((1, -1), repeat=len(differences))
    sums = [abs(sum(sign * d for sign, d in zip(signs, differences, strict=True))) for signs in patterns]
    return sum(total >= abs(sum(differences)) - 1e-9 for total in sums) / len(sums)


def test_averages_and_tests_use_the_seeds_that_all_datasets_have() -> None:
    """One dataset has further seeds, on which the row is far above the reference; the others know nothing of them."""
    row = [{1: 51.0, 2: 52.0, 3: 90.0, 4: 91.0}, *[{1: 51.0, 2: 52.0}] * 6, {1: 49.0, 2: 48.0}]
    results, exhibit = wide({"ours": [{1: 50.0}] * 8, "row": row})
    found = long_form(results, exhibit)
    assert found[Key(1.0, "row", "d0", "H")].n == 4, "a dataset's own cell shows all of its seeds"
    average = found[Key(1.0, "row", "Avg", "H")]
    assert (average.mean, average.n) == (pytest.approx((7 * 51.5 + 48.5) / 8), 2)
    differences = [1.5] * 7 + [-1.5]
    assert significance(results, exhibit)[1.0, "row"] == pytest.approx(sign_flips(differences))
    assert sign_flips(differences) != sign_flips([21.0, *differences[1:]]), "all seeds of d0 give another p"
    said = (
        "Datasets differ in their seeds: averages, and tests of them, are over the seeds that all datasets of the row"
    )
    assert said in laid_out(results, exhibit, found).notes
    even = wide({"ours": [{1: 50.0}] * 8, "row": row[1:2] * 8})
    assert said not in laid_out(*even, long_form(*even)).notes


def test_a_row_without_a_common_seed_has_no_average() -> None:
    results, exhibit = wide({"ours": [{1: 50.0}] * 8, "row": [{1: 51.0}] * 7 + [{2: 51.0}]})
    assert long_form(results, exhibit)[Key(1.0, "row", "Avg", "H")] == Summary(None, None, 0)
    assert significance(results, exhibit) == {}


@pytest.mark.no_cover
def test_equal_methods_are_rarely_told_apart() -> None:
    """The chance of any mark in a table of equal methods is the level, whatever the number of methods."""
    source, marked = np.random.default_rng(5), 0
    for _ in range(200):
        found = significance(*once({f"row{i}": source.normal(size=8).tolist() for i in range(5)}))
        marked += any(p < SIGNIFICANCE_LEVEL for p in found.values())
    assert marked / 200 < SIGNIFICANCE_LEVEL + 0.04


def test_the_mark_reaches_every_format() -> None:
    cell = Shown("50.00", "1.00", differs=True)
    table = Table("e", "t", "T", "", "", "", "Method", [Column("H")], [Block("", [Line("a", None, [cell])])])
    assert "50.00†" in md.write(table)
    assert r"50.00{\tiny$\pm$1.00}\rlap{$^\dagger$}" in tex.write(table)
    assert "50.00<sup>†</sup>" in html.write(table)


def notes(exhibit: dict, **groups: float) -> str:
    exhibit = {"ratios": [1.0]} | exhibit
    grid = {"experiment": "e", "backbone": "b", "class_groups": {"head": 1, "medium": 1, "tail": 1} | groups}
    return layout_of(exhibit)(Results(Path(), Path(), grid, {}, frozenset(), {}), exhibit).notes({1})


@pytest.mark.parametrize(
    ("datasets", "rows", "said"),
    [
        (4, 2, "With 4 datasets the smallest possible p is above 0.05 after the correction: no row"),
        (6, 3, "p is above 0.05 after the correction: no row can be told from CPT (flipping the signs"),
        (6, 2, "†: average differs from that of CPT, p < 0.05"),
        (11, 13, "†: average differs from that of CPT, p < 0.05"),
    ],
)
def test_the_note_says_whether_so_few_datasets_can_tell(datasets: int, rows: int, said: str) -> None:
    cells = [{"task": "base_to_new", "dataset": f"d{i}", "source": False} for i in range(datasets)]
    named = [{"id": "cpt", "label": "CPT"}, *({"id": f"r{i}", "label": "r"} for i in range(rows - 1))]
    exhibit = {"layout": "datasets", "tasks": ["base_to_new"], "cells": cells, "rows": named, "reference": "cpt"}
    assert said in notes(exhibit)
    assert "†" not in notes(exhibit | {"reference": None})


def test_every_measure_is_explained_alone() -> None:
    """Whichever columns a table has."""
    cells = [{"task": "base_to_new", "dataset": "d", "source": False}]
    exhibit = {"layout": "measures", "tasks": ["base_to_new"], "cells": cells, "rows": [], "reference": None}
    for measures, said in (
        (["ece_new"], "ECE: expected"),
        (["macro_new"], "Macro: mean"),
        (["head_as_tail"], "Head, medium, tail: thirds"),
        (["cluster_etf_distance"], "ETF distance: root"),
        (["tail"], "thirds"),
        (["few_shot"], "Many, medium, few: classes of more than 100,"),
    ):
        assert said in notes(exhibit | {"measures": measures})
    assert "τ = natural: trained on all" in notes(exhibit | {"measures": ["tail"], "ratios": [0.5, "natural"]})
    assert "natural" not in notes(exhibit | {"measures": ["tail"]})
    other = notes(exhibit | {"measures": ["tail"]}, medium=3)
    assert "parts (1:3:1) of the trained classes" in other


@pytest.mark.slow
def test_latex_compiles(made: Path, tmp_path: Path) -> None:
    install(["pdflatex"], ["texlive-latex-recommended"], "LaTeX (Debian package texlive-latex-recommended)")
    tables = "".join(rf"\input{{{made / 'tables' / name}.tex}}\clearpage" for name in NAMES)
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{tables}\end{{document}}"
    (tmp_path / "all.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert f"({len(NAMES)} pages" in done.stdout


def test_average_uses_the_seeds_that_every_dataset_has() -> None:
    assert average([{1: 1.0, 2: 2.0}, {2: 4.0, 3: 9.0}]) == {2: 3.0}
    assert average([{1: 1.0}, {}]) == {}
    assert average([]) == {}
    assert summarize({1: 1.0, 2: 3.0}) == (2.0, pytest.approx(2**0.5), 2)


@pytest.mark.parametrize(
    ("values", "better", "marks"),
    [
        ([1.0, 3.0, 2.0], "higher", [None, "best", "second"]),
        ([1.0, 3.0, 2.0], "lower", ["best", None, "second"]),
        ([1.0, 3.0, 2.0], None, [None, None, None]),
        ([3.0, 3.004, 2.0, 2.0], "higher", ["best", "best", "second", "second"]),
        ([None, 3.0, 2.0], "higher", [None, "best", "second"]),
        ([None, 3.0], "higher", [None, None]),
    ],
)
def test_best_and_second_are_judged_as_shown_and_ties_share_a_mark(values, better, marks) -> None:
    assert rank(values, better) == marks


def test_marks_reach_every_format(made: Path) -> None:
    page = (made / "tables" / "table2.html").read_text()
    assert "<strong>61.00</strong> <small>±1.00</small>" in page
    assert "<u>59.50</u> <small>±0.71</small>" in page
    assert "**61.00** <sub>±1.00</sub>" in (made / "tables" / "table2.md").read_text()
    tex = (made / "tables" / "table2.tex").read_text()
    assert r"\textbf{61.00}{\tiny$\pm$1.00}" in tex
    assert r"\underline{59.50}{\tiny$\pm$0.71}" in tex


# ---- formats -----------------------------------------------------------------------------------


def test_text_is_escaped_in_every_format(made: Path) -> None:
    page = (made / "tables" / "table2.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert "100% &lt;b&gt;markup&lt;/b&gt;" in page
    tex = (made / "tables" / "table2.tex").read_text()
    assert r"100\% \textless{}b\textgreater{}markup" in tex
    assert r"$\tau$ $\rightarrow$ 0 \& a\_b" in tex
    markdown_text = (made / "tables" / "table2.md").read_text()
    assert r"\<script\>alert(1)\</script\>" in markdown_text
    assert r"a\_b" in markdown_text


@pytest.mark.parametrize("name", NAMES)
def test_latex_is_a_booktabs_table_with_equal_rows(made: Path, name: str) -> None:
    tex = (made / "tables" / f"{name}.tex").read_text()
    lines = tex.splitlines()
    floating = "table" if name in ("table4", "table5") else "table*"
    assert lines[1] == rf"\begin{{{floating}}}[t]", "the others would be wider than a column"
    assert lines[-1] == rf"\end{{{floating}}}"
    assert rf"\label{{tab:invented-{name}}}" in lines
    assert [r"\toprule" in lines, r"\midrule" in lines, r"\bottomrule" in lines] == [True] * 3
    columns = len(re.search(r"\\begin\{tabular\}\{(l r*)\}", tex.replace("{l", "{l "))[1].replace(" ", ""))
    for line in lines:
        if line.endswith(r"\\"):
            spanned = sum(int(span) - 1 for span in re.findall(r"\\multicolumn\{(\d+)\}", line))
            assert len(re.findall(r"(?<!\\)&", line)) + 1 + spanned == columns
    body = re.sub(r"\\[{}]", "", tex)
    assert body.count("{") == body.count("}")
    assert tex.isascii()


def test_latex_captions_are_short_and_the_bookkeeping_stands_below(made: Path) -> None:
    text = (made / "tables" / "table2.tex").read_text()
    (caption,) = re.findall(r"\\caption\{(.*)\}\n", text)
    assert caption.endswith(r"What table2 shows: $\tau$ $\rightarrow$ 0 \& a\_b.")
    tabular, below = text.split(r"\end{tabular}")
    assert r"\footnotesize Percent. Mean over 2--3 seeds" in below
    assert "Percent" not in tabular


def test_base_new_and_h_stand_side_by_side_for_every_dataset(made: Path) -> None:
    rows = Cells((made / "tables" / "table2b.html").read_text()).rows
    assert rows[0] == ["", "τ = 0.25", "τ = 0.06"]
    assert rows[1] == ["Method", "base", "new", "H", "base", "new", "H"]
    headings = [row[0] for row in rows if len(row) == 1]
    assert headings == ["Average over 3 datasets", "World", "Flowers", "<script>alert(1)</script>"]
    flowers = rows[rows.index(["Flowers"]) :]
    # IVLP on flowers: 59 + 2 at 0.25; base +3, new -2.5
    assert ["IVLP", "64.00 ±1.00", "58.50 ±1.00", "61.00 ±1.00", "62.00 ±1.00", "56.50 ±1.00", "59.00 ±1.00"] in flowers
    whole, halves = numbers(made, "table2"), numbers(made, "table2b")
    assert halves == {key: cell for key, cell in whole.items() if key[0] != "1"}
    text = (made / "tables" / "table2b.md").read_text()
    assert "Average: mean over 3 datasets; that of H is the mean of their H." in text
    assert "Bold: best mean of the column and dataset" in text


def test_digits_and_deviations_are_chosen_per_table(made: Path) -> None:
    results = read_results(made / "grid.json", made / "runs.parquet")
    for name in ("table2", "table5", "table6"):
        exhibit = results.exhibit(name) | {"decimals": 1, "spread": False}
        table = laid_out(results, exhibit, long_form(results, exhibit))
        cells = [cell for block in table.blocks for line in block.lines for cell in line.cells]
        assert all(re.fullmatch(r"\d+\.\d|3\.25|–", cell.text) for cell in cells)
        assert not any(cell.spread for cell in cells)
        assert ("±" in table.notes) == ("standard deviation" in table.notes) == (name == "table5") or name == "table5"
        assert csv_format.write(table) == (made / "tables" / f"{name}.csv").read_text(), "the numbers are the same"


def test_a_macro_accuracy_that_equals_the_accuracy_is_left_out(made: Path) -> None:
    results = read_results(made / "grid.json", made / "runs.parquet")
    exhibit = results.exhibit("table6") | {"measures": ["base", "macro_base"]}
    base = {key: value for key, value in results.values.items() if key[2:] == ("base", "accuracy")}

    def shown(by: float) -> Table:
        macro = {(*key[:3], "macro_accuracy"): value + by for key, value in base.items()}
        changed = replace(results, values=results.values | macro)
        return laid_out(changed, exhibit, long_form(changed, exhibit))

    assert [column.title for column in shown(0.0).columns] == ["base ↑"]
    assert "Macro base equals base: classes have equally many test images." in shown(0.0).notes
    assert any("macro_base" in row for row in shown(0.0).long_form)
    assert [column.title for column in shown(1.0).columns] == ["base ↑", "macro base ↑"]
    assert "Macro: mean of the classes' accuracies." in shown(1.0).notes


@pytest.mark.parametrize("name", NAMES)
def test_notes_say_what_the_numbers_are(made: Path, name: str) -> None:
    text = (made / "tables" / f"{name}.html").read_text()
    shown = "std is" if name == "table5" else "±"
    assert f", {shown} the sample standard deviation over seeds." in text
    assert ("±" in text) == (name != "table5")
    assert "Backbone: tiny_clip." in text
    assert "Bold: best mean" in text
    assert "significant or not" in text


def test_notes_count_datasets_and_seeds(made: Path) -> None:
    text = (made / "tables" / "table3.html").read_text()
    assert "Avg: mean over 2 datasets of the per-dataset accuracy; the source is left out." in text
    assert "Mean over 3 seeds (without ±: a single run)" in text
    text = (made / "tables" / "table2.html").read_text()
    assert "Mean over 2–3 seeds" in text
    assert "Avg: mean over 3 datasets of the per-dataset H." in text


def test_note_of_a_row_stands_behind_its_label(made: Path) -> None:
    assert 'NPT <small class="note">reconstruction</small>' in (made / "tables" / "table2.html").read_text()
    assert "NPT _(reconstruction)_" in (made / "tables" / "table2.md").read_text()
    assert r"NPT {\tiny(reconstruction)}" in (made / "tables" / "table2.tex").read_text()


def test_markdown_rows_are_as_wide_as_their_header(made: Path) -> None:
    for name in NAMES:
        lines = [line for line in (made / "tables" / f"{name}.md").read_text().splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def test_table_without_spread_leaves_no_room_for_it() -> None:
    line = Line("a | b", None, [Shown("1.00", None, "best")])
    table = Table("mine", "table9", "Table 9", "Title.", "", "", "Method", [Column("H")], [Block("", [line])])
    assert r"\textbf{1.00} \\" in tex.write(table)
    assert r"\begin{table}[t]" in tex.write(table)
    wide = replace(table, columns=[Column("Heading")] * 8, blocks=[])
    assert r"\begin{table*}[t]" in tex.write(wide)
    assert tex.write(wide).endswith("\\end{table*}\n")
    assert r"| a \| b | **1.00** |" in md.write(table)


def test_rows_stand_under_their_family() -> None:
    lines = [
        Line(name, None, [Shown("1.00")], family) for name, family in (("a", "Prompts"), ("b", "P & Q"), ("c", "P & Q"))
    ]
    table = Table("mine", "table9", "Table 9", "T", "", "", "Method", [Column("H")], [Block("τ = 1", lines)])
    assert [line for line in md.write(table).splitlines() if line.startswith("| ")][1:] == [
        "| _Prompts_ |  |", "| a | 1.00 |", r"| _P \& Q_ |  |", "| b | 1.00 |", "| c | 1.00 |",
    ]  # fmt: skip
    rows = tex.write(table).splitlines()
    assert rows[rows.index(r"\multicolumn{2}{l}{\textit{P \& Q}} \\") - 1] == r"a & 1.00 \\"
    assert rows.count(r"\multicolumn{2}{l}{\textit{P \& Q}} \\") == 1
    headings = re.findall(r'<tr class="family"><th colspan="2" scope="rowgroup"><span>(.*?)</span>', html.write(table))
    assert headings == ["Prompts", "P &amp; Q"]


def test_single_runs_are_called_single_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_results, "SEEDS", {1: 0.0})
    grid, runs = fake_results.write_results(tmp_path)
    make_table(grid, runs, "table2", tmp_path)
    assert "Single runs (one seed), so no standard deviation." in (tmp_path / "table2.md").read_text()


@pytest.mark.parametrize(
    ("name", "kept", "columns"),
    [("table2", {"flowers"}, ["Flowers"]), ("table3", {"world", "flowers"}, ["World (source)", "Flowers"])],
)
def test_one_dataset_has_no_average(made: Path, name: str, kept: set[str], columns: list[str]) -> None:
    results = read_results(made / "grid.json", made / "runs.parquet")
    exhibit = results.exhibit(name)
    exhibit = exhibit | {"cells": [cell for cell in exhibit["cells"] if cell["dataset"] in kept]}
    numbers = long_form(results, exhibit)
    table = laid_out(results, exhibit, numbers)
    assert [column.title for column in table.columns] == columns
    assert {len(line.cells) for block in table.blocks for line in block.lines} == {len(columns)}
    assert not any("mean over 1 dataset" in note for note in table.notes)
    key = next(
        key for key in numbers if (key.row, key.ratio, key.dataset) == ("cpt", 0.06, "flowers") and key.metric != "new"
    )
    assert numbers[key._replace(dataset="Avg")] == numbers[key], "the CSV has both"


def test_table_without_runs_says_so(made: Path, tmp_path: Path) -> None:
    results = read_results(made / "grid.json", made / "runs.parquet")
    exhibit = results.exhibit("table2")
    nothing = replace(results, values={}, finished=frozenset())
    table = laid_out(nothing, exhibit, long_form(nothing, exhibit))
    assert "No run has finished." in table.notes
    assert {cell.text for block in table.blocks for line in block.lines for cell in line.cells} == {"–"}


def test_same_inputs_give_the_same_bytes(made: Path, tmp_path: Path) -> None:
    for name in NAMES:
        make_table(made / "grid.json", made / "runs.parquet", name, tmp_path)
    written = {path.name: path.read_bytes() for path in (made / "tables").iterdir()}
    assert written == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(written) == 4 * len(NAMES)


# ---- refusals ----------------------------------------------------------------------------------


def test_unknown_table_is_refused_with_the_nearest_name(made: Path, tmp_path: Path) -> None:
    with pytest.raises(CptError, match=r"no exhibit 'tabel2'; did you mean 'table2'\?"):
        make_table(made / "grid.json", made / "runs.parquet", "tabel2", tmp_path)
    with pytest.raises(CptError, match="'figure1' is a figure"):
        make_table(made / "grid.json", made / "runs.parquet", "figure1", tmp_path)


def test_cell_of_an_unlisted_run_is_refused(made: Path) -> None:
    results = read_results(made / "grid.json", made / "runs.parquet")
    cell = {"task": "base_to_new", "dataset": "flowers", "runs": ["nowhere/s1"]}
    with pytest.raises(CptError, match="names run 'nowhere/s1'"):
        results.seeds(cell)
