"""Line ``memory``: the largest memory of a step beyond the loaded model, each measured in a process of its own.

``python -m benchmarks.memory ours|naive CLASSES THREADS QUICK`` is that process.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rows import Row
from benchmarks.timing import Settings, available_memory, child

TARGET = 5.0
SHARE = 0.85
"""Share of the available memory that the naive step may be expected to take."""
SMALL = (40, 100)
"""Numbers of classes from which the naive step's memory is foretold."""
STATUS = Path("/proc/self/status")


def lines(settings: Settings) -> list[Row]:
    """Peak memory of a step, naive and ours, by number of classes."""
    counts = (20,) if settings.quick else (500, 50, 5)
    rows = []
    for count in counts:
        ours = _peak(settings, "ours", count)
        naive, note = _naive(settings, count)
        settings.log(f"  K={count}: naive {naive:,.0f} MiB, ours {ours:,.0f} MiB, ratio {naive / ours:.3g}")
        target = TARGET if count == 500 else None
        found = {"ours": ours, "naive": naive, "ratio": naive / ours, "peak_memory_mb": ours}
        what = f"peak memory of a step, K={count}"
        rows.append(Row("memory", what, "MiB", target=target, classes=count, part="whole", note=note, **found))
    return rows


def _naive(settings: Settings, count: int) -> tuple[float, str]:
    """MiB of the naive step, measured where it fits, else continued from fewer classes; and how."""
    if count <= SMALL[1]:
        return _peak(settings, "naive", count), "naive measured"
    expected = extrapolate(SMALL, [_peak(settings, "naive", k) for k in SMALL], count)
    fits = SHARE * available_memory() / 2**20
    if expected <= fits:
        return _peak(settings, "naive", count), f"naive measured ({expected:,.0f} MiB expected of {fits:,.0f})"
    points = (100, 200)
    value = extrapolate(points, [_peak(settings, "naive", k) for k in points], count)
    return value, f"naive continued linearly from K={points[0]} and {points[1]}: {fits:,.0f} MiB are to be had"


def extrapolate(x: Sequence[float], y: Sequence[float], at: float) -> float:
    """Continue the line through two points."""
    (a, b), (left, right) = x, y
    return left + (right - left) * (at - a) / (b - a)


def _peak(settings: Settings, kind: str, count: int) -> float:
    return child("benchmarks.memory", [kind, count, settings.threads, int(settings.quick)])["peak_mb"]


# The process that is measured


def measured(kind: str, count: int, threads: int, quick: bool) -> float:
    """MiB of the first step of either kind beyond what the process has when the model is loaded."""
    from benchmarks.problem import make_problem
    from benchmarks.steps import NaiveStep, OurStep
    from cpt.clip.device import prepare_device

    prepare_device("cpu", "float32", threads)
    problem = make_problem(quick=quick)
    classes = problem.classes(count)
    method = problem.method(classes)
    batches = problem.batches(classes, 1, threads)
    step = (
        OurStep(problem, method, classes, batches, parts=False)
        if kind == "ours"
        else NaiveStep(problem, method, classes, batches, count, parts=False)
    )
    before = _settle()
    step()
    return (_high_water() - before) / 2**20


def _settle() -> float:
    """Give back what is free, forget the high-water mark, and return the bytes that are resident."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS") if STATUS.is_file() else _high_water()


def _high_water() -> float:
    """Bytes of the largest resident set since the mark was forgotten; without /proc since the process began."""
    if STATUS.is_file():
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)


def _status(name: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return float(line.split()[1]) * 1024


if __name__ == "__main__":
    with contextlib.suppress(OSError):  # if memory runs out after all, this process is the one to go
        Path("/proc/self/oom_score_adj").write_text("1000")
    kind, *numbers = sys.argv[1:]
    count, threads, quick = map(int, numbers)
    print(json.dumps({"peak_mb": measured(kind, count, threads, bool(quick))}))
