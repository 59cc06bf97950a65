"""Taking the backbone of one experiment into another folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from cpt.clip.backbone import SCHEMA
from cpt.files.stage_files import read_json


def copy_backbone(path: Path, folder: Path) -> Path:
    """Copy a backbone's record and weights into a folder that has none yet; return its ``backbone.json``.

    Raises:
        CptError: the file is missing or damaged.
    """
    weights = read_json(path, SCHEMA)["weights"]
    folder.mkdir(parents=True, exist_ok=True)
    for source, name in ((path.parent / weights, weights), (path, "backbone.json")):
        if not (folder / name).exists():
            shutil.copyfile(source, folder / name)
    return folder / "backbone.json"
