"""Frozen image features of one part of a dataset, for methods that leave the vision tower unprompted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cpt.clip.backbone import Clip
from cpt.clip.device import upload
from cpt.data.images import ImageStore, normalize
from cpt.data.manifest import read_manifest
from cpt.errors import CptError
from cpt.features.text import IMAGE_SCHEMA
from cpt.files.stage_files import canonical_json, sha256_text, write_tensors


def batch_size(clip: Clip) -> int:
    """Images per forward pass: many on a GPU, few on a CPU, so that activations stay in its cache."""
    return 256 if clip.device.type == "cuda" else 64


def encode(clip: Clip, store: ImageStore, rows: np.ndarray, encoder: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """Yield ``encoder`` of the normalized images (B, 3, H, W) of some rows by batch, and read the next batch meanwhile.

    Args:
        clip: gives device, image size and normalization.
        store: gives the pixels.
        rows: (N,) rows of the manifest.
        encoder: a tower.
    """
    size = batch_size(clip)
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    workers = torch.get_num_threads()
    with ThreadPoolExecutor(workers) as pool:

        def read(batch: np.ndarray) -> list[Future]:
            return [pool.submit(store.pixels, part) for part in np.array_split(batch, workers) if len(part)]

        ahead = read(batches[0])
        for following in [*batches[1:], None]:
            parts = [part.result() for part in ahead]
            if following is not None:
                ahead = read(following)
            pixels = parts[0] if len(parts) == 1 else np.concatenate(parts)
            yield encoder(normalize(upload(pixels, clip.device), clip.mean, clip.std))


@torch.no_grad()
def make_image_features(clip: Clip, manifest_path: Path, part: str, output: Path, cache: Path | None = None) -> int:
    """Write the raw features (N, D) of the images of a part under the test transform; return N.

    Args:
        cache: image cache of the part, if any.

    Raises:
        CptError: the part has no images.
    """
    manifest = read_manifest(manifest_path)
    rows = manifest.rows(part)
    if len(rows) == 0:
        raise CptError(f"{manifest_path}: no images in part {part!r}")
    store = ImageStore(manifest_path, clip.image_size[0], cache)
    features = torch.cat([features.cpu() for features in encode(clip, store, rows, clip.vision)])
    write_tensors(
        output,
        {"features": features, "rows": torch.as_tensor(rows)},
        IMAGE_SCHEMA,
        dataset=manifest.metadata["dataset"],
        part=part,
        backbone=clip.name,
        source_hash=sha256_text(canonical_json([clip.sha256, manifest.metadata["content_hash"], part])),
    )
    return len(rows)
