"""The audit against figures that were found by hand, and against invented tables whose answer is known."""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cpt.errors import CptError
from cpt.report import audit as a
from cpt.report import audit_text

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def printed() -> pd.DataFrame:
    return a.read_published(ROOT / "config/published.csv")


@pytest.fixture(scope="module")
def sections(printed: pd.DataFrame) -> dict[str, pd.DataFrame]:
    claims = a.read_claims(ROOT / "config/published_claims.yaml")
    return {section.name: section.rows for section in a.audit(printed, claims)}


def test_averages(sections: dict[str, pd.DataFrame]) -> None:
    found = sections["averages"]
    assert found.groupby("table").size().to_dict() == {"Table 2": 18, "Table 3": 18, "Table 4": 21}
    assert found["within rounding"].all()
    assert (found.loc[found["table"] != "Table 3", "difference"].abs() <= 0.0051).all()
    worst = found.loc[found["difference"].abs().idxmax()]
    assert (worst["table"], worst["method"], worst["τ"], worst["printed"]) == ("Table 3", "CPT", 1, 67.78)
    assert worst["mean of cells"] == pytest.approx(67.770, abs=5e-4)


def test_averages_by_plain_arithmetic(sections: dict[str, pd.DataFrame]) -> None:
    """The same means from the file with the standard library."""
    cells = defaultdict(list)
    with open(ROOT / "config/published.csv", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            left_out = row["dataset"] == "Avg" or (row["group"] != "table2" and row["dataset"] == "ImageNet")
            if row["group"] in ("table2", "table3", "table4") and not left_out:
                cells[row["group"][-1], float(row["imbalance_ratio"]), row["method"]].append(float(row["value"]))
    found = sections["averages"]
    assert len(cells) == len(found)
    for line in found.to_dict("records"):
        mean = statistics.fmean(cells[line["table"][-1], line["τ"], line["method"]])
        assert line["mean of cells"] == pytest.approx(mean)


def test_agreement(sections: dict[str, pd.DataFrame]) -> None:
    found = sections["agreement"]
    imagenet = found[found["places"] == "ImageNet: Table 3, Table 4"]
    differing = imagenet[~imagenet["equal"]]
    assert {(m, t): (x, y) for m, t, x, y in differing[["method", "τ", "first", "second"]].itertuples(index=False)} == {
        ("MaPLe", 0.06): (68.32, 67.32),
        ("NPT", 0.06): (68.90, 68.70),
        ("DeKg", 0.25): (69.46, 69.79),
        ("DeKg", 0.06): (69.42, 69.20),
        ("DPC", 0.25): (69.21, 69.71),
        ("DPC", 0.06): (68.23, 69.19),
    }
    first = found[found["places"].str.startswith("Table 1")]
    assert len(first) == 6
    assert first["equal"].all()
    fifth = found[found["places"].str.startswith("Table 5")].set_index(["places", "τ"])["equal"]
    assert fifth.loc["Table 5 row 1, ImageNet of Table 2"].all()
    assert not fifth.loc["Table 5 row 1, average of Table 2"].any()


@pytest.mark.parametrize(
    ("table", "ratio", "pair", "mean", "std", "low", "high"),
    [
        ("Table 2", 1, ("CPT", "NPT"), 1.0303, 0.0325, 0.9945, 1.1007),
        ("Table 2", 0.25, ("CPT", "NPT"), 1.0085, 0.0031, 0.9996, 1.0104),
        ("Table 2", 0.06, ("CPT", "NPT"), 1.0099, 0.0001, 1.0097, 1.0100),
        ("Table 2", 0.25, ("NPT", "CoPrompt"), 1.0103, 0.0008, 1.0098, 1.0127),
        ("Table 2", 0.06, ("NPT", "CoPrompt"), 1.0101, 0.0002, 1.0098, 1.0106),
        ("Table 3", 1, ("CPT", "NPT"), 1.0099, 0.0003, 1.0096, 1.0105),
        ("Table 3", 0.25, ("CPT", "NPT"), 1.0102, 0.0004, 1.0096, 1.0105),
        ("Table 3", 0.06, ("CPT", "NPT"), 1.0099, 0.0003, 1.0093, 1.0104),
        ("Table 3", 0.06, ("NPT", "CoPrompt"), 1.0095, 0.0015, 1.0056, 1.0106),
    ],
)
def test_proportions(
    sections: dict[str, pd.DataFrame],
    table: str,
    ratio: float,
    pair: tuple,
    mean: float,
    std: float,
    low: float,
    high: float,
) -> None:
    rows = sections["proportions"]
    chosen = (
        (rows["table"] == table)
        & (rows["τ"] == ratio)
        & (rows["method"] == pair[0])
        & (rows["other method"] == pair[1])
    )
    (found,) = rows[chosen].to_dict("records")
    assert [round(found[name], 4) for name in ("mean", "std", "min", "max")] == [mean, std, low, high]
    assert found["datasets"] == {"Table 2": 11, "Table 3": 10}[table]


def test_rounding_alone_by_simulation() -> None:
    """Rows that are exact multiples, rounded: the formula gives the spread of their quotients."""
    generator = np.random.default_rng(0)
    spreads = []
    for _ in range(3000):
        below = generator.uniform(30, 95, 11)
        quotient = np.round(1.01 * below, 2) / np.round(below, 2)
        predicted = a.rounding_spread(pd.Series(1.01 * below), pd.Series(below))
        spreads.append(quotient.var(ddof=1) / predicted**2)
    assert np.mean(spreads) == pytest.approx(1, abs=0.03)


def test_below_zero_shot(sections: dict[str, pd.DataFrame]) -> None:
    found = sections["below_zero_shot"].set_index(["τ", "method"])
    average = found["average − zero-shot's"]
    below = {method for (ratio, method), value in average.items() if ratio == 0.06 and value < 0}
    assert below == {"MaPLe", "CoPrompt", "DeKg"}
    assert round(average[0.06, "CPT"], 2) == 0.88
    for ratio in (0.25, 0.06):
        assert {word.split()[0] for word in found.loc[(ratio, "CPT"), "which"].split(", ")} >= {
            "FGVCAircraft",
            "EuroSAT",
        }


def test_first_places(sections: dict[str, pd.DataFrame]) -> None:
    found = sections["first_places"]
    mine = found[found["method"] == "CPT"].set_index(["table", "τ"])
    assert [mine.loc[("Table 4", ratio), "best alone"] for ratio in (1, 0.25, 0.06)] == [2, 5, 5]
    assert [mine.loc[("Table 2", ratio), ["best alone", "best with others"]].sum() for ratio in (1, 0.25, 0.06)] == [
        5,
        11,
        12,
    ]
    assert [mine.loc[("Table 3", ratio), ["best alone", "best with others"]].sum() for ratio in (1, 0.25, 0.06)] == [
        10,
        12,
        11,
    ]


def test_cells_that_rise_with_less_data(sections: dict[str, pd.DataFrame]) -> None:
    found = sections["less_data"]
    second = found[(found["table"] == "Table 2") & (found["ratios"] == "0.25 → 0.06")]
    rising = second.groupby("method")["dataset"].apply(set).to_dict()
    assert rising == {
        "MaPLe": {"Caltech101", "Food101"},
        "DeKg": {"Food101"},
        "DPC": {"Caltech101", "Food101"},
        "CPT": {"Caltech101"},
    }
    assert (found["gain"] > 0).all()


def test_repeated_cells(sections: dict[str, pd.DataFrame]) -> None:
    found = sections["repeated"].set_index(["table", "dataset", "value"])
    assert found.loc[("Table 4", "ImageNet-A", 48.56), "times"] == 5
    assert "CoCoOp 0.25" in found.loc[("Table 4", "ImageNet-A", 48.56), "method and τ"]
    assert found.loc[("Table 2", "Flowers102", 84.51), "method and τ"] == "CoPrompt 1, DeKg 1"


def test_claims(sections: dict[str, pd.DataFrame]) -> None:
    found = sections["claims"].set_index("says")
    variants = found.loc["CPT is above MaPLe, NPT and CoPrompt on all four variants"]
    assert "ImageNet-A, τ = 1: 50.66, MaPLe 50.90" in variants["the other way round"]
    assert "ImageNetV2, τ = 1: 64.23, NPT 64.23" in variants["equal"]
    assert variants["comparisons"] == 36
    assert found.loc["spectral clustering has a higher H than k-medoids", "as said"] == 0
    assert found.loc["spectral clustering has a lower standard deviation than k-medoids", "the other way round"] == "–"
    steps = found.loc["each loss adds to the configuration before it (row 4 above row 3)", "the other way round"]
    assert "base-to-new, τ = 0.25: 72.42, + TETF + CC 73.22" in steps


def test_no_judgement_is_passed(printed: pd.DataFrame) -> None:
    text = audit_text.markdown(a.audit(printed, a.read_claims(ROOT / "config/published_claims.yaml"))).lower()
    for word in ("suspicious", "fabricat", "fraud", "implausib", "wrong", "error", "unlikely", "copied"):
        assert word not in text


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    with pytest.raises(CptError, match=r"published\.csv: not found"):
        a.read_published(path)
    path.write_text("group,row\n")
    with pytest.raises(CptError, match=r"lacks the column dataset"):
        a.read_published(path)
