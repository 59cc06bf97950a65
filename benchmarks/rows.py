"""What was measured, one row each: the table for people and the Parquet file for figures."""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from cpt.files.provenance import commit
from cpt.files.stage_files import read_parquet, write_parquet, write_text

SCHEMA = "cpt.benchmarks/2"
PARQUET, MARKDOWN = "bench.parquet", "bench.md"


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        name: the line it belongs to, see ``benchmarks.__main__``.
        what: what was measured.
        unit: of ``ours`` and ``naive``.
        ours: median of our computation.
        naive: median of what it is compared with.
        ratio: how many times better ours is (for evaluation: which share of the bare forward pass), the median over
            pairs of measurements.
        target: the number to reach.
        bounds: what ``target`` bounds: ``ratio`` from below or ``ours`` from above.
        flops, bytes: exact operations, and an upper bound of the memory traffic, of our computation.
        peak_fraction: operations per second over the measured peak of the same precision.
        floor: what ``ours`` cannot get below (``limit`` in the table), where it is not the peak; the note says why.
        peak_memory_mb: of our computation, beyond the loaded model, in MiB.
        repeats: measurements, or pairs of them, behind the medians.
        classes, part: number of classes and part of a step, where there are any.
        note: how it was measured, if not as the line says.
        threads, quick, device, machine, torch, commit: where and with what (``write`` fills them in).
    """

    name: str
    what: str
    unit: str
    ours: float
    naive: float | None = None
    ratio: float | None = None
    target: float | None = None
    bounds: str = "ratio"
    flops: float | None = None
    bytes: float | None = None
    peak_fraction: float | None = None
    floor: float | None = None
    peak_memory_mb: float | None = None
    repeats: int = 1
    classes: int | None = None
    part: str = ""
    note: str = ""
    threads: int = 0
    quick: bool = False
    device: str = "cpu"
    machine: str = ""
    torch: str = ""
    commit: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        if self.target is None:
            return None
        if self.bounds == "ours":
            return self.ours <= self.target
        return self.ratio is not None and self.ratio >= self.target


_TYPES = {"str": pa.string(), "float": pa.float64(), "int": pa.int64(), "bool": pa.bool_()}
COLUMNS = {f.name: _TYPES[str(f.type).removesuffix(" | None")] for f in dataclasses.fields(Row)}
TABLE = pa.schema([*COLUMNS.items(), ("reached", pa.bool_())])


def machine() -> str:
    """Processor, cores, memory and system in one line."""
    processor = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        processor = models[0].partition(":")[2].strip() if models else processor
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = [f"{processor} ({platform.machine()})", f"{os.cpu_count()} cores", f"{memory:.0f} GiB"]
    if torch.cuda.is_available():
        found.append(torch.cuda.get_device_name())
    return ", ".join([*found, f"{platform.system()}, Python {platform.python_version()}"])


def described(rows: Sequence[Row], threads: int, quick: bool) -> list[Row]:
    """Return the rows with where and with what they were measured."""
    state = commit()
    version = f"{state['commit'] or 'none'}{'+changes' if state['dirty'] else ''}"
    common: dict[str, Any] = {"threads": threads, "quick": quick, "machine": machine(), "torch": torch.__version__}
    return [dataclasses.replace(row, commit=version, **common) for row in rows]


def write(rows: Sequence[Row], folder: Path) -> None:
    """Write the Parquet file and the Markdown table."""
    records = [dataclasses.asdict(row) | {"reached": row.reached} for row in rows]
    write_parquet(folder / PARQUET, pa.Table.from_pylist(records, schema=TABLE), SCHEMA)
    write_text(folder / MARKDOWN, markdown(rows))


def read(path: Path) -> list[Row]:
    """Read the rows of a Parquet file."""
    table, _ = read_parquet(path, SCHEMA)
    return [Row(**{name: record[name] for name in COLUMNS}) for record in table.to_pylist()]


HEADER = ("line", "what", "ours", "naive", "unit", "ratio", "target", "", "limit", "of it", "GFLOP", "GB", "n", "note")


def limit(row: Row) -> float | None:
    """What ``ours`` would be at the measured peak, or its floor; None where neither is known."""
    if row.floor is not None:
        return row.floor
    if not row.peak_fraction:
        return None
    return row.ours * row.peak_fraction if row.unit == "s" else row.ours / row.peak_fraction


def cells(row: Row) -> tuple[str, ...]:
    """Write a row of the table."""
    bound = limit(row)
    sign = "≥" if row.bounds == "ratio" else "≤"
    return (
        row.name,
        row.what,
        _number(row.ours),
        _number(row.naive),
        row.unit,
        _number(row.ratio),
        "" if row.target is None else f"{sign} {row.target:g}",
        {None: "", True: "yes", False: "NO"}[row.reached],
        _number(bound),
        "" if bound is None else f"{100 * (bound / row.ours if row.unit == 's' else row.ours / bound):.0f} %",
        _number(None if row.flops is None else row.flops / 1e9),
        _number(None if row.bytes is None else row.bytes / 1e9),
        str(row.repeats),
        row.note,
    )


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


READING = (
    "ours and naive are medians, ratio the median over n pairs measured in turn; limit is what ours would be at the "
    "peak of a matrix product that its own run measured, or what the note says; GB is an upper bound of the memory "
    "traffic."
)


def text(rows: Sequence[Row]) -> str:
    """Write the table in columns, its notes below it."""
    notes = list(dict.fromkeys(row.note for row in rows if row.note))
    marks = [f"[{notes.index(row.note) + 1}]" if row.note else "" for row in rows]
    body = [HEADER, *((*cells(row)[:-1], mark) for row, mark in zip(rows, marks, strict=True))]
    left = {0, 1, 4, 7}
    widths = [max(len(line[i]) for line in body) for i in range(len(HEADER))]
    lines = [
        "  ".join(f"{c:<{w}}" if i in left else f"{c:>{w}}" for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in body
    ]
    below = [f"[{i}] {note}" for i, note in enumerate(notes, 1)]
    return "\n".join(line.rstrip() for line in [lines[0], "-" * len(lines[0]), *lines[1:], "", READING, *below])


def markdown(rows: Sequence[Row]) -> str:
    """Write the table in Markdown, with the machine below it."""
    lines = [HEADER, ("---",) * len(HEADER), *map(cells, rows)]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    with_what = sorted({f"{r.machine}; {r.threads} threads, torch {r.torch}, commit {r.commit}" for r in rows})
    return "\n".join([table, "", READING, "", *(f"Measured on {each}." for each in with_what), ""])
