"""Augmentations of training images; a new one is an entry of ``AUGMENTATIONS``.

A method may name its own (``Method.augmentation``). That of an experiment is ``augmentation`` of its configuration
(``cpt.experiment.config``). They are torchvision's, as repo KaiyangZhou/Dassl.pytorch uses them
(dassl/data/transforms/transforms.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

Uniform = Callable[[], float]
"""A source of numbers in [0, 1)."""
_SMALLEST = 0.08
_ASPECT = (3 / 4, 4 / 3)
_ATTEMPTS = 10


@dataclass(frozen=True)
class Augmentation:
    """One way to vary a training image.

    Attributes:
        apply: (image (H, W, 3) uint8, size, source of numbers) -> (size, size, 3) uint8.
        square: it starts from the whole image resized to (size, size), its aspect ratio not kept.
    """

    apply: Callable[[NDArray[np.uint8], int, Uniform], NDArray[np.uint8]]
    square: bool = False


def random_crop_and_flip(
    image: NDArray[np.uint8], size: int, uniform: Uniform, smallest: float = _SMALLEST
) -> NDArray[np.uint8]:
    """Crop a random box, resize it to (size, size, 3), bicubic, and mirror it with probability 1/2.

    Args:
        image: (H, W, 3).
        size: height and width of the result.
        uniform: a source of numbers.
        smallest: share of the image that the box has at least.
    """
    from PIL import Image

    top, left, height, width = crop_box(image.shape[0], image.shape[1], uniform, smallest)
    whole = image.shape[1]
    rest = image.reshape(-1)[(top * whole + left) * 3 :]  # Pillow reads the box's rows from here, without a copy
    box = Image.frombytes("RGB", (width, height), rest, "raw", ("RGB", whole * 3, 1))
    picture = box.resize((size, size), Image.Resampling.BICUBIC)
    if uniform() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)  # a mirrored array takes thrice as long to copy
    return np.asarray(picture)


def crop_box(height: int, width: int, uniform: Uniform, smallest: float = _SMALLEST) -> tuple[int, int, int, int]:
    """Draw (top, left, height, width) of a random resized crop.

    Area uniform between a share ``smallest`` of the image and all of it, aspect log-uniform in 3/4 to 4/3; after ten
    boxes that do not fit, the largest centered box of an allowed aspect. Source: torchvision,
    transforms.RandomResizedCrop.get_params.
    """
    lowest, highest = (math.log(aspect) for aspect in _ASPECT)
    for _ in range(_ATTEMPTS):
        area = height * width * (smallest + (1 - smallest) * uniform())
        aspect = math.exp(lowest + (highest - lowest) * uniform())
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(uniform() * (height - h + 1))
            return top, int(uniform() * (width - w + 1)), h, w
    w = min(width, round(height * _ASPECT[1]))
    h = min(height, round(width / _ASPECT[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def _two_operations(image: NDArray[np.uint8], size: int, uniform: Uniform) -> NDArray[np.uint8]:
    from cpt.data.randaugment import rand_augment

    return rand_augment(image, uniform)


AUGMENTATIONS = {
    "rrc_flip": Augmentation(random_crop_and_flip),
    "rrc_half_flip": Augmentation(partial(random_crop_and_flip, smallest=0.5)),
    "rand_augment": Augmentation(_two_operations, square=True),
}
"""Random resized crop and flip; the same with boxes of half the image at least (repo yunncheng/MMRL, configs); two
random operations (``cpt.data.randaugment``)."""
