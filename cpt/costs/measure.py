"""What a training step and an evaluated image cost: measured on this machine, or by a stated model.

Runs whose method, started method and batch size are equal form a group; within it a cost is linear in the number of
classes between the numbers that were looked at.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional as F

from cpt.clip.backbone import SCHEMA as BACKBONE
from cpt.clip.backbone import Clip, load_backbone
from cpt.clip.device import device_name, peak_memory_mb, prepare_device
from cpt.data.images import ImageStore, normalize
from cpt.data.split import Split
from cpt.errors import CptError
from cpt.experiment.grid import Grid
from cpt.experiment.runs import Run
from cpt.features.images import batch_size
from cpt.features.text import Classes
from cpt.files.stage_files import parse_json, read_json, write_json
from cpt.methods.base import describe, registry
from cpt.methods.base.hyperparameters import Continued
from cpt.methods.base.method import Batch, Method, TrainingSet
from cpt.seeds import torch_stream
from cpt.training.batches import Batches
from cpt.training.checkpoint import CheckpointFile
from cpt.training.loop import Loop

SCHEMA = "cpt.step-costs/1"
EMBEDDED = "embedded"
WARM_UP, TIMED = 2, 5
"""Steps before the clock starts, and steps whose median counts."""
NAME = 3
"""Tokens of a class name, in measured steps and in the stated model."""
PHOTOGRAPH = (375, 500)
"""Height and width of the noise images that a measured step crops and resizes."""
PROMPTS = 1024
"""Texts of a measured evaluation whose classifier depends on the image."""
OVERHEAD, THROUGHPUT = 0.025, 60e12
"""The stated model: seconds of launching a step, FLOP/s. They stand for an NVIDIA A100-class GPU; none was measured."""

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
        peak_memory_mb: largest GPU memory in MiB; None if unknown.
    """

    step: Points
    image: Points
    peak_memory_mb: float | None = None


@dataclass(frozen=True)
class Costs:
    """Costs of an experiment's groups.

    Attributes:
        basis: ``measured``, ``stated`` or ``none``.
        text: where the numbers come from, one line.
        assumptions: further lines that a reader needs to judge them.
        groups: cost by group; a group that is missing has no known cost.
        frozen_image: seconds of one frozen image feature; None if unknown.
    """

    basis: str
    text: str
    assumptions: list[str] = field(default_factory=list)
    groups: dict[Group, Cost] = field(default_factory=dict)
    frozen_image: float | None = None

    def step(self, run: Run, classes: int) -> float | None:
        """Seconds of a training step of a run with so many classes."""
        found = self.groups.get(group(run))
        return None if found is None else linear(found.step, classes)

    def image(self, run: Run, classes: int) -> float | None:
        """Seconds of evaluating one image of a run against so many classes."""
        found = self.groups.get(group(run))
        return None if found is None else linear(found.image, classes)


class Shape(NamedTuple):
    """Sizes of an architecture: joint width, image side and patch side in pixels, (width, layers) of both towers."""

    joint: int
    image: int
    patch: int
    text: tuple[int, int]
    vision: tuple[int, int]


def group(run: Run) -> Group:
    """Return the group of a run."""
    hp: Any = run.hyperparameters
    trains = registry.get(run.method).trains
    return Group(run.method, hp.start if isinstance(hp, Continued) else "", hp.batch_size if trains else 0)


def linear(points: Sequence[tuple[int, float]], x: float) -> float:
    """Interpolate between the neighboring points, continue the last pieces outside; nothing has 0, one point itself.

    Args:
        points: (x, y) by ascending x.
    """
    if len(points) < 2:
        return points[0][1] if points else 0.0
    i = next((i for i in range(1, len(points) - 1) if x <= points[i][0]), len(points) - 1)
    (a, left), (b, right) = points[i - 1], points[i]
    return max(left + (right - left) * (x - a) / (b - a), 0.0)


def typical(runs: Mapping[str, Run], classes: Mapping[str, int], count: int) -> dict[Group, list[tuple[int, Run]]]:
    """Choose the runs by which groups are judged.

    Args:
        runs: all runs by their identity.
        classes: trained classes by run; a run without is left out.
        count: at most so many numbers of classes per group, from the smallest to the largest.

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


# Measuring


def measure(
    grid: Grid,
    classes: Mapping[str, int],
    path: Path,
    device: str,
    precision: str,
    log: Callable[[str], None] = print,
) -> Costs:
    """Time steps of every group at its smallest and largest number of classes, and write them to ``path``.

    A step is one of ``cpt.training.loop.Loop`` on images of noise, with the experiment's backbone, augmentation and
    threads.

    Args:
        classes: trained classes by run.
        path: file to write.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: of the frozen towers, or ``auto``.
        log: takes a line per measurement.

    Raises:
        CptError: the device is absent, or the architecture cannot be made.
    """
    config = grid.config
    place, resolved = prepare_device(device, precision, config.threads)
    with _backbone(grid) as file:
        clip = load_backbone(file, place, resolved)
    groups = {}
    for key, members in typical(grid.runs, classes, 2).items():
        if cost := _measured_group(grid, clip, key, members, log):
            groups[key] = cost
    frozen = _per_image(lambda: clip.vision(_images(clip)), batch_size(clip), place)
    log(f"frozen image features: {1 / frozen:,.0f} images/s")
    write_json(
        path,
        {
            "schema": SCHEMA,
            "architecture": config.backbone.architecture,
            "augmentation": config.augmentation,
            "device": place.type,
            "device_name": device_name(place),
            "precision": resolved,
            "asked_precision": precision,
            "threads": config.threads,
            "frozen_image": frozen,
            "groups": [
                {**key._asdict(), "step": cost.step, "image": cost.image, "peak_memory_mb": cost.peak_memory_mb}
                for key, cost in groups.items()
            ],
        },
    )
    found = read_measured(grid, path, device, precision)
    assert found is not None
    return found


def read_measured(grid: Grid, path: Path, device: str, precision: str) -> Costs | None:
    """Return what was measured for this experiment; None where there is no file or it does not fit.

    It fits the same architecture, augmentation and precision on the same device. Where ``device`` leaves a GPU open
    and this machine has none (a login node), a file from any GPU fits. On a CPU the number of threads counts too.
    """
    if not path.is_file():
        return None
    record = read_json(path, SCHEMA)
    config = grid.config
    here = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    fits = (
        record["architecture"] == config.backbone.architecture
        and record["augmentation"] == config.augmentation
        and device in ("auto", record["device"])
        and precision in (record["asked_precision"], record["precision"])
        and (here is None or device == "cpu" or record["device_name"] == here)
        and (record["device"] == "cuda" or record["threads"] == config.threads)
    )
    if not fits:
        return None
    groups = {
        Group(item["method"], item["start"], item["batch_size"]): Cost(
            [(k, s) for k, s in item["step"]], [(k, s) for k, s in item["image"]], item["peak_memory_mb"]
        )
        for item in record["groups"]
    }
    size = " of {1} x {0} pixels, cropped and resized".format(*PHOTOGRAPH) if config.augmentation != "none" else ""
    noise = f"decoded images of noise{size}"
    threads = "" if record["device"] == "cuda" else f" with {record['threads']} thread(s)"
    return Costs(
        "measured",
        f"measured on {record['device_name']}{threads}, {record['precision']}",
        [f"Measured by --measure ({path}): training steps on {noise}."],
        groups,
        record["frozen_image"],
    )


@contextmanager
def _backbone(grid: Grid) -> Iterator[Path]:
    """The experiment's backbone.json, or one of the same architecture: values change no time."""
    chosen, own = grid.config.backbone, Path(grid.root, "backbone.json")
    if own.is_file() and read_json(own, BACKBONE)["architecture"] == chosen.architecture:
        yield own
        return
    from cpt.clip.make_backbone import make_backbone

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "backbone.json")
        pretrained = chosen.pretrained if chosen.architecture == EMBEDDED else "random"
        make_backbone(chosen.name, chosen.architecture, pretrained, path)
        yield path


def _measured_group(
    grid: Grid, clip: Clip, key: Group, members: list[tuple[int, Run]], log: Callable[[str], None]
) -> Cost | None:
    """Cost of a group; None when the GPU's memory does not hold it."""
    kind, cuda = registry.get(key.method), clip.device.type == "cuda"
    step: Points = []
    image: Points = []
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(clip.device)
    try:
        for count, run in members:
            classes = _classes(clip, count)
            method = kind(clip, run.hyperparameters, classes, torch_stream(0, "initial prompts")).to(clip.device)
            if kind.image_conditioned or not image:
                image.append((count, _evaluation(method, classes)))
            if kind.trains:
                step.append((count, _step(grid, run, method, classes)))
                log(f"{key.label}, {count} classes: {1000 * step[-1][1]:.1f} ms per step")
    except torch.cuda.OutOfMemoryError:
        log(f"{key.label}, {count} classes: does not fit the memory of {device_name(clip.device)}")
        return None
    return Cost(step, image, round(peak_memory_mb(clip.device), 1) if cuda else None)


def _step(grid: Grid, run: Run, method: Method, classes: Classes) -> float:
    """Median seconds of a training step."""
    clip, kind, count = method.clip, type(method), len(classes)
    hp: Any = run.hyperparameters
    chosen = grid.config.augmentation
    augmentation = chosen if chosen == "none" else kind.augmentation or chosen
    size = max(2 * count, (WARM_UP + TIMED) * hp.batch_size)
    labels = np.arange(size) % count
    each = np.bincount(labels)
    split = Split(np.arange(size), labels, np.arange(count), each, list(classes.names), [], {})
    cached = any(part == "train" for _, part in grid.frozen_image_parts(run))
    features = torch.randn(size, clip.embed_dim) if cached else None
    store = None if cached and not kind.prompts_images else _Noise(clip.image_size[0])
    batches = _Timed(clip, split, store, features, augmentation, hp.batch_size, 0, grid.config.threads, kind.views)
    training_set = TrainingSet(
        classes,
        torch.tensor(each, dtype=torch.float32, device=clip.device),
        clusters=(torch.arange(count) % max(1, round(count / 16))).to(clip.device) if kind.needs_clusters else None,
        descriptions=classes.directions.expand(8, -1, -1) if kind.needs_descriptions else None,
        labels=torch.tensor(labels),
    )
    method.train()
    method.hp = hp.model_copy(update={"epochs": 1, "snapshots": False})
    Loop(method, training_set, batches, CheckpointFile(None, "", 0), lambda _: None).run()
    return statistics.median(batches.seconds[WARM_UP:])


@torch.no_grad()
def _evaluation(method: Method, classes: Classes) -> float:
    """Seconds of one image beyond its frozen feature."""
    clip = method.eval().clip
    if method.image_conditioned:
        images = max(1, PROMPTS // len(classes))
        features = F.normalize(torch.randn(images, clip.embed_dim), dim=-1).to(clip.device)
        return _per_image(lambda: method.class_logits(features, classes), images, clip.device)
    if not method.prompts_images:
        return 0.0
    return _per_image(lambda: method.image_features(_images(clip)), batch_size(clip), clip.device)


@torch.no_grad()
def _per_image(work: Callable[[], Any], images: int, device: torch.device) -> float:
    """Seconds per image, the faster of two passes."""
    seconds = []
    for _ in range(2):
        started = _now(device)
        work()
        seconds.append(_now(device) - started)
    return min(seconds) / images


def _images(clip: Clip) -> torch.Tensor:
    """A batch of an evaluation: pixels that go to the device and are normalized there."""
    pixels = _Noise(clip.image_size[0]).pixels(np.zeros(batch_size(clip)))
    return normalize(torch.from_numpy(pixels).to(clip.device), clip.mean, clip.std)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class _Noise(ImageStore):
    """Decoded images of noise: every row is the same photograph."""

    def __init__(self, size: int) -> None:
        self.size = size
        noise = np.random.default_rng(0)
        self._photograph = noise.integers(0, 256, (*PHOTOGRAPH, 3), dtype=np.uint8)
        self._cropped = noise.integers(0, 256, (size, size, 3), dtype=np.uint8)

    def image(self, row: int) -> NDArray[np.uint8]:
        """The photograph (H, W, 3)."""
        return self._photograph

    def load(self, rows: ArrayLike, workers: int) -> None:
        """Nothing: it is decoded."""

    def pixels(self, rows: ArrayLike) -> NDArray[np.uint8]:
        """As many copies (B, size, size, 3) of its crop."""
        return np.repeat(self._cropped[None], len(np.asarray(rows)), axis=0)


class _Timed(Batches):
    """The first few batches of an epoch, with the seconds from asking for each to its step's end."""

    def __init__(self, *inputs: Any) -> None:
        super().__init__(*inputs)
        self.seconds: list[float] = []

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches."""
        started = _now(self.clip.device)
        for batch in islice(super().epoch(epoch, first), WARM_UP + TIMED):
            yield batch
            ended = _now(self.clip.device)
            self.seconds.append(ended - started)
            started = ended


def _classes(clip: Clip, count: int) -> Classes:
    """Classes of ``NAME`` random tokens each behind ``a photo of a``, with random features."""
    phrase, vocabulary = 4, len(clip.text.token_embedding_weight)
    stream = torch.Generator().manual_seed(0)
    tokens = torch.zeros(count, clip.text.context_length, dtype=torch.long)
    tokens[:, : 1 + phrase] = torch.tensor([vocabulary - 2, *range(1, 1 + phrase)])
    names = torch.randint(1, vocabulary - 2, (count, NAME), generator=stream)
    names[:, 0] = 1 + torch.arange(count) % (vocabulary - 3)  # no two begin alike: the shared prefix ends there
    tokens[:, 1 + phrase : 1 + phrase + NAME] = names
    tokens[:, 1 + phrase + NAME] = 1  # the full stop
    tokens[:, 2 + phrase + NAME] = vocabulary - 1
    frozen = torch.randn(count, clip.embed_dim, generator=stream).to(clip.device)
    titles = tuple(f"class {i}" for i in range(count))
    lengths = torch.full((count,), NAME)
    return Classes(titles, tokens, phrase, frozen, F.normalize(frozen, dim=-1), tokens, lengths)


# The stated model


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
            raise CptError(f"backbone.architecture: {architecture}: cannot be read ({error}); mend the path") from None
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


def stated(grid: Grid, classes: Mapping[str, int]) -> Costs:
    """Return costs from floating-point operations and an assumed throughput; none for what that makes no sense for.

    Args:
        classes: trained classes by run.
    """
    sizes = None if grid.config.backbone.architecture == EMBEDDED else shape(grid)
    if sizes is None:
        return Costs("none", f"not modeled for {grid.config.backbone.architecture}; use --measure")
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
    text_line = "stated for an A100-class GPU; --measure for yours"
    return Costs("stated", text_line, assumptions, groups, image / THROUGHPUT)


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
