"""Which Snakemake works on an experiment: one at a time, and what to do when it was killed.

Snakemake's own locks keep two from working on the same files. They do not say who holds them, whether that process
still lives, nor that a killed one's jobs go on in SLURM, and ``--unlock`` and the end of any Snakemake remove those of
all experiments of the folder; this looks at the processes.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cpt.errors import CptError
from cpt.files.stage_files import parse_json, write_json

_NAME = "snakemake.json"
LOCKS = Path(".snakemake/locks")
READ_ONLY = [
    *("dryrun", "summary", "detailed_summary", "dag", "rulegraph", "filegraph", "d3dag", "lint", "report"),
    *("list_rules", "list_target_rules", "list_changes", "list_input_changes", "list_params_changes"),
    *("list_untracked", "list_conda_envs", "print_compilation"),
]
"""Options of Snakemake with which it changes no file."""


@dataclass(frozen=True)
class _Record:
    """A process that works on an experiment, or did until it was killed; ``born`` tells it from a later one."""

    pid: int
    born: int | None
    host: str
    since: str

    def __str__(self) -> str:
        return f"snakemake (pid {self.pid} on {self.host}, since {self.since})"

    @property
    def here(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def lives(self) -> bool:
        return self.here and self.born is not None and self.born == _born(self.pid)


def claim(folder: Path) -> None:
    """Note that this process works on the experiment whose ``work/<experiment>`` is ``folder``."""
    record = _Record(os.getpid(), _born(os.getpid()), socket.gethostname(), time.strftime("%F %T"))
    write_json(folder / _NAME, asdict(record))


def release(folder: Path) -> None:
    """The work of this process has ended; that of another goes on."""
    if (record := _record(folder)) and record.here and record.pid == os.getpid():
        (folder / _NAME).unlink(missing_ok=True)


def check_call(folder: Path, words: Sequence[str], parser: Callable[[], ArgumentParser], locks: Path = LOCKS) -> None:
    """See that a call of Snakemake does no harm to another one that works.

    Args:
        folder: ``work/<experiment>``.
        words: its command line.
        parser: returns Snakemake's.
        locks: where Snakemake keeps its locks.

    Raises:
        CptError: it would.
    """
    if any(word.startswith("--unl") for word in words):  # argparse takes the start of an option for it
        return check_unlock(folder, locks)
    try:
        check(folder, locks)
    except CptError:
        asked = parser().parse_args(words[1:])
        if asked.report_after_run or not any(getattr(asked, name) for name in READ_ONLY):
            raise


def check(folder: Path, locks: Path) -> None:
    """See that no other Snakemake works on the experiment of ``work/<experiment>``, and forget one that holds no locks.

    Raises:
        CptError: one does, or did until it was killed; the message says what to do.
    """
    record = _record(folder)
    if record is None or (record.lives and record.pid == os.getpid()):
        return
    if record.lives:
        raise CptError(
            f"another {record} works on {folder.name}; wait for it, or end it with `kill -TERM {record.pid}`"
        )
    if not _locked(folder.name, locks):
        with contextlib.suppress(OSError):
            (folder / _NAME).unlink()
        return
    if not record.here:
        raise CptError(
            f"another {record} works on {folder.name}; wait for it or end it there with Ctrl-C. If it is gone, "
            "`snakemake --unlock` with the same --configfile, then start again"
        )
    then = "then start again: what is finished stays, trainings resume from their checkpoints"
    killed = f"the {record} that worked on {folder.name} was killed"
    if other := _other(folder, locks):
        raise CptError(f"{killed}; {other}, so wait for it, `snakemake --unlock` with the same --configfile, {then}")
    jobs = _slurm_jobs()
    still = f"; its SLURM jobs still run: `scancel {' '.join(jobs)}`, then" if jobs else ";"
    raise CptError(f"{killed}{still} `snakemake --unlock` with the same --configfile, {then}")


def check_unlock(folder: Path, locks: Path) -> None:
    """See that ``--unlock``, which removes the locks of every experiment, takes none from a Snakemake that works.

    Raises:
        CptError: it does.
    """
    record = _record(folder)
    mine = f"{record} works on {folder.name}" if record and record.lives else None
    if working := mine or _other(folder, locks):
        raise CptError(f"--unlock: {working}, and would lose its locks too; wait for it")


def working(folder: Path) -> str | None:
    """Who works on the experiment of ``work/<experiment>`` now, as far as this machine can tell; None: nobody."""
    if (record := _record(folder)) is None:
        return None
    if not record.here:
        return f"snakemake (pid {record.pid}) on {record.host} since {record.since}, if it still runs there"
    return f"snakemake (pid {record.pid}) since {record.since}" if record.lives else None


def began(folder: Path) -> float | None:
    """When the last Snakemake of ``work/<experiment>`` began that has not ended orderly, in seconds since the epoch."""
    try:
        return (folder / _NAME).stat().st_mtime
    except OSError:
        return None


def _record(folder: Path) -> _Record | None:
    try:
        return _Record(**parse_json((folder / _NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _other(folder: Path, locks: Path) -> str | None:
    """Who works on another experiment of the same folder; on another machine, one that holds locks does."""
    for path in sorted(folder.parent.glob(f"*/{_NAME}")):
        record, name = _record(path.parent), path.parent.name
        if record and name != folder.name and (record.lives or (not record.here and _locked(name, locks))):
            return f"another {record} works on {name}"
    return None


def _locked(experiment: str, locks: Path) -> bool:
    """Whether there are locks for files of the experiment; Snakemake writes one file a line."""
    for path in locks.glob("*.output.lock"):
        with contextlib.suppress(OSError):  # its Snakemake has just ended
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            if any(line.startswith(f"results/{experiment}/") for line in lines):
                return True
    return False


def _born(pid: int) -> int | None:
    """When a process began, in ticks since the machine did; None if it does not live, or nothing tells."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


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
