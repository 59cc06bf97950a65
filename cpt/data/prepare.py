"""Bringing a dataset to its root: what is missing is fetched, unpacked and put in place; nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpt.data import fetch
from cpt.data.published import read_split_file
from cpt.data.unpack import unpack
from cpt.errors import CptError
from cpt.files import write_json

if TYPE_CHECKING:
    from cpt.data.catalog import Entry, Files

SCHEMA = "cpt.fetched/1"
DOWNLOADS = ".downloads"
ROOM = 2.2
"""Free space asked for, in sizes of an archive: itself, its images, and some to spare."""


def prepare(entry: Entry, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Fetch what a dataset lacks below its root; return where everything came from (``fetched.json``).

    Raises:
        CptError: gated data that is not there, no mirror gives the file, or an archive does not hold what it should.
    """
    from filelock import FileLock

    root = entry.folder
    if entry.gated and not (root / entry.images).is_dir():
        raise CptError(f"{entry.name}: cannot be fetched by cpt; {entry.gated.format(root=root)}")
    wanted = needed(entry)
    if any(not present(root, item) for item in wanted):
        (root / DOWNLOADS).mkdir(parents=True, exist_ok=True)
        with FileLock(root / DOWNLOADS / "lock"):
            if missing := [item for item in wanted if not present(root, item)]:  # another process may have been here
                say(announcement(entry, missing))
                _get_all(entry, missing, say)
    return {
        "schema": SCHEMA,
        "dataset": entry.name,
        "root": str(root),
        "licence": entry.licence,
        "files": {name: _origin(root, name) for item in wanted for name in item.provides},
    }


def needed(entry: Entry) -> list[Files]:
    """Return what an entry needs of its files, those without an archive first."""
    items = [
        item
        for item in entry.files
        if entry.derived_split or not item.derived_split_only
        if not (entry.derived_split and entry.split in item.provides)
    ]
    return sorted(items, key=_is_archive)


def present(root: Path, item: Files) -> bool:
    """Return whether everything that an item provides lies below the root; an empty folder is not there."""
    return all(_is_there(root / name) for name in item.provides)


def announcement(entry: Entry, items: list[Files]) -> str:
    """Return one line that says what will be fetched: size, host and terms."""
    sizes = [item.sources[0].bytes for item in items]
    known = sum(size or 0 for size in sizes)
    size = _readable(known) if all(sizes) else f"at least {_readable(known)}" if known else "size unknown"
    hosts = ", ".join(dict.fromkeys(item.sources[0].url.split("/")[2] for item in items))
    return f"{entry.name}: fetching {size} from {hosts}; terms: {entry.licence or 'not stated'}"


def _is_there(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.is_file()


def _readable(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"


def _is_archive(item: Files) -> bool:
    return any(item.provides.values())


def _get_all(entry: Entry, items: list[Files], say: Callable[[str], None]) -> None:
    """Get items in their order; one that has no source may still come out of the archive of a later one."""
    failures = []
    for item in items:
        if not present(entry.folder, item):
            try:
                _get(entry, item, say)
            except CptError as error:
                if _is_archive(item) or any(other.only_split_images for other in items):
                    raise
                say(f"{error}; looking into the archives")
                failures.append((item, error))
    for item, failure in failures:
        if not present(entry.folder, item):
            raise failure


def _get(entry: Entry, item: Files, say: Callable[[str], None]) -> None:
    """Try the sources of an item until one gives what it should."""
    name = next(iter(item.provides))
    file = entry.folder / DOWNLOADS / (f"{name}.archive" if _is_archive(item) else name)
    sources = [fetch.Source(s.url, s.bytes, s.sha256, s.md5) for s in item.sources]
    failures: list[str] = []
    while True:
        try:
            got = fetch.fetch(sources, file, say=say, room=ROOM if _is_archive(item) else 1.0)
        except CptError as error:
            raise CptError("; ".join([*failures, str(error)])) from None
        try:
            names = _place(entry, item, file, say)
            break
        except CptError as error:
            rest = [source.url for source in sources]
            if got.url not in rest:  # it was put there by hand: leave it
                raise CptError(f"{file}: {error}") from None
            file.unlink(missing_ok=True)
            failures.append(f"{got.url}: {error}")
            sources = sources[rest.index(got.url) + 1 :]
            if not sources:
                raise CptError(f"{entry.name}: no source gives {name}: {'; '.join(failures)}") from None
            say(f"{failures[-1]}; trying the next source")
    file.unlink(missing_ok=True)
    for placed in names:
        origin = {"url": got.url, "sha256": got.sha256, "bytes": got.bytes}
        write_json(_record(entry.folder, placed), origin)


def _place(entry: Entry, item: Files, file: Path, say: Callable[[str], None]) -> list[str]:
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
        keep = _only_split_images(entry, item) if item.only_split_images and not entry.derived_split else None
        say(f"{entry.name}: unpacking {_readable(file.stat().st_size)}")
        count = unpack(file, content, keep=keep, nested=item.nested)
        places = {name: _find(content, under) for name, under in item.provides.items()}
        if absent := [name for name, place in places.items() if place is None]:
            raise CptError(f"the archive of {count} files holds no {absent[0]}")
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
        say(f"{entry.name}: {count} files unpacked")
        return list(placed)


def _only_split_images(entry: Entry, item: Files) -> Callable[[str], bool]:
    _, lists = read_split_file(entry)
    wanted = {image for items in lists.values() for image, _, _ in items}
    names = [name for under in item.provides.values() for name in under]

    def keep(member: str) -> bool:
        path = f"/{member}"
        return any(path.rpartition(f"/{name}/")[2] in wanted for name in names)

    return keep


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


def _origin(root: Path, name: str) -> dict[str, Any]:
    path = _record(root, name)
    return json.loads(path.read_text()) if path.is_file() else {"url": "already there", "sha256": None, "bytes": None}
