"""The layout of a Hugging Face dataset on disk: what ``save_to_disk`` wrote (Arrow), or the Parquet files of the hub.

Both are read with pyarrow alone; the library ``datasets`` is not needed.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cpt.data.layouts.derived import cut
from cpt.data.layouts.listing import Inside, Listing, label_classes
from cpt.data.manifest import PARTS
from cpt.errors import CptError
from cpt.files.hashes import parse_json

if TYPE_CHECKING:
    import pyarrow as pa

    from cpt.data.entry import Entry

Shards = Mapping[str, Sequence[Path]]
"""Split -> its files, in order."""

_SHARD = re.compile(r"(.+?)-(\d{5})-of-(\d{5})(?:-[0-9a-f]+)?")
_SPLITS = {"train": ("train",), "val": ("validation", "valid", "val"), "test": ("test",)}
"""Splits that are a part unless the entry chooses."""
_BATCH = 64
"""Images that are read at a time."""


@dataclass(frozen=True)
class _Columns:
    """Names of the columns, and the names of the classes where the labels are numbers."""

    image: str
    label: str
    names: list[str] | None


def huggingface(entry: Entry) -> Listing:
    """List the images of a dataset with an image column and a label column.

    The labels' numbers and names are those of its ``ClassLabel``; labels that are texts are in alphabetical order.
    Classes without an image are left out. The path of an image is ``<part>/<row of the split>``.

    Raises:
        CptError: there are no such files, some are missing or damaged, they have not one image and one label column
            (``columns`` chooses), an image has no label, or a part has no split (``parts`` chooses).
    """
    shards = _shards(entry.folder / entry.images)
    chosen = _chosen(entry, shards)
    first = shards[next(iter(chosen.values()))][0]
    columns = _columns(entry, first)
    labels: list[tuple[str, Any]] = []
    for part, split in chosen.items():
        values = [value for file in shards[split] for value in _labels(file, columns)]
        if None in values:
            raise CptError(f"{entry.name}: row {values.index(None)} of {split} has no label; leave such rows out")
        labels += [(part, value) for value in values]
    label, class_names = _classes(entry, columns, {value for _, value in labels}, first)
    rows = dict.fromkeys(PARTS, 0)
    images = []
    for part, value in labels:
        images.append((part, label[value], f"{part}/{rows[part]:07d}"))
        rows[part] += 1
    files = [file for split in chosen.values() for file in shards[split]]
    inside = Inside(files, lambda: _contents(shards, chosen, columns.image))
    if not entry.derived_split:
        return Listing(class_names, images, inside=inside)
    pool: dict[int, list[str]] = {}
    for _, number, path in images:
        pool.setdefault(number, []).append(path)
    return Listing(class_names, cut(pool), derived=True, inside=inside)


# ---- files -----------------------------------------------------------------------------------------


def _shards(folder: Path) -> Shards:
    """Find the files of a dataset."""
    if (folder / "dataset_dict.json").is_file():
        names = _json(folder / "dataset_dict.json").get("splits", [])
        return {name: _saved(folder / name) for name in names}
    if (folder / "state.json").is_file():
        return {_json(folder / "state.json").get("_split") or "train": _saved(folder)}
    for place in (folder, folder / "data"):
        if files := sorted(place.glob("*.parquet")):
            return _of_splits(files)
    below = {place: sorted(place.glob("*.parquet")) for place in sorted(folder.iterdir()) if place.is_dir()}
    below = {place: files for place, files in below.items() if files}
    configurations = [place for place, files in below.items() if all(_SHARD.fullmatch(file.stem) for file in files)]
    if len(configurations) == 1:
        return _of_splits(below[configurations[0]])
    if configurations:
        names = ", ".join(place.name for place in configurations)
        raise CptError(f"{folder}: holds several datasets, {names}; choose one: images: {configurations[0].name}")
    if below:
        return {place.name: files for place, files in below.items()}
    raise CptError(
        f"{folder}: holds neither what `save_to_disk` writes (dataset_dict.json) nor Parquet files "
        "(data/train-00000-of-00001.parquet); correct root"
    )


def _saved(folder: Path) -> list[Path]:
    """Files of one split that ``save_to_disk`` wrote."""
    state = _json(folder / "state.json")
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise CptError(f"{folder}: has indices beside its rows; save it again after `flatten_indices()`")
    return [folder / file["filename"] for file in state.get("_data_files", [])]


def _of_splits(files: Sequence[Path]) -> Shards:
    """Sort Parquet files by split, and check that none is missing."""
    found: dict[str, list[Path]] = {}
    for file in files:
        match = _SHARD.fullmatch(file.stem)
        found.setdefault(match[1] if match else file.stem, []).append(file)
    for split, own in found.items():
        numbers = [(int(match[2]), int(match[3])) for file in own if (match := _SHARD.fullmatch(file.stem))]
        if numbers and [number for number, _ in numbers] != list(range(numbers[0][1])):
            raise CptError(
                f"{own[0].parent}: {split} has {len(numbers)} of {numbers[0][1]} files; get the others, and delete "
                "those of another version"
            )
    return found


def _chosen(entry: Entry, shards: Shards) -> dict[str, str]:
    """Return part -> split."""
    known = ", ".join(shards) or "none"
    chosen: dict[str, str] = {part: entry.parts[part] for part in PARTS if part in entry.parts}
    for part, split in chosen.items():
        if split not in shards:
            raise CptError(f"{entry.name}.parts.{part}: there is no split {split!r}; there are: {known}")
    if not chosen:
        found = {part: [split for split in _SPLITS[part] if split in shards] for part in PARTS}
        chosen = {part: splits[0] for part, splits in found.items() if splits}
    needed = ["train"] if entry.derived_split else ["test"] if entry.shift_of else ["train", "test"]
    if missing := [part for part in needed if part not in chosen]:
        choice = "choose one by `parts`"
        if missing == ["test"]:
            other = next((split for split in shards if split != chosen["train"]), None)
            choice = f"let cpt cut them from {chosen['train']}: `derived_split: true`"
            choice = f"choose: `parts: {{train: {chosen['train']}, test: {other}}}`" if other else choice
        raise CptError(f"{entry.name}: has no split for {missing[0]} images (there are: {known}); {choice}")
    return chosen


def _json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from None
    if not isinstance(content, dict):
        raise _damaged(path, "no mapping")
    return content


def _damaged(path: Path, error: object) -> CptError:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if file.read(20).startswith(b"version https://git-"):
            return CptError(f"{path}: is a pointer of Git LFS, not the file; run `git lfs pull` there")
    return CptError(f"{path}: cannot be read ({' '.join(str(error).split())}); get or save the dataset again")


# ---- columns ---------------------------------------------------------------------------------------


def _columns(entry: Entry, file: Path) -> _Columns:
    import pyarrow as pa

    schema = _schema(file)
    features = _features(file, schema)
    of_type = {kind: [n for n, f in features.items() if f.get("_type") == kind] for kind in ("Image", "ClassLabel")}
    images, labels = of_type["Image"], of_type["ClassLabel"]
    if not images:  # another tool wrote it
        images = [field.name for field in schema if pa.types.is_struct(field.type) or pa.types.is_binary(field.type)]
    if not labels:
        labels = [name for name in ("label", "labels") if name in schema.names]
    image = _choose(entry, "image", entry.columns.image, images, schema.names)
    label = _choose(entry, "label", entry.columns.label, labels, schema.names)
    names = features.get(label, {}).get("names")
    return _Columns(image, label, names if isinstance(names, list) else None)


def _features(file: Path, schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """The features that the file, or dataset_info.json beside it, describes."""
    described = (schema.metadata or {}).get(b"huggingface")
    try:
        info = parse_json(described)["info"] if described else _json(file.parent / "dataset_info.json")
        found = info["features"]
    except (CptError, ValueError, KeyError, TypeError):
        return {}
    return {name: feature for name, feature in found.items() if isinstance(feature, dict)}


def _choose(entry: Entry, kind: str, given: str | None, found: Sequence[str], known: Sequence[str]) -> str:
    if given is not None:
        if given not in known:
            raise CptError(f"{entry.name}.columns.{kind}: there is no column {given!r}; there are: {', '.join(known)}")
        return given
    if len(found) == 1:
        return found[0]
    what = f"several {kind} columns ({', '.join(found)})" if found else f"no {kind} column"
    among = (found or known)[0]
    raise CptError(
        f"{entry.name}: has {what}; choose of {', '.join(found or known)}: `columns: {{{kind}: {json.dumps(among)}}}`"
    )


def _classes(entry: Entry, columns: _Columns, found: set[Any], place: Path) -> tuple[dict[Any, int], list[str]]:
    """Return label by value of the label column, and the class names in label order."""
    if all(isinstance(value, str) for value in found):
        return label_classes(entry, sorted(found), "label", place)
    if not all(isinstance(value, int) for value in found):
        raise CptError(f"{place}: column {columns.label!r} holds no labels; choose another: `columns: {{label: …}}`")
    names = entry.class_names if isinstance(entry.class_names, list) else columns.names
    if names is None:
        raise CptError(
            f"{place}: labels are numbers without names; name them in the order of the numbers: "
            f"{entry.name}.class_names"
        )
    if outside := sorted(value for value in found if not 0 <= value < len(names)):
        words = "rows without a label" if outside[0] < 0 else "labels without a name"
        raise CptError(
            f"{place}: column {columns.label!r} has {words} ({outside[0]}, of 0..{len(names) - 1}); leave out the "
            f"split that has them with `parts`, or name them in {entry.name}.class_names"
        )
    kept = sorted(found)
    return {value: label for label, value in enumerate(kept)}, [str(names[value]) for value in kept]


# ---- rows ------------------------------------------------------------------------------------------


def _labels(file: Path, columns: _Columns) -> list[Any]:
    return [value for batch in _batches(file, columns.label) for value in batch.to_pylist()]


def _contents(shards: Shards, chosen: Mapping[str, str], image: str) -> Iterator[tuple[str, bytes]]:
    """Yield path and bytes of every image."""
    for part, split in chosen.items():
        row = 0
        for file in shards[split]:
            for batch in _batches(file, image):
                for value in batch.to_pylist():
                    content = value.get("bytes") if isinstance(value, dict) else value
                    yield f"{part}/{row:07d}", content if isinstance(content, bytes) else b""
                    row += 1


def _schema(file: Path) -> pa.Schema:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        if file.suffix == ".parquet":
            return parquet.read_schema(file)
        with _open(file) as reader:
            return reader.schema
    except (OSError, pa.ArrowException) as error:
        raise _damaged(file, error) from None


def _batches(file: Path, column: str) -> Iterator[pa.Array]:
    """Yield one column of a file in batches; other columns are not read."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        if file.suffix == ".parquet":
            with parquet.ParquetFile(file) as source:
                for batch in source.iter_batches(_BATCH, columns=[column]):
                    yield batch.column(0)
            return
        with _open(file) as reader:
            for batch in reader:
                whole = batch.column(column)
                for start in range(0, len(whole), _BATCH):
                    yield whole.slice(start, _BATCH)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise _damaged(file, error) from None


def _open(file: Path) -> pa.RecordBatchReader:
    """Open an Arrow stream, mapped where the disk allows it: then columns that are not asked for are not read."""
    import pyarrow as pa

    try:
        source = pa.memory_map(str(file))
    except FileNotFoundError:
        raise
    except OSError:  # some disks cannot map files
        source = pa.OSFile(str(file))
    return pa.ipc.open_stream(source)
