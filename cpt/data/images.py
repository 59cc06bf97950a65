"""Images as uint8 arrays: the test and training transforms, and normalization.

Transforms are those of repo KaiyangZhou/Dassl.pytorch, dassl/data/transforms/transforms.py, which are
torchvision's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

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

AUGMENTATIONS = ("none", "rrc_flip", "rand_augment")
_LONG = 64
"""Aspect ratio from which only the middle of an image is enlarged: the whole could fill the memory."""
_SCALE = (0.08, 1.0)
_ASPECT = (3 / 4, 4 / 3)
_ATTEMPTS = 10
_GLANCE = 2**26
"""Bytes of decoded images that are kept before the machine's memory is looked at again."""
Uniform = Callable[[], float]


class ImageStore:
    """The images of a manifest by row, as uint8 arrays of one size.

    A packed dataset is held in memory; its images are copied without decoding when they already have the size.

    Args:
        manifest_path: ``manifest.parquet`` of a dataset.
        size: height and width that the model takes, in pixels; None keeps the size of a packed dataset.
        cache: image cache of one part (``cpt.data.image_cache``) that ``pixels`` reads where a row lies in it.

    Raises:
        CptError: the manifest, its packed images or the cache are missing or damaged, or ``size`` is missing for
            image files.
    """

    def __init__(self, manifest_path: Path, size: int | None = None, cache: Path | None = None) -> None:
        manifest = read_manifest(manifest_path)
        self._root = manifest_path.parent / manifest.metadata["image_root"]
        self._path, self._index = manifest.path, manifest.index
        self._packed = _packed(self._root / manifest.path[0]) if manifest.index[0] >= 0 else None
        if size is None:
            if self._packed is None:
                raise CptError(f"{manifest_path}: images are files of any size; give the size that the model takes")
            size = self._packed.shape[1]
        self.size = size
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

        The others are decoded again whenever they are needed. ``rand_augment`` keeps images in the size that it starts
        from.

        Raises:
            CptError: images cannot be decoded; the message counts them and names the first.
        """
        if self._packed is not None:
            return
        wanted = np.asarray(rows, dtype=np.int64).tolist()
        kept, start = (self._resized, self.square) if augmentation == "rand_augment" else (self._decoded, self.image)
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
        """Return (B, size, size, 3): shorter side resized to ``size``, bicubic, and the center cropped.

        Raises:
            CptError: an image cannot be decoded, or the cache has changed since it was written.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        if self._packed is not None and self._packed.shape[1:3] == (self.size, self.size):
            return np.asarray(self._packed[self._index[wanted]])
        if self._cache is not None and len(wanted) and self._cache.holds(wanted):
            return self._cache.take(wanted)
        return self._stack([resize_and_crop(self.image(row), self.size) for row in wanted])

    def training_pixels(
        self, rows: ArrayLike, augmentation: str, seed: int, epoch: int, view: int = 0
    ) -> NDArray[np.uint8]:
        """Return (B, size, size, 3) training images.

        The randomness of an image depends on the seed, the epoch, its row and the view alone, so that neither the
        order of batches nor a resumed run changes it.

        Args:
            rows: rows of the manifest.
            augmentation: ``none`` (the test transform), ``rrc_flip`` (random resized crop and horizontal flip) or
                ``rand_augment`` (two random operations on the whole image, its aspect ratio not kept).
            seed: the run's seed.
            epoch: the epoch's number.
            view: number of the view, from 0.

        Raises:
            CptError: unknown augmentation.
        """
        if augmentation not in AUGMENTATIONS:
            raise CptError(f"augmentation: unknown {augmentation!r}; {nearest(augmentation, AUGMENTATIONS)}")
        if augmentation == "none":
            return self.pixels(rows)
        from cpt.data.randaugment import rand_augment

        other = (view,) if view else ()

        wanted = np.asarray(rows, dtype=np.int64).tolist()
        images = np.empty((len(wanted), self.size, self.size, 3), np.uint8)
        for row, image in zip(wanted, images, strict=True):
            uniform = numpy_stream(seed, "augmentation", epoch, row, *other).random
            if augmentation == "rrc_flip":
                image[:] = random_crop_and_flip(self.image(row), self.size, uniform)
            else:
                image[:] = rand_augment(self.square(row), uniform)
        return images

    def _stack(self, images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        return np.stack(images) if images else np.empty((0, self.size, self.size, 3), np.uint8)


def resize_and_crop(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize the shorter side to ``size``, bicubic, and crop the center; nothing when it has the size already.

    Args:
        image: (H, W, 3).
        size: height and width of the result.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    new_width, new_height = max(size, int(size * width / height)), max(size, int(size * height / width))
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    if new_width * new_height <= max(width * height, _LONG * size**2):
        return _resize(image, new_width, new_height)[top : top + size, left : left + size]
    rows, above, below = _shown(height, new_height, top, size)
    columns, before, behind = _shown(width, new_width, left, size)
    part = image[rows, columns]
    part = _resize(part, size, len(part), (before, 0, behind, len(part)))  # first the width, as for the whole
    return _resize(part, size, size, (0, above, size, below))


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


def random_crop_and_flip(image: NDArray[np.uint8], size: int, uniform: Uniform) -> NDArray[np.uint8]:
    """Crop a random box, resize it to (size, size, 3), bicubic, and mirror it with probability 1/2.

    Args:
        image: (H, W, 3).
        size: height and width of the result.
        uniform: a source of numbers in [0, 1).
    """
    from PIL import Image

    top, left, height, width = crop_box(image.shape[0], image.shape[1], uniform)
    whole = image.shape[1]
    rest = image.reshape(-1)[(top * whole + left) * 3 :]  # Pillow reads the box's rows from here, without a copy
    box = Image.frombytes("RGB", (width, height), rest, "raw", ("RGB", whole * 3, 1))
    picture = box.resize((size, size), Image.Resampling.BICUBIC)
    if uniform() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)  # a mirrored array takes thrice as long to copy
    return np.asarray(picture)


def crop_box(height: int, width: int, uniform: Uniform) -> tuple[int, int, int, int]:
    """Draw (top, left, height, width) of a random resized crop.

    Area uniform in 8 to 100 % of the image, aspect log-uniform in 3/4 to 4/3; after ten boxes that do not fit, the
    largest centered box of an allowed aspect. Source: torchvision, transforms.RandomResizedCrop.get_params.
    """
    lowest, highest = (math.log(aspect) for aspect in _ASPECT)
    for _ in range(_ATTEMPTS):
        area = height * width * (_SCALE[0] + (_SCALE[1] - _SCALE[0]) * uniform())
        aspect = math.exp(lowest + (highest - lowest) * uniform())
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(uniform() * (height - h + 1))
            return top, int(uniform() * (width - w + 1)), h, w
    w = min(width, round(height * _ASPECT[1]))
    h = min(height, round(width / _ASPECT[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def normalize(pixels: NDArray[np.uint8] | torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return float32 (B, 3, H, W): (pixels / 255 - mean) / std, on the device of ``pixels``.

    Args:
        pixels: uint8 (B, H, W, 3), an array or a tensor.
        mean: mean of each channel, on the scale 0..1.
        std: standard deviation of each channel, on the scale 0..1.
    """
    import torch

    batch = torch.as_tensor(pixels).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
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
    image: NDArray[np.uint8], width: int, height: int, box: tuple[float, float, float, float] | None = None
) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box))
