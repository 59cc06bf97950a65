"""Step costs of a GPU that is not there: ``cpt.costs.gpu_model`` for what each method encodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cpt.clip.tiny import EMBEDDED
from cpt.costs import gpu_model
from cpt.costs.gpu_model import CARDS, Gpu, Pass
from cpt.costs.host_model import AUGMENT
from cpt.costs.step_costs import Cost, Costs, Group, Points, typical
from cpt.errors import CptError
from cpt.experiment.grid import Grid
from cpt.experiment.runs import Run
from cpt.files.stage_files import canonical_json, parse_json
from cpt.methods.base import describe, registry

LOOKED_AT = 5
"""Numbers of classes at which a group is judged."""
TESTED = 256
"""Images of a batch of an evaluation on a GPU."""
PROMPTS = 1024
"""Texts of a pass of an evaluation whose classifier depends on the image."""


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
    whole = text.get("no_causal_mask") or text.get("pool_type", "argmax") not in ("argmax", "eos")
    if whole or not all(isinstance(size, int) for size in sizes):
        return None
    joint, image, patch, *rest = sizes
    return Shape(joint, image, patch, (rest[0], rest[1]), (rest[2], rest[3]))


@dataclass(frozen=True)
class Encoded:
    """What goes through the towers.

    Attributes:
        step: of a training step, if nothing is cached.
        cached: the part of it that cached features save.
        drawn: of every step before it, on whose results the host waits.
        late: images that are drawn for a step only when it begins.
    """

    step: list[Pass]
    cached: list[Pass]
    drawn: list[Pass]
    late: int


def stated(grid: Grid, classes: Mapping[str, int], device: str, precision: str = "auto", card: str = "h100") -> Costs:
    """Return a card's costs by the model; none where it says nothing.

    Args:
        classes: trained classes by run.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: of the frozen towers, or ``auto``.
        card: a key of ``CARDS``.
    """
    sizes = None if grid.config.backbone.architecture == EMBEDDED else shape(grid)
    if sizes is None:
        return Costs("none", f"not modeled for {grid.config.backbone.architecture}; use --measure")
    if device == "cpu":
        return Costs("none", "not stated for a CPU; time steps on this one: the same `cpt plan` with --measure")
    gpu, graphs = Gpu(CARDS[card], 4 if precision == "float32" else 2), grid.config.cuda_graphs == "auto"
    groups = {
        key: _stated_group(grid, key, members, gpu, sizes)
        for key, members in typical(grid.runs, classes, LOOKED_AT).items()
    }
    title = gpu.card.title
    launched = "replayed as a CUDA graph" if graphs else f"launched in {1e6 * gpu_model.HOST:g} us an operator"
    assumptions = [
        f"A model, not a measurement (--measure measures): {title}, {8 * gpu.value} bits, steps {launched}, "
        f"{100 * gpu_model.REACHED:g} % of the peaks, at least {1e6 * gpu_model.FLOOR:g} us a kernel; see "
        "docs/performance.md.",
    ]
    where = f"modeled for one {title}; --card takes another, --measure times your own"
    frozen = gpu.eager(_images(TESTED, sizes, backward=False)) / TESTED
    return Costs("stated", where, assumptions, groups, frozen, title, gpu.card.memory)


def encoded(method: str, hyperparameters: Any, classes: int, batch_size: int, sizes: Shape) -> Encoded:
    """Return what a method sends through the towers; counted on a small CLIP."""
    few = min(classes, max(describe.CLASSES, 8 * batch_size))
    found = _counted(method, canonical_json(hyperparameters.model_dump()), few, batch_size)
    contexts = max(1, round(found["texts"] / few))
    per_class = method in gpu_model.PER_CLASS
    step = [gpu_model.texts(classes, contexts, *sizes.text, per_class=per_class)]
    step += [_images(int(found["images"]), sizes)] if found["images"] else []
    frozen = [_images(int(found["frozen_images"]), sizes, backward=False)] if found["frozen_images"] else []
    late = max(int(found["images"]) - batch_size, 0)
    if late:  # it encodes a batch to choose them
        return Encoded(step, [], frozen, late)
    return Encoded([*step, *frozen], frozen, [], 0)


@cache
def _counted(method: str, hyperparameters: str, classes: int, batch_size: int) -> dict[str, float]:
    """What a step encodes, of so few classes that more would change the number of texts alone."""
    hp = registry.get(method).hyperparameters(**parse_json(hyperparameters))
    return describe.encoded(method, hp, classes, batch_size)


def step_seconds(gpu: Gpu, method: str, work: Encoded, *, graphs: bool, cached: bool) -> float:
    """Return the seconds of a step on a GPU; ``cached``: frozen features are."""
    passes = [tokens for tokens in work.step if not (cached and tokens in work.cached)]
    saved = sum(tokens.kernels for tokens in work.step) - sum(tokens.kernels for tokens in passes)
    operators = gpu_model.operators(method, work.step) - saved
    return gpu.step(operators, passes, graphs=graphs, drawn=[] if cached else work.drawn)


def _images(count: int, sizes: Shape, *, backward: bool = True) -> Pass:
    positions = 1 + (sizes.image // sizes.patch) ** 2 + (gpu_model.PREFIX - 1)
    return gpu_model.images(count, positions, *sizes.vision, backward=backward)


def _stated_group(grid: Grid, key: Group, members: list[tuple[int, Run]], gpu: Gpu, sizes: Shape) -> Cost:
    kind, config = registry.get(key.method), grid.config
    augmentation = kind.training_augmentation(config.augmentation)
    graphs = config.cuda_graphs == "auto"
    step: Points = []
    busy: Points = []
    seen: Points = []
    memory = 0.0
    for count, run in members:
        work = Encoded([], [], [], 0)
        if kind.trains:
            work = encoded(run.method, run.hyperparameters, count, key.batch_size, sizes)
            cached = grid.trains_on_frozen(run)
            busy.append((count, step_seconds(gpu, run.method, work, graphs=graphs, cached=cached)))
            image = AUGMENT[augmentation] / config.threads
            step.append((count, max(busy[-1][1] + work.late * image, key.batch_size * kind.views * image)))
        tested = _tested(run, count, sizes) if kind.image_conditioned or not seen else []
        if tested or not seen:
            images = max(1, PROMPTS // count) if kind.image_conditioned else TESTED
            seen.append((count, sum(map(gpu.eager, tested)) / images))
        memory = max(memory, gpu.memory((sizes.text, sizes.vision), work.step, tested))
    return Cost(step, seen, memory / 2**20, busy)


def _tested(run: Run, count: int, sizes: Shape) -> list[Pass]:
    """What goes through the towers for a batch of test images, beyond their frozen features."""
    found = describe.encoded_per_image(run.method, run.hyperparameters, min(count, describe.CLASSES))
    if found["frozen_texts"]:
        return [gpu_model.texts(count, max(1, PROMPTS // count), *sizes.text, backward=False)]
    return [_images(TESTED, sizes, backward=False)] * int(found["frozen_images"])
