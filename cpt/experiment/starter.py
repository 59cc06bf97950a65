"""A configuration to begin with: a few methods on one folder of images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from cpt.data.entry import Entry
from cpt.data.make_manifest import find_images
from cpt.data.manifest import PARTS
from cpt.errors import CptError
from cpt.experiment.sections import named
from cpt.files.stage_files import write_text

WORDS = ("training", "validation", "test")
"""What ``PARTS`` are called."""
VARIANTS = ("zeroshot", "coop", "ivlp", "cpt")
BASE = {False: "config/paper.yaml", True: "config/config.yaml"}
CLUSTERED, SMALL_CLUSTERS = 24, 4
"""Base classes from which CPT's 16 classes per cluster make several clusters, and what fits fewer."""


def write_starter(name: str, images: Path, folder: Path, *, tiny: bool) -> tuple[Path, str]:
    """Write ``<name>.yaml`` and its catalog ``<name>.datasets.yaml``; return the first and a line about the images.

    Args:
        name: of experiment and dataset.
        images: ``<part>/<class>/<image>`` with the parts train and test, or ``<class>/<image>``, which is cut.
        folder: to write into.
        tiny: with the tiny CLIP instead of ViT-B/16.

    Raises:
        CptError: a file exists already, or the folder does not hold images of two classes or more.
    """
    try:
        named(name)
    except ValueError as error:
        raise CptError(f"{name!r}: {error}") from None
    path, catalog = folder / f"{name}.yaml", folder / f"{name}.datasets.yaml"
    for existing in (path, catalog):
        if existing.exists():
            raise CptError(f"{existing}: exists; delete it or choose another name")
    cut = not any((images / part).is_dir() for part in PARTS)
    if cut and images.is_dir() and not any(path.is_dir() for path in images.iterdir()):
        raise CptError(f"{images}: has no folders; put the images of each class into one of its own")
    fields: dict[str, Any] = {"title": images.resolve().name, "layout": "folders", "root": str(images.resolve())}
    fields |= {"derived_split": True} if cut else {}
    listing = find_images(Entry(name=name, **fields))
    classes, parts = len(listing.class_names), Counter(part for part, _, _ in listing.images)
    if classes < 2:
        raise CptError(f"{images}: one class, {listing.class_names[0]!r}; add a folder of images of another one")
    write_text(catalog, yaml.safe_dump({name: fields}, sort_keys=False, allow_unicode=True))
    write_text(path, _configuration(name, images.resolve(), (classes + 1) // 2, tiny=tiny))
    counted = ", ".join(f"{parts[part]:,} {word}" for part, word in zip(PARTS, WORDS, strict=True) if parts[part])
    return path, f"{images}: {classes} classes, {counted} images" + (", cut by cpt (50, 20 and 30 %)" if cut else "")


def _configuration(name: str, images: Path, base_classes: int, *, tiny: bool) -> str:
    backbone = "the tiny CLIP, which knows only the generated world" if tiny else "CLIP ViT-B/16"
    small = base_classes < CLUSTERED
    clusters = f"overrides: [{{methods: [cpt], set: {{classes_per_cluster: {SMALL_CLUSTERS}}}}}]\n" if small else ""
    rows = ", ".join(VARIANTS)
    return f"""\
# Zero-shot CLIP, CoOp, IVLP and CPT on the images below {images}, with {backbone}.
# Its settings: docs/tutorial.md, and docs/adding.md for `only` and tables.
extends: {BASE[tiny]}
experiment: {name}
catalog: {name}.datasets.yaml
printed: false
seeds: [1, 2, 3]
imbalance_ratios: [natural]    # all training images; 0.06 instead imposes a long tail on at most n_max = 16 a class
{clusters}tasks:
  base_to_new: {{datasets: [{name}]}}
  few_shot: {{datasets: [{name}]}}
  cross_dataset: null
  domain_generalization: null
only: [all_classes, halves]
exhibits:
  all_classes:
    {{kind: table, layout: datasets, tasks: [few_shot], variants: [{rows}], title: All classes, caption: Accuracy.}}
  halves:
    {{kind: table, layout: base_new, tasks: [base_to_new], variants: [{rows}], title: Base and new classes}}
"""
