"""Images as uint8 arrays: the store of a dataset's images, the test transform, and normalization.

The test transform is that of repo KaiyangZhou/Dassl.pytorch, dassl/data/transforms/transforms.py, which is
torchvision's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cpt.data.augmentation import AUGMENTATIONS
from cpt.data.decoding import check_decodable, decode, failures
from cpt.data.image_cache import Pixels, open_pixels
from cpt.data.manifest import read_manifest
from cpt.data.memory import room
from cpt.errors import CptError, nearest
from cpt.files.hashes import open_regular
from cpt.files.stage_files import require_unchanged, unusable
from cpt.seeds import numpy_stream

if TYPE_CHECKING:
    import torch

_LONG = 64
"""Aspect ratio from which only the middle of an image is enlarged: the whole could fill the memory."""
_EXPAND = 24 / 224
"""Share of a crop's size by which the image is larger that five are taken from."""
_GLANCE = 2**26
"""Bytes of decoded images that are kept before the machine's memory is looked at again."""


@dataclass(frozen=True)
class Resizing:
    """How the test transform brings images to the size that the model takes, in open_clip's words.

    Attributes:
        mode: ``shortest`` resizes the shorter side and crops, ``squash`` resizes both sides and keeps no aspect ratio.
        interpolation: ``bicubic`` or ``bilinear``.
    """

    mode: str = "shortest"
    interpolation: str = "bicubic"

    @classmethod
    def of(cls, backbone: Mapping[str, Any]) -> Resizing:
        """That of the backbone that a backbone.json describes."""
        return cls(*backbone["image_resize"]) if "image_resize" in backbone else cls()

    @property
    def sides(self) -> str:
        """Which sides are resized, for readers."""
        return "shorter side" if self.mode == "shortest" else "both sides"


PLAIN = Resizing()
"""CLIP's own."""
RESIZINGS = tuple(Resizing(mode, kind) for mode in ("shortest", "squash") for kind in ("bicubic", "bilinear"))


class ImageStore:
    """The images of a manifest by row, as uint8 arrays of one size.

    A packed dataset is held in memory; its images are copied without decoding when they already have the size.

    Args:
        manifest_path: ``manifest.parquet`` of a dataset.
        size: height and width that the model takes, in pixels; None keeps the size of a packed dataset.
        cache: image cache of one part (``cpt.data.image_cache``) that ``pixels`` reads where a row lies in it.
        resizing: of test images.

    Raises:
        CptError: the manifest, its packed images or the cache are missing or damaged, or ``size`` is missing for
            image files.
    """

    def __init__(
        self, manifest_path: Path, size: int | None = None, cache: Path | None = None, resizing: Resizing = PLAIN
    ) -> None:
        manifest = read_manifest(manifest_path)
        self._root = manifest_path.parent / manifest.metadata["image_root"]
        self._path, self._index = manifest.path, manifest.index
        self._packed = _packed(self._root / manifest.path[0]) if manifest.index[0] >= 0 else None
        if size is None:
            if self._packed is None:
                raise CptError(f"{manifest_path}: images are files of any size; give the size that the model takes")
            size = self._packed.shape[1]
        self.size, self._resizing = size, resizing
        self._decoded: dict[int, NDArray[np.uint8]] = {}
        self._resized: dict[int, NDArray[np.uint8]] = {}
        self._cache: Pixels | None = None
        if cache is not None:
            self._cache = open_pixels(cache, manifest.metadata["content_hash"], size)

    def __len__(self) -> int:
        return len(self._index)

    def image(self, row: int) -> NDArray[np.uint8]:
        """Return one image at its own size, (H, W, 3) RGB; not to be written to."""
        if self._packed is not None:
            return np.array(self._packed[self._index[row]])
        decoded = self._decoded.get(row)
        return decode(self._root / self._path[row]) if decoded is None else decoded

    def square(self, row: int) -> NDArray[np.uint8]:
        """Return one whole image as (size, size, 3), its aspect ratio not kept; not to be written to."""
        resized = self._resized.get(row)
        return _resize(self.image(row), self.size, self.size) if resized is None else resized

    def load(self, rows: ArrayLike, workers: int, augmentation: str = "rrc_flip") -> None:
        """Decode images once, so that a damaged one ends a job at its start, and keep what the memory has room for.

        The others are decoded again whenever they are needed. What is kept is what the augmentation starts from.

        Raises:
            CptError: images cannot be decoded; the message counts them and names the first.
        """
        if self._packed is not None:
            return
        wanted = np.asarray(rows, dtype=np.int64).tolist()
        square = augmentation in AUGMENTATIONS and AUGMENTATIONS[augmentation].square
        kept, start = (self._resized, self.square) if square else (self._decoded, self.image)
        left, more, lock = 0, True, Lock()

        def keep(row: int) -> None:
            nonlocal left, more
            image = start(row)
            with lock:  # kept or dropped at once: none is in flight beside those that are kept
                if more and image.nbytes > left:
                    found = room()
                    left = min(found, max(_GLANCE, image.nbytes))
                    more = left < found
                if row not in kept and image.nbytes <= left:
                    kept[row] = image
                    left -= image.nbytes

        check_decodable(failures(keep, wanted, workers), len(wanted))

    def pixels(self, rows: ArrayLike) -> NDArray[np.uint8]:
        """Return (B, size, size, 3) under the test transform (``resize_and_crop``).

        Raises:
            CptError: an image cannot be decoded, or the cache has changed since it was written.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        if self._packed is not None and self._packed.shape[1:3] == (self.size, self.size):
            return np.asarray(self._packed[self._index[wanted]])
        if self._cache is not None and len(wanted) and self._cache.holds(wanted):
            return self._cache.take(wanted)
        return self._stack([resize_and_crop(self.image(row), self.size, self._resizing) for row in wanted])

    def five_crops(self, rows: ArrayLike) -> NDArray[np.uint8]:
        """Return (B, 5, size, size, 3), the crops of every image that ``five_crops`` makes.

        Raises:
            CptError: an image cannot be decoded.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        return np.stack([five_crops(self.image(row), self.size, self._resizing) for row in wanted])

    def training_pixels(
        self, rows: ArrayLike, augmentation: str, seed: int, epoch: int, view: int | NDArray[np.int64] = 0
    ) -> NDArray[np.uint8]:
        """Return (B, size, size, 3) training images.

        The randomness of an image depends on the seed, the epoch, its row and the view alone, so that neither the
        order of batches nor a resumed run changes it.

        Args:
            rows: rows of the manifest.
            augmentation: ``none`` (the test transform), or a name of ``cpt.data.augmentation.AUGMENTATIONS``.
            seed: the run's seed.
            epoch: the epoch's number.
            view: number of the view, from 0; of each image, or of all.

        Raises:
            CptError: unknown augmentation.
        """
        if augmentation == "none":
            return self.pixels(rows)
        if augmentation not in AUGMENTATIONS:
            raise CptError(f"augmentation: unknown {augmentation!r}; {nearest(augmentation, ['none', *AUGMENTATIONS])}")
        chosen, wanted = AUGMENTATIONS[augmentation], np.asarray(rows, dtype=np.int64).tolist()
        views = np.broadcast_to(view, len(wanted)).tolist()
        images = np.empty((len(wanted), self.size, self.size, 3), np.uint8)
        for row, image, number in zip(wanted, images, views, strict=True):
            other = (number,) if number else ()
            uniform = numpy_stream(seed, "augmentation", epoch, row, *other).random
            image[:] = chosen.apply(self.square(row) if chosen.square else self.image(row), self.size, uniform)
        return images

    def _stack(self, images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        return np.stack(images) if images else np.empty((0, self.size, self.size, 3), np.uint8)


def resize_and_crop(image: NDArray[np.uint8], size: int, resizing: Resizing = PLAIN) -> NDArray[np.uint8]:
    """Resize the shorter side to ``size`` and crop the center, or both sides; nothing when it has the size already.

    Args:
        image: (H, W, 3).
        size: height and width of the result.
        resizing: which of the two, and the interpolation.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    return _crops(image, size, size, 1, resizing)[0]


def five_crops(image: NDArray[np.uint8], size: int, resizing: Resizing = PLAIN) -> NDArray[np.uint8]:
    """Resize to a little more than ``size`` and crop the corners and the center.

    It is longer by 24 of 224 pixels (repo shijxcs/LIFT, utils/config.py and trainer.py), by the same share of other
    sizes.

    Args:
        image: (H, W, 3).
        size: height and width of the crops.
        resizing: of the shorter side or of both, and the interpolation.

    Returns:
        (5, size, size, 3): top left, top right, bottom left, bottom right, center.
    """
    return np.stack(_crops(image, size + round(size * _EXPAND), size, 5, resizing))


def scaled(height: int, width: int, shorter: int) -> tuple[int, int]:
    """Height and width after the shorter side is resized to ``shorter``; the longer one is cut to whole pixels."""
    return max(shorter, int(shorter * height / width)), max(shorter, int(shorter * width / height))


def crop_places(height: int, width: int, size: int) -> list[tuple[int, int]]:
    """Top and left of the crops of an image: its four corners, by rows, and its center."""
    bottom, right = height - size, width - size
    return [(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))]


def _crops(
    image: NDArray[np.uint8], shorter: int, size: int, count: int, resizing: Resizing
) -> list[NDArray[np.uint8]]:
    """Five crops of an image whose shorter side, or both, are resized, or the center alone.

    Of an image that would become very large, only what is seen is enlarged.
    """
    height, width = image.shape[:2]
    new_height, new_width = scaled(height, width, shorter) if resizing.mode == "shortest" else (shorter, shorter)
    how = resizing.interpolation
    places = crop_places(new_height, new_width, size)[-count:]
    if new_width * new_height <= max(width * height, _LONG * size**2):
        whole = _resize(image, new_width, new_height, how=how)
        return [whole[top : top + size, left : left + size] for top, left in places]
    found = []
    for top, left in places:
        rows, above, below = _shown(height, new_height, top, size)
        columns, before, behind = _shown(width, new_width, left, size)
        part = image[rows, columns]
        part = _resize(part, size, len(part), (before, 0, behind, len(part)), how)  # first the width, as for the whole
        found.append(_resize(part, size, size, (0, above, size, below), how))
    return found


def _shown(side: int, new_side: int, first: int, size: int) -> tuple[slice, float, float]:
    """What of a side resized from ``side`` to ``new_side`` pixels is seen in ``size`` of them from ``first`` on.

    Returns:
        The pixels that bicubic interpolation looks at, and where in them the seen ones begin and end.
    """
    scale = side / new_side
    margin = math.ceil(2 * max(scale, 1)) + 1
    start = max(0, math.floor(first * scale) - margin)
    end = min(side, math.ceil((first + size) * scale) + margin)
    return slice(start, end), first * scale - start, (first + size) * scale - start


def normalize(pixels: NDArray[np.uint8] | torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return float32 (..., 3, H, W): (pixels / 255 - mean) / std, on the device of ``pixels``.

    Args:
        pixels: uint8 (..., H, W, 3), an array or a tensor.
        mean: mean of each channel, on the scale 0..1.
        std: standard deviation of each channel, on the scale 0..1.
    """
    import torch

    batch = torch.as_tensor(pixels).movedim(-1, -3).to(torch.float32, memory_format=torch.contiguous_format)
    center, scale = (_per_channel(tuple(values), batch.device) for values in (mean, std))
    return batch.div_(255).sub_(center).div_(scale)


@cache
def _per_channel(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Values as (1, 3, 1, 1) on a device; to make them anew for every batch would stop a GPU."""
    import torch

    return torch.tensor(values, device=device).view(1, 3, 1, 1)


def _packed(path: Path) -> NDArray[np.uint8]:
    """The images of a packed dataset, which are few."""
    require_unchanged(path)
    try:
        with open_regular(path) as file:
            return np.load(file)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise unusable(path, error) from None


def _resize(
    image: NDArray[np.uint8],
    width: int,
    height: int,
    box: tuple[float, float, float, float] | None = None,
    how: str = "bicubic",
) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling[how.upper()], box))
