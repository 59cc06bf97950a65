"""Step costs that are measured on this machine."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional as F

from cpt.clip.backbone import SCHEMA as BACKBONE
from cpt.clip.backbone import Clip, load_backbone
from cpt.clip.device import device_name, peak_memory_mb, prepare_device
from cpt.clip.tiny import EMBEDDED
from cpt.costs.step_costs import NAME, PHOTOGRAPH, Cost, Costs, Group, Points, typical
from cpt.data.images import ImageStore, normalize
from cpt.data.split import Split
from cpt.experiment.grid import Grid
from cpt.experiment.runs import Run
from cpt.features.images import batch_size
from cpt.features.text import Classes
from cpt.files.stage_files import read_json, write_json
from cpt.methods.base import registry
from cpt.methods.base.method import Batch, Method
from cpt.methods.base.sizes import placeholder_classes, placeholder_training_set, prepare
from cpt.seeds import torch_stream
from cpt.training import graphs
from cpt.training.batches import Batches
from cpt.training.checkpoint import CheckpointFile
from cpt.training.graphs import Record, recorder
from cpt.training.loop import Loop

SCHEMA = "cpt.step-costs/1"
WARM_UP, TIMED = graphs.WARM_UP + 2, 5
"""Steps before the clock starts, among them the first replayed one, and steps whose median counts."""
MOST = 60
"""Steps after which a measurement ends, however many of them captured a graph instead of replaying one."""
PROMPTS = 1024
"""Texts of a measured evaluation whose classifier depends on the image."""


def measure(
    grid: Grid, classes: Mapping[str, int], path: Path, device: str, precision: str, log: Callable[[str], None] = print
) -> Costs:
    """Time steps of every group at its smallest and largest number of classes, and write them to ``path``.

    A step is one of ``cpt.training.loop.Loop`` on images of noise, with the experiment's backbone, augmentation and
    threads; on a GPU as a CUDA graph where the experiment trains so.

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
    place, resolved = prepare_device(device, precision, config.threads, config.backbone.pretrained)
    with _backbone(grid) as file:
        clip = load_backbone(file, place, resolved)
    measured = {
        key: _measured_group(grid, clip, key, members, log) for key, members in typical(grid.runs, classes, 2).items()
    }
    groups = [key._asdict() | vars(cost) for key, cost in measured.items() if cost]
    frozen = _per_image(lambda: clip.vision(_images(clip)), batch_size(clip), place)
    log(f"frozen image features: {1 / frozen:,.0f} images/s")
    record = {"schema": SCHEMA, **_conditions(grid), "device": place.type, "device_name": device_name(place)}
    record["device_memory"] = torch.cuda.get_device_properties(place).total_memory if place.type == "cuda" else None
    record |= {"precision": resolved, "asked_precision": precision, "frozen_image": frozen, "groups": groups}
    write_json(path, record)
    found = read_measured(grid, path, device, precision)
    assert found is not None
    return found


def _conditions(grid: Grid) -> dict[str, Any]:
    """What of an experiment its costs depend on, beside methods and device."""
    config = grid.config
    architecture = config.backbone.architecture
    return {
        "architecture": architecture,
        "augmentation": config.augmentation,
        "threads": config.threads,
        "cuda_graphs": config.cuda_graphs,
    }


def read_measured(grid: Grid, path: Path, device: str, precision: str) -> Costs | None:
    """Return what was measured for this experiment; None where there is no file or it does not fit.

    It fits the same architecture, augmentation and precision on the same device. Where ``device`` leaves a GPU open
    and this machine has none (a login node), a file from any GPU fits. On a GPU it counts too whether steps are CUDA
    graphs, on a CPU the number of threads.
    """
    if not path.is_file():
        return None
    record = read_json(path, SCHEMA)
    here = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    on_gpu = record["device"] == "cuda"
    different = {name for name, value in _conditions(grid).items() if record.get(name) != value}
    if (
        different - {"threads" if on_gpu else "cuda_graphs"}
        or device not in ("auto", record["device"])
        or precision not in (record["asked_precision"], record["precision"])
        or not (here is None or device == "cpu" or record["device_name"] == here)
    ):
        return None
    groups = {}
    for item in record["groups"]:
        step, image = ([(count, seconds) for count, seconds in item[kind]] for kind in ("step", "image"))
        groups[Group(item["method"], item["start"], item["batch_size"])] = Cost(step, image, item["peak_memory_mb"])
    size = " of {1} x {0} pixels, cropped and resized".format(*PHOTOGRAPH) if grid.config.augmentation != "none" else ""
    noise = f"decoded images of noise{size}"
    graphed = "" if not on_gpu else f"; cuda_graphs: {record['cuda_graphs']}"
    threads = "" if on_gpu else f" with {record['threads']} thread(s)"
    return Costs(
        "measured",
        f"measured on {record['device_name']}{threads}, {record['precision']}",
        [f"Measured by --measure ({path}): training steps on {noise}{graphed}."],
        groups,
        record["frozen_image"],
        record["device_name"] if on_gpu else "",
        record.get("device_memory"),
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
            classes = placeholder_classes(clip, count, NAME)
            method = kind(clip, run.hyperparameters, classes, torch_stream(0, "initial prompts")).to(clip.device)
            if kind.image_conditioned or not image:
                image.append((count, _evaluation(method, classes)))
            if kind.trains:
                step.append((count, _step(grid, run, method, classes, log)))
                log(f"{key.label}, {count} classes: {1000 * step[-1][1]:.1f} ms per step")
    except torch.cuda.OutOfMemoryError:
        log(f"{key.label}, {count} classes: does not fit the memory of {device_name(clip.device)}")
        return None
    return Cost(step, image, round(peak_memory_mb(clip.device), 1) if cuda else None)


def _step(grid: Grid, run: Run, method: Method, classes: Classes, log: Callable[[str], None]) -> float:
    """Median seconds of a training step."""
    clip, kind, count = method.clip, type(method), len(classes)
    hp: Any = run.hyperparameters
    augmentation = kind.training_augmentation(grid.config.augmentation)
    record = recorder(clip.device, grid.config.cuda_graphs)
    size = max(2 * count, (MOST if record else WARM_UP + TIMED) * hp.batch_size)
    labels = np.arange(size) % count
    each = np.bincount(labels)
    split = Split(np.arange(size), labels, np.arange(count), each, list(classes.names), [], {})
    cached = grid.trains_on_frozen(run)
    features = torch.randn(size, clip.embed_dim) if cached else None
    store = None if cached and not kind.prompts_images else _Noise(clip.image_size[0])
    batches = _Timed(clip, split, store, features, augmentation, hp.batch_size, 0, grid.config.threads, kind.views)
    training_set = placeholder_training_set(kind, classes, torch.tensor(labels))
    prepare(method, training_set)
    method.train()
    method.hp = hp.model_copy(update={"epochs": 1, "snapshots": False})
    batches.replays = _Replays(record) if record else None
    loop = Loop(method, training_set, batches, CheckpointFile(None, "", 0), _lines(log), batches.replays)
    loop.run()
    return statistics.median(batches.steady or batches.seconds[WARM_UP:])


def _lines(log: Callable[[str], None]) -> Callable[[str], None]:
    """What a loop says of graphs that it gives up; its other lines are of no use here."""
    return lambda line: log(line) if "CUDA graphs" in line else None


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
    return _per_image(lambda: method.image_features(_images(clip)), batch_size(clip) / method.test_crops, clip.device)


@torch.no_grad()
def _per_image(work: Callable[[], Any], images: float, device: torch.device) -> float:
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

    def square(self, row: int) -> NDArray[np.uint8]:
        """Its crop (size, size, 3)."""
        return self._cropped

    def load(self, rows: ArrayLike, workers: int, augmentation: str = "rrc_flip") -> None:
        """Nothing: it is decoded."""

    def pixels(self, rows: ArrayLike) -> NDArray[np.uint8]:
        """As many copies (B, size, size, 3) of its crop."""
        return np.repeat(self._cropped[None], len(np.asarray(rows)), axis=0)


class _Replays:
    """A recorder whose captures and replays are counted."""

    def __init__(self, record: Record) -> None:
        self.record, self.captured, self.replayed = record, 0, 0

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """Record a step."""
        self.captured += 1
        replay = self.record(step)

        def counted() -> None:
            self.replayed += 1
            replay()

        return counted


class _Timed(Batches):
    """The first batches of an epoch, with the seconds from asking for each to its step's end.

    Attributes:
        seconds: of every step.
        steady: of those after the warm-up that are like nearly all of a training: where there is a recorder, they
            replayed a graph and captured none. The epoch ends when there are enough.
        replays: the recorder; None: no step is captured.
    """

    def __init__(self, *inputs: Any) -> None:
        super().__init__(*inputs)
        self.seconds: list[float] = []
        self.steady: list[float] = []
        self.replays: _Replays | None = None

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches."""
        started = _now(self.clip.device)
        for batch in islice(super().epoch(epoch, first), MOST):
            before = self._done()
            yield batch
            ended = _now(self.clip.device)
            captured, replayed = (after - earlier for after, earlier in zip(self._done(), before, strict=True))
            self.seconds.append(ended - started)
            if len(self.seconds) > WARM_UP and not captured and (replayed or self.replays is None):
                self.steady.append(self.seconds[-1])
                if len(self.steady) == TIMED:
                    return
            started = ended

    def _done(self) -> tuple[int, int]:
        return (self.replays.captured, self.replays.replayed) if self.replays else (0, 0)
