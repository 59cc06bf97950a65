"""Whether a manifest of somebody else is that of a known dataset, as far as it can be told without its images."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from cpt.data import world
from cpt.data.entry import Entry
from cpt.data.layouts.listing import Listing
from cpt.data.make_manifest import check, make_manifest
from cpt.data.manifest import PARTS, Manifest, read_manifest
from cpt.errors import CptError

AGAIN = "made again, equal"
PUBLISHED = "with the published classes and numbers of images"
OWN = "that cannot be checked (compared with the same images only)"


def how_known(manifest: Manifest, entry: Entry | None) -> str:
    """Return how a dataset is known to be what it is called: ``AGAIN``, ``PUBLISHED`` or ``OWN``.

    One of a generated world is rendered again. Of a published one the catalog tells classes and numbers of images.

    Args:
        manifest: what is told of the dataset's images.
        entry: the catalog's, of the same name.

    Raises:
        CptError: it is not.
    """
    name = manifest.metadata["dataset"]
    if manifest.metadata["layout"] == "embedded":
        key = (entry and entry.key) or name
        if key not in world.KEYS:
            return OWN
        counts = (int((manifest.part == part).sum()) // len(manifest.class_names) for part in PARTS)
        if _rendered(name, key, *counts) != manifest.metadata["content_hash"]:
            raise CptError(f"{name}: its images are not those that this package makes")
        return AGAIN
    if entry is None or entry.expected is None:
        return OWN
    images = zip(manifest.part.tolist(), manifest.label.tolist(), manifest.path.tolist(), strict=True)
    check(_readable(entry), Listing(manifest.class_names, list(images), derived=manifest.metadata["derived"]))
    return PUBLISHED


@cache
def _rendered(name: str, key: str, train: int, val: int, test: int) -> str:
    """Content hash of a dataset of a generated world, which takes seconds to make."""
    fields = {
        "name": name,
        "title": name,
        "layout": "embedded",
        "key": key,
        "shift_of": world.DATA_SETS[key].classes_of,
        "per_class": {"train": max(train, 1), "val": val, "test": test},
    }
    with tempfile.TemporaryDirectory() as folder:
        made = read_manifest(make_manifest(Entry.model_validate(fields), Path(folder)))
    return str(made.metadata["content_hash"])


def _readable(entry: Entry) -> Entry:
    """An entry that expects names as manifests have them: with spaces, which are not those of the published hash."""
    assert entry.expected is not None
    boundary = entry.expected.boundary and tuple(name.replace("_", " ") for name in entry.expected.boundary)
    expected = entry.expected.model_copy(update={"names_sha256": None, "boundary": boundary})
    return entry.model_copy(update={"expected": expected})
