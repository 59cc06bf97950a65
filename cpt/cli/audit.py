"""The verbs about the paper's printed numbers: ``cpt audit`` and ``cpt ledger``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpt.cli.data import say
from cpt.files.provenance import recorded


def audit(
    output: Annotated[Path | None, typer.Option(help="folder for audit.md, audit.html and a CSV per question")] = None,
    published: Annotated[Path, typer.Option(help="the printed numbers")] = Path("config/published.csv"),
    claims: Annotated[Path, typer.Option(help="the text's sentences about them")] = Path(
        "config/published_claims.yaml"
    ),
    everything: Annotated[bool, typer.Option("--all", help="print every row, not only the first ten")] = False,
) -> None:
    """Recompute what can be computed from the paper's printed tables: averages, agreement, proportions, claims.

    It is arithmetic on printed numbers and needs no run.

    Example: `cpt audit --output results/audit`
    """
    from cpt.files.stage_files import write_text
    from cpt.report.printed import audit as arithmetic
    from cpt.report.printed import audit_text

    sections = arithmetic.audit(arithmetic.read_published(published), arithmetic.read_claims(claims))
    for section in sections:
        say(f"\n{section.title}\n")
        audit_text.print_section(section, None if everything else 10)
    if output is not None:
        with recorded(output / "audit.html"):
            for section in sections:
                write_text(output / f"{section.name}.csv", section.rows.to_csv(index=False, lineterminator="\n"))
            write_text(output / "audit.md", audit_text.markdown(sections))
            write_text(output / "audit.html", audit_text.html(sections))
        say(f"\nwrote {output / 'audit.md'}, audit.html and {len(sections)} CSV files")


def ledger(
    results: Annotated[Path, typer.Option(help="folder of the experiment", metavar="results/<experiment>")],
    published: Annotated[Path, typer.Option(help="the printed numbers")] = Path("config/published.csv"),
) -> None:
    """Put every printed cell of Tables 1-5 beside ours: difference, interval, verdict.

    Example: `cpt ledger --results results/paper`
    """
    from cpt.report.printed.ledger import make_ledger

    with recorded(results / "report/ledger.parquet"):
        make_ledger(results / "grid.json", results / "runs.parquet", published, results / "report")
