"""Training on a folder of images without the workflow: ``cpt.fit``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cpt import limits
from cpt.api.model import Model, load
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
from cpt.methods.base import registry
from cpt.methods.base.hyperparameters import Continued, resolve
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
    kind = registry.get(method)
    root = Path(train_folder).absolute()
    if issubclass(kind.hyperparameters, Continued):
        raise CptError(f"method {method}: it starts from a finished run; run it in the workflow")
    if not 0 <= seed <= limits.SEED:
        raise CptError(f"seed: {seed} is not between 0 and {limits.SEED}")
    try:
        hp: Any = resolve(kind.hyperparameters, PROTOCOL, "", hyperparameters)
    except ValidationError as error:
        raise CptError(f"method {method}: {one_line(error, kind.hyperparameters)}") from None
    listing = _listed(root, classes)
    dataset = root.name if NAME.fullmatch(root.name) else "images"
    try:
        entry = Entry(name=dataset, title=dataset, layout="folders", root=str(root), template=template)
    except ValidationError as error:
        raise CptError(one_line(error, Entry)) from None

    from cpt.training.train import TrainInputs, train  # torch, after what is quickly refused

    folder = Path(output) if output is not None else Path(tempfile.mkdtemp(prefix="cpt-fit-"))
    backbone_file = _backbone(backbone, folder)
    manifest = make_manifest(entry, folder / "data" / dataset, log, listing)
    clip = load_for_features(backbone_file, device, threads)
    tokenizer, templates = load_tokenizer(backbone_file), template_set(hp.templates, template, {})
    names = read_manifest(manifest).class_names
    text_features = folder / paths.text_features(dataset, hp.templates)
    make_text_features(clip, tokenizer, names, templates, template, text_features)
    split = folder / paths.split(PROTOCOL, dataset, 1.0, seed)
    most = max(sum(label == k for _, label, _ in listing.images) for k in range(len(names)))
    table, metadata = make_split(
        read_manifest(manifest), protocol=PROTOCOL, imbalance_ratio=1.0, n_max=most, seed=seed, class_order="appearance"
    )
    write_split(split, table, metadata)
    clusters = descriptions = None
    if kind.needs_clusters:
        clusters = folder / paths.clusters(PROTOCOL, dataset, hp.clustering, seed)
        own = seed if hp.cluster_seed is None else hp.cluster_seed
        size = {"per": hp.classes_per_cluster, "fixed": hp.clusters}
        make_clusters(text_features, PROTOCOL, hp.clustering, own, clusters, **size)
    if kind.needs_descriptions:
        descriptions = folder / paths.descriptions(dataset, f"templates-{hp.descriptions}")
        sets = template_set(hp.descriptions, template, {})
        make_descriptions(clip, tokenizer, names, descriptions, templates=sets, templates_name=hp.descriptions)
    run = folder / "runs" / paths.run(PROTOCOL, dataset, 1.0, method, seed)
    train(
        TrainInputs(
            method=method,
            hyperparameters=hp.model_dump(),
            seed=seed,
            backbone=backbone_file,
            manifest=manifest,
            split=split,
            text_features=text_features,
            clusters=clusters,
            descriptions=descriptions,
            augmentation=augmentation,
            device=device,
            threads=threads,
        ),
        run,
        log,
    )
    return load(run, results=folder, device=device, threads=threads)
