"""Aggregation of all runs of a grid: metrics -> runs.parquet, cost -> costs.parquet, and what the page opens of a run:
counts by class and confidence -> counts.parquet, histories -> curves.parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from cpt.errors import CptError, nearest
from cpt.files.paths import COSTS, COUNTS, CURVES, GRID, HISTORY, METRICS, NATURAL, PARTS, RUN, RUNS
from cpt.files.stage_files import canonical_json, read_json, read_parquet, write_parquet

SCHEMAS = {"runs": RUNS, "costs": COSTS, "counts": COUNTS, "curves": CURVES}
"""Tables of all runs, and the schemas of their files."""
IDENTITY = ("protocol", "dataset", "imbalance_ratio", "method")
NO_CURVE = ("epoch", "steps", "seconds")
COST = ("seconds", "peak_memory_mb", "learnable_parameters", "steps")


def aggregate(grid: Path, exhibit: str | None = None) -> tuple[int, int]:
    """Write runs, costs, counts and curves.parquet beside ``grid`` from every run that it names.

    Args:
        grid: grid.json.
        exhibit: write those of the runs that this table or figure shows, and into ``folder(grid, exhibit)``.

    Returns:
        The number of runs, and of their metrics.

    Raises:
        CptError: as ``gathered``.
    """
    tables, experiment = gathered(grid, exhibit), read_json(grid, GRID)["experiment"]
    for name, schema in SCHEMAS.items():
        write_parquet(folder(grid, exhibit) / f"{name}.parquet", tables[name], schema, experiment=experiment)
    return len(tables["costs"]), len(tables["runs"])


def gathered(grid: Path, exhibit: str | None = None) -> dict[str, pa.Table]:
    """Return what ``aggregate`` writes, by the names of ``SCHEMAS``; nothing is written.

    Raises:
        CptError: a run's record or metrics are missing or damaged, or belong to another run, or no such exhibit.
    """
    plan = read_json(grid, GRID)
    root = grid.parent
    derived = {name for name, entry in plan["datasets"].items() if entry["derived_split"]}
    parts: dict[str, list[pa.Table]] = {"runs": [], "counts": [], "curves": []}
    costs = []
    for run in sorted(_shown(grid, plan, exhibit), key=lambda run: run["run"]):
        name, place = run["run"], root / "runs" / run["run"]
        record = read_json(place / "run.json", RUN)
        if any(record[key] != run[key] for key in (*IDENTITY, "seed")):
            raise CptError(f"{place / 'run.json'}: describes another run; delete the folder and run again")
        metrics, _ = read_parquet(place / "metrics.parquet", METRICS)
        identity = {
            "experiment": plan["experiment"],
            "backbone": plan["backbone"],
            **{key: run[key] for key in IDENTITY},
            "imbalance_ratio": None if run["imbalance_ratio"] == NATURAL else run["imbalance_ratio"],
            "key": run["key"],
            "hyperparameters": canonical_json(record["hyperparameters"]),
            "seed": run["seed"],
            "run": name,
        }
        made = [bool({run["dataset"], target} & derived) for target in metrics["target"].to_pylist()]
        kinds = {"imbalance_ratio": pa.float64()}  # which may be unknown
        columns = {key: pa.array([value] * len(metrics), kinds.get(key)) for key, value in identity.items()}
        parts["runs"].append(_before(columns | {"derived_split": pa.array(made)}, metrics))
        counts, _ = read_parquet(place / "counts.parquet", COUNTS)
        curves = _curves(read_parquet(place / "history.parquet", HISTORY)[0])
        for kind, table in (("counts", counts), ("curves", curves)):
            parts[kind].append(_before({"run": pa.array([name] * len(table), pa.string())}, table))
        costs.append(
            {"run": name, **{key: record[key] for key in COST}}
            | {f"{kind}_per_step": float(number) for kind, number in record["encoded_per_step"].items()}
            | {"augmentation": _augmentation(record), "text_knowledge": _knowledge(record["text_knowledge"])}
            | {"device": record["device_name"]}
        )
    tables = {kind: pa.concat_tables(found) for kind, found in parts.items()}
    return tables | {"costs": pa.Table.from_pylist(costs)}


def folder(grid: Path, exhibit: str | None = None) -> Path:
    """Return the folder that ``aggregate`` writes into."""
    return grid.parent if exhibit is None else grid.parent / PARTS / exhibit


def _shown(grid: Path, plan: dict[str, Any], exhibit: str | None) -> list[dict[str, Any]]:
    """Entries of the runs that an exhibit shows; of all runs without one."""
    runs: list[dict[str, Any]] = plan["runs"]
    if exhibit is None:
        return runs
    if exhibit not in plan["exhibits"]:
        raise CptError(f"{grid}: no exhibit {exhibit!r}; {nearest(exhibit, plan['exhibits'])}")
    shown = {name for cell in plan["exhibits"][exhibit]["cells"] for name in cell["runs"]}
    return [run for run in runs if run["run"] in shown]


def _before(columns: dict[str, pa.Array], table: pa.Table) -> pa.Table:
    return pa.table(columns | {name: table[name] for name in table.column_names})


def _curves(history: pa.Table) -> pa.Table:
    """The measures of a history in long form, but not its seconds, which differ between equal computations."""
    epochs = history["epoch"].to_pylist()
    names = [name for name in history.column_names if name not in NO_CURVE]
    return pa.table(
        {
            "epoch": pa.array(epochs * len(names), pa.int64()),
            "measure": pa.array([name for name in names for _ in epochs], pa.string()),
            "value": pa.array([value for name in names for value in history[name].to_pylist()], pa.float64()),
        }
    )


def _augmentation(record: dict[str, Any]) -> str:
    """The augmentation that a run really had, for people: ``2 × rand_augment``."""
    views, name = record["views"], record["augmentation"]
    return name if views == 1 else f"{views} × {name}"


def _knowledge(found: dict[str, Any] | None) -> str:
    """What a run knew of its classes beyond their names, for people."""
    if found is None:
        return "none"
    if found["kind"] == "new_classes":
        return f"names of {found['count']} new classes"
    where = f"the file {found['file']}" if found["kind"] == "file" else f"the templates “{found['templates']}”"
    return f"{found['per_class']} descriptions per class from {where}"
