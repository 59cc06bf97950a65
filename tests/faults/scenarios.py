"""What happens to an experiment that runs, and what comes of it."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from tests.faults.project import RESULTS, Kept, Session, processes, settle


@dataclass(frozen=True)
class Outcome:
    """What came of a scenario.

    Attributes:
        seen: what Snakemake or a job's log told.
        typed: what the user had to type after it.
        same: ``runs.parquet`` is byte-identical to the undisturbed run's, and ``cpt verify`` finds nothing.
    """

    seen: str
    typed: tuple[str, ...]
    same: bool


# ---- kills -------------------------------------------------------------------------------------

VICTIMS = {
    "`kill -9` of Snakemake": "snakemake",
    "`kill -9` of a job": "job",
    "`kill -9` of the fork server": "server",
    "`kill -9` of everything at once, as when the machine crashes": "everything",
}
SEEDS = range(1, 21)
STEPS = {"new": 30, "prepared": 18}
"""Jobs that may be done before the kill: of 39 in all, of 24 after those that prepare."""


def victim_of(seed: int) -> str:
    """Which event a seed is."""
    return list(VICTIMS)[seed % len(VICTIMS)]


def kill(kept: Kept, folder: Path, seed: int) -> Outcome:
    """Kill a process at a random moment of the run; damage what every other one saved; run again."""
    stream, kind = random.Random(seed), VICTIMS[victim_of(seed)]
    stage = stream.choices(list(STEPS), [1, 3])[0]
    session = Session(kept, kept.copy(stage, folder))
    process = session.start(own_server=kind == "server")
    wait_for(folder, process, stream.randrange(STEPS[stage]))
    time.sleep(stream.random() / 2)
    hit = 0
    while not hit:  # one that ended by itself before it could be killed does not count
        hit = sum(killed(found) for found in victims(folder, process, kind, stream))
    process.wait(timeout=300)
    settle(folder)
    if seed % 2:
        for state in folder.glob("work/**/*.checkpoint"):
            flip(state, stream)
    went_on = process.returncode == 0
    done = went_on or session.again()
    seen = "it stops" if kind in ("snakemake", "everything") else "the job is reported"
    return Outcome("it goes on by itself" if went_on else seen, tuple(session.typed), done and kept.same(folder))


def wait_for(folder: Path, process: subprocess.Popen, steps: int) -> None:
    """Wait until the run has done so many steps."""
    while process.poll() is None:
        done = [int(n) for n in re.findall(r"^(\d+) of \d+ steps", (folder / "output.txt").read_text(), re.MULTILINE)]
        if max(done, default=0) >= steps:
            return
        time.sleep(0.02)


def victims(folder: Path, process: subprocess.Popen, kind: str, stream: random.Random) -> list[psutil.Process]:
    """Wait until there is a process of the kind, and choose one."""
    while process.poll() is None:
        own = psutil.Process(process.pid)
        if kind == "server":
            found = [child for child in psutil.process_iter(["ppid", "cmdline"]) if serves(child, own)]
        else:
            found = [job for job in processes(folder) if job != own]
        if kind in ("snakemake", "everything"):
            return [own, *found] if kind == "everything" else [own]
        if found:
            return [stream.choice(found)]
        time.sleep(0.005)
    raise AssertionError(f"the run ended before there was a {kind} to kill")


def serves(process: psutil.Process, snakemake: psutil.Process) -> bool:
    """Whether a process is that Snakemake's fork server."""
    return process.info["ppid"] == snakemake.pid and "cpt.cli.fork_server" in (process.info["cmdline"] or ())


def killed(process: psutil.Process) -> bool:
    """Kill a process; false where there was none any more."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


# ---- signals -----------------------------------------------------------------------------------


def stop_a_job(kept: Kept, folder: Path, number: signal.Signals) -> Outcome:
    """Send a training what SLURM sends before a time limit; Snakemake starts it again, and it goes on."""
    process = Session(kept, kept.copy("prepared", folder)).start()
    stopped = False
    while not stopped and process.poll() is None:
        for job in processes(folder):
            words = job.info["cmdline"]
            if "train" in words and "cpt" in words:
                state = folder / words[words.index("--checkpoint") + 1]
                while not state.exists() and job.is_running():
                    time.sleep(0.001)
                with contextlib.suppress(psutil.NoSuchProcess):
                    job.send_signal(number)
                    stopped = True
    assert process.wait(timeout=300) == 0
    settle(folder)
    assert f"cpt: {number.name}: stopped at epoch " in (folder / "output.txt").read_text()
    assert any('"resumed": true' in path.read_text() for path in (folder / RESULTS).rglob("run.json"))
    seen = "`cpt: SIGNAL: stopped at epoch …; checkpoint saved, …`; it resumes by itself"
    return Outcome(seen, (), kept.same(folder))


def interrupt(kept: Kept, folder: Path) -> Outcome:
    """Ctrl-C in the middle of the trainings."""
    session = Session(kept, kept.copy("prepared", folder))
    process = session.start()
    wait_for(folder, process, 8)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=300) != 0
    done = session.again()
    return Outcome("it stops", tuple(session.typed), done and kept.same(folder))


def start_twice(kept: Kept, folder: Path) -> Outcome:
    """A second Snakemake in the same folder while the first runs."""
    first, second = (Session(kept, folder) for _ in range(2))
    kept.copy("prepared", folder)
    process = first.start()
    wait_for(folder, process, 1)
    assert not second.snakemake()
    assert re.search("another snakemake .* works on slice; wait for it", second.text), second.text
    assert process.wait(timeout=300) == 0
    settle(folder)
    return Outcome(
        "the second stops: `another snakemake … works on slice; wait for it, …`; the first goes on",
        (),
        kept.same(folder),
    )


# ---- the disk ----------------------------------------------------------------------------------

FULL = ("the disk fills up while everything is made", "the disk fills up with runs")
"""They need the right to mount a file system."""


def fill_the_disk(kept: Kept, folder: Path, where: str, stage: str, size: int) -> Outcome:
    """Run with a folder on a file system that is too small, then with enough space.

    Args:
        size: KiB.
    """
    session = Session(kept, kept.copy(stage, folder))
    place = folder / where
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", place], check=True)
    try:
        assert not session.snakemake()
        pattern = r"^cpt: error: .*: (cannot be written, the disk is full \(.* MB free\);.*)$"
        told = re.search(pattern, session.text, re.MULTILINE)
        assert told, session.text[-3000:]
        assert "Traceback" not in session.text
        assert all(path.stat().st_size for path in place.rglob("*.*") if path.is_file())
        subprocess.run(["mount", "-o", "remount,size=100m", place], check=True)
        session.typed.clear()
        done = session.again()
        seen = re.sub(r"\([\d.,]+ MB", "(… MB", told[1])
        return Outcome(f"`FILE: {seen}`", tuple(session.typed), done and kept.same(folder))
    finally:
        settle(folder)
        subprocess.run(["umount", place], check=True)


def may_mount(folder: Path) -> bool:
    """Whether this process may mount a file system."""
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True)
    return done.returncode == 0 and subprocess.run(["umount", folder]).returncode == 0


def flip(path: Path, stream: random.Random) -> None:
    """Change one bit and no time, as a failing disk does."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[stream.randrange(len(content))] ^= 1 << stream.randrange(8)
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


EVENTS: dict[str, Callable[[Kept, Path], Outcome]] = {
    "SIGTERM to a training": partial(stop_a_job, number=signal.SIGTERM),
    "SIGUSR1 to a training, as SLURM warns": partial(stop_a_job, number=signal.SIGUSR1),
    "Ctrl-C": interrupt,
    "a second Snakemake in the same folder": start_twice,
    FULL[0]: partial(fill_the_disk, where="results", stage="new", size=2000),
    FULL[1]: partial(fill_the_disk, where="results/slice/runs", stage="prepared", size=60),
}
