"""Signs of the second generated world: symbols of a font, flags, clocks and charts."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

from cpt.data.world.colors import JITTER, RGB, jitter, shade
from cpt.data.world.objects import CIRCLE, Pen, font
from cpt.data.world.subject import Subject

_INK, _PAPER = (30, 30, 36), (244, 243, 238)

# Glyphs of DejaVu Sans.
_GLYPHS = {
    "rook": "♜", "knight": "♞", "queen": "♛", "pawn": "♟", "spade": "♠", "club": "♣", "umbrella": "☂",
    "snowflake": "❄", "anchor": "⚓", "scissors": "✂", "telephone": "☎", "skull": "☠",
}  # fmt: skip
SYMBOLS = tuple(_GLYPHS)


def symbol_mask(subject: Subject, radius: float) -> Image.Image:
    """A symbol as a mask ("L", 64x64), centered; `radius` half its larger side in pixels."""
    glyph = _GLYPHS[subject.composition[1]]
    left, top, right, bottom = font("DejaVuSans", 64).getbbox(glyph)
    drawn = font("DejaVuSans", max(8, round(2 * radius * 64 / max(right - left, bottom - top))))
    left, top, right, bottom = drawn.getbbox(glyph)
    mask = Image.new("L", (64, 64))
    ImageDraw.Draw(mask).text((32 - (left + right) / 2, 32 - (top + bottom) / 2), glyph, fill=255, font=drawn)
    return mask.rotate(math.degrees(subject.angle), Image.Resampling.BILINEAR)


LAYOUTS = ("vertical", "horizontal")


def draw_flag(pen: Pen, subject: Subject) -> None:
    """Draws a flag of three colors, from its pole outwards or from top to bottom, as its nuisance property says."""
    colors = [subject.color, *(jitter(RGB[name], JITTER, subject.rnd) for name in subject.composition[1:])]
    high = 0.66
    pen.line([(-0.95, -0.8), (-0.95, 1.0)], 0.12, (95, 75, 55))
    for i, color in enumerate(colors):
        low, top = i / 3, (i + 1) / 3
        if subject.extra == "vertical":
            x0, x1, y0, y1 = -0.9 + 1.85 * low, -0.9 + 1.85 * top, -high, high
        else:
            x0, x1, y0, y1 = -0.9, 0.95, -high + 2 * high * low, -high + 2 * high * top
        pen.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], color)


HOURS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
MINUTES = ("exactly", "quarter past", "half past", "quarter to")


def draw_clock(pen: Pen, subject: Subject) -> None:
    """Draws a clock with a red minute hand; its rim has the color of its nuisance property."""
    minutes, hour = subject.composition
    quarters = MINUTES.index(minutes)
    hours = HOURS.index(hour) + 1 + (quarters / 4 if quarters < 3 else -0.25)
    pen.polygon(0.98 * CIRCLE, subject.color)
    pen.polygon(0.82 * CIRCLE, _PAPER)
    for tick in range(12):
        angle = math.pi / 6 * tick
        x, y = math.cos(angle), math.sin(angle)
        inner = 0.58 if tick % 3 == 0 else 0.7
        pen.line([(inner * x, inner * y), (0.8 * x, 0.8 * y)], 0.08, (110, 110, 115))
    for turn, reach, width, color in ((quarters / 4, 0.74, 0.1, (215, 30, 30)), (hours / 12, 0.5, 0.19, _INK)):
        x, y = math.sin(2 * math.pi * turn), -math.cos(2 * math.pi * turn)
        pen.line([(-0.12 * x, -0.12 * y), (reach * x, reach * y)], width, color)
    pen.disc(0, 0, 0.12, _INK)


TRENDS = ("rising", "falling", "peaked", "dipped", "wavy")
MARKS = ("line", "bars", "dots", "area")


def draw_chart(pen: Pen, subject: Subject) -> None:
    """Draws a chart of seven values on paper, with axes."""
    _, trend, mark = subject.composition
    color, rnd = subject.color, subject.rnd
    x = np.linspace(0, 1, 7)
    shapes = {
        "rising": 0.15 + 0.75 * x,
        "falling": 0.9 - 0.75 * x,
        "peaked": 0.9 - 1.5 * np.abs(x - 0.5),
        "dipped": 0.15 + 1.5 * np.abs(x - 0.5),
        "wavy": 0.5 + 0.38 * np.where(np.arange(7) % 2, 1, -1),
    }
    values = shapes[trend] + np.array([rnd.uniform(-0.06, 0.06) for _ in x])
    pen.polygon([(-1, -0.95), (1, -0.95), (1, 0.95), (-1, 0.95)], _INK if sum(color) > 560 else _PAPER)
    places = np.stack([-0.72 + 1.52 * x, 0.74 - 1.5 * values], axis=1)
    if mark == "bars":
        for px, py in places:
            pen.polygon([(px - 0.09, py), (px + 0.09, py), (px + 0.09, 0.76), (px - 0.09, 0.76)], color)
    elif mark == "area":
        pen.polygon(np.concatenate([places, [(0.8, 0.76), (-0.72, 0.76)]]), color)
        pen.line(places, 0.06, shade(color, 0.5))
    elif mark == "dots":
        for px, py in places:
            pen.disc(px, py, 0.13, color)
    else:
        pen.line(places, 0.13, color)
    pen.line([(-0.86, -0.85), (-0.86, 0.8), (0.9, 0.8)], 0.07, (130, 130, 135))
