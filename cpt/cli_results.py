"""The verbs about an experiment's state and numbers: ``cpt status`` and ``cpt compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpt.cli_data import say
from cpt.errors import CptError

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
) -> None:
    """Compare two methods of an experiment, or one method in two experiments, paired by dataset and seed.

    Differences are second minus first. Intervals are over datasets; p is by flipping signs of the datasets'
    differences, corrected for all lines by Holm's method.

    Examples: `cpt compare ivlp cpt`, `cpt compare results/embedded results/mine --row cpt`
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from cpt.report import comparison
    from cpt.report.results import TASKS, read_results

    folders = [Path(word) if comparison.is_results(word) else results for word in (first, second)]
    rows = [row if comparison.is_results(word) else word for word in (first, second)]
    if folders[0] != folders[1] and rows[0] != rows[1]:
        raise CptError("cpt compare: give two rows, or two folders of results")
    sides = [read_results(folder / "grid.json", folder / "runs.parquet") for folder in folders]
    lines, left = comparison.compare(
        *(comparison.values_of(side, name) for side, name in zip(sides, rows, strict=True))
    )
    names = [
        f"{name} in {folder}" if folders[0] != folders[1] else name for name, folder in zip(rows, folders, strict=True)
    ]
    table = Table(box=box.SIMPLE, pad_edge=False)
    for title in ("task", "τ", "", *names, "difference", "95 % interval", "higher on", "p", "Holm"):
        table.add_column(title, justify="left" if title in ("task", "") else "right", no_wrap=True)
    for line in lines:
        bounds = line.difference
        interval = "–" if line.datasets < 2 else f"{bounds.low:+.2f} … {bounds.high:+.2f}"
        table.add_row(
            TASKS[line.task],
            f"{line.ratio:g}",
            line.metric,
            f"{line.first:.2f}",
            f"{line.second:.2f}",
            f"{bounds.estimate:+.2f}",
            interval,
            f"{line.higher} of {line.datasets}",
            f"{line.p:.3f}",
            f"{line.corrected:.3f}",
        )
    Console(width=max(Console().width, WIDTH), markup=False, emoji=False).print(table)  # folders may hold brackets
    say(f"{names[1]} minus {names[0]}, percentage points; seeds averaged ({max(line.seeds for line in lines)} at most)")
    if left:
        shown = ", ".join(f"{p.dataset} τ = {p.ratio:g} seed {p.seed}" for p in left[:3])
        say(f"not paired: {len(left)} numbers that only one side has ({shown}{', ...' if len(left) > 3 else ''})")
