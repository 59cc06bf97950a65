"""What of the catalog's datasets is there: present, missing, incomplete or damaged."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cpt.data.decoding import undecodable
from cpt.data.download.prepare import needed, present
from cpt.data.make_manifest import find_images
from cpt.data.notices import copies, notices
from cpt.data.threads import map_blocks
from cpt.errors import CptError
from cpt.files.stage_files import sha256_file

if TYPE_CHECKING:
    from cpt.data.entry import Entry


@dataclass(frozen=True)
class State:
    """State of one dataset on this machine.

    Attributes:
        state: ``complete``, ``derived split``, ``missing`` or ``damaged``.
        found: number of images by part.
        advice: what is wrong and what fixes it; empty when complete.
        notices: what looks odd and may be meant, a line each (``cpt.data.notices``).
    """

    name: str
    state: str
    found: dict[str, int]
    advice: str = ""
    notices: tuple[str, ...] = ()


def check_dataset(entry: Entry, *, decode: bool = False, workers: int = 8) -> State:
    """Look at a dataset's files without changing any.

    Args:
        entry: a dataset whose images are files.
        decode: read every image too, which takes minutes for large datasets: it must decode, and a test image should
            be no copy of a training image.
        workers: threads that decode.
    """
    missing = [name for item in needed(entry) if not present(entry.folder, item) for name in item.provides]
    if missing or not (entry.folder / entry.images).is_dir():
        advice = entry.gated.format(root=entry.folder) if entry.gated else f"cpt data fetch {entry.name}"
        if not entry.gated and not entry.files:
            advice = f"put the images into {entry.folder}"
        lacking = f"no {', '.join(missing)}: " if missing and entry.folder.is_dir() else ""
        return State(entry.name, "missing", {}, lacking + advice)
    try:
        listing = find_images(entry)
    except CptError as error:
        return State(entry.name, "damaged", {}, str(error).removeprefix(f"{entry.name}: "))
    found = dict(Counter(part for part, _, _ in listing.images))
    told = notices(entry, listing)
    if decode and listing.image_root is not None:
        paths = [listing.image_root / path for _, _, path in listing.images]
        if bad := undecodable(paths, workers):
            return State(entry.name, "damaged", found, f"{len(bad)} images cannot be decoded, the first is {bad[0]}")
        if entry.fingerprint == "bytes":
            told += copies(listing.images, list(map_blocks(sha256_file, paths, workers, 64)))
    if listing.derived:
        return State(entry.name, "derived split", found, "not comparable with published numbers", tuple(told))
    return State(entry.name, "complete", found, notices=tuple(told))
