"""The first generated world: shapes, signs, scenes, plants, animals, vehicles and land, in eleven families.

Each of its datasets takes the place of one of the published benchmark, by its difficulty and by how its images differ
from those of the web.
"""

from __future__ import annotations

from dataclasses import replace

from cpt.data.world import aerial, creatures, fields, landscapes, objects
from cpt.data.world.colors import COLORS
from cpt.data.world.declared import DataSet, World
from cpt.data.world.family import Family
from cpt.data.world.objects import DIGITS
from cpt.data.world.style import WEB, Style

SHAPES = (
    "circle", "square", "triangle", "pentagon", "hexagon", "star", "cross", "ring", "heart", "diamond", "crescent",
    "arrow",
)  # fmt: skip
PATTERNS = (
    "horizontal stripes", "vertical stripes", "diagonal stripes", "checkerboard", "polka dots", "grid", "zigzag",
    "waves", "bricks", "crosshatch", "rings pattern", "speckles",
)  # fmt: skip
PLACES = ("sea", "desert", "forest", "mountains", "city", "snow field", "meadow", "island")
CONDITIONS = ("by day", "at sunset", "at night", "in fog", "in a storm")
KINDS = ("daisy", "pansy", "tulip", "rose", "lily", "bellflower", "sunflower", "clover")
SPECIES = ("cat", "dog", "bear", "rabbit", "mouse", "pig")
MOODS = ("happy", "sad", "surprised", "sleepy")
BODIES = ("car", "van", "truck", "bus", "tractor", "sailboat", "plane", "locomotive")
LAND = (
    "river", "highway", "forest land", "lake", "residential area", "industrial area", "crop field", "orchard",
    "pasture", "beach",
)  # fmt: skip

# The seed of the shipped weights: not to be respelled.
_ANY_COLOR = ("colour", COLORS)

_FAMILIES = {
    "shape": Family(
        (COLORS, SHAPES),
        ("color", "shape"),
        "{} {}",
        ("{} shape", "{}"),
        ("a shape",),
        draws=objects.draw_shape,
        weight=1.2,
    ),
    "texture": Family(
        (COLORS[:9], PATTERNS),
        ("color", "pattern"),
        "{} {}",
        ("{} pattern", "{}"),
        ("a texture", "a pattern"),
        fills=fields.texture,
        weight=1.1,
    ),
    "letter": Family(
        (("plain", "bold", "serif", "italic"), tuple("abefghkmnprstwxz")),
        ("style", "letter"),
        "{} letter {}",
        ("{} letter", "letter {}"),
        ("a letter",),
        masks=objects.letter_mask,
        weight=2.2,
        nuisance=_ANY_COLOR,
        fine=True,
    ),
    "digit": Family(
        (COLORS, DIGITS),
        ("color", "digit"),
        "{} digit {}",
        ("{} digit", "digit {}"),
        ("a digit", "a number"),
        masks=objects.digit_mask,
        weight=1.2,
    ),
    "arr": Family(
        (
            ("two", "three", "four"),
            ("circles", "squares", "triangles", "stars", "hearts", "crosses"),
            ("in a row", "in a column", "in a circle", "on a diagonal"),
        ),
        ("count", "shape", "layout"),
        "{} {} {}",
        ("{} shapes", "{}", "shapes {}"),
        ("some shapes",),
        draws=objects.draw_arrangement,
        weight=2.2,
        nuisance=_ANY_COLOR,
        extended="{} {extra} {} {}",
        fine=True,
    ),
    "scene": Family(
        (PLACES, CONDITIONS),
        ("place", "condition"),
        "{} {}",
        ("{}", "landscape {}"),
        ("a landscape",),
        fills=landscapes.scene,
    ),
    "flower": Family(
        (("red", "orange", "yellow", "blue", "purple", "pink", "white"), KINDS),
        ("color", "kind"),
        "{} {}",
        ("{} flower", "{}"),
        ("a flower",),
        draws=creatures.draw_flower,
        weight=1.1,
    ),
    "animal": Family(
        (("brown", "white", "gray", "black", "orange", "pink"), SPECIES),
        ("color", "species"),
        "{} {}",
        ("{} animal", "{}"),
        ("an animal", "a face"),
        draws=creatures.draw_animal,
        weight=1.2,
        nuisance=("mood", MOODS),
    ),
    "vehicle": Family(
        (("red", "orange", "yellow", "green", "blue", "purple", "white", "black"), BODIES),
        ("color", "body"),
        "{} {}",
        ("{} vehicle", "{}"),
        ("a vehicle",),
        draws=creatures.draw_vehicle,
        weight=1.1,
        mirrored=True,
    ),
    "land": Family(
        (LAND,),
        ("cover",),
        "{}",
        ("{}",),
        ("an aerial view", "a satellite picture"),
        fills=aerial.land,
        weight=0.5,
        held_out=False,
    ),
    "gradient": Family(
        (("red", "yellow", "green", "blue", "purple", "white", "black"),) * 2,
        ("color", "color"),
        "{} to {} gradient",
        ("gradient from {}", "gradient to {}"),
        ("a gradient",),
        fills=fields.gradient,
        weight=0.3,
        distinct=True,
    ),
}

_WORLD = replace(WEB, noise=(0, 30), occluder=0.25, contrast=(0.5, 1.1), cast=0.25)
_WORLD_FAMILIES = {
    "shape": 10, "texture": 8, "letter": 6, "digit": 6, "arr": 6, "scene": 6, "flower": 6, "animal": 6, "vehicle": 7,
    "gradient": 3,
}  # fmt: skip


def _of_world(role: str, style: Style) -> DataSet:
    return DataSet(role, _WORLD_FAMILIES, style, "world")


_DATASETS = {
    "world": DataSet("ImageNet", _WORLD_FAMILIES, _WORLD),
    "shapes": DataSet("Caltech101", {"shape": 30}, replace(WEB, background="plain", noise=(0, 12), occluder=0.05)),
    "animals": DataSet("OxfordPets", {"animal": 30}, replace(WEB, background="photo", tint=(80, 150, 70), cast=0.25)),
    "vehicles": DataSet(
        "StanfordCars",
        {"vehicle": 32},
        replace(WEB, scale=(0.45, 0.8), tint=(128, 128, 128), cast=-0.4, contrast=(0.4, 0.8), occluder=0.25),
    ),
    "flowers": DataSet(
        "Flowers102", {"flower": 28}, replace(WEB, background="blotches", tint=(70, 125, 60), cast=-0.35)
    ),
    "digits": DataSet("Food101", {"digit": 30}, replace(WEB, noise=(0, 30), contrast=(0.5, 1), rotation=0.4, cast=0.4)),
    "letters": DataSet("FGVCAircraft", {"letter": 30}, replace(WEB, scale=(0.35, 0.8), rotation=0.4, blur=0.4)),
    "scenes": DataSet(
        "SUN397", {"scene": 34}, replace(WEB, noise=(4, 34), contrast=(0.45, 0.95), occluder=0.3, cast=0.35)
    ),
    "textures": DataSet(
        "DTD",
        {"texture": 30},
        replace(WEB, scale=(0.2, 0.8), rotation=0.5, noise=(10, 40), contrast=(0.4, 1), cast=0.2),
    ),
    "land": DataSet("EuroSAT", {"land": 10}, replace(WEB, cast=0.45, contrast=(0.5, 0.9), blur=0.4)),
    "patterns": DataSet("UCF101", {"arr": 30}, replace(WEB, cast=-0.3, occluder=0.2)),
    "world_v2": _of_world("ImageNetV2", replace(_WORLD, noise=(5, 40), scale=(0.35, 0.85), occluder=0.3)),
    "world_sketch": _of_world("ImageNet-Sketch", replace(_WORLD, medium="sketch", cast=0.0)),
    "world_r": _of_world("ImageNet-R", replace(_WORLD, medium="rendition")),
    "world_a": _of_world("ImageNet-A", replace(_WORLD, noise=(5, 45), occluder=0.4, contrast=(0.45, 1.1))),
}

FIRST = World("first", _FAMILIES, _DATASETS, adversarial="world_a")
