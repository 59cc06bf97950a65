"""The paper's printed numbers, ``config/published.csv``, and what its text claims, ``config/published_claims.yaml``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from cpt.errors import CptError
from cpt.files import handwritten

TABLES = ("table2", "table3", "table4")
SOURCE = "ImageNet"
TRANSFER = ("table3", "table4")
"""Tables whose average leaves the source out."""

TASKS = dict(zip(("base-to-new", "cross-dataset", "domain-generalization"), TABLES, strict=True))
"""Task, as Table 1 and other papers' averages name it: its table."""

AVERAGE = "Avg"
_CLAIM = {"place", "says", "table", "ratios", "datasets", "better", "than"}


def read_published(path: Path) -> pd.DataFrame:
    """Read the printed numbers: group, imbalance_ratio, row, method, dataset, metric, value.

    Raises:
        CptError: the file is missing or lacks a column.
    """
    try:
        printed = pd.read_csv(path)
    except FileNotFoundError:
        raise CptError(f"{path}: not found; give the table of printed numbers, config/published.csv") from None
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise CptError(f"{path}: not a table of printed numbers ({reason}); give config/published.csv") from None
    missing = {"group", "imbalance_ratio", "row", "method", "dataset", "metric", "value"} - set(printed.columns)
    if missing:
        raise CptError(f"{path}: lacks the column {sorted(missing)[0]}; give config/published.csv, or one like it")
    return printed


def read_claims(path: Path) -> list[dict]:
    """Read what the text claims.

    Raises:
        CptError: the file is missing, not YAML, or holds something else.
    """
    try:
        claims = handwritten.load(path)
    except FileNotFoundError:
        raise CptError(f"{path}: not found; give the paper's claims, config/published_claims.yaml") from None
    except ValueError as error:
        raise CptError(f"{path}: {error}") from None
    if not isinstance(claims, list) or not all(isinstance(claim, dict) and claim.keys() >= _CLAIM for claim in claims):
        raise CptError(f"{path}: must be a list of claims as in config/published_claims.yaml; give that")
    return claims


def names(printed: pd.DataFrame) -> dict[str, str]:
    """Method's id: its name in the paper's tables, else where it is printed."""
    own = printed["group"].str.startswith("table")
    parts = pd.concat([printed[~own], printed[own]])
    return dict(zip(parts["row"], parts["method"], strict=True))


def grid(printed: pd.DataFrame, table: str, ratio: float, metric: str | None = None) -> pd.DataFrame:
    """A printed table at one ratio: rows are methods' ids, columns datasets, in printed order."""
    chosen = printed[(printed["group"] == table) & (printed["imbalance_ratio"] == ratio)]
    if metric is not None:
        chosen = chosen[chosen["metric"] == metric]
    wide = chosen.pivot(index="row", columns="dataset", values="value")
    return wide.loc[chosen["row"].unique(), chosen["dataset"].unique()]


def ratios(printed: pd.DataFrame, table: str) -> list[float]:
    """Imbalance ratios of a table, balanced first."""
    return sorted(printed.loc[printed["group"] == table, "imbalance_ratio"].unique(), reverse=True)


def cells(printed: pd.DataFrame, table: str, ratio: float) -> pd.DataFrame:
    """A table's cells without its average, and without the source where the average leaves it out."""
    wide = grid(printed, table, ratio).drop(columns=AVERAGE)
    return wide.drop(columns=SOURCE) if table in TRANSFER else wide


def places(printed: pd.DataFrame, tables: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Table and ratio of every printed grid."""
    for table in tables:
        for ratio in ratios(printed, table):
            yield table, ratio
