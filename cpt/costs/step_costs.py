"""What a training step and an evaluated image cost.

Runs whose method, started method and batch size are equal form a group; within it a cost is linear in the number of
classes between the numbers that were looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cpt.experiment.runs import Run
from cpt.methods.base import registry
from cpt.methods.base.hyperparameters import Starting

NAME = 3
"""Tokens of a class name, in measured steps and in the stated model."""
PHOTOGRAPH = (375, 500)
"""Height and width of a training image before it is cropped and resized, in measured steps and in the stated model."""

Points = list[tuple[int, float]]


class Group(NamedTuple):
    """Method, the method that its runs start from (or nothing), and images per step (0: it trains nothing)."""

    method: str
    start: str
    batch_size: int

    @property
    def label(self) -> str:
        """For people."""
        start = f" on {self.start}" if self.start else ""
        return f"{self.method}{start}, {self.batch_size} images a step" if self.batch_size else self.method


@dataclass(frozen=True)
class Cost:
    """Cost of a group by number of classes K.

    Attributes:
        step: (K, seconds of a training step), ascending K; empty if it trains nothing.
        image: (K, seconds of evaluating one image beyond its frozen features).
        peak_memory_mb: largest GPU memory of a job's tensors in MiB; None if unknown.
        busy: (K, seconds of the step in which the GPU is busy); empty if they are not told apart from the step's.
    """

    step: Points
    image: Points
    peak_memory_mb: float | None = None
    busy: Points = field(default_factory=list)


@dataclass(frozen=True)
class Costs:
    """Costs of an experiment's groups.

    Attributes:
        basis: ``measured``, ``stated`` or ``none``.
        text: where the numbers come from, one line.
        assumptions: further lines that a reader needs to judge them.
        groups: cost by group; a group that is missing has no known cost.
        frozen_image: seconds of one frozen image feature; None if unknown.
        card: name of the GPU; empty for a CPU.
        memory: bytes of its memory; None if unknown.
    """

    basis: str
    text: str
    assumptions: list[str] = field(default_factory=list)
    groups: dict[Group, Cost] = field(default_factory=dict)
    frozen_image: float | None = None
    card: str = ""
    memory: float | None = None

    def step(self, run: Run, classes: int) -> float | None:
        """Seconds of a training step of a run with so many classes."""
        return linear(found.step, classes) if (found := self.groups.get(group(run))) else None

    def busy(self, run: Run, classes: int) -> float | None:
        """Seconds of a training step in which the GPU is busy, at most."""
        found = self.groups.get(group(run))
        return linear(found.busy or found.step, classes) if found else None

    def image(self, run: Run, classes: int) -> float | None:
        """Seconds of evaluating one image of a run against so many classes."""
        return linear(found.image, classes) if (found := self.groups.get(group(run))) else None


def group(run: Run) -> Group:
    """Return the group of a run."""
    hp: Any = run.hyperparameters
    trains = registry.get(run.method).trains
    return Group(run.method, hp.start if isinstance(hp, Starting) else "", hp.batch_size if trains else 0)


def linear(points: Sequence[tuple[int, float]], x: float) -> float:
    """Interpolate between points (x, y) of ascending x, continue the last pieces outside; no point is 0, one itself."""
    if len(points) < 2:
        return points[0][1] if points else 0.0
    i = next((i for i in range(1, len(points) - 1) if x <= points[i][0]), len(points) - 1)
    (a, left), (b, right) = points[i - 1], points[i]
    return max(left + (right - left) * (x - a) / (b - a), 0.0)


def typical(runs: Mapping[str, Run], classes: Mapping[str, int], count: int) -> dict[Group, list[tuple[int, Run]]]:
    """Choose the runs by which groups are judged, at up to ``count`` numbers of classes from smallest to largest.

    Args:
        classes: trained classes by run; a run without is left out.

    Returns:
        (K, run) by ascending K; the run has the hyperparameters that most runs with this K have.
    """
    by_group: dict[Group, dict[int, list[Run]]] = {}
    for name, run in runs.items():
        if name in classes:
            by_group.setdefault(group(run), {}).setdefault(classes[name], []).append(run)
    chosen: dict[Group, list[tuple[int, Run]]] = {}
    for key, members in sorted(by_group.items()):
        numbers = sorted(members)
        places = sorted({round(i * (len(numbers) - 1) / max(count - 1, 1)) for i in range(count)})
        chosen[key] = [(numbers[place], _most_common(members[numbers[place]])) for place in places]
    return chosen


def _most_common(runs: list[Run]) -> Run:
    keys = [run.key for run in runs]
    counts = Counter(keys)
    return min(zip(keys, runs, strict=True), key=lambda pair: (-counts[pair[0]], pair[0]))[1]
