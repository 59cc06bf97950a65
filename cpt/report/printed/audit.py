"""Arithmetic on the paper's printed numbers: what agrees with what, and what rounding alone would give.

Every figure is computed here from ``config/published.csv``; what the text claims is ``config/published_claims.yaml``.
The sections say what was computed and nothing about why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from cpt.errors import CptError

TABLES = ("table2", "table3", "table4")
SOURCE = "ImageNet"
TRANSFER = ("table3", "table4")
"""Tables whose average leaves the source out."""

AVERAGE = "Avg"
UNIT = 0.01
"""Last printed digit: a printed number is within half of it of the number that was rounded."""

NEAR = 0.001
"""Ratios of a pair of rows that lie this close to their median are counted."""


@dataclass(frozen=True)
class Section:
    """One question about the printed numbers.

    Attributes:
        name: of its file.
        title: the question.
        arithmetic: how the columns are computed.
        rows: the answer.
    """

    name: str
    title: str
    arithmetic: str
    rows: pd.DataFrame


def read_published(path: Path) -> pd.DataFrame:
    """Read the printed numbers: group, imbalance_ratio, row, method, dataset, metric, value.

    Raises:
        CptError: the file is missing or lacks a column.
    """
    try:
        printed = pd.read_csv(path)
    except FileNotFoundError:
        raise CptError(f"{path}: not found; give the table of printed numbers, config/published.csv") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise CptError(f"{path}: not a table of printed numbers ({error})") from None
    missing = {"group", "imbalance_ratio", "row", "method", "dataset", "metric", "value"} - set(printed.columns)
    if missing:
        raise CptError(f"{path}: lacks the column {sorted(missing)[0]}; see docs/files.md")
    return printed


def audit(printed: pd.DataFrame, claims: Sequence[dict]) -> list[Section]:
    """Return all sections."""
    return [
        averages(printed),
        agreement(printed),
        proportions(printed),
        below_zero_shot(printed),
        first_places(printed),
        less_data_more_accuracy(printed),
        repeated_cells(printed),
        reported_elsewhere(printed),
        claimed(printed, claims),
    ]


def read_claims(path: Path) -> list[dict]:
    """Read what the text claims.

    Raises:
        CptError: the file is missing or not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise CptError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None


def grid(printed: pd.DataFrame, table: str, ratio: float, metric: str | None = None) -> pd.DataFrame:
    """A printed table at one ratio: rows are methods' ids, columns datasets, in printed order."""
    chosen = printed[(printed["group"] == table) & (printed["imbalance_ratio"] == ratio)]
    if metric is not None:
        chosen = chosen[chosen["metric"] == metric]
    wide = chosen.pivot(index="row", columns="dataset", values="value")
    return wide.loc[chosen["row"].unique(), chosen["dataset"].unique()]


def names(printed: pd.DataFrame) -> dict[str, str]:
    """Method's id: its name in the paper's tables, else where it is printed."""
    own = printed["group"].str.startswith("table")
    return {
        row: method
        for part in (printed[~own], printed[own])
        for row, method in zip(part["row"], part["method"], strict=True)
    }


def ratios(printed: pd.DataFrame, table: str) -> list[float]:
    """Imbalance ratios of a table, balanced first."""
    return sorted(printed.loc[printed["group"] == table, "imbalance_ratio"].unique(), reverse=True)


def cells(printed: pd.DataFrame, table: str, ratio: float) -> pd.DataFrame:
    """A table's cells without its average, and without the source where the average leaves it out."""
    wide = grid(printed, table, ratio).drop(columns=AVERAGE)
    return wide.drop(columns=SOURCE) if table in TRANSFER else wide


def averages(printed: pd.DataFrame) -> Section:
    """Printed averages against the mean of the printed cells."""
    rows = []
    for table in TABLES:
        for ratio in ratios(printed, table):
            wide, own = grid(printed, table, ratio), cells(printed, table, ratio)
            for row in wide.index:
                mean, said = own.loc[row].mean(), wide.loc[row, AVERAGE]
                rows.append((table, ratio, row, own.shape[1], mean, said, said - mean))
    found = pd.DataFrame(rows, columns=["table", "ratio", "row", "cells", "mean of cells", "printed", "difference"])
    found["within rounding"] = found["difference"].abs() <= UNIT / 2 + UNIT / 2 + 1e-9
    return Section(
        "averages",
        "Do the printed averages equal the mean of the printed cells?",
        "mean over the datasets (Tables 3 and 4 without ImageNet, the source). Half a unit of the last digit from the "
        f"cells and half from the average: rounding explains up to {UNIT:g}.",
        _named(found, printed),
    )


def agreement(printed: pd.DataFrame) -> Section:
    """Numbers that stand in two places."""
    rows = []

    def compare(what: str, ratio: float, row: str, first: float, second: float) -> None:
        rows.append((what, ratio, row, first, second, first - second))

    for ratio in ratios(printed, "table3"):
        third, fourth = (grid(printed, table, ratio)[SOURCE] for table in TRANSFER)
        for row in third.index.intersection(fourth.index):
            compare("ImageNet: Table 3, Table 4", ratio, row, third[row], fourth[row])
    for ratio in ratios(printed, "table1"):
        first = grid(printed, "table1", ratio).loc["cpt_printed"]
        tasks = zip(("base-to-new", "cross-dataset", "domain-generalization"), TABLES, strict=True)
        for task, table in tasks:
            average = grid(printed, table, ratio).loc["cpt", AVERAGE]
            compare(f"Table 1 {task}, average of Table {table[-1]}", ratio, "cpt", first[task], average)
    for ratio in ratios(printed, "table5"):
        fifth = grid(printed, "table5", ratio, "H").loc["spherical", SOURCE]
        second = grid(printed, "table2", ratio).loc["cpt"]
        compare("Table 5 row 1, ImageNet of Table 2", ratio, "cpt", fifth, second[SOURCE])
        compare("Table 5 row 1, average of Table 2", ratio, "cpt", fifth, second[AVERAGE])
    found = pd.DataFrame(rows, columns=["places", "ratio", "row", "first", "second", "difference"])
    found["equal"] = found["difference"].abs() < UNIT / 2
    return Section(
        "agreement",
        "Do numbers that are printed twice agree?",
        "first minus second. The model that was trained on ImageNet is the same in Tables 3 and 4; Table 1's last row "
        "and Table 5's first row are CPT.",
        _named(found, printed),
    )


def proportions(printed: pd.DataFrame) -> Section:
    """Ratios of every two rows of a table, and the spread that rounding alone would give."""
    rows = []
    for table in ("table2", "table3"):
        for ratio in ratios(printed, table):
            wide = cells(printed, table, ratio)
            for a, b in permutations(wide.index, 2):
                quotient = wide.loc[a] / wide.loc[b]
                if quotient.mean() < 1 or (quotient.mean() == 1 and a > b):
                    continue
                rounding = rounding_spread(wide.loc[a], wide.loc[b])
                near = int(((quotient - quotient.median()).abs() <= NEAR).sum())
                std = quotient.std(ddof=0)
                numbers = (quotient.mean(), std, quotient.min(), quotient.max())
                rows.append((table, ratio, a, b, *numbers, near, len(quotient), rounding, std / rounding))
    columns = ["table", "ratio", "row", "other row", "mean", "std", "min", "max", "near the median", "datasets"]
    found = pd.DataFrame(rows, columns=[*columns, "std of rounding", "std / rounding"])
    return Section(
        "proportions",
        "How far are two rows from being a constant multiple of each other?",
        "quotient of the two rows, dataset by dataset: mean, standard deviation over these datasets, range, and how "
        f"many lie within {NEAR:g} of their median. If one row were an exact multiple of the other, rounding both to "
        f"two digits would give the std of rounding: the root mean square over datasets of {UNIT:g}/√12 · √(1 + q²)"
        " / other, with q the quotient.",
        _named(found.sort_values("std / rounding", kind="stable"), printed),
    )


def rounding_spread(numerator: pd.Series, denominator: pd.Series) -> float:
    """Standard deviation of the quotient's error when both rows are rounded to UNIT, to first order.

    Each rounding error is uniform on ± UNIT/2, so its standard deviation is UNIT/√12.
    """
    error = UNIT / np.sqrt(12) * np.sqrt(1 + (numerator / denominator) ** 2) / denominator
    return float(np.sqrt((error**2).mean()))


def below_zero_shot(printed: pd.DataFrame) -> Section:
    """Cells of Table 2 below the H of zero-shot CLIP with the same backbone."""
    known = printed[(printed["group"] == "zeroshot") & (printed["metric"] == "H")].set_index("dataset")["value"]
    rows = []
    for ratio in ratios(printed, "table2"):
        wide = cells(printed, "table2", ratio)
        for row in wide.index:
            difference = wide.loc[row] - known[wide.columns]
            below = difference[difference < 0]
            rows.append((ratio, row, wide.loc[row].mean() - known[wide.columns].mean(), len(below), wide.shape[1],
                         ", ".join(f"{name} {value:+.2f}" for name, value in below.items())))  # fmt: skip
    columns = ["ratio", "row", "average − zero-shot's", "datasets below", "datasets", "which"]
    return Section(
        "below_zero_shot",
        "Which rows of Table 2 are below zero-shot CLIP?",
        "printed H minus the published H of zero-shot CLIP ViT-B/16 (docs/datasets.md), dataset by dataset; averages "
        "are means over the 11 datasets.",
        _named(pd.DataFrame(rows, columns=columns), printed),
    )


def first_places(printed: pd.DataFrame) -> Section:
    """On how many columns each row is best."""
    rows = []
    for table in TABLES:
        for ratio in ratios(printed, table):
            wide = grid(printed, table, ratio)
            best = wide.eq(wide.max())
            for row in wide.index:
                alone = int((best.loc[row] & (best.sum() == 1)).sum())
                rows.append((table, ratio, row, alone, int(best.loc[row].sum()) - alone, wide.shape[1]))
    columns = ["table", "ratio", "row", "best alone", "best with others", "columns"]
    return Section(
        "first_places",
        "How often is a row the best of its column?",
        "columns of the table, its average and Table 3's and 4's source included.",
        _named(pd.DataFrame(rows, columns=columns), printed),
    )


def less_data_more_accuracy(printed: pd.DataFrame) -> Section:
    """Cells that are higher with fewer training images."""
    rows = []
    for table in TABLES:
        steps = ratios(printed, table)
        for larger, smaller in pairwise(steps):
            gain = cells(printed, table, smaller) - cells(printed, table, larger)
            rows += [
                (table, f"{larger:g} → {smaller:g}", row, dataset, gain.loc[row, dataset])
                for row in gain.index
                for dataset in gain.columns
                if gain.loc[row, dataset] > 0
            ]
    columns = ["table", "ratios", "row", "dataset", "gain"]
    return Section(
        "less_data",
        "Which cells rise when training images are taken away?",
        "the cell at the smaller τ minus the cell at the larger one, where that is positive.",
        _named(pd.DataFrame(rows, columns=columns), printed),
    )


def repeated_cells(printed: pd.DataFrame) -> Section:
    """The same number for several methods or ratios in one column of one table."""
    chosen = printed[printed["group"].isin(TABLES) & (printed["dataset"] != AVERAGE)]
    rows = []
    for (table, dataset, value), same in chosen.groupby(["group", "dataset", "value"], sort=False):
        if len(same) > 1:
            who = ", ".join(f"{m} {r:g}" for m, r in zip(same["method"], same["imbalance_ratio"], strict=True))
            rows.append((table, dataset, value, len(same), who))
    found = pd.DataFrame(rows, columns=["table", "dataset", "value", "times", "method and τ"])
    return Section(
        "repeated",
        "Which numbers stand more than once in a column?",
        "equal to the last printed digit, over all methods and τ of a table.",
        _named(found.sort_values("times", ascending=False, kind="stable"), printed),
    )


def reported_elsewhere(printed: pd.DataFrame) -> Section:
    """Averages at τ = 1 against those of the methods' own papers."""
    tasks = {"base-to-new": "table2", "cross-dataset": "table3", "domain-generalization": "table4"}
    known = printed[printed["group"] == "balanced"]
    rows = []
    for row, task, value in zip(known["row"], known["dataset"], known["value"], strict=True):
        wide = grid(printed, tasks[task], 1)
        if row in wide.index:
            rows.append((task, row, wide.loc[row, AVERAGE], value, wide.loc[row, AVERAGE] - value))
    found = pd.DataFrame(rows, columns=["task", "row", "printed here", "own paper", "difference"])
    return Section(
        "reported_elsewhere",
        "How do averages at τ = 1 compare with those of the methods' own papers?",
        "printed average minus the published one (16 shots of every class). Base-to-new: here the mean of the "
        "datasets' H, there H of the mean accuracies, so differences of some tenths are no disagreement.",
        _named(found, printed),
    )


def claimed(printed: pd.DataFrame, claims: Sequence[dict]) -> Section:
    """What the text says about the tables, comparison by comparison."""
    rows, called = [], names(printed)
    for claim in claims:
        higher: list[str] = []
        equal: list[str] = []
        count = 0
        for ratio in claim["ratios"]:
            wide = grid(printed, claim["table"], ratio, claim.get("metric"))
            for other in claim["than"]:
                for dataset in claim["datasets"]:
                    one, two = wide.loc[claim["better"], dataset], wide.loc[other, dataset]
                    count += 1
                    text = f"{dataset}, τ = {ratio:g}: {one:.2f}, {called[other]} {two:.2f}"
                    if one == two:
                        equal.append(text)
                    elif (one < two) != claim.get("lower", False):
                        higher.append(text)
        rows.append((claim["place"], claim["says"], count - len(higher) - len(equal), count,
                     "; ".join(equal) or "–", "; ".join(higher) or "–"))  # fmt: skip
    columns = ["place", "says", "as said", "comparisons", "equal", "the other way round"]
    return Section(
        "claims",
        "What the text says about the tables",
        "each sentence as comparisons of printed cells (config/published_claims.yaml).",
        pd.DataFrame(rows, columns=columns),
    )


def _named(found: pd.DataFrame, printed: pd.DataFrame) -> pd.DataFrame:
    """Show methods' names for ids and tables' titles."""
    called = names(printed)
    found = found.reset_index(drop=True)
    for column in ("row", "other row"):
        if column in found:
            found[column] = found[column].map(called)
    if "table" in found:
        found["table"] = "Table " + found["table"].str[-1]
    return found.rename(columns={"row": "method", "other row": "other method", "ratio": "τ"})
