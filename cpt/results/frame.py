"""An experiment as one table: all metrics for notebooks (``cpt.results``), or its finished runs (``cpt runs``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cpt.files.paths import RUNS
from cpt.files.stage_files import read_parquet
from cpt.results.cells import METRICS, read_results, row_names

if TYPE_CHECKING:
    import pandas as pd


def frame(folder: str | Path) -> pd.DataFrame:
    """Return the metrics of an experiment's finished runs, one row per exhibit, row, run, target and metric.

    A run that several rows or exhibits show stands there once for each, so that rows of one exhibit can be grouped by
    ``row`` without mixing what it keeps apart.

    Args:
        folder: ``results/<experiment>``.

    Returns:
        ``exhibit``, ``row`` (its label as in tables), ``task``, ``x`` (value of the hyperparameter that a sweep
        varies), and the columns of ``runs.parquet`` (docs/files.md). ``imbalance_ratio`` is the exhibit's: an
        untrained run, which has none of its own, stands at each.

    Raises:
        CptError: grid.json or runs.parquet is missing or damaged.
    """
    import pandas as pd

    root = Path(folder)
    results = read_results(root / "grid.json", root / "runs.parquet")
    cells = [
        {"exhibit": name, "row": labels[cell["row"]], "task": cell["task"], "x": cell["x"], "run": run}
        | {"target": cell["dataset"], "ratio": cell["ratio"]}
        for name, exhibit in results.grid["exhibits"].items()
        for labels in [row_names(exhibit["rows"])]
        for cell in exhibit["cells"]
        for run in cell["runs"]
    ]
    metrics = read_parquet(root / "runs.parquet", RUNS)[0].to_pandas()
    columns = ["exhibit", "row", "task", "x", "run", "target", "ratio"]
    found = pd.DataFrame(cells, columns=columns).drop_duplicates().merge(metrics, on=["run", "target"])
    found["imbalance_ratio"] = found.pop("ratio")
    return found


def finished_runs(folder: str | Path) -> pd.DataFrame:
    """Return an experiment's finished runs, one row each.

    Args:
        folder: ``results/<experiment>``.

    Returns:
        ``folder`` of the run; ``rows``, the labels of the tables and figures that show it, separated by ``; ``;
        ``method``; ``dataset`` and ``protocol`` that it is trained on; ``imbalance_ratio``, None where nothing is
        trained; ``seed``; and what it is judged by on that dataset: ``metric`` (H or accuracy), ``value`` in percent.

    Raises:
        CptError: grid.json or runs.parquet is missing or damaged.
    """
    import pandas as pd

    root = Path(folder)
    results = read_results(root / "grid.json", root / "runs.parquet")
    labels: dict[str, dict[str, None]] = {}
    for exhibit in results.grid["exhibits"].values():
        names = row_names(exhibit["rows"])
        for cell in exhibit["cells"]:
            for run in cell["runs"]:
                labels.setdefault(run, {})[names[cell["row"]]] = None
    found = []
    for name in sorted(results.finished):
        run = results.run(name)
        metric = "H" if run["protocol"] == "base_to_new" else "accuracy"
        facts = {key: run[key] for key in ("method", "dataset", "protocol", "imbalance_ratio", "seed")}
        value = results.values.get((name, run["dataset"], *METRICS[metric]))
        where = {"folder": str(root / "runs" / name), "rows": "; ".join(labels.get(name, ()))}
        found.append(where | facts | {"metric": metric, "value": value})
    return pd.DataFrame(found)
