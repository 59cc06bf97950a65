"""Measure everything that docs/performance.md speaks of, always against the naive way in the same run.

``python -m benchmarks`` prints a table and writes bench.parquet and bench.md. Lines:

peak          matrix product and copy: what the machine can do
text          text tower of ViT-B/16, forward and backward, K=500
step          a training step with 4 images at K=500, 50, 5, and its parts
memory        peak memory of that step
evaluation    prediction against a bare forward pass
augmentation  training images against torchvision's, decoded for every view
cache         reading the image cache against decoding
embedded      a training step of the tiny CLIP
startup       a job until its first step
dag           a dry run of the paper's grid
cuda          steps in half precision on a GPU, where there is one
whole         the embedded experiment in a fresh copy (only with --whole, or named in --only)
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from benchmarks import compute, embedded, images, jobs, memory, peak, rows
from benchmarks.rows import Row
from benchmarks.timing import Settings
from cpt.clip.device import prepare_device

LINES: dict[str, Callable[[Settings], list[Row]]] = {
    "peak": peak.lines,
    "text": compute.text_lines,
    "step": compute.step_lines,
    "memory": memory.lines,
    "evaluation": images.evaluation_lines,
    "augmentation": images.augmentation_lines,
    "cache": images.cache_lines,
    "embedded": embedded.lines,
    "startup": jobs.startup_lines,
    "dag": jobs.dag_lines,
    "cuda": compute.cuda_lines,
    "whole": jobs.whole_lines,
}


def main(words: list[str] | None = None) -> int:
    """Measure, print and write; return 1 if a line could not be measured."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, two repeats: does it work?")
    parser.add_argument(
        "--only", nargs="+", choices=LINES, metavar="NAME", help="these lines; the file keeps others of as many threads"
    )
    parser.add_argument("--whole", action="store_true", help="run the embedded experiment too")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--repeats", type=int, help="pairs of measurements (5; 2 with --quick)")
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks"), help="folder of the results")
    given = parser.parse_args(words)
    names = given.only or [name for name in LINES if name != "whole" or given.whole]
    repeats = given.repeats or (2 if given.quick else 5)
    os.environ.pop("CPT_FORK_SERVER", None)
    prepare_device("cpu", "float32", given.threads)  # as jobs compute
    old = rows.read(given.output / rows.PARQUET) if given.only and (given.output / rows.PARQUET).is_file() else []
    old = [row for row in old if (row.quick, row.threads) == (given.quick, given.threads)]
    kept = {name: [row for row in old if row.name == name] for name in LINES}
    found: dict[str, list[Row]] = {}
    failed = []
    with tempfile.TemporaryDirectory(prefix="cpt-bench-") as folder:
        settings = Settings(given.quick, given.threads, repeats, Path(folder))
        for name in ["peak", *(name for name in LINES if name in names and name != "peak")]:  # all need the peak
            print(f"{name} ...", flush=True)
            began = time.monotonic()
            try:
                found[name] = rows.described(LINES[name](settings), given.threads, given.quick)
            except Exception:  # the other lines took minutes and are not lost for it
                traceback.print_exc()
                failed.append(name)
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
            if name != "peak":
                found["peak"] = rows.described(peak.lines(settings), given.threads, given.quick)
            found = {each: peak.fractions(measured, settings) for each, measured in found.items()}
            rows.write([row for each in LINES for row in found.get(each, kept[each])], given.output)
    everything = rows.read(given.output / rows.PARQUET)
    print(f"\n{rows.text(everything)}\n\n{everything[0].machine}; {given.threads} threads")
    print(f"wrote {given.output / rows.PARQUET} and {rows.MARKDOWN}")
    if failed:
        print(f"could not be measured: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
