"""How the images of one source look, whatever they show."""

from __future__ import annotations

from dataclasses import dataclass

from cpt.data.world.colors import Color


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
