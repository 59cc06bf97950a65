"""The state of an experiment as text for a terminal, in 80 columns."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cpt.workflow.logs import FAILED, STOPPED
from cpt.workflow.status import DONE, MISSING, RUNNING, At, Progress, Status

MOST = 10
"""Jobs that run, and causes of failures, that are listed."""

ROUGH = 5
"""With fewer finished runs, the time to go is said to be rough."""


def headline(found: Status) -> str:
    """Return how many runs there are of every state."""
    counts = found.counts()
    return f"{found.experiment}: {counts[DONE]:,} of {len(found.states):,} runs done{_others(counts)}{_missing(counts)}"


def render(found: Status) -> RenderableType:
    """Return what ``cpt status`` prints."""
    counts = found.counts()
    lines: list[RenderableType] = [
        Text(headline(found), style="bold"),
        Text(f"at work: {found.worker}" if found.worker else _NOBODY if found.finished else _NOBODY_YET),
        Text("; ".join(f"{name}: {_jobs(jobs)}" for name, jobs in _parts(found).items())),
    ]
    if found.last is not None:
        lines.append(Text(f"last run finished {_span(found.last)} ago{_speed(found)}"))
    for at in found.running[:MOST]:
        lines.append(_log(Text(f"{RUNNING}: {at.job}{_again(at)}{_progress(at.progress)}", style="cyan"), at))
    lines += [_more(len(found.running), "running")] if len(found.running) > MOST else []
    lines += _failures(found.failures)
    if counts[DONE] == len(found.states):
        lines.append(Text(f"report: results/{found.experiment}/report/index.html" if found.page else _NO_PAGE))
    else:
        lines += [Text(), _totals(found)]
    return Group(*lines)


_NOBODY = "nobody is at work"
_NOBODY_YET = f"{_NOBODY}, or a Snakemake that began in the last half minute still counts its jobs"
_NO_PAGE = "all runs are done; `snakemake` makes the tables, figures and the page"


def _parts(found: Status) -> dict[str, Counter[str]]:
    return {"jobs before the runs": found.before, "after them": found.after}


def _jobs(counts: Counter[str]) -> str:
    return f"{counts[DONE]:,} of {counts.total():,}{_others(counts)}"


def _others(counts: Counter[str]) -> str:
    return "".join(f", {counts[state]:,} {state}" for state in (RUNNING, FAILED, STOPPED) if counts[state])


def _missing(counts: Counter[str]) -> str:
    return f", {counts[MISSING]:,} missing" if counts[MISSING] else ""


def _speed(found: Status) -> str:
    if found.worker is None or (left := found.seconds_left()) is None:
        return ""
    runs = f"of the last {found.recent:,} runs" if found.recent > 1 else "of one run"
    return f"; {'roughly' if found.recent < ROUGH else 'about'} {_span(left)} to go at the speed {runs}"


def _again(at: At) -> str:
    return f"\n  tried again: it failed before, see {at.failed}" if at.failed else ""


def _progress(progress: Progress | None) -> str:
    if progress is None:
        return ""
    if progress.left is None:
        return f"\n  none of {progress.epochs} epochs finished yet"
    loss = "" if progress.loss is None else f", loss {progress.loss:.4f}"
    return f"\n  epoch {progress.epoch} of {progress.epochs}{loss}, {_span(progress.left)} to go"


def _failures(failures: Sequence[At]) -> list[RenderableType]:
    """Every cause once, with the first job and log that it ended."""
    causes = defaultdict(list)
    for at in failures:
        causes[at.line].append(at)
    lines: list[RenderableType] = []
    for line, same in list(causes.items())[:MOST]:
        others = f" and {len(same) - 1:,} more" if len(same) > 1 else ""
        lines.append(_log(Text(f"{FAILED}: {same[0].job}{others}: {line}", style="red"), same[0]))
    return lines + ([_more(len(causes), "causes")] if len(causes) > MOST else [])


def _log(told: Text, at: At) -> RenderableType:
    """What is told of a job, with its log below; a path stays in one piece."""
    return Group(told, Text(f"  log: {at.log}", no_wrap=True, overflow="ignore"))


def _more(count: int, what: str) -> Text:
    return Text(f"... and {count - MOST:,} more {what}")


def _totals(found: Status) -> Table:
    """Runs by dataset and by method, side by side."""
    both = Table.grid(padding=(0, 4))
    both.add_row(_by("dataset", found.datasets, found), _by("method", found.methods, found))
    return both


def _by(head: str, names: Mapping[str, str], found: Status) -> Table:
    """Runs of each dataset or method: how many are done of how many, and what is with the others."""
    table = Table(head, box=None, pad_edge=False)
    table.add_column("done", justify="right")
    table.add_column("")
    for name in dict.fromkeys(names.values()):
        counts = Counter(found.states[run] for run in found.states if names[run] == name)
        done, total = counts[DONE], counts.total()
        style = "green" if done == total else "red" if counts[FAILED] else ""
        others = ", ".join(f"{counts[state]} {state}" for state in (RUNNING, FAILED, STOPPED) if counts[state])
        table.add_row(name, Text(f"✓ {done}" if done == total else f"{done}/{total}", style=style), others)
    return table


def _span(seconds: float) -> str:
    """A time span for people: ``40 s``, ``12 min``, ``3 h 5 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
