"""A configuration to begin with: a few methods on one folder of images."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from cpt.data.catalog import load_catalog
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
PACKAGED = Path("config/datasets.yaml")


def write_starter(name: str, images: Path, folder: Path, *, tiny: bool) -> tuple[Path, str]:
    """Write ``<name>.yaml`` and its catalog ``<name>.datasets.yaml``; return the first and a line about the images.

    Args:
        name: of experiment and dataset.
        images: ``<part>/<class>/<image>`` with the parts train and test, or ``<class>/<image>``, which is cut.
        folder: to write into.
        tiny: with the tiny CLIP instead of ViT-B/16.

    Raises:
        CptError: the name is a packaged dataset's, a file exists already, or the folder does not hold images of two
            classes or more.
    """
    try:
        named(name)
    except ValueError as error:
        raise CptError(f"{name!r}: {error}") from None
    if name in load_catalog(PACKAGED):
        raise CptError(f"{name}: {PACKAGED} has a dataset of this name; choose another one, such as my_{name}")
    path, catalog = folder / f"{name}.yaml", folder / f"{name}.datasets.yaml"
    for existing in (path, catalog):
        if existing.exists():
            raise CptError(f"{existing}: exists; delete it or choose another name")
    cut = not any((images / part).is_dir() for part in PARTS)
    if cut and images.is_dir() and not any(path.is_dir() for path in images.iterdir()):
        raise CptError(f"{images}: has no folders; put the images of each class into one of its own")
    title = images.resolve().name.replace("_", " ").strip()
    title = title[:1].upper() + title[1:]
    fields: dict[str, Any] = {"title": title, "layout": "folders", "root": str(images.resolve())}
    fields |= {"derived_split": True} if cut else {}
    entry = Entry(name=name, **fields)
    fields["template"] = entry.template
    listing = find_images(entry)
    classes, parts = len(listing.class_names), Counter(part for part, _, _ in listing.images)
    if classes < 2:
        raise CptError(f"{images}: one class, {listing.class_names[0]!r}; add a folder of images of another one")
    write_text(catalog, _CATALOG + yaml.safe_dump({name: fields}, sort_keys=False, allow_unicode=True))
    write_text(path, _configuration(name, title, images.resolve(), (classes + 1) // 2, tiny=tiny))
    counted = ", ".join(f"{parts[part]:,} {word}" for part, word in zip(PARTS, WORDS, strict=True) if parts[part])
    return path, f"{images}: {classes} classes, {counted} images" + (", cut by cpt (50, 20 and 30 %)" if cut else "")


_CATALOG = """\
# A dataset. The top of config/datasets.yaml explains these keys, and what else there may be.
# Say in the template what the images show: "a photo of a {}, a type of pet."
"""


def _configuration(name: str, title: str, images: Path, base_classes: int, *, tiny: bool) -> str:
    backbone = "the tiny CLIP, which knows only the generated world" if tiny else "CLIP ViT-B/16"
    small = f"""\
overrides:                     # CPT's 16 classes a cluster would put these few classes into one
  - {{methods: [cpt], set: {{classes_per_cluster: {SMALL_CLUSTERS}}}}}
"""
    on_all, on_halves = (
        json.dumps(text, ensure_ascii=False) for text in (f"Accuracy on {title}", f"Base and new classes of {title}")
    )
    rows = ", ".join(VARIANTS)
    return f"""\
# Zero-shot CLIP, CoOp, IVLP and CPT on the images below {images}, with {backbone}.
# docs/tutorial.md has more settings.
extends: {BASE[tiny]:<20}  # what is not set here is set there: docs/adding.md, "A configuration on top of another"
experiment: {name:<17}  # the folder below results/
catalog: {f"{name}.datasets.yaml":<20}  # the file with the dataset
printed: false                 # no comparison with the paper's printed numbers
seeds: [1, 2, 3]               # everything is trained with each; [1] for a first look
imbalance_ratios: [natural]    # all training images; 0.06 instead imposes a long tail on at most n_max = 16 a class
{small if base_classes < CLUSTERED else ""}\
tasks:
  base_to_new: {{datasets: [{name}]}}    # train on the first half of the classes, test on both
  few_shot: {{datasets: [{name}]}}       # train and test on all classes
  cross_dataset: null          # null: not this task of the file above
  domain_generalization: null
only: [all_classes, halves]    # of all tables and figures, these below
exhibits:
  all_classes:
    {{kind: table, layout: datasets, tasks: [few_shot], variants: [{rows}],
     title: {on_all}, caption: Trained and tested on all classes.}}
  halves:
    {{kind: table, layout: base_new, tasks: [base_to_new], variants: [{rows}],
     title: {on_halves}, caption: "Accuracy on the trained (base) half of the classes, on the other (new) one, and H."}}
"""
