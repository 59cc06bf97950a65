"""The ledger: every printed cell of the paper's Tables 1-5 beside ours.

It exists for experiments on the paper's backbone and datasets (``printed: true`` in the configuration); for others it
says why nothing can be compared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from scipy import stats as scipy_stats

from cpt import stats
from cpt.files import write_parquet, write_text
from cpt.report.audit import read_published
from cpt.report.formats import templates
from cpt.report.results import RECONSTRUCTION, TASKS, Results, average, averaged_datasets, judged_by, read_results
from cpt.report.words import AVERAGE

SCHEMA = "cpt.ledger/1"
TABLES = ("table1", "table2", "table3", "table4", "table5")
HALF = 0.005
"""A number printed with two decimals is within this of the one that was rounded."""

COLUMNS = {
    "table": pa.string(),
    "imbalance_ratio": pa.float64(),
    "row": pa.string(),
    "method": pa.string(),
    "dataset": pa.string(),
    "metric": pa.string(),
    "ours": pa.float64(),
    "std": pa.float64(),
    "n": pa.int64(),
    "printed": pa.float64(),
    "difference": pa.float64(),
    "low": pa.float64(),
    "high": pa.float64(),
    "verdict": pa.string(),
    "reason": pa.string(),
}
VERDICTS = {
    "inside": "the printed number lies in the 95 % interval of ours",
    "above": "ours is higher, and the printed number lies below its interval",
    "below": "ours is lower, and the printed number lies above its interval",
    "reconstruction": "the method is built from a description: its difference says little",
    "not run": "no finished run, or the experiment does not ask for it",
}
"""Verdicts and what they mean, as the page explains them."""


def make_ledger(grid: Path, runs: Path, published: Path, output: Path) -> None:
    """Write ``ledger.parquet``, ``ledger.csv`` and ``ledger.html`` into a folder.

    Raises:
        CptError: an input is missing or damaged.
    """
    results = read_results(grid, runs)
    rows = ledger(results, read_published(published)) if results.grid["printed"] else []
    table = pa.Table.from_pylist(rows, schema=pa.schema(COLUMNS))
    write_parquet(output / "ledger.parquet", table, SCHEMA, experiment=results.grid["experiment"])
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    write_text(output / "ledger.csv", frame.to_csv(index=False, lineterminator="\n"))
    counts = Counter(row["verdict"] for row in rows)
    page = templates().get_template("ledger.html.j2")
    text = page.render(
        backbone=results.grid["backbone"],
        rows=[{name: shown(row[name]) for name in COLUMNS} for row in rows],
        counts=[(name, counts[name], meaning) for name, meaning in VERDICTS.items()],
        total=len(rows),
    )
    write_text(output / "ledger.html", text)


def ledger(results: Results, printed: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row per printed cell, in printed order.

    Args:
        results: an experiment.
        printed: ``config/published.csv``.
    """
    titles = {entry["counterpart"]: name for name, entry in results.grid["datasets"].items() if entry["counterpart"]}
    tasks = {name: task for task, name in TASKS.items()}
    rows = []
    for line in printed[printed["group"].isin(TABLES)].to_dict("records"):
        exhibit = results.grid["exhibits"].get(line["group"])
        declared = {row["id"]: row for row in exhibit["rows"]} if exhibit else {}
        row = declared.get(line["row"])
        values: dict[int, float] = {}
        reason = "the experiment does not ask for it"
        if exhibit and row:
            place = titles.get(line["dataset"], line["dataset"])
            values, reason = _ours(results, exhibit, line, tasks.get(line["dataset"]), place)
        rows.append(_judged(line, values, reason, _is_reconstruction(row)))
    return rows


def _is_reconstruction(row: Mapping[str, Any] | None) -> bool:
    return bool(row and RECONSTRUCTION in (row.get("note") or ""))


def _ours(
    results: Results, exhibit: Mapping[str, Any], line: Mapping[str, Any], task: str | None, place: str
) -> tuple[dict[int, float], str]:
    """Our value by seed for a printed cell, and why it is missing or not comparable."""
    cells = [
        cell
        for cell in exhibit["cells"]
        if cell["row"] == line["row"] and math.isclose(cell["ratio"], line["imbalance_ratio"])
    ]
    if task is not None or place == AVERAGE:
        task = task or exhibit["tasks"][0]
        wanted = averaged_datasets(exhibit, task)
    else:
        task, wanted = exhibit["tasks"][0], [place]
    metric = judged_by(task)
    chosen = {cell["dataset"]: cell for cell in cells if cell["task"] == task}
    absent = [name for name in wanted if name not in chosen]
    if absent or not wanted:
        return {}, f"the experiment does not ask for {', '.join(absent) or place}"
    parts = [results.seeds(chosen[name], metric) for name in wanted]
    values = average(parts) if len(parts) > 1 else parts[0]
    if not values:
        return {}, "no finished run"
    derived = [name for name in wanted if results.grid["datasets"][name]["derived_split"]]
    return values, f"derived split of {', '.join(derived)}: other images" if derived else ""


def _judged(line: Mapping[str, Any], values: Mapping[int, float], reason: str, reconstruction: bool) -> dict[str, Any]:
    """The ledger's row of a printed cell."""
    spread = line["metric"] == "std"
    numbers = list(values.values())
    std = float(pd.Series(numbers).std(ddof=1)) if len(numbers) > 1 else None
    ours: float | None = std if spread else (sum(numbers) / len(numbers) if numbers else None)
    low, high = (None, None) if std is None else _interval(numbers, spread)
    difference = None if ours is None else ours - line["value"]
    if ours is None or difference is None:
        verdict = "not run"
        reason = reason or "a standard deviation needs two seeds"
    elif reconstruction:
        verdict = "reconstruction"
        reason = reason or "neither equations nor code are public"
    elif low is None or high is None:
        verdict = "inside" if abs(difference) <= HALF else "above" if difference > 0 else "below"
        reason = reason or "one seed: no interval, compared with the printed number itself"
    elif low - HALF <= line["value"] <= high + HALF:
        verdict = "inside"
    else:
        verdict = "above" if difference > 0 else "below"
    return {
        "table": line["group"],
        "imbalance_ratio": float(line["imbalance_ratio"]),
        **{name: line[name] for name in ("row", "method", "dataset", "metric")},
        "ours": ours,
        "std": None if spread else std,
        "n": len(numbers),
        "printed": float(line["value"]),
        "difference": difference,
        "low": low,
        "high": high,
        "verdict": verdict,
        "reason": reason,
    }


def _interval(numbers: list[float], spread: bool) -> tuple[float, float]:
    """95 % interval over seeds: Student's for the mean, chi-square for the standard deviation."""
    if not spread:
        interval = stats.t_interval(numbers)
        return interval.low, interval.high
    free = len(numbers) - 1
    squares = free * float(pd.Series(numbers).var(ddof=1))
    low, high = scipy_stats.chi2.ppf([0.975, 0.025], free)
    return math.sqrt(squares / low), math.sqrt(squares / high)


def shown(value: Any) -> str:
    """A cell of the ledger for people: two decimals, a dash for what is not there."""
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
