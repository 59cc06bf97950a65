"""Images of the embedded world that fill the canvas: textures and color gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from cpt.data.world.colors import JITTER, RGB, jitter
from cpt.data.world.subject import Subject

SIZE = 64
_AXIS = np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2
# Rotating these far would turn one class into another (vertical into diagonal into horizontal stripes).
_ORIENTED = ("horizontal stripes", "vertical stripes", "diagonal stripes", "grid", "crosshatch", "checkerboard")
_MAX_TILT = 0.25


def _turned(angle: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (64, 64) of all pixels in a frame turned by `angle` whose unit is `scale` pixels."""
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    return cos * _AXIS[None, :] + sin * _AXIS[:, None], cos * _AXIS[:, None] - sin * _AXIS[None, :]


def _fraction(x: np.ndarray) -> np.ndarray:
    return x - np.floor(x)


# Where a pattern has its first color, from coordinates (64, 64) in periods.
_PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "horizontal stripes": lambda x, y: _fraction(y) < 0.5,
    "vertical stripes": lambda x, y: _fraction(x) < 0.5,
    "diagonal stripes": lambda x, y: _fraction((x + y) * 0.8) < 0.5,
    "checkerboard": lambda x, y: (np.floor(1.4 * x) + np.floor(1.4 * y)) % 2 == 0,
    "polka dots": lambda x, y: (_fraction(x) - 0.5) ** 2 + (_fraction(y) - 0.5) ** 2 < 0.1,
    "grid": lambda x, y: (_fraction(x) < 0.24) | (_fraction(y) < 0.24),
    "zigzag": lambda x, y: _fraction(y + 0.9 * np.abs(_fraction(0.8 * x) - 0.5)) < 0.5,
    "waves": lambda x, y: _fraction(y + 0.28 * np.sin(2 * np.pi * 0.7 * x)) < 0.5,
    "bricks": lambda x, y: (_fraction(1.5 * y) > 0.24) & (_fraction(0.7 * x + 0.5 * (np.floor(1.5 * y) % 2)) > 0.12),
    "crosshatch": lambda x, y: (_fraction(0.8 * (x + y)) < 0.26) | (_fraction(0.8 * (x - y)) < 0.26),
    "rings pattern": lambda x, y: _fraction(np.sqrt(x * x + y * y)) < 0.5,
}


def texture(subject: Subject) -> Image.Image:
    """A 64x64 image of a pattern in a color on a light or a dark ground.

    Its scale is 0 (period 6 pixels) to 1 (20 pixels of 64). Patterns that differ by orientation turn by at most 0.25.
    """
    pattern, color, fineness, tilt = subject.composition[1], subject.color, subject.scale, subject.angle
    rnd, rng = subject.rnd, subject.rng
    x, y = _turned(max(-_MAX_TILT, min(_MAX_TILT, tilt)) if pattern in _ORIENTED else tilt, 6 + 14 * fineness)
    x, y = x + rnd.random(), y + rnd.random()
    if pattern in _PATTERNS:
        mask = _PATTERNS[pattern](x, y)
    else:  # speckles: grains of two to four pixels
        grain = 2 if rng.random() < 0.5 else 4
        mask = np.kron(rng.random((SIZE // grain, SIZE // grain)) < 0.3, np.ones((grain, grain), bool))
    light = sum(color) < 330 or (sum(color) < 560 and rnd.random() < 0.5)
    level = rnd.uniform(215, 250) if light else rnd.uniform(8, 55)
    ground = np.clip(level + rng.uniform(-14, 14, 3), 0, 255)
    pixels = np.where(mask[:, :, None], np.array(color, np.float32), ground.astype(np.float32))
    return Image.fromarray(pixels.astype(np.uint8))


def gradient(subject: Subject) -> Image.Image:
    """A 64x64 image from one color to another, left to right or top to bottom, at most 0.5 rad askew."""
    start, rnd = subject.color, subject.rnd
    stop = jitter(RGB[subject.composition[1]], JITTER, rnd)
    x, y = _turned(rnd.uniform(-0.5, 0.5), SIZE)
    ramp = np.clip((y if rnd.random() < 0.5 else x) + 0.5, 0, 1) ** rnd.uniform(0.7, 1.4)
    pixels = np.array(start, np.float32) * (1 - ramp[:, :, None]) + np.array(stop, np.float32) * ramp[:, :, None]
    return Image.fromarray(pixels.astype(np.uint8))
