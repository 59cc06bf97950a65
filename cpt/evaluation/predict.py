"""Prediction: a finished run on its targets, every test image once.

Text features are computed once per run and target; images are read from the dataset's packed or decoded pixels, or
from frozen features where a method does not prompt the vision tower.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F

from cpt.clip.backbone import Clip
from cpt.clip.device import upload
from cpt.data.classes import subset_labels
from cpt.data.images import ImageStore
from cpt.data.manifest import read_manifest, rows_of
from cpt.errors import CptError
from cpt.evaluation.trained import facts, probabilities, read_trained
from cpt.features.images import encode, read_image_features
from cpt.features.text import Classes, read_text_features
from cpt.files import paths
from cpt.files.paths import CLASSIFIER, IMAGES, PREDICTIONS
from cpt.files.stage_files import write_parquet, write_tensors
from cpt.methods.base.method import Method
from cpt.metrics.geometry import ClassMeans

TOP = 5
NAMES = pa.list_(pa.string())


@dataclass(frozen=True)
class Target:
    """Test images of some classes of a dataset.

    Attributes:
        classes: the K classes of the subset.
        rows: (N,) rows of the manifest.
        paths: (N,) image files as the manifest names them.
        labels: (N,) labels 0..K-1 within the subset.
        trained: these classes of this dataset were trained.
    """

    dataset: str
    subset: str
    classes: Classes
    rows: np.ndarray
    paths: np.ndarray
    labels: np.ndarray
    trained: bool


@torch.no_grad()
def predict(
    run: Path,
    results: Path,
    targets: Sequence[tuple[str, str]],
    *,
    part: str = "test",
    device: str = "auto",
    threads: int = 1,
    log: Callable[[str], None] = print,
) -> None:
    """Write predictions.parquet and classifier.safetensors of a run.

    Args:
        run: folder of a finished run.
        results: folder of the experiment; inputs lie where docs/files.md says.
        targets: (dataset, subset) with subset ``base``, ``new`` or ``all``.
        part: ``test``, or ``val`` for choices that must not see the test images.

    Raises:
        CptError: the run is not finished or an input is missing.
    """
    started = time.monotonic()
    trained = read_trained(run, results, device, threads)
    record, method = trained.record, trained.method
    loaded = [
        _target(results, record["dataset"], *target, part, method.hp.templates, method.clip) for target in targets
    ]

    tables: list[pa.Table] = []
    classifiers: dict[str, Tensor] = {}
    for epoch, state in trained.states:
        method.load_state_dict(state)
        for chosen in _groups(method, loaded):
            method.target(trained=chosen[0].trained)
            found, learned = _dataset(method, results, chosen, part)
            tables += [_table(target, epoch, best) for target, best in zip(chosen, found, strict=True)]
            if epoch is None:
                classifiers |= learned
                seen = sum(len(target.rows) for target in chosen)
                log(f"{chosen[0].dataset}: {seen} images, {time.monotonic() - started:.1f} s")
    names = {f"{target.dataset}/{target.subset}": list(target.classes.names) for target in loaded}
    write_tensors(run / "classifier.safetensors", classifiers, CLASSIFIER, classes=names, **facts(method, record))
    seconds = time.monotonic() - started
    write_parquet(run / "predictions.parquet", pa.concat_tables(tables), PREDICTIONS)
    log(f"wrote predictions for {len(loaded)} targets in {seconds:.1f} s")


def _groups(method: Method, targets: list[Target]) -> list[list[Target]]:
    """Targets that share one pass over their dataset's images."""
    groups: dict[tuple, list[Target]] = {}
    for target in targets:
        groups.setdefault((target.dataset, method.depends_on_target and target.trained), []).append(target)
    return list(groups.values())


def _target(results: Path, source: str, dataset: str, subset: str, part: str, templates: str, clip: Clip) -> Target:
    place = results / paths.manifest(dataset)
    manifest = read_manifest(place)
    classes, _ = read_text_features(results / paths.text_features(dataset, templates), clip.device)
    labels = subset_labels(manifest.label, subset)
    images = rows_of(manifest, part, place)
    rows = images[np.isin(manifest.label[images], labels)]
    if len(rows) == 0:
        raise CptError(f"{dataset}/{subset}: no {part} images; add some to the dataset, or leave this target out")
    chosen = classes if len(labels) == len(classes) else classes.take(labels.tolist())
    trained = dataset == source and subset != "new"
    within = np.searchsorted(labels, manifest.label[rows])
    return Target(dataset, subset, chosen, rows, manifest.path[rows], within, trained)


def _dataset(
    method: Method, results: Path, targets: list[Target], part: str
) -> tuple[list[tuple[Tensor, ...]], dict[str, Tensor]]:
    """Predict targets of one dataset with one pass over the images that any of them needs; no value is read.

    Returns:
        What ``_best`` returns, by target; and by ``<target>/<subset>`` text features (K, D), where they do not depend
        on the image, and by ``<target>/<subset>/images`` mean image features (K, D), zeros for a class without images.
    """
    texts = [None if method.image_conditioned else method.text_features(target.classes) for target in targets]
    rows = np.unique(np.concatenate([target.rows for target in targets]))
    features = torch.cat(list(_image_features(method, results, targets[0].dataset, part, rows)))
    found, learned = [], {}
    for target, text in zip(targets, texts, strict=True):
        chosen = features[upload(np.searchsorted(rows, target.rows), features.device)]
        labels = upload(target.labels, features.device)
        name = f"{target.dataset}/{target.subset}"
        if text is not None:
            learned[name] = text
        seen = ClassMeans(len(target.classes), chosen.shape[1], chosen.device)
        seen.add(chosen, labels)
        learned[f"{name}/{IMAGES}"] = seen.means().float()
        found.append(_best(probabilities(method, chosen, target.classes, text), labels))
    return found, learned


def _best(scores: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
    """The best classes of every image (N, TOP), their probabilities, and that of the true class (N,)."""
    top = scores.topk(min(TOP, scores.shape[1]), dim=1)
    return top.indices, top.values, scores.gather(1, labels.unsqueeze(1)).squeeze(1)


def _table(target: Target, epoch: int | None, best: tuple[Tensor, ...]) -> pa.Table:
    """Predictions of a target's images: the first values that are read from the device.

    Raises:
        CptError: they are not finite.
    """
    indices, values, true = (tensor.cpu() for tensor in best)
    if not values.isfinite().all():
        where = f"{target.dataset}/{target.subset}"
        raise CptError(
            f"{where}: scores are not finite; set precision: float32 or lower learning_rate, and train again"
        )
    count, names = len(target.rows), pa.array(target.classes.names, pa.string())
    columns = {
        "target": pa.array([target.dataset] * count),
        "subset": pa.array([target.subset] * count),
        "epoch": pa.array([epoch] * count, pa.int64()),
        "row": pa.array(target.rows, pa.int64()),
        "path": pa.array(target.paths, pa.string()),
        "label": pa.array(target.labels, pa.int64()),
        "class_name": names.take(pa.array(target.labels)),
        "top_labels": pa.array(indices.tolist(), pa.list_(pa.int64())),
        "top_names": pa.array([[target.classes.names[label] for label in row] for row in indices.tolist()], NAMES),
        "top_scores": pa.array(values.tolist(), pa.list_(pa.float32())),
        "true_score": pa.array(true.numpy(), pa.float32()),
    }
    return pa.table(columns)


def _image_features(method: Method, results: Path, dataset: str, part: str, rows: np.ndarray) -> Iterator[Tensor]:
    """Features of test images (batches, D) by which the method classifies them."""
    frozen = results / paths.image_features(dataset, part)
    clip = method.clip
    if not method.prompts_images and frozen.is_file():
        features, where = read_image_features(frozen)
        raw = features[np.searchsorted(where.numpy(), rows)].to(clip.device)
        yield F.normalize(method.from_frozen(raw), dim=-1)
        return
    cache = results / paths.pixels(dataset, part)
    kept = cache if cache.is_file() else None
    store = ImageStore(results / paths.manifest(dataset), clip.image_size[0], kept, clip.resizing)
    yield from encode(clip, store, rows, method.test_features, method.test_crops)
