"""The second generated world: fruit, sea animals, trees, buildings, signs and surfaces, in nine families.

No family is the first world's. Findings about methods that hold in both depend less on what happens to be drawn.
"""

from __future__ import annotations

from dataclasses import replace

from cpt.data.world import produce, signs, structures
from cpt.data.world.colors import COLORS
from cpt.data.world.declared import DataSet, World
from cpt.data.world.family import Family
from cpt.data.world.style import WEB, Style

FRUITS = ("apple", "pear", "banana", "cherries", "grapes", "strawberry", "melon", "pineapple")
SEA_ANIMALS = ("fish", "shark", "whale", "crab", "octopus", "jellyfish", "starfish", "turtle")

_FAMILIES = {
    "fruit": Family(
        (("red", "orange", "yellow", "green", "purple", "pink", "brown"), FRUITS),
        ("color", "kind"),
        "{} {}",
        ("{} fruit", "{}"),
        ("a fruit", "some food"),
        draws=produce.draw_fruit,
        weight=1.2,
    ),
    "sea_animal": Family(
        (("red", "orange", "yellow", "green", "blue", "purple", "pink", "gray"), SEA_ANIMALS),
        ("color", "species"),
        "{} {}",
        ("{} sea animal", "{}"),
        ("a sea animal",),
        draws=produce.draw_sea_animal,
        weight=1.2,
        mirrored=True,
    ),
    "tree": Family(
        (produce.TREES, produce.SEASONS),
        ("kind", "season"),
        "{} {}",
        ("{}", "tree {}"),
        ("a tree",),
        fills=produce.tree,
    ),
    "building": Family(
        (("red", "orange", "yellow", "green", "blue", "pink", "white", "gray"), structures.BUILDINGS),
        ("color", "kind"),
        "{} {}",
        ("{} building", "{}"),
        ("a building",),
        draws=structures.draw_building,
        weight=1.2,
    ),
    "symbol": Family(
        (COLORS[:9], signs.SYMBOLS),
        ("color", "symbol"),
        "{} {}",
        ("{} symbol", "{}"),
        ("a symbol", "a sign"),
        masks=signs.symbol_mask,
        weight=1.4,
    ),
    "flag": Family(
        (("red", "orange", "yellow", "green", "blue", "white", "black"),) * 3,
        ("color", "color", "color"),
        "{} {} {} flag",
        ("flag starting with {}", "flag with {} in the middle", "flag ending with {}"),
        ("a flag",),
        draws=signs.draw_flag,
        weight=1.6,
        distinct=True,
        nuisance=("layout", signs.LAYOUTS),
    ),
    "clock": Family(
        (signs.MINUTES, signs.HOURS),
        ("minutes", "hour"),
        "clock at {} {}",
        ("clock at {} some hour", "clock near {}"),
        ("a clock",),
        draws=signs.draw_clock,
        weight=2.2,
        nuisance=("rim", COLORS),
        fine=True,
    ),
    "chart": Family(
        (("red", "orange", "green", "blue", "purple", "brown"), signs.TRENDS, signs.MARKS),
        ("color", "trend", "mark"),
        "{1} {0} {2}",
        ("{} chart", "{} chart", "chart of {}"),
        ("a chart", "a diagram"),
        draws=signs.draw_chart,
        weight=1.8,
        fine=True,
    ),
    "surface": Family(
        (structures.SURFACES,),
        ("material",),
        "{}",
        ("{}",),
        ("a surface", "a close view"),
        fills=structures.surface,
        weight=0.5,
        held_out=False,
    ),
}

_MARKET = replace(WEB, noise=(0, 30), occluder=0.25, contrast=(0.5, 1.1), cast=-0.25)
_MARKET_FAMILIES = {
    "fruit": 8, "sea_animal": 8, "tree": 5, "building": 8, "symbol": 10, "flag": 8, "clock": 5, "chart": 8,
}  # fmt: skip


def _of_market(role: str, style: Style) -> DataSet:
    return DataSet(role, _MARKET_FAMILIES, style, "market")


_DATASETS = {
    "market": DataSet("ImageNet", _MARKET_FAMILIES, _MARKET),
    "symbols": DataSet("Caltech101", {"symbol": 30}, replace(WEB, background="plain", noise=(0, 12), occluder=0.05)),
    "sealife": DataSet(
        "OxfordPets", {"sea_animal": 30}, replace(WEB, background="photo", tint=(50, 110, 150), cast=-0.25)
    ),
    "buildings": DataSet(
        "StanfordCars",
        {"building": 32},
        replace(WEB, scale=(0.45, 0.8), tint=(150, 175, 200), cast=0.35, contrast=(0.4, 0.8), occluder=0.25),
    ),
    "fruits": DataSet("Flowers102", {"fruit": 28}, replace(WEB, background="blotches", tint=(150, 110, 70), cast=0.35)),
    "clocks": DataSet("FGVCAircraft", {"clock": 30}, replace(WEB, scale=(0.35, 0.8), blur=0.4)),
    "trees": DataSet(
        "SUN397", {"tree": 24}, replace(WEB, noise=(4, 34), contrast=(0.45, 0.95), occluder=0.3, cast=0.35)
    ),
    "flags": DataSet("DTD", {"flag": 30}, replace(WEB, rotation=0.5, noise=(10, 40), contrast=(0.4, 1), cast=0.2)),
    "surfaces": DataSet("EuroSAT", {"surface": 10}, replace(WEB, cast=-0.45, contrast=(0.5, 0.9), blur=0.4)),
    "charts": DataSet("UCF101", {"chart": 30}, replace(WEB, cast=-0.3, occluder=0.2)),
    "market_v2": _of_market("ImageNetV2", replace(_MARKET, noise=(5, 40), scale=(0.35, 0.85), occluder=0.3)),
    "market_sketch": _of_market("ImageNet-Sketch", replace(_MARKET, medium="sketch", cast=0.0)),
    "market_r": _of_market("ImageNet-R", replace(_MARKET, medium="rendition")),
}

SECOND = World("second", _FAMILIES, _DATASETS)
