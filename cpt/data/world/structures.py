"""Buildings and surfaces of the second generated world."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from cpt.data.world.colors import Color, jitter, shade
from cpt.data.world.fields import SIZE
from cpt.data.world.objects import Pen, Point, arc
from cpt.data.world.subject import Subject

_GLASS, _DOOR, _LIGHT = (70, 85, 115), (85, 55, 35), (245, 245, 240)


def _box(x0: float, y0: float, x1: float, y1: float) -> list[Point]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


# ---- buildings ---------------------------------------------------------------------------------


def draw_building(pen: Pen, subject: Subject) -> None:
    """Draws one of eight buildings from the front."""
    kind, color = subject.composition[1], subject.color
    _BUILDINGS[kind](pen, color, shade(color, 0.5))


def _house(pen: Pen, wall: Color, roof: Color) -> None:
    pen.polygon(_box(-0.75, -0.1, 0.75, 0.85), wall)
    pen.polygon([(-0.95, -0.1), (0, -0.85), (0.95, -0.1)], roof)
    pen.polygon(_box(0.4, -0.85, 0.6, -0.3), roof)
    pen.polygon(_box(-0.15, 0.3, 0.15, 0.85), _DOOR)
    for x in (-0.6, 0.32):
        pen.polygon(_box(x, 0.1, x + 0.28, 0.4), _GLASS)


def _castle(pen: Pen, wall: Color, roof: Color) -> None:
    pen.polygon(_box(-0.55, -0.15, 0.55, 0.85), wall)
    for x in (-0.55, -0.19, 0.17):
        pen.polygon(_box(x + 0.07, -0.35, x + 0.29, -0.1), wall)
    for side in (-1, 1):
        pen.polygon(_box(0.75 * side - 0.24, -0.5, 0.75 * side + 0.24, 0.85), shade(wall, 0.8))
        for x in (-0.24, -0.04, 0.16):
            pen.polygon(_box(0.75 * side + x, -0.68, 0.75 * side + x + 0.1, -0.45), shade(wall, 0.8))
        pen.polygon(_box(0.75 * side - 0.07, -0.25, 0.75 * side + 0.07, 0.05), _GLASS)
    pen.polygon(np.concatenate([arc(math.pi, 2 * math.pi, 8, 0.22, 0.25, (0, 0.45)), [(0.22, 0.85), (-0.22, 0.85)]]),
                _DOOR)  # fmt: skip


def _church(pen: Pen, wall: Color, roof: Color) -> None:
    pen.polygon(_box(-0.1, 0.0, 0.9, 0.85), wall)
    pen.polygon([(-0.1, 0.0), (0.05, -0.35), (0.75, -0.35), (0.95, 0.0)], roof)
    pen.polygon(_box(-0.7, -0.25, -0.1, 0.85), shade(wall, 0.85))
    pen.polygon([(-0.75, -0.25), (-0.4, -0.8), (-0.05, -0.25)], roof)
    pen.line([(-0.4, -0.75), (-0.4, -1.1)], 0.09, (40, 40, 44))
    pen.line([(-0.54, -0.98), (-0.26, -0.98)], 0.09, (40, 40, 44))
    for x in (0.15, 0.5):
        pen.polygon(_box(x, 0.2, x + 0.16, 0.55), _GLASS)
    pen.polygon(_box(-0.52, 0.45, -0.28, 0.85), _DOOR)


def _lighthouse(pen: Pen, wall: Color, roof: Color) -> None:
    pen.polygon([(-0.22, -0.5), (0.22, -0.5), (0.4, 0.9), (-0.4, 0.9)], wall)
    for y in (-0.2, 0.3):
        wide = 0.27 + 0.13 * (y + 0.2)
        pen.polygon([(-wide, y), (wide, y), (wide + 0.03, y + 0.22), (-wide - 0.03, y + 0.22)], _LIGHT)
    pen.polygon(_box(-0.2, -0.78, 0.2, -0.5), (255, 235, 120))
    pen.polygon([(-0.28, -0.76), (0, -1.05), (0.28, -0.76)], roof)
    pen.polygon(_box(-0.34, -0.52, 0.34, -0.43), roof)


def _windmill(pen: Pen, wall: Color, roof: Color) -> None:
    pen.polygon([(-0.25, -0.3), (0.25, -0.3), (0.42, 0.9), (-0.42, 0.9)], wall)
    pen.polygon([(-0.3, -0.28), (0, -0.62), (0.3, -0.28)], roof)
    pen.polygon(_box(-0.12, 0.5, 0.12, 0.9), _DOOR)
    for angle in math.pi / 4 + math.pi / 2 * np.arange(4):
        x, y = 0.85 * math.cos(angle), 0.85 * math.sin(angle)
        pen.line([(0, -0.25), (x, y - 0.25)], 0.08, (70, 60, 50))
        side = (-0.16 * math.sin(angle), 0.16 * math.cos(angle))
        pen.polygon([(0.3 * x, 0.3 * y - 0.25), (x, y - 0.25), (x + side[0], y - 0.25 + side[1]),
                     (0.3 * x + side[0], 0.3 * y - 0.25 + side[1])], _LIGHT)  # fmt: skip


def _factory(pen: Pen, wall: Color, roof: Color) -> None:
    for x, y in ((-0.75, -0.95), (-0.35, -0.75)):
        pen.polygon(_box(x, y, x + 0.2, 0.2), roof)
        for step in (0.0, 0.18):
            pen.disc(x + 0.25 + step, y - 0.08 - 0.4 * step, 0.14 + 0.3 * step, (170, 170, 175))
    pen.polygon(_box(-0.9, 0.15, 0.95, 0.85), wall)
    for x in (-0.05, 0.45):
        pen.polygon([(x, 0.15), (x, -0.25), (x + 0.5, 0.15)], wall)
    for x in (-0.75, -0.35, 0.05, 0.45):
        pen.polygon(_box(x, 0.35, x + 0.24, 0.55), _GLASS)


def _temple(pen: Pen, wall: Color, roof: Color) -> None:
    pen.polygon([(-0.98, -0.3), (0, -0.85), (0.98, -0.3)], wall)
    pen.polygon(_box(-0.9, -0.3, 0.9, -0.12), roof)
    for x in (-0.8, -0.36, 0.08, 0.52):
        pen.polygon(_box(x, -0.12, x + 0.26, 0.65), wall)
    pen.polygon(_box(-0.98, 0.65, 0.98, 0.85), roof)


def _skyscraper(pen: Pen, wall: Color, roof: Color) -> None:
    pen.polygon(_box(-0.42, -0.75, 0.42, 0.95), wall)
    pen.line([(0, -0.75), (0, -1.1)], 0.08, roof)
    for y in np.arange(-0.62, 0.75, 0.3):
        for x in (-0.32, -0.08, 0.16):
            pen.polygon(_box(x, y, x + 0.16, y + 0.17), _GLASS)


_BUILDINGS: dict[str, Callable[[Pen, Color, Color], None]] = {
    "house": _house, "castle": _castle, "church": _church, "lighthouse": _lighthouse, "windmill": _windmill,
    "factory": _factory, "temple": _temple, "skyscraper": _skyscraper,
}  # fmt: skip
BUILDINGS = tuple(_BUILDINGS)


# ---- surfaces ----------------------------------------------------------------------------------

_BASES: dict[str, Color] = {
    "wooden planks": (165, 115, 65),
    "cobblestones": (130, 125, 120),
    "brick wall": (165, 75, 55),
    "marble": (225, 222, 218),
    "gravel": (150, 145, 140),
    "floor tiles": (205, 190, 170),
    "desert sand": (220, 190, 130),
    "rippled water": (60, 120, 165),
    "knitted wool": (150, 60, 90),
    "rusty metal": (140, 95, 70),
}
SURFACES = tuple(_BASES)


def surface(subject: Subject) -> Image.Image:
    """A 64x64 close view of one of ten surfaces."""
    (kind,), rnd, rng = subject.composition, subject.rnd, subject.rng
    base = jitter(_BASES[kind], 20, rnd)
    grain = np.array(base) + rng.normal(0, 9, (SIZE, SIZE, 1))
    image = Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8).repeat(1, axis=2))
    draw = ImageDraw.Draw(image)
    if kind in ("wooden planks", "brick wall", "floor tiles"):
        _courses(draw, kind, base, subject)
    elif kind in ("cobblestones", "gravel"):
        step, size = (13, (5, 7)) if kind == "cobblestones" else (6, (2, 4))
        draw.rectangle((0, 0, SIZE, SIZE), fill=shade(base, 0.45))
        for y in range(-2, SIZE + 6, step):
            for x in range(-2, SIZE + 6, step):
                cx, cy, r = x + rnd.randint(-2, 2), y + rnd.randint(-2, 2), rnd.randint(*size)
                draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=jitter(base, 28, rnd))
    elif kind == "marble":
        for _ in range(rnd.randint(4, 6)):
            x, y, angle = rnd.randint(-8, 40), rnd.randint(0, 63), rnd.uniform(-0.9, 0.9)
            vein: list[tuple[float, float]] = [(x, y)]
            for _ in range(6):
                angle += rnd.uniform(-0.5, 0.5)
                vein.append((vein[-1][0] + 12 * math.cos(angle), vein[-1][1] + 12 * math.sin(angle)))
            draw.line(vein, fill=shade(base, rnd.uniform(0.55, 0.75)), width=rnd.randint(1, 3))
    elif kind in ("desert sand", "rippled water"):
        wet = kind == "rippled water"
        phase, period = rnd.uniform(0, 6), rnd.uniform(8, 11) if wet else rnd.uniform(13, 18)
        rows, columns = np.mgrid[0:SIZE, 0:SIZE]
        wave = np.sin(2 * np.pi * (rows + 3 * np.sin(columns / (5 if wet else 14) + phase)) / period)
        light = 45 * np.maximum(wave, 0) ** 3 if wet else 26 * wave
        image = Image.fromarray(np.clip(grain + light[:, :, None], 0, 255).astype(np.uint8))
    elif kind == "knitted wool":
        step = rnd.randint(8, 11)
        for y in range(-step, SIZE + step, step - 2):
            for x in range(-step, SIZE + step, step):
                pale = shade(base, 1.5)
                draw.line((x, y, x + step // 2, y + step - 3), fill=pale, width=3)
                draw.line((x + step, y, x + step // 2, y + step - 3), fill=shade(base, 0.7), width=3)
    else:  # rusty metal
        blots = np.clip(rng.normal(0, 1, (8, 8)), 0, None)
        spread = Image.fromarray((255 * np.minimum(blots, 1)).astype(np.uint8)).resize((SIZE, SIZE))
        steel = Image.new("RGB", (SIZE, SIZE), jitter((120, 128, 138), 12, rnd))
        image = Image.composite(image, steel, spread)
        draw = ImageDraw.Draw(image)
        for x, y in ((6, 6), (57, 6), (6, 57), (57, 57)):
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=(60, 62, 68))
    return image.filter(ImageFilter.GaussianBlur(0.4))


def _courses(draw: ImageDraw.ImageDraw, kind: str, base: Color, subject: Subject) -> None:
    """Rows of boards, bricks or square tiles, with gaps between them."""
    rnd = subject.rnd
    height, width, gap = {"wooden planks": (11, 60, 0.4), "brick wall": (9, 18, 2.0), "floor tiles": (16, 16, 0.6)}[
        kind
    ]
    joint = shade(base, gap)
    top = rnd.randint(-height, 0)
    for row, y in enumerate(range(top, SIZE, height)):
        shift = {"wooden planks": rnd.randint(0, width), "brick wall": (row % 2) * width // 2, "floor tiles": top}[kind]
        for x in range(shift - 2 * width, SIZE + width, width):
            tone = jitter(base, 16, rnd)
            draw.rectangle((x, y, x + width, y + height), fill=tone, outline=joint)
            if kind == "wooden planks":
                for line in (3, 7):
                    draw.line((x, y + line, x + width, y + line + rnd.randint(-1, 1)), fill=shade(tone, 0.8))
            else:
                draw.rectangle((x, y, x + width, y + height), outline=joint, width=2)
