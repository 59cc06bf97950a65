"""The layout of a dataset of one's own that a table describes: a CSV file with a row per image."""

from __future__ import annotations

import csv
import io
import posixpath
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cpt.data.layouts.derived import cut
from cpt.data.layouts.listing import Listing, as_read, label_classes
from cpt.data.manifest import PARTS
from cpt.errors import CptError, nearest

if TYPE_CHECKING:
    from cpt.data.entry import Entry

_OTHER_NAMES = {"valid": "val", "validation": "val"}


@dataclass(frozen=True)
class _Row:
    """A row of the table; ``part`` is None where the table has no column ``split``."""

    number: int
    path: str
    label: str
    part: str | None


def table(entry: Entry) -> Listing:
    """Read ``path,label[,split]``: paths are relative to the table's folder, class names are the labels.

    Labels are in alphabetical order, numbers by value; images are in the order of the table. Further columns are
    ignored, and so is white space around a field. Without the column ``split``, ``derived_split`` cuts the images of
    every class as it does class folders.

    Raises:
        CptError: the table cannot be read, or a row cannot be meant; the message has the row's number, as a
            spreadsheet shows it.
    """
    assert entry.split is not None
    path = entry.folder / entry.split
    rows = _rows(path)
    if not rows:
        raise CptError(f"{path}: lists no image; write a row `path,label,split` for each")
    found = sorted({row.label for row in rows}, key=_by_value if all(row.label.isdecimal() for row in rows) else None)
    labels, class_names = label_classes(entry, found, "label", path)
    named = {row.path: f"{path}: row {row.number}" for row in rows}
    cuts = rows[0].part is None
    if cuts != entry.derived_split:
        raise CptError(
            f"{path}: has no column split; add it (train, val or test in every row), or let cpt cut the images of each "
            f"class: add `derived_split: true` to {entry.name}"
            if cuts
            else f"{path}: has a column split, and {entry.name} has `derived_split: true`, which makes another; delete "
            "one of them"
        )
    pool: dict[int, list[str]] = {}
    for row in rows:
        pool.setdefault(labels[row.label], []).append(row.path)
    images = cut(pool) if cuts else [(row.part or "", labels[row.label], row.path) for row in rows]
    return Listing(class_names, images, image_root=path.parent, derived=cuts, named=named)


def _by_value(label: str) -> tuple[int, str]:
    return int(label), label


def _rows(path: Path) -> list[_Row]:
    lines = _records(path)
    header, delimiter = next(lines)
    place: dict[str, int] = {name: header.index(name) for name in ("path", "label", "split") if name in header}
    rows: list[_Row] = []
    paths: dict[str, int] = {}
    labels: dict[str, tuple[str, int]] = {}
    for number, fields in enumerate((fields for fields, _ in lines), 2):
        where = f"{path}: row {number}"
        if not any(fields):
            continue
        if len(fields) != len(header):
            raise CptError(
                f"{where}: has {len(fields)} fields instead of {len(header)}; put quotes around a field with a "
                f"{delimiter!r} in it"
            )
        label = unicodedata.normalize("NFC", fields[place["label"]])  # letters look alike however they are composed
        row = _Row(number, fields[place["path"]], label, _part(where, fields, place))
        _check_path(where, row.path)
        if not row.label:
            raise CptError(f"{where}: has no label; write one or delete the row")
        normal = posixpath.normpath(row.path)
        if (first := paths.setdefault(normal, number)) != number:
            raise CptError(f"{where}: lists {row.path!r}, as row {first} does; delete one of them")
        spelled, first = labels.setdefault(as_read(row.label), (row.label, number))
        if spelled != row.label:
            raise CptError(
                f"{where}: label {row.label!r} reads the same as {spelled!r} of row {first}; spell them alike, or give "
                "one another name"
            )
        rows.append(row)
    return rows


def _records(path: Path) -> Iterator[tuple[list[str], str]]:
    """Yield the fields of every row without the white space around them, the header first, and the delimiter."""
    text = _text(path)
    first = io.StringIO(text, newline="").readline()
    for delimiter in ",;\t":
        header = [name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter), [])]
        if {"path", "label"} <= set(header):
            break
    else:
        raise CptError(f"{path}: row 1 is no header with path and label; write `path,label,split` above the images")
    if twice := [name for name in ("path", "label", "split") if header.count(name) > 1]:
        raise CptError(f"{path}: row 1 has the column {twice[0]} twice; delete one")
    yield header, delimiter
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    number = 0
    try:
        for number, fields in enumerate(reader, 1):
            if number > 1:
                yield [field.strip() for field in fields], delimiter
    except csv.Error as error:
        raise CptError(f"{path}: row {number + 1}: {error}; fix the quotes of the row") from None


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CptError(f"{path}: not found; put the table there, or correct root or split") from None
    except OSError as error:
        raise CptError(f"{path}: cannot be read ({error.strerror}); fix it") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CptError(f"{path}: is UTF-16; save it as CSV UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise CptError(f"{path}: row {row}: is not UTF-8; save the table as CSV UTF-8") from None


def _part(where: str, fields: list[str], place: dict[str, int]) -> str | None:
    if "split" not in place:
        return None
    written = fields[place["split"]]
    part = _OTHER_NAMES.get(written.lower(), written.lower())
    if part not in PARTS:
        hint = nearest(written, PARTS) if written else f"write one of {', '.join(PARTS)}"
        raise CptError(f"{where}: split {written!r} is none; {hint}")
    return part


def _check_path(where: str, path: str) -> None:
    def refuse(what: str) -> NoReturn:
        raise CptError(f"{where}: {what}")

    if not path:
        refuse("has no path; write one or delete the row")
    if "\\" in path:
        refuse(f"{path!r} has a \\; write paths with /")
    if path.startswith("/") or re.match("[A-Za-z]:", path) or ".." in path.split("/"):
        refuse(f"{path!r} leads out of the table's folder; write it relative to there, without ..")
    if "\0" in path:
        refuse("has a NUL character, which no path has; delete it")
