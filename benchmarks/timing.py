"""The clock: pairs of measurements in turn, so that what else the machine does falls on both."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]


@dataclass
class Peak:
    """What the machine can do in this process: FLOP/s by precision, and bytes/s."""

    flops: dict[str, float] = field(default_factory=dict)
    bandwidth: float = 0.0

    def fraction(self, flops: float, seconds: float, precision: str = "float32") -> float:
        """Share of the peak that so many operations in so many seconds are."""
        return flops / seconds / self.flops[precision]


@dataclass
class Settings:
    """What every line needs to know.

    Attributes:
        quick: small sizes: whether the suite works, not how fast anything is.
        threads: threads of torch.
        repeats: pairs of measurements.
        folder: for temporary files.
        log: takes a line of progress.
        peak: filled in by the first line.
    """

    quick: bool
    threads: int
    repeats: int
    folder: Path
    log: Callable[[str], None] = print
    peak: Peak = field(default_factory=Peak)


@dataclass(frozen=True)
class Pairs:
    """Seconds of both ways, measured in turn."""

    ours: list[float]
    naive: list[float]

    @property
    def ratio(self) -> float:
        """Median of naive / ours over the pairs."""
        return statistics.median(slow / fast for slow, fast in zip(self.naive, self.ours, strict=True))

    def row(self) -> dict[str, Any]:
        """What a row says of the pairs."""
        ours, naive = statistics.median(self.ours), statistics.median(self.naive)
        return {"ours": ours, "naive": naive, "ratio": self.ratio, "repeats": len(self.ours)}


def now(device: torch.device | str = "cpu") -> float:
    """The time after everything that was launched on the device is done."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds(work: Callable[[], Any], device: torch.device | str = "cpu") -> float:
    """Seconds of one call."""
    started = now(device)
    work()
    return now(device) - started


def alternate(
    repeats: int, ours: Callable[[], float], naive: Callable[[], float], log: Callable[[str], None] | None = None
) -> Pairs:
    """Measure both ways in turn; each call returns its own seconds."""
    pairs = Pairs([], [])
    for _ in range(repeats):
        pairs.naive.append(naive())
        pairs.ours.append(ours())
        if log is not None:
            slow, fast = pairs.naive[-1], pairs.ours[-1]
            log(f"naive {slow:.3g} s, ours {fast:.3g} s, ratio {slow / fast:.3g}")
    return pairs


@contextmanager
def not_deterministic() -> Iterator[None]:
    """Drop what our jobs ask of torch for their bytes' sake, as the naive computation does without it."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=True)


def available_memory() -> float:
    """Bytes of main memory that can be had without swapping."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        return float(lines["MemAvailable"].split()[0]) * 1024
    return 0.5 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def environment(**changes: str) -> dict[str, str]:
    """The environment of a child: this interpreter first on the path, no fork server."""
    found = {key: value for key, value in os.environ.items() if key != "CPT_FORK_SERVER"}
    return found | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{found['PATH']}", **changes}


def child(module: str, arguments: Sequence[object]) -> dict[str, Any]:
    """Run a module in a process of its own and return the JSON of its last line.

    Raises:
        RuntimeError: the process failed; gives its last words.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
