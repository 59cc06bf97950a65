"""Arithmetic on the paper's printed numbers: what agrees with what, and what rounding alone would give.

The sections say what was computed and nothing about why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations, product

import numpy as np
import pandas as pd

from cpt.report.printed.published import AVERAGE, SOURCE, TABLES, TASKS, TRANSFER, cells, grid, names, places, ratios

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


def audit(printed: pd.DataFrame, claims: Sequence[dict]) -> list[Section]:
    """Return all sections."""
    sections = [
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
    called = names(printed)
    return [replace(section, rows=_named(section.rows, called)) for section in sections]


def _named(found: pd.DataFrame, called: dict[str, str]) -> pd.DataFrame:
    """Show methods' names for ids and tables' titles."""
    found = found.reset_index(drop=True)
    for column in found.columns.intersection(["row", "other row"]):
        found[column] = found[column].map(called)
    if "table" in found:
        found["table"] = "Table " + found["table"].str[-1]
    return found.rename(columns={"row": "method", "other row": "other method", "ratio": "τ"})


def averages(printed: pd.DataFrame) -> Section:
    """Printed averages against the mean of the printed cells."""
    rows = []
    for table, ratio in places(printed, TABLES):
        own, said = cells(printed, table, ratio), grid(printed, table, ratio)[AVERAGE]
        means = own.mean(axis=1)
        rows += [(table, ratio, row, own.shape[1], means[row], said[row]) for row in own.index]
    found = pd.DataFrame(rows, columns=["table", "ratio", "row", "cells", "mean of cells", "printed"])
    found["difference"] = found["printed"] - found["mean of cells"]
    found["within rounding"] = found["difference"].abs() <= UNIT / 2 + UNIT / 2 + 1e-9
    return Section(
        "averages",
        "Do the printed averages equal the mean of the printed cells?",
        "mean over the datasets (Tables 3 and 4 without ImageNet, the source). Half a unit of the last digit from the "
        f"cells and half from the average: rounding explains up to {UNIT:g}.",
        found,
    )


def agreement(printed: pd.DataFrame) -> Section:
    """Numbers that stand in two places."""
    rows: list[tuple[str, float, str, float, float]] = []
    for ratio in ratios(printed, "table3"):
        third, fourth = (grid(printed, table, ratio)[SOURCE] for table in TRANSFER)
        both = third.index.intersection(fourth.index)
        rows += [("ImageNet: Table 3, Table 4", ratio, row, third[row], fourth[row]) for row in both]
    for ratio in ratios(printed, "table1"):
        first = grid(printed, "table1", ratio).loc["cpt_printed"]
        for task, table in TASKS.items():
            average = grid(printed, table, ratio).loc["cpt", AVERAGE]
            rows.append((f"Table 1 {task}, average of Table {table[-1]}", ratio, "cpt", first[task], average))
    for ratio in ratios(printed, "table5"):
        fifth = grid(printed, "table5", ratio, "H").loc["spherical", SOURCE]
        second = grid(printed, "table2", ratio).loc["cpt"]
        rows.append(("Table 5 row 1, ImageNet of Table 2", ratio, "cpt", fifth, second[SOURCE]))
        rows.append(("Table 5 row 1, average of Table 2", ratio, "cpt", fifth, second[AVERAGE]))
    found = pd.DataFrame(rows, columns=["places", "ratio", "row", "first", "second"])
    found["difference"] = found["first"] - found["second"]
    found["equal"] = found["difference"].abs() < UNIT / 2
    return Section(
        "agreement",
        "Do numbers that are printed twice agree?",
        "first minus second. The model that was trained on ImageNet is the same in Tables 3 and 4; Table 1's last row "
        "and Table 5's first row are CPT.",
        found,
    )


def proportions(printed: pd.DataFrame) -> Section:
    """Ratios of every two rows of a table, and the spread that rounding alone would give."""
    rows = []
    for table, ratio in places(printed, ("table2", "table3")):
        wide = cells(printed, table, ratio)
        for a, b in permutations(wide.index, 2):
            quotient = wide.loc[a] / wide.loc[b]
            if quotient.mean() < 1 or (quotient.mean() == 1 and a > b):
                continue
            numbers = (quotient.mean(), quotient.std(ddof=0), quotient.min(), quotient.max())
            near = int(((quotient - quotient.median()).abs() <= NEAR).sum())
            rounding = rounding_spread(wide.loc[a], wide.loc[b])
            rows.append((table, ratio, a, b, *numbers, near, len(quotient), rounding))
    columns = ["table", "ratio", "row", "other row", "mean", "std", "min", "max", "near the median", "datasets"]
    found = pd.DataFrame(rows, columns=[*columns, "std of rounding"])
    found["std / rounding"] = found["std"] / found["std of rounding"]
    return Section(
        "proportions",
        "How far are two rows from being a constant multiple of each other?",
        "quotient of the two rows, dataset by dataset: mean, standard deviation over these datasets, range, and how "
        f"many lie within {NEAR:g} of their median. If one row were an exact multiple of the other, rounding both to "
        f"two digits would give the std of rounding: the root mean square over datasets of {UNIT:g}/√12 · √(1 + q²)"
        " / other, with q the quotient.",
        found.sort_values("std / rounding", kind="stable"),
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
        for row, cell in wide.iterrows():
            below = (cell - known[wide.columns]).loc[lambda difference: difference < 0]
            which = ", ".join(f"{name} {value:+.2f}" for name, value in below.items())
            rows.append((ratio, row, cell.mean() - known[wide.columns].mean(), len(below), len(cell), which))
    return Section(
        "below_zero_shot",
        "Which rows of Table 2 are below zero-shot CLIP?",
        "printed H minus the published H of zero-shot CLIP ViT-B/16 (docs/datasets.md), dataset by dataset; averages "
        "are means over the 11 datasets.",
        pd.DataFrame(rows, columns=["ratio", "row", "average − zero-shot's", "datasets below", "datasets", "which"]),
    )


def first_places(printed: pd.DataFrame) -> Section:
    """On how many columns each row is best."""
    rows = []
    for table, ratio in places(printed, TABLES):
        wide = grid(printed, table, ratio)
        best = wide.eq(wide.max())
        alone = best.loc[:, best.sum() == 1].sum(axis=1)
        rows += [(table, ratio, row, alone[row], best.loc[row].sum() - alone[row], wide.shape[1]) for row in wide.index]
    return Section(
        "first_places",
        "How often is a row the best of its column?",
        "columns of the table, its average and Table 3's and 4's source included.",
        pd.DataFrame(rows, columns=["table", "ratio", "row", "best alone", "best with others", "columns"]),
    )


def less_data_more_accuracy(printed: pd.DataFrame) -> Section:
    """Cells that are higher with fewer training images."""
    rows = []
    for table in TABLES:
        for larger, smaller in pairwise(ratios(printed, table)):
            gain = cells(printed, table, smaller) - cells(printed, table, larger)
            for row, cell in gain.iterrows():
                rows += [(table, f"{larger:g} → {smaller:g}", row, *rise) for rise in cell[cell > 0].items()]
    return Section(
        "less_data",
        "Which cells rise when training images are taken away?",
        "the cell at the smaller τ minus the cell at the larger one, where that is positive.",
        pd.DataFrame(rows, columns=["table", "ratios", "row", "dataset", "gain"]),
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
        found.sort_values("times", ascending=False, kind="stable"),
    )


def reported_elsewhere(printed: pd.DataFrame) -> Section:
    """Averages at τ = 1 against those of the methods' own papers."""
    known = printed[printed["group"] == "balanced"]
    here = {task: grid(printed, table, 1)[AVERAGE] for task, table in TASKS.items()}
    elsewhere = zip(known["dataset"], known["row"], known["value"], strict=True)
    rows = [(task, row, here[task][row], value) for task, row, value in elsewhere if row in here[task]]
    found = pd.DataFrame(rows, columns=["task", "row", "printed here", "own paper"])
    found["difference"] = found["printed here"] - found["own paper"]
    return Section(
        "reported_elsewhere",
        "How do averages at τ = 1 compare with those of the methods' own papers?",
        "printed average minus the published one (16 shots of every class). Base-to-new: here the mean of the "
        "datasets' H, there H of the mean accuracies, so differences of some tenths are no disagreement.",
        found,
    )


def claimed(printed: pd.DataFrame, claims: Sequence[dict]) -> Section:
    """What the text says about the tables, comparison by comparison."""
    rows, called = [], names(printed)
    for claim in claims:
        told: dict[str, list[str]] = {"as said": [], "equal": [], "the other way round": []}
        for ratio in claim["ratios"]:
            wide = grid(printed, claim["table"], ratio, claim.get("metric"))
            for other, dataset in product(claim["than"], claim["datasets"]):
                one, two = wide.loc[claim["better"], dataset], wide.loc[other, dataset]
                as_said = "as said" if (one < two) == claim.get("lower", False) else "the other way round"
                text = f"{dataset}, τ = {ratio:g}: {one:.2f}, {called[other]} {two:.2f}"
                told["equal" if one == two else as_said].append(text)
        texts = ("; ".join(told[how]) or "–" for how in ("equal", "the other way round"))
        rows.append((claim["place"], claim["says"], len(told["as said"]), sum(map(len, told.values())), *texts))
    return Section(
        "claims",
        "What the text says about the tables",
        "each sentence as comparisons of printed cells (config/published_claims.yaml).",
        pd.DataFrame(rows, columns=["place", "says", "as said", "comparisons", "equal", "the other way round"]),
    )
