"""What the machine can do: a large matrix product and a large copy, the best of many.

A busy machine shows its peak only at times, so it is measured again after every line; the best of all counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from benchmarks.rows import Row
from benchmarks.timing import Settings, seconds


def lines(settings: Settings) -> list[Row]:
    """Measure the peak, keep the best in the settings and return its rows."""
    repeats, peak = 3 if settings.quick else 8, settings.peak
    rows = []
    for precision in ["float32", *(["bfloat16"] if torch.cuda.is_available() else [])]:
        device = "cuda" if precision == "bfloat16" else "cpu"
        size = 8192 if device == "cuda" else 512 if settings.quick else 3072
        a, b = (torch.randn(size, size, dtype=getattr(torch, precision), device=device) for _ in range(2))
        out = a @ b
        best = min(seconds(lambda: torch.mm(a, b, out=out), device) for _ in range(repeats))  # noqa: B023
        peak.flops[precision] = max(peak.flops.get(precision, 0.0), 2 * size**3 / best)
        what, speed = f"matrix product, {precision}, {size} x {size}, {device}", peak.flops[precision] / 1e9
        rows.append(Row("peak", what, "GFLOP/s", speed, flops=2.0 * size**3, repeats=repeats, device=device))
    source = torch.randn(2**22 if settings.quick else 2**26)  # larger than any cache
    target = torch.empty_like(source)
    moved = 2.0 * source.numel() * source.element_size()
    best = min(seconds(lambda: target.copy_(source)) for _ in range(repeats))
    peak.bandwidth = max(peak.bandwidth, moved / best)
    rows.append(Row("peak", "copy, read and written", "GB/s", peak.bandwidth / 1e9, bytes=moved, repeats=repeats))
    return rows


def fractions(rows: Sequence[Row], settings: Settings) -> list[Row]:
    """Return the rows with the share of the peak that each line's operations reach; a rate is of one operation each."""
    found = []
    for row in rows:
        if row.flops and row.name != "peak":
            precision = "bfloat16" if row.device == "cuda" else "float32"
            share = settings.peak.fraction(row.flops, row.ours if row.unit == "s" else 1 / row.ours, precision)
            row = dataclasses.replace(row, peak_fraction=share)
        found.append(row)
    return found
