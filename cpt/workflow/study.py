"""A folder for experiments outside a clone: a Snakefile that includes the installed workflow, and configurations."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from cpt.errors import CptError
from cpt.files.provenance import PACKAGE

COPIED = {"config": "config", "workflow/profiles": "profiles", "workflow/schemas": "workflow/schemas"}
"""What the user may change, or looks up, and where it goes; Snakemake looks for `profiles` where it is started."""

SNAKEFILE = """\
# The workflow of the installed cpt, on the configurations of this folder: snakemake --cores 2
from cpt.workflow.study import snakefile


include: snakefile()


workflow.default_target = "all"
"""

IGNORED = """\
.snakemake/
results/
work/
logs/
data/
"""


def project() -> Path:
    """Return the folder of Snakefile, rules and configurations: in the installed package, or the clone around it.

    Raises:
        CptError: they are in neither.
    """
    packaged = PACKAGE / "project"
    found = packaged if packaged.is_dir() else PACKAGE.parent
    if not (found / "Snakefile").is_file():
        raise CptError(f"{found}: no Snakefile; install cpt from its wheel, or work in a clone of its repository")
    return found


def snakefile() -> str:
    """Return the path of the workflow's Snakefile.

    Raises:
        CptError: as ``project``.
    """
    return str(project() / "Snakefile")


def write_study(folder: Path) -> None:
    """Make a folder in which ``snakemake`` runs the experiments of its configurations.

    Raises:
        CptError: the folder exists, or the workflow's files are not there.
    """
    if folder.exists():
        raise CptError(f"{folder}: exists; delete it or choose another name")
    source = project()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        made = Path(temporary, "study")
        for name, place in COPIED.items():
            shutil.copytree(source / name, made / place)
        (made / "Snakefile").write_text(SNAKEFILE, encoding="utf-8")
        (made / ".gitignore").write_text(IGNORED, encoding="utf-8")
        made.rename(folder)
