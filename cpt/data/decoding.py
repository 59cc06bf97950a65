"""Decoding image files, whatever they hold; and reporting those that cannot be decoded."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from cpt.data.threads import map_blocks
from cpt.errors import CptError
from cpt.files.hashes import open_regular

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF", "JPEG2000")
"""What is decoded, by Pillow's names; JPEG includes MPO. Pillow knows more: PostScript is a program that it runs."""
_PIXELS = 2**30 // 12
"""Pixels of the largest image that is decoded: beyond them, Pillow warns of a decompression bomb."""
_BLOCK = 16
"""Images that a thread decodes at a time."""

T = TypeVar("T")


def failures(work: Callable[[T], object], items: Sequence[T], workers: int) -> list[str]:
    """Do some work on every item in threads; return the message of every ``CptError``, in the order of the items."""

    def message(item: T) -> str | None:
        try:
            work(item)
        except CptError as error:
            return str(error)
        return None

    return [found for found in map_blocks(message, items, workers, _BLOCK) if found]


def undecodable(paths: Sequence[Path], workers: int) -> list[str]:
    """Return why images cannot be decoded, one line for each of those that cannot."""
    return failures(decode, paths, workers)


def check_decodable(reasons: Sequence[str], count: int) -> None:
    """Raise one error for all images that could not be decoded.

    Raises:
        CptError: there are some.
    """
    if reasons:
        many = f"{len(reasons)} of {count} images cannot be decoded; " if len(reasons) > 1 else ""
        raise CptError(f"{many}{reasons[0]}")


def decode(path: Path) -> NDArray[np.uint8]:
    """Decode to RGB (H, W, 3), whatever the name says: the format is read off the bytes.

    Transparency and the orientation that EXIF states are ignored, as the reference does; the first frame counts.

    Raises:
        CptError: the image is missing or cannot be decoded.
    """
    return _decoded(path, lambda: open_regular(path))


def decode_bytes(content: bytes, name: str) -> NDArray[np.uint8]:
    """Decode an image that lies inside of another file; see ``decode``.

    Raises:
        CptError: it cannot be decoded.
    """
    return _decoded(name, lambda: io.BytesIO(content))


def _decoded(name: Path | str, opened: Callable[[], BinaryIO]) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        # An open file: Pillow would map some kinds by their paths, which not every disk can.
        with opened() as file, Image.open(file, formats=FORMATS) as image:
            return _rgb(image)
    except FileNotFoundError:
        raise CptError(f"{name}: image not found; put it back or make the manifest again") from None
    except UnidentifiedImageError:
        problem = f"none of {', '.join(FORMATS)}"
    except Exception as error:  # decoders raise anything on damaged bytes
        words = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
        problem = " ".join(words.split())
    raise CptError(f"{name}: image cannot be decoded ({problem}); replace or remove it")


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels of an open image.

    Samples of 16 bits keep their upper 8, where Pillow's own conversion would clip them to white. In the 32 bits that
    TIFF has for whole numbers they may also be of 8.
    """
    width, height = image.size
    if width * height > _PIXELS:
        raise ValueError(f"{width:,} x {height:,} pixels, of at most {_PIXELS:,}")
    if image.mode == "F":
        raise ValueError("floating-point samples")
    if not image.mode.startswith("I"):
        image.load()
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))  # to convert is to copy
    samples = np.asarray(image)
    most = samples.max()
    if samples.min() < 0 or most > 0xFFFF:
        raise ValueError("samples of more than 16 bits")
    if not (image.mode == "I" and image.format == "TIFF" and most <= 0xFF):
        if 0 < most <= 0xFF:
            raise ValueError(f"16-bit samples of at most {most} would all be black: save it with 8 bits")
        samples = samples >> 8
    return np.repeat(samples.astype(np.uint8)[..., None], 3, axis=2)
