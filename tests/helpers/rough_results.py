"""The invented results with numbers of which no two are alike: a mean, a deviation or a mark cannot pass for another.

What is made from them is compared with plain arithmetic on the same files: ``seeds`` and ``over_datasets`` read them
with pandas, without the package's own readers.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from cpt.files.paths import CLASSIFIER, COSTS, COUNTS, CURVES, GRID, METRICS, RUNS
from cpt.files.stage_files import read_tensors, write_json, write_parquet, write_tensors
from tests.helpers import fake_results

TWO_SEEDS = ("cpt", "flowers", 0.06)
"""Row, dataset and ratio of Table 2 whose cell has two of the three seeds that other exhibits have."""
STARTED = ("cptsum", "ivlp")
"""A method whose runs start from the finished ones of another."""
TIE = 66.625
"""A value that lies halfway between two shown ones: zero-shot on world."""


def write_results(folder: Path) -> tuple[Path, Path]:
    """Write what ``fake_results.write_results`` writes, roughened; return grid.json and runs.parquet."""
    grid, runs = fake_results.write_results(folder)
    random = np.random.default_rng(11)

    def add(values: np.ndarray, spread: float) -> np.ndarray:
        return values + random.normal(0, spread, len(values))

    def times(values: np.ndarray) -> np.ndarray:
        return values * random.uniform(0.5, 1.5, len(values))

    table = pq.read_table(runs).to_pandas()
    table["value"] = add(table["value"].to_numpy(), 2.0)
    table.loc[(table["method"] == "zeroshot") & (table["target"] == "world") & (table["metric"] == "harmonic_mean"),
              "value"] = TIE  # fmt: skip
    _write(runs, table, RUNS, experiment="invented")
    costs = pq.read_table(folder / "costs.parquet").to_pandas()
    for name in ("seconds", "peak_memory_mb"):
        costs[name] = times(costs[name].to_numpy())
    costs["learnable_parameters"] *= random.integers(1, 99, len(costs))
    _write(folder / "costs.parquet", costs, COSTS)
    curves = pq.read_table(folder / "curves.parquet").to_pandas()
    curves["value"] = times(curves["value"].to_numpy())
    _write(folder / "curves.parquet", curves, CURVES)
    counts = pq.read_table(folder / "counts.parquet").to_pandas()
    counts["images"] = random.integers(40, 400, len(counts))
    counts["correct"] = random.binomial(counts["images"], random.uniform(0.2, 0.9, len(counts)))
    counts["confidence"] = np.where(
        counts["by"] == "confidence", (counts["index"] + random.random(len(counts))) / 15, 0.5
    )
    write_parquet(
        folder / "counts.parquet",
        pa.Table.from_pandas(counts, schema=fake_results.COUNTED, preserve_index=False),
        COUNTS,
    )
    for path in sorted((folder / "runs").rglob("metrics.parquet")):
        snapshots = pq.read_table(path).to_pandas()
        snapshots["value"] = add(snapshots["value"].to_numpy(), 1.0)
        _write(path, snapshots, METRICS)
    for path in sorted((folder / "runs").rglob("classifier.safetensors")):
        tensors, _ = read_tensors(path, CLASSIFIER)
        rough = {
            name: value + torch.tensor(random.normal(0, 0.1, value.shape)).float() for name, value in tensors.items()
        }
        write_tensors(path, rough, CLASSIFIER)
    for path in sorted((folder / "clusters").rglob("*.parquet")):
        clusters = pq.read_table(path).to_pandas()
        clusters["cluster"] = clusters["label"] % 3  # classes of a cluster are no neighbors
        _write(path, clusters, "cpt.clusters/1")
    asked = json.loads(grid.read_text())
    for cell in asked["exhibits"]["table2"]["cells"]:
        if (cell["row"], cell["dataset"], cell["ratio"]) == TWO_SEEDS:
            cell["runs"] = cell["runs"][:2]
    for run in asked["runs"]:
        if (run["method"], run["key"]) == STARTED[:1] * 2:
            run["start"] = run["run"].replace(*(f"/{method}/" for method in STARTED))
    write_json(grid, asked | {"schema": GRID})
    return grid, runs


def _write(path: Path, table: pd.DataFrame, schema: str, **metadata: Any) -> None:
    write_parquet(path, pa.Table.from_pandas(table, preserve_index=False), schema, **metadata)


# ---- the same numbers by plain arithmetic --------------------------------------------------------

METRIC = {
    "H": ("base+new", "harmonic_mean"),
    "base": ("base", "accuracy"),
    "new": ("new", "accuracy"),
    "accuracy": ("all", "accuracy"),
    "tail": ("base", "tail_accuracy"),
    "tail_as_head": ("base", "tail_as_head"),
    "ece_base": ("base", "calibration_error"),
    "effective_rank": ("base", "effective_rank"),
}


def seeds(folder: Path, cell: Mapping[str, Any], metric: str) -> pd.Series:
    """Value by seed of a cell's finished runs."""
    measured = _measured(folder).get((cell["dataset"], *METRIC[metric]))
    if measured is None:
        return pd.Series(dtype=float)
    return measured[measured["run"].isin(cell["runs"])].set_index("seed")["value"].sort_index()


@functools.cache
def _measured(folder: Path) -> dict[tuple[str, str, str], pd.DataFrame]:
    """Rows after training by target, subset and metric."""
    table = pd.read_parquet(folder / "runs.parquet")
    return dict(iter(table[table["epoch"].isna()].groupby(["target", "subset", "metric"])))


def over_datasets(folder: Path, cells: Iterable[Mapping[str, Any]], metric: str) -> pd.Series:
    """Mean over cells by seed, of the seeds that all of them have."""
    return pd.concat([seeds(folder, cell, metric) for cell in cells], axis=1, join="inner").mean(axis=1)
