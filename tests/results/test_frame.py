"""``cpt.results``: every cell of the tables comes out of it by a plain group-by; ``cpt runs``."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

import cpt
from cpt.cli.app import run
from cpt.errors import CptError
from cpt.results.frame import finished_runs
from tests.helpers import fake_results


def test_a_group_by_gives_the_invented_means(tmp_path: Path) -> None:
    fake_results.write_results(tmp_path)
    frame = cpt.results(tmp_path)
    shown = frame[(frame.exhibit == "table2") & (frame.metric == "harmonic_mean") & (frame.target == "flowers")]
    means = shown.groupby(["row", "imbalance_ratio"])["value"].mean()
    assert len(means) > 6
    for (row, ratio), mean in means.items():
        method = {"Zero-shot": "zeroshot", "IVLP": "ivlp", "NPT (reconstruction)": "npt", "CPT": "cpt",
                  "CPT (as printed)": "cptsum"}[row]  # fmt: skip
        seeds = [2] if method == "zeroshot" else [1, 2] if (method, ratio) == ("npt", 0.06) else [1, 2, 3]
        wanted = [fake_results.value(method, "flowers", ratio, seed) for seed in seeds]
        assert mean == pytest.approx(sum(wanted) / len(wanted)), (row, ratio)


def test_rows_of_one_method_stay_apart(tmp_path: Path) -> None:
    """Ablations share a method; their labels do not, and a run that two exhibits show is in both."""
    fake_results.write_results(tmp_path)
    frame = cpt.results(str(tmp_path))
    assert {"CPT", "CPT (as printed)"} <= set(frame["row"])
    again = frame.drop_duplicates(
        ["run", "target", "subset", "metric", "epoch", "exhibit", "row", "x", "task", "imbalance_ratio"]
    )
    assert len(again) == len(frame)
    runs = pd.read_parquet(tmp_path / "runs.parquet")
    assert set(frame["run"]) <= set(runs["run"])


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CptError, match=r"grid\.json: not found"):
        cpt.results(tmp_path)


def test_finished_runs_with_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    _, runs = fake_results.write_results(tmp_path)
    found = finished_runs(tmp_path)
    assert set(found["folder"]) == {str(tmp_path / "runs" / run) for run in set(pd.read_parquet(runs)["run"])}
    (one,) = found[found["folder"].str.endswith("base_to_new/flowers/r0.06/cpt/s2")].to_dict("records")
    assert one["rows"] == "CPT"
    assert (one["method"], one["dataset"], one["seed"], one["metric"]) == ("cpt", "flowers", 2, "H")
    assert one["value"] == pytest.approx(fake_results.value("cpt", "flowers", 0.06, 2))
    (other,) = found[found["folder"].str.endswith("all_classes/world/r0.06/ivlp/s1")].to_dict("records")
    assert other["metric"] == "accuracy"

    def call(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["cpt", "runs", str(tmp_path), *words])
        code = run()
        out, err = capsys.readouterr()
        assert bool(code) == bool(err)
        return err or out

    lines = call("--method", "npt", "--dataset", "flowers").splitlines()
    assert len(lines) == 1 + sum((found["method"] == "npt") & (found["dataset"] == "flowers"))
    assert f"{tmp_path}/runs/base_to_new/flowers/r0.06/npt/s1 " in lines[1] + lines[2] + lines[3]
    rows = [json.loads(line) for line in call("--method", "cpt", "--format", "jsonl").splitlines()]
    assert {row["folder"] for row in rows} == set(found[found["method"] == "cpt"]["folder"])
    rows = [json.loads(line) for line in call("--row", "CPT", "--format", "jsonl").splitlines()]
    assert {row["folder"] for row in rows} == set(
        found[["CPT" in text.split("; ") for text in found["rows"]]]["folder"]
    )
    assert "no finished run of row 'CPTT'; did you mean 'CPT'?" in call("--row", "CPTT")
    assert "no finished run of dataset 'flower'; did you mean 'flowers'?" in call("--dataset", "flower")
