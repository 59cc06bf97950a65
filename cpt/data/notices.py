"""What looks odd in a dataset and may be meant: told, where ``cpt.data.make_manifest.find_images`` refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from cpt.data.classes import trained_rows
from cpt.data.layouts.listing import Listing, as_read, is_folder, unlisted
from cpt.data.manifest import PARTS

if TYPE_CHECKING:
    from cpt.data.entry import Entry

_SHOWN = 3


def notices(entry: Entry, listing: Listing) -> list[str]:
    """Return a line for everything about the files and classes of a dataset that its owner may not know.

    Nothing is said about classes where the catalog states what a complete copy is.
    """
    lines = _left_out(entry)
    if not entry.expected:
        names = [repr(name) for name in listing.class_names]
        if groups := [" and ".join(names[i] for i in labels) for labels in _same_to_clip(listing.class_names)]:
            lines.append(f"classes that CLIP cannot tell apart by name: {_some(groups)}; give one another name")
        lines += _lacking(entry, listing)
    return lines


def copies(images: Sequence[tuple[str, int, str]], hashes: Sequence[str]) -> list[str]:
    """Return a line that tells how many test images are copies of training images, if there are any.

    Args:
        images: (part, label, path).
        hashes: of the bytes of each; none where they are not compared.
    """
    if not hashes:
        return []
    pairs = list(zip(images, hashes, strict=True))
    trained = {value: path for (part, _, path), value in pairs if part == "train"}
    found = [(path, trained[value]) for (part, _, path), value in pairs if part == "test" and value in trained]
    if not found:
        return []
    test, train = found[0]
    return [f"test images that are copies of training images: {len(found)}, the first is {test!r} of {train!r}"]


def spelled_in_two_ways(listing: Listing) -> Iterator[tuple[str, str]]:
    """Yield pairs of class names that read the same and have no part in common."""
    parts: dict[int, set[str]] = {}
    for part, label, _ in listing.images:
        parts.setdefault(label, set()).add(part)
    for labels in _same_to_clip(listing.class_names):
        for one, other in combinations(labels, 2):
            if parts.get(one, set()).isdisjoint(parts.get(other, set())):
                yield listing.class_names[one], listing.class_names[other]


def _same_to_clip(names: Sequence[str]) -> list[list[int]]:
    """Labels of classes whose prompts are one."""
    groups: dict[str, list[int]] = {}
    for label, name in enumerate(names):
        groups.setdefault(as_read(name), []).append(label)
    return [labels for labels in groups.values() if len(labels) > 1]


def _lacking(entry: Entry, listing: Listing) -> list[str]:
    """Lines about parts that lack classes."""
    names = listing.class_names
    having = {part: {label for p, label, _ in listing.images if p == part} for part in PARTS}
    if not having["train"]:
        return [] if entry.shift_of else ["has no training image: it can be tested on and not trained on"]
    lines = []
    if not having["test"]:  # only of `cpt.fit`, which tests on nothing: a catalog's dataset is refused without any
        having["test"] = set(range(len(names)))
    for part, kind in (("train", "training"), ("test", "test")):
        if lacking := [repr(name) for label, name in enumerate(names) if label not in having[part]]:
            lines.append(f"classes without a {kind} image: {_some(lacking)}")
    base = set(trained_rows(len(names), "base_to_new"))
    if len(names) == 1:
        lines.append("has one class: base-to-new needs two")
    elif not base & having["test"] or not having["test"] - base:
        lines.append("a half of the classes has no test image: base-to-new needs some in each")
    return lines


def _left_out(entry: Entry) -> list[str]:
    """Lines about files in folders of one's own that are not listed."""
    suffixes: list[str] = []
    images: list[Path] = []
    for folder in _folders_of_classes(entry):
        other, elsewhere = unlisted(folder)
        suffixes += other
        images += elsewhere
    lines = []
    if suffixes:
        counts = ", ".join(f"{suffix or 'no suffix'} {count}" for suffix, count in sorted(Counter(suffixes).items()))
        lines.append(f"files left out, no images by their names: {counts}")
    if images:
        lines.append(f"images left out, beside class folders or deeper: {len(images)}, the first is {min(images)}")
    return lines


def _folders_of_classes(entry: Entry) -> list[Path]:
    cuts = entry.derived_split and (entry.derive.rule if entry.derive else entry.layout) == "folders"
    if cuts:
        return [entry.folder / entry.images]
    if entry.layout != "folders" or entry.split or entry.derived_split:
        return []
    return [entry.folder / part for part in PARTS if is_folder(entry.folder / part)]


def _some(words: Sequence[str]) -> str:
    more = len(words) - _SHOWN
    return ", ".join(words[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
