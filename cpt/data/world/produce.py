"""Fruit, sea animals and trees of the second generated world."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from cpt.data.world.colors import Color, jitter, shade
from cpt.data.world.fields import SIZE
from cpt.data.world.objects import Pen, arc, ngon
from cpt.data.world.subject import Subject

_STALK, _LEAF = (90, 60, 30), (50, 130, 45)
_INK, _LIGHT = (20, 20, 24), (245, 245, 245)


# ---- fruit -------------------------------------------------------------------------------------


def draw_fruit(pen: Pen, subject: Subject) -> None:
    """Draws one of eight fruits."""
    kind, color = subject.composition[1], subject.color
    if kind == "apple":
        for side in (-1, 1):
            pen.disc(0.3 * side, 0.12, 0.6, color, 0.72)
        pen.line([(0, -0.45), (0.12, -1.0)], 0.13, _STALK)
        pen.disc(0.42, -0.8, 0.32, _LEAF, 0.14, -0.4)
    elif kind == "pear":
        pen.disc(0, 0.36, 0.62, color)
        pen.polygon([(-0.6, 0.3), (-0.28, -0.5), (0.28, -0.5), (0.6, 0.3)], color)
        pen.disc(0, -0.45, 0.31, color)
        pen.line([(0, -0.7), (0.14, -1.05)], 0.13, _STALK)
    elif kind == "banana":
        outer, inner = arc(0.35, 2.8, 16, 1.0, 0.95, (0, -0.35)), arc(2.7, 0.45, 16, 0.85, 0.45, (0, -0.38))
        pen.polygon(np.concatenate([outer, inner]), color)
        for side in (-1, 1):
            pen.disc(0.9 * side, -0.05, 0.12, _STALK)
    elif kind == "cherries":
        for x, y in ((-0.48, 0.45), (0.48, 0.6)):
            pen.line([(x, y), (0.1, -0.95)], 0.1, _LEAF)
            pen.disc(x, y, 0.4, color)
            pen.disc(x - 0.12, y - 0.14, 0.1, shade(color, 2.2))
        pen.disc(0.4, -0.85, 0.34, _LEAF, 0.15, 0.3)
    elif kind == "grapes":
        for row, count in enumerate((4, 3, 2, 1)):
            for i in range(count):
                x = 0.46 * (i - (count - 1) / 2)
                pen.disc(x, -0.45 + 0.42 * row, 0.25, shade(color, 0.55))
                pen.disc(x - 0.03, -0.48 + 0.42 * row, 0.2, color)
        pen.line([(0, -0.6), (0, -1.05)], 0.13, _STALK)
    elif kind == "strawberry":
        pen.polygon([(-0.72, -0.4), (0.72, -0.4), (0.5, 0.35), (0, 0.98), (-0.5, 0.35)], color)
        for side in (-1, 1):
            pen.disc(0.38 * side, -0.36, 0.36, color, 0.25)
        for x, y in ((-0.35, -0.1), (0.05, -0.1), (0.4, -0.1), (-0.17, 0.25), (0.2, 0.25), (0.02, 0.55)):
            pen.disc(x, y, 0.07, shade(color, 2.5))
        pen.polygon(ngon(6, 0.35) * (0.75, 0.4) + (0, -0.6), _LEAF)
    elif kind == "melon":
        pen.disc(0, 0, 0.92, color, 0.78)
        for x in (-0.6, 0.0, 0.6):
            bow = np.stack([x * np.cos(np.linspace(-1.3, 1.3, 9)) * 1.2, 0.74 * np.linspace(-1, 1, 9)], axis=1)
            pen.line(bow, 0.14, shade(color, 0.55))
    else:  # pineapple
        for x, y, tilt in ((-0.35, -0.72, 0.9), (0.35, -0.72, -0.9), (0, -0.8, math.pi / 2)):
            pen.disc(x, y, 0.36, _LEAF, 0.13, tilt)
        pen.disc(0, 0.3, 0.52, color, 0.7)
        for start, stop in ((3.6, 1.7), (4.3, 1.0), (5.0, 0.3)):
            for side in (-1, 1):
                ends = [(0.5 * side * math.cos(angle), 0.3 + 0.68 * math.sin(angle)) for angle in (start, stop)]
                pen.line(ends, 0.06, shade(color, 0.5))


# ---- sea animals -------------------------------------------------------------------------------


def draw_sea_animal(pen: Pen, subject: Subject) -> None:
    """Draws one of eight sea animals from the side."""
    kind, color, rnd = subject.composition[1], subject.color, subject.rnd
    dark, pale = shade(color, 0.6), shade(color, 2.2)
    if kind == "fish":
        pen.polygon([(-0.4, 0), (-1, -0.5), (-0.85, 0), (-1, 0.5)], dark)
        pen.disc(0.15, 0, 0.75, color, 0.45)
        pen.polygon([(-0.2, -0.35), (0.3, -0.75), (0.4, -0.35)], dark)
        for x in (-0.1, 0.2):
            pen.line(arc(-1.1, 1.1, 7, 0.15, 0.4, (x, 0)), 0.09, dark)
        _eye(pen, 0.6, -0.1)
    elif kind == "shark":
        pen.polygon([(1, 0), (0.4, -0.28), (-0.6, -0.1), (-1, -0.62), (-0.88, 0), (-1, 0.4), (-0.6, 0.1), (0.4, 0.28)],
                    color)  # fmt: skip
        pen.polygon([(-0.05, -0.15), (-0.05, -0.78), (0.4, -0.2)], color)
        pen.polygon([(0.05, 0.15), (-0.2, 0.65), (0.4, 0.2)], dark)
        pen.polygon([(0.95, 0.03), (0.4, 0.26), (-0.4, 0.1)], pale)
        _eye(pen, 0.62, -0.08)
    elif kind == "whale":
        pen.polygon([(-0.55, 0.25), (-0.95, -0.3), (-1.0, -0.62), (-0.76, -0.42), (-0.5, -0.6), (-0.6, -0.25),
                     (-0.2, 0.0)], color)  # fmt: skip
        pen.disc(0.25, 0.2, 0.72, color, 0.55)
        pen.disc(0.35, 0.5, 0.55, pale, 0.22)
        for side in (-1, 1):
            pen.line([(0.3, -0.35), (0.3, -0.6), (0.3 + 0.25 * side, -0.9)], 0.1, (120, 190, 240))
        _eye(pen, 0.66, 0.12)
    elif kind == "crab":
        for side in (-1, 1):
            for y in (0.15, 0.4, 0.62):
                pen.line([(0.3 * side, 0.2), (0.8 * side, y - 0.1), (0.95 * side, y + 0.25)], 0.1, dark)
            pen.line([(0.4 * side, 0.1), (0.75 * side, -0.4)], 0.14, color)
            claw = arc(-1.1, 4.2, 12, 0.3, 0.3, (0.75 * side, -0.62))
            pen.polygon(np.concatenate([claw, [(0.75 * side, -0.62)]]), color)
            pen.line([(0.18 * side, 0.0), (0.18 * side, -0.3)], 0.08, dark)
            pen.disc(0.18 * side, -0.32, 0.09, _INK)
        pen.disc(0, 0.25, 0.58, color, 0.4)
    elif kind == "octopus":
        for i, x in enumerate((-0.85, -0.5, -0.17, 0.17, 0.5, 0.85)):
            sway = 0.12 * (-1) ** i
            pen.line([(0.5 * x, 0.0), (0.8 * x + sway, 0.4), (x - sway, 0.7), (1.05 * x + sway, 0.98)], 0.17, color)
        pen.disc(0, -0.3, 0.55, color, 0.65)
        for side in (-1, 1):
            pen.disc(0.2 * side, -0.2, 0.13, _LIGHT)
            pen.disc(0.2 * side, -0.18, 0.07, _INK)
    elif kind == "jellyfish":
        for x in (-0.55, -0.2, 0.15, 0.5):
            turn = rnd.uniform(0, 2 * math.pi)
            down = np.linspace(0, 1, 7)
            arm = np.stack([x + 0.09 * np.sin(7 * down + turn), -0.1 + 1.05 * down], axis=1)
            pen.line(arm, 0.08, shade(color, 1.5))
        pen.polygon(np.concatenate([arc(math.pi, 2 * math.pi, 14, 0.8, 0.85), [(0.8, 0.08), (-0.8, 0.08)]]), color)
        pen.polygon(arc(math.pi, 2 * math.pi, 14, 0.5, 0.5), pale)
    elif kind == "starfish":
        pen.polygon(ngon(5, 0.36), color)
        for angle in -math.pi / 2 + 2 * math.pi / 5 * np.arange(5):
            for reach in (0.3, 0.55):
                pen.disc(reach * math.cos(angle), reach * math.sin(angle), 0.08, pale)
    else:  # turtle
        for x, y, tilt in ((0.45, -0.55, -0.9), (0.45, 0.55, 0.9), (-0.5, -0.5, 0.9), (-0.5, 0.5, -0.9)):
            pen.disc(x, y, 0.36, pale, 0.16, tilt)
        pen.disc(0.82, 0, 0.22, pale, 0.18)
        pen.disc(0, 0, 0.68, color, 0.58)
        pen.polygon(ngon(6) * 0.3, dark)
        for angle in math.pi / 3 * np.arange(6) + math.pi / 6:
            x, y = math.cos(angle), math.sin(angle)
            pen.line([(0.3 * x, 0.3 * y), (0.64 * x, 0.54 * y)], 0.07, dark)


def _eye(pen: Pen, x: float, y: float) -> None:
    pen.disc(x, y, 0.1, _LIGHT)
    pen.disc(x, y, 0.06, _INK)


# ---- trees -------------------------------------------------------------------------------------

# Sky, ground, foliage.
_SEASONS: dict[str, tuple[Color, Color, Color]] = {
    "in spring": ((170, 210, 245), (140, 200, 90), (240, 165, 200)),
    "in summer": ((90, 165, 240), (85, 155, 55), (40, 115, 40)),
    "in autumn": ((195, 185, 170), (160, 120, 60), (215, 110, 30)),
    "in winter": ((185, 195, 210), (240, 244, 250), (150, 140, 135)),
}


def tree(subject: Subject) -> Image.Image:
    """A 64x64 image of one of eight trees in a season, with a random place and size."""
    (kind, season), rnd = subject.composition, subject.rnd
    sky, ground, leaves = (jitter(color, 14, rnd) for color in _SEASONS[season])
    horizon = rnd.randint(44, 54)
    image = Image.new("RGB", (SIZE, SIZE), sky)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, horizon, SIZE, SIZE), fill=ground)
    for _ in range(8):  # flowers, grass, fallen leaves, snow
        x, y = rnd.randint(0, 62), rnd.randint(horizon, 62)
        draw.rectangle((x, y, x + 1, y + 1), fill=leaves if season != "in winter" else (210, 220, 235))
    size = rnd.uniform(0.85, 1.1)
    pen = Pen(image, (rnd.uniform(25, 39), horizon + 3 - 26 * size), 27 * size, flip=rnd.random() < 0.5)
    _DRAWN[kind](pen, leaves, season == "in winter")
    if season == "in winter":
        for _ in range(14):
            x, y = rnd.randint(0, 62), rnd.randint(0, 62)
            draw.rectangle((x, y, x + 1, y + 1), fill=(250, 252, 255))
    return image


def _crown(pen: Pen, discs: list[tuple[float, float, float, float]], leaves: Color, bare: bool, bark: Color) -> None:
    """Foliage, or in winter branches in its place with snow on them."""
    for x, y, rx, ry in discs:
        if bare:
            for angle in np.linspace(math.pi * 1.1, math.pi * 1.9, 6):
                tip = (x + 0.95 * rx * math.cos(angle), y + 0.2 * ry + 1.1 * ry * math.sin(angle))
                pen.line([(x, y + 0.6 * ry), tip], 0.07, bark)
                pen.disc(*tip, 0.06, (250, 252, 255))
        else:
            pen.disc(x, y, rx, leaves, ry)
            pen.disc(x - 0.25 * rx, y - 0.25 * ry, 0.55 * rx, shade(leaves, 1.3), 0.5 * ry)


def _oak(pen: Pen, leaves: Color, bare: bool) -> None:
    bark = (95, 65, 40)
    pen.polygon([(-0.2, 1), (-0.12, 0), (0.12, 0), (0.2, 1)], bark)
    _crown(pen, [(-0.4, -0.15, 0.48, 0.42), (0.4, -0.15, 0.48, 0.42), (0, -0.5, 0.5, 0.45)], leaves, bare, bark)


def _pine(pen: Pen, leaves: Color, bare: bool) -> None:
    pen.polygon([(-0.1, 1), (-0.1, 0.5), (0.1, 0.5), (0.1, 1)], (90, 60, 35))
    red, green, blue = leaves
    needles = shade((35, 85, 50), 1.25) if bare else ((red + 30) // 2, (green + 90) // 2, (blue + 45) // 2)
    for top, wide, low in ((-0.98, 0.36, -0.4), (-0.65, 0.5, 0.05), (-0.3, 0.64, 0.6)):
        pen.polygon([(0, top), (wide, low), (-wide, low)], needles)
        if bare:
            pen.polygon([(0, top), (0.45 * wide, top + 0.3), (-0.45 * wide, top + 0.3)], (250, 252, 255))


def _palm(pen: Pen, leaves: Color, bare: bool) -> None:
    pen.line([(0.1, 1), (0.02, 0.4), (-0.12, -0.3)], 0.15, (135, 100, 60))
    for x, y in ((-0.8, -0.1), (-0.7, -0.6), (-0.3, -0.9), (0.2, -0.9), (0.5, -0.55), (0.6, 0.0)):
        bend = (-0.12 + 0.6 * (x + 0.12), -0.42 + 0.7 * (y + 0.3))
        pen.line([(-0.12, -0.35), bend, (x, y)], 0.16, shade(leaves, 0.9))
        if bare:
            pen.line([(-0.12, -0.42), bend], 0.06, (250, 252, 255))
    for x in (-0.22, -0.02):
        pen.disc(x, -0.22, 0.09, (90, 55, 30))


def _birch(pen: Pen, leaves: Color, bare: bool) -> None:
    white = (238, 238, 232)
    pen.polygon([(-0.12, 1), (-0.09, -0.3), (0.09, -0.3), (0.12, 1)], white)
    _crown(pen, [(0, -0.42, 0.4, 0.55)], leaves, bare, (120, 110, 105))
    for y in (0.25, 0.5, 0.75):
        pen.line([(-0.1, y), (0.06, y)], 0.07, _INK)
    pen.line([(0, -0.3), (0, 0.15)], 0.12, white)


def _willow(pen: Pen, leaves: Color, bare: bool) -> None:
    bark = (105, 80, 55)
    pen.polygon([(-0.16, 1), (-0.1, -0.3), (0.1, -0.3), (0.16, 1)], bark)
    twigs = bark if bare else leaves
    if not bare:
        pen.disc(0, -0.5, 0.7, leaves, 0.38)
    for x in np.linspace(-0.85, 0.85, 9):
        top = -0.75 + 0.45 * x * x
        pen.line([(0.5 * x, top), (0.95 * x, top + 0.35), (x, 0.55 + 0.15 * math.cos(9 * x))], 0.09, shade(twigs, 1.15))
        if bare:
            pen.disc(0.5 * x, top, 0.07, (250, 252, 255))


def _poplar(pen: Pen, leaves: Color, bare: bool) -> None:
    bark = (100, 75, 50)
    pen.polygon([(-0.07, 1), (-0.07, 0.4), (0.07, 0.4), (0.07, 1)], bark)
    if bare:
        pen.line([(0, 1), (0, -1)], 0.09, bark)
        for y in np.linspace(-0.7, 0.5, 6):
            for side in (-1, 1):
                pen.line([(0, y), (0.22 * side, y - 0.3)], 0.06, bark)
                pen.disc(0.22 * side, y - 0.3, 0.05, (250, 252, 255))
    else:
        pen.disc(0, -0.2, 0.27, leaves, 0.85)
        pen.disc(-0.07, -0.3, 0.12, shade(leaves, 1.3), 0.55)


def _acacia(pen: Pen, leaves: Color, bare: bool) -> None:
    bark = (110, 80, 50)
    pen.line([(0, 1), (0.05, 0.3), (-0.45, -0.3)], 0.13, bark)
    pen.line([(0.05, 0.3), (0.5, -0.3)], 0.13, bark)
    for x, y, wide in ((-0.4, -0.35, 0.52), (0.42, -0.38, 0.52), (0, -0.55, 0.6)):
        pen.disc(x, y, wide, leaves if not bare else bark, 0.16)
        if bare:
            pen.disc(x, y - 0.08, 0.9 * wide, (250, 252, 255), 0.08)


def _baobab(pen: Pen, leaves: Color, bare: bool) -> None:
    bark = (150, 115, 85)
    pen.polygon([(-0.42, 1), (-0.34, -0.2), (0.34, -0.2), (0.42, 1)], bark)
    for x, y in ((-0.75, -0.65), (-0.3, -0.85), (0.3, -0.85), (0.75, -0.65)):
        pen.line([(0.35 * x, -0.1), (x, y)], 0.15, bark)
        pen.disc(x, y, 0.25, (250, 252, 255) if bare else leaves, 0.06 if bare else 0.18)


_DRAWN = {
    "oak": _oak, "pine": _pine, "palm": _palm, "birch": _birch, "willow": _willow, "poplar": _poplar,
    "acacia": _acacia, "baobab": _baobab,
}  # fmt: skip
SEASONS, TREES = tuple(_SEASONS), tuple(_DRAWN)
