"""Renders one image of the embedded world: objects on a background, then what a camera does to them.

Pillow draws on 64x64 pixels, which are averaged to 32x32 (antialiasing); numpy does the rest. All randomness of
an image comes from one seed, so that it depends neither on other images nor on how many are asked for.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from cpt.data.world import aerial, creatures, fields, landscapes, objects
from cpt.data.world.colors import COLORS, RGB, Color, jitter
from cpt.data.world.families import FAMILIES, Composition, nuisance

SIZE = 32
COLOR_JITTER = 22
MIN_CONTRAST = 150


@dataclass(frozen=True)
class Style:
    """How the images of one source look. The defaults are the web's, from which the tiny CLIP learns.

    Args:
        scale: range of an object's radius as a share of half the image; for textures the coarseness.
        rotation: largest rotation in radians, either way.
        jitter: largest offset from the center as a share of half the image.
        background: "web" (a mixture), "plain", "blotches" (coarse) or "photo" (fine).
        tint: the background's mean color, None for a random one.
        noise: range of the standard deviation of the pixel noise, in levels of 0-255.
        occluder: probability of a rectangle or a bar in front.
        blur: probability of a Gaussian blur.
        contrast: range of the factor about mid-gray.
        cast: strength of the camera's color cast, the same direction in all images; negative is bluish.
        medium: "photo", "sketch" (edges on white paper) or "rendition" (one of five artistic effects).
    """

    scale: tuple[float, float] = (0.45, 0.95)
    rotation: float = 0.25
    jitter: float = 0.18
    background: str = "web"
    tint: Color | None = None
    noise: tuple[float, float] = (0, 18)
    occluder: float = 0.12
    blur: float = 0.1
    contrast: tuple[float, float] = (0.7, 1.15)
    cast: float = 0.0
    medium: str = "photo"


WEB = Style()


def image_seed(*name: object) -> int:
    """The 64-bit seed of the image with this name, the same on every machine."""
    return int.from_bytes(hashlib.sha256("|".join(map(str, name)).encode()).digest()[:8], "big")


def draw_image(family: str, composition: Composition, style: Style, seed: int, part: str) -> np.ndarray:
    """Renders one image.

    Args:
        part: "web", "train" or "test": whose hand-written digits may be used.

    Returns:
        uint8 array (32, 32, 3).
    """
    rnd, rng = random.Random(seed), np.random.default_rng(seed)
    canvas, color = _draw(family, composition, style, nuisance(family, seed), part, rnd, rng)
    if rnd.random() < style.occluder:
        _occlude(canvas, rnd)
    small = canvas.reduce(2)
    if rnd.random() < style.blur:
        small = small.filter(ImageFilter.GaussianBlur(rnd.uniform(0.6, 1.1)))
    pixels = np.asarray(small, np.float32)
    if style.medium == "sketch":
        pixels = _sketch(pixels, color)
    elif style.medium == "rendition":
        pixels = _rendition(pixels, rnd)
    pixels = (pixels - 128) * rnd.uniform(*style.contrast) + 128 + rnd.uniform(-14, 14)
    if style.cast:
        cast, red, blue = style.cast, rnd.uniform(0.5, 1), rnd.uniform(0.5, 1)
        pixels *= np.array([1 + cast * red, 1 - 0.1 * cast, 1 - cast * blue], np.float32)
    pixels += rng.standard_normal((SIZE, SIZE, 3), np.float32) * rnd.uniform(*style.noise)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _draw(
    family: str,
    composition: Composition,
    style: Style,
    extra: str,
    part: str,
    rnd: random.Random,
    rng: np.random.Generator,
) -> tuple[Image.Image, Color]:
    """The 64x64 canvas and the object's color (dark for families without one)."""
    roles = FAMILIES[family].roles
    word = composition[0] if roles[0] == "color" else extra if extra in COLORS else "black"
    color = jitter(RGB[word], COLOR_JITTER, rnd)
    scale = rnd.uniform(*style.scale)
    angle = rnd.uniform(-style.rotation, style.rotation)
    if family == "texture":
        return fields.texture(composition, color, scale, angle, rnd, rng), color
    if family == "gradient":
        return fields.gradient(color, jitter(RGB[composition[1]], COLOR_JITTER, rnd), rnd), color
    if family == "scene":
        return landscapes.scene(composition[0], composition[1], rnd), color
    if family == "land":
        return aerial.land(composition[0], rnd, rng), color

    canvas = _background(style, color, rnd, rng)
    if family in ("letter", "arr"):
        # Strokes and small copies need pixels. From 0.4 + 0.6 to 0.55 + 0.45, with sans-serif fonts for bold and more
        # of both on the web, zero-shot accuracy rose from 11.5 to 14.9 (letters) and 16.1 to 18.4 (arrangements).
        scale = 0.55 + 0.45 * scale
    radius = 32 * scale
    reach = min(32 * style.jitter, max(0.0, 34 - radius))
    center = (32 + rnd.uniform(-reach, reach), 32 + rnd.uniform(-reach, reach))
    if family in ("letter", "digit"):
        if family == "letter":  # turned further, an upright letter would look italic
            mask = objects.letter_mask(composition, 0.86 * radius, 0.4 * angle, rnd)
        else:
            mask = objects.digit_mask(composition, part, radius, angle, rnd)
        canvas.paste(color, (round(center[0] - 32), round(center[1] - 32)), mask)
    else:
        pen = objects.Pen(canvas, center, radius, angle, flip=family == "vehicle" and rnd.random() < 0.5)
        if family == "animal":
            creatures.draw_animal(pen, composition, color, rnd, extra)
        else:
            _DRAW[family](pen, composition, color, rnd)
    return canvas, color


_DRAW = {
    "shape": objects.draw_shape,
    "arr": objects.draw_arrangement,
    "flower": creatures.draw_flower,
    "vehicle": creatures.draw_vehicle,
}


def _background(style: Style, color: Color, rnd: random.Random, rng: np.random.Generator) -> Image.Image:
    """A 64x64 background whose mean color differs from the object's."""
    base = style.tint and jitter(style.tint, 40, rnd)
    while base is None or sum(abs(a - b) for a, b in zip(base, color, strict=True)) <= MIN_CONTRAST:
        base = _any_color(rnd) if style.tint is None or rnd.random() < 0.2 else jitter(style.tint, 70, rnd)
    mixture = ("plain", "plain", "slope", "blotches", "blotches", "photo")
    kind = rnd.choice(mixture) if style.background == "web" else style.background
    if kind == "plain":
        return Image.new("RGB", (64, 64), base)
    cells, spread = {"slope": (2, 40), "blotches": (4, 32), "photo": (9, 36)}[kind]
    grid = np.clip(np.array(base) + rng.normal(0, spread, (cells, cells, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(grid).resize((64, 64), Image.Resampling.BICUBIC)


def _occlude(canvas: Image.Image, rnd: random.Random) -> None:
    draw, fill = ImageDraw.Draw(canvas), _any_color(rnd)
    x, y = rnd.randint(0, 63), rnd.randint(0, 63)
    if rnd.random() < 0.5:
        draw.rectangle((x, y, x + rnd.randint(10, 24), y + rnd.randint(10, 24)), fill=fill)
    else:
        ends = (x, 0, rnd.randint(0, 63), 63) if rnd.random() < 0.5 else (0, y, 63, rnd.randint(0, 63))
        draw.line(ends, fill, rnd.randint(5, 9))


def _any_color(rnd: random.Random) -> Color:
    return rnd.randrange(256), rnd.randrange(256), rnd.randrange(256)


def _sketch(pixels: np.ndarray, color: Color) -> np.ndarray:
    edges = sum(np.abs(np.diff(pixels, axis=a, append=pixels.take([-1], axis=a))).max(axis=2) for a in (0, 1))
    ink = np.clip(edges / 60, 0, 1)[:, :, None]
    return 248 * (1 - ink) + ink * np.array(color, np.float32)


def _rendition(pixels: np.ndarray, rnd: random.Random) -> np.ndarray:
    effect = rnd.randrange(5)
    if effect == 0:
        return np.floor(pixels / 86) * 86 + 42
    if effect == 1:
        return pixels.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3)).repeat(4, axis=0).repeat(4, axis=1) * 0.6 + pixels * 0.4
    if effect == 2:
        shift = np.round(2 * np.sin(np.arange(SIZE) / rnd.uniform(1.5, 4) + rnd.uniform(0, 6))).astype(int)
        return pixels[np.arange(SIZE)[:, None], (np.arange(SIZE)[None, :] + shift[:, None]) % SIZE]
    if effect == 3:
        rows, columns = np.mgrid[0:SIZE, 0:SIZE]
        strokes = np.random.default_rng(rnd.getrandbits(32)).integers(-2, 3, (2, SIZE, SIZE))
        return pixels[np.clip(rows + strokes[0], 0, SIZE - 1), np.clip(columns + strokes[1], 0, SIZE - 1)]
    tint = np.array([rnd.uniform(120, 250) for _ in range(3)], np.float32)
    return 0.45 * pixels + 0.55 * tint
