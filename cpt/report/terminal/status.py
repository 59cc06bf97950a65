"""The state of an experiment as text for a terminal."""

from __future__ import annotations

from collections import Counter

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cpt.workflow.status import DONE, FAILED, MISSING, RUNNING, Status

MOST = 10
"""Failures that are listed."""


def render(found: Status) -> RenderableType:
    """Return what ``cpt status`` prints."""
    counts, total = found.counts(), len(found.states)
    parts = [f"{counts[DONE]:,} of {total:,} runs done"]
    parts += [f"{counts[state]:,} {state}" for state in (RUNNING, FAILED, MISSING) if counts[state]]
    lines: list[RenderableType] = [
        Text(f"{found.experiment}: {', '.join(parts)}", style="bold"),
        Text(f"at work: {found.worker}" if found.worker else "nobody is at work"),
    ]
    if found.last is not None:
        text = f"last run finished {_span(found.last)} ago, {found.per_hour:,} in the last hour"
        left = found.hours_left()
        lines.append(Text(text + (f"; about {_span(3600 * left)} to go at that speed" if left is not None else "")))
    if counts[DONE] == total:
        lines.append(Text(f"report: results/{found.experiment}/report/index.html" if found.page else _NO_PAGE))
    else:
        lines += [Text(), _table(found)]
    for failure in found.failures[:MOST]:
        lines.append(Text(f"failed: {failure.log}: {failure.line}", style="red"))
    if len(found.failures) > MOST:
        lines.append(Text(f"... and {len(found.failures) - MOST:,} more"))
    return Group(*lines)


_NO_PAGE = "all runs are done; `snakemake` makes the tables, figures and the page"


def _table(found: Status) -> Table:
    """Runs done of all by method and dataset; what is complete is a tick, what has failed is marked."""
    datasets = list(dict.fromkeys(found.datasets.values()))
    table = Table("method", box=box.SIMPLE, pad_edge=False)
    for dataset in [*datasets, "all"]:
        table.add_column(dataset, justify="right")
    for method in dict.fromkeys(found.methods.values()):
        mine = [run for run in found.states if found.methods[run] == method]
        cells = [[run for run in mine if found.datasets[run] == dataset] for dataset in datasets]
        table.add_row(method, *(_share(found, cell) for cell in [*cells, mine]))
    return table


def _share(found: Status, runs: list[str]) -> Text:
    states = Counter(found.states[run] for run in runs)
    if not runs:
        return Text("–", style="dim")
    if states[FAILED]:
        return Text(f"{states[DONE]}/{len(runs)}, {states[FAILED]} failed", style="red")
    done = states[DONE] == len(runs)
    return Text(f"✓ {len(runs)}" if done else f"{states[DONE]}/{len(runs)}", style="green" if done else "")


def _span(seconds: float) -> str:
    """A time span for people: ``40 s``, ``12 min``, ``3 h 5 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
