"""Frozen image features of one part of a dataset, for methods that leave the vision tower unprompted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cpt.clip.backbone import Clip
from cpt.clip.device import Staging
from cpt.data.images import ImageStore, normalize
from cpt.data.manifest import read_manifest, rows_of
from cpt.errors import CptError
from cpt.files.stage_files import canonical_json, read_tensors, sha256_text, write_tensors

SCHEMA = "cpt.image-features/1"


def batch_size(clip: Clip) -> int:
    """Images per forward pass: many on a GPU, few on a CPU, so that activations stay in its cache."""
    return 256 if clip.device.type == "cuda" else 64


class Store(Protocol):
    """Images by row; ``cpt.data.images.ImageStore`` is one."""

    size: int

    def pixels(self, rows: np.ndarray) -> np.ndarray:
        """Return (B, size, size, 3) uint8 under the test transform."""

    def five_crops(self, rows: np.ndarray) -> np.ndarray:
        """Return (B, 5, size, size, 3) uint8: corners and center of larger images."""


def encode(
    clip: Clip, store: Store, rows: np.ndarray, encoder: Callable[[Tensor], Tensor], crops: int = 1
) -> Iterator[Tensor]:
    """Yield ``encoder`` of the normalized images (B, 3, H, W) of some rows by batch, and read the next batch meanwhile.

    Nothing here waits for a GPU but the threads that read: memory that a batch was uploaded from is filled again when
    its copy is done. So at most two batches are ahead of the GPU, and it always has one to go on with.

    Args:
        clip: gives device, image size and normalization.
        store: gives the pixels.
        rows: (N,) rows of the manifest.
        encoder: a tower.
        crops: 1, or 5: ``encoder`` gets (B, 5, 3, H, W).
    """
    size = max(1, batch_size(clip) // crops)
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    workers = torch.get_num_threads()
    look = store.pixels if crops == 1 else store.five_crops
    shape = (len(batches[0]), *(() if crops == 1 else (crops,)), store.size, store.size, 3)
    memory = cycle([Staging(shape, clip.device) for _ in batches[:2]])
    with ThreadPoolExecutor(workers) as pool:

        def fill(into: Staging, places: np.ndarray, part: np.ndarray) -> None:
            into.wait()
            places[:] = look(part)

        def read(batch: np.ndarray) -> tuple[Staging, int, list[Future]]:
            into = next(memory)
            parts = zip(np.array_split(into.array[: len(batch)], workers), np.array_split(batch, workers), strict=True)
            return into, len(batch), [pool.submit(fill, into, *part) for part in parts if len(part[0])]

        ahead = read(batches[0])
        for following in [*batches[1:], None]:
            staged, count, parts = ahead
            for part in parts:
                part.result()
            if following is not None:
                ahead = read(following)
            yield encoder(normalize(staged.upload(count), clip.mean, clip.std))


@torch.no_grad()
def make_image_features(clip: Clip, manifest_path: Path, part: str, output: Path, cache: Path | None = None) -> int:
    """Write the raw features (N, D) of the images of a part under the test transform; return N.

    Args:
        cache: image cache of the part, if any.

    Raises:
        CptError: the part has no images, or features are not finite.
    """
    manifest = read_manifest(manifest_path)
    rows = rows_of(manifest, part, manifest_path)
    store = ImageStore(manifest_path, clip.image_size[0], cache, clip.resizing)
    features = torch.cat(list(encode(clip, store, rows, clip.vision))).cpu()
    if not features.isfinite().all():
        raise CptError(f"{manifest_path}: image features are not finite in {clip.precision}; set precision: float32")
    write_tensors(
        output,
        {"features": features, "rows": torch.as_tensor(rows)},
        SCHEMA,
        dataset=manifest.metadata["dataset"],
        part=part,
        backbone=clip.name,
        source_hash=sha256_text(canonical_json([clip.sha256, manifest.metadata["content_hash"], part])),
    )
    return len(rows)


def read_image_features(path: Path) -> tuple[Tensor, Tensor]:
    """Return (features (N, D), manifest rows (N,))."""
    tensors, _ = read_tensors(path, SCHEMA)
    return tensors["features"], tensors["rows"]
