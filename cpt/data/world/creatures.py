"""Composite objects of the embedded world: flowers, animal faces and vehicles."""

from __future__ import annotations

import math
import random

import numpy as np

from cpt.data.world.colors import RGB, Color, shade
from cpt.data.world.families import Composition
from cpt.data.world.objects import Pen, arc, ngon

STEM = (40, 120, 45)
DARK, LIGHT = RGB["black"], RGB["white"]


def _petals(pen: Pen, count: int, reach: float, length: float, width: float, color: Color, turn: float = 0.0) -> None:
    for angle in turn + 2 * np.pi * np.arange(count) / count:
        pen.disc(reach * math.cos(angle), reach * math.sin(angle), length, color, width, angle)


def draw_flower(pen: Pen, composition: Composition, color: Color, rnd: random.Random) -> None:
    """Draws one of eight flowers, half of them with a stem below the blossom."""
    kind = composition[1]
    if kind in ("tulip", "bellflower", "clover") or rnd.random() < 0.5:
        pen.line([(0, 0.2), (rnd.uniform(-0.2, 0.2), 1.25)], 0.13, STEM)
    if kind == "daisy":
        _petals(pen, 10, 0.6, 0.36, 0.13, color)
        pen.disc(0, 0, 0.27, (250, 205, 40) if color[2] > 90 or color[1] < 150 else (120, 70, 30))
    elif kind == "pansy":
        _petals(pen, 5, 0.5, 0.46, 0.44, color, turn=-np.pi / 2)
        _petals(pen, 5, 0.3, 0.24, 0.15, shade(color, 0.3), turn=-np.pi / 2)
        pen.disc(0, 0, 0.12, (250, 215, 60))
    elif kind == "tulip":
        cup = [(-0.6, -0.75), (-0.3, -0.35), (0, -0.85), (0.3, -0.35), (0.6, -0.75), (0.62, 0.0)]
        pen.polygon([*cup, (0.35, 0.42), (0, 0.5), (-0.35, 0.42), (-0.62, 0.0)], color)
        pen.disc(-0.5, 0.85, 0.45, STEM, 0.12, 0.7)
    elif kind == "rose":
        for step, radius in enumerate((0.92, 0.66, 0.42, 0.2)):
            pen.disc(0.06 * step, -0.05 * step, radius, shade(color, (1.0, 0.62)[step % 2]))
    elif kind == "lily":
        pen.polygon(ngon(6, 0.3), color)
        _petals(pen, 6, 0.3, 0.3, 0.05, shade(color, 0.6), turn=-np.pi / 2)
        pen.disc(0, 0, 0.12, (90, 150, 40))
    elif kind == "bellflower":
        bell = np.concatenate([arc(np.pi, 2 * np.pi, 10, 0.45, 0.7), [(0.5, 0.35), (0.8, 0.7)]])
        pen.polygon(np.concatenate([bell, [(0.35, 0.5), (0, 0.75), (-0.35, 0.5), (-0.8, 0.7), (-0.5, 0.35)]]), color)
        pen.line([(0, -0.7), (0, -1.1), (0.5, -1.2)], 0.12, STEM)
    elif kind == "sunflower":
        pen.polygon(ngon(14, 0.7), color)
        pen.disc(0, 0, 0.56, (85, 50, 20))
        _petals(pen, 6, 0.3, 0.07, 0.07, (150, 100, 50))
    else:
        for x, y in ((-0.42, 0.05), (0.42, 0.05), (0, -0.5)):
            pen.disc(x, y, 0.42, color)
        for x, y in ((-0.42, 0.05), (0.42, 0.05), (0, -0.5)):
            pen.line([(0, -0.1), (x, y)], 0.09, shade(color, 0.55))


def _ears(pen: Pen, species: str, color: Color) -> None:
    inner = (235, 160, 165)
    for side in (-1, 1):
        if species == "cat":
            pen.polygon([(0.85 * side, -1.0), (0.15 * side, -0.6), (0.8 * side, -0.1)], color)
            pen.polygon([(0.75 * side, -0.8), (0.38 * side, -0.55), (0.7 * side, -0.3)], inner)
        elif species == "dog":
            pen.disc(0.78 * side, 0.05, 0.24, shade(color, 0.55), 0.58, -0.2 * side)
        elif species == "bear":
            pen.disc(0.58 * side, -0.62, 0.3, color)
            pen.disc(0.58 * side, -0.62, 0.15, shade(color, 0.6))
        elif species == "rabbit":
            pen.disc(0.32 * side, -0.85, 0.2, color, 0.62, 0.15 * side)
            pen.disc(0.32 * side, -0.85, 0.09, inner, 0.45, 0.15 * side)
        elif species == "mouse":
            pen.disc(0.74 * side, -0.5, 0.5, color)
            pen.disc(0.74 * side, -0.5, 0.33, inner)
        else:
            pen.polygon([(0.75 * side, -0.45), (0.25 * side, -0.85), (0.75 * side, -0.95)], shade(color, 0.7))


def draw_animal(pen: Pen, composition: Composition, color: Color, rnd: random.Random, mood: str) -> None:
    """Draws the face of one of six species; the mood decides mouth and eyes."""
    species = composition[1]
    if species != "dog":
        _ears(pen, species, color)
    top = 0.15 if species in ("rabbit", "mouse") else 0.05
    pen.disc(0, top, 0.62 if species in ("rabbit", "mouse") else 0.76, color, 0.66)
    if species == "dog":
        _ears(pen, species, color)
    ink = DARK if sum(color) > 200 else LIGHT
    for side in (-1, 1):
        x, y = 0.28 * side, top - 0.14
        if mood == "sleepy":
            pen.line([(x - 0.12, y), (x + 0.12, y)], 0.08, ink)
        else:
            pen.disc(x, y, 0.12 if mood == "surprised" else 0.085, ink)
    if species in ("bear", "dog"):
        pen.disc(0, top + 0.28, 0.36, shade(color, 1.8), 0.27)
    if species == "pig":
        pen.disc(0, top + 0.2, 0.32, shade(color, 0.7), 0.22)
        for side in (-1, 1):
            pen.disc(0.12 * side, top + 0.2, 0.07, shade(color, 0.3), 0.1)
    else:
        pen.disc(0, top + 0.14, 0.1, (225, 110, 120) if species in ("cat", "rabbit", "mouse") else DARK, 0.08)
    if species in ("cat", "mouse"):
        for side in (-1, 1):
            pen.line([(0.2 * side, top + 0.2), (0.8 * side, top + 0.12)], 0.03, ink)
    if mood == "surprised":
        pen.disc(0, top + 0.42, 0.1, ink)
    else:
        bend = {"happy": 1, "sad": -1, "sleepy": 0.3}[mood]
        pen.line(
            [(-0.2, top + 0.4 - 0.1 * bend), (0, top + 0.42 + 0.06 * bend), (0.2, top + 0.4 - 0.1 * bend)],
            0.07,
            ink,
        )


def _wheels(pen: Pen, places: tuple[float, ...], radius: float = 0.2, y: float = 0.5) -> None:
    for x in places:
        pen.disc(x, y, radius, (30, 30, 34))
        pen.disc(x, y, 0.4 * radius, (170, 170, 175))


def draw_vehicle(pen: Pen, composition: Composition, color: Color, rnd: random.Random) -> None:
    """Draws one of eight vehicles from the side."""
    body, glass, dark = composition[1], (175, 215, 240), shade(color, 0.6)
    if body == "car":
        pen.polygon([(-0.55, 0), (-0.3, -0.42), (0.3, -0.42), (0.6, 0)], dark)
        pen.polygon([(-0.4, -0.02), (-0.24, -0.32), (0.24, -0.32), (0.42, -0.02)], glass)
        pen.polygon([(-1, 0), (0.8, 0), (1, 0.15), (1, 0.45), (-1, 0.45)], color)
        _wheels(pen, (-0.55, 0.55))
    elif body == "van":
        pen.polygon([(-0.95, -0.6), (0.5, -0.6), (0.95, 0.0), (0.95, 0.45), (-0.95, 0.45)], color)
        pen.polygon([(0.2, -0.45), (0.45, -0.45), (0.78, 0.0), (0.2, 0.0)], glass)
        _wheels(pen, (-0.55, 0.55))
    elif body == "truck":
        pen.box(-1, -0.7, 0.35, 0.4, shade(color, 1.5))
        pen.polygon([(0.42, -0.35), (0.75, -0.35), (1, 0.0), (1, 0.4), (0.42, 0.4)], color)
        pen.polygon([(0.52, -0.25), (0.7, -0.25), (0.86, 0.0), (0.52, 0.0)], glass)
        pen.box(-1, 0.32, 1, 0.44, dark)
        _wheels(pen, (-0.7, -0.25, 0.65))
    elif body == "bus":
        pen.box(-1, -0.65, 1, 0.45, color)
        for x in (-0.85, -0.4, 0.05, 0.5):
            pen.box(x, -0.48, x + 0.33, -0.08, glass)
        pen.box(-1, 0.1, 1, 0.2, dark)
        _wheels(pen, (-0.6, 0.6), 0.18)
    elif body == "tractor":
        pen.box(-0.55, -0.75, 0.1, -0.62, dark)
        pen.box(-0.5, -0.62, 0.05, 0.0, glass)
        pen.box(-0.6, -0.05, 0.9, 0.35, color)
        pen.box(0.5, -0.6, 0.62, 0.0, dark)
        pen.disc(-0.4, 0.25, 0.5, (30, 30, 34))
        pen.disc(-0.4, 0.25, 0.24, color)
        _wheels(pen, (0.65,), 0.24)
    elif body == "sailboat":
        pen.line([(0, -1), (0, 0.4)], 0.08, (90, 60, 30))
        pen.polygon([(0.08, -0.95), (0.08, 0.25), (0.8, 0.25)], color)
        pen.polygon([(-0.08, -0.75), (-0.08, 0.25), (-0.6, 0.25)], shade(color, 1.6))
        pen.polygon([(-0.9, 0.38), (0.9, 0.38), (0.6, 0.8), (-0.6, 0.8)], (125, 75, 35))
    elif body == "plane":
        pen.disc(0, 0, 1, color, 0.2)
        pen.polygon([(0.2, 0), (-0.25, 0.75), (-0.5, 0.75), (-0.2, 0)], dark)
        pen.polygon([(0.15, -0.1), (-0.15, -0.55), (-0.35, -0.55), (-0.15, -0.1)], dark)
        pen.polygon([(-0.65, -0.05), (-1, -0.55), (-0.8, -0.55), (-0.4, -0.1)], color)
        for x in (0.0, 0.25, 0.5):
            pen.disc(x, -0.05, 0.07, glass)
    else:
        pen.box(-0.95, -0.7, -0.2, 0.3, color)
        pen.box(-0.8, -0.55, -0.38, -0.15, glass)
        pen.box(-1.0, -0.82, -0.15, -0.68, dark)
        pen.box(-0.2, -0.25, 0.85, 0.3, color)
        pen.box(0.45, -0.8, 0.68, -0.2, dark)
        pen.polygon([(0.7, 0.3), (1.05, 0.6), (0.7, 0.6)], dark)
        _wheels(pen, (-0.7, -0.25, 0.2, 0.6), 0.19, 0.48)
