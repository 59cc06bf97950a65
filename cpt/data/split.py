"""The training images of one run: few-shot draw, base cut, long tail, in this order.

The few-shot draw covers all classes and does not depend on τ, so that runs at every τ start from the same n_max
images per class. Source of the order: repo shijxcs/Candle, datasets/oxford_pets.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cpt.data.classes import PROTOCOLS, reindex, subset_labels
from cpt.data.fewshot import sample_shots
from cpt.data.longtail import long_tail, natural
from cpt.data.manifest import Manifest
from cpt.errors import CptError, nearest
from cpt.files import stage_files as files
from cpt.files.paths import NATURAL, Ratio

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA = "cpt.split/1"


@dataclass(frozen=True)
class Split:
    """A split that was read.

    Attributes:
        rows: (N,) rows of the manifest, class by class.
        labels: (N,) labels among the trained classes, 0..K-1.
        ranks: (K,) rank of every trained class, 0 = head.
        counts: (K,) training images of every trained class.
        classes: (K) names of the trained classes in label order.
        new_classes: names of the new classes; empty unless the protocol is base-to-new.
        metadata: dataset, protocol, imbalance_ratio, n_max, seed, class_order, manifest_hash, split_hash.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    ranks: NDArray[np.int64]
    counts: NDArray[np.int64]
    classes: list[str]
    new_classes: list[str]
    metadata: dict[str, Any]


def make_split(
    manifest: Manifest, *, protocol: str, imbalance_ratio: Ratio, n_max: int, seed: int, class_order: str
) -> tuple[pa.Table, dict[str, Any]]:
    """Return the rows and the metadata of a split (docs/files.md).

    Args:
        manifest: the dataset that is trained on.
        protocol: ``base_to_new`` trains on the base half; ``all_classes`` and ``few_shot`` on all classes.
        imbalance_ratio: τ in (0, 1], or ``natural``: every training image of the trained classes, whatever ``n_max``,
            the seed and the class order, which is that of the class sizes.
        n_max: images of the largest class.
        seed: the run's seed.
        class_order: ``label``, ``random`` or ``appearance`` (``cpt.data.longtail.class_ranks``).

    Raises:
        CptError: unknown protocol, impossible τ, n_max or class order, a trained class without training images, or,
            for ``base_to_new``, a half of the classes without test images.
    """
    import pyarrow as pa

    trained, new = _labels(manifest, protocol)
    pool = manifest.rows("train")
    shots = pool if imbalance_ratio == NATURAL else pool[sample_shots(manifest.label[pool], n_max, seed)]
    shots = shots[np.isin(manifest.label[shots], trained)]
    labels = reindex(manifest.label[shots], trained)
    if imbalance_ratio == NATURAL:
        tail = natural(labels)
        n_max, class_order = int(tail.counts.max()), "appearance"
    else:
        tail = long_tail(labels, n_max, imbalance_ratio, seed, class_order)
    rows, labels = shots[tail.kept], labels[tail.kept]
    order = np.lexsort((rows, labels))
    rows, labels = rows[order], labels[order]

    columns = {"row": rows, "label": labels, "original_label": trained[labels]}
    table = pa.table({**columns, "rank": tail.ranks[labels], "count": tail.counts[labels]})
    content = {
        "classes": [manifest.class_names[label] for label in trained],
        "new_classes": [manifest.class_names[label] for label in new],
        "manifest_hash": manifest.metadata["content_hash"],
    }
    metadata: dict[str, Any] = {
        "dataset": manifest.metadata["dataset"],
        "protocol": protocol,
        "imbalance_ratio": imbalance_ratio,
    }
    metadata |= {"n_max": n_max, "seed": seed, "class_order": class_order, **content}
    metadata["split_hash"] = files.sha256_text(files.canonical_json([table.to_pydict(), content]))
    return table, metadata


def write_split(path: Path, table: pa.Table, metadata: dict[str, Any]) -> None:
    """Write what ``make_split`` returned."""
    files.write_parquet(path, table, SCHEMA, **metadata)


def read_split(path: Path) -> Split:
    """Read a split.

    Raises:
        CptError: the file is missing, damaged or of another schema.
    """
    table, metadata = files.read_parquet(path, SCHEMA)
    columns = {name: files.column(table, name) for name in table.column_names}
    _, first = np.unique(columns["label"], return_index=True)
    return Split(
        rows=columns["row"],
        labels=columns["label"],
        ranks=columns["rank"][first],
        counts=columns["count"][first],
        classes=metadata["classes"],
        new_classes=metadata["new_classes"],
        metadata=metadata,
    )


def _labels(manifest: Manifest, protocol: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the labels of the trained and of the new classes; those that the protocol needs have images."""
    parts = {part: manifest.label[manifest.rows(part)] for part in ("train", "test")}
    return require_images(manifest.metadata["dataset"], manifest.class_names, manifest.label, parts, protocol)


def require_images(
    dataset: str,
    names: Sequence[str],
    labels: NDArray[np.int64],
    parts: Mapping[str, NDArray[np.int64]],
    protocol: str,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the labels of the trained and of the new classes, all of which have the images that the protocol needs.

    Args:
        dataset: its name.
        names: of the classes, by label.
        labels: of all images.
        parts: of the images of the parts ``train`` and ``test``.
        protocol: one of ``PROTOCOLS``.

    Raises:
        CptError: as ``make_split``.
    """
    if protocol not in PROTOCOLS:
        raise CptError(f"protocol: unknown {protocol!r}; {nearest(protocol, PROTOCOLS)}")
    halves = protocol == "base_to_new"
    trained = subset_labels(labels, "base" if halves else "all")
    new = subset_labels(labels, "new") if halves else trained[:0]
    missing = np.setdiff1d(trained, parts["train"])
    if len(missing):
        name = names[missing[0]]
        raise CptError(
            f"{dataset}: class {name!r} has no training image; add some to its train part or train on another dataset"
        )
    if halves:
        _require_halves(dataset, len(names), parts["test"], trained, new)
    return trained, new


def _require_halves(dataset: str, classes: int, tested: NDArray[np.int64], *halves: NDArray[np.int64]) -> None:
    if classes < 2:
        raise CptError(f"{dataset}: has one class, and base_to_new needs two; add one or delete it from base_to_new")
    for name, half in zip(("base", "new"), halves, strict=True):
        if not np.isin(half, tested).any():
            raise CptError(
                f"{dataset}: no {name} class has a test image, and base_to_new tests both halves; add some to its test "
                "part or delete it from base_to_new"
            )
