"""config/published.csv: complete, consistent with itself, with the variants, the catalog and the documents."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path
from statistics import mean

import pytest
import yaml

from cpt.data.catalog import load_catalog
from cpt.experiment.config import load
from cpt.experiment.grid import build

with open("config/published.csv", encoding="utf-8") as file:
    ROWS = list(csv.DictReader(file))
with open("config/published_groups.csv", encoding="utf-8") as file:
    GROUPS = {row["group"]: row for row in csv.DictReader(file)}
PAPER = build(load([Path("config/paper.yaml")]), "paper")


def test_every_cell_of_the_tables_is_there_once() -> None:
    count = Counter(row["group"] for row in ROWS)
    assert [count[f"table{i}"] for i in range(1, 6)] == [30, 216, 216, 126, 16]
    keys = [tuple(row[name] for name in ("group", "imbalance_ratio", "method", "dataset", "metric")) for row in ROWS]
    assert len(set(keys)) == len(keys)
    assert set(count) == set(GROUPS)
    assert all(group["source"] and group["caveat"] for group in GROUPS.values())


def test_rows_are_variants_and_datasets_counterparts() -> None:
    variants = yaml.safe_load(Path("config/variants.yaml").read_text())["variants"]
    assert {row["row"] for row in ROWS} - {""} <= set(variants)
    titles = {entry.counterpart for entry in load_catalog(Path("config/datasets.yaml")).values()}
    tasks = {"base-to-new", "cross-dataset", "domain-generalization"}
    assert {row["dataset"] for row in ROWS} <= titles | tasks | {"Avg"}


@pytest.mark.parametrize(("table", "left_out"), [("table2", ()), ("table3", ("ImageNet",)), ("table4", ("ImageNet",))])
def test_printed_averages_are_means_of_the_printed_cells(table: str, left_out: tuple[str, ...]) -> None:
    cells: dict[tuple[str, str], dict[str, float]] = {}
    for row in ROWS:
        if row["group"] == table:
            cells.setdefault((row["imbalance_ratio"], row["row"]), {})[row["dataset"]] = float(row["value"])
    for key, values in cells.items():
        found = mean(value for name, value in values.items() if name not in ("Avg", *left_out))
        assert values["Avg"] == pytest.approx(found, abs=0.0101), key


def test_printed_rows_are_rows_of_the_papers_grid() -> None:
    """Every printed cell of Tables 1-5 has a cell in the grid, and the grid has every method, dataset and τ printed."""
    for row in ROWS:
        if not row["group"].startswith("table") or row["dataset"] == "Avg":
            continue
        exhibit = PAPER.exhibits[row["group"]]
        cells = [c for c in exhibit["cells"] if c["row"] == row["row"] and c["ratio"] == float(row["imbalance_ratio"])]
        if row["group"] == "table1":
            assert row["dataset"].replace("-", "_") in {cell["task"] for cell in cells}
        else:
            titles = {PAPER.catalog[cell["dataset"]].title for cell in cells}
            assert row["dataset"] in titles, row


def test_the_document_states_the_published_zero_shot_accuracies() -> None:
    text = Path("docs/datasets.md").read_text(encoding="utf-8")
    shown = {}
    for line in re.findall(r"^\| (\S+) \| ([0-9.| ]+) \|$", text, re.MULTILINE):
        metrics = ("base", "new", "H") if line[1].count("|") == 2 else ("accuracy",)
        shown |= {(line[0], metric): value for metric, value in zip(metrics, line[1].split(" | "), strict=True)}
    assert shown == {(r["dataset"], r["metric"]): r["value"] for r in ROWS if r["group"] == "zeroshot"}
