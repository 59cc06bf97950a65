"""``cpt.results``: every cell of the tables comes out of it by a plain group-by."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import cpt
from cpt.errors import CptError
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
