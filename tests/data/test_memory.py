"""What memory a job may still take, on machines that are folders here."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from cpt.data.memory import room

GIB = 2**30
MACHINE = {"proc/meminfo": f"MemTotal:  {16 * 2**20} kB\nMemFree:  1 kB\nMemAvailable:  {10 * 2**20} kB\n"}


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)


def room_of(folder: Path, *parts: Mapping[str, object]) -> float:
    """GiB on a machine with these files."""
    for name, text in {name: text for part in parts for name, text in part.items()}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(text))
    return room(folder) / GIB


def group(folder: str, limit: object, used: float, cached: float = 0) -> dict[str, object]:
    """A control group of version 2 with so many GiB."""
    cache = f"anon 5\nactive_file {int(cached * GIB / 2)}\ninactive_file {int(cached * GIB / 2)}\n"
    return {
        f"sys/fs/cgroup{folder}/memory.max": limit if isinstance(limit, str) else int(limit * GIB),  # type: ignore[operator]
        f"sys/fs/cgroup{folder}/memory.current": int(used * GIB),
        f"sys/fs/cgroup{folder}/memory.stat": cache,
    }


def test_a_quarter_of_the_machine_stays_free(tmp_path: Path) -> None:
    assert room_of(tmp_path, MACHINE) == 10 - 16 / 4


def test_no_room_is_none(tmp_path: Path) -> None:
    assert room_of(tmp_path, {"proc/meminfo": "MemTotal: 16000 kB\nMemAvailable: 3000 kB\n"}) == 0


def test_the_narrowest_control_group_counts(tmp_path: Path) -> None:
    inside = {"proc/self/cgroup": "0::/slurm/job_7/step_0\n"}
    limits = [group("/slurm", 12, 9), group("/slurm/job_7", 8, 5, 1.5), group("/slurm/job_7/step_0", "max\n", 5)]
    assert room_of(tmp_path, MACHINE, inside, *limits) == 12 - 9 - 3
    assert room_of(tmp_path, group("/slurm", 16, 9)) == 8 - 5 + 1.5 - 2, "cached files are dropped when needed"
    assert room_of(tmp_path, group("/slurm/job_7", "max\n", 5)) == 16 - 9 - 4
    assert room_of(tmp_path, group("/slurm", "max\n", 5)) == 6


def test_the_limit_of_a_container_is_found_at_its_root(tmp_path: Path) -> None:
    """The path is that on the host, and there is nothing of it inside."""
    assert room_of(tmp_path, MACHINE, {"proc/self/cgroup": "0::/docker/5a1b\n"}, group("", 4, 1)) == 4 - 1 - 1


def test_control_groups_of_version_1(tmp_path: Path) -> None:
    root = "sys/fs/cgroup/memory"
    files = {
        "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/job\n3:cpuset:/\n0::/\n",
        f"{root}/memory.limit_in_bytes": 2**63 - 4096,
        f"{root}/memory.usage_in_bytes": 3 * GIB,
        f"{root}/job/memory.limit_in_bytes": 8 * GIB,
        f"{root}/job/memory.usage_in_bytes": 6 * GIB,
        f"{root}/job/memory.stat": f"cache 1\nactive_file 7\ntotal_active_file {GIB}\ntotal_inactive_file {GIB}\n",
    }
    assert room_of(tmp_path, MACHINE, files) == 8 - 6 + 2 - 2


@pytest.mark.parametrize(
    ("granted", "expected"),
    [
        ({"SLURM_MEM_PER_NODE": "8192"}, 8 - 1.5 - 2),
        ({"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "4"}, 4 - 1.5 - 1),
        ({"SLURM_MEM_PER_NODE": "0"}, 6),
        ({"SLURM_MEM_PER_NODE": "all"}, 6),
        ({}, 6),
    ],
)
def test_what_slurm_has_granted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, granted: dict[str, str], expected: float
) -> None:
    for name, value in granted.items():
        monkeypatch.setenv(name, value)
    status = {"proc/self/status": f"Name:\tcpt\nVmRSS:\t {3 * 2**19} kB\n"}
    assert room_of(tmp_path, MACHINE, status) == expected


def test_a_system_that_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the memory is taken to be free, without what this process has had."""
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 16 * 2**18}.get)
    monkeypatch.setattr("sys.platform", "darwin")
    had = SimpleNamespace(ru_maxrss=3 * GIB)
    monkeypatch.setattr(resource, "getrusage", lambda _: had)
    assert room_of(tmp_path) == 16 / 2 - 3 - 4
