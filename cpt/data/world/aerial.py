"""Land of the embedded world seen from the air: ten covers, of which no combination is held out."""

from __future__ import annotations

import math
import random

import numpy as np
from PIL import Image, ImageDraw

from cpt.data.world.colors import Color, jitter, shade
from cpt.data.world.fields import SIZE

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


def _curve(turn: float, rnd: random.Random, bend: float) -> list[tuple[float, float]]:
    """A curve across the canvas in the direction `turn`."""
    phase, offset = rnd.uniform(0, 2 * math.pi), rnd.uniform(-10, 10)
    cos, sin = math.cos(turn), math.sin(turn)
    path = []
    for t in range(-48, 49, 8):
        across = offset + bend * math.sin(t / 16 + phase)
        path.append((32 + t * cos - across * sin, 32 + t * sin + across * cos))
    return path


def land(cover: str, rnd: random.Random, rng: np.random.Generator) -> Image.Image:
    """A 64x64 aerial view of one of ten land covers in a random direction."""
    turn = rnd.uniform(0, math.pi)
    rough = {"forest land": 26, "pasture": 12}.get(cover, 9)
    cells = np.clip(np.array(jitter(_GROUNDS[cover], 12, rnd)) + rng.normal(0, rough, (10, 10, 1)), 0, 255).astype(
        np.uint8
    )
    image = Image.fromarray(cells).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    if cover == "river":
        draw.line(
            _curve(turn, rnd, 8),
            fill=jitter((60, 105, 150), 15, rnd),
            width=rnd.randint(9, 15),
            joint="curve",
        )
    elif cover == "highway":
        path, width = _curve(turn, rnd, 2), rnd.randint(10, 14)
        draw.line(path, fill=jitter((85, 85, 90), 10, rnd), width=width)
        draw.line(path, fill=(225, 220, 200), width=2)
    elif cover == "forest land":
        for _ in range(40):
            x, y, r = rnd.randint(0, 63), rnd.randint(0, 63), rnd.randint(2, 5)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=jitter((40, 85, 42), 18, rnd))
    elif cover == "lake":
        x, y = rnd.randint(24, 40), rnd.randint(24, 40)
        radii = rnd.uniform(15, 23) * (1 + rng.uniform(-0.25, 0.25, 12))
        angles = np.arange(12) * np.pi / 6
        outline = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)
        draw.polygon(outline.ravel().tolist(), fill=jitter((50, 95, 145), 15, rnd))
    elif cover in ("residential area", "industrial area"):
        small = cover == "residential area"
        step = 13 if small else 24
        for y in range(rnd.randint(-6, 0), 64, step):
            for x in range(rnd.randint(-6, 0), 64, step):
                if rnd.random() < 0.88:
                    w, h = (
                        (rnd.randint(6, 9), rnd.randint(6, 9)) if small else (rnd.randint(13, 21), rnd.randint(11, 19))
                    )
                    roof = jitter(rnd.choice(_ROOFS) if small else (205, 205, 212), 16, rnd)
                    draw.rectangle((x, y, x + w, y + h), fill=roof)
                    draw.line((x, y + h, x + w, y + h), fill=shade(roof, 0.55), width=2)
    elif cover == "crop field":
        x, y = rnd.randint(18, 46), rnd.randint(18, 46)
        for box in ((0, 0, x, y), (x, 0, 63, y), (0, y, x, 63), (x, y, 63, 63)):
            field = jitter(rnd.choice(((190, 175, 80), (120, 160, 60), (160, 120, 70), (205, 195, 120))), 14, rnd)
            draw.rectangle(box, fill=field)
            for stripe in range(box[1] + 3, box[3], 6):
                draw.line((box[0], stripe, box[2], stripe), fill=shade(field, 0.82), width=2)
    elif cover == "orchard":
        step, shift = rnd.randint(10, 13), rnd.randint(0, 9)
        green = jitter((55, 105, 45), 14, rnd)
        for y in range(shift - step, 70, step):
            for x in range(shift - step, 70, step):
                draw.ellipse((x - 3, y - 3, x + 4, y + 4), fill=green)
    elif cover == "pasture":
        for _ in range(rnd.randint(1, 4)):
            x, y, r = rnd.randint(0, 63), rnd.randint(0, 63), rnd.randint(2, 3)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=jitter((75, 120, 55), 12, rnd))
    else:
        shore = _curve(turn, rnd, 3)
        side = rnd.choice((-1, 1))
        far = (-70 * side * math.sin(turn), 70 * side * math.cos(turn))
        water = [
            shore[0],
            *shore[1:],
            (shore[-1][0] + far[0], shore[-1][1] + far[1]),
            (shore[0][0] + far[0], shore[0][1] + far[1]),
        ]
        draw.polygon(water, fill=jitter((45, 125, 170), 14, rnd))
        draw.line(shore, fill=(240, 245, 245), width=3)
    return image
