"""The ledger of the paper's grid, on numbers that are made up so that every verdict is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from cpt import config, grid
from cpt.files import read_parquet, write_json, write_parquet
from cpt.paths import RUNS
from cpt.report.audit import read_published
from cpt.report.ledger import SCHEMA, VERDICTS, make_ledger

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "config/published.csv"


@pytest.fixture(scope="module")
def asked() -> dict[str, Any]:
    return grid.build(config.load([ROOT / "config/paper.yaml"]), "config/paper.yaml").as_json()


def write(
    folder: Path, asked: dict[str, Any], values: dict[tuple[str, str], list[tuple[str, str, float]]]
) -> pd.DataFrame:
    """Make the ledger of runs with these numbers: (run, target) -> (subset, metric, value)."""
    write_json(folder / "grid.json", asked)
    columns = ("run", "target", "subset", "metric", "epoch", "value")
    lines = [
        dict(zip(columns, (*key, subset, metric, None, value), strict=True))
        for key, numbers in values.items()
        for subset, metric, value in numbers
    ]
    types = [pa.string()] * 4 + [pa.int64(), pa.float64()]
    table = pa.Table.from_pylist(lines, schema=pa.schema(list(zip(columns, types, strict=True))))
    write_parquet(folder / "runs.parquet", table, RUNS, experiment="paper")
    make_ledger(folder / "grid.json", folder / "runs.parquet", PUBLISHED, folder / "report")
    return read_parquet(folder / "report/ledger.parquet", SCHEMA)[0].to_pandas()


def cells(asked: dict[str, Any], table: str) -> list[dict[str, Any]]:
    return asked["exhibits"][table]["cells"]


def test_every_printed_cell_has_a_row(asked: dict[str, Any], tmp_path: Path) -> None:
    found = write(tmp_path, asked, {("none", "none"): [("all", "accuracy", 1.0)]})
    printed = read_published(PUBLISHED)
    assert len(found) == printed["group"].str.match("table[1-5]").sum()
    assert set(found["verdict"]) == {"not run"}
    assert set(found["reason"]) == {"no finished run"}, "config/paper.yaml asks for every printed cell"
    assert list(pd.read_csv(tmp_path / "report/ledger.csv")["printed"]) == list(found["printed"])


def test_verdicts(asked: dict[str, Any], tmp_path: Path) -> None:
    """Seeds around the printed number, far above it, and far below it."""
    printed = read_published(PUBLISHED).set_index(["group", "imbalance_ratio", "row", "dataset", "metric"])["value"]
    shift = {"imagenet": (-0.1, 0.0, 0.1), "dtd": (4.9, 5.0, 5.1), "eurosat": (-5.1, -5.0, -4.9)}
    titles = {"imagenet": "ImageNet", "dtd": "DTD", "eurosat": "EuroSAT"}
    values = {}
    for cell in cells(asked, "table2"):
        if cell["row"] in ("cpt", "npt") and cell["ratio"] == 1 and cell["dataset"] in shift:
            told = printed["table2", 1.0, cell["row"], titles[cell["dataset"]], "H"]
            for run, by in zip(cell["runs"], shift[cell["dataset"]], strict=True):
                values[run, cell["dataset"]] = [("base+new", "harmonic_mean", told + by)]
    found = write(tmp_path, asked, values)
    mine = found[(found["table"] == "table2") & (found["imbalance_ratio"] == 1)].set_index(["row", "dataset"])
    assert [mine.loc[("cpt", name), "verdict"] for name in ("ImageNet", "DTD", "EuroSAT")] == [
        "inside",
        "above",
        "below",
    ]
    assert set(mine.loc["npt"]["verdict"]) == {"reconstruction", "not run"}
    line = mine.loc[("cpt", "DTD")]
    assert line["difference"] == pytest.approx(5)
    assert line["n"] == 3
    assert line["std"] == pytest.approx(0.1)
    half = 4.302652729911275 * 0.1 / 3**0.5  # t of 2 degrees of freedom
    assert [line["low"], line["high"]] == pytest.approx([line["ours"] - half, line["ours"] + half])
    assert mine.loc[("cpt", "Avg"), "verdict"] == "not run", "an average needs all of its datasets"


def test_averages_leave_the_source_out(asked: dict[str, Any], tmp_path: Path) -> None:
    values = {}
    for cell in cells(asked, "table4"):
        if cell["row"] == "cpt" and cell["ratio"] == 0.06:
            for run in cell["runs"]:
                number = 0.0 if cell["source"] else 50.0
                values[run, cell["dataset"]] = [("all", "accuracy", number)]
    found = write(tmp_path, asked, values).set_index(["table", "imbalance_ratio", "row", "dataset"])
    assert found.loc[("table4", 0.06, "cpt", "Avg"), "ours"] == 50
    assert found.loc[("table4", 0.06, "cpt", "ImageNet"), "ours"] == 0
    assert found.loc[("table1", 0.06, "cpt_printed", "domain-generalization"), "ours"] == 50


def test_one_seed_has_no_interval_and_a_spread_needs_two(asked: dict[str, Any], tmp_path: Path) -> None:
    cell = next(c for c in cells(asked, "table5") if c["row"] == "spherical" and c["ratio"] == 0.06)
    found = write(tmp_path, asked, {(cell["runs"][0], "imagenet"): [("base+new", "harmonic_mean", 80.0)]})
    fifth = found[found["table"] == "table5"].set_index(["imbalance_ratio", "row", "metric"])
    assert fifth.loc[(0.06, "spherical", "H"), "verdict"] == "above"
    assert "one seed" in fifth.loc[(0.06, "spherical", "H"), "reason"]
    assert fifth.loc[(0.06, "spherical", "std"), "verdict"] == "not run"
    assert fifth.loc[(0.06, "spherical", "std"), "reason"] == "a standard deviation needs two seeds"


def test_the_spread_has_an_interval_of_its_own(asked: dict[str, Any], tmp_path: Path) -> None:
    cell = next(c for c in cells(asked, "table5") if c["row"] == "spherical" and c["ratio"] == 0.06)
    numbers = dict(zip(cell["runs"], (71.0, 71.5, 72.0, 72.5, 73.0), strict=True))
    values = {(run, "imagenet"): [("base+new", "harmonic_mean", number)] for run, number in numbers.items()}
    line = write(tmp_path, asked, values).query("table == 'table5' and row == 'spherical' and metric == 'std'").iloc[1]
    std = 0.7905694150420949
    assert line["ours"] == pytest.approx(std)
    assert [line["low"], line["high"]] == pytest.approx(
        [std * (4 / 11.143287) ** 0.5, std * (4 / 0.484419) ** 0.5], rel=1e-5
    )


def test_an_experiment_of_its_own_is_not_compared(tmp_path: Path) -> None:
    own = grid.build(config.load([ROOT / "config/config.yaml"]), "config/config.yaml").as_json()
    found = write(tmp_path, own, {("none", "none"): [("all", "accuracy", 1.0)]})
    assert len(found) == 0
    text = (tmp_path / "report/ledger.html").read_text()
    assert "cannot be compared with the paper's" in text
    assert "<table" not in text


def test_the_fragment_explains_its_verdicts(asked: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, asked, {("none", "none"): [("all", "accuracy", 1.0)]})
    text = (tmp_path / "report/ledger.html").read_text()
    assert all(f"<b>{name}: " in text for name in VERDICTS)
