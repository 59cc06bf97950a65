"""Images as users have them: files, folders, arrays and Pillow's images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cpt.data.decoding import decode
from cpt.data.images import PLAIN, Resizing, five_crops, resize_and_crop
from cpt.data.layouts.listing import SUFFIXES, image_files
from cpt.errors import CptError

if TYPE_CHECKING:
    from PIL import Image

OneImage: TypeAlias = "str | os.PathLike[str] | NDArray[np.uint8] | Image.Image"
"""A file, (H, W, 3) uint8 RGB, or an image of Pillow."""


def listed(images: OneImage | Iterable[OneImage]) -> list[OneImage]:
    """Return the images one by one: a folder stands for its image files, also those in folders below it.

    Raises:
        CptError: a folder holds no image file.
    """
    single = isinstance(images, str | os.PathLike | np.ndarray) or hasattr(images, "convert")
    if isinstance(images, np.ndarray) and images.ndim == 4:
        return list(images)
    found: list[OneImage] = []
    for image in [images] if single else images:  # type: ignore[union-attr]
        if isinstance(image, str | os.PathLike) and Path(image).is_dir():
            files = [Path(folder, name) for folder, _, _ in os.walk(Path(image)) for name in image_files(Path(folder))]
            if Path(image, "run.json").is_file():
                raise CptError(f"{image}: is a run, no image; where a pattern matches several, `cpt runs` helps")
            if not files:
                raise CptError(f"{image}: no image file in it or below; give files ending in {', '.join(SUFFIXES)}")
            found += sorted(files)
        else:
            found.append(image)  # type: ignore[arg-type]
    return found


def named(images: Sequence[OneImage]) -> list[str]:
    """Return the path of every image, or its position where it is none of a file."""
    return [
        os.fspath(image) if isinstance(image, str | os.PathLike) else str(place) for place, image in enumerate(images)
    ]


class Pixels:
    """Reads images under the test transform, for ``cpt.features.images.encode``.

    Attributes:
        size: height and width of what ``pixels`` returns.
        faults: position -> why the image cannot be used; its pixels are zeros.
    """

    def __init__(self, images: Sequence[OneImage], size: int, resizing: Resizing = PLAIN) -> None:
        self._images, self.size, self._resizing = images, size, resizing
        self.faults: dict[int, str] = {}

    def pixels(self, rows: ArrayLike) -> NDArray[np.uint8]:
        """Return (B, size, size, 3) of the images at some positions."""
        return self._read(rows, resize_and_crop, ())

    def five_crops(self, rows: ArrayLike) -> NDArray[np.uint8]:
        """Return (B, 5, size, size, 3), corners and center of the images at some positions, a little enlarged."""
        return self._read(rows, five_crops, (5,))

    def _read(
        self,
        rows: ArrayLike,
        transform: Callable[[NDArray[np.uint8], int, Resizing], NDArray[np.uint8]],
        crops: tuple[int, ...],
    ) -> NDArray[np.uint8]:
        """The transformed images at some positions; zeros in the place of those that cannot be used."""
        wanted = np.asarray(rows, dtype=np.int64).tolist()
        found = np.zeros((len(wanted), *crops, self.size, self.size, 3), np.uint8)
        for place, pixels in zip(wanted, found, strict=True):
            try:
                pixels[:] = transform(_decoded(self._images[place], place), self.size, self._resizing)
            except CptError as error:
                self.faults[place] = str(error)
        return found


def _decoded(image: OneImage, place: int) -> NDArray[np.uint8]:
    if isinstance(image, str | os.PathLike):
        if not Path(image).exists():
            raise CptError(f"{os.fspath(image)}: no such file; check its name")
        return decode(Path(image))
    pixels = image if isinstance(image, np.ndarray) else np.asarray(image.convert("RGB"))
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise CptError(
            f"image {place}: an array of shape {pixels.shape} and type {pixels.dtype}; give (height, width, 3) of uint8"
        )
    return pixels
