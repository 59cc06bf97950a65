"""The ledger of the paper's grid, on numbers that are made up so that every verdict is known."""

from __future__ import annotations

import copy
import html
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from cpt.cli.app import run
from cpt.errors import CptError
from cpt.experiment import config, grid
from cpt.files.paths import RUNS
from cpt.files.stage_files import read_parquet, write_json, write_parquet
from cpt.report.printed.ledger import SCHEMA, VERDICTS, make_ledger
from cpt.report.printed.published import read_published

ROOT = Path(__file__).parents[2]
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
    make_ledger(folder, PUBLISHED)
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
    shift = {"imagenet": (-0.1, 0.0, 0.1), "dtd": (4.9, 5.0, 5.1), "eurosat": (-5.1, -5.0, -4.9)}
    titles = {"imagenet": "ImageNet", "dtd": "DTD", "eurosat": "EuroSAT"}
    values = {}
    for cell in cells(asked, "table2"):
        if cell["row"] in ("cpt", "npt") and cell["ratio"] == 1 and cell["dataset"] in shift:
            told = PRINTED["table2", 1.0, cell["row"], titles[cell["dataset"]], "H"]
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


KEYS = ["group", "imbalance_ratio", "row", "dataset", "metric"]
PRINTED = {key: values["value"].iloc[0] for key, values in read_published(PUBLISHED).groupby(KEYS)}
TITLES = {"imagenet": "ImageNet", "caltech101": "Caltech101", "oxford_pets": "OxfordPets", "ucf101": "UCF101",
          "stanford_cars": "StanfordCars", "oxford_flowers": "Flowers102", "food101": "Food101", "dtd": "DTD",
          "fgvc_aircraft": "FGVCAircraft", "sun397": "SUN397", "eurosat": "EuroSAT"}  # fmt: skip
HALF_OF_THREE = 4.302652729911275 * 0.1 / 3**0.5
"""Half the interval of three seeds that are 0.1 apart: Student's t of 2 degrees of freedom."""


def of_table2(
    asked: dict[str, Any], folder: Path, seeds: dict[str, list[float]], row: str = "cpt", datasets: Any = TITLES
) -> pd.DataFrame:
    """Ledger of a row of Table 2 at τ = 1 by dataset; ``seeds``: dataset -> what its runs differ by from the print."""
    values = {}
    for cell in cells(asked, "table2"):
        name = cell["dataset"]
        if cell["row"] == row and cell["ratio"] == 1 and name in datasets:
            printed = PRINTED["table2", 1.0, row, TITLES[name], "H"]
            for run, by in zip(cell["runs"], seeds.get(name, seeds.get("", [])), strict=False):
                values[run, name] = [("base+new", "harmonic_mean", printed + by)]
    found = write(folder, asked, values)
    return found[(found["table"] == "table2") & (found["imbalance_ratio"] == 1) & (found["row"] == row)].set_index(
        "dataset"
    )


@pytest.mark.parametrize(
    ("beyond", "verdict"), [(0.004, "inside"), (0.006, "below"), (-0.004, "inside"), (-0.006, "above")]
)
def test_the_printed_number_was_rounded(asked: dict[str, Any], tmp_path: Path, beyond: float, verdict: str) -> None:
    """It is inside where a number that is printed like it lies in the interval: up to 0.005 beyond its bounds."""
    shift = -beyond - (HALF_OF_THREE if beyond > 0 else -HALF_OF_THREE)
    line = of_table2(asked, tmp_path, {"imagenet": [shift - 0.1, shift, shift + 0.1]}).loc["ImageNet"]
    bound = line["high"] if beyond > 0 else line["low"]
    assert line["printed"] - bound == pytest.approx(beyond)
    assert line["verdict"] == verdict


@pytest.mark.no_cover
def test_an_interval_that_could_hold_every_row_tells_nothing(asked: dict[str, Any], tmp_path: Path) -> None:
    """ImageNet's column of Table 2 spans 1.06 points at τ = 1; three seeds that are d apart have 4.97 d."""
    column = [
        PRINTED["table2", 1.0, row, "ImageNet", "H"] for row in ("maple", "coprompt", "npt", "dekg", "dpc", "cpt")
    ]
    span = max(column) - min(column)
    assert span == pytest.approx(1.06)
    step = span / (20 * HALF_OF_THREE)
    for by, verdict in ((0.99 * step, "inside"), (1.01 * step, "too wide to tell")):
        found = of_table2(asked, tmp_path, {"imagenet": [-by, 0, by]})
        assert found.loc["ImageNet", "verdict"] == verdict
    assert "the printed column spans 1.06" in found.loc["ImageNet", "reason"]
    two = of_table2(asked, tmp_path, {"imagenet": [-4.0, 4.0]}).loc["ImageNet"]
    assert two["high"] > 100, "12.7 standard errors to either side"
    assert two["verdict"] == "too wide to tell"
    far = of_table2(asked, tmp_path, {"imagenet": [19.0, 20.0, 21.0]}).loc["ImageNet"]
    assert far["verdict"] == "above", "a wide interval that excludes the printed number tells something"


def test_an_average_over_other_datasets_has_no_verdict(asked: dict[str, Any], tmp_path: Path) -> None:
    same = [-0.1, 0.0, 0.1]
    whole = of_table2(asked, tmp_path, {"": same})
    assert whole.loc["Avg", "verdict"] == "inside"
    assert whole.loc["Avg", "difference"] == pytest.approx(0, abs=0.01)
    part = copy.deepcopy(asked)
    table = part["exhibits"]["table2"]
    table["cells"] = [cell for cell in table["cells"] if cell["dataset"] in ("imagenet", "dtd")]
    found = of_table2(part, tmp_path, {"": same})
    assert found.loc[["ImageNet", "DTD"], "verdict"].tolist() == ["inside", "inside"]
    line = found.loc["Avg"]
    assert (line["verdict"], line["n"]) == ("not comparable", 3)
    assert pd.isna(line["difference"])
    assert line["ours"] == pytest.approx((PRINTED["table2", 1.0, "cpt", "ImageNet", "H"]
                                          + PRINTED["table2", 1.0, "cpt", "DTD", "H"]) / 2)  # fmt: skip
    assert line["reason"] == "average over 2 datasets, the printed one over 11 (2 in both)"


def test_averages_of_table_1_are_over_the_datasets_of_the_other_tables(asked: dict[str, Any], tmp_path: Path) -> None:
    part = copy.deepcopy(asked)
    table = part["exhibits"]["table1"]
    table["cells"] = [cell for cell in table["cells"] if cell["dataset"] != "ucf101"]
    values = {(run, cell["dataset"]): [("all", "accuracy", 50.0 + i), ("base+new", "harmonic_mean", 50.0 + i)]
              for cell in table["cells"] if cell["row"] == "ivlp" for i, run in enumerate(cell["runs"])}  # fmt: skip
    found = write(tmp_path, part, values).query("table == 'table1' and row == 'ivlp' and imbalance_ratio == 0.06")
    verdicts = found.set_index("dataset")["verdict"].to_dict()
    assert verdicts == {
        "base-to-new": "not comparable",
        "cross-dataset": "not comparable",
        "domain-generalization": "below",
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"derived_split": True}, "derived split of dtd: other images"),
        ({"title": "Textures"}, "not a dataset of the paper: dtd"),
    ],
)
def test_other_images_have_no_verdict(asked: dict[str, Any], tmp_path: Path, change: dict, reason: str) -> None:
    other = copy.deepcopy(asked)
    other["datasets"]["dtd"] |= change
    found = of_table2(other, tmp_path, {"": [-0.1, 0.0, 0.1]})
    for dataset in ("DTD", "Avg"):
        assert found.loc[dataset, ["verdict", "reason"]].tolist() == ["not comparable", reason]
    assert found.loc["ImageNet", "verdict"] == "inside"


def test_a_table_of_another_task_is_not_compared(asked: dict[str, Any], tmp_path: Path) -> None:
    other = copy.deepcopy(asked)
    table = other["exhibits"]["table2"]
    table["tasks"] = ["few_shot"]
    table["cells"] = [cell | {"task": "few_shot"} for cell in table["cells"]]
    values = {(run, "dtd"): [("all", "accuracy", 70.0)] for cell in table["cells"] for run in cell["runs"]}
    assert set(write(tmp_path, other, values).query("table == 'table2'")["verdict"]) == {"not run"}


def test_an_average_says_that_it_leaves_seeds_out(asked: dict[str, Any], tmp_path: Path) -> None:
    found = of_table2(asked, tmp_path, {"": [-0.1, 0.0, 0.1], "dtd": [-0.1, 0.0]})
    assert found["n"].to_dict() == {**dict.fromkeys(TITLES.values(), 3), "DTD": 2, "Avg": 2}
    assert "only the seeds that all of its datasets have" in found.loc["Avg", "reason"]
    assert "seeds" not in found.loc["ImageNet", "reason"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backbone": {"name": "b-32", "architecture": "ViT-B-32-quickgelu", "pretrained": "openai"}}, "backbone"),
        ({"backbone": {"name": "b", "architecture": "ViT-B-16", "pretrained": "laion2b_s34b_b88k"}}, "backbone"),
        ({"evaluate_on": "val"}, "test images"),
    ],
)
def test_only_the_printed_backbone_and_test_images_are_printed(change: dict[str, Any], said: str) -> None:
    paper = {"extends": str(ROOT / "config/paper.yaml")}
    with pytest.raises(CptError, match=rf"^my.yaml: printed: true is for .*{said}.*; set printed: false$"):
        config.parse(paper | change, "my.yaml")
    assert not config.parse(paper | change | {"printed": False}, "my.yaml").printed


def test_cells_that_were_not_run_are_folded_away(asked: dict[str, Any], tmp_path: Path) -> None:
    found = of_table2(asked, tmp_path, {"eurosat": [-0.1, 0.0, 0.1]})
    absent = len(read_parquet(tmp_path / "report/ledger.parquet", SCHEMA)[0]) - 1
    assert (found["verdict"] != "not run").sum() == 1
    shown, folded = (tmp_path / "report/ledger.html").read_text().split("<details>")
    assert shown.split("<tbody>")[1].count("<tr>") == 1
    assert "<td>EuroSAT</td>" in shown
    assert f"<summary>{absent} printed cells that were not run</summary>" in folded
    assert folded.split("<tbody>")[1].count("<tr>") == absent


def test_the_command_counts(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    of_table2(asked, tmp_path, {"eurosat": [-0.1, 0.0, 0.1]})
    printed = len(read_parquet(tmp_path / "report/ledger.parquet", SCHEMA)[0])
    monkeypatch.setattr(sys, "argv", ["cpt", "ledger", "--results", str(tmp_path), "--published", str(PUBLISHED)])
    assert run() == 0
    told = f"1 of {printed} printed cells were run: 1 inside\nwrote {tmp_path}/report/ledger.csv\n"
    assert capsys.readouterr().out == told
    write_json(tmp_path / "grid.json", asked | {"printed": False, "backbone": "vit-l-14"})
    assert run() == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{tmp_path}: not compared: the printed numbers are of OpenAI's CLIP ViT-B/16 on ")
    assert line.endswith("this experiment, with vit-l-14, has printed: false")


def test_averages_leave_the_source_out(asked: dict[str, Any], tmp_path: Path) -> None:
    values = {}
    for cell in cells(asked, "table4"):
        if cell["row"] == "cpt" and cell["ratio"] == 0.06:
            for run in cell["runs"]:
                number = 0.0 if cell["source"] else 50.0
                values[run, cell["dataset"]] = [("all", "accuracy", number)]
    found = write(tmp_path, asked, values)
    ours = {
        tuple(row[:4]): row[4]
        for row in found[["table", "row", "dataset", "imbalance_ratio", "ours"]].itertuples(index=False)
    }
    assert ours["table4", "cpt", "Avg", 0.06] == 50
    assert ours["table4", "cpt", "ImageNet", 0.06] == 0
    assert ours["table1", "cpt_printed", "domain-generalization", 0.06] == 50


def test_one_seed_has_no_interval_and_a_spread_needs_two(asked: dict[str, Any], tmp_path: Path) -> None:
    cell = next(c for c in cells(asked, "table5") if c["row"] == "spherical" and c["ratio"] == 0.06)
    found = write(tmp_path, asked, {(cell["runs"][0], "imagenet"): [("base+new", "harmonic_mean", 80.0)]})
    fifth = found[found["table"] == "table5"].set_index(["imbalance_ratio", "row", "metric"])
    assert fifth.loc[(0.06, "spherical", "H"), "verdict"] == "too wide to tell"
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
    text = html.unescape((tmp_path / "report/ledger.html").read_text())
    assert "Not compared with the paper: the printed numbers are of OpenAI's CLIP ViT-B/16" in text
    assert "<table" not in text


def test_the_fragment_explains_its_verdicts(asked: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, asked, {("none", "none"): [("all", "accuracy", 1.0)]})
    text = (tmp_path / "report/ledger.html").read_text()
    assert all(f"<b>{name}: " in text for name in VERDICTS)
