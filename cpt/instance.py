"""Which Snakemake works on an experiment: one at a time, and what to do when it was killed.

Snakemake's own lock keeps two from working at once. It does not say who holds it, whether that process still lives, nor
that a killed one's jobs go on in SLURM; this does.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from cpt.errors import CptError
from cpt.files import parse_json, write_json

_NAME = "snakemake.json"


def claim(folder: Path) -> None:
    """Note that this process works on the experiment whose ``work/<experiment>`` is ``folder``."""
    write_json(folder / _NAME, {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")})


def release(folder: Path) -> None:
    """The work has ended."""
    (folder / _NAME).unlink(missing_ok=True)


def check(folder: Path, locks: Path) -> None:
    """See that no other Snakemake works on the experiment.

    Args:
        folder: ``work/<experiment>``.
        locks: where Snakemake keeps its locks; without one nobody works here.

    Raises:
        CptError: one does, or did until it was killed; the message says what to do.
    """
    if (record := _record(folder)) is None:
        return
    pid, host, since = record
    if pid == os.getpid() or not (locks.is_dir() and any(locks.iterdir())):
        return
    who = f"snakemake (pid {pid} on {host}, since {since})"
    if host != socket.gethostname():
        raise CptError(
            f"another {who} works on {folder.name}; wait for it or end it there with Ctrl-C. If it is gone, "
            "`snakemake --unlock` with the same --configfile, then start again"
        )
    if _alive(pid):
        raise CptError(f"another {who} works on {folder.name}; wait for it, or end it with `kill -INT {pid}`")
    jobs = _slurm_jobs()
    still = f"; its SLURM jobs still run: `scancel {' '.join(jobs)}`, then" if jobs else ";"
    raise CptError(
        f"the {who} that worked on {folder.name} was killed{still} `snakemake --unlock` with the same --configfile, "
        "then start again: what is finished stays, trainings go on from their saved states"
    )


def working(folder: Path) -> str | None:
    """Who works on the experiment of ``work/<experiment>`` now, as far as this machine can tell; None: nobody."""
    if (record := _record(folder)) is None:
        return None
    pid, host, since = record
    if host != socket.gethostname():
        return f"snakemake (pid {pid}) on {host} since {since}, if it still runs there"
    return f"snakemake (pid {pid}) since {since}" if _alive(pid) else None


def _record(folder: Path) -> tuple[int, str, str] | None:
    """Process, host and beginning of who worked on the experiment last."""
    try:
        record = parse_json((folder / _NAME).read_text(encoding="utf-8"))
        return record["pid"], record["host"], record["since"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _alive(pid: int) -> bool:
    """Whether the process lives and is a Snakemake: numbers of dead processes are used again."""
    try:
        return b"snakemake" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _slurm_jobs() -> list[str]:
    """The user's jobs in SLURM that were submitted from this folder."""
    if shutil.which("squeue") is None:
        return []
    command = ["squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%A %Z"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    jobs = (line.split(" ", 1) for line in found.splitlines() if " " in line)
    return sorted(job for job, where in jobs if where.strip() == os.getcwd())
