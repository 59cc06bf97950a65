"""Writing images that lie inside of other files as files of their own, which everything after the manifest reads."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from cpt.data.layouts.listing import Listing
from cpt.errors import CptError

FOLDER = "images"
"""Where they are written, beside the manifest."""


def extract(name: str, listing: Listing, output_dir: Path) -> Listing:
    """Write the images of a listing into ``output_dir/images``; return the listing of these files.

    What was there before is replaced once all are written.

    Args:
        name: of the dataset, for messages.
        listing: its images lie inside of other files.
        output_dir: folder of the manifest.

    Raises:
        CptError: an image has no bytes, or the files cannot be read.
    """
    assert listing.inside is not None
    root = output_dir / FOLDER
    output_dir.mkdir(parents=True, exist_ok=True)
    for left in output_dir.glob(".images-*"):  # by a job that was killed
        shutil.rmtree(left)
    empty = []
    with tempfile.TemporaryDirectory(prefix=".images-", dir=output_dir) as temporary:
        new = Path(temporary, FOLDER)
        for path, content in listing.inside.read():
            (new / path).parent.mkdir(parents=True, exist_ok=True)
            (new / path).write_bytes(content)
            if not content:
                empty.append(path)
        if empty:
            many = f"{len(empty)} images have no bytes, the first is " if len(empty) > 1 else "no bytes of image "
            raise CptError(
                f"{name}: {many}{empty[0]}; save the dataset with its images in it, as `save_to_disk` and "
                "`push_to_hub` do"
            )
        if root.exists():
            shutil.rmtree(root)
        os.rename(new, root)
    return replace(listing, image_root=root, inside=None)
