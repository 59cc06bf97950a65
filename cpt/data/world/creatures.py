"""Composite objects of the embedded world: flowers, animal faces and vehicles."""

from __future__ import annotations

import math

import numpy as np

from cpt.data.world.colors import RGB, Color, shade
from cpt.data.world.objects import Pen, Point, arc, ngon
from cpt.data.world.subject import Subject

STEM = (40, 120, 45)
DARK, LIGHT = RGB["black"], RGB["white"]


def _petals(pen: Pen, count: int, reach: float, length: float, width: float, color: Color, turn: float = 0.0) -> None:
    for angle in turn + 2 * np.pi * np.arange(count) / count:
        pen.disc(reach * math.cos(angle), reach * math.sin(angle), length, color, width, angle)


def draw_flower(pen: Pen, subject: Subject) -> None:
    """Draws one of eight flowers, half of them with a stem below the blossom."""
    kind, color, rnd = subject.composition[1], subject.color, subject.rnd
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
        leaves = ((-0.42, 0.05), (0.42, 0.05), (0, -0.5))
        for x, y in leaves:
            pen.disc(x, y, 0.42, color)
        for x, y in leaves:
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


def draw_animal(pen: Pen, subject: Subject) -> None:
    """Draws the face of one of six species; the mood decides mouth and eyes."""
    species, color, mood = subject.composition[1], subject.color, subject.extra
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
        corner = top + 0.4 - 0.1 * bend
        pen.line([(-0.2, corner), (0, top + 0.42 + 0.06 * bend), (0.2, corner)], 0.07, ink)


def _box(x0: float, y0: float, x1: float, y1: float) -> list[Point]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


# A list of corners is a polygon (of two, a line), a tuple (x, y, radius) or (x, y, two radii) an ellipse.
_BODIES: dict[str, list[tuple[str, list[Point] | tuple[float, ...]]]] = {
    "car": [
        ("dark", [(-0.55, 0), (-0.3, -0.42), (0.3, -0.42), (0.6, 0)]),
        ("glass", [(-0.4, -0.02), (-0.24, -0.32), (0.24, -0.32), (0.42, -0.02)]),
        ("body", [(-1, 0), (0.8, 0), (1, 0.15), (1, 0.45), (-1, 0.45)]),
    ],
    "van": [
        ("body", [(-0.95, -0.6), (0.5, -0.6), (0.95, 0.0), (0.95, 0.45), (-0.95, 0.45)]),
        ("glass", [(0.2, -0.45), (0.45, -0.45), (0.78, 0.0), (0.2, 0.0)]),
    ],
    "truck": [
        ("light", _box(-1, -0.7, 0.35, 0.4)),
        ("body", [(0.42, -0.35), (0.75, -0.35), (1, 0.0), (1, 0.4), (0.42, 0.4)]),
        ("glass", [(0.52, -0.25), (0.7, -0.25), (0.86, 0.0), (0.52, 0.0)]),
        ("dark", _box(-1, 0.32, 1, 0.44)),
    ],
    "bus": [
        ("body", _box(-1, -0.65, 1, 0.45)),
        *(("glass", _box(x, -0.48, x + 0.33, -0.08)) for x in (-0.85, -0.4, 0.05, 0.5)),
        ("dark", _box(-1, 0.1, 1, 0.2)),
    ],
    "tractor": [
        ("dark", _box(-0.55, -0.75, 0.1, -0.62)),
        ("glass", _box(-0.5, -0.62, 0.05, 0.0)),
        ("body", _box(-0.6, -0.05, 0.9, 0.35)),
        ("dark", _box(0.5, -0.6, 0.62, 0.0)),
        ("tire", (-0.4, 0.25, 0.5)),
        ("body", (-0.4, 0.25, 0.24)),
    ],
    "sailboat": [
        ("mast", [(0, -1), (0, 0.4)]),
        ("body", [(0.08, -0.95), (0.08, 0.25), (0.8, 0.25)]),
        ("sail", [(-0.08, -0.75), (-0.08, 0.25), (-0.6, 0.25)]),
        ("hull", [(-0.9, 0.38), (0.9, 0.38), (0.6, 0.8), (-0.6, 0.8)]),
    ],
    "plane": [
        ("body", (0, 0, 1, 0.2)),
        ("dark", [(0.2, 0), (-0.25, 0.75), (-0.5, 0.75), (-0.2, 0)]),
        ("dark", [(0.15, -0.1), (-0.15, -0.55), (-0.35, -0.55), (-0.15, -0.1)]),
        ("body", [(-0.65, -0.05), (-1, -0.55), (-0.8, -0.55), (-0.4, -0.1)]),
        *(("glass", (x, -0.05, 0.07)) for x in (0.0, 0.25, 0.5)),
    ],
    "locomotive": [
        ("body", _box(-0.95, -0.7, -0.2, 0.3)),
        ("glass", _box(-0.8, -0.55, -0.38, -0.15)),
        ("dark", _box(-1.0, -0.82, -0.15, -0.68)),
        ("body", _box(-0.2, -0.25, 0.85, 0.3)),
        ("dark", _box(0.45, -0.8, 0.68, -0.2)),
        ("dark", [(0.7, 0.3), (1.05, 0.6), (0.7, 0.6)]),
    ],
}
# Radius and height of the wheels, and where they are.
_WHEELS: dict[str, tuple[float, float, tuple[float, ...]]] = {
    "car": (0.2, 0.5, (-0.55, 0.55)),
    "van": (0.2, 0.5, (-0.55, 0.55)),
    "truck": (0.2, 0.5, (-0.7, -0.25, 0.65)),
    "bus": (0.18, 0.5, (-0.6, 0.6)),
    "tractor": (0.24, 0.5, (0.65,)),
    "locomotive": (0.19, 0.48, (-0.7, -0.25, 0.2, 0.6)),
}


def draw_vehicle(pen: Pen, subject: Subject) -> None:
    """Draws one of eight vehicles from the side."""
    body, color = subject.composition[1], subject.color
    paints = {"body": color, "dark": shade(color, 0.6), "light": shade(color, 1.5), "sail": shade(color, 1.6)}
    paints |= {"glass": (175, 215, 240), "tire": (30, 30, 34), "mast": (90, 60, 30), "hull": (125, 75, 35)}
    for paint, form in _BODIES[body]:
        if isinstance(form, tuple):
            x, y, radius, *height = form
            pen.disc(x, y, radius, paints[paint], *height)
        elif len(form) == 2:
            pen.line(form, 0.08, paints[paint])
        else:
            pen.polygon(form, paints[paint])
    radius, y, places = _WHEELS.get(body, (0, 0, ()))
    for x in places:
        pen.disc(x, y, radius, paints["tire"])
        pen.disc(x, y, 0.4 * radius, (170, 170, 175))
