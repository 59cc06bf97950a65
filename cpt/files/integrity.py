"""Whether a file is what its stage wrote, by its record (``cpt.files.provenance``), and what makes it again."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cpt.files.hashes import canonical_json, json_text, parse_json, read_bytes, sha256_text

SCHEMA = "cpt.provenance/1"
SUFFIX = ".provenance.json"
CONFIGURATION = "configuration.json"
"""Names of the configuration files, in ``work/<experiment>``."""
BUNDLE_LIST = "bundle.json"
"""What a bundle (``cpt.workflow.bundle``) says of itself."""

DEFAULT = ["config/config.yaml"]


def digest(record: dict[str, Any]) -> str:
    """Hash of a record without its field ``digest``."""
    return sha256_text(canonical_json({name: value for name, value in record.items() if name != "digest"}))


def read_record(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        OSError: it is missing or cannot be read.
        ValueError: it is not what was written.
    """
    try:
        text = read_bytes(path).decode()  # read_text would take other line ends for ours
        record = parse_json(text)
    except ValueError as error:
        raise ValueError(f"cannot be read ({error})") from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise ValueError(f"is no file of schema {SCHEMA}")
    try:
        same = json_text(record) == text and digest(record) == record.get("digest")
    except (ValueError, RecursionError):  # NaN, or nested more deeply than it could be written
        same = False
    if not same:
        raise ValueError("has changed since it was written")
    if not _is_whole(record):
        raise ValueError(f"does not hold what a file of schema {SCHEMA} does")
    return record


def _is_whole(record: dict[str, Any]) -> bool:
    """Whether everything that readers of records use is there and of its kind."""
    hashes = [record.get("sources"), record.get("outputs")]
    configuration = record.get("configuration", [])
    texts = [record.get("path"), record.get("device"), record.get("cpt", ""), record.get("time", "")]
    return (
        all(isinstance(paths, dict) and all(map(is_path, paths)) and _are_texts(paths.values()) for paths in hashes)
        and isinstance(record.get("versions"), dict)
        and isinstance(configuration, list)
        and _are_texts([*texts, *record["versions"].values(), *configuration])
        and isinstance(record.get("commit"), str | None)
        and isinstance(record.get("dirty"), bool | None)
    )


def _are_texts(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def is_path(text: object) -> bool:
    """Whether something can be a path: no system takes NUL or half a character."""
    try:
        return isinstance(text, str) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def written(path: Path) -> tuple[Path, str] | None:
    """Return the main file of the stage that wrote a file, and the SHA-256 of what it wrote; None without a record.

    Raises:
        OSError: no record tells of the file, and one that may do so cannot be read.
    """
    folder, own = path.parent, path.name + SUFFIX
    unread: OSError | None = None
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX) and name != own)
    except OSError as error:
        names, unread = [], error
    for name in (own, *names):
        try:
            record = read_record(folder / name)
        except OSError as error:
            unread = unread if isinstance(error, FileNotFoundError) else error
        except ValueError:
            continue  # `cpt verify` tells of it
        else:
            if path.name in record["outputs"]:
                return folder / name.removesuffix(SUFFIX), record["outputs"][path.name]
    if unread is not None and not isinstance(unread, FileNotFoundError | NotADirectoryError):
        raise unread
    return None


def command(target: str, configuration: Sequence[str]) -> str:
    """Shell command that makes a file again, and nothing else that is there."""
    return shlex.join(snakemake(configuration, target, "--force"))


def _fix_of_bundle(root: Path, file: str) -> str | None:
    """Command for a file of a bundle: one that was left out is not in the archive, but a backbone can be made anew."""
    try:
        left_out = parse_json((root / BUNDLE_LIST).read_text(encoding="utf-8"))["left_out"]
        record = parse_json((root / "backbone.json").read_text(encoding="utf-8"))
        options = [word for name in ("name", "architecture", "pretrained") for word in (f"--{name}", record[name])]
    except (OSError, ValueError, KeyError, TypeError):
        return unpack(root)
    if file == "backbone.safetensors":
        return shlex.join(["cpt", "backbone", *options, "--output", f"{root.name}/backbone.json"])
    return None if file in left_out else unpack(root)


def unpack(root: Path) -> str:
    """How to get the files of a bundle again; it has no images to make them from, and does not know its archive."""
    return f"unpack the archive of {root.absolute().name} again"


def snakemake(configuration: Sequence[str], *words: str) -> list[str]:
    """Return the words that run an experiment with its configuration files."""
    configured = [] if list(configuration) == DEFAULT else ["--configfile", *configuration]
    return ["snakemake", *words, "--cores", "2", *configured]


def configuration(root: Path) -> list[str]:
    """Return the configuration files of the experiment in ``results/<experiment>``.

    They are in the record of its ``grid.json``; where that is lost, its last Snakemake has noted them too.
    """
    with contextlib.suppress(OSError, ValueError, KeyError):
        return read_record(root / f"grid.json{SUFFIX}")["configuration"]
    with contextlib.suppress(OSError, ValueError):
        noted = parse_json((work_folder(root) / CONFIGURATION).read_text(encoding="utf-8"))
        if isinstance(noted, list) and noted and all(isinstance(path, str) for path in noted):
            return noted
    return DEFAULT


def work_folder(root: Path) -> Path:
    """Folder of what an experiment keeps between calls; it lies beside ``results``."""
    root = root.absolute()
    return root.parent.parent / "work" / root.name


def fix(path: Path) -> str | None:
    """Return the command that makes a file of an experiment, or a record, again; None if its workflow does not make it.

    It is to be called in the project's folder, where ``results`` lies, or for a bundle where it was unpacked.
    """
    path = path.with_name(path.name.removesuffix(SUFFIX))
    try:
        again, _ = written(path) or (path, None)
    except OSError:
        again = path
    for root in path.absolute().parents:
        if (root / "grid.json").exists() or (root / f"grid.json{SUFFIX}").exists():
            inside = again.absolute().relative_to(root)
            if (root / BUNDLE_LIST).exists():
                return _fix_of_bundle(root, path.absolute().relative_to(root).as_posix())
            if not _makes(root, inside):
                return None
            return command(Path(root.parent.name, root.name, inside).as_posix(), configuration(root))
    return None


def _makes(root: Path, file: Path) -> bool:
    """Whether the experiment has the run or the dataset that a file is of, as far as its ``grid.json`` can be read."""
    try:
        grid = parse_json((root / "grid.json").read_text(encoding="utf-8"))
        runs, datasets = {run["run"] for run in grid["runs"]}, set(grid["datasets"])
    except (OSError, ValueError, KeyError, TypeError):
        return True
    place, *within = file.parts
    if place == "runs":
        return "/".join(within[:-1]) in runs
    if place in ("data", "features"):
        return within[0] in datasets
    return place not in ("splits", "clusters") or within[1] in datasets
