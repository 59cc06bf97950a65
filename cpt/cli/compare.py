"""The command ``cpt compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpt.cli.options import log
from cpt.errors import CptError


def compare(
    first: Annotated[str, typer.Argument(help="row of a table (cpt, ivlp, ...), or folder of results")],
    second: Annotated[str, typer.Argument(help="second row or folder")],
    results: Annotated[Path, typer.Option(help="folder of results with both rows")] = Path("results/embedded"),
    row: Annotated[str, typer.Option(help="row to compare between two folders")] = "cpt",
    images: Annotated[bool, typer.Option(help="also compare image by image on every dataset")] = False,
) -> None:
    """Compare two methods of an experiment, or one method in two experiments, paired by dataset and seed.

    Differences are the second (B) minus the first (A) in percentage points, over the seeds that both have on all
    datasets. Intervals are over datasets. p is from flipping the signs of the datasets' differences, corrected over all
    rows by Holm's method. Below are, over all runs, interquartile means and the probability that a run of B
    beats a run of A on a dataset, with bootstrap intervals over seeds.

    Examples: `cpt compare ivlp cpt`, `cpt compare results/embedded results/mine --row cpt`
    """
    from cpt.report.terminal import comparison as comparison_text
    from cpt.report.terminal.console import console
    from cpt.results import comparison
    from cpt.results.cells import read_results

    folders = [Path(word) if comparison.is_results(word) else results for word in (first, second)]
    rows = [row if comparison.is_results(word) else word for word in (first, second)]
    if folders[0] != folders[1] and rows[0] != rows[1]:
        raise CptError("cpt compare: give two rows, or two folders of results")
    sides = [
        (read_results(folder / "grid.json", folder / "runs.parquet"), name)
        for folder, name in zip(folders, rows, strict=True)
    ]
    comparison.require_two_sides(*sides)
    values = [comparison.values_of(*side) for side in sides]
    lines, left = comparison.compare(*values)
    for letter, name, folder in zip("AB", rows, folders, strict=True):
        log(f"{letter}: {name} in {folder}")
    tables = [*comparison_text.over_datasets(lines), *comparison_text.over_runs(comparison.over_runs(*values))]
    if images:
        tables += comparison_text.over_images(comparison.over_images(*sides))
    printer = console(comparison_text.WIDTH)
    for table in tables:
        printer.print(table)
    counts = sorted({line.seeds for line in lines})
    log(f"\npercentage points; means over {' or '.join(map(str, counts))} seed{'' if counts == [1] else 's'}")
    if left:
        places = list(dict.fromkeys(f"{p.dataset} τ = {p.ratio:g} seed {p.seed}" for p in left))
        shown = ", ".join(places[:3]) + (", ..." if len(places) > 3 else "")
        log(f"left out: {len(left)} numbers whose seed is not on both sides and all datasets ({shown})")
