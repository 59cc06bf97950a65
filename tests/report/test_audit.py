"""The audit against figures that were found by hand, and against invented tables whose answer is known."""

from __future__ import annotations

import csv
import itertools
import statistics
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cpt.errors import CptError
from cpt.report.printed import audit as a
from cpt.report.printed import audit_text, published

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def printed() -> pd.DataFrame:
    return published.read_published(ROOT / "config/published.csv")


@pytest.fixture(scope="module")
def sections(printed: pd.DataFrame) -> dict[str, pd.DataFrame]:
    claims = published.read_claims(ROOT / "config/published_claims.yaml")
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


# ---- every section by plain arithmetic, on the printed tables and on invented ones ---------------

Numbers = dict[str, dict[float, dict[str, dict[str, float]]]]
"""Table -> ratio -> method's id -> dataset -> number (the H, where a table has standard deviations too)."""
NAMES = {"table2": "Table 2", "table3": "Table 3", "table4": "Table 4"}


@pytest.fixture(scope="module", params=["printed", "invented"])
def frame(request: pytest.FixtureRequest, printed: pd.DataFrame) -> pd.DataFrame:
    """The printed numbers, or others in their places: rows that are nearly multiples, some cells equal."""
    if request.param == "printed":
        return printed
    random, table = np.random.default_rng(3), printed.copy()
    level = {name: random.uniform(40, 90) for name in table["dataset"].unique()}
    factor = {name: random.uniform(0.97, 1.03) for name in table["row"].unique()}
    level["Avg"] = 65.0
    expected = np.array([level[d] * factor[r] for d, r in zip(table["dataset"], table["row"], strict=True)])
    table["value"] = np.round(expected * (1 + random.exponential(0.002, len(table))), 2)
    for _, cells in table.groupby(["group", "dataset"]):
        if random.random() < 0.5:
            table.loc[random.choice(cells.index, 2), "value"] = cells["value"].max()
    return table


@pytest.fixture(scope="module")
def found(frame: pd.DataFrame) -> dict[str, list[dict]]:
    claims = published.read_claims(ROOT / "config/published_claims.yaml")
    return {section.name: section.rows.to_dict("records") for section in a.audit(frame, claims)}


@pytest.fixture(scope="module")
def plain(frame: pd.DataFrame) -> Numbers:
    numbers: Numbers = {}
    for cell in frame.to_dict("records"):
        if cell["metric"] != "std":
            by_ratio = numbers.setdefault(cell["group"], {}).setdefault(cell["imbalance_ratio"], {})
            by_ratio.setdefault(cell["row"], {})[cell["dataset"]] = cell["value"]
    return numbers


@pytest.fixture(scope="module")
def called(frame: pd.DataFrame) -> dict[str, str]:
    """Id -> name in the tables."""
    own = frame[frame["group"].str.startswith("table")]
    return dict(zip(frame["row"], frame["method"], strict=True)) | dict(zip(own["row"], own["method"], strict=True))


def averaged(table: str, cells: dict[str, float]) -> dict[str, float]:
    """The cells that an average is over."""
    left_out = {"Avg", "ImageNet"} if table in ("table3", "table4") else {"Avg"}
    return {dataset: value for dataset, value in cells.items() if dataset not in left_out}


def line(rows: list[dict], **wanted: object) -> dict:
    (found,) = (row for row in rows if all(row[name] == value for name, value in wanted.items()))
    return found


def test_averages_and_their_rounding(found: dict, plain: Numbers, called: dict) -> None:
    for table in NAMES:
        for ratio, rows in plain[table].items():
            for row, cells in rows.items():
                told = line(found["averages"], **{"table": NAMES[table], "τ": ratio, "method": called[row]})
                own = averaged(table, cells)
                assert told["cells"] == len(own)
                assert told["printed"] == cells["Avg"]
                difference = cells["Avg"] - statistics.fmean(own.values())
                assert told["difference"] == pytest.approx(difference)
                assert told["within rounding"] == (abs(difference) < 0.01 + 1e-9)


def test_two_places_agree_or_not(found: dict, plain: Numbers, called: dict) -> None:
    expected = {}
    for ratio, rows in plain["table3"].items():
        other = plain["table4"][ratio]
        for row in rows.keys() & other.keys():
            expected["ImageNet: Table 3, Table 4", ratio, called[row]] = rows[row]["ImageNet"], other[row]["ImageNet"]
    tasks = {"base-to-new": "table2", "cross-dataset": "table3", "domain-generalization": "table4"}
    for ratio, rows in plain["table1"].items():
        for task, table in tasks.items():
            pair = rows["cpt_printed"][task], plain[table][ratio]["cpt"]["Avg"]
            expected[f"Table 1 {task}, average of {NAMES[table]}", ratio, called["cpt"]] = pair
    for ratio, rows in plain["table5"].items():
        for what in ("ImageNet", "average"):
            pair = rows["spherical"]["ImageNet"], plain["table2"][ratio]["cpt"][what.replace("average", "Avg")]
            expected[f"Table 5 row 1, {what} of Table 2", ratio, called["cpt"]] = pair
    told = {(r["places"], r["τ"], r["method"]): (r["first"], r["second"]) for r in found["agreement"]}
    assert told == expected
    for row in found["agreement"]:
        assert row["difference"] == pytest.approx(row["first"] - row["second"])
        assert row["equal"] == (row["first"] == row["second"])


def test_proportions_of_every_two_rows(found: dict, plain: Numbers, called: dict) -> None:
    told = {(r["table"], r["τ"], r["method"], r["other method"]): r for r in found["proportions"]}
    count = 0
    for table in ("table2", "table3"):
        for ratio, rows in plain[table].items():
            for one, other in itertools.combinations(rows, 2):
                places = NAMES[table], ratio
                if (*places, called[one], called[other]) not in told:
                    one, other = other, one
                row = told[*places, called[one], called[other]]
                above, below = averaged(table, rows[one]), averaged(table, rows[other])
                quotients = [above[dataset] / below[dataset] for dataset in above]
                middle = statistics.median(quotients)
                mean = statistics.fmean(quotients)
                assert mean >= 1
                std = statistics.pstdev(quotients)
                measured = [row[name] for name in ("mean", "std", "min", "max")]
                assert measured == pytest.approx([mean, std, min(quotients), max(quotients)])
                assert row["near the median"] == sum(abs(q - middle) <= 0.001 for q in quotients)
                assert row["datasets"] == len(quotients)
                errors = [0.01**2 / 12 * (1 + (above[d] / below[d]) ** 2) / below[d] ** 2 for d in above]
                rounding = statistics.fmean(errors) ** 0.5
                assert row["std of rounding"] == pytest.approx(rounding)
                assert row["std / rounding"] == pytest.approx(std / rounding)
                count += 1
    assert count == len(found["proportions"])
    order = [row["std / rounding"] for row in found["proportions"]]
    assert order == sorted(order)


def test_cells_below_zero_shot(found: dict, plain: Numbers, frame: pd.DataFrame, called: dict) -> None:
    chosen = frame[(frame["group"] == "zeroshot") & (frame["metric"] == "H")]
    known = dict(zip(chosen["dataset"], chosen["value"], strict=True))
    for ratio, rows in plain["table2"].items():
        for row, cells in rows.items():
            own = averaged("table2", cells)
            told = line(found["below_zero_shot"], **{"τ": ratio, "method": called[row]})
            below = {d: value - known[d] for d, value in own.items() if value < known[d]}
            assert (told["datasets below"], told["datasets"]) == (len(below), len(own))
            assert told["which"] == ", ".join(f"{d} {value:+.2f}" for d, value in below.items())
            difference = statistics.fmean(own.values()) - statistics.fmean(known[d] for d in own)
            assert told["average − zero-shot's"] == pytest.approx(difference)


def test_first_places_alone_and_shared(found: dict, plain: Numbers, called: dict) -> None:
    for table in NAMES:
        for ratio, rows in plain[table].items():
            alone, shared = dict.fromkeys(rows, 0), dict.fromkeys(rows, 0)
            datasets = list(next(iter(rows.values())))
            for dataset in datasets:
                most = max(cells[dataset] for cells in rows.values())
                winners = [row for row, cells in rows.items() if cells[dataset] == most]
                for row in winners:
                    (alone if len(winners) == 1 else shared)[row] += 1
            for row in rows:
                told = line(found["first_places"], **{"table": NAMES[table], "τ": ratio, "method": called[row]})
                assert (told["best alone"], told["best with others"]) == (alone[row], shared[row])
                assert told["columns"] == len(datasets)


def test_gains_from_fewer_images(found: dict, plain: Numbers, called: dict) -> None:
    expected = {}
    for table in NAMES:
        for more, fewer in ((1.0, 0.25), (0.25, 0.06)):
            for row, cells in plain[table][more].items():
                for dataset, value in averaged(table, cells).items():
                    gain = plain[table][fewer][row][dataset] - value
                    if gain > 0:
                        expected[NAMES[table], f"{more:g} → {fewer:g}", called[row], dataset] = gain
    told = {(r["table"], r["ratios"], r["method"], r["dataset"]): r["gain"] for r in found["less_data"]}
    assert told == pytest.approx(expected)


def test_repeated_numbers_of_a_column(found: dict, frame: pd.DataFrame) -> None:
    times: dict[tuple, list[str]] = defaultdict(list)
    for cell in frame.to_dict("records"):
        if cell["group"] in NAMES and cell["dataset"] != "Avg":
            where = NAMES[cell["group"]], cell["dataset"], cell["value"]
            times[where].append(f"{cell['method']} {cell['imbalance_ratio']:g}")
    expected = {where: (len(who), ", ".join(who)) for where, who in times.items() if len(who) > 1}
    told = {(r["table"], r["dataset"], r["value"]): (r["times"], r["method and τ"]) for r in found["repeated"]}
    assert told == expected
    assert [r["times"] for r in found["repeated"]] == sorted((count for count, _ in expected.values()), reverse=True)


def test_averages_of_the_methods_own_papers(found: dict, plain: Numbers, frame: pd.DataFrame, called: dict) -> None:
    tasks = {"base-to-new": "table2", "cross-dataset": "table3", "domain-generalization": "table4"}
    known = frame[frame["group"] == "balanced"].to_dict("records")
    expected = {
        (cell["dataset"], called[cell["row"]]): (plain[tasks[cell["dataset"]]][1.0][cell["row"]]["Avg"], cell["value"])
        for cell in known
        if cell["row"] in plain[tasks[cell["dataset"]]][1.0]
    }
    told = {(r["task"], r["method"]): (r["printed here"], r["own paper"]) for r in found["reported_elsewhere"]}
    assert told == expected
    for row in found["reported_elsewhere"]:
        assert row["difference"] == pytest.approx(row["printed here"] - row["own paper"])


def test_claims_comparison_by_comparison(found: dict, frame: pd.DataFrame) -> None:
    value = frame.set_index(["group", "imbalance_ratio", "row", "dataset", "metric"])["value"].to_dict()
    for claim, told in zip(published.read_claims(ROOT / "config/published_claims.yaml"), found["claims"], strict=True):
        signs = []
        for ratio, dataset, other in itertools.product(claim["ratios"], claim["datasets"], claim["than"]):
            metrics = [claim["metric"]] if "metric" in claim else ["H", "accuracy"]
            one, two = (
                next(value[key] for m in metrics if (key := (claim["table"], ratio, row, dataset, m)) in value)
                for row in (claim["better"], other)
            )
            signs.append(np.sign(one - two) * (-1 if claim.get("lower") else 1))
        assert (told["as said"], told["comparisons"]) == (signs.count(1), len(signs))
        texts = [0 if told[name] == "–" else told[name].count("; ") + 1 for name in ("equal", "the other way round")]
        assert texts == [signs.count(0), signs.count(-1)]


# ---- figures that were found by hand -------------------------------------------------------------


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


@pytest.mark.no_cover
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


def test_no_judgment_is_passed(printed: pd.DataFrame) -> None:
    text = audit_text.markdown(a.audit(printed, published.read_claims(ROOT / "config/published_claims.yaml"))).lower()
    for word in ("suspicious", "fabricat", "fraud", "implausib", "wrong", "error", "unlikely", "copied"):
        assert word not in text


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    with pytest.raises(CptError, match=r"published\.csv: not found"):
        published.read_published(path)
    with pytest.raises(CptError, match=r"Is a directory\); give config/published.csv"):
        published.read_published(tmp_path)
    path.write_text("group,row\n")
    with pytest.raises(CptError, match=r"lacks the column dataset"):
        published.read_published(path)
