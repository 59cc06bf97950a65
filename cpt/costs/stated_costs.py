"""Step costs from floating-point operations and an assumed throughput."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from cpt.costs.step_costs import EMBEDDED, NAME, Cost, Costs, Group, Points, typical
from cpt.errors import CptError
from cpt.experiment.grid import Grid
from cpt.experiment.runs import Run
from cpt.files.stage_files import parse_json
from cpt.methods.base import describe, registry

OVERHEAD, THROUGHPUT = 0.025, 60e12
"""The stated model: seconds of launching a step, FLOP/s. They stand for an NVIDIA A100-class GPU; none was measured."""


class Shape(NamedTuple):
    """Sizes of an architecture: joint width, image side and patch side in pixels, (width, layers) of both towers."""

    joint: int
    image: int
    patch: int
    text: tuple[int, int]
    vision: tuple[int, int]


def shape(grid: Grid) -> Shape | None:
    """Return the sizes of the experiment's architecture; None where open_clip does not describe it as two plain ViTs.

    Raises:
        CptError: open_clip has no such model, or its configuration cannot be read.
    """
    architecture = grid.config.backbone.architecture
    described: dict[str, Any] | None
    if architecture == EMBEDDED:
        from cpt.clip import tiny

        described = tiny.configuration(0)
    elif architecture.endswith(".json"):  # a configuration file of open_clip; `cpt backbone` checks it
        try:
            described = parse_json(Path(architecture).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CptError(f"backbone.architecture: {architecture}: cannot be read ({error}); fix the path") from None
        if isinstance(described, dict):
            described = described.get("model_cfg", described)
    else:
        import open_clip

        described = open_clip.get_model_config(architecture)
    if not isinstance(described, dict):
        raise CptError(f"backbone.architecture: open_clip has no model {architecture!r}; see open_clip.list_models()")
    text, vision = described.get("text_cfg", {}), described.get("vision_cfg", {})
    sizes = [described.get("embed_dim"), vision.get("image_size"), vision.get("patch_size"), text.get("width"),
             text.get("layers"), vision.get("width"), vision.get("layers")]  # fmt: skip
    if not all(isinstance(size, int) for size in sizes):
        return None
    joint, image, patch, *rest = sizes
    return Shape(joint, image, patch, (rest[0], rest[1]), (rest[2], rest[3]))


def stated(grid: Grid, classes: Mapping[str, int], device: str) -> Costs:
    """Return costs from floating-point operations and a GPU's assumed throughput; none where these say nothing.

    ``classes`` are the trained ones by run, ``device`` is ``auto``, ``cpu`` or ``cuda``.
    """
    sizes = None if grid.config.backbone.architecture == EMBEDDED else shape(grid)
    if sizes is None:
        return Costs("none", f"not modeled for {grid.config.backbone.architecture}; use --measure")
    if device == "cpu":
        return Costs("none", "not stated for a CPU; time steps on this one: the same `cpt plan` with --measure")
    own = NAME + 2  # its name, the full stop and the end token; what stands before them is shared
    positions = 1 + (sizes.image // sizes.patch) ** 2 + 4
    text, image = _forward(own, *sizes.text), _forward(positions, *sizes.vision)
    groups = {
        key: _stated_group(grid, key, members, text, image) for key, members in typical(grid.runs, classes, 3).items()
    }
    assumptions = [
        f"Assumed of an NVIDIA A100-class GPU: a step takes {1000 * OVERHEAD:g} ms + FLOPs / "
        f"{THROUGHPUT / 1e12:g} TFLOP/s, an evaluated image FLOPs / {THROUGHPUT / 1e12:g} TFLOP/s.",
        f"FLOPs: {text / 1e9:.2f} G a text ({own} positions of its own, a name of {NAME} tokens) and {image / 1e9:.1f} "
        f"G an image ({positions} positions) forward, as much again backward where gradients pass; losses and updates "
        "are not counted.",
    ]
    where = "stated for an A100-class GPU; --measure for yours"
    return Costs("stated", where, assumptions, groups, image / THROUGHPUT)


def _forward(positions: int, width: int, layers: int) -> float:
    """FLOPs of positions through a tower: four projections, the MLP, and attention among the positions."""
    return positions * layers * (24 * width**2 + 4 * positions * width)


def _stated_group(grid: Grid, key: Group, members: list[tuple[int, Run]], text: float, image: float) -> Cost:
    kind = registry.get(key.method)
    step: Points = []
    for count, run in members if kind.trains else []:
        encoded = describe.encoded(run.method, run.hyperparameters, count, key.batch_size)
        if any(part == "train" for _, part in grid.frozen_image_parts(run)):
            encoded["frozen_images"] = 0
        flops = text * (2 * encoded["texts"] + encoded["frozen_texts"])
        flops += image * (2 * encoded["images"] + encoded["frozen_images"])
        step.append((count, OVERHEAD + flops / THROUGHPUT))
    seen: Points = []
    for count, run in members if kind.image_conditioned else members[:1]:
        encoded = describe.encoded_per_image(run.method, run.hyperparameters, count)
        flops = text * encoded["frozen_texts"] + image * encoded["frozen_images"]
        seen.append((count, flops / THROUGHPUT))
    return Cost(step, seen)
