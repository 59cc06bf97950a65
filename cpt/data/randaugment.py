"""RandAugment as CoPrompt's training uses it: two random operations of medium strength on one image.

Operations and ranges are those of repo KaiyangZhou/Dassl.pytorch, dassl/data/transforms/randaugment.py, at magnitude
10 of 30, for the published 224 pixels; lengths scale with the image here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

OPERATIONS = 2
_PUBLISHED_SIZE = 224
_GREY = (125, 123, 114)

Uniform = Callable[[], float]
Operation = Callable[[Image.Image, Uniform], Image.Image]


def rand_augment(image: NDArray[np.uint8], uniform: Uniform) -> NDArray[np.uint8]:
    """Apply two operations, drawn with replacement, to (H, W, 3).

    Args:
        uniform: a source of numbers in [0, 1).
    """
    picture: Image.Image = Image.fromarray(image)
    for _ in range(OPERATIONS):
        picture = _ALL[int(uniform() * len(_ALL))](picture, uniform)
    return np.asarray(picture)


def _affine(x: float = 0, y: float = 0, shear_x: float = 0, shear_y: float = 0) -> Operation:
    """Shift or shear, either way; shifts are in published pixels."""

    def apply(picture: Image.Image, uniform: Uniform) -> Image.Image:
        sign = -1 if uniform() < 0.5 else 1
        right, down = (sign * shift * picture.width / _PUBLISHED_SIZE for shift in (x, y))
        matrix = (1, sign * shear_x, right, sign * shear_y, 1, down)
        return picture.transform(picture.size, Image.Transform.AFFINE, matrix)

    return apply


def _solarize_add(picture: Image.Image, _: Uniform) -> Image.Image:
    """Brighten, then invert what is bright: the published code adds first, and adds to every pixel."""
    brighter = np.minimum(np.asarray(picture).astype(np.int64) + int(110 / 3), 255)
    return ImageOps.solarize(Image.fromarray(brighter.astype(np.uint8)), 128)


def _cutout(picture: Image.Image, uniform: Uniform) -> Image.Image:
    side = 40 / 3 * picture.width / _PUBLISHED_SIZE
    x, y = (uniform() * length for length in picture.size)
    left, top = int(max(0, x - side / 2)), int(max(0, y - side / 2))
    box = (left, top, min(picture.width, left + side), min(picture.height, top + side))
    picture = picture.copy()
    ImageDraw.Draw(picture).rectangle(box, _GREY)
    return picture


def _enhanced(kind: type) -> Operation:
    return lambda picture, _: kind(picture).enhance(0.7)


_ALL: tuple[Operation, ...] = (
    lambda picture, _: ImageOps.autocontrast(picture),
    lambda picture, _: ImageOps.equalize(picture),
    lambda picture, _: ImageOps.invert(picture),
    lambda picture, uniform: picture.rotate(-10 if uniform() < 0.5 else 10),
    lambda picture, _: ImageOps.posterize(picture, 5),
    lambda picture, _: ImageOps.solarize(picture, 86),
    _solarize_add,
    _enhanced(ImageEnhance.Color),
    _enhanced(ImageEnhance.Contrast),
    _enhanced(ImageEnhance.Brightness),
    _enhanced(ImageEnhance.Sharpness),
    _affine(shear_x=0.1),
    _affine(shear_y=0.1),
    _cutout,
    _affine(x=100 / 3),
    _affine(y=100 / 3),
)
