"""Part ``machine``: versions, matrix products, and the price of a launch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.gpu.check import PRECISION, Check
from cpt.files.provenance import commit
from cpt.training.graphs import CudaRecorder

LINEAR = ((820, 768, 2304), (820, 768, 3072), (820, 3072, 768), (505, 512, 2048), (2505, 512, 2048), (5005, 512, 2048))
"""Rows, inputs and outputs of the towers' linear layers: 4 images, and 100, 500 and 1000 classes."""


def machine(check: Check) -> None:
    """Measure it."""
    versions: dict[str, Any] = {"torch": torch.__version__, "python": sys.version.split()[0], **commit()}
    if check.cuda:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
        versions |= {"gpu": torch.cuda.get_device_name(), "driver": driver, "cuda": torch.version.cuda}
    check.row("machine", "versions", **versions)
    side = 256 if check.quick else 8192
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        square = torch.randn(side, side, device=check.device, dtype=dtype)
        took = check.seconds(lambda: square @ square)  # noqa: B023 - called at once
        check.row("machine", f"matrix product {dtype}", tflops=2 * side**3 / took / 1e12)
    for rows, inputs, outputs in LINEAR[: 1 if check.quick else None]:
        x, weight = (torch.randn(n, inputs, device=check.device, dtype=PRECISION) for n in (rows, outputs))
        took = check.seconds(lambda: F.linear(x, weight), 100)  # noqa: B023
        check.row("machine", f"linear {rows} x {inputs} x {outputs}", us=1e6 * took)
    tiny = torch.zeros(64, device=check.device)

    def thousand() -> None:
        for _ in range(1000):
            tiny.add_(1)

    check.row("machine", "launch, eager", us=1e3 * check.seconds(thousand))
    if check.cuda:
        replay = CudaRecorder()(thousand)
        check.row("machine", "launch, in a graph", us=1e3 * check.seconds(replay))
