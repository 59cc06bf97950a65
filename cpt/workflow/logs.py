"""What the logs of jobs say: how a job ended, and which jobs Snakemake saw fail."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

STOPPED, FAILED = "stopped", "failed"

SNAKEMAKE = Path(".snakemake/log")
"""Folder of Snakemake's own logs."""

_SIGNAL = re.compile(r"cpt: SIG\w+: ")
_DIED = "cpt: the job's process died"
_TITLE = re.compile(r"\d+/\d+ \w[\w-]* (\S+)")
_OF_JOB = re.compile(r"^    log: ([^\s,]+)(?:, \S+)*( \(check log)?", re.MULTILINE)
"""Snakemake says it when a job begins, and with the words in parentheses when one has failed."""


def section(text: str, folder: str) -> str | None:
    """What a job's log says of one run; None: nothing yet.

    Args:
        text: the log.
        folder: of the run. The log of a job for several runs has a title for each, that of another job none.
    """
    lines = text.splitlines()
    titles = [(number, found[1]) for number, line in enumerate(lines) if (found := _TITLE.match(line))]
    if not titles:
        return text
    ends = [number for number, _ in titles[1:]] + [len(lines)]
    own = [(first, end) for (first, of), end in zip(titles, ends, strict=True) if of.rstrip(":") == folder]
    return "\n".join(lines[own[-1][0] : own[-1][1]]) if own else None


def ending(text: str) -> tuple[str | None, str]:
    """How a job has ended by its log, and the line that says so; None where the log does not tell of an end."""
    lines = [line for line in text.splitlines() if line.strip()]
    for line in reversed(lines):
        if line.startswith(("cpt: error: ", _DIED)):
            return FAILED, line
        if _SIGNAL.match(line):
            return STOPPED, line
    last = lines[-1] if lines else ""
    if "Traceback (most recent call last)" not in text or last.startswith(("epoch ", "resuming ")):
        return None, last
    return (STOPPED if last == "KeyboardInterrupt" else FAILED), last


class Seen(NamedTuple):
    """Logs of jobs that Snakemake has seen fail -> Snakemake's own log: those that ended so, and those tried again."""

    failed: dict[str, Path]
    again: dict[str, Path]


def seen_failing(experiment: str, folder: Path = SNAKEMAKE) -> Seen:
    """Return what Snakemake's newest log of an experiment says of jobs that failed.

    It tells of jobs that ended without a word: killed, out of memory, refused by a cluster.
    """
    for path in sorted(folder.glob("*.snakemake.log"), key=_age):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if f" logs/{experiment}/" in text:
            told = _OF_JOB.findall(text)
            last = dict(told)
            failed = {log: path for log, failure in told if failure}
            return Seen({log: path for log in failed if last[log]}, {log: path for log in failed if not last[log]})
    return Seen({}, {})


def _age(path: Path) -> float:
    try:
        return -path.stat().st_mtime
    except OSError:
        return 0.0
