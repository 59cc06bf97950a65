"""What the parts of the GPU check share: rows, time, towers and steps."""

from __future__ import annotations

import json
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.loops import TRAINED, Steps
from benchmarks.problem import make_problem
from cpt.clip.backbone import Clip
from cpt.files.stage_files import write_text
from cpt.methods.base.sizes import placeholder_classes, small_clip
from cpt.training.graphs import CudaRecorder

ROOT = Path(__file__).resolve().parents[2]
"""The project's folder."""
PRECISION = torch.float16
"""What trains the paper's grid on a GPU."""
BATCH = 4
RUNS = 3
"""Runs of calls that are timed; their median counts."""


@dataclass
class Check:
    """Where rows go, and what is measured on.

    Attributes:
        device: ``cuda``, or ``cpu`` to check that the parts work.
        quick: small sizes.
        out: JSON file of all rows; a part adds to those of earlier ones.
    """

    device: torch.device
    quick: bool
    out: Path

    @property
    def cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.device.type == "cuda"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows so far."""
        return json.loads(self.out.read_text()) if self.out.is_file() else []

    def row(self, part: str, what: str, **values: Any) -> None:
        """Print a row and write all rows so far."""
        row = {"part": part, "what": what, **values}
        print(json.dumps(row), flush=True)
        write_text(self.out, json.dumps([*self.rows, row], indent=1) + "\n")

    @contextmanager
    def tried(self, part: str, what: str, **values: Any) -> Iterator[None]:
        """A block whose failure is a row."""
        try:
            yield
        except Exception as error:  # the other rows are worth having
            traceback.print_exc()
            self.row(part, what, **values, error=str(error).splitlines()[0][:200] if str(error) else repr(error))

    def wait(self) -> None:
        """Wait for the device."""
        if self.cuda:
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], Any], repeats: int = 10, warm_up: int = 5) -> float:
        """Seconds of a call, from runs of calls without a wait between them; on a GPU by its own clock."""
        repeats, warm_up, runs = (repeats, warm_up, RUNS) if self.cuda else (1, 1, 1)
        for _ in range(warm_up):
            call()
        return statistics.median(self._run(call, repeats) for _ in range(runs)) / repeats

    def _run(self, call: Callable[[], Any], repeats: int) -> float:
        if not self.cuda:
            began = time.perf_counter()
            for _ in range(repeats):
                call()
            return time.perf_counter() - began
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.wait()
        begin.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000

    def methods(self) -> list[str]:
        """All methods, or a few that differ in what they launch and choose."""
        return ["coop", "lamp", "dpc"] if self.quick else TRAINED

    def clip(self, dtype: torch.dtype = PRECISION, device: torch.device | None = None, *, small: bool = False) -> Clip:
        """Towers of random weights: ViT-B/16, or with ``small`` or ``--quick`` the small CLIP of twelve blocks."""
        place = device or self.device
        if not (small or self.quick):
            return make_problem(quick=False, device=str(place), dtype=dtype).clip
        made = small_clip()
        return replace(made, text=made.text.to(place, dtype), vision=made.vision.to(place, dtype), device=place)

    def steps(
        self, name: str, clip: Clip, count: int, *, graph: bool = False, log: Callable[[str], None] = print
    ) -> Steps:
        """A method's loop; ``graph``: its steps are captured."""
        classes = placeholder_classes(clip, count, 2)
        return Steps(name, clip, classes, BATCH, CudaRecorder() if graph else None, log)
