"""Miniatures of ImageNet-LT, Places-LT and iNaturalist 2018, and what is refused of their lists."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cpt.data.catalog import load_catalog
from cpt.data.check import check_dataset
from cpt.data.entry import Entry
from cpt.data.make_manifest import find_images, make_manifest
from cpt.data.manifest import read_manifest
from cpt.errors import CptError

SHIPPED = load_catalog(Path(__file__).parents[2] / "config" / "datasets.yaml")
WNIDS = {"n01440764": "tench", "n01443537": "goldfish"}


def paint(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), (len(path.name), sum(path.name.encode()) % 256, 2)).save(path)


def miniature(name: str, root: Path, **fields: Any) -> Entry:
    """The shipped entry over a folder of its own, without expected counts and downloads."""
    shipped = SHIPPED[name].model_dump(exclude={"expected", "files", "gated"})
    return Entry(**(shipped | {"root": str(root)} | fields))


def write(root: Path, images: str, lists: dict[str, str]) -> None:
    for file, text in lists.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
        for line in text.splitlines():
            paint(root / images / line.split()[0])


@pytest.fixture
def imagenet_lt(tmp_path: Path) -> Entry:
    lines = {"train": [("train", "n01440764_1", 0), ("train", "n01443537_2", 1), ("train", "n01440764_3", 0)]}
    lines |= {
        "val": [("train", "n01443537_4", 1)],
        "test": [("val", "ILSVRC2012_val_1", 0), ("val", "ILSVRC2012_val_2", 1)],
    }
    text = {
        f"ImageNet_LT_{part}.txt": "".join(f"{top}/{[*WNIDS][label]}/{name}.JPEG {label}\n" for top, name, label in own)
        for part, own in lines.items()
    }
    write(tmp_path / "in", "images", text)
    return miniature("imagenet_lt", tmp_path / "in", class_names=WNIDS)


@pytest.fixture
def places_lt(tmp_path: Path) -> Entry:
    text = {
        "Places_LT_train.txt": "train/airfield/1.jpg 0\ntrain/arena-hockey/2.jpg 1\ntrain/airfield/3.jpg 0\n",
        "Places_LT_val.txt": "train/airfield/4.jpg 0\n",
        "Places_LT_test.txt": "val/arena-hockey/Places365_val_1.jpg 1\nval/airfield/Places365_val_2.jpg 0\n",
    }
    write(tmp_path / "places", ".", text)
    return miniature("places_lt", tmp_path / "places", class_names=["airfield", "hockey arena"])


@pytest.fixture
def inaturalist(tmp_path: Path) -> Entry:
    root = tmp_path / "inat"
    categories = [{"id": 1, "name": "1", "supercategory": "Aves"}, {"id": 0, "name": "0", "supercategory": "Plantae"}]
    for part, labels in {"train": [0, 1, 1], "val": [1, 0]}.items():
        images = [{"id": 7 + i, "file_name": f"train_val2018/{part}/{i}.jpg"} for i in range(len(labels))]
        for image in images:
            paint(root / str(image["file_name"]))
        annotations = [{"id": i, "image_id": 7 + i, "category_id": label} for i, label in enumerate(labels)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{part}2018.json").write_text(json.dumps(content))
    named = [{"id": 0, "name": "Acer rubrum"}, {"id": 1, "name": "Parus major"}]
    (root / "categories.json").write_text(json.dumps(named))
    return miniature("inaturalist2018", root)


def test_imagenet_lt(imagenet_lt: Entry, tmp_path: Path) -> None:
    manifest = read_manifest(make_manifest(imagenet_lt, tmp_path))
    assert manifest.class_names == ["tench", "goldfish"]
    assert manifest.label.tolist() == [0, 1, 0, 1, 0, 1], "in the order of the lists"
    assert manifest.part.tolist() == ["train"] * 3 + ["val"] + ["test"] * 2
    assert manifest.path[4] == "val/n01440764/ILSVRC2012_val_1.JPEG"


def test_places_lt(places_lt: Entry, tmp_path: Path) -> None:
    manifest = read_manifest(make_manifest(places_lt, tmp_path))
    assert manifest.class_names == ["airfield", "hockey arena"]
    assert manifest.label.tolist() == [0, 1, 0, 0, 1, 0]


def test_inaturalist(inaturalist: Entry, tmp_path: Path) -> None:
    manifest = read_manifest(make_manifest(inaturalist, tmp_path))
    assert manifest.class_names == ["Acer rubrum", "Parus major"], "of categories.json"
    assert manifest.label.tolist() == [0, 1, 1, 1, 0]
    assert manifest.part.tolist() == ["train"] * 3 + ["test"] * 2
    (inaturalist.folder / "categories.json").unlink()
    assert find_images(inaturalist).class_names == ["0", "1"], "those of the annotations"


@pytest.mark.parametrize("name", ["imagenet_lt", "places_lt", "inaturalist"])
def test_the_check_finds_it_complete(name: str, request: pytest.FixtureRequest) -> None:
    state = check_dataset(request.getfixturevalue(name), decode=True, workers=1)
    assert (state.state, state.advice) == ("complete", "")


def test_a_copy_that_is_not_whole(imagenet_lt: Entry) -> None:
    shipped = imagenet_lt.model_copy(update={"expected": SHIPPED["imagenet_lt"].expected})
    with pytest.raises(CptError, match="its 2 class names are not the published 1000"):
        find_images(shipped)


def test_lists_without_images_or_images_without_lists(tmp_path: Path) -> None:
    entry = SHIPPED["imagenet_lt"].model_copy(update={"root": str(tmp_path / "in")})
    assert "register at image-net.org" in check_dataset(entry).advice
    paint(tmp_path / "in/images/train/n01440764/0.JPEG")
    files = ", ".join(entry.lists.values())
    assert check_dataset(entry).advice == f"no {files}: cpt data fetch imagenet_lt"


Break = Callable[[Path], object]


def replaced(file: str, old: str, new: str) -> Break:
    return lambda root: (root / file).write_text((root / file).read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "ImageNet_LT_val.txt").unlink(), "ImageNet_LT_val.txt: not found; put it there"),
        (replaced("ImageNet_LT_train.txt", " 1", ""), "_train.txt: line 2: 'train/n01443537/n01443537_2.JPEG'"),
        (replaced("ImageNet_LT_train.txt", " 1", " 2"), "line 2: label 2 has no name: class_names has 2"),
        (replaced("ImageNet_LT_train.txt", " 1", " 0"), "_2.JPEG' is not in the folder 'n01440764' of label 0"),
        (replaced("ImageNet_LT_train.txt", "train/", "../train/"), "line 1: '../train/n01440764/n01440764_1.JPEG'"),
        (replaced("ImageNet_LT_train.txt", "_1", "_9"), "_9.JPEG (missing) of"),
        (replaced("ImageNet_LT_train.txt", "_3", "_1"), "is listed twice"),
        (lambda root: [(root / f"ImageNet_LT_{part}.txt").write_text("") for part in ("train", "val", "test")],
         "2 classes have no image in the lists, the first is 'tench'"),
    ],
)  # fmt: skip
def test_lists_that_will_not_do(imagenet_lt: Entry, damage: Break, message: str) -> None:
    damage(imagenet_lt.folder)
    with pytest.raises(CptError) as caught:
        find_images(imagenet_lt)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            replaced("train2018.json", '"images"', '"pictures"'),
            "train2018.json: holds no images, annotations and",
        ),
        (replaced("val2018.json", '"image_id": 7', '"image_id": 70'), "val2018.json: holds no images"),
        (replaced("categories.json", '"id": 1', '"number": 1'), "categories.json: holds no images"),
        (replaced("train2018.json", "{", "["), "train2018.json: damaged, or no JSON"),
        (lambda root: (root / "val2018.json").unlink(), "val2018.json: not found; put it there"),
    ],
)
def test_annotations_that_will_not_do(inaturalist: Entry, damage: Break, message: str) -> None:
    damage(inaturalist.folder)
    with pytest.raises(CptError) as caught:
        find_images(inaturalist)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_need_names(places_lt: Entry) -> None:
    with pytest.raises(CptError, match=r"places_lt\.class_names: layout lists needs names in the order of the labels"):
        find_images(places_lt.model_copy(update={"class_names": None}))
