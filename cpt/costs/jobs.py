"""The jobs of an experiment, derived as the workflow's rules derive them (rules/*.smk)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from cpt.experiment.grid import Grid
from cpt.experiment.resolved import Workflow
from cpt.experiment.stages import Stages, batch_name
from cpt.files import paths


def jobs(grid: Grid) -> dict[str, list[str]]:
    """Return the main output of every job of an experiment by rule; ``all`` has none and stands for itself."""
    runs, names = list(grid.runs.values()), datasets(grid)
    clustered = [*runs, *filter(None, map(grid.clustered, runs))]
    tested = {(name, run.hyperparameters.templates) for run in runs for name, _ in run.targets}
    parts = {pair for run in runs for pair in grid.frozen_image_parts(run)}
    tables = [name for name, exhibit in grid.exhibits.items() if exhibit["kind"] == "table"]
    found: dict[str, Iterable[str | None]] = {
        "grid": ["grid.json"],
        "backbone": ["backbone.json"],
        "fetch": [paths.fetched(name) for name in names if grid.catalog[name].fetched],
        "data": map(paths.manifest, names),
        "pixels": [paths.pixels(name, grid.config.evaluate_on) for name in grid.pixels],
        "split": [run.split for run in runs],
        "text_features": {run.text_features for run in clustered} | {paths.text_features(*pair) for pair in tested},
        "descriptions": map(grid.descriptions, runs),
        "image_features": [paths.image_features(*pair) for pair in parts],
        "clusters": [run.clusters for run in clustered],
        **_jobs_of_runs(grid),
        "aggregate": paths.GATHERED[:1],
        "table": [f"tables/{name}.{paths.TABLE[0]}" for name in tables],
        "figure": [f"figures/{name}.{paths.FIGURE[0]}" for name in grid.exhibits if name not in tables],
        "ledger": ["report/ledger.parquet"],
        "audit": ["report/audit.html"],
        "page": ["report/index.html"],
    }
    outputs = {rule: sorted({f"{grid.root}/{path}" for path in files if path}) for rule, files in found.items()}
    return {rule: files for rule, files in outputs.items() if files} | {"all": ["all"]}


def _jobs_of_runs(grid: Grid) -> dict[str, list[str]]:
    """Main outputs of trainings, predictions and scorings; of a job for several seeds, one that is still missing."""
    batches = Stages(grid.config, cast(Workflow, grid)).batches  # asks the runs for nothing but their seeds
    together = {f"{cell}/s{seed}" for seeds, cells in batches.items() for cell in cells for seed in seeds}
    found = {}
    for rule, (file, *_) in (("train", paths.TRAINED), ("predict", paths.PREDICTED), ("score", paths.SCORED)):
        found[rule] = [f"runs/{run}/{file}" for run in grid.runs if run not in together]
        for seeds, cells in batches.items():
            outputs = ([f"runs/{cell}/s{seed}/{file}" for seed in seeds] for cell in cells)
            found[f"{rule}_{batch_name(seeds)}"] = [
                min(files, key=lambda path: Path(grid.root, path).is_file()) for files in outputs
            ]
    return found


def datasets(grid: Grid) -> list[str]:
    """Return the datasets that an experiment trains on or tests on."""
    return sorted({name for run in grid.runs.values() for name in (run.dataset, *(d for d, _ in run.targets))})
