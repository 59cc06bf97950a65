"""The command ``cpt verify``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpt.cli.options import log


def verify(
    folder: Annotated[Path, typer.Argument(help="folder of the experiment", metavar="results/<experiment>")],
    json: Annotated[Path | None, typer.Option(help="also write the report as JSON")] = None,
) -> None:
    """Check every file against the chain of hashes from split to table; report mismatches and how to fix them.

    The exit code is 1 if there is a mismatch. Runs of different code versions or of a changed checkout are reported as
    notices, not as errors.

    Example: `cpt verify results/embedded`
    """
    from cpt.files.stage_files import write_json
    from cpt.workflow.verify import verify as check

    report = check(folder, log)
    if json is not None:
        write_json(json, report.as_json())
    for finding in report.findings:
        log(f"{folder / finding.file}: {finding.problem}; fix: {finding.fix}")
    for notice in report.notices:
        log(f"notice: {notice}")
    read = f"{folder}: {report.files:,} files ({report.size / 1e6:,.0f} MB) of {report.runs:,} runs read"
    if report.findings:
        log(f"{read}, {len(report.findings):,} findings; after fixing, run `snakemake` once more and verify again")
        raise typer.Exit(1)
    origin = f"commit {', '.join(report.commits)}; device {', '.join(report.devices)}"
    log(f"{read}, all fit; {origin}")
