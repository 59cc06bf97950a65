"""The command: every part in a process of its own, and no longer than its time."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import benchmarks.gpu
from benchmarks.gpu.attention import attention
from benchmarks.gpu.check import Check
from benchmarks.gpu.evaluation import evaluation
from benchmarks.gpu.golden import golden
from benchmarks.gpu.machine import machine
from benchmarks.gpu.numerics import numerics
from benchmarks.gpu.processes import processes, train
from benchmarks.gpu.steps import steps
from benchmarks.gpu.waits import waits
from benchmarks.gpu.workflow import workflow
from cpt.clip.device import prepare_device

Part = Callable[[Check], None]

PARTS: dict[Part, float] = {
    machine: 25,
    numerics: 40,
    golden: 50,
    waits: 20,
    steps: 150,
    attention: 20,
    evaluation: 20,
    workflow: 55,
    processes: 100,
}
"""The parts and the seconds that each may take on a GPU: 8 minutes in all. A CPU may take three times as long."""
GRACE = 10.0
"""Seconds in which a part that is ended can end what it has started."""


def run(part: Part, check: Check, seconds: float) -> None:
    """Do a part in a process of its own, and end it with all that it has started when its time is over.

    The process is forked before anything here has touched the GPU: a part has a context of its own.
    """
    process = multiprocessing.get_context("fork").Process(target=_do, args=(part, check))
    process.start()
    name = part.__name__
    try:
        process.join(seconds)
        if process.is_alive():
            check.row(name, "stopped", error=f"not done in {seconds:g} s; the rows above are what it has measured")
        elif process.exitcode:
            check.row(name, "failed", error=f"its process ended with {process.exitcode}")
    finally:
        assert process.pid is not None
        process.terminate()
        process.join(GRACE)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()


def _do(part: Part, check: Check) -> None:
    os.setsid()  # a group of processes, which can be ended as a whole
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a part cleans up
    began = time.monotonic()
    with check.tried(part.__name__, "failed"):
        prepare_device(check.device.type, "float32", 2)
        part(check)
    check.row(part.__name__, "seconds", seconds=round(time.monotonic() - began, 1))


def main(words: list[str] | None = None) -> int:
    """Measure all parts; return 1 if a row says that something failed."""
    parts: dict[str, Any] = {part.__name__: part for part in PARTS}
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=benchmarks.gpu.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/gpu.json"), help="file of the rows")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: check that the parts work")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it work?")
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts), metavar="PART", help="these parts")
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)  # one of the processes of a part
    given = parser.parse_args(words)
    check = Check(torch.device(given.device), given.quick, given.out)
    if given.train:
        prepare_device(given.device, "float32", 2)
        train(check)
        return 0
    given.out.unlink(missing_ok=True)
    for name in given.only:
        run(parts[name], check, PARTS[parts[name]] * (1 if check.cuda else 3))
    return int(any("error" in row for row in check.rows))


if __name__ == "__main__":
    sys.exit(main())
