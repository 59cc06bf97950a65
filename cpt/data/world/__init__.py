"""The generated worlds: small benchmarks and the webs of captioned images to pretrain on, all made by this package."""

from cpt.data.world.benchmark import KEYS, SHIFTS, class_names, novel, render
from cpt.data.world.worlds import DATA_SETS, WORLDS

__all__ = ["DATA_SETS", "KEYS", "SHIFTS", "WORLDS", "class_names", "novel", "render"]
