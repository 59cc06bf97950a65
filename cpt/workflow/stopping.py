"""Ending Snakemake in seconds: it waits for the jobs that run, so they are told to stop first."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import NoReturn


def stop_jobs_first() -> None:
    """From now on SIGINT and SIGTERM end this Snakemake as Ctrl-C does, whether or not its jobs get them, too.

    Its jobs on this machine get SIGTERM, at which trainings save their state. Call it in the main thread, once
    Snakemake has set its own handlers. A SIGINT that is ignored, as in the background of a script, stays so.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)


def _end(_number: int, _frame: object) -> NoReturn:
    for pid in _jobs():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    raise KeyboardInterrupt


def _jobs() -> list[int]:
    """Processes of this session below this one that have no children: commands, not the shells that wait for them.

    The fork server has a session of its own; its clients pass the signal on. Without /proc, as on macOS, there is none.
    """
    session, parents = os.getsid(0), {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            _, parent, _, of, *_ = path.read_text(errors="replace").rpartition(")")[2].split()
            if int(of) == session:
                parents[int(path.parent.name)] = int(parent)
    found, last = set(), {os.getpid()}
    while last := {pid for pid, parent in parents.items() if parent in last}:
        found |= last
    return sorted(found - set(parents.values()))
