"""Lines ``evaluation``, ``cache`` and ``augmentation``: what becomes of image files.

Prediction against the bare tower, the image cache against decoding, and training images against the reference codes'.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torchvision.transforms import InterpolationMode, functional

from benchmarks import experiment
from benchmarks.counters import cost
from benchmarks.experiment import PHOTOS
from benchmarks.problem import DEPTH, QUICK_DEPTH
from benchmarks.rows import Row
from benchmarks.timing import Pairs, Settings, alternate, seconds
from cpt.clip.backbone import Clip, load_backbone
from cpt.clip.device import prepare_device
from cpt.data.augmentation import crop_box
from cpt.data.images import ImageStore, normalize
from cpt.data.make_image_cache import make_pixels
from cpt.data.make_manifest import make_manifest
from cpt.data.manifest import read_manifest
from cpt.data.randaugment import rand_augment
from cpt.evaluation import predict, trained
from cpt.features.images import batch_size
from cpt.files import paths
from cpt.files.paths import PROMPTS
from cpt.files.stage_files import read_tensors
from cpt.seeds import numpy_stream

EVALUATION_TARGET, CACHE_TARGET = 0.85, 3.0
TARGETS = [(PHOTOS, "base"), (PHOTOS, "new")]
SIDE = 224
"""Pixels of the cached images, those of ViT-B/16."""


def _silent(_: str) -> None:
    pass


def evaluate(run: Path, results: Path, threads: int) -> float:
    """Seconds of ``cpt.evaluation.predict`` from the loaded backbone to the written files."""
    loaded: list[float] = []

    def load(*arguments: Any) -> Clip:
        clip = load_backbone(*arguments)
        loaded.append(time.perf_counter())
        return clip

    with mock.patch.object(trained, "load_backbone", load):
        predict.predict(run, results, TARGETS, device="cpu", threads=threads, log=_silent)
    return time.perf_counter() - loaded[0]


def _cache(results: Path, side: int, threads: int) -> Path:
    path = results / paths.pixels(PHOTOS, "test")
    make_pixels(results / paths.manifest(PHOTOS), "test", side, path, threads, _silent)
    return path


# Evaluation


def evaluation_lines(settings: Settings) -> list[Row]:
    """Images a second of prediction from the image cache, and of the same tower on tensors in memory."""
    count = 2 * (64 if settings.quick else batch_size_of_cpu())
    folder = experiment.photographs(settings.folder / "evaluation-photos", count)
    entry = experiment.photo_entry(folder)
    results = experiment.prepare(settings.folder / "evaluation", experiment.vit(settings.quick), entry)
    run = experiment.trained(results, PHOTOS, QUICK_DEPTH if settings.quick else DEPTH, settings.threads)
    clip = load_backbone(results / "backbone.json")
    cache = _cache(results, clip.image_size[0], settings.threads)
    prepare_device("cpu", "float32", settings.threads)
    first, deep = _visual_prompts(run)
    images = normalize(np.load(cache), clip.mean, clip.std)
    size = batch_size(clip)

    @torch.no_grad()
    def forward(batch: torch.Tensor) -> None:
        clip.vision(batch, first, deep)

    def bare() -> float:
        return seconds(lambda: [forward(batch) for batch in images.split(size)])

    work = cost(lambda: forward(images[:size])).times(1 / size)  # of an image; warms up as well
    pairs = alternate(
        settings.repeats,
        lambda: evaluate(run, results, settings.threads),
        bare,
        lambda line: settings.log(f"  {line} (naive: bare forward pass)"),
    )
    ours, other = statistics.median(pairs.ours), statistics.median(pairs.naive)
    return [
        Row(
            "evaluation",
            f"prediction / bare forward pass, {size} a batch",
            "images/s",
            count / ours,
            count / other,
            pairs.ratio,
            None if settings.quick else EVALUATION_TARGET,
            **work._asdict(),
            repeats=len(pairs.ours),
            part="evaluation",
            note=f"{count} cached images, from the loaded backbone to the written files; naive: "
            "the same tower and prompts on tensors in memory",
        )
    ]


def batch_size_of_cpu() -> int:
    """Images of a batch on a CPU."""
    return batch_size(mock.Mock(device=torch.device("cpu")))


def _visual_prompts(run: Path) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    tensors, _ = read_tensors(run / "prompts.safetensors", PROMPTS)
    prefix = "visual.prompts."
    found = {int(name.removeprefix(prefix)): value for name, value in tensors.items() if name.startswith(prefix)}
    return found.pop(0), found


# Training images


def augmentation_lines(settings: Settings) -> list[Row]:
    """Normalized training images from decoded ones, and the way of the reference codes, file by file."""
    count = 16 if settings.quick else 128
    folder = experiment.photographs(settings.folder / "augmentation-photos", count)
    manifest = make_manifest(experiment.photo_entry(folder), settings.folder / "augmentation")
    rows = read_manifest(manifest).rows("test")
    files = [Path(path) for path in read_manifest(manifest).path[rows]]
    root = manifest.parent / read_manifest(manifest).metadata["image_root"]
    found = []
    for augmentation, what in (("rrc_flip", "crop and mirror"), ("rand_augment", "RandAugment")):
        store = ImageStore(manifest, SIDE)
        store.load(rows, 1, augmentation)

        def ours(store: ImageStore = store, augmentation: str = augmentation) -> torch.Tensor:
            batches = np.array_split(rows, max(1, count // 32))
            parts = [store.training_pixels(batch, augmentation, 1, 1) for batch in batches]
            return torch.cat([normalize(part, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD) for part in parts])

        def naive(augmentation: str = augmentation) -> torch.Tensor:
            streams = (numpy_stream(1, "augmentation", 1, row).random for row in rows.tolist())
            return torch.stack([reference_image(root / file, augmentation, next(streams)) for file in files])

        if not torch.equal(ours(), naive()):
            raise AssertionError(f"augmentation: {augmentation} gives other numbers than torchvision")
        pairs = alternate(
            settings.repeats,
            lambda ours=ours: _processor_seconds(ours),
            lambda naive=naive: _processor_seconds(naive),
            lambda line: settings.log(f"  {line}"),
        )
        note = f"processor time of an image, {count} JPEGs of 500 x 375; naive: torchvision, decoded for every view"
        values = pairs.row()
        values |= {name: values[name] * 1000 / count for name in ("ours", "naive")}
        found.append(Row("augmentation", f"{what}, from decoded images / from files", "ms", note=note, **values))
    return found


def reference_image(file: Path, augmentation: str, uniform: Callable[[], float]) -> torch.Tensor:
    """One normalized training image as torchvision makes it, with our random numbers and operations."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    if augmentation == "rrc_flip":
        box = crop_box(picture.height, picture.width, uniform)
        picture = functional.resized_crop(picture, *box, [SIDE, SIDE], InterpolationMode.BICUBIC)
        picture = functional.hflip(picture) if uniform() < 0.5 else picture
    else:
        whole = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture = Image.fromarray(rand_augment(np.asarray(whole), uniform))
    return functional.normalize(functional.to_tensor(picture), OPENAI_DATASET_MEAN, OPENAI_DATASET_STD)


def _processor_seconds(work: Callable[[], object]) -> float:
    """Seconds of all processors: what the jobs of a machine have to share."""
    started = time.process_time()
    work()
    return time.process_time() - started


# The image cache


def cache_lines(settings: Settings) -> list[Row]:
    """Reading the image cache against decoding: the input path alone, and evaluation with the tiny CLIP."""
    count = 64 if settings.quick else 512
    folder = experiment.photographs(settings.folder / "cache-photos", count)
    entry = experiment.photo_entry(folder)
    results = experiment.prepare(settings.folder / "cache", "embedded", entry)
    manifest = results / paths.manifest(PHOTOS)
    rows = _building(settings, results, count)

    cache = _cache(results, SIDE, settings.threads)
    wanted = np.arange(experiment.CLASSES, experiment.CLASSES + count)  # test images stand behind the training images

    def read(path: Path | None) -> float:
        store = ImageStore(manifest, SIDE, path)
        return seconds(lambda: [store.pixels(part) for part in np.array_split(wanted, max(1, count // 64))])

    cached, decoded = (ImageStore(manifest, SIDE, path).pixels(wanted[:8]) for path in (cache, None))
    if not np.array_equal(cached, decoded):
        raise AssertionError("cache: its pixels are not those that decoding gives")
    log = lambda line: settings.log(f"  {line}")  # noqa: E731
    pairs = alternate(settings.repeats, lambda: read(cache), lambda: read(None), log)
    target = None if settings.quick else CACHE_TARGET
    note = f"{count} JPEGs of 500 x 375 to {SIDE} x {SIDE}; naive: decoded again in every pass"
    what = "input of evaluation, cached / decoded"
    rows.append(Row("cache", what, "s/1000", target=target, note=note, **_per_thousand(pairs, count)))

    run = experiment.trained(results, PHOTOS, 2, settings.threads)
    clip = load_backbone(results / "backbone.json")
    cache = _cache(results, clip.image_size[0], settings.threads)
    hidden = cache.with_suffix(".hidden")

    def decoding() -> float:
        cache.rename(hidden)
        try:
            return evaluate(run, results, settings.threads)
        finally:
            hidden.rename(cache)

    evaluate(run, results, settings.threads)
    pairs = alternate(settings.repeats, lambda: evaluate(run, results, settings.threads), decoding, log)
    what = "whole evaluation, cached / decoded"
    note = "the embedded CLIP, whose towers cost next to nothing"
    rows.append(Row("cache", what, "s/1000", note=note, **_per_thousand(pairs, count)))
    return rows


def _building(settings: Settings, results: Path, count: int) -> list[Row]:
    """Time to build the cache with one thread (naive) and with all."""
    pairs = alternate(
        settings.repeats,
        lambda: seconds(lambda: _cache(results, SIDE, settings.threads)),
        lambda: seconds(lambda: _cache(results, SIDE, 1)),
        lambda line: settings.log(f"  {line} (building; naive: one thread)"),
    )
    what = f"building the cache, {settings.threads} threads / 1 thread"
    return [Row("cache", what, "s/1000", **_per_thousand(pairs, count))]


def _per_thousand(pairs: Pairs, count: int) -> dict[str, Any]:
    found = pairs.row()
    return found | {name: found[name] * 1000 / count for name in ("ours", "naive")}
