"""Frozen image features of one part of a dataset, for methods that leave the vision tower as it is."""

from __future__ import annotations

from pathlib import Path

import torch

from cpt.clip.backbone import Clip
from cpt.clip.features import IMAGE_SCHEMA
from cpt.data.images import ImageStore, normalise
from cpt.data.manifest import read_manifest
from cpt.errors import CptError
from cpt.files import canonical_json, sha256_text, write_tensors


def batch_size(clip: Clip) -> int:
    """Images per forward pass: many for a GPU; on a CPU few, so that activations stay in its cache."""
    return 256 if clip.device.type == "cuda" else 64


@torch.no_grad()
def make_image_features(clip: Clip, manifest_path: Path, part: str, output: Path, cache: Path | None = None) -> int:
    """Write the raw features (N, D) of the images of a part under the test transform; return N.

    Args:
        cache: image cache of the part, if there is one.

    Raises:
        CptError: the part has no images.
    """
    manifest = read_manifest(manifest_path)
    rows = manifest.rows(part)
    if len(rows) == 0:
        raise CptError(f"{manifest_path}: no images in part {part!r}")
    store = ImageStore(manifest_path, clip.image_size[0], cache)
    features = []
    size = batch_size(clip)
    for start in range(0, len(rows), size):
        pixels = torch.from_numpy(store.pixels(rows[start : start + size])).to(clip.device)
        features.append(clip.vision(normalise(pixels, clip.mean, clip.std)).cpu())
    write_tensors(
        output,
        {"features": torch.cat(features), "rows": torch.as_tensor(rows)},
        IMAGE_SCHEMA,
        dataset=manifest.metadata["dataset"],
        part=part,
        backbone=clip.name,
        source_hash=sha256_text(canonical_json([clip.sha256, manifest.metadata["content_hash"], part])),
    )
    return len(rows)
