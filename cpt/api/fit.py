"""Training on a folder of images without the workflow: ``cpt.fit``."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from cpt import limits
from cpt.api.model import Model, load
from cpt.clip.backbone import SCHEMA, load_backbone
from cpt.clip.device import prepare_device
from cpt.clip.make_backbone import load_tokenizer, make_backbone
from cpt.data.entry import NAME, Entry
from cpt.data.layouts.listing import SUFFIXES, Listing, class_folders
from cpt.data.make_manifest import make_manifest
from cpt.data.manifest import read_manifest
from cpt.data.split import make_split, write_split
from cpt.errors import CptError
from cpt.features.descriptions import make_descriptions
from cpt.features.make_clusters import make_clusters
from cpt.features.templates import template_set
from cpt.features.text import make_text_features
from cpt.files import paths
from cpt.files.stage_files import read_json
from cpt.methods.base import registry
from cpt.methods.base.hyperparameters import Continued, resolve
from cpt.methods.base.method import Method
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
        output: folder to keep the run and its inputs in, for ``cpt.load``; a temporary one by default.
        seed: of initial prompts, order and augmentation.
        augmentation: ``rrc_flip`` (random crops, mirrored) or ``none``.
        device: ``auto``, ``cpu`` or ``cuda``.
        threads: of a CPU; the same number gives the same bits.
        log: is called with a line per epoch.
        **hyperparameters: of the method, ``cpt methods <name>`` lists them.

    Raises:
        CptError: an unknown method or hyperparameter, a method that starts from another run (DPC), a class folder
            without images, or a class name that is too long for the backbone.
    """
    kind, hp = _checked(method, seed, hyperparameters)
    entry, listing = _dataset(Path(train_folder).absolute(), classes, template)
    folder = Path(output) if output is not None else Path(tempfile.mkdtemp(prefix="cpt-fit-"))
    given = {"method": method, "hyperparameters": hp.model_dump(), "seed": seed, "augmentation": augmentation}
    given |= {"device": device, "threads": threads, "backbone": _backbone(backbone, folder)}
    given |= {"manifest": make_manifest(entry, folder / "data" / entry.name, log, listing)}
    run = folder / "runs" / paths.run(PROTOCOL, entry.name, 1.0, method, seed)
    train(_inputs(given, entry.name, kind, hp, template, folder), run, log)
    return load(run, results=folder, device=device, threads=threads)


def _checked(method: str, seed: int, given: dict[str, Any]) -> tuple[type[Method], Any]:
    """The method and its hyperparameters."""
    kind = registry.get(method)
    if issubclass(kind.hyperparameters, Continued):
        raise CptError(f"method {method}: it starts from a finished run of another one; train it with the workflow")
    if not 0 <= seed <= limits.SEED:
        raise CptError(f"seed: {seed} is not between 0 and {limits.SEED}")
    try:
        return kind, resolve(kind.hyperparameters, PROTOCOL, "", given)
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
    given = Path(backbone)
    weights = read_json(given, SCHEMA)["weights"]
    folder.mkdir(parents=True, exist_ok=True)
    for path in (given.parent / weights, given):
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    return output


def _inputs(given: dict[str, Any], name: str, kind: type[Method], hp: Any, template: str, folder: Path) -> TrainInputs:
    """Write the split, the text features and what else the method needs; return all that it is trained on."""
    text_features = folder / paths.text_features(name, hp.templates)
    inputs = TrainInputs(
        **given, split=folder / paths.split(PROTOCOL, name, 1.0, given["seed"]), text_features=text_features
    )
    manifest = read_manifest(inputs.manifest)
    names = manifest.class_names
    largest = int(np.bincount(manifest.label).max())
    rules: dict[str, Any] = {"protocol": PROTOCOL, "imbalance_ratio": 1.0, "class_order": "appearance"}
    write_split(inputs.split, *make_split(manifest, n_max=largest, seed=inputs.seed, **rules))
    place, _ = prepare_device(inputs.device, "float32", inputs.threads)
    clip, tokenizer = load_backbone(inputs.backbone, place), load_tokenizer(inputs.backbone)
    templates = template_set(hp.templates, template, {})
    make_text_features(clip, tokenizer, names, templates, template, inputs.text_features)
    if kind.needs_clusters:
        clusters = folder / paths.clusters(PROTOCOL, name, hp.clustering, inputs.seed)
        own = inputs.seed if hp.cluster_seed is None else hp.cluster_seed
        size = {"per": hp.classes_per_cluster, "fixed": hp.clusters}
        make_clusters(inputs.text_features, PROTOCOL, hp.clustering, own, clusters, **size)
        inputs = replace(inputs, clusters=clusters)
    if kind.needs_descriptions:
        descriptions = folder / paths.descriptions(name, f"templates-{hp.descriptions}")
        texts = template_set(hp.descriptions, template, {})
        make_descriptions(clip, tokenizer, names, descriptions, templates=texts, templates_name=hp.descriptions)
        inputs = replace(inputs, descriptions=descriptions)
    return inputs
