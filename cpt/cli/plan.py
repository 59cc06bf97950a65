"""The verb ``cpt plan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpt.cli.data import notice, say


def plan(
    configs: Annotated[list[Path], typer.Argument(help="configuration files; later ones win", metavar="CONFIG...")],
    measure: Annotated[
        bool, typer.Option("--measure", help="time steps on this machine first, for this and later plans (minutes)")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda: whose costs; default: the configuration's")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, float32, bfloat16 or float16; default: the configuration's")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="write the same numbers as JSON, seconds and bytes")] = None,
) -> None:
    """Say what an experiment will do and cost before it starts: jobs, runs, steps, hours, disk, memory, what is there.

    Example: `cpt plan config/paper.yaml`
    """
    from cpt.costs.plan import Plan
    from cpt.experiment import config
    from cpt.experiment import grid as grids
    from cpt.files.stage_files import write_json
    from cpt.report.terminal.console import console
    from cpt.report.terminal.plan import render

    loaded = config.load(configs, notice)
    grid = grids.build(loaded, " + ".join(str(path) for path in configs))
    made = Plan(grid, device or loaded.device, precision or loaded.precision)
    if measure:
        made.time_here(say)
    numbers = made.numbers()
    if json is not None:
        write_json(json, numbers)
    console().print(render(numbers))
