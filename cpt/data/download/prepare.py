"""Bringing a dataset to its root: what is missing is fetched, unpacked and put in place; nothing else is touched."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpt.data.download import fetch
from cpt.data.download.partial import read_note, shown
from cpt.data.download.unpack import BadArchiveError, unpack
from cpt.data.layouts.published import read_split_file
from cpt.errors import CptError
from cpt.files.stage_files import write_json

if TYPE_CHECKING:
    from cpt.data.entry import Entry, Files

SCHEMA = "cpt.fetched/1"
DOWNLOADS = ".downloads"
ROOM = 2.2
"""Free space asked for, in sizes of an archive: itself, its images, and some to spare."""
ROOM_FOR_SPLIT = 1.5
"""The same where only images of the split are kept: of SUN397's bundle these are about a third (39,700 of 108,754)."""


def prepare(entry: Entry, log: Callable[[str], None] = print) -> dict[str, Any]:
    """Fetch what a dataset lacks below its root; return where everything came from (``fetched.json``).

    Raises:
        CptError: gated data that is not there, a root that is not there and for which nothing can be fetched, no mirror
            gives the file, an archive does not hold what it should, or the root cannot be written.
    """
    root, images = entry.folder, entry.folder / entry.images
    if entry.gated and not os.path.isdir(images):
        raise CptError(f"{entry.name}: cannot be fetched by cpt; {entry.gated.format(root=root)}")
    if not entry.files and not os.path.isdir(root):
        raise CptError(f"{entry.name}: no files are known to fetch and {root} is not there; put the images into it")
    if os.path.isfile(images):
        raise CptError(f"{images}: is no folder; move it away and run again")
    wanted = needed(entry)
    try:
        if any(not present(root, item) for item in wanted):
            _prepare(entry, wanted, log)
    except OSError as error:
        raise _unwritable(entry, wanted, error) from None
    return {
        "schema": SCHEMA,
        "dataset": entry.name,
        "root": str(root),
        "license": entry.license,
        "files": {
            name: read_note(_record(root, name)) or {"url": "already there", "sha256": None, "bytes": None}
            for item in wanted
            for name in item.provides
        },
    }


def _prepare(entry: Entry, wanted: list[Files], log: Callable[[str], None]) -> None:
    downloads = entry.folder / DOWNLOADS
    downloads.mkdir(parents=True, exist_ok=True)
    with fetch.locked(downloads / "lock", log, f"{entry.name}: another process is preparing it; waiting"):
        if missing := [item for item in wanted if not present(entry.folder, item)]:  # or the other process got it
            log(announcement(entry, missing))
            _get_all(entry, missing, log)


def _unwritable(entry: Entry, wanted: list[Files], error: OSError) -> CptError:
    root, reason = entry.folder, error.strerror or str(error)
    names = [name for item in wanted for name in item.provides if not os.path.exists(root / name)]
    for path in (*(root / name for name in names), root / DOWNLOADS, root, *root.parents):
        if os.path.islink(path) and not os.path.exists(path):
            reason = f"{path} is a link to what is not there"
        elif os.path.isfile(path):
            reason = f"{path} is no folder"
    lacking = ", ".join(names)
    missing, fix = (f"missing there: {lacking}; ", f" or put {lacking} there") if names else ("", "")
    return CptError(f"{root}: cannot be written ({reason}); {missing}make it writable{fix}")


def needed(entry: Entry) -> list[Files]:
    """Return what an entry needs of its files, those without an archive first."""
    if entry.derived_split:
        items = [item for item in entry.files if entry.split not in item.provides]
    else:
        items = [item for item in entry.files if not item.derived_split_only]
    return sorted(items, key=_is_archive)


def present(root: Path, item: Files) -> bool:
    """Return whether everything that an item provides lies below the root; an empty folder is not there."""
    return all(_is_there(root / name) for name in item.provides)


def announcement(entry: Entry, items: list[Files]) -> str:
    """Return one line that says what will be fetched: size, host and terms."""
    sizes = [item.sources[0].bytes for item in items]
    known = sum(size or 0 for size in sizes)
    size = _readable(known) if all(sizes) else f"at least {_readable(known)}" if known else "size unknown"
    hosts = ", ".join(dict.fromkeys(shown(item.sources[0].url).split("/")[2] for item in items))
    return f"{entry.name}: fetching {size} from {hosts}; terms: {entry.license or 'not stated'}"


def _is_there(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.is_file()


def _readable(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


def _is_archive(item: Files) -> bool:
    return any(item.provides.values())


def _get_all(entry: Entry, items: list[Files], log: Callable[[str], None]) -> None:
    """Get items in their order; one that has no source may still come out of the archive of a later one."""
    failures = []
    for item in items:
        if not present(entry.folder, item):
            try:
                _get(entry, item, log)
            except CptError as error:
                if _is_archive(item) or any(other.only_split_images for other in items):
                    raise
                log(f"{error}; looking into the archives")
                failures.append((item, error))
    for item, failure in failures:
        if not present(entry.folder, item):
            raise failure


def _get(entry: Entry, item: Files, log: Callable[[str], None]) -> None:
    """Try the sources of an item until one gives what it should."""
    name = next(iter(item.provides))
    file = entry.folder / DOWNLOADS / (f"{name}.archive" if _is_archive(item) else name)
    note = file.with_name(f"{file.name}.origin.json")
    keep = _SplitImages(entry, item) if item.only_split_images and not entry.derived_split else None
    room = 1.0 if not _is_archive(item) else ROOM_FOR_SPLIT if keep else ROOM
    sources = [fetch.Source(s.url, s.bytes, s.sha256, s.md5) for s in item.sources]
    failures: list[str] = []
    while sources:
        try:
            got = fetch.fetch(sources, file, log=log, room=room, note=note)
        except CptError as error:
            raise CptError("; ".join([*failures, str(error)])) from None
        try:
            names = _place(entry, item, file, keep, log)
        except BadArchiveError as error:  # any other failure is not the archive's, which is kept
            reason = str(error).removeprefix(f"{file}: ").rpartition("; ")[0]
            rest = [source.shown for source in sources]
            if got.url not in rest:  # it was put there by hand: leave it
                raise CptError(f"{file}: {reason}; delete it and run again") from None
            _remove(file, note)
            failures.append(f"{got.url}: {reason}")
            sources = sources[rest.index(got.url) + 1 :]
            if sources:
                log(f"{failures[-1]}; trying the next source")
        else:
            _remove(file, note)
            for placed in names:
                write_json(_record(entry.folder, placed), got.origin)
            return
    raise CptError(f"{entry.name}: no source gives {name}: {'; '.join(failures)}; put the archive at {file} yourself")


def _remove(*files: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _place(entry: Entry, item: Files, file: Path, keep: _SplitImages | None, log: Callable[[str], None]) -> list[str]:
    """Put a fetched file, or what an archive holds of this and other missing items, below the root."""
    root = entry.folder
    if not _is_archive(item):
        (name,) = item.provides
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, root / name)
        return [name]
    for old in (root / DOWNLOADS).glob("unpacked-*"):  # of a run that was killed
        shutil.rmtree(old)
    with tempfile.TemporaryDirectory(prefix="unpacked-", dir=root / DOWNLOADS) as folder:
        content = Path(folder) / "content"
        log(f"{entry.name}: unpacking {_readable(file.stat().st_size)}")
        count = unpack(file, content, keep=keep, nested=item.nested)
        places = {name: _find(content, under) for name, under in item.provides.items()}
        if absent := [name for name, place in places.items() if place is None]:
            if keep and keep.others:
                raise CptError(f"{keep.split}: names none of the images in {file}; get the published file")
            raise BadArchiveError(f"{file}: the archive of {count} files holds no {absent[0]}; delete it and run again")
        for other in needed(entry):  # a bundle holds the split file too
            if other is not item and not present(root, other):
                places |= {name: _find(content, under or [name]) for name, under in other.provides.items()}
        placed = {name: place for name, place in places.items() if place and not _is_there(root / name)}
        for name, place in placed.items():
            target = root / name
            if target.is_dir():
                target.rmdir()
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(place, target)
        log(f"{entry.name}: {count} files unpacked")
        return list(placed)


class _SplitImages:
    """Says whether a member is an image of the split; ``others`` counts those in its folder that are not."""

    def __init__(self, entry: Entry, item: Files) -> None:
        self.split, lists = read_split_file(entry)
        self.wanted = {image for items in lists.values() for image, _, _ in items}
        self.folders = [f"/{name}/" for under in item.provides.values() for name in under]
        self.others = 0

    def __call__(self, member: str) -> bool:
        path = f"/{member}"
        below = [path.rpartition(folder)[2] for folder in self.folders if folder in path]
        kept = any(image in self.wanted for image in below)
        self.others += bool(below) and not kept
        return kept


def _find(tree: Path, names: list[str]) -> Path | None:
    """Return the shallowest file or folder of one of these names; of folders nested alone in one another the last."""
    for place in _by_depth(tree):
        if place.name in names:
            while place.is_dir():
                inner = list(place.iterdir())
                if len(inner) != 1 or inner[0].name not in names:
                    break
                place = inner[0]
            return place
    return None


def _by_depth(tree: Path) -> Iterator[Path]:
    level = [tree]
    while level:
        below = [path for folder in level for path in sorted(folder.iterdir())]
        yield from below
        level = [path for path in below if path.is_dir()]


def _record(root: Path, name: str) -> Path:
    return root / DOWNLOADS / f"{name.replace('/', '-')}.json"
