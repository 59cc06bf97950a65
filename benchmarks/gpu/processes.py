"""Part ``processes``: CPT trained by several processes at once, without and with the multi-process service.

All processes are made first and wait to be told. So those that are counted begin together, and none is still loading.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.gpu.check import ROOT, Check
from cpt.training.graphs import WARM_UP

SECONDS = 3.0
"""How long they train."""
CONTROL = "nvidia-cuda-mps-control"


def processes(check: Check) -> None:
    """Steps a second of one process, of two, …"""
    number = 1 if check.quick else 4
    words = [sys.executable, "-m", "benchmarks.gpu", "--device", check.device.type, "--train"]
    words += ["--quick"] if check.quick else []
    for service in (False, True) if check.cuda and shutil.which(CONTROL) else (False,):
        with (
            check.tried("processes", "multi-process service" if service else "alone"),
            _environment(service) as environment,
            trainings(words, number, environment) as children,
        ):
            for count in _sizes(check):
                for together in range(1, number + 1):
                    rate = _rate(check, children[:together], count)
                    what = f"{together} at once"
                    check.row("processes", what, classes=count, service=service, steps_per_second=rate)


def _sizes(check: Check) -> tuple[int, ...]:
    return (24,) if check.quick else (24, 500)


def _rate(check: Check, children: list[subprocess.Popen[str]], count: int) -> float:
    """Steps a second of all of them together."""
    for child in children:
        assert child.stdin is not None
        child.stdin.write(json.dumps([count, SECONDS if check.cuda else 0.3]) + "\n")
        child.stdin.flush()
    return sum(found["steps"] / found["seconds"] for found in map(_answer, children))


@contextmanager
def trainings(words: list[str], number: int, environment: dict[str, str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ready to train; none outlives the block.

    Raises:
        RuntimeError: one of them has ended.
    """
    children: list[subprocess.Popen[str]] = []
    try:
        for _ in range(number):
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            children.append(subprocess.Popen(words, cwd=ROOT, env=environment, text=True, **pipes))  # type: ignore[call-overload]
        for child in children:
            _answer(child)
        yield children
    finally:
        for child in children:
            child.kill()
        for child in children:
            child.wait()
            for pipe in (child.stdin, child.stdout):
                assert pipe is not None
                pipe.close()


def _answer(child: subprocess.Popen[str]) -> dict[str, Any]:
    assert child.stdout is not None
    if not (line := child.stdout.readline()):
        raise RuntimeError(f"a training ended with {child.wait()}; the log says why")
    return json.loads(line)


@contextmanager
def _environment(service: bool) -> Iterator[dict[str, str]]:
    """Variables of the processes; ``service``: with a multi-process service of ours, which ends with the block."""
    if not service:
        yield dict(os.environ)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = os.environ | {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        subprocess.run([CONTROL, "-d"], env=found, check=True, timeout=20)
        try:
            yield found
        finally:
            subprocess.run([CONTROL], input="quit\n", text=True, env=found, check=False, timeout=20)


def train(check: Check) -> None:
    """One of the processes: get ready, then train as often as a line on the standard input asks for it."""
    clip = check.clip()
    made = {}
    for count in _sizes(check):
        steps = check.steps("cpt", clip, count, graph=check.cuda, log=lambda line: print(line, file=sys.stderr))
        made[count] = partial(steps.loop.step, steps.batch(0))
        for _ in range(WARM_UP + 2 if check.cuda else 1):
            made[count]()
    check.wait()
    print(json.dumps({"ready": True}), flush=True)
    for line in iter(sys.stdin.readline, ""):  # until the one that asks has ended
        count, seconds = json.loads(line)
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            made[count]()
            done += 1
            if done % 20 == 0:
                check.wait()
        check.wait()
        print(json.dumps({"steps": done, "seconds": time.perf_counter() - began}), flush=True)
