"""The verbs about an experiment's state and numbers: ``cpt status`` and ``cpt compare``."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cpt.cli_data import say
from cpt.errors import CptError

if TYPE_CHECKING:
    from rich.table import Table

    from cpt.report.comparison import Images, Runs
    from cpt.stats import Interval

WIDTH = 120
"""Columns that a comparison needs; a narrower terminal wraps its lines."""


def status(
    configs: Annotated[list[Path] | None, typer.Argument(help="configuration files", metavar="[CONFIG...]")] = None,
) -> None:
    """Say how far an experiment is: done, running, failed with the log's path, missing; how fast, how long to go.

    Call it in the project's folder; it reads files only and may be called while Snakemake works.

    Example: `cpt status config/paper.yaml`
    """
    from rich.console import Console

    from cpt import config
    from cpt.report.status_text import render
    from cpt.status import status as look

    paths = configs or [Path("config/config.yaml")]
    Console().print(render(look(config.load(paths), " + ".join(map(str, paths)))))


def compare(
    first: Annotated[str, typer.Argument(help="a row (cpt, ivlp, ...), or a folder of results")],
    second: Annotated[str, typer.Argument(help="another row, or another folder")],
    results: Annotated[Path, typer.Option(help="where both rows are")] = Path("results/embedded"),
    row: Annotated[str, typer.Option(help="the row that is compared between two folders")] = "cpt",
    images: Annotated[bool, typer.Option(help="also every dataset, image by image, from the predictions")] = False,
) -> None:
    """Compare two methods of an experiment, or one method in two experiments, paired by dataset and seed.

    Differences are second minus first. Intervals are over datasets; p is by flipping signs of the datasets'
    differences, corrected for all lines by Holm's method. Below, over all runs: interquartile means and the chance that
    a run of the second beats one of the first on a dataset, with bootstrap intervals over seeds.

    Examples: `cpt compare ivlp cpt`, `cpt compare results/embedded results/mine --row cpt`
    """
    from rich.console import Console

    from cpt.report import comparison
    from cpt.report.results import TASKS, read_results

    folders = [Path(word) if comparison.is_results(word) else results for word in (first, second)]
    rows = [row if comparison.is_results(word) else word for word in (first, second)]
    if folders[0] != folders[1] and rows[0] != rows[1]:
        raise CptError("cpt compare: give two rows, or two folders of results")
    sides = [read_results(folder / "grid.json", folder / "runs.parquet") for folder in folders]
    values = [comparison.values_of(side, name) for side, name in zip(sides, rows, strict=True)]
    lines, left = comparison.compare(*values)
    names = [
        f"{name} in {folder}" if folders[0] != folders[1] else name for name, folder in zip(rows, folders, strict=True)
    ]
    table = _table("task", "τ", "", *names, "difference", "95 % interval", "higher on", "p", "Holm")
    for line in lines:
        table.add_row(
            TASKS[line.task],
            f"{line.ratio:g}",
            line.metric,
            f"{line.first:.2f}",
            f"{line.second:.2f}",
            f"{line.difference.estimate:+.2f}",
            _bounds(line.difference, "+.2f"),
            f"{line.higher} of {line.datasets}",
            f"{line.p:.3f}",
            f"{line.corrected:.3f}",
        )
    console = Console(width=max(Console().width, WIDTH), markup=False, emoji=False)  # folders may hold brackets
    console.print(table)
    console.print(_over_runs(comparison.over_runs(*values), names))
    if images:
        console.print(_over_images(comparison.over_images(*zip(sides, rows, strict=True))))
    say(f"{names[1]} minus {names[0]}, percentage points; seeds averaged ({max(line.seeds for line in lines)} at most)")
    if left:
        shown = ", ".join(f"{p.dataset} τ = {p.ratio:g} seed {p.seed}" for p in left[:3])
        say(f"not paired: {len(left)} numbers that only one side has ({shown}{', ...' if len(left) > 3 else ''})")


def _table(*titles: str) -> Table:
    """An empty table; the task and titles of no words stand left."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for title in titles:
        table.add_column(title, justify="left" if title in ("task", "", "dataset") else "right", no_wrap=True)
    return table


def _bounds(interval: Interval, form: str) -> str:
    return "–" if isnan(interval.low) else f"{interval.low:{form}} … {interval.high:{form}}"


def _over_runs(found: list[Runs], names: list[str]) -> Table:
    from cpt.report.results import TASKS
    from cpt.stats import Interval

    table = _table("task", "τ", "", *(f"middle of {name}" for name in names), f"{names[1]} beats {names[0]}")
    for line in found:
        middles = [f"{side.estimate:.2f} [{_bounds(side, '.2f')}]" for side in (line.first, line.second)]
        percent = Interval(*(100 * value for value in line.improvement))
        chance = f"{percent.estimate:.0f} % [{_bounds(percent, '.0f')}]"
        table.add_row(TASKS[line.task], f"{line.ratio:g}", line.metric, *middles, chance)
    return table


def _over_images(found: list[Images]) -> Table:
    from cpt.report.results import TASKS

    table = _table("task", "τ", "dataset", "", "images", "difference", "95 % interval over images")
    for line in found:
        shown = f"{line.difference.estimate:+.2f}", _bounds(line.difference, "+.2f")
        where = TASKS[line.task], f"{line.ratio:g}", line.dataset, line.metric
        table.add_row(*where, f"{line.images:,}", *shown)
    return table
