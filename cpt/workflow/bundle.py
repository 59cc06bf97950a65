"""One archive of an experiment that others can open, verify and make tables from, without its images and weights."""

from __future__ import annotations

import gzip
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from cpt import __version__
from cpt.errors import CptError
from cpt.files import paths
from cpt.files.atomic import atomic
from cpt.files.hashes import digest_of_file
from cpt.files.integrity import BUNDLE_LIST
from cpt.files.paths import BUNDLE
from cpt.files.stage_files import json_text, read_json
from cpt.workflow.verify import left_out, verify

LEFT_OUT = re.compile(
    r"data/[^/]+/(images/.+|(images|pixels-\w+)\.npy)|backbone\.safetensors|features/[^/]+/images-\w+\.safetensors"
)
"""Images, features of images and the backbone's weights: large, and often not one's own to give away."""
PREDICTIONS = re.compile(r"runs/.+/(predictions\.parquet|classifier\.safetensors)")
README = """The experiment {experiment} of cpt {version}.

Open report/index.html. With cpt installed:

    cpt verify {experiment}                             # are these the files that were written?
    cpt table table2 --results {experiment}             # a table, from runs.parquet
    python -c "import cpt; print(cpt.results('{experiment}'))"

Images, image features and the backbone's weights are left out; bundle.json lists them with their SHA-256. The page's
commands need the repository and its configuration.
"""


@dataclass(frozen=True)
class Bundle:
    """What was written: number of files and bytes before compression, and what was left out."""

    files: int
    size: int
    left_out: dict[str, str]


def bundle(
    folder: Path,
    output: Path,
    *,
    predictions: bool = True,
    by: str | None = None,
    log: Callable[[str], None] = print,
) -> Bundle:
    """Write ``results/<experiment>`` as a .tar.gz; equal experiments give equal bytes.

    Args:
        folder: of the experiment.
        output: archive to write.
        predictions: with the predictions of every test image, which metrics can be computed from again.
        by: who made it, as ``cpt board`` is to show it.
        log: gets lines of progress.

    Raises:
        CptError: the experiment does not verify, or ``output`` lies in it.
    """
    if output.suffixes[-2:] != [".tar", ".gz"]:
        raise CptError(f"{output}: is written as .tar.gz; call it so")
    if folder.resolve() in output.resolve().parents:
        raise CptError(f"{output}: lies in the experiment itself; write it elsewhere")
    if findings := verify(folder, log).findings:
        first = findings[0]
        raise CptError(
            f"{folder / first.file}: {first.problem}; fix it first ({len(findings)} findings): cpt verify {folder}"
        )
    experiment = read_json(folder / "grid.json", paths.GRID)["experiment"]
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    found = sorted(path.as_posix() for path in files if not any(part.startswith(".") for part in path.parts))
    out = [name for name in found if LEFT_OUT.fullmatch(name) or (not predictions and PREDICTIONS.fullmatch(name))]
    without = {name: digest_of_file(folder / name) for name in out} | left_out(folder)
    described = {"schema": BUNDLE, "experiment": experiment, "cpt": __version__, "left_out": without}
    described |= {"by": by} if by else {}
    own = {BUNDLE_LIST: json_text(described), "README.txt": README.format(experiment=experiment, version=__version__)}
    inside, size = [name for name in found if name not in without and name not in own], 0
    with (
        atomic(output) as temporary,
        open(temporary, "wb") as file,
        gzip.GzipFile("", "wb", mtime=0, fileobj=file) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, text in own.items():
            _add(archive, f"{experiment}/{name}", text.encode())
        for name in inside:
            content = (folder / name).read_bytes()
            _add(archive, f"{experiment}/{name}", content)
            size += len(content)
    return Bundle(len(inside), size, without)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file that tells nothing of who packed it, and when."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, BytesIO(content))
