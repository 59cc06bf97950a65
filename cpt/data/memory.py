"""The memory that a job may still take for what it could also do without."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

RESERVE = 0.25
"""Share of the memory that stays free for the steps of the jobs and for whatever else the machine does."""


def room(system: Path = Path("/")) -> int:
    """Return the bytes that may still be taken, by what the machine, its control groups and SLURM allow.

    What other jobs have taken is gone, so jobs share the memory without knowing of each other.

    Args:
        system: the folder that has ``proc`` and ``sys``.
    """
    limits = [*_machine(system), *_control_groups(system), *_slurm(system)]
    return max(0, min(int(free - RESERVE * total) for total, free in limits))


def _machine(system: Path) -> Iterator[tuple[int, int]]:
    """Bytes of the machine's memory, and those that can be had without swapping: where it does not say, half of it."""
    known = _numbers(system / "proc/meminfo")
    if {"MemTotal", "MemAvailable"} <= known.keys():
        yield known["MemTotal"] * 1024, known["MemAvailable"] * 1024
    else:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        unit = 1 if sys.platform == "darwin" else 1024
        yield total, total // 2 - resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _control_groups(system: Path) -> Iterator[tuple[int, int]]:
    """Limit of every control group that this process is in, of either version, and what is left of it.

    Cached files count as left: the system drops them when memory is needed.
    """
    for line in _text(system / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = system / "sys/fs/cgroup", ("memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            root = system / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        else:
            continue
        limit, usage, prefix = names
        own = root / path.lstrip("/")
        for folder in (own, *own.parents):
            with contextlib.suppress(ValueError):  # "max": no limit
                total, used = int(_text(folder / limit)), int(_text(folder / usage))
                cached = _numbers(folder / "memory.stat")
                dropped = sum(cached.get(f"{prefix}{kind}_file", 0) for kind in ("active", "inactive"))
                yield total, total - used + dropped
            if folder == root:
                break


def _slurm(system: Path) -> Iterator[tuple[int, int]]:
    """What SLURM has granted, which some sites enforce without control groups, without what this process has."""
    granted = os.environ.get("SLURM_MEM_PER_NODE") or "0"
    each, cores = os.environ.get("SLURM_MEM_PER_CPU") or "0", os.environ.get("SLURM_CPUS_ON_NODE") or "0"
    with contextlib.suppress(ValueError):
        total = (int(granted) or int(each) * int(cores)) * 2**20
        if total:  # 0 is all of the node's
            yield total, total - _numbers(system / "proc/self/status").get("VmRSS", 0) * 1024


def _numbers(file: Path) -> dict[str, int]:
    """Return the numbers of a file with a name and a number in every line."""
    return {name: int(number) for name, number in re.findall(r"^(\w+):?\s+(\d+)", _text(file), re.MULTILINE)}


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""
