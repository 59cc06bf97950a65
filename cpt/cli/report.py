"""Commands that write tables, figures and reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cpt.cli.options import CATALOG, Catalog, Results, log
from cpt.files.provenance import recorded

Runs = Annotated[
    Path | None,
    typer.Option(help="runs.parquet that `cpt aggregate --exhibit` wrote; default: that of all runs"),
]


def table(
    name: Annotated[str, typer.Argument(help="name of the table, for example table2")],
    results: Results,
    runs: Runs = None,
) -> None:
    """Write a table as CSV (long form), Markdown, LaTeX and HTML.

    Example: `cpt table table2 --results results/embedded`
    """
    from cpt.report.tables import make_table

    with recorded(results / "tables" / f"{name}.csv"):
        make_table(results / "grid.json", runs or results / "runs.parquet", name, results / "tables")


def figure(
    name: Annotated[str, typer.Argument(help="name of the figure, for example figure3")],
    results: Results,
    runs: Runs = None,
) -> None:
    """Draw a figure as SVG, PDF and PNG, with its data as CSV.

    Example: `cpt figure figure3 --results results/embedded`
    """
    from cpt.report.drawing.make import make_figure

    with recorded(results / "figures" / f"{name}.svg"):
        make_figure(results / "grid.json", runs or results / "runs.parquet", name, results / "figures")


def page(results: Results) -> None:
    """Write the report page with all tables and figures: one HTML file that opens offline.

    Example: `cpt page --results results/embedded`
    """
    from cpt.report.page.make import make_page

    output = results / "report" / "index.html"
    with recorded(output):
        make_page(results)
    log(f"open {output}")


def ledger(
    results: Results,
    published: Annotated[Path, typer.Option(help="the paper's printed numbers")] = Path("config/published.csv"),
) -> None:
    """Compare every printed cell of the paper's Tables 1-5 with ours: difference, interval, verdict.

    It needs an experiment with `printed: true`, on the paper's backbone (`config/paper.yaml`); for others it says why
    there is nothing to compare. docs/files.md has the rule of every verdict.

    Example, with results of the paper's grid: `cpt ledger --results results/paper`
    """
    from cpt.report.printed.ledger import NOT_RUN, make_ledger

    with recorded(results / "report/ledger.parquet"):
        counts, refusal = make_ledger(results, published)
    if refusal:
        log(f"{results}: not compared: {refusal}")
        return
    absent = counts.pop(NOT_RUN, 0)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    log(f"{counts.total()} of {counts.total() + absent} printed cells were run{f': {told}' if told else ''}")
    log(f"wrote {results / 'report/ledger.csv'}")


def audit(
    output: Annotated[Path | None, typer.Option(help="folder for audit.md, audit.html and a CSV per question")] = None,
    published: Annotated[Path, typer.Option(help="the paper's printed numbers")] = Path("config/published.csv"),
    claims: Annotated[Path, typer.Option(help="the paper's claims about them")] = Path("config/published_claims.yaml"),
    everything: Annotated[bool, typer.Option("--all", help="print all rows, not only the first ten")] = False,
) -> None:
    """Check the arithmetic of the paper's printed tables: averages, agreement, proportions, claims. It needs no run.

    Example: `cpt audit --output results/audit`
    """
    from cpt.files.stage_files import write_text
    from cpt.report.printed import audit as arithmetic
    from cpt.report.printed import audit_text
    from cpt.report.printed.published import read_claims, read_published

    sections = arithmetic.audit(read_published(published), read_claims(claims))
    for section in sections:
        log(f"\n{section.title}\n")
        audit_text.print_section(section, None if everything else 10)
    if output is not None:
        with recorded(output / "audit.html"):
            for section in sections:
                write_text(output / f"{section.name}.csv", section.rows.to_csv(index=False, lineterminator="\n"))
            write_text(output / "audit.md", audit_text.markdown(sections))
            write_text(output / "audit.html", audit_text.html(sections))
        log(f"\nwrote {output / 'audit.md'}, audit.html and {len(sections)} CSV files")


def board(
    bundles: Annotated[
        list[Path],
        typer.Argument(
            help="archives of `cpt bundle`, folders of experiments, or folders of these", metavar="BUNDLE..."
        ),
    ],
    output: Annotated[Path, typer.Option(help="folder to write")] = Path("board"),
    require_all: Annotated[bool, typer.Option("--require-all", help="exit code 1 if any bundle is refused")] = False,
    catalog: Catalog = CATALOG,
) -> None:
    """Merge bundles of several people or machines into one page that compares their methods.

    A bundle is accepted if `cpt verify --strict` accepts it, which trusts nothing that can be computed again; a refused
    one is named with its reason, here and on the page. Methods are compared within one protocol, backbone, τ and set
    of images only, and ranked only where paired tests tell them apart (docs/board.md).

    It writes index.html, which opens offline, board.parquet and board.csv, and a record of every bundle. The exit code
    is 1 if no bundle is accepted, and then nothing is written.

    Example: `cpt board results/embedded --output results/board`

    Example, with bundles of others in a folder: `cpt board submissions mine.tar.gz`
    """
    from cpt.data.catalog import load_catalog
    from cpt.report.board.make import make_board

    outcomes = make_board(bundles, output, load_catalog(catalog), log)
    accepted = sum(outcome.refusal is None for outcome in outcomes)
    if not accepted:
        log(f"none of {len(outcomes)} bundles is accepted; nothing is written")
        raise typer.Exit(1)
    log(f"wrote {output / 'index.html'}: {accepted} of {len(outcomes)} bundles; board.parquet and board.csv beside it")
    if require_all and accepted < len(outcomes):
        raise typer.Exit(1)
