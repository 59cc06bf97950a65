"""``cpt compare`` on invented results whose differences are known."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cpt.cli import run
from cpt.errors import CptError
from cpt.files import read_parquet, write_parquet
from cpt.paths import PREDICTIONS
from cpt.report.comparison import Place, compare, over_images, over_runs, values_of
from cpt.report.results import read_results
from tests.fake_results import write_results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("results")
    write_results(made)
    return made


def test_two_methods(folder: Path) -> None:
    """Every value of CPT is 2 above IVLP's, by construction (tests/fake_results.py)."""
    results = read_results(folder / "grid.json", folder / "runs.parquet")
    lines, left = compare(values_of(results, "ivlp"), values_of(results, "cpt"))
    assert lines
    assert all(line.difference.estimate == pytest.approx(2) for line in lines if line.metric == "H")
    assert all(line.higher == line.datasets for line in lines)
    assert all(line.p <= line.corrected <= 1 for line in lines)
    assert not any(place.metric == "H" for place in left)


def test_a_method_without_seeds_meets_every_seed() -> None:
    first = {Place("base_to_new", "H", 1.0, d, 0): 50.0 for d in "ab"}
    second = {Place("base_to_new", "H", 1.0, d, s): 50.0 + s for d in "ab" for s in (1, 2, 3)}
    (line,), left = compare(first, second)
    assert (line.seeds, line.datasets, line.difference.estimate, left) == (3, 2, 2.0, [])


def test_what_only_one_side_has_is_told() -> None:
    first = {Place("few_shot", "accuracy", 1.0, d, 1): 1.0 for d in "ab"}
    second = {Place("few_shot", "accuracy", 1.0, d, 1): 2.0 for d in "bc"}
    (line,), left = compare(first, second)
    assert line.datasets == 1
    assert [place.dataset for place in left] == ["a", "c"]
    with pytest.raises(CptError, match="nothing can be paired"):
        compare({Place("few_shot", "accuracy", 1.0, "a", 1): 1.0}, {Place("few_shot", "accuracy", 1.0, "a", 2): 1.0})


def test_p_of_ten_equal_differences() -> None:
    """All of 2^10 sign patterns but two have a smaller mean: p = 2 / 1024."""
    names = "abcdefghij"
    first = {Place("few_shot", "accuracy", 1.0, d, 1): 1.0 for d in names}
    second = dict.fromkeys(first, 2.0)
    (line,), _ = compare(first, second)
    assert line.p == line.corrected == pytest.approx(2 / 1024)


def test_all_runs_of_two_methods(folder: Path) -> None:
    """Seeds differ by -1, 0 and 1, so that of nine pairs of runs that are 2 apart one is level."""
    results = read_results(folder / "grid.json", folder / "runs.parquet")
    found = over_runs(values_of(results, "ivlp"), values_of(results, "cpt"))
    line = next(line for line in found if (line.task, line.ratio) == ("base_to_new", 0.06))
    assert line.metric == "H"
    assert line.improvement.estimate == pytest.approx(8.5 / 9)
    # of 44, 45, 46 (scripts), 58, 59, 60 (flowers), 60, 61, 62 (world) the middle five
    assert line.first.estimate == pytest.approx((58 + 59 + 60 + 60 + 46) / 5)
    assert line.second.estimate == pytest.approx(line.first.estimate + 2)
    assert line.first.low < line.first.estimate < line.first.high
    seedless = over_runs(values_of(results, "zeroshot"), values_of(results, "cpt"))
    assert seedless[0].first.low == seedless[0].first.high


@pytest.fixture
def predicted(tmp_path: Path) -> Path:
    """Two rows on flowers; IVLP is right on the first 60 of 100 images, CPT on 70, its third seed on 40 of new."""
    grid, _ = write_results(tmp_path)
    asked = json.loads(grid.read_text())
    table = asked["exhibits"]["table2"]
    wanted = [
        c for c in table["cells"] if (c["dataset"], c["ratio"]) == ("flowers", 0.06) and c["row"] in ("ivlp", "cpt")
    ]
    asked["exhibits"] = {"table2": table | {"cells": wanted}}
    grid.write_text(json.dumps(asked))
    for cell in wanted:
        for seed, name in enumerate(cell["runs"], start=1):
            parts = []
            for subset in ("base", "new"):
                right = 60 if cell["row"] == "ivlp" else 40 if (seed, subset) == (3, "new") else 70
                order = np.random.default_rng(seed).permutation(100)
                where = {"target": ["flowers"] * 100, "subset": [subset] * 100, "epoch": pa.nulls(100, pa.int64())}
                labels = {"label": [0] * 100, "top_labels": [[int(row >= right), 2] for row in order]}
                parts.append(pa.table(where | {"row": order} | labels))
            write_parquet(tmp_path / "runs" / name / "predictions.parquet", pa.concat_tables(parts), PREDICTIONS)
    return tmp_path


def test_image_by_image(predicted: Path) -> None:
    results = read_results(predicted / "grid.json", predicted / "runs.parquet")
    (found,) = over_images((results, "ivlp"), (results, "cpt"))
    base, new = 70.0, (70 + 70 + 40) / 3
    assert (found.dataset, found.metric, found.images) == ("flowers", "H", 200)
    assert found.difference.estimate == pytest.approx(2 * base * new / (base + new) - 60)
    assert found.difference.low < found.difference.estimate < found.difference.high
    (same,) = over_images((results, "cpt"), (results, "cpt"))
    assert same.difference == (0, 0, 0)


def test_other_images_are_refused(predicted: Path) -> None:
    results = read_results(predicted / "grid.json", predicted / "runs.parquet")
    for path in predicted.rglob("cpt/s*/predictions.parquet"):
        write_parquet(path, read_parquet(path, PREDICTIONS)[0].slice(1), PREDICTIONS)
    with pytest.raises(CptError, match="flowers: the two sides predict other test images"):
        over_images((results, "ivlp"), (results, "cpt"))


def test_the_command(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cpt", "compare", *words])
        code = run()
        return code, *capsys.readouterr()

    code, out, _ = call("ivlp", "cpt", "--results", str(folder))
    assert code == 0
    assert "+2.00" in out
    assert "cpt minus ivlp, percentage points" in out
    assert "cpt beats ivlp" in out
    assert "94 % [" in out
    assert "over images" not in out
    code, out, _ = call(str(folder), str(folder), "--row", "ivlp")
    assert code == 0
    assert "+0.00" in out
    bracketed = shutil.copytree(folder, tmp_path / "[/a] :smile:")
    code, out, _ = call(str(folder), str(bracketed), "--row", "ivlp")
    assert code == 0
    assert f"ivlp in {bracketed} minus ivlp in {folder}" in out
    code, _, err = call("ivlp", "cpt", "--results", str(folder), "--images")
    assert code == 1
    assert "predictions.parquet: not found" in err
    code, _, err = call("ivlp", "cptt", "--results", str(folder))
    assert code == 1
    assert "no row 'cptt'" in err
    assert "cpt" in err
