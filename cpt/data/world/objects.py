"""Objects of the embedded world drawn on a canvas: shapes, letters, digits, arrangements.

Every object is drawn in its own coordinates (the unit circle, y pointing down) by a `Pen` that rotates, scales
and places it.
"""

from __future__ import annotations

import math
import random
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cpt.data.world.colors import Color
from cpt.data.world.subject import Subject
from cpt.errors import CptError

Point = tuple[float, float]

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

FONTS = {
    "plain": ("DejaVuSans",),
    "bold": ("DejaVuSans-Bold", "DejaVuSansMono-Bold"),
    "serif": ("DejaVuSerif", "cmr10", "STIXGeneral"),
    "italic": ("DejaVuSans-Oblique", "STIXGeneralItalic", "DejaVuSerif-Italic"),
}
# Half of the hand-written digits teach the tiny CLIP, the others are the dataset's: no scan is in two parts.
SCAN_SHARES = {"web": (0.0, 0.5), "train": (0.5, 0.7), "test": (0.7, 1.0)}


def arc(start: float, stop: float, count: int, rx: float = 1.0, ry: float = 1.0, at: Point = (0.0, 0.0)) -> np.ndarray:
    """Points of an elliptic arc from angle `start` to `stop` (radians), an array (count, 2)."""
    angles = np.linspace(start, stop, count)
    return np.stack([at[0] + rx * np.cos(angles), at[1] + ry * np.sin(angles)], axis=1)


def ngon(corners: int, inner: float | None = None) -> np.ndarray:
    """A regular polygon with a corner on top; with `inner`, a star whose inner corners have this radius."""
    count = corners if inner is None else 2 * corners
    angles = 2 * np.pi * np.arange(count) / count - np.pi / 2
    radii = np.ones(count) if inner is None else np.where(np.arange(count) % 2, inner, 1.0)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 28)
    x, y = 16 * np.sin(t) ** 3, 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y - 2.5], axis=1) / 16


def _cross() -> np.ndarray:
    corner = np.array([(-0.34, -1), (0.34, -1), (0.34, -0.34)])
    quarter = np.array([(0, 1), (-1, 0)])
    return 0.9 * np.concatenate([corner @ np.linalg.matrix_power(quarter, turn) for turn in range(4)])


CIRCLE = arc(0, 2 * np.pi, 24)
OUTLINES = {
    "circle": 0.92 * CIRCLE,
    "square": 0.78 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]),
    "triangle": ngon(3),
    "pentagon": ngon(5),
    "hexagon": ngon(6),
    "star": ngon(5, 0.42),
    "cross": _cross(),
    "ring": np.concatenate([0.95 * CIRCLE, 0.52 * CIRCLE[::-1]]),
    "heart": _heart(),
    "diamond": np.array([(0, -1), (0.62, 0), (0, 1), (-0.62, 0)]),
    # The two arcs meet at the tips, (0.61, -0.79) and (0.61, 0.79).
    "crescent": np.concatenate([arc(5.371, 0.912, 20), arc(1.194, 5.089, 16, 0.85, 0.85, (0.3, 0))]),
    "arrow": np.array([(-1, -0.3), (0.1, -0.3), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.3), (-1, 0.3)]),
}


class Pen:
    """Draws in the coordinates of an object of a radius in pixels, turned by `angle` radians, flipped if asked."""

    def __init__(self, image: Image.Image, center: Point, radius: float, angle: float = 0.0, flip: bool = False):
        self.draw = ImageDraw.Draw(image)
        self.center, self.radius = center, radius
        cos, sin = radius * math.cos(angle), radius * math.sin(angle)
        sign = -1 if flip else 1
        self.matrix = np.array([(sign * cos, sign * sin), (-sin, cos)])

    def points(self, points: np.ndarray | list[Point]) -> list[float]:
        """Points (n, 2) of the object as flat pixel coordinates of the image."""
        return (np.asarray(points, dtype=float) @ self.matrix + self.center).ravel().tolist()

    def polygon(self, points: np.ndarray | list[Point], fill: Color | int) -> None:
        """A filled polygon."""
        self.draw.polygon(self.points(points), fill=fill)

    def disc(self, x: float, y: float, rx: float, fill: Color, ry: float | None = None, tilt: float = 0.0) -> None:
        """A filled ellipse, its own axes turned by `tilt` radians."""
        cos, sin = math.cos(tilt), math.sin(tilt)
        points = (CIRCLE[::2] * (rx, rx if ry is None else ry)) @ np.array([(cos, sin), (-sin, cos)])
        self.polygon(points + np.array((x, y)), fill)

    def line(self, points: np.ndarray | list[Point], width: float, fill: Color) -> None:
        """A line of a width in object units, at least one pixel."""
        self.draw.line(self.points(points), fill=fill, width=max(1, round(width * self.radius)))


def draw_shape(pen: Pen, subject: Subject) -> None:
    """Draws one of the twelve shapes."""
    pen.polygon(OUTLINES[subject.composition[1]], subject.color)


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise CptError("the embedded world draws letters with the fonts of matplotlib; install matplotlib")
    return ImageFont.truetype(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf", size)


def letter_mask(subject: Subject, radius: float) -> Image.Image:
    """A capital as a mask ("L", 64x64), centered; half its height is 0.86 of `radius` pixels."""
    style, letter = subject.composition
    drawn = font(subject.rnd.choice(FONTS[style]), 2 * round(1.3 * (0.86 * radius)))
    mask = Image.new("L", (64, 64))
    left, top, right, bottom = drawn.getbbox(letter.upper())
    ImageDraw.Draw(mask).text((32 - (left + right) / 2, 32 - (top + bottom) / 2), letter.upper(), fill=255, font=drawn)
    # turned further, an upright letter would look italic
    return mask.rotate(math.degrees(0.4 * subject.angle), Image.Resampling.BILINEAR)


@cache
def scans(digit: str, part: str) -> np.ndarray:
    """Real hand-written digits of scikit-learn's `load_digits` (optdigits, UCI), float (n, 8, 8) in 0-16.

    Args:
        part: "web", "train" or "test": 50, 20 and 30 percent of each digit's scans, disjoint.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    indices = np.flatnonzero(data.target == DIGITS.index(digit)).tolist()
    random.Random(f"scans {digit}").shuffle(indices)
    start, stop = (round(share * len(indices)) for share in SCAN_SHARES[part])
    return data.images[indices[start:stop]]


def digit_mask(subject: Subject, radius: float) -> Image.Image:
    """A scanned digit as a mask ("L", 64x64), centered; `radius` half its size in pixels."""
    scan = subject.rnd.choice(scans(subject.composition[1], subject.part))
    size = max(8, round(2 * radius))
    small = Image.fromarray(np.minimum(scan * 16, 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    mask = Image.new("L", (64, 64))
    mask.paste(small, ((64 - size) // 2, (64 - size) // 2))
    return mask.rotate(math.degrees(subject.angle), Image.Resampling.BILINEAR)


def draw_arrangement(pen: Pen, subject: Subject) -> None:
    """Draws two to four copies of a shape in a row, in a column, on a diagonal, or inside a drawn circle."""
    number, shapes, layout = subject.composition
    color, rnd = subject.color, subject.rnd
    count = ("two", "three", "four").index(number) + 2
    shape = {"crosses": "cross"}.get(shapes, shapes[:-1])
    steps = np.linspace(-1, 1, count)
    size = {2: 0.42, 3: 0.33, 4: 0.25}[count]
    if layout == "in a circle":
        turn = rnd.uniform(0, 2 * math.pi)
        size = {2: 0.38, 3: 0.33, 4: 0.29}[count]
        places = 0.52 * arc(turn, turn + 2 * np.pi * (1 - 1 / count), count)
        # Without the outline, two objects "in a circle" would be a row or a diagonal.
        pen.line(arc(0, 2 * np.pi, 32), 0.07, color)
    elif layout == "on a diagonal":
        places = np.stack([steps, steps * rnd.choice((-1, 1))], axis=1) * (0.95 - size)
        size *= 1.15
    else:
        places = np.stack([steps, np.zeros(count)], axis=1) * (1 - size)
        places = places[:, ::-1] if layout == "in a column" else places
    for x, y in places:
        offset = (x + rnd.uniform(-0.03, 0.03), y + rnd.uniform(-0.03, 0.03))
        pen.polygon(OUTLINES[shape] * size + offset, color)
