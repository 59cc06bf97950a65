"""Part ``golden``: a case of every method against the numbers of its published code (tests/golden/README.md)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec

from benchmarks.gpu.check import ROOT, Check

CASES = (
    *("zeroshot_caltech101", "coop_ctx4_csc", "cocoop_ctx4_photo", "ivlp_d4_n2", "maple_d3_n2", "promptsrc_d2_nv2_nt4"),
    *("coprompt_d3_n2_mse", "kgcoop_ctx4_photo", "dekg_ctx4_photo", "tcp_layer3_dtd", "dekgtcp_layer2_caltech"),
    *(
        "dpc_coop_w02_noinit",
        "lift_k10_m5",
        "mma_b2to4_s0.1",
        "mmrl_l3to4_n2_adamw",
        "lora_qkv_r2_init",
        "candle_k5_n4",
        "gla_k5",
    ),
    *(
        "lp_zslp_b",
        "lp_clap_adaptative_a",
        "lp_taskres_a",
        "lp_clipadapter_a",
        "lp_crossmodal_a",
        "sstext_unit",
        "tip_a",
    ),
)
FILES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/methods").glob("test_golden*.py"))


def golden(check: Check) -> None:
    """Run the tests of the cases on the device, a row for each."""
    if find_spec("pytest") is None or find_spec("hypothesis") is None:
        check.row("golden", "left out", why="pytest or hypothesis is not installed")
        return
    cases = CASES[1:2] if check.quick else CASES
    words = [sys.executable, "-m", "pytest", *FILES, "-vv", "-k", " or ".join(cases), "-p", "no:cacheprovider"]
    environment = os.environ | {"CPT_GOLDEN_DEVICE": check.device.type, "COLUMNS": "300", "PYTHONUNBUFFERED": "1"}
    found: set[str] = set()
    with subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        for line in tests.stdout:
            print(line, end="", flush=True)
            name = next((case for case in cases if f"[{case}" in line), "")
            if name and " PASSED" in line:
                found.add(name)
                check.row("golden", name, within="tolerance")
            elif name and (failed := re.match(r"(?:FAILED|ERROR) \S+ - (.*)", line)):
                found.add(name)
                check.row("golden", name, error=failed[1])
    for name in cases:
        if name not in found:
            check.row("golden", name, error="was not tested")
