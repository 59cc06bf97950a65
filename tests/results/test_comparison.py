"""``cpt compare`` on invented results whose differences are known."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from rich.console import Console

from cpt.cli.app import run
from cpt.errors import CptError
from cpt.files.paths import PREDICTIONS, RUNS
from cpt.files.stage_files import read_parquet, write_parquet
from cpt.report.terminal.comparison import markdown, significant, terminal
from cpt.results.cells import read_results
from cpt.results.comparison import (
    Comparison,
    Images,
    Line,
    Place,
    Runs,
    compare,
    compare_sides,
    over_images,
    over_runs,
    require_two_sides,
    values_of,
)
from cpt.results.stats import Interval
from tests.helpers.fake_results import write_results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("results")
    write_results(made)
    return made


def test_two_methods(folder: Path) -> None:
    """Every value of CPT is 2 above IVLP's, by construction (tests/helpers/fake_results.py)."""
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


def numbers(values: dict[str, dict[int, float]]) -> dict[Place, float]:
    """Few-shot accuracies at τ = 1: dataset -> seed -> value."""
    return {Place("few_shot", "accuracy", 1.0, d, seed): v for d, of in values.items() for seed, v in of.items()}


def test_a_line_uses_the_seeds_that_all_of_its_datasets_have() -> None:
    """Dataset a has two more seeds, which alone would turn the difference around."""
    first = numbers({"a": {1: 50.0, 2: 52.0, 3: 10.0, 4: 10.0}, "b": {1: 60.0, 2: 62.0, 5: 0.0}})
    second = numbers({"a": {1: 49.0, 2: 51.0, 3: 90.0, 4: 90.0}, "b": {1: 60.0, 2: 60.0, 6: 0.0}})
    (line,), left = compare(first, second)
    assert (line.datasets, line.seeds) == (2, 2)
    assert (line.first, line.second, line.difference.estimate) == (56.0, 55.0, -1.0)
    assert {(place.dataset, place.seed) for place in left} == {("a", 3), ("a", 4), ("b", 5), ("b", 6)}
    with pytest.raises(CptError, match="nothing can be paired"):
        compare(*[numbers({"a": {1: 1.0}, "b": {2: 1.0}})] * 2)


def test_datasets_on_which_both_are_equal_are_not_higher() -> None:
    first = numbers({"a": {1: 50.0}, "b": {1: 50.0}, "c": {1: 50.0}, "d": {1: 50.0}})
    second = numbers({"a": {1: 50.0}, "b": {1: 51.0}, "c": {1: 49.0}, "d": {1: 50.0}})
    assert compare(first, second)[0][0].higher == 1
    assert compare(second, first)[0][0].higher == 1


def test_interval_and_correction_by_hand() -> None:
    """Differences 1, 2, 3 have a standard error of 1/√3; t of 2 degrees of freedom is 4.302653."""
    first = numbers({"a": {1: 10.0, 2: 12.0}, "b": {1: 20.0, 2: 20.0}, "c": {1: 30.0, 2: 30.0}})
    second = numbers({"a": {1: 11.0, 2: 13.0}, "b": {1: 21.0, 2: 23.0}, "c": {1: 34.0, 2: 32.0}})
    first |= {place._replace(ratio=0.06): value for place, value in first.items()}
    by = [1, 1, -1, -1, 0.5, 0.5]
    second |= {place._replace(ratio=0.06): first[place] + change for place, change in zip(second, by, strict=True)}
    full, tail = compare(first, second)[0]
    assert [line.ratio for line in (full, tail)] == [1.0, 0.06]
    half = 4.302652729911275 / 3**0.5
    assert full.difference == pytest.approx((2.0, 2 - half, 2 + half))
    # of 8 sign patterns of 1, 2, 3 two are as far from zero; of 1, -1, 0.5 those of sums 0.5, 1.5 and 2.5: all 8
    assert (full.p, tail.p) == (0.25, 1.0)
    assert (full.corrected, tail.corrected) == (0.5, 1.0)


def test_numbers_of_a_row(folder: Path) -> None:
    """Of CPT on flowers at τ = 0.06: 53 + 8 and the seed's -1, 0, 1; sweeps and the source of transfer are left out."""
    results = read_results(folder / "grid.json", folder / "runs.parquet")
    cells = results.exhibit("table2")["cells"]
    others = [cell | {"row": "cpt", "parameter": "tetf_weight", "x": 0.5} for cell in cells if cell["row"] == "ivlp"]
    results.grid["exhibits"]["figure3"]["cells"] += others
    found = values_of(results, "cpt")
    for metric, offset in (("H", 0.0), ("base", 3.0), ("new", -2.5)):
        assert [found["base_to_new", metric, 0.06, "flowers", seed] for seed in (1, 2, 3)] == [
            60 + offset, 61 + offset, 62 + offset,
        ]  # fmt: skip
    assert {place.dataset for place in found if place.task == "cross_dataset"} == {"flowers", "scripts"}
    assert {place.dataset for place in found if place.task == "base_to_new"} == {"world", "flowers", "scripts"}
    assert {place.metric for place in found if place.task != "base_to_new"} == {"accuracy"}


def test_a_label_of_several_rows_is_refused(folder: Path) -> None:
    """Two rows of the invented tables are called CPT; mixed, they would be a third method."""
    results = read_results(folder / "grid.json", folder / "runs.parquet")
    with pytest.raises(CptError) as caught:
        values_of(results, "CPT")
    assert str(caught.value) == f"{folder}: 'CPT' is the label of several rows; give one of cpt, cptsum"
    assert values_of(results, "IVLP") == values_of(results, "ivlp")


def test_the_same_runs_are_refused(folder: Path, tmp_path: Path) -> None:
    results = read_results(folder / "grid.json", folder / "runs.parquet")
    (tmp_path / "link").symlink_to(folder)
    again = read_results(tmp_path / "link/grid.json", tmp_path / "link/runs.parquet")
    for other in (results, again):
        with pytest.raises(CptError, match=r"cpt is compared with itself; give another row \(cptsum, ivlp, npt, zero"):
            require_two_sides((results, "cpt"), (other, "cpt"))
    require_two_sides((results, "cpt"), (results, "cptsum"))
    copied = shutil.copytree(folder, tmp_path / "copy")
    require_two_sides((results, "cpt"), (read_results(copied / "grid.json", copied / "runs.parquet"), "cpt"))
    asked = json.loads((copied / "grid.json").read_text())
    table = asked["exhibits"]["table5"]
    table["rows"].append({"id": "spherical", "label": "Spherical", "note": None})
    table["cells"] += [cell | {"row": "spherical"} for cell in table["cells"] if cell["row"] == "cpt"]
    (copied / "grid.json").write_text(json.dumps(asked))
    aliased = read_results(copied / "grid.json", copied / "runs.parquet")
    with pytest.raises(CptError, match="spherical and cpt are the same runs; give another row"):
        require_two_sides((aliased, "spherical"), (aliased, "cpt"))


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


def test_images_of_all_seeds_that_both_sides_have(predicted: Path) -> None:
    """Whatever exhibit comes last: it has one run of CPT's three; IVLP lacks the second seed."""
    grid = predicted / "grid.json"
    asked = json.loads(grid.read_text())
    cells = asked["exhibits"]["table2"]["cells"]
    picture = next(cell for cell in cells if cell["row"] == "cpt")
    asked["exhibits"]["figure2"] = {"kind": "method", "rows": [], "cells": [picture | {"runs": picture["runs"][:1]}]}
    other = next(cell for cell in cells if cell["row"] == "ivlp")
    other["runs"].pop(1)
    grid.write_text(json.dumps(asked))
    results = read_results(grid, predicted / "runs.parquet")
    (found,) = over_images((results, "ivlp"), (results, "cpt"))
    base, new = 70.0, (70 + 40) / 2
    assert found.difference.estimate == pytest.approx(2 * base * new / (base + new) - 60)


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

    monkeypatch.setenv("COLUMNS", "40")
    code, out, _ = call("ivlp", "cpt", "--results", str(folder))
    assert code == 0
    assert f"A: ivlp in {folder}\nB: cpt in {folder}\n" in out
    assert "+2.00" in out
    told = " ".join(out.split())
    assert "Percentage points; means over 3 seeds." in told
    assert " can be significant: with 3 datasets, the smallest possible Holm p is above 0.05." in told
    assert "interquartile mean over all runs" in out
    assert "Interquartile mean: of the middle half of all runs, without the lowest and the highest quarter." in told
    assert "94 % [" in out
    assert "over test images" not in out
    code, _, err = call(str(folder), str(folder), "--row", "ivlp")
    assert code == 1
    assert "ivlp is compared with itself" in err
    bracketed = shutil.copytree(folder, tmp_path / "[/a] :smile:")
    code, out, _ = call(str(folder), str(bracketed), "--row", "ivlp")
    assert code == 0
    assert "+0.00" in out
    assert f"B: ivlp in {bracketed}\n" in out
    code, _, err = call("ivlp", "cpt", "--results", str(folder), "--images")
    assert code == 1
    assert "predictions.parquet: not found" in err
    code, _, err = call("ivlp", "cptt", "--results", str(folder))
    assert code == 1
    assert "no row 'cptt'" in err
    assert "cpt" in err
    code, _, err = call(str(folder), "cpt")
    assert code == 1
    assert err.endswith("a folder; give two folders (and --row), or two rows (and --results)\n")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, "ivlp")
    code, out, _ = call("ivlp", "cpt", "--results", str(folder))
    assert code == 0, "with --results they are rows, whatever folders are called"
    code, _, err = call(str(folder), str(folder.parent / "none"))
    assert code == 1
    assert f"{folder.parent}/none: no results (runs.parquet) there; give results/<experiment>" in err


def test_what_two_rows_of_one_method_differ_in_is_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The second experiment trains IVLP longer, and on flowers at another rate, too."""
    other = shutil.copytree(folder, tmp_path / "other")
    table, _ = read_parquet(other / "runs.parquet", RUNS)
    rows = table.to_pylist()
    for row in rows:
        changes = {"epochs": 24} | ({"learning_rate": 0.01} if row["dataset"] == "flowers" else {})
        row["hyperparameters"] = json.dumps(json.loads(row["hyperparameters"]) | changes)
    write_parquet(other / "runs.parquet", pa.Table.from_pylist(rows, schema=table.schema), RUNS)

    def call(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["cpt", "compare", *words])
        code = run()
        out, err = capsys.readouterr()
        assert bool(code) == bool(err)
        return err or out

    out = call(str(folder), str(other), "--row", "ivlp")
    assert (
        f"B: ivlp in {other}\nepochs: 12 in A, 24 in B\nlearning_rate: 0.0025 in A, 0.01 in B, trained on flowers\n"
        in out
    )
    told = json.loads(call(str(folder), str(other), "--row", "ivlp", "--format", "json"))
    assert told["changed"][0] == {"name": "epochs", "first": [12], "second": [24], "datasets": []}
    assert "learning_rate" not in call("ivlp", "cpt", "--results", str(folder)), "of two methods"


def test_only_some_datasets(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    results = read_results(folder / "grid.json", folder / "runs.parquet")
    first, second = (results, "ivlp"), (results, "cpt")
    found = compare_sides(first, second, datasets=["flowers"])
    assert {line.datasets for line in found.over_datasets if line.task == "base_to_new"} == {1}
    h = next(line for line in found.over_datasets if (line.metric, line.ratio) == ("H", 0.06))
    values = values_of(results, "cpt")
    own = [values[Place("base_to_new", "H", 0.06, "flowers", seed)] for seed in (1, 2, 3)]
    assert h.second == pytest.approx(sum(own) / 3)
    monkeypatch.setattr(sys, "argv", ["cpt", "compare", "ivlp", "cpt", "--results", str(folder), "--dataset", "flower"])
    assert run() == 1
    assert "neither row has a dataset 'flower'; did you mean 'flowers'?" in capsys.readouterr().err


def test_the_formats(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """CSV and JSON hold the same unrounded numbers; Markdown is the terminal's tables."""

    def call(form: str) -> str:
        words = ["cpt", "compare", "ivlp", "cpt", "--results", str(folder), "--format", form]
        monkeypatch.setattr(sys, "argv", words)
        assert run() == (2 if form == "jsno" else 0)
        out, err = capsys.readouterr()
        return out or err

    results = read_results(folder / "grid.json", folder / "runs.parquet")
    lines, left = compare(values_of(results, "ivlp"), values_of(results, "cpt"))
    table = pd.read_csv(io.StringIO(call("csv")))
    told = json.loads(call("json"))
    assert (told["a_name"], told["b_name"]) == (f"ivlp in {folder}", f"cpt in {folder}")
    assert set(table["a_name"]) == {told["a_name"]}
    assert len(told["left_out"]) == len(left)
    from_json = pd.DataFrame(told["rows"]).to_csv(index=False)
    pd.testing.assert_frame_equal(table.iloc[:, 2:], pd.read_csv(io.StringIO(from_json)), check_like=True)
    of_datasets = table[table["over"] == "datasets"]
    assert of_datasets["difference"].tolist() == [line.difference.estimate for line in lines]
    assert of_datasets["p_holm"].tolist() == [line.corrected for line in lines]
    assert set(table["over"]) == {"datasets", "runs"}
    assert table["b_beats_a"].dropna().between(0, 1).all()
    text = call("md")
    assert text.startswith(f"- A: ivlp in {folder}\n- B: cpt in {folder}\n\n**base-to-new, mean over datasets")
    assert "| τ | metric | A | B | B - A | 95 % interval | B higher | p | Holm |\n| --: | --- | --: |" in text
    assert "'jsno' is not one of 'table', 'md', 'csv', 'json'" in call("jsno")


def test_only_the_corrected_test_makes_a_difference_significant() -> None:
    """Of two differences with p = 0.04 none is; the one with p = 0.01 is."""
    line = Line("base_to_new", "H", 0.06, 11, 3, 70.0, 72.5, Interval(2.5, 0.5, 4.5), 9, 0.04, 0.08)
    assert significant([line, line]) == "Significant (Holm < 0.05): none."
    better = line._replace(ratio=1.0, p=0.01, corrected=0.02)
    assert significant([line, better]) == "Significant (Holm < 0.05): base-to-new H at τ = 1 (+2.50)."
    few = line._replace(datasets=5, p=0.0625, corrected=0.0625)
    told = "None of 1 difference can be significant: with 5 datasets, the smallest possible Holm p is above 0.05."
    assert significant([few]) == told
    assert significant([few._replace(datasets=6)]) == "Significant (Holm < 0.05): none."


def test_numbers_are_whole_in_80_columns() -> None:
    """The widest numbers that there can be, and a dataset whose name is folded in their favor."""
    interval, name = Interval(-10.47, -12.34, -10.25), "my_own_dataset_of_" * 4
    where = "domain_generalization", "accuracy", 0.0625
    line = Line(*where, datasets=11, seeds=3, first=100.0, second=89.53, difference=interval, higher=10, p=0.125,
                corrected=0.25)  # fmt: skip
    runs = Runs(*where, Interval(100.0, 99.99, 100.0), Interval(89.53, 88.88, 90.12), Interval(0.5, 0.25, 0.75))
    images = Images(*where, name, 1_234_567, interval)
    written = io.StringIO()
    console = Console(width=80, file=written, markup=False)
    found = Comparison("a", "b", [], [line], [runs], [images], [])
    for table in terminal(found):
        console.print(table)
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    rows = [" ".join(text.split()) for text in lines if text.strip().startswith("0.0625")]
    assert rows[0] == "0.0625 accuracy 100.00 89.53 -10.47 -12.34 … -10.25 10 of 11 0.125 0.250"
    assert rows[1] == "0.0625 accuracy 100.00 [99.99 … 100.00] 89.53 [88.88 … 90.12] 50 % [25 … 75]"
    assert rows[2].endswith("accuracy 1,234,567 -10.47 -12.34 … -10.25")
    folded = [text for text in lines if "my_own" in text or "_of_" in text]
    assert len(folded) > 1
    words = "".join(word for text in folded for word in text.split() if "_" in word)
    assert words == name
    assert f"| 0.0625 | {name} | accuracy | 1,234,567 | -10.47 | -12.34 … -10.25 |" in markdown(found)
