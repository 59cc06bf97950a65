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
from benchmarks.timing import ROOT, Settings, alternate, environment, seconds
from cpt.experiment.config import load
from cpt.experiment.grid import build

STARTUP_TARGET, DAG_TARGET, WHOLE_TARGET = 3.0, 15.0, 270.0
FIRST_STEP = "epoch 1/1"
"""The line that a job prints after its only epoch, which is one step."""


def startup_lines(settings: Settings) -> list[Row]:
    """Seconds from starting ``cpt train`` to its first step: as a fresh process, and through the fork server."""
    results = experiment.prepare(settings.folder / "startup", "embedded", experiment.land_entry())
    numbers = itertools.count()

    def job(worker: str | None = None) -> float:
        return first_step(results, results / f"runs/{next(numbers)}", worker)

    def imports(modules: str = "cpt.cli.app, cpt.training.train, cpt.methods.ivlp") -> float:
        command = [sys.executable, "-c", f"import {modules}"]
        return seconds(lambda: subprocess.run(command, cwd=ROOT, env=environment(), check=True))

    imports(), job()  # bytecode and files are in memory from here on
    with fork_server(settings.folder / "server/fork-server") as address:
        pairs = alternate(settings.repeats, lambda: job(address), job, lambda line: settings.log(f"  {line}"))
        importing = alternate(settings.repeats, imports, lambda: imports("torch"))
    fresh, imported, library = map(statistics.median, (pairs.naive, importing.ours, importing.naive))
    target = None if settings.quick else STARTUP_TARGET
    repeats = settings.repeats
    note = "limit: importing torch alone"
    server = "job to first step, fork server / fresh process"
    return [
        Row("startup", "job to first step, fresh process", "s", fresh, None, None, target, "ours",
            floor=library, repeats=repeats, note=note),
        Row("startup", server, "s", **pairs.row()),
        Row("startup", "imports of a training job", "s", imported, floor=library, repeats=repeats, note=note),
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
    changed = {} if worker is None else {"CPT_FORK_SERVER": worker}
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
    command = [sys.executable, "-m", "cpt.cli.fork_server", str(address), "--owner", str(os.getpid())]
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


BARE = """
RUNS = range({runs})
rule all:
    input: expand("{{run}}/scored", run=RUNS)
rule train:
    output: "{{run}}/trained", "{{run}}/history", "{{run}}/record"
    shell: "touch {{output}}"
rule predict:
    input: "{{run}}/record"
    output: "{{run}}/predicted", "{{run}}/classifier"
    shell: "touch {{output}}"
rule score:
    input: "{{run}}/predicted"
    output: "{{run}}/scored"
    shell: "touch {{output}}"
"""
"""As many runs as ours has, in rules without functions, logs and parameters, and with one input each."""


def dag_lines(settings: Settings) -> list[Row]:
    """Dry runs of the paper's grid: with nothing remembered of the configuration, and again; and of bare rules."""
    config = "config/config.yaml" if settings.quick else "config/paper.yaml"
    folder, bare = copy_project(settings.folder / "dag"), settings.folder / "bare"
    bare.mkdir()
    runs = len(build(load([folder / config]), config).runs)
    (bare / "Snakefile").write_text(BARE.format(runs=runs))
    first, again, floor = [], [], []
    for _ in range(1 if settings.quick else settings.repeats):
        shutil.rmtree(folder / "work", ignore_errors=True)  # what cpt.experiment.resolved remembers
        for kept in (first, again):
            kept.append(snakemake(folder, "-n", "-q", "rules", "--configfile", config))
        floor.append(snakemake(bare, "-n", "-q", "rules"))
        settings.log(f"  first {first[-1]:.1f} s, again {again[-1]:.1f} s, bare rules {floor[-1]:.1f} s")
    common = {
        "target": None if settings.quick else DAG_TARGET,
        "bounds": "ours",
        "floor": statistics.median(floor),
        "repeats": len(floor),
        "note": f"limit: {3 * runs:,} jobs of rules without functions, logs and parameters, one input each",
    }
    return [
        Row("dag", f"dry run, {config}, again", "s", statistics.median(again), **common),
        Row("dag", f"dry run, {config}, first", "s", statistics.median(first), **common),
    ]


def whole_lines(settings: Settings) -> list[Row]:
    """The embedded experiment in a fresh copy of the project."""
    folder = copy_project(settings.folder / "whole")
    taken = snakemake(folder)
    settings.log(f"  {taken:.0f} s")
    return [Row("whole", "embedded experiment, 2 cores", "s", taken, None, None, WHOLE_TARGET, "ours")]
