"""A Hugging Face dataset on disk, written here as the library `datasets` writes it: Parquet of the hub, and Arrow."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from cpt.data.check import check_dataset
from cpt.data.entry import Entry
from cpt.data.images import ImageStore
from cpt.data.make_manifest import digest, find_images, make_manifest
from cpt.data.manifest import read_manifest
from cpt.errors import CptError

NAMES = ["ant", "bee", "cow"]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
Rows = list[tuple[Any, Any]]


def picture(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (10, 9), (number, 7 * number % 256, 3)).save(stream, "PNG")
    return stream.getvalue()


def rows(start: int, labels: list[Any]) -> Rows:
    return [(picture(start + i), label) for i, label in enumerate(labels)]


TRAIN, TEST = rows(0, [1, 0, 1, 0, 1]), rows(100, [0, 1, 1])


def table(content: Rows, names: list[str] | None = NAMES, described: bool = True, **columns: str) -> pa.Table:
    """A table with the metadata of the library, unless it is of another tool."""
    image, label = columns.get("image", "image"), columns.get("label", "label")
    features = {image: {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
    if names is None:
        features[label] = {"dtype": "int64", "_type": "Value"}
    images = pa.array([{"bytes": data, "path": f"{i}.png"} for i, (data, _) in enumerate(content)], IMAGE)
    found = pa.table({image: images, label: pa.array([value for _, value in content])})
    return found.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})} if described else {}
    )


def hub(root: Path, splits: dict[str, list[Rows]], **how: Any) -> Entry:
    """Parquet files as on the hub: one per list of rows."""
    folder = root / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for split, shards in splits.items():
        for number, content in enumerate(shards):
            parquet.write_table(table(content, **how), folder / f"{split}-{number:05d}-of-{len(shards):05d}.parquet")
    return of(root)


def of(root: Path, **fields: Any) -> Entry:
    return Entry(**({"name": "bugs", "title": "Bugs", "layout": "huggingface", "root": str(root)} | fields))


def saved(root: Path, splits: dict[str, list[Rows]]) -> Entry:
    """What `DatasetDict.save_to_disk` writes."""
    root.mkdir(exist_ok=True)
    (root / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    for split, shards in splits.items():
        save(root / split, shards, split)
    return of(root)


def save(folder: Path, shards: list[Rows], split: str | None, **state: Any) -> None:
    folder.mkdir()
    files = [f"data-{number:05d}-of-{len(shards):05d}.arrow" for number in range(len(shards))]
    for file, content in zip(files, shards, strict=True):
        found = table(content)
        with pa.OSFile(str(folder / file), "wb") as sink, pa.ipc.new_stream(sink, found.schema) as writer:
            writer.write_table(found, max_chunksize=2)
    described = {"_data_files": [{"filename": file} for file in files], "_split": split, **state}
    (folder / "state.json").write_text(json.dumps(described))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))


def refusal(entry: Entry) -> str:
    with pytest.raises(CptError) as caught:
        find_images(entry)
    message = str(caught.value)
    assert "\n" not in message
    state = check_dataset(entry, workers=1)
    assert (state.state, state.advice) == ("damaged", message.removeprefix("bugs: "))
    return message


@pytest.fixture(params=["hub", "saved"])
def bugs(request: pytest.FixtureRequest, tmp_path: Path) -> Entry:
    splits = {"train": [TRAIN[:2], TRAIN[2:]], "test": [TEST]}
    return (hub if request.param == "hub" else saved)(tmp_path / "bugs", splits)


def test_images_come_out_as_files_beside_the_manifest(bugs: Entry, tmp_path: Path) -> None:
    path = make_manifest(bugs, tmp_path / "out")
    manifest = read_manifest(path)
    assert manifest.class_names == ["ant", "bee"], "cow has no image"
    assert manifest.label.tolist() == [label for _, label in TRAIN + TEST]
    assert manifest.part.tolist() == ["train"] * 5 + ["test"] * 3
    assert manifest.metadata["image_root"] == "images", "it moves with the results"
    (tmp_path / "out").rename(tmp_path / "moved")
    for name, (content, _) in zip(manifest.path, TRAIN + TEST, strict=True):
        assert (tmp_path / "moved/images" / name).read_bytes() == content
    store = ImageStore(tmp_path / "moved/manifest.parquet", 8)
    store.load(range(len(store)), 1)
    assert np.array_equal(store.pixels([7])[0, 0, 0], [102, 7 * 102 % 256, 3])
    state = check_dataset(bugs, decode=True, workers=1)
    assert (state.state, state.found, state.notices) == ("complete", {"train": 5, "test": 3}, ())
    assert not list((tmp_path / "moved").glob(".images*"))


def test_a_new_manifest_replaces_the_images(bugs: Entry, tmp_path: Path) -> None:
    make_manifest(bugs, tmp_path / "out")
    before, first = digest(bugs), read_manifest(tmp_path / "out/manifest.parquet").metadata["content_hash"]
    (tmp_path / "out/.images-left").mkdir()
    (tmp_path / "out/images/train/junk").write_bytes(b"x")
    make_manifest(bugs, tmp_path / "out")
    assert read_manifest(tmp_path / "out/manifest.parquet").metadata["content_hash"] == first
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["images"]
    assert not (tmp_path / "out/images/train/junk").exists()
    other = hub(tmp_path / "other", {"train": [TRAIN], "test": [TEST]})
    make_manifest(other, tmp_path / "again")
    assert read_manifest(tmp_path / "again/manifest.parquet").metadata["content_hash"] == first, "in one file or two"
    assert digest(bugs) == before != digest(other)


def test_splits_by_other_names(tmp_path: Path) -> None:
    entry = hub(tmp_path, {"train": [TRAIN], "validation": [rows(50, [0, 1])], "test": [rows(60, [-1, -1])]})
    assert "has rows without a label (-1, of 0..2); leave out the split that has them with `parts`" in refusal(entry)
    (tmp_path / "data/test-00000-of-00001.parquet").unlink()
    assert refusal(entry) == (
        "bugs: has no split for test images (there are: train, validation); choose: `parts: {train: train, test: "
        "validation}`"
    )
    chosen = find_images(of(tmp_path, parts={"train": "train", "test": "validation"}))
    assert {part for part, _, _ in chosen.images} == {"train", "test"}
    assert "bugs.parts.val: there is no split 'valid'; there are: train, validation" in refusal(
        of(tmp_path, parts={"val": "valid"})
    )


def test_one_split_is_cut(tmp_path: Path) -> None:
    save(tmp_path / "one", [rows(0, [0, 1] * 10)], "train")
    assert refusal(of(tmp_path / "one")) == (
        "bugs: has no split for test images (there are: train); let cpt cut them from train: `derived_split: true`"
    )
    entry = of(tmp_path / "one", derived_split=True)
    listing = find_images(entry)
    assert listing.derived
    assert [sum(part == name for part, _, _ in listing.images) for name in ("train", "val", "test")] == [10, 4, 6]
    manifest = read_manifest(make_manifest(entry, tmp_path / "out"))
    for path, label in zip(manifest.path, manifest.label, strict=True):
        number = int(Path(path).name)
        assert label == number % 2
        assert (tmp_path / "out/images" / path).read_bytes() == picture(number)


def test_labels_that_are_texts_or_numbers_alone(tmp_path: Path) -> None:
    words = {"train": [rows(0, ["bee", "ant"])], "test": [rows(9, ["ant"])]}
    assert find_images(hub(tmp_path / "words", words, names=None, described=False)).class_names == ["ant", "bee"]
    entry = hub(tmp_path / "numbers", {"train": [TRAIN], "test": [TEST]}, names=None, described=False)
    assert "labels are numbers without names; name them in the order of the numbers: bugs.class_names" in refusal(entry)
    assert find_images(of(tmp_path / "numbers", class_names=["a", "b"])).class_names == ["a", "b"]
    none = hub(tmp_path / "none", {"train": [rows(0, [0, None])], "test": [TEST]})
    assert "bugs: row 1 of train has no label; leave such rows out" in refusal(none)


def test_columns_by_other_names(tmp_path: Path) -> None:
    splits = {"train": [TRAIN], "test": [TEST]}
    assert len(find_images(hub(tmp_path / "a", splits, image="img", label="species")).images) == 8
    entry = hub(tmp_path / "b", splits, image="img", label="species", described=False)
    assert refusal(entry) == 'bugs: has no label column; choose of img, species: `columns: {label: "img"}`'
    assert refusal(of(tmp_path / "b", columns={"label": "kind"})) == (
        "bugs.columns.label: there is no column 'kind'; there are: img, species"
    )
    named = of(tmp_path / "b", columns={"label": "species"}, class_names=NAMES)
    assert find_images(named).class_names == ["ant", "bee"]


def test_where_the_files_lie(tmp_path: Path) -> None:
    wanted = find_images(hub(tmp_path / "a", {"train": [TRAIN], "test": [TEST]})).images
    (tmp_path / "a/data").rename(tmp_path / "flat")
    assert find_images(of(tmp_path / "flat")).images == wanted
    (tmp_path / "b").mkdir()
    (tmp_path / "flat").rename(tmp_path / "b/default")
    assert find_images(of(tmp_path / "b")).images == wanted, "one configuration"
    hub(tmp_path / "b/second", {"train": [TRAIN]})
    (tmp_path / "b/second/data").rename(tmp_path / "b/other")
    assert "holds several datasets, default, other; choose one: images: default" in refusal(of(tmp_path / "b"))
    assert find_images(of(tmp_path / "b", images="default")).images == wanted
    for split in ("train", "test"):
        (tmp_path / "c" / split).mkdir(parents=True)
        (tmp_path / f"b/default/{split}-00000-of-00001.parquet").rename(tmp_path / "c" / split / "0000.parquet")
    assert find_images(of(tmp_path / "c")).images == wanted, "as the hub converts"


def test_files_that_will_not_do(bugs: Entry, tmp_path: Path) -> None:
    root = bugs.folder
    (tmp_path / "empty").mkdir()
    assert "holds neither what `save_to_disk` writes" in refusal(of(tmp_path / "empty"))
    first = next(root.rglob("*00000-of-00002*"))
    content = first.read_bytes()
    first.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert refusal(bugs) == f"{first}: is a pointer of Git LFS, not the file; run `git lfs pull` there"
    first.write_bytes(content[: len(content) // 2])
    assert f"{first}: cannot be read (" in refusal(bugs)
    first.unlink()
    missing = refusal(bugs)
    assert "train has 1 of 2 files; get the others" in missing or f"{first}: cannot be read (" in missing


def test_indices_beside_the_rows(tmp_path: Path) -> None:
    save(tmp_path / "one", [TRAIN], "train", _indices_files=[{"filename": "indices.arrow"}])
    assert "has indices beside its rows; save it again after `flatten_indices()`" in refusal(of(tmp_path / "one"))


def test_all_images_that_cannot_be_decoded_are_told(tmp_path: Path) -> None:
    bad = [(b"nothing", 0), (None, 1), *TRAIN]
    entry = hub(tmp_path / "a", {"train": [bad], "test": [TEST]})
    assert check_dataset(entry).state == "complete", "they are not read"
    state = check_dataset(entry, decode=True, workers=1)
    assert state.advice.startswith("2 images cannot be decoded, the first is image train/0000000: image cannot be")
    assert [line.split(":")[0] for line in state.notices] == ["image train/0000001"]
    with pytest.raises(CptError, match="bugs: no bytes of image train/0000001; save the dataset"):
        make_manifest(entry, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_classes_that_lack_images_and_copies_are_told(tmp_path: Path) -> None:
    entry = hub(tmp_path / "a", {"train": [rows(0, [0, 0])], "test": [rows(0, [0, 1])]})
    notices = check_dataset(entry, decode=True).notices
    assert "classes without a training image: 'bee'" in notices
    assert any(line.startswith("test images that are copies of training images: 2") for line in notices)
    alone = hub(tmp_path / "b", {"train": [rows(0, [0, 0])], "test": [rows(9, [0])]})
    assert "has one class: base-to-new needs two" in check_dataset(alone).notices
