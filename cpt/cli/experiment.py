"""Verbs of an experiment as a whole: what it consists of, what it costs, how far it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpt.cli.options import ConfigFiles, Output, log, notice
from cpt.files.provenance import recorded


def grid(configs: ConfigFiles, output: Output) -> None:
    """Resolve a configuration into runs, tables and figures.

    Example: `cpt grid config/config.yaml --output results/embedded/grid.json`
    """
    from cpt.experiment import config
    from cpt.experiment import grid as grids
    from cpt.files.stage_files import write_json

    source = " + ".join(str(path) for path in configs)
    resolved = grids.build(config.load(configs, notice), source)
    with recorded(output) as record:
        write_json(output, resolved.as_json())
        record["configuration"] = [str(path) for path in configs]
    log(f"{len(resolved.runs)} runs for {', '.join(resolved.exhibits)}")


def plan(
    configs: ConfigFiles,
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
        made.time_here(log)
    numbers = made.numbers()
    if json is not None:
        write_json(json, numbers)
    console().print(render(numbers))


def status(
    configs: Annotated[list[Path] | None, typer.Argument(help="configuration files", metavar="[CONFIG...]")] = None,
) -> None:
    """Say how far an experiment is: done, running, failed with the log's path, missing; how fast, how long to go.

    Call it in the project's folder; it reads files only and may be called while Snakemake works.

    Example: `cpt status config/paper.yaml`
    """
    from cpt.experiment import config
    from cpt.report.terminal.console import console
    from cpt.report.terminal.status import render
    from cpt.workflow.status import status as look

    paths = configs or [Path("config/config.yaml")]
    console().print(render(look(config.load(paths), " + ".join(map(str, paths)))))


def methods(
    name: Annotated[str | None, typer.Argument(help="a method: list its hyperparameters")] = None,
    sheet: Annotated[Path | None, typer.Option(help="write everything about all methods as Markdown")] = None,
) -> None:
    """List the methods: what each does, how many values it learns on ViT-B/16, its source.

    Example: `cpt methods cpt` lists the hyperparameters of CPT with the source of every default.
    """
    from rich.table import Table

    from cpt.files.stage_files import write_text
    from cpt.methods.base import describe, registry
    from cpt.report.page.sheet import markdown
    from cpt.report.terminal.console import console

    if sheet is not None:
        write_text(sheet, markdown())
        log(f"wrote {sheet}")
    elif name is not None:
        facts = describe.facts(registry.check(name))
        log(f"{facts['title']}: {facts['summary']}\nsource: {facts['source']}\n")
        listing = Table("hyperparameter", "default", "meaning", "source of the default", box=None)
        for field, about in facts["hyperparameters"].items():
            listing.add_row(field, str(about["default"]), about["description"], about["source"])
        console().print(listing)
    else:
        listing = Table("name", "title", "what it does", "learns", "source", box=None)
        for known in registry.names():
            facts = describe.facts(known)
            mark = " (reconstruction)" if facts["reconstruction"] else ""
            learned = f"{describe.learned_values(known, 'base_to_new'):,}"
            listing.add_row(known, facts["title"] + mark, facts["summary"], learned, facts["source"])
        console().print(listing)


def schema(output: Output = Path("workflow/schemas/config.schema.json")) -> None:
    """Write the JSON schema of the configuration, generated from its types."""
    from cpt.experiment import config
    from cpt.files.stage_files import write_text

    write_text(output, config.schema())
