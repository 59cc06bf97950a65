"""Commands about a whole experiment: its runs, cost, progress and files, and about methods and the schema."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from cpt.cli.options import CATALOG, Catalog, ConfigFiles, Output, log, notice, slow
from cpt.errors import CptError
from cpt.files.provenance import recorded

PERIOD = 2.0
"""Seconds between two looks of ``cpt status --watch``."""


def grid(configs: ConfigFiles, output: Output) -> None:
    """Resolve a configuration into the runs that its tables and figures need.

    Example: `cpt grid config/config.yaml --output results/embedded/grid.json`
    """
    from cpt.experiment import config
    from cpt.experiment import grid as grids
    from cpt.files.stage_files import write_json

    source = " + ".join(str(path) for path in configs)
    resolved = grids.build(config.load(configs, notice), source, notice)
    with recorded(output) as record:
        write_json(output, resolved.as_json())
        record["configuration"] = [str(path) for path in configs]
    log(f"{len(resolved.runs)} runs for {', '.join(resolved.exhibits)}")


def plan(
    configs: ConfigFiles,
    measure: Annotated[
        bool, typer.Option("--measure", help="first time steps on this machine, for this and later plans (minutes)")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="device to estimate for: auto, cpu or cuda; default: the configuration's")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="auto, float32, bfloat16, float16 or float16_scaled; default: the configuration's"),
    ] = None,
    card: Annotated[
        str, typer.Option(help="GPU to estimate for where none was measured: h100, h200, a100 or rtx4090")
    ] = "h100",
    cards: Annotated[int, typer.Option(min=1, help="number of GPUs that share the work")] = 1,
    json: Annotated[Path | None, typer.Option(help="also write the numbers as JSON, in seconds and bytes")] = None,
) -> None:
    """Estimate what an experiment costs before it starts: jobs, runs, steps, hours, disk, memory. Show what exists.

    Example: `cpt plan config/paper.yaml`
    """
    from cpt.costs.plan import Plan
    from cpt.experiment import config, preflight, resolved
    from cpt.experiment import grid as grids
    from cpt.experiment.stages import Stages
    from cpt.files.stage_files import write_json
    from cpt.report.terminal.console import console
    from cpt.report.terminal.plan import render

    source = " + ".join(str(path) for path in configs)
    with slow() as say:
        say(f"resolving {source}")
        loaded = config.load(configs, notice)
        grid = grids.build(loaded, source, notice)
        stages = Stages(loaded, resolved.of(grid))
        preflight.require_tensorboard(stages)
        preflight.check(stages, source)
        say(f"counting the jobs of {len(grid.runs):,} runs")
        made = Plan(grid, device or loaded.device, precision or loaded.precision, card, cards)
    if measure:
        made.time_here(log)
    with slow() as say:
        say(f"estimating the costs of {len(grid.runs):,} runs")
        numbers = made.numbers()
    if json is not None:
        write_json(json, numbers)
    console().print(render(numbers))


def status(
    configs: Annotated[list[Path] | None, typer.Argument(help="configuration files", metavar="[CONFIG...]")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="show it anew every two seconds, until all is done")] = False,
) -> None:
    """Show the progress of an experiment: what runs (epoch, loss, time left, log), what failed and why, what is left.

    Run it in the project's folder. It only reads files, so it can run beside Snakemake. Ctrl-C ends --watch and nothing
    else. Into a file or a pipe, --watch writes a line whenever a run has finished or failed, and the whole at the end.

    Example: `cpt status config/config.yaml`

    Example, while Snakemake runs: `cpt status config/paper.yaml --watch`
    """
    from rich.live import Live

    from cpt.experiment import config
    from cpt.report.terminal.console import console
    from cpt.report.terminal.status import headline, render
    from cpt.workflow.status import Watch

    paths = configs or [Path("config/config.yaml")]
    watched, shown = Watch(config.load(paths), " + ".join(map(str, paths))), console()
    if not watch:
        shown.print(render(watched.look()))
        return
    if not shown.is_terminal:
        told = ""
        while not (found := watched.look()).finished:
            if (line := headline(found)) != told:
                told = line
                log(line)
            time.sleep(PERIOD)
        shown.print(render(found))
        return
    with Live(console=shown, auto_refresh=False) as live:
        while True:
            found = watched.look()
            live.update(render(found), refresh=True)
            if found.finished:
                return
            time.sleep(PERIOD)


def verify(
    folder: Annotated[Path, typer.Argument(help="folder of the experiment", metavar="results/<experiment>")],
    json: Annotated[Path | None, typer.Option(help="also write the report as JSON")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="trust no record: draw splits, compute metrics again, as `cpt board` does")
    ] = False,
    catalog: Catalog = CATALOG,
) -> None:
    """Check every file against the chain of hashes from split to table; report mismatches and how to fix them.

    The exit code is 1 if there is a mismatch. Runs of different code versions or of a changed checkout are reported as
    notices, not as errors.

    With --strict, everything that can be computed from the files alone is computed again and compared (docs/board.md):
    what is not trained or predicted. It ends at the first check that fails.

    Example: `cpt verify results/embedded`

    Example: `cpt verify results/embedded --strict`
    """
    from cpt.files.integrity import BUNDLE_LIST
    from cpt.files.stage_files import write_json
    from cpt.workflow.verify import verify as check

    if strict:
        _verify_strictly(folder, json, catalog)
        return
    report = check(folder, log)
    if json is not None:
        write_json(json, report.as_json())
    for finding in report.findings:
        log(f"{folder / finding.file}: {finding.problem}; fix: {finding.fix}")
    for line in report.notices:
        log(f"notice: {line}")
    read = f"{folder}: {report.files:,} files ({report.size / 1e6:,.0f} MB) of {report.runs:,} runs read"
    if report.findings:
        count = f"{len(report.findings):,} finding{'s' * (len(report.findings) != 1)}"
        again = "" if (folder / BUNDLE_LIST).is_file() else "run `snakemake` once more and "
        log(f"{read}, {count}; after fixing, {again}verify again")
        raise typer.Exit(1)
    origin = f"commit {', '.join(report.commits)}; device {', '.join(report.devices)}"
    log(f"{read}, all fit; {origin}")


def _verify_strictly(folder: Path, json: Path | None, catalog: Path) -> None:
    from cpt.data.catalog import load_catalog
    from cpt.files.stage_files import write_json
    from cpt.workflow.strict import strict

    found = strict(folder, load_catalog(catalog), log)
    if json is not None:
        write_json(json, found.as_json())
    for check in found.checks:
        log(f"{check.outcome}: {check.name}: {check.found}")
    if found.refusal is not None:
        raise typer.Exit(1)
    log(f"{folder}: accepted")


def init(
    name: Annotated[str, typer.Argument(help="the new folder; or, with --images, the new experiment and its dataset")],
    images: Annotated[
        Path | None, typer.Option(help="folder with `<class>/<image>`, or with `train/<class>/<image>` and `test/...`")
    ] = None,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="try the steps with the tiny CLIP: no download, but useless numbers")
    ] = False,
) -> None:
    """Make a folder for experiments outside a clone, or write the configuration of an experiment on your images.

    The folder gets a Snakefile that runs the workflow of the installed `cpt`, its profiles and all configurations. A
    clone of the repository is such a folder, too.

    With --images, in such a folder: zero-shot CLIP, CoOp, IVLP and CPT with ViT-B/16, in one table of all classes and
    one of base and new classes.

    Example: `cpt init my-study`

    Example, with a folder of yours: `cpt init pets --images /data/pets`
    """
    from cpt.experiment.starter import write_starter
    from cpt.workflow.study import write_study

    if images is None:
        if tiny:
            raise CptError("--tiny: is for --images; the default experiment has the tiny CLIP anyway")
        write_study(Path(name))
        log(f"wrote {name}; next:")
        log(f"  cd {shlex.quote(name)}")
        log("  snakemake --cores 2")
        return
    path, found = write_starter(name, images, Path(), tiny=tiny)
    log(found)
    log(f"wrote {path} and {name}.datasets.yaml; next:")
    log(f"  cpt data check {name} --catalog {name}.datasets.yaml")
    log(f"  snakemake --cores 2 --configfile {path}")
    log(f"  cat results/{name}/tables/all_classes.md    # or open results/{name}/report/index.html")


def bundle(
    folder: Annotated[Path, typer.Argument(help="folder of the experiment", metavar="results/<experiment>")],
    output: Annotated[Path | None, typer.Option(help="archive to write; default: `<experiment>.tar.gz`")] = None,
    predictions: Annotated[bool, typer.Option(help="with the predictions of every test image")] = True,
    by: Annotated[str | None, typer.Option(help="who made it, a name or a team, as `cpt board` shows it")] = None,
) -> None:
    """Pack an experiment into one archive that others can open, verify and make tables from.

    Images, image features and the backbone's weights are left out.

    Example: `cpt bundle results/embedded`
    """
    from cpt.workflow.bundle import bundle as pack

    archive = output or Path(f"{folder.absolute().name}.tar.gz")
    made = pack(folder, archive, predictions=predictions, by=by, log=log)
    packed = f"{made.files:,} files, {archive.stat().st_size / 1e6:,.1f} MB of {made.size / 1e6:,.1f} MB"
    left = f"{len(made.left_out):,} files left out, such as weights and image features (bundle.json in it lists them)"
    log(f"wrote {archive}: {packed}; {left}")


def methods(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="methods whose hyperparameters to list; default: list all methods", metavar="[NAME...]"),
    ] = None,
    bibtex: Annotated[
        bool, typer.Option("--bibtex", help="print the papers of these methods, or of all, as BibTeX")
    ] = False,
    sheet: Annotated[
        Path | None, typer.Option(help="write a comparison of all methods and their hyperparameters here (Markdown)")
    ] = None,
) -> None:
    """List the methods with summary, number of learned values on ViT-B/16, and source.

    Example: `cpt methods cpt` lists the hyperparameters of CPT with the source of every default, and
    `cpt methods --bibtex coop cpt > papers.bib` writes the papers to cite.
    """
    from cpt.files.stage_files import write_text
    from cpt.methods.base import references, registry
    from cpt.report.page.fairness import markdown
    from cpt.report.terminal.console import console
    from cpt.report.terminal.methods import hyperparameters, listing

    if sheet is not None:
        write_text(sheet, markdown())
        log(f"wrote {sheet}")
    elif bibtex:
        log(references.bibliography({name: registry.get(name).source for name in names or registry.usable()}))
    elif names:
        for name in names:
            console().print(*hyperparameters(name), sep="\n")
    else:
        console().print(listing())


def schema(output: Output = Path("workflow/schemas/config.schema.json")) -> None:
    """Write the JSON schema of the configuration, generated from its types.

    Example: `cpt schema --output config.schema.json`
    """
    from cpt.experiment import config
    from cpt.files.stage_files import write_text

    write_text(output, config.schema())
