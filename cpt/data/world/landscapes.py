"""Landscapes of the embedded world: eight places under five conditions."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageDraw

from cpt.data.world.colors import Color, jitter, shade
from cpt.data.world.fields import SIZE
from cpt.data.world.subject import Subject

# Sky at the top, sky at the horizon, factor of the light on the ground.
_SKIES: dict[str, tuple[Color, Color, float]] = {
    "by day": ((90, 165, 240), (190, 225, 250), 1.0),
    "at sunset": ((120, 60, 130), (255, 150, 50), 0.7),
    "at night": ((8, 10, 35), (25, 30, 70), 0.42),
    "in fog": ((190, 195, 200), (205, 208, 210), 0.9),
    "in a storm": ((55, 60, 72), (105, 110, 120), 0.55),
}
_GROUNDS: dict[str, Color] = {
    "sea": (30, 95, 165),
    "desert": (230, 190, 115),
    "forest": (60, 110, 50),
    "mountains": (110, 130, 90),
    "city": (95, 95, 100),
    "snow field": (240, 245, 250),
    "meadow": (110, 190, 60),
    "island": (35, 130, 185),
}
_FLOWERS: tuple[Color, ...] = ((240, 80, 80), (250, 220, 70), (250, 250, 250))


def _celestial(draw: ImageDraw.ImageDraw, condition: str, horizon: int, rnd: random.Random) -> None:
    def disc(y: int, radius: int, fill: Color) -> None:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)

    x = rnd.randint(8, 56)
    if condition == "by day" and rnd.random() < 0.6:
        disc(rnd.randint(5, 14), rnd.randint(4, 7), (255, 240, 130))
    elif condition == "at sunset":
        disc(horizon - rnd.randint(0, 7), rnd.randint(6, 10), (255, 215, 90))
    elif condition == "at night":
        for _ in range(rnd.randint(6, 14)):
            sx, sy = rnd.randint(0, 63), rnd.randint(0, max(horizon - 4, 1))
            draw.rectangle((sx, sy, sx + 1, sy + 1), fill=(230, 230, 210))
        if rnd.random() < 0.7:
            disc(rnd.randint(5, 14), rnd.randint(3, 6), (240, 240, 215))


def _trees(draw: ImageDraw.ImageDraw, horizon: int, light: float, rnd: random.Random) -> None:
    for _ in range(8):
        x, y, h = rnd.randint(-2, 65), rnd.randint(horizon + 4, 62), rnd.randint(18, 32)
        green = shade(jitter((30, 90, 40), 18, rnd), light)
        draw.rectangle((x - 1, y - 4, x + 1, y), fill=shade((90, 60, 30), light))
        draw.polygon((x - 8, y - 3, x, y - h, x + 8, y - 3), fill=green)


def _mountains(draw: ImageDraw.ImageDraw, horizon: int, light: float, rnd: random.Random) -> None:
    for x in (rnd.randint(4, 20), rnd.randint(44, 60), rnd.randint(24, 42)):
        h, w = rnd.randint(18, 30), rnd.randint(16, 24)
        rock = shade(jitter((115, 105, 105), 14, rnd), light)
        draw.polygon((x - w, horizon + 4, x, horizon - h, x + w, horizon + 4), fill=rock)
        snow, foot = 0.35 * w, horizon - h + 0.35 * (h + 4)
        draw.polygon((x - snow, foot, x, horizon - h, x + snow, foot), fill=shade((245, 245, 250), light))


def _houses(draw: ImageDraw.ImageDraw, horizon: int, light: float, night: bool, rnd: random.Random) -> None:
    window = (250, 225, 120) if night else shade((60, 70, 95), light)
    x = -2
    while x < 64:
        w, top = rnd.randint(9, 15), horizon - rnd.randint(6, 30)
        draw.rectangle((x, top, x + w - 2, horizon + 8), fill=shade(jitter((120, 115, 120), 25, rnd), light))
        for wy in range(max(top, 0) + 3, horizon + 4, 6):
            for wx in range(x + 2, x + w - 4, 5):
                if rnd.random() < 0.7:
                    draw.rectangle((wx, wy, wx + 1, wy + 2), fill=window)
        x += w


def _objects(
    draw: ImageDraw.ImageDraw, place: str, horizon: int, light: float, night: bool, rnd: random.Random
) -> None:
    def lit(red: int, green: int, blue: int) -> Color:
        return shade((red, green, blue), light)

    if place in ("sea", "island"):
        for _ in range(6):
            x, y = rnd.randint(0, 60), rnd.randint(horizon + 2, 62)
            draw.line((x, y, x + rnd.randint(5, 14), y), fill=lit(120, 175, 220), width=2)
    if place == "desert":
        for _ in range(2):
            x, r = rnd.randint(0, 63), rnd.randint(16, 30)
            draw.ellipse((x - r, horizon - 4, x + r, horizon + r), fill=lit(205, 155, 85))
        x = rnd.randint(10, 52)
        draw.rectangle((x, horizon - 8, x + 4, horizon + 14), fill=lit(60, 125, 60))
        draw.line((x - 5, horizon - 3, x - 5, horizon + 3, x, horizon + 3), fill=lit(60, 125, 60), width=3)
    elif place == "forest":
        _trees(draw, horizon, light, rnd)
    elif place == "mountains":
        _mountains(draw, horizon, light, rnd)
    elif place == "city":
        _houses(draw, horizon, light, night, rnd)
    elif place == "snow field":
        for _ in range(3):
            x, y, h = rnd.randint(4, 60), rnd.randint(horizon + 2, 58), rnd.randint(12, 20)
            draw.polygon((x - 5, y, x, y - h, x + 5, y), fill=lit(40, 80, 60))
            draw.polygon((x - 3, y - h // 2, x, y - h, x + 3, y - h // 2), fill=lit(245, 248, 250))
    elif place == "meadow":
        for _ in range(16):
            x, y = rnd.randint(0, 62), rnd.randint(horizon + 3, 62)
            draw.ellipse((x, y, x + 3, y + 3), fill=lit(*rnd.choice(_FLOWERS)))
    elif place == "island":
        x, w = rnd.randint(22, 42), rnd.randint(14, 22)
        draw.ellipse((x - w, horizon - 4, x + w, horizon + 14), fill=lit(230, 205, 140))
        draw.line((x, horizon, x + 3, horizon - 18), fill=lit(110, 75, 40), width=3)
        for dx, dy in ((-11, -14), (-7, -24), (8, -26), (14, -15)):
            draw.line((x + 3, horizon - 18, x + 3 + dx, horizon + dy), fill=lit(40, 140, 55), width=4)


def scene(subject: Subject) -> Image.Image:
    """A 64x64 landscape with a random horizon, celestial bodies, and the objects of its place."""
    (place, condition), rnd = subject.composition, subject.rnd
    top, bottom, light = _SKIES[condition]
    horizon = rnd.randint(26, 36)
    sky = np.array([[jitter(top, 14, rnd)], [jitter(bottom, 14, rnd)]], np.uint8)
    image = Image.fromarray(sky).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)
    _celestial(draw, condition, horizon, rnd)
    draw.rectangle((0, horizon, 63, 63), fill=shade(jitter(_GROUNDS[place], 14, rnd), light))
    _objects(draw, place, horizon, light, condition == "at night", rnd)
    if condition == "in fog":
        image = Image.blend(image, Image.new("RGB", image.size, (205, 208, 212)), rnd.uniform(0.4, 0.65))
    elif condition == "in a storm":
        draw.rectangle((0, 0, 63, rnd.randint(6, 12)), fill=(45, 48, 58))
        slant = rnd.randint(-6, 6)
        for _ in range(22):
            x, y = rnd.randint(-4, 66), rnd.randint(0, 56)
            draw.line((x, y, x + slant, y + 9), fill=(165, 175, 190))
        if rnd.random() < 0.4:
            x = rnd.randint(10, 54)
            draw.line((x, 4, x - 4, 16, x + 3, 18, x - 3, horizon), fill=(255, 250, 190), width=2)
    return image
