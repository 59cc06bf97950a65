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

SURVIVED = {"`kill -9` of a job": "job", "`kill -9` of the fork server": "server"}
FATAL = {
    "`kill -9` of Snakemake": "snakemake",
    "`kill -9` of everything at once, as when the machine crashes": "everything",
}
VICTIMS = SURVIVED | FATAL
"""What is killed, by what the document calls it: what the run survives, and what ends it."""

SEEDS = range(1, 11)
"""Runs; each has a kill that it survives and a later one that ends it, so that every pair comes twice or more."""

FLIPPED = range(5, 11)
"""Seeds after whose last kill a bit of every checkpoint is flipped: they have every pair, too."""

STEPS = {"new": 30, "prepared": 18}
"""Jobs that may be done before a kill: of 39 in all, of 24 after those that prepare."""


def victims_of(seed: int) -> tuple[str, str]:
    """Which two kills a seed is."""
    return list(SURVIVED)[seed % 2], list(FATAL)[seed // 2 % 2]


def kill(kept: Kept, folder: Path, seed: int) -> dict[str, Outcome]:
    """Kill at two random moments of a run; damage what some of the killed ones saved; run again."""
    stream, (survived, fatal) = random.Random(seed), victims_of(seed)
    stage = stream.choices(list(STEPS), [1, 3])[0]
    session = Session(kept, kept.copy(stage, folder))
    process = session.start(own_server=VICTIMS[survived] == "server")
    steps = stream.randrange(STEPS[stage])
    wait_for(folder, process, steps)
    hit(folder, process, VICTIMS[survived], stream)
    # It goes on when Snakemake starts a job again, or when three are done: two that ran, and one that began later.
    wait_for(folder, process, done(folder) + 3, "Trying to restart job")
    wait_for(folder, process, min(steps + stream.randrange(6), STEPS[stage]))
    hit(folder, process, VICTIMS[fatal], stream)
    process.wait(timeout=300)
    settle(folder)
    if seed in FLIPPED:
        for state in folder.glob("work/**/*.checkpoint"):
            flip(state, stream)
    same = session.again() and kept.same(folder)
    return {
        survived: Outcome("it goes on by itself", (), same),
        fatal: Outcome("it stops", tuple(session.typed), same),
    }


def done(folder: Path) -> int:
    """How many steps the run has done."""
    told = re.findall(r"^(\d+) of \d+ steps", (folder / "output.txt").read_text(), re.MULTILINE)
    return max(map(int, told), default=0)


def wait_for(folder: Path, process: subprocess.Popen, steps: int, message: str | None = None) -> None:
    """Wait until the run has done so many steps, has told a message, or has ended."""
    while process.poll() is None and done(folder) < steps:
        if message is not None and message in (folder / "output.txt").read_text():
            return
        time.sleep(0.02)


def hit(folder: Path, process: subprocess.Popen, kind: str, stream: random.Random) -> None:
    """Kill what a kind means within half a second; what ended by itself before it could be killed does not count."""
    time.sleep(stream.random() / 2)
    while not sum(killed(found) for found in victims(folder, process, kind, stream)):
        pass


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


def end_as_told(kept: Kept, folder: Path) -> Outcome:
    """A second Snakemake tells how to end the first, whose trainings save their state."""
    first, second = (Session(kept, kept.copy("prepared", folder)), Session(kept, folder))
    process = first.start()
    while not list(folder.glob("work/**/*.checkpoint")) and process.poll() is None:
        time.sleep(0.02)
    assert not second.snakemake()
    command = re.search("or end it with `(kill .*?)`", second.text)
    assert command, second.text
    asked = time.monotonic()
    subprocess.run(["bash", "-c", command[1]], check=True)
    assert process.wait(timeout=60) != 0
    assert time.monotonic() - asked < 30
    first.typed += [command[1].replace(str(process.pid), "PID")]
    done = first.again()
    return Outcome(
        "it stops; `cpt: SIGTERM: stopped at epoch …; checkpoint saved, …`",
        tuple(first.typed),
        done and kept.same(folder),
    )


def lose_the_server(kept: Kept, folder: Path) -> Outcome:
    """The fork server is killed, and the rest of the run does without it to its end."""
    process = Session(kept, kept.copy("prepared", folder)).start(own_server=True)
    wait_for(folder, process, STEPS["prepared"])
    hit(folder, process, "server", random.Random(0))
    assert process.wait(timeout=300) == 0
    settle(folder)
    return Outcome("it goes on by itself", (), kept.same(folder))


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
    "`kill` of Snakemake, as a second one says": end_as_told,
    "`kill -9` of the fork server and nothing after it": lose_the_server,
    "a second Snakemake in the same folder": start_twice,
    FULL[0]: partial(fill_the_disk, where="results", stage="new", size=2000),
    FULL[1]: partial(fill_the_disk, where="results/slice/runs", stage="prepared", size=60),
}
