"""A run in a repository of a hub (huggingface.co, or what ``HF_ENDPOINT`` names): ``cpt push`` and ``cpt pull``.

Tokens come from huggingface_hub alone: ``hf auth login`` or ``HF_TOKEN``. Interrupted transfers go on as it does: files
that are there already are not sent or fetched again.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpt import __version__
from cpt.clip.backbone import SCHEMA as BACKBONE
from cpt.errors import CptError
from cpt.evaluation.trained import experiment_of, require_finished
from cpt.experiment.runs import Run
from cpt.files.hashes import digest_of_file, json_text, parse_json, read_bytes
from cpt.files.paths import RUN
from cpt.files.stage_files import read_json, require_unchanged

SCHEMA = "cpt.hub/1"
LIST = "cpt.json"
"""Names the run, its backbone, and its files with size and SHA-256."""
CARD = "README.md"
PREFIX = "hub:"
"""Of a repository where a folder of a run can stand: ``hub:owner/name``."""
NEEDED = ("run.json", "prompts.safetensors")
FURTHER = ("classifier.safetensors", "metrics.parquet", "history.parquet")
"""What a run's repository holds beside its text features. Predictions name images, records paths of the machine."""
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_FEATURES = re.compile(rf"features/{_NAME}/text-{_NAME}\.safetensors")
_SOURCE = ("name", "architecture", "pretrained", "sha256")
_REPOSITORY = re.compile(rf"{_NAME}/{_NAME}")
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True)
class Contents:
    """What ``push`` sends.

    Attributes:
        files: by path in the repository.
        card: text of README.md.
        described: content of cpt.json.
    """

    files: dict[str, Path]
    card: str
    described: dict[str, Any]


# ---- there --------------------------------------------------------------------------------------


def contents(run: Path, place: str, *, results: Path | None = None, license: str = "unknown") -> Contents:
    """Return what a run's repository holds: what ``cpt.load`` needs but the backbone, its metrics, and a model card.

    Args:
        run: folder of a finished run.
        place: ``owner/name`` of the repository.
        results: folder of the experiment; by default the nearest above ``run`` that has a backbone.
        license: of the learned prompts, as hubs call it (``mit``, ``cc-by-4.0``).

    Raises:
        CptError: the run is not finished, a file is missing or has changed, or ``place`` is no name.
    """
    from cpt.api.card import card

    _require_name(place)
    require_finished(run)
    root = results or experiment_of(run)
    record = read_json(run / "run.json", RUN)
    backbone = _backbone_source(read_json(root / "backbone.json", BACKBONE))
    identity = Run.of(record)
    files = {name: run / name for name in (*NEEDED, *FURTHER) if name in NEEDED or (run / name).is_file()}
    files[identity.text_features] = root / identity.text_features
    for path in files.values():
        require_unchanged(path)
    listed = {name: {"sha256": digest_of_file(path), "bytes": path.stat().st_size} for name, path in files.items()}
    described = {"schema": SCHEMA, "cpt": __version__, "run": identity.id}
    return Contents(
        files, card(run, root, record, backbone, place, license), described | {"backbone": backbone, "files": listed}
    )


def _backbone_source(record: dict[str, Any]) -> dict[str, Any]:
    """Where a backbone can be had; of a file of one's own only the name is told."""
    known = {name: record[name] for name in (*_SOURCE, "source") if name in record}
    return known | {name: os.path.basename(known[name]) for name in ("architecture", "pretrained")}


def push(contents: Contents, place: str, *, public: bool = False) -> str:
    """Send a run to a repository, which is made if there is none; return its address.

    Args:
        contents: of ``contents``.
        place: ``owner/name``.
        public: everyone may read it; otherwise only its owner.

    Raises:
        CptError: the repository holds something else or is of the other kind, or the hub refuses or is out of reach.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi()
    with _asking(place), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # metrics are no dataset
        try:
            there = api.model_info(place)
        except RepositoryNotFoundError:
            api.create_repo(place, private=not public)
        else:
            _require_fit(place, bool(there.private), {file.rfilename for file in there.siblings or ()}, public)
        own = {CARD: contents.card.encode(), LIST: json_text(contents.described).encode()}
        additions = [CommitOperationAdd(name, content) for name, content in own.items()]
        additions += [CommitOperationAdd(name, path) for name, path in contents.files.items()]
        api.create_commit(place, additions, commit_message=f"The run {contents.described['run']}")
    return f"{api.endpoint}/{place}"


def _require_fit(place: str, private: bool, files: set[str], public: bool) -> None:
    """Refuse a repository of something else, and one that others can read although that was not asked for."""
    if files - {".gitattributes", CARD} and LIST not in files:
        raise CptError(f"{place}: holds files that are no run of cpt; push to a new name")
    if public == private:
        kind, fix = ("private", "leave out --public") if private else ("public", "say --public")
        raise CptError(f"{place}: is there already and is {kind}; {fix}, or change it in the repository's settings")


# ---- and back -----------------------------------------------------------------------------------


def pull(
    place: str,
    output: Path,
    *,
    backbone: Path | None = None,
    log: Callable[[str], None] = print,
) -> str:
    """Fetch a run into a folder that ``cpt.load`` takes; return the commit that was fetched.

    Every file is compared with the hash in the repository's cpt.json. Only files of a run are fetched, which hold data
    and no code. The backbone is made from its own source, or copied.

    Args:
        place: ``owner/name``, or ``owner/name@revision``.
        output: folder to make.
        backbone: backbone.json to use, where it cannot be made: its weights or its architecture were a file.
        log: gets lines of progress.

    Raises:
        CptError: ``output`` is there already, the repository is out of reach or holds no run, or a file is damaged.
    """
    if output.exists():
        raise CptError(f"{output}: is there already; give another --output, or delete it")
    commit, described = _described(place)
    return _fetch(place, commit, described, output, backbone, log)


def cached(place: str) -> Path:
    """Return the folder of a run on a hub, beside the hub's own cache; what was fetched before is used again.

    Raises:
        CptError: as ``pull``.
    """
    from huggingface_hub import constants

    commit, described = _described(place)
    folder = Path(constants.HF_HOME, "cpt", place.partition("@")[0].replace("/", "--"), commit)
    if not folder.exists():
        _fetch(place, commit, described, folder, None, lambda line: None)
    return folder


def _described(place: str) -> tuple[str, dict[str, Any]]:
    """The commit that a name means now, and what its cpt.json says.

    Raises:
        CptError: it says something that a run of cpt does not.
    """
    name, _, revision = place.partition("@")
    _require_name(name)
    path = _download(name, LIST, revision or None)
    try:
        described = parse_json(read_bytes(path))
        files, backbone = described["files"], described["backbone"]
        hashes = [file["sha256"] for file in files.values()]
        texts = [described["run"], *hashes, *(backbone[key] for key in _SOURCE)]
        whole = described["schema"] == SCHEMA and all(map(str.isprintable, texts))  # messages show them
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise CptError(f"{place}: {LIST} is of no run that this version of cpt ({__version__}) knows; use a newer one")
    if lacking := [file for file in NEEDED if file not in files]:
        raise CptError(f"{place}: {LIST} names no {lacking[0]}; ask its owner to push the run again")
    if strange := [file for file in files if file not in NEEDED + FURTHER and not _FEATURES.fullmatch(file)]:
        raise CptError(f"{place}: {LIST} names {strange[0]!r}, which is no file of a run; nothing was fetched")
    return path.parent.name, described


def _fetch(
    place: str,
    commit: str,
    described: dict[str, Any],
    output: Path,
    backbone: Path | None,
    log: Callable[[str], None],
) -> str:
    """Fetch the files of a commit, and have the folder there as a whole or not at all."""
    name = place.partition("@")[0]
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".cpt-pull-") as temporary:
        folder = Path(temporary, "run")
        for file, facts in described["files"].items():
            path = _download(name, file, commit)
            if digest_of_file(path) != facts["sha256"]:
                raise CptError(f"{place}: {file} is not of the SHA-256 that {LIST} tells; delete {path} and pull again")
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        (folder / LIST).write_text(json_text(described), encoding="utf-8")
        log(f"{len(described['files'])} files fetched; making the backbone {described['backbone']['name']}")
        _require_run(place, folder, described)
        _make_backbone(place, described["backbone"], folder, backbone)
        try:
            folder.rename(output)
        except OSError as error:
            raise CptError(f"{output}: cannot be made ({error.strerror}); give another --output") from None
    return commit


def _require_run(place: str, folder: Path, described: dict[str, Any]) -> None:
    """Refuse a run.json that is not of the run in cpt.json, or of a method that is not known here."""
    try:
        run = Run.of(read_json(folder / "run.json", RUN))
    except (KeyError, TypeError, ValueError):  # of pydantic, too
        run = None
    if run is None or run.id != described["run"] or run.text_features not in described["files"]:
        raise CptError(
            f"{place}: run.json is of no run that this version of cpt ({__version__}) knows; use the one that its "
            "card names"
        )


def _make_backbone(place: str, wanted: dict[str, Any], folder: Path, given: Path | None) -> None:
    """Make backbone.json and its weights in a folder, or copy them; they must be those that the run was trained on."""
    from cpt.api.backbone import copy_backbone
    from cpt.clip.make_backbone import make_backbone

    name, architecture, pretrained = (wanted[key] for key in ("name", "architecture", "pretrained"))
    if given is not None:
        copy_backbone(given, folder)
    elif (own := _own_backbone(architecture, pretrained)) is not None:
        options = ["--name", name, "--architecture", architecture, "--pretrained", pretrained]
        command = shlex.join(["cpt", "backbone", *options, "--output", "backbone.json"])
        raise CptError(
            f"{place}: its backbone is of the file {own}, which is not on the hub; get it, call `{command}`, and pull "
            "with --backbone backbone.json"
        )
    else:
        make_backbone(name, architecture, pretrained, folder / "backbone.json")
    if read_json(folder / "backbone.json", BACKBONE)["sha256"] != wanted["sha256"]:
        what = f"{given}: another" if given else f"{place}: {architecture}, {pretrained} is now another"
        raise CptError(f"{what} backbone than the run was trained on; give --backbone, of SHA-256 {wanted['sha256']}")


def _own_backbone(architecture: str, pretrained: str) -> str | None:
    """The file, or a tiny CLIP's folder, that a backbone of somebody's own is made of; None for a published one."""
    from cpt.clip.tiny import is_rebuilt
    from cpt.clip.weights import SUFFIXES

    if architecture.endswith(".json"):
        return architecture
    return pretrained if is_rebuilt(architecture, pretrained) or Path(pretrained).suffix in SUFFIXES else None


def _download(name: str, file: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download

    with _asking(name, file):
        return Path(hf_hub_download(name, file, revision=revision))


def _require_name(place: str) -> None:
    if not _REPOSITORY.fullmatch(place):
        raise CptError(f"{place}: is no repository; write owner/name")


@contextlib.contextmanager
def _asking(place: str, file: str = "") -> Iterator[None]:
    """Turn what goes wrong with the hub into one line."""
    from huggingface_hub import errors

    try:
        yield
    except CptError:
        raise
    except Exception as error:  # those of connections have different classes in different versions of the library
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, errors.LocalEntryNotFoundError):
            told = "the hub is out of reach, and its cache has no copy; try again with a connection"
        elif isinstance(error, errors.RevisionNotFoundError):
            told = "no such revision; leave @… out for the newest"
        elif isinstance(error, errors.EntryNotFoundError):
            told = f"has no {file}, so it is no run of cpt; check the name"
        elif isinstance(error, errors.RepositoryNotFoundError):
            told = f"no such repository, or one that you may not see; check the name, or {_LOGIN}"
        elif isinstance(error, errors.LocalTokenNotFoundError) or status == 401:
            told = f"the hub wants to know who you are; {_LOGIN}"
        elif isinstance(error, ValueError) and "README" in str(error):
            told = f"the hub does not take the model card ({_reason(error)}); choose another --license"
        elif status == 403:
            told = f"you may not write there; use a name below your own, or a token that may write: {_LOGIN}"
        else:
            told = f"the hub cannot be used ({_reason(error)}); try again, it goes on where it was"
        raise CptError(f"{place}: {told}") from None


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
