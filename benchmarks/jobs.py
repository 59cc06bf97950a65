"""Lines ``startup``, ``dag`` and ``whole``: what a job and the workflow cost beside computing."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import experiment
from benchmarks.rows import Row
from benchmarks.timing import ROOT, Pairs, Settings, alternate, environment, seconds

STARTUP_TARGET, DAG_TARGET, WHOLE_TARGET = 3.0, 15.0, 300.0
FIRST_STEP = "epoch 1/1"
"""The line that a job prints after its only epoch, which is one step."""


def startup_lines(settings: Settings) -> list[Row]:
    """Seconds from starting ``cpt train`` to its first step: as a fresh process, and through the fork server."""
    results = experiment.prepare(settings.folder / "startup", "embedded", experiment.land_entry())
    numbers = itertools.count()

    def job(worker: str | None = None) -> float:
        return first_step(results, results / f"runs/{next(numbers)}", worker)

    def imports() -> float:
        command = [sys.executable, "-c", "import cpt.cli, cpt.train, cpt.methods.ivlp"]
        return seconds(lambda: subprocess.run(command, cwd=ROOT, env=environment(), check=True))

    imports(), job()  # bytecode and files are in memory from here on
    with fork_server(settings.folder / "server/worker") as address:
        pairs = alternate(settings.repeats, lambda: job(address), job, lambda line: settings.say(f"  {line}"))
        importing = [imports() for _ in range(settings.repeats)]
    fresh, imported = statistics.median(pairs.naive), statistics.median(importing)
    target = None if settings.quick else STARTUP_TARGET
    repeats = len(importing)
    share = f"imports: {imported:.2f} s, {100 * imported / fresh:.0f} %"
    server = "job to first step, fork server / fresh process"
    return [
        Row("startup", "job to first step, fresh process", "s", fresh, None, None, target, "ours",
            repeats=repeats, note=share),
        Row("startup", server, "s", **pairs.row()),
        Row("startup", "imports of a training job", "s", imported, repeats=repeats),
    ]  # fmt: skip


def first_step(results: Path, output: Path, worker: str | None) -> float:
    """Start a training job of one step and return the seconds until that is done, the end of its epoch included."""
    i = experiment.inputs(results, "land", 2, 1)
    options = {
        "method": i.method,
        "seed": i.seed,
        "backbone": i.backbone,
        "manifest": i.manifest,
        "split": i.split,
        "text-features": i.text_features,
        "output": output,
        "hyperparameters": json.dumps(i.hyperparameters),
        "augmentation": i.augmentation,
        "device": "cpu",
    }
    words = itertools.chain.from_iterable((f"--{name}", str(value)) for name, value in options.items())
    changed = {} if worker is None else {"CPT_WORKER": worker}
    command = [sys.executable, "-m", "cpt", "train", *words]
    began, found = time.perf_counter(), None
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(**changed), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith(FIRST_STEP):
                found = time.perf_counter() - began
    if found is None or process.returncode:
        raise RuntimeError(f"cpt train ended with {process.returncode}: {''.join(lines)[-2000:]}")
    return found


@contextlib.contextmanager
def fork_server(address: Path) -> Iterator[str]:
    """A fork server for the jobs inside the block."""
    address.parent.mkdir(parents=True)
    command = [sys.executable, "-m", "cpt", "worker", str(address), "--owner", str(os.getpid())]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL)
    try:
        while not address.exists():
            if process.poll() is not None:
                raise RuntimeError("the fork server did not start")
            time.sleep(0.05)
        yield str(address)
    finally:
        process.terminate()
        process.wait()


# The workflow


def copy_project(folder: Path) -> Path:
    """Copy what the workflow needs; the package itself is imported from where it is installed."""
    folder.mkdir(parents=True)
    for name in ("Snakefile", "profiles", "rules", "workflow", "config", "envs"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    return folder


def snakemake(folder: Path, *words: str) -> float:
    """Seconds of a call of Snakemake.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--resources", "gpu=2", *words]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    taken = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {(done.stdout + done.stderr)[-3000:]}")
    return taken


def dag_lines(settings: Settings) -> list[Row]:
    """Dry runs of the paper's grid: with nothing remembered of the configuration, and again."""
    config = "config/config.yaml" if settings.quick else "config/paper.yaml"
    folder = copy_project(settings.folder / "dag")
    pairs = Pairs([], [])
    for _ in range(1 if settings.quick else settings.repeats):
        shutil.rmtree(folder / "work", ignore_errors=True)  # what cpt.workflow remembers
        for kept in (pairs.naive, pairs.ours):
            kept.append(snakemake(folder, "-n", "-q", "rules", "--configfile", config))
        settings.say(f"  first {pairs.naive[-1]:.1f} s, second {pairs.ours[-1]:.1f} s")
    target, repeats = None if settings.quick else DAG_TARGET, len(pairs.ours)
    first, second = statistics.median(pairs.naive), statistics.median(pairs.ours)
    return [
        Row("dag", f"dry run, {config}, again", "s", second, None, None, target, "ours", repeats=repeats),
        Row("dag", f"dry run, {config}, first", "s", first, None, None, target, "ours", repeats=repeats),
    ]


def whole_lines(settings: Settings) -> list[Row]:
    """The embedded experiment in a fresh copy of the project."""
    folder = copy_project(settings.folder / "whole")
    taken = snakemake(folder)
    settings.say(f"  {taken:.0f} s")
    return [Row("whole", "embedded experiment, 2 cores", "s", taken, None, None, WHOLE_TARGET, "ours")]
