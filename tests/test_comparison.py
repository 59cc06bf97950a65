"""``cpt compare`` on invented results whose differences are known."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from cpt.cli import run
from cpt.errors import CptError
from cpt.report.comparison import Place, compare, values_of
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
    code, out, _ = call(str(folder), str(folder), "--row", "ivlp")
    assert code == 0
    assert "+0.00" in out
    bracketed = shutil.copytree(folder, tmp_path / "[/a] :smile:")
    code, out, _ = call(str(folder), str(bracketed), "--row", "ivlp")
    assert code == 0
    assert f"ivlp in {bracketed} minus ivlp in {folder}" in out
    code, _, err = call("ivlp", "cptt", "--results", str(folder))
    assert code == 1
    assert "no row 'cptt'" in err
    assert "cpt" in err
