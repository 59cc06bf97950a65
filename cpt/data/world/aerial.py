"""Land of the embedded world seen from the air: ten covers, of which no combination is held out."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
from PIL import Image, ImageDraw

from cpt.data.world.colors import Color, jitter, shade
from cpt.data.world.fields import SIZE
from cpt.data.world.subject import Subject

_GROUNDS: dict[str, Color] = {
    "river": (95, 135, 75),
    "highway": (125, 135, 95),
    "forest land": (35, 80, 40),
    "lake": (95, 130, 70),
    "residential area": (135, 145, 110),
    "industrial area": (130, 128, 125),
    "crop field": (160, 165, 85),
    "orchard": (175, 160, 110),
    "pasture": (140, 185, 90),
    "beach": (225, 205, 150),
}
_ROOFS: tuple[Color, ...] = ((175, 75, 55), (120, 70, 60), (150, 150, 155), (190, 110, 70))
_CROPS: tuple[Color, ...] = ((190, 175, 80), (120, 160, 60), (160, 120, 70), (205, 195, 120))


def land(subject: Subject) -> Image.Image:
    """A 64x64 aerial view of one of ten land covers in a random direction."""
    (cover,), rnd, rng = subject.composition, subject.rnd, subject.rng
    turn = rnd.uniform(0, math.pi)
    rough = {"forest land": 26, "pasture": 12}.get(cover, 9)
    cells = np.array(jitter(_GROUNDS[cover], 12, rnd)) + rng.normal(0, rough, (10, 10, 1))
    small = Image.fromarray(np.clip(cells, 0, 255).astype(np.uint8))
    image = small.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    if cover in ("river", "highway", "beach"):
        _along_curve(draw, cover, turn, rnd)
    elif cover in ("residential area", "industrial area"):
        _buildings(draw, cover == "residential area", rnd)
    elif cover == "lake":
        x, y = rnd.randint(24, 40), rnd.randint(24, 40)
        radii = rnd.uniform(15, 23) * (1 + rng.uniform(-0.25, 0.25, 12))
        angles = np.arange(12) * np.pi / 6
        outline = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)
        draw.polygon(outline.ravel().tolist(), fill=jitter((50, 95, 145), 15, rnd))
    elif cover == "forest land":
        _trees(draw, 40, 5, (40, 85, 42), 18, rnd)
    elif cover == "pasture":
        _trees(draw, rnd.randint(1, 4), 3, (75, 120, 55), 12, rnd)
    elif cover == "orchard":
        step, shift = rnd.randint(10, 13), rnd.randint(0, 9)
        green = jitter((55, 105, 45), 14, rnd)
        for y, x in itertools.product(range(shift - step, 70, step), repeat=2):
            draw.ellipse((x - 3, y - 3, x + 4, y + 4), fill=green)
    else:
        _crop_fields(draw, rnd)
    return image


def _along_curve(draw: ImageDraw.ImageDraw, cover: str, turn: float, rnd: random.Random) -> None:
    """What follows a curve across the canvas in the direction `turn`: a river, a highway, a shore."""
    phase, offset = rnd.uniform(0, 2 * math.pi), rnd.uniform(-10, 10)
    cos, sin = math.cos(turn), math.sin(turn)
    bend = {"river": 8, "highway": 2, "beach": 3}[cover]
    path = []
    for t in range(-48, 49, 8):
        across = offset + bend * math.sin(t / 16 + phase)
        path.append((32 + t * cos - across * sin, 32 + t * sin + across * cos))
    if cover == "river":
        draw.line(path, fill=jitter((60, 105, 150), 15, rnd), width=rnd.randint(9, 15), joint="curve")
    elif cover == "highway":
        width = rnd.randint(10, 14)
        draw.line(path, fill=jitter((85, 85, 90), 10, rnd), width=width)
        draw.line(path, fill=(225, 220, 200), width=2)
    else:
        side = rnd.choice((-1, 1))
        far = (-70 * side * math.sin(turn), 70 * side * math.cos(turn))
        behind = [(x + far[0], y + far[1]) for x, y in (path[-1], path[0])]
        draw.polygon(path + behind, fill=jitter((45, 125, 170), 14, rnd))
        draw.line(path, fill=(240, 245, 245), width=3)


def _buildings(draw: ImageDraw.ImageDraw, small: bool, rnd: random.Random) -> None:
    step, widths, heights = (13, (6, 9), (6, 9)) if small else (24, (13, 21), (11, 19))
    for y in range(rnd.randint(-6, 0), 64, step):
        for x in range(rnd.randint(-6, 0), 64, step):
            if rnd.random() < 0.88:
                w, h = rnd.randint(*widths), rnd.randint(*heights)
                roof = jitter(rnd.choice(_ROOFS) if small else (205, 205, 212), 16, rnd)
                draw.rectangle((x, y, x + w, y + h), fill=roof)
                draw.line((x, y + h, x + w, y + h), fill=shade(roof, 0.55), width=2)


def _trees(draw: ImageDraw.ImageDraw, count: int, largest: int, color: Color, amount: int, rnd: random.Random) -> None:
    for _ in range(count):
        x, y, r = rnd.randint(0, 63), rnd.randint(0, 63), rnd.randint(2, largest)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=jitter(color, amount, rnd))


def _crop_fields(draw: ImageDraw.ImageDraw, rnd: random.Random) -> None:
    x, y = rnd.randint(18, 46), rnd.randint(18, 46)
    for left, top, right, bottom in ((0, 0, x, y), (x, 0, 63, y), (0, y, x, 63), (x, y, 63, 63)):
        field = jitter(rnd.choice(_CROPS), 14, rnd)
        draw.rectangle((left, top, right, bottom), fill=field)
        for stripe in range(top + 3, bottom, 6):
            draw.line((left, stripe, right, stripe), fill=shade(field, 0.82), width=2)
