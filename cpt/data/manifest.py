"""Reading the manifest of a dataset: one row per image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cpt.errors import CptError, nearest
from cpt.files import stage_files as files

SCHEMA = "cpt.manifest/2"
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Manifest:
    """A manifest that was read; its arrays have one entry per image.

    Attributes:
        path: image files relative to the image root, or ``images.npy``.
        index: row in the packed array, -1 for image files.
        label: class labels, positions in ``class_names``.
        part: ``train``, ``val`` or ``test``.
        class_names: names in label order, as written into the prompt.
        metadata: dataset, layout, image_root, derived, content_hash.
    """

    path: NDArray[np.object_]
    index: NDArray[np.int64]
    label: NDArray[np.int64]
    part: NDArray[np.str_]
    class_names: list[str]
    metadata: dict[str, Any]

    def rows(self, part: str) -> NDArray[np.int64]:
        """Return the rows of one part, ascending."""
        return np.flatnonzero(self.part == part)


def rows_of(manifest: Manifest, part: str, path: Path) -> NDArray[np.int64]:
    """Return the rows of one part of the manifest at ``path``.

    Raises:
        CptError: the part has no images.
    """
    rows = manifest.rows(part)
    if len(rows) == 0:
        raise CptError(f"{path}: no images in part {part!r}; {nearest(part, set(manifest.part.tolist()))}")
    return rows


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        CptError: the file is missing, damaged, of another schema, or holds a class without images.
    """
    table, metadata = files.read_parquet(path, SCHEMA)
    label = files.column(table, "label")
    present, first = np.unique(label, return_index=True)
    if not np.array_equal(present, np.arange(len(present))):
        raise files.unusable(path, f"labels are not 0..{len(present) - 1} without gaps")
    return Manifest(
        path=files.column(table, "path"),
        index=files.column(table, "index"),
        label=label,
        part=files.column(table, "part").astype(np.str_),
        class_names=files.column(table, "class_name")[first].tolist(),
        metadata=metadata,
    )
