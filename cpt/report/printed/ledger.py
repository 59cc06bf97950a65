"""The ledger: every printed cell of the paper's Tables 1-5 beside ours.

It exists for experiments on the paper's backbone and datasets (``printed: true`` in the configuration); for others it
says why nothing can be compared. A verdict needs numbers of the same images, and seeds that tell enough.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
from scipy import stats as scipy_stats

from cpt.experiment.exhibits import RECONSTRUCTION
from cpt.files.paths import NATURAL
from cpt.files.stage_files import write_parquet, write_text
from cpt.report.printed.published import SOURCE, TRANSFER, read_published
from cpt.report.templates import templates
from cpt.report.words import AVERAGE, counted
from cpt.results import stats
from cpt.results.cells import (
    TASKS,
    Results,
    average,
    averaged_datasets,
    judged_by,
    read_results,
    uneven,
)

SCHEMA = "cpt.ledger/1"
TABLES = ("table1", "table2", "table3", "table4", "table5")
PRINTED_IN = {"base_to_new": "table2", "cross_dataset": "table3", "domain_generalization": "table4"}
"""Task: the printed table that has its datasets."""

TASK_OF = {table: task for task, table in PRINTED_IN.items()} | {"table5": "base_to_new"}
"""Printed table: its task; Table 1 has one in every column."""

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
INSIDE, ABOVE, BELOW, RECONSTRUCTED = "inside", "above", "below", "reconstruction"
TOO_WIDE, OTHER_IMAGES, NOT_RUN = "too wide to tell", "not comparable", "not run"
VERDICTS = {
    INSIDE: "the printed number lies in the 95 % interval of ours, which is narrower than the printed column",
    ABOVE: "ours is higher, and the printed number lies below its interval",
    BELOW: "ours is lower, and the printed number lies above its interval",
    TOO_WIDE: "the printed number lies in the interval, but so could every row's: it is at least as wide as the "
    "printed column from its lowest to its highest row at this τ; or a single seed has no interval",
    OTHER_IMAGES: "ours is of other images: an average over other datasets, or not the paper's dataset or split",
    RECONSTRUCTED: "the method is built from a description: its difference says little",
    NOT_RUN: "no finished run, or the experiment does not ask for it",
}
"""Verdicts and what they mean, as the page explains them."""

NOT_ASKED = "the experiment does not ask for it"


def make_ledger(folder: Path, published: Path) -> tuple[Counter[str], str]:
    """Write ``report/ledger.parquet``, ``.csv`` and ``.html`` of ``results/<experiment>``.

    Return the number of cells by verdict, and why there are none (``refusal``).

    Raises:
        CptError: an input is missing or damaged.
    """
    results, output = read_results(folder / "grid.json", folder / "runs.parquet"), folder / "report"
    rows = ledger(results, read_published(published)) if results.grid["printed"] else []
    table = pa.Table.from_pylist(rows, schema=pa.schema(COLUMNS))
    write_parquet(output / "ledger.parquet", table, SCHEMA, experiment=results.grid["experiment"])
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    write_text(output / "ledger.csv", frame.to_csv(index=False, lineterminator="\n"))
    counts = Counter(row["verdict"] for row in rows)
    page = templates().get_template("templates/ledger.html.j2")
    told = [{name: shown(row[name]) for name in COLUMNS} for row in rows]
    text = page.render(
        refusal=refusal(results),
        rows=[row for row in told if row["verdict"] != NOT_RUN],
        absent=[row for row in told if row["verdict"] == NOT_RUN],
        counts=[(name, counts[name], meaning) for name, meaning in VERDICTS.items()],
        total=len(rows),
    )
    write_text(output / "ledger.html", text)
    return counts, refusal(results)


def refusal(results: Results) -> str:
    """Why an experiment's numbers are not compared with the printed ones; empty where they are."""
    if results.grid["printed"]:
        return ""
    return (
        f"the printed numbers are of OpenAI's CLIP ViT-B/16 on 15 real datasets; this experiment, with "
        f"{results.grid['backbone']}, has printed: false"
    )


def ledger(results: Results, printed: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one row per printed cell (``read_published``), in printed order."""
    chosen = printed[printed["group"].isin(TABLES)]
    place = ["group", "imbalance_ratio", "dataset", "metric"]
    columns = chosen.groupby(place)["value"]
    spans = chosen[place].merge((columns.max() - columns.min()).rename("span"), on=place)["span"]
    lines = chosen.to_dict("records")
    return [_judged(line, _ours(results, printed, line), span) for line, span in zip(lines, spans, strict=True)]


class Ours(NamedTuple):
    """Our side of a printed cell: values by seed, and whether they are of the same images and of a reconstruction.

    ``reason`` says why they are missing or of other images, or what seeds they leave out.
    """

    values: Mapping[int, float]
    reason: str = ""
    comparable: bool = True
    reconstruction: bool = False


def _ours(results: Results, printed: pd.DataFrame, line: Mapping[str, Any]) -> Ours:
    """Our side of a printed cell."""
    exhibit = results.grid["exhibits"].get(line["group"], {"rows": []})
    row = next((row for row in exhibit["rows"] if row["id"] == line["row"]), None)
    if row is None:
        return Ours({}, NOT_ASKED)
    columns = {name: task for task, name in TASKS.items()}  # of Table 1
    task = columns.get(line["dataset"]) or TASK_OF[line["group"]]
    averaged = line["dataset"] in (AVERAGE, *columns)
    wanted = averaged_datasets(exhibit, task) if averaged else [_named(results, line["dataset"])]
    cells = {
        cell["dataset"]: cell
        for cell in exhibit["cells"]
        if (cell["row"], cell["task"]) == (line["row"], task)
        and cell["ratio"] != NATURAL
        and math.isclose(cell["ratio"], line["imbalance_ratio"])
    }
    absent = [name for name in wanted if name not in cells]
    if absent:
        return Ours({}, f"the experiment does not ask for {', '.join(absent)}")
    if not wanted:
        return Ours({}, NOT_ASKED)
    parts = [results.seeds(cells[name], judged_by(task)) for name in wanted]
    values = average(parts)
    if not values:
        return Ours({}, "no seed that all of its datasets have" if all(parts) else "no finished run")
    reason = _other_images(results, wanted)
    if averaged:
        reason = _other_average(results, wanted, _printed_datasets(printed, task, line["imbalance_ratio"])) or reason
    comparable, reconstruction = not reason, RECONSTRUCTION in (row.get("note") or "")
    if uneven(parts):
        reason = "; ".join(filter(None, [reason, "only the seeds that all of its datasets have"]))
    return Ours(values, reason, comparable, reconstruction)


def _named(results: Results, title: str) -> str:
    """Our dataset that is the paper's of this title, or plays its role."""
    playing = [name for name, entry in results.grid["datasets"].items() if entry["counterpart"] == title]
    return next((name for name in playing if results.grid["datasets"][name]["title"] == title), [*playing, title][0])


def _other_images(results: Results, datasets: Sequence[str]) -> str:
    """Why numbers of these datasets are not of the paper's images; empty where they are."""
    entries = {name: results.grid["datasets"][name] for name in datasets}
    other = [name for name, entry in entries.items() if entry["title"] != entry["counterpart"]]
    derived = [name for name, entry in entries.items() if entry["derived_split"]]
    if other:
        return f"not a dataset of the paper: {', '.join(other)}"
    return f"derived split of {', '.join(derived)}: other images" if derived else ""


def _printed_datasets(printed: pd.DataFrame, task: str, ratio: float) -> set[str]:
    """Datasets that a printed average is over."""
    table = PRINTED_IN[task]
    columns = printed.loc[(printed["group"] == table) & (printed["imbalance_ratio"] == ratio), "dataset"]
    return set(columns) - {AVERAGE} - ({SOURCE} if table in TRANSFER else set())


def _other_average(results: Results, datasets: Sequence[str], printed: set[str]) -> str:
    """Why an average over these datasets is not the printed one; empty where it is."""
    own = {results.grid["datasets"][name]["counterpart"] or name for name in datasets}
    if own == printed:
        return ""
    both = len(own & printed)
    return f"average over {counted(len(own), 'dataset')}, the printed one over {len(printed)} ({both} in both)"


def _judged(line: Mapping[str, Any], ours: Ours, span: float) -> dict[str, Any]:
    """The ledger's row of a printed cell, whose column spans so much from its lowest to its highest row."""
    spread = line["metric"] == "std"
    numbers = list(ours.values.values())
    std = statistics.stdev(numbers) if len(numbers) > 1 else None
    number = std if spread else statistics.fmean(numbers) if numbers else None
    low, high = (None, None) if std is None else _interval(numbers, spread)
    difference = None if number is None or not ours.comparable else number - line["value"]
    if number is None:
        verdict, reason = NOT_RUN, "a standard deviation needs two seeds"
    elif difference is None:
        verdict, reason = OTHER_IMAGES, ""
    elif ours.reconstruction:
        verdict, reason = RECONSTRUCTED, "neither equations nor code are public"
    elif low is None or high is None:
        verdict, reason = TOO_WIDE, "one seed: no interval"
    elif not low - HALF <= line["value"] <= high + HALF:
        verdict, reason = (ABOVE if difference > 0 else BELOW), ""
    elif high - low >= span:
        verdict, reason = TOO_WIDE, f"interval of {high - low:.2f}, the printed column spans {span:.2f}"
    else:
        verdict, reason = INSIDE, ""
    return {
        "table": line["group"],
        "imbalance_ratio": float(line["imbalance_ratio"]),
        **{name: line[name] for name in ("row", "method", "dataset", "metric")},
        "ours": number,
        "std": None if spread else std,
        "n": len(numbers),
        "printed": float(line["value"]),
        "difference": difference,
        "low": low,
        "high": high,
        "verdict": verdict,
        "reason": "; ".join(filter(None, [reason, ours.reason])) if number is not None else ours.reason or reason,
    }


def _interval(numbers: list[float], spread: bool) -> tuple[float, float]:
    """95 % interval over seeds: Student's for the mean, chi-square for the standard deviation."""
    if not spread:
        return stats.t_interval(numbers)[1:]
    free = len(numbers) - 1
    squares = free * statistics.variance(numbers)
    low, high = scipy_stats.chi2.ppf([0.975, 0.025], free)
    return math.sqrt(squares / low), math.sqrt(squares / high)


def shown(value: Any) -> str:
    """A cell of the ledger for people: two decimals, a dash for what is not there."""
    if value is None:
        return "–"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
