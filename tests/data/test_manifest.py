"""Manifests of the embedded world and of class folders."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cpt.data import world
from cpt.data.entry import Entry, PerClass
from cpt.data.make_manifest import make_manifest
from cpt.data.manifest import SCHEMA, read_manifest
from cpt.errors import CptError
from cpt.files import stage_files as files

FEW = PerClass(train=3, test=2)


def paint(path, color=(200, 10, 10), size=(5, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def photos(tmp_path):
    """Two parts of three class folders, written out of order."""
    root = tmp_path / "photos"
    for part in ("test", "train"):
        for folder in ("polar_bear", "Cat", "ant"):
            for name in ("b.png", "a.JPG", "c.webp"):
                paint(root / part / folder / name)
    return root


def folders(root, **fields):
    return Entry(name="photos", title="Photos", layout="folders", root=str(root), **fields)


def embedded(name, **fields):
    return Entry(name=name, title=name, layout="embedded", per_class=FEW, **fields)


def test_embedded_dataset(tmp_path):
    manifest = read_manifest(make_manifest(embedded("land"), tmp_path))
    pixels = np.load(tmp_path / "images.npy")
    assert pixels.shape == (10 * (3 + 2), 32, 32, 3)
    assert pixels.dtype == np.uint8
    assert manifest.class_names == list(world.class_names("land"))
    assert manifest.metadata["dataset"] == "land"
    assert manifest.metadata["image_root"] == "."
    assert set(manifest.path) == {"images.npy"}
    assert manifest.part.tolist() == ["train"] * 30 + ["test"] * 20
    assert manifest.label[manifest.rows("train")].tolist() == np.repeat(np.arange(10), 3).tolist()
    rendered, labels = world.render("land", "test", 2)
    rows = manifest.rows("test")
    assert np.array_equal(pixels[manifest.index[rows]], rendered)
    assert np.array_equal(manifest.label[rows], labels)


def test_validation_images_of_an_embedded_dataset_are_further_ones_of_every_class(tmp_path):
    """The pool is that of a dataset without them, and behind its images each class has its own."""
    counts = {"plain": PerClass(train=3, test=2), "held": PerClass(train=3, val=2, test=2)}
    parts = {}
    for name, count in counts.items():
        entry = Entry(name="land", title="land", layout="embedded", per_class=count)
        manifest = read_manifest(make_manifest(entry, tmp_path / name))
        pixels = np.load(tmp_path / name / "images.npy")
        for part in ("train", "val", "test"):
            rows = manifest.rows(part)
            parts[name, part] = (pixels[manifest.index[rows]], manifest.label[rows])
    for part in ("train", "test"):
        assert all(map(np.array_equal, parts["plain", part], parts["held", part]))
    validation, labels = parts["held", "val"]
    assert labels.tolist() == np.repeat(np.arange(10), 2).tolist()
    rendered, classes = world.render("land", "train", 5)
    assert np.array_equal(validation, rendered.reshape(10, 5, 32, 32, 3)[:, 3:].reshape(-1, 32, 32, 3))
    assert classes.tolist() == np.repeat(np.arange(10), 5).tolist()


def test_embedded_dataset_under_another_name(tmp_path):
    make_manifest(embedded("land"), tmp_path / "a")
    make_manifest(embedded("ground", key="land"), tmp_path / "b")
    one, other = (read_manifest(tmp_path / name / "manifest.parquet") for name in "ab")
    assert other.metadata["dataset"] == "ground"
    assert one.metadata["content_hash"] == other.metadata["content_hash"]


def test_an_embedded_shift_has_a_test_part_only(tmp_path, monkeypatch):
    calls = []

    def render(key, part, per_class):
        calls.append((key, part, per_class))
        return np.zeros((2 * per_class, 32, 32, 3), np.uint8), np.repeat(np.arange(2), per_class)

    monkeypatch.setattr(world, "render", render)
    monkeypatch.setattr(world, "class_names", lambda key: ("red_star", "blue moon"))
    manifest = read_manifest(make_manifest(embedded("world_v2", shift_of="world"), tmp_path))
    assert calls == [("world_v2", "test", 2)]
    assert manifest.class_names == ["red star", "blue moon"]
    assert set(manifest.part) == {"test"}


def test_unknown_or_impossible_embedded_dataset(tmp_path):
    with pytest.raises(CptError, match=r"flowrs.key: no generated world has 'flowrs'; did you mean 'flowers'"):
        make_manifest(embedded("flowrs"), tmp_path)
    with pytest.raises(CptError, match=r"world_v2.shift_of: missing; world_v2 has test images only"):
        make_manifest(embedded("world_v2"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_class_folders(photos, tmp_path):
    manifest = read_manifest(make_manifest(folders(photos), tmp_path / "out"))
    assert manifest.class_names == ["Cat", "ant", "polar bear"]
    assert manifest.part.tolist() == ["train"] * 9 + ["test"] * 9
    assert manifest.label.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] * 2
    assert manifest.path[:3].tolist() == ["train/Cat/a.JPG", "train/Cat/b.png", "train/Cat/c.webp"]
    assert set(manifest.index) == {-1}
    assert manifest.metadata["image_root"] == str(photos)
    assert not (tmp_path / "out" / "images.npy").exists()


def test_columns_are_those_of_the_contract(photos, tmp_path):
    schema = pq.read_schema(make_manifest(folders(photos), tmp_path / "out"))
    assert {name: str(schema.field(name).type) for name in schema.names} == {
        "path": "string",
        "index": "int64",
        "label": "int64",
        "class_name": "string",
        "part": "string",
    }


def test_validation_part_and_other_files(photos, tmp_path):
    paint(photos / "val" / "ant" / "x.png")
    paint(photos / "train" / "ant" / ".hidden.png")
    (photos / "train" / "ant" / "notes.txt").write_text("no image")
    (photos / "train" / ".cache").mkdir()
    manifest = read_manifest(make_manifest(folders(photos), tmp_path / "out"))
    assert manifest.part.tolist() == ["train"] * 9 + ["val"] + ["test"] * 9
    assert manifest.path[manifest.rows("val")].tolist() == ["val/ant/x.png"]


def test_class_names_as_a_list_name_the_sorted_folders(photos, tmp_path):
    entry = folders(photos, class_names=["house_cat", "ant", "bear"])
    assert read_manifest(make_manifest(entry, tmp_path)).class_names == ["house cat", "ant", "bear"]


def test_class_names_as_a_mapping_give_the_label_order(photos, tmp_path):
    entry = folders(photos, class_names={"polar_bear": "bear", "Cat": "cat", "ant": "ant"})
    manifest = read_manifest(make_manifest(entry, tmp_path))
    assert manifest.class_names == ["bear", "cat", "ant"]
    assert manifest.path[0] == "train/polar_bear/a.JPG"


def test_a_shift_may_have_a_part_of_the_classes(photos, tmp_path):
    names = {"wolf": "wolf", "polar_bear": "bear", "Cat": "cat", "ant": "ant"}
    for path in (photos / "train").rglob("*.*"):
        path.unlink()
    manifest = read_manifest(make_manifest(folders(photos, class_names=names, shift_of="zoo"), tmp_path))
    assert manifest.class_names == ["bear", "cat", "ant"]
    assert set(manifest.part) == {"test"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"class_names": ["a", "b"]}, "class_names: 2 names for 3 class folders"),
        ({"class_names": {"Cat": "cat", "ant": "ant"}}, "class folder 'polar_bear' in .* has no name"),
        ({"class_names": dict.fromkeys(["Cat", "ant", "polar_bear", "eel"], "x")}, "has no class folder 'eel'"),
    ],
)
def test_class_names_that_do_not_fit(photos, tmp_path, fields, message):
    with pytest.raises(CptError, match=message):
        make_manifest(folders(photos, **fields), tmp_path)


def test_missing_part_and_empty_class(photos, tmp_path):
    with pytest.raises(CptError, match=r"photos.root: .*nowhere has no folder train/; lay images out as"):
        make_manifest(folders(photos / "nowhere"), tmp_path)
    (photos / "test" / "zebra").mkdir()
    with pytest.raises(CptError, match="class 'zebra' has no image"):
        make_manifest(folders(photos), tmp_path)


def test_content_hash_follows_rows_and_bytes_but_not_the_place(photos, tmp_path):
    def content_hash(root):
        return read_manifest(make_manifest(folders(root), tmp_path / "out")).metadata["content_hash"]

    first = content_hash(photos)
    moved = photos.rename(tmp_path / "elsewhere")
    assert content_hash(moved) == first
    paint(moved / "train" / "ant" / "b.png", (0, 0, 255))
    assert content_hash(moved) != first
    paint(moved / "train" / "ant" / "b.png")
    assert content_hash(moved) == first
    paint(moved / "train" / "ant" / "d.png")
    assert content_hash(moved) != first


def test_manifests_are_byte_identical(tmp_path):
    for name in "ab":
        make_manifest(embedded("land"), tmp_path / name)
    for file in ("manifest.parquet", "images.npy"):
        one, other = (hashlib.sha256(Path(tmp_path / name / file).read_bytes()).digest() for name in "ab")
        assert one == other


def test_a_label_without_images_is_refused(photos, tmp_path):
    path = make_manifest(folders(photos), tmp_path)
    table, metadata = files.read_parquet(path, SCHEMA)
    del metadata["schema"]
    files.write_parquet(path, table.slice(3), SCHEMA, **metadata)
    assert len(read_manifest(path).label) == 15
    files.write_parquet(path, table.filter([label != 1 for label in table["label"].to_pylist()]), SCHEMA, **metadata)
    with pytest.raises(CptError, match=r"labels are not 0..1 without gaps"):
        read_manifest(path)
