"""Commands that evaluate runs: predictions, metrics, and the results of all runs together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpt.cli.options import Device, Results, Threads, log
from cpt.errors import CptError
from cpt.files.provenance import recorded


def predict(
    run: Annotated[Path, typer.Argument(help="folder of a finished run")],
    results: Results,
    target: Annotated[list[str], typer.Option(help="dataset/subset, where subset is base, new or all; repeatable")],
    part: Annotated[str, typer.Option(help="test or val")] = "test",
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """Classify the test images of the targets with a finished run.

    Example, after that of `cpt train`: `cpt predict my-run --results results/embedded --target flowers/base
    --target flowers/new`
    """
    from cpt.evaluation.predict import predict as run_prediction

    pairs = []
    for item in target:
        dataset, slash, subset = item.partition("/")
        if not slash:
            raise CptError(f"--target {item}: write dataset/subset, for example flowers/base")
        pairs.append((dataset, subset))
    with recorded(run / "predictions.parquet"):
        run_prediction(run, results, pairs, part=part, device=device, threads=threads, log=log)


def score(
    run: Annotated[Path, typer.Argument(help="folder with run.json and predictions.parquet")],
    split: Annotated[Path, typer.Option(help="split of the run; gives the ranking of the classes")],
    clusters: Annotated[
        Path | None,
        typer.Option(help="clusters of the trained classes; without them nothing is measured within clusters"),
    ] = None,
    class_groups: Annotated[str, typer.Option(help="relative sizes of head, medium and tail of the ranking")] = "1:1:1",
) -> None:
    """Compute metrics from predictions, without a model.

    Example, after that of `cpt predict`: `cpt score my-run --split
    results/embedded/splits/base_to_new/flowers/r1/s1.parquet`
    """
    from cpt.data.classes import parse_groups
    from cpt.evaluation.score import score as run_scoring

    groups = parse_groups(class_groups)
    with recorded(run / "metrics.parquet"):
        metrics = run_scoring(run, split, clusters, groups).to_pylist()
    for row in metrics:
        if row["epoch"] is None and row["metric"] in ("accuracy", "harmonic_mean"):
            log(f"{row['target']}/{row['subset']}: {row['metric'].replace('_', ' ')} {row['value']:.2f} %")


def aggregate(
    grid: Annotated[Path, typer.Option(help="grid.json of the experiment")],
    exhibit: Annotated[
        str | None, typer.Option(help="only of the runs that this table or figure shows, in `parts/<exhibit>`")
    ] = None,
) -> None:
    """Collect the results of all runs in one file each: metrics, costs, counts by class and confidence, and curves.

    Example: `cpt aggregate --grid results/embedded/grid.json`
    """
    from cpt.results.aggregate import aggregate as gather
    from cpt.results.aggregate import folder

    with recorded(folder(grid, exhibit) / "runs.parquet"):
        runs, rows = gather(grid, exhibit)
    log(f"wrote runs.parquet ({rows:,} metrics of {runs:,} runs), costs.parquet, counts.parquet and curves.parquet")
