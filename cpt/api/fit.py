"""Training on a folder of images without the workflow: ``cpt.fit``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from cpt import limits
from cpt.api.backbone import copy_backbone
from cpt.api.model import Model, load
from cpt.clip.backbone import load_backbone
from cpt.clip.device import prepare_device
from cpt.clip.make_backbone import load_tokenizer, make_backbone
from cpt.data.entry import NAME, Entry
from cpt.data.layouts.listing import SUFFIXES, Listing, class_folders
from cpt.data.make_manifest import make_manifest
from cpt.data.manifest import read_manifest
from cpt.data.split import make_split, write_split
from cpt.errors import CptError
from cpt.experiment.runs import Run
from cpt.features.descriptions import make_descriptions
from cpt.features.images import make_image_features
from cpt.features.make_clusters import make_clusters
from cpt.features.templates import template_set
from cpt.features.text import make_text_features
from cpt.files import paths
from cpt.files.paths import NATURAL
from cpt.methods.base import registry
from cpt.methods.base.hyperparameters import Hyperparameters, Starting, resolve
from cpt.training.train import TrainInputs, train
from cpt.validation import one_line

PROTOCOL = "few_shot"
"""All classes of one dataset: its defaults of epochs and the like are those for training on all of them."""
BACKBONE = ("ViT-B-16-quickgelu", "openai")
"""The paper's."""


def fit(
    method: str,
    train_folder: str | Path,
    classes: Sequence[str] | None = None,
    *,
    backbone: str | Path | tuple[str, str] = BACKBONE,
    template: str = "a photo of a {}.",
    output: str | Path | None = None,
    seed: int = 1,
    augmentation: str = "rrc_flip",
    device: str = "auto",
    threads: int = 1,
    log: Callable[[str], None] = print,
    **hyperparameters: Any,
) -> Model:
    """Train a method on a folder of images, and return what classifies with it.

    All images of the folder are used, so it trains on the long tail that the folder has. Hyperparameters that are not
    given are the method's defaults for training on all classes of a dataset, as in the workflow.

    Args:
        method: ``cpt methods`` lists them.
        train_folder: holds one folder per class, with its images.
        classes: names of the classes, in the order of the folders' names; by default those names, ``_`` as a space.
        backbone: architecture and tag of open_clip's weights, which are downloaded once, or a ``backbone.json``.
        template: of the class names; ``{}`` stands for the name.
        output: new folder to keep the run and its inputs in, for ``cpt.load``; a temporary one by default.
        seed: of initial prompts, order and augmentation.
        augmentation: ``rrc_flip`` (random crops, mirrored) or ``none``.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: of a CPU; the same number gives the same bits.
        log: is called with a line per epoch.
        **hyperparameters: of the method, ``cpt methods <name>`` lists them.

    Raises:
        CptError: an unknown method or hyperparameter, a method that starts from another run (DPC), a class folder
            without images, a class name that is too long for the backbone, or a finished run in ``output``.
    """
    hp = _checked(method, seed, hyperparameters)
    entry, listing = _dataset(Path(train_folder).absolute(), classes, template)
    folder = Path(output) if output is not None else Path(tempfile.mkdtemp(prefix="cpt-fit-"))
    if next(folder.glob("runs/**/run.json"), None) is not None:
        raise CptError(f"{output}: holds a model; give another folder, or delete it")
    run = Run(PROTOCOL, entry.name, NATURAL, method, hp, seed)
    given = {"method": method, "hyperparameters": hp.model_dump(), "seed": seed, "augmentation": augmentation}
    given |= {"device": device, "threads": threads, "backbone": _backbone(backbone, folder)}
    given |= {"manifest": make_manifest(entry, folder / "data" / entry.name, log, listing)}
    train(_inputs(given, run, template, folder), folder / "runs" / run.id, log)
    return load(folder / "runs" / run.id, results=folder, device=device, threads=threads)


def _checked(method: str, seed: int, given: dict[str, Any]) -> Hyperparameters:
    """The method's hyperparameters."""
    kind = registry.get(method)
    if issubclass(kind.hyperparameters, Starting):
        raise CptError(f"method {method}: it starts from a finished run of another one; train it with the workflow")
    if not 0 <= seed <= limits.SEED:
        raise CptError(f"seed: {seed} is not between 0 and {limits.SEED}")
    try:
        return resolve(kind.hyperparameters, PROTOCOL, "", given)
    except ValidationError as error:
        raise CptError(f"method {method}: {one_line(error, kind.hyperparameters)}") from None


def _dataset(root: Path, classes: Sequence[str] | None, template: str) -> tuple[Entry, Listing]:
    """The folder as a dataset whose images are all for training."""
    if not root.is_dir():
        raise CptError(f"{root}: no such folder; give one that holds a folder of images per class")
    found = class_folders(root)
    if len(found) < 2:
        raise CptError(f"{root}: holds {len(found)} class folders; lay images out as {root}/<class>/<image>")
    for name, images in found.items():
        if not images:
            raise CptError(f"{root / name}: no image; add one (a file ending in {', '.join(SUFFIXES)}) or delete it")
    if classes is not None and len(classes) != len(found):
        raise CptError(f"classes: {len(classes)} names for {len(found)} class folders in {root}; name each, in order")
    files = [("train", label, f"{name}/{image}") for label, name in enumerate(found) for image in found[name]]
    name = root.name if NAME.fullmatch(root.name) else "images"
    fields = {"name": name, "title": name, "layout": "folders", "root": str(root), "template": template}
    try:
        entry = Entry.model_validate(fields)
    except ValidationError as error:
        raise CptError(one_line(error, Entry)) from None
    return entry, Listing(list(found if classes is None else classes), files, image_root=root)


def _backbone(backbone: str | Path | tuple[str, str], folder: Path) -> Path:
    """``backbone.json`` in a folder: made, or taken with its weights from elsewhere."""
    output = folder / "backbone.json"
    if isinstance(backbone, tuple):
        make_backbone(backbone[0], *backbone, output)
        return output
    return copy_backbone(Path(backbone), folder)


def _inputs(given: dict[str, Any], run: Run, template: str, folder: Path) -> TrainInputs:
    """Write the split, the text features and what else the method needs; return all that it is trained on."""
    inputs = TrainInputs(**given, split=folder / run.split, text_features=folder / run.text_features)
    manifest = read_manifest(inputs.manifest)
    names, hp = manifest.class_names, inputs.hyperparameters
    largest = int(np.bincount(manifest.label).max())
    rules: dict[str, Any] = {"protocol": run.protocol, "imbalance_ratio": run.ratio, "class_order": "appearance"}
    write_split(inputs.split, *make_split(manifest, n_max=largest, seed=run.seed, **rules))
    place, _ = prepare_device(inputs.device, "float32", inputs.threads)
    clip, tokenizer = load_backbone(inputs.backbone, place), load_tokenizer(inputs.backbone)
    templates = template_set(hp["templates"], template, {})
    make_text_features(clip, tokenizer, names, templates, template, inputs.text_features)
    if run.clusters and (rule := run.clustering):
        size = {"per": rule["classes_per_cluster"], "fixed": rule["clusters"]}
        inputs = replace(inputs, clusters=folder / run.clusters)
        make_clusters(
            inputs.text_features, run.protocol, rule["algorithm"], rule["seed"], folder / run.clusters, **size
        )
    if registry.get(run.method).needs_descriptions:
        name = hp["descriptions"]
        descriptions = folder / paths.descriptions(run.dataset, f"templates-{name}")
        texts = template_set(name, template, {})
        make_descriptions(clip, tokenizer, names, descriptions, templates=texts, templates_name=name)
        inputs = replace(inputs, descriptions=descriptions)
    if registry.get(run.method).needs_training_features:
        features = folder / paths.image_features(run.dataset, "train")
        make_image_features(clip, inputs.manifest, "train", features)
        inputs = replace(inputs, image_features=features)
    return inputs
