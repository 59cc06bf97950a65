"""The check of a GPU in its quick form on a CPU, so that it works when there is a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from benchmarks.gpu.__main__ import PARTS
from benchmarks.gpu.check import Check
from benchmarks.gpu.golden import CASES
from benchmarks.gpu.numerics import Computed, _compare, computed
from benchmarks.gpu.processes import _rate, trainings
from benchmarks.gpu.workflow import METHODS
from cpt.methods.base import registry
from tests.helpers.golden_clip import GOLDEN

CPU, NAMES = torch.device("cpu"), [part.__name__ for part in PARTS]


def rows(check: Check, part: str) -> list[dict[str, Any]]:
    return [row for row in check.rows if row["part"] == part and row["what"] != "seconds"]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    return Check(CPU, True, tmp_path / "gpu.json")


@pytest.mark.slow
def test_every_part_works(check: Check, root: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--quick", "--out", str(check.out)]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(dict.fromkeys(row["part"] for row in check.rows)) == NAMES
    assert all(rows(check, part) for part in NAMES)
    assert [row["what"] for row in check.rows if row["what"] == "left out"] == ["left out"], "a CPU waits for nothing"
    exact = [row for row in rows(check, "numerics") if row["dtype"] == "torch.float32"]
    assert len(exact) == 3
    assert all(row["loss"] == row["gradient"] == 0 for row in exact), "the CPU against itself"
    assert {row["how"] for row in rows(check, "steps")} == {"eager", "naive"}
    assert [row["within"] for row in rows(check, "golden")] == ["tolerance"]
    assert [(row["what"], row["device"]) for row in rows(check, "workflow")] == [(METHODS[0], "cpu")]
    assert [row["what"] for row in rows(check, "processes")] == ["1 at once"]


PARTS_AT_FAULT = """
import os, subprocess, sys, time
from benchmarks.gpu import __main__ as gpu

def fails(check):
    raise RuntimeError("no such kernel\\nand more")

def hangs(check):
    check.row("hangs", "first", child=subprocess.Popen(["sleep", "1000"]).pid)
    time.sleep(1000)

def breaks(check):
    os._exit(3)

def works(check):
    check.row("works", "first")

gpu.PARTS = {fails: 60, hangs: 1, breaks: 60, works: 60}
sys.exit(gpu.main(sys.argv[1:]))
"""


def test_what_fails_hangs_or_breaks_is_a_row_and_the_others_go_on(check: Check, root: Path) -> None:
    words = [sys.executable, "-c", PARTS_AT_FAULT, "--device", "cpu", "--quick", "--out", str(check.out)]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert rows(check, "fails") == [{"part": "fails", "what": "failed", "error": "no such kernel"}]
    first, last = rows(check, "hangs")
    assert last["error"] == "not done in 3 s; the rows above are what it has measured"
    with suppress(psutil.NoSuchProcess):
        assert psutil.Process(first["child"]).status() == psutil.STATUS_ZOMBIE, "ended with its part"
    assert rows(check, "breaks")[0]["error"] == "its process ended with 3"
    assert rows(check, "works") == [{"part": "works", "what": "first"}]


def test_without_a_gpu_it_says_so(check: Check, root: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.gpu", "--only", "machine", "--out", str(check.out)]
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    assert subprocess.run(words, cwd=root, env=hidden, capture_output=True).returncode == 1
    assert rows(check, "machine")[0]["error"].startswith("device: cuda asked for, but torch sees no GPU")


def test_it_takes_eight_minutes_at_most() -> None:
    assert sum(PARTS.values()) <= 8 * 60


def test_the_golden_cases_are_there() -> None:
    """One of every method that has any, by the first word of its name."""
    stored = {path.stem for path in GOLDEN.glob("*.npz")}
    assert stored >= {*CASES}
    assert all([name for name in stored if case in name] == [case] for case in CASES), "their names choose the tests"
    methods = {name.replace("_", "") for name in registry.names()} | {"lp", "lora", "tip"}  # of several methods
    assert {case.partition("_")[0] for case in CASES} == {name.partition("_")[0] for name in stored} & methods
    assert methods >= {*METHODS}


# Numerics


@pytest.mark.parametrize("name", ["lamp", "lamp_abstract", "dpc"])
def test_choices_are_those_of_the_cpu(check: Check, name: str) -> None:
    wanted = computed(check, name, CPU, torch.float32)
    found = computed(check, name, CPU, torch.bfloat16, wanted)
    assert all(torch.equal(a, b) for a, b in zip(found.chosen, wanted.chosen, strict=True))
    assert found.batch.host_labels == wanted.batch.host_labels
    assert torch.equal(found.batch.images, wanted.batch.images)
    assert len(wanted.chosen) == {"lamp": 2 * 10, "lamp_abstract": 2, "dpc": 0}[name], "by modality, and by block"
    assert len(wanted.batch.labels) > 4 or name != "dpc"
    if name != "dpc":  # they are used
        other = replace(wanted, chosen=[(entries + 1) % 3 for entries in wanted.chosen])
        assert computed(check, name, CPU, torch.float32, other).loss != wanted.loss
        again = computed(check, name, CPU, torch.float32, wanted)
        assert (again.loss, again.gradient.tolist()) == (wanted.loss, wanted.gradient.tolist())


def test_float32_may_not_be_far_off(check: Check) -> None:
    batch: Any = None
    wanted = Computed(1.0, torch.ones(3), batch, [])
    for dtype, loss, fails in (
        (torch.float32, 1.0, False),
        (torch.float32, 1.01, True),
        (torch.float32, float("nan"), True),
        (torch.bfloat16, 1.01, False),
    ):
        _compare(check, "ivlp", dtype, Computed(loss, torch.ones(3), batch, []), wanted)
        assert ("error" in check.rows[-1]) == fails


# Processes

READY = """
import sys
print("{}", flush=True)
for line in sys.stdin:
    print('{"steps": 10, "seconds": 2}', flush=True)
"""


def test_processes_begin_together_and_none_is_left(check: Check) -> None:
    with trainings([sys.executable, "-c", READY], 3, {}) as children:
        assert all(child.poll() is None for child in children)
        assert _rate(check, children[:2], 24) == _rate(check, children[:2], 24) == 10
    assert all(child.poll() is not None for child in children)


def test_a_process_that_ends_ends_the_others(tmp_path: Path) -> None:
    """The second one that is started ends before it is ready."""
    script = f"import os, sys; os.mkdir({str(tmp_path / 'one')!r}); print('{{}}', flush=True); sys.stdin.read()"
    with (
        pytest.raises(RuntimeError, match="a training ended with 1; the log says why"),
        trainings([sys.executable, "-c", script], 2, {}),
    ):
        pytest.fail("not ready")
    left = [child for child in psutil.Process().children() if script in child.cmdline()]
    assert not left
