"""Colors of the embedded world: their names, their values, and their variations."""

from __future__ import annotations

import random

Color = tuple[int, int, int]

RGB = {
    "red": (214, 38, 40),
    "orange": (245, 134, 26),
    "yellow": (245, 220, 40),
    "green": (50, 160, 50),
    "teal": (20, 165, 165),
    "blue": (40, 80, 210),
    "purple": (125, 45, 170),
    "pink": (245, 125, 185),
    "brown": (125, 75, 35),
    "white": (245, 245, 245),
    "gray": (130, 130, 130),
    "black": (22, 22, 22),
}
COLORS = tuple(RGB)[:10]
JITTER = 22
"""How far the channels of an object's color are from its name's, at most."""


def shade(color: Color, factor: float) -> Color:
    """A darker (factor < 1) or lighter (factor > 1) tone of a color."""
    red, green, blue = (round(c * factor if factor <= 1 else 255 - (255 - c) / factor) for c in color)
    return red, green, blue


def jitter(color: Color, amount: int, rnd: random.Random) -> Color:
    """A color whose channels are moved by up to `amount`, within 0-255."""
    red, green, blue = (max(0, min(255, c + rnd.randint(-amount, amount))) for c in color)
    return red, green, blue
