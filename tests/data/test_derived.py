"""Derived splits: the counts of the published ones, the official test images, determinism, and missing raw files."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from cpt.data.catalog import load_catalog
from cpt.data.entry import Entry
from cpt.data.layouts.derived import derive
from cpt.data.layouts.listing import Listing
from cpt.data.make_manifest import check, find_images, make_manifest
from cpt.data.manifest import read_manifest
from cpt.errors import CptError

SHIPPED = load_catalog(Path(__file__).parents[2] / "config" / "datasets.yaml")
EUROSAT = {
    "AnnualCrop": 3000, "Forest": 3000, "HerbaceousVegetation": 3000, "Highway": 2500, "Industrial": 2500,
    "Pasture": 2000, "PermanentCrop": 2500, "Residential": 3000, "River": 2500, "SeaLake": 3000,
}  # fmt: skip


def half_even(numerator: int, denominator: int) -> int:
    """Round a fraction as Python's round does, in whole numbers."""
    whole, rest = divmod(numerator, denominator)
    return whole + (2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1))


def entry(root: Path, rule: str, names: list[str] | None = None, **fields: Any) -> Entry:
    derivation = {"rule": rule, **fields.pop("derive", {})}
    return Entry(
        name="raw", title="Raw", layout="split_json", root=str(root), split="split.json", class_names=names,
        derive=derivation, derived_split=True, **fields,
    )  # fmt: skip


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


# Raw files of every rule, for classes of given sizes: (pool of every class, test images of every class)


def folders(root: Path, sizes: Sequence[int], test: Sequence[int]) -> tuple[Entry, list[list[str]], None]:
    names = [f"class{i:03d}" for i in range(len(sizes))]
    pool = [[f"{name}/{i}.jpg" for i in range(size)] for name, size in zip(names, sizes, strict=True)]
    for images in pool:
        touch(root / "images", *images)
    return entry(root, "folders", names, images="images"), pool, None


def flowers(root: Path, sizes: Sequence[int], test: Sequence[int]) -> tuple[Entry, list[list[str]], None]:
    """Labels of images in an order of their own, 1-based, a row vector as in the devkit."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    savemat(root / "imagelabels.mat", {"labels": (labels + 1).astype(np.uint8)[None]})
    pool: list[list[str]] = [[] for _ in sizes]
    for i, label in enumerate(labels.tolist(), 1):
        pool[label].append(f"image_{i:05d}.jpg")
    return entry(root, "flowers", [f"flower {i}" for i in range(len(sizes))], images="jpg"), pool, None


def numbered(sizes: Sequence[int], name: Callable[[int, int], str]) -> list[list[str]]:
    return [[name(label, i) for i in range(size)] for label, size in enumerate(sizes)]


def pets(root: Path, sizes: Sequence[int], test: Sequence[int]) -> tuple[Entry, list[list[str]], list[list[str]]]:
    """Cats are capitalized; the class number is the second word of a line."""
    breed = [f"{'Breed' if i % 2 else 'breed'}_{i:02d}" for i in range(len(sizes))]
    parts = (
        numbered(sizes, lambda c, i: f"{breed[c]}_{i}.jpg"),
        numbered(test, lambda c, i: f"{breed[c]}_{900 + i}.jpg"),
    )
    (root / "annotations").mkdir()
    for part, images in zip(("trainval", "test"), parts, strict=True):
        lines = [f"{path[:-4]} {c + 1} 1 1" for c, paths in enumerate(images) for path in paths]
        (root / f"annotations/{part}.txt").write_text("#Image CLASS-ID SPECIES BREED ID\n" + "\n".join(lines[::-1]))
    return entry(root, "pets", [name.lower() for name in breed], images="images"), *parts


def cars(root: Path, sizes: Sequence[int], test: Sequence[int]) -> tuple[Entry, list[list[str]], list[list[str]]]:
    """Struct arrays with a box, a class from 1 and a file name, in the order of the file numbers."""
    result = []
    (root / "devkit").mkdir()
    files = {"cars_train": "devkit/cars_train_annos.mat", "cars_test": "cars_test_annos_withlabels.mat"}
    for (folder, file), counts in zip(files.items(), (sizes, test), strict=True):
        labels = np.random.default_rng(len(folder)).permutation(np.repeat(np.arange(len(counts)), counts)).tolist()
        kind = [(name, object) for name in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
        annotations = np.array([(1, 2, 3, 4, c + 1, f"{i:05d}.jpg") for i, c in enumerate(labels, 1)], dtype=kind)
        savemat(root / file, {"annotations": annotations[None]})
        images: list[list[str]] = [[] for _ in counts]
        for i, label in enumerate(labels, 1):
            images[label].append(f"{folder}/{i:05d}.jpg")
        result.append(images)
    return entry(root, "cars", [f"2012 Car {i}" for i in range(len(sizes))]), *result


def sun397(root: Path, sizes: Sequence[int], test: Sequence[int]) -> tuple[Entry, list[list[str]], list[list[str]]]:
    """Paths start with a slash; every second class has a folder below."""
    folder = [f"{chr(97 + i)}/{chr(97 + i)}bbey" + ("/indoor" if i % 2 else "") for i in range(len(sizes))]
    parts = (
        numbered(sizes, lambda c, i: f"{folder[c]}/sun_{i}.jpg"),
        numbered(test, lambda c, i: f"{folder[c]}/sun_t{i}.jpg"),
    )
    (root / "ClassName.txt").write_text("\n".join(f"/{name}" for name in folder))
    for part, images in zip(("Training", "Testing"), parts, strict=True):
        (root / f"{part}_01.txt").write_text("\r\n".join(f"/{path}" for paths in images for path in paths))
    names = [" ".join(name.split("/")[:0:-1]) for name in folder]
    return entry(root, "sun397", names, images="SUN397"), *parts


def ucf101(root: Path, sizes: Sequence[int], test: Sequence[int]) -> tuple[Entry, list[list[str]], list[list[str]]]:
    """Lines name videos; training lines carry the class number; class 1 has files of another spelling."""
    action = [f"Apply{chr(65 + i)}{chr(97 + i)}" for i in range(len(sizes))]
    action[0] = "HandstandPushups"
    folder = ["Handstand_Pushups", *(f"Apply_{name[5:]}" for name in action[1:])]
    video = ["v_HandStandPushups", *(f"v_{name}" for name in action[1:])]
    parts = (numbered(sizes, lambda c, i: f"{folder[c]}/{video[c]}_g08_c{i:02d}.jpg"),
             numbered(test, lambda c, i: f"{folder[c]}/{video[c]}_g01_c{i:02d}.jpg"))  # fmt: skip
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{i} {name}\r\n" for i, name in enumerate(action, 1)))
    for part, images in zip(("train", "test"), parts, strict=True):
        number = (lambda c: f" {c + 1}") if part == "train" else (lambda c: "")
        lines = [f"{action[c]}/{Path(path).stem}.avi{number(c)}" for c, paths in enumerate(images) for path in paths]
        (lists / f"{part}list01.txt").write_text("\n".join(lines))
    return entry(root, "ucf101", folder, images="UCF-101-midframes"), *parts


RULES = {"folders": folders, "flowers": flowers, "pets": pets, "cars": cars, "sun397": sun397, "ucf101": ucf101}
SIZES, TEST = [7, 1, 25, 5], [3, 2, 1, 4]


def parts_of(listing: Listing) -> dict[str, list[list[str]]]:
    """Images by part and label; labels ascend inside a part."""
    parts: dict[str, list[list[str]]] = {}
    for part in ("train", "val", "test"):
        labels = [label for name, label, _ in listing.images if name == part]
        assert labels == sorted(labels)
        parts[part] = [
            [path for name, other, path in listing.images if (name, other) == (part, label)]
            for label in range(len(listing.class_names))
        ]
    return parts


@pytest.mark.parametrize("rule", RULES)
def test_parts_are_complete_and_disjoint_and_test_images_official(tmp_path: Path, rule: str) -> None:
    described, pool, test = RULES[rule](tmp_path, SIZES, TEST)
    listing = derive(described)
    assert listing.derived
    assert listing.class_names == described.class_names
    assert listing.image_root == described.folder / described.images
    parts = parts_of(listing)
    for label, images in enumerate(pool):
        drawn = parts["train"][label] + parts["val"][label]
        if test is None:
            drawn += parts["test"][label]
        else:
            assert sorted(parts["test"][label]) == sorted(test[label])
        assert sorted(drawn) == sorted(images)


@pytest.mark.parametrize("rule", RULES)
def test_a_split_is_the_same_every_time_and_mixed(tmp_path: Path, rule: str) -> None:
    listings = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        described, pool, _ = RULES[rule](tmp_path / name, [30, 40], [5, 5])
        listings.append(derive(described).images)
    assert listings[0] == listings[1]
    train = [path for part, label, path in listings[0] if (part, label) == ("train", 0)]
    assert train != sorted(train), "shuffled"
    assert {path for part, label, path in listings[0] if (part, label) == ("val", 0)} != set(
        sorted(pool[0])[: len(train)]
    )


def test_the_draw_is_the_documented_one(tmp_path: Path) -> None:
    """One Random(1) for the dataset, classes in label order, names sorted, shuffled and cut."""
    import random

    described, pool, _ = RULES["flowers"](tmp_path, [11, 4, 9], [])
    generator, expected = random.Random(1), []
    for label, images in enumerate(pool):
        images = sorted(images)
        generator.shuffle(images)
        expected.append((label, images))
    parts = parts_of(derive(described))
    for label, images in expected:
        assert parts["train"][label] + parts["val"][label] + parts["test"][label] == images


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 130), min_size=1, max_size=8))
def test_counts_of_a_cut_of_all_images(sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        parts = parts_of(derive(RULES["flowers"](Path(folder), sizes, [])[0]))
    for label, size in enumerate(sizes):
        train, val = half_even(size, 2), half_even(size, 5)
        found = [len(parts[part][label]) for part in ("train", "val", "test")]
        assert found == [train, val, size - train - val]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 130), st.integers(0, 4)), min_size=1, max_size=8))
def test_counts_of_a_cut_of_official_training_images(sizes: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        train, test = zip(*sizes, strict=True)
        parts = parts_of(derive(RULES["pets"](Path(folder), train, test)[0]))
    for label, (size, official) in enumerate(sizes):
        val = half_even(size, 5)
        found = [len(parts[part][label]) for part in ("train", "val", "test")]
        assert found == [size - val, val, official]


def test_halves_are_rounded_to_even(tmp_path: Path) -> None:
    """5 images are cut 2, 1, 2 and 7 are cut 4, 1, 2, where rounding half up would give 3, 1, 1."""
    parts = parts_of(derive(RULES["flowers"](tmp_path, [5, 7], [])[0]))
    assert [[len(images) for images in parts[part]] for part in ("train", "val", "test")] == [[2, 4], [1, 1], [2, 2]]


@pytest.mark.parametrize(
    ("name", "sizes", "total"),
    [
        ("eurosat", list(EUROSAT.values()), {"train": 13500, "val": 5400, "test": 8100}),
        ("dtd", [120] * 47, {"train": 2820, "val": 1128, "test": 1692}),
        ("food101", [1000] * 101, {"train": 50500, "val": 20200, "test": 30300}),
    ],
)
def test_real_class_sizes_give_the_published_counts(
    tmp_path: Path, name: str, sizes: list[int], total: dict[str, int]
) -> None:
    """Those of the halves too, which the shipped entry expects."""
    shipped, raw = SHIPPED[name], RULES["flowers"](tmp_path, sizes, [])[0]
    described = raw.model_copy(update={"class_names": shipped.class_names, "expected": shipped.expected})
    listing = derive(described)
    check(described, listing)
    assert Counter(part for part, _, _ in listing.images) == total


def test_real_lists_of_sun397_give_the_published_counts(tmp_path: Path) -> None:
    shipped = SHIPPED["sun397"]
    folder = [f"{parts[0][0]}/{'/'.join(parts)}" for parts in (name.split(" ")[::-1] for name in shipped.class_names)]
    (tmp_path / "ClassName.txt").write_text("\n".join(f"/{name}" for name in folder))
    for part in ("Training", "Testing"):
        lines = [f"/{name}/{part}_{i}.jpg" for name in folder for i in range(50)]
        (tmp_path / f"{part}_01.txt").write_text("\n".join(lines))
    described = shipped.model_copy(update={"root": str(tmp_path), "derived_split": True})
    listing = derive(described)
    check(described, listing)
    assert Counter(part for part, _, _ in listing.images) == {"train": 15880, "val": 3970, "test": 19850}


@pytest.mark.parametrize("name", ["caltech101", "eurosat", "food101", "dtd"])
def test_folders_of_the_shipped_entries_are_in_label_order(tmp_path: Path, name: str) -> None:
    """Folders of the original names, written in another order, give the published class names."""
    shipped = SHIPPED[name]
    original = {new: old for old, new in shipped.derive.rename.items()}
    for folder in [*(original.get(label, label) for label in shipped.class_names), *shipped.derive.drop][::-1]:
        touch(tmp_path / shipped.images, *(f"{folder}/{i}.jpg" for i in range(4)), f"{folder}/.DS_Store")
    described = shipped.model_copy(update={"root": str(tmp_path), "derived_split": True})
    listing = derive(described)
    assert listing.class_names == shipped.class_names
    for _, label, path in listing.images:
        assert path.split("/")[0] == original.get(shipped.class_names[label], shipped.class_names[label])
    assert len(listing.images) == 4 * len(shipped.class_names)


def test_the_manifest_says_that_its_split_is_derived(tmp_path: Path) -> None:
    described, pool, _ = folders(tmp_path, [10, 5], [])
    manifest = read_manifest(make_manifest(described, tmp_path / "out"))
    assert manifest.metadata["derived"] is True
    assert Counter(manifest.part.tolist()) == {"train": 7, "val": 3, "test": 5}
    (tmp_path / "images" / pool[1][0]).unlink()
    again = read_manifest(make_manifest(described, tmp_path / "out"))
    assert again.metadata["content_hash"] != manifest.metadata["content_hash"]


def test_images_that_the_lists_name_must_be_there(tmp_path: Path) -> None:
    described, pool, test = pets(tmp_path, [5, 5], [1, 1])
    touch(tmp_path / "images", *(path for images in pool + test for path in images))
    assert len(find_images(described).images) == 12
    (tmp_path / "images" / test[1][0]).unlink()
    with pytest.raises(CptError, match=f"images/{test[1][0]} .missing.; get the dataset again"):
        find_images(described)


RAW = {
    "flowers": ["imagelabels.mat"],
    "pets": ["annotations/trainval.txt", "annotations/test.txt"],
    "cars": ["devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"],
    "sun397": ["ClassName.txt", "Training_01.txt", "Testing_01.txt"],
    "ucf101": ["ucfTrainTestlist/classInd.txt", "ucfTrainTestlist/trainlist01.txt", "ucfTrainTestlist/testlist01.txt"],
}


def refused(described: Entry, *words: str) -> None:
    with pytest.raises(CptError) as caught:
        derive(described)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(("rule", "file"), [(rule, file) for rule, files in RAW.items() for file in files])
def test_a_missing_or_damaged_raw_file_is_named(tmp_path: Path, rule: str, file: str) -> None:
    described = RULES[rule](tmp_path, [5, 5], [1, 1])[0]
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).unlink()
    refused(described, "raw: ", f"{tmp_path / file} is missing", "the derived split needs it")
    damaged = [whole[:100], b"", b"<html>\n" * 50, b"\xff" * 200] if file.endswith(".mat") else [b"\xff\xfe"]
    for content in damaged:
        (tmp_path / file).write_bytes(content)
        refused(described, "raw: ", f"{tmp_path / file} cannot be read", "the derived split needs it")


@pytest.mark.parametrize(
    ("rule", "file", "text"),
    [
        ("pets", "annotations/test.txt", "breed_00_1\n"),
        ("pets", "annotations/trainval.txt", "breed_00_1 one 1 1\n"),
        ("sun397", "Training_01.txt", "/a/unknown/sun_0.jpg"),
        ("ucf101", "ucfTrainTestlist/classInd.txt", "1\n2\n"),
        ("ucf101", "ucfTrainTestlist/trainlist01.txt", "NoSuchAction/v_NoSuchAction_g01_c01.avi 1"),
    ],
)
def test_lists_that_make_no_sense(tmp_path: Path, rule: str, file: str, text: str) -> None:
    described = RULES[rule](tmp_path, [5, 5], [1, 1])[0]
    (tmp_path / file).write_text(text)
    refused(described, "raw: ", "the lists", "get them")


def test_a_mat_file_of_something_else(tmp_path: Path) -> None:
    described = RULES["flowers"](tmp_path, [5, 5], [1, 1])[0]
    savemat(tmp_path / "imagelabels.mat", {"other": np.arange(3)})
    refused(described, "raw: ", "the lists", "get them")


@pytest.mark.parametrize("rule", list(RAW))
def test_classes_that_the_catalog_does_not_name(tmp_path: Path, rule: str) -> None:
    described = RULES[rule](tmp_path, [5, 5, 5], [1, 1, 1])[0]
    few = described.model_copy(update={"class_names": described.class_names[:2]})
    refused(few, "raw: 3 classes found, class_names does not name them; fix class_names")


def test_folders_that_the_catalog_does_not_name(tmp_path: Path) -> None:
    described = folders(tmp_path, [5, 5], [])[0]
    touch(tmp_path / "images", "BACKGROUND_Google/0.jpg")
    refused(described, "raw: the class folders of", "are not those of class_names")
    dropped = entry(tmp_path, "folders", described.class_names, images="images", derive={"drop": ["BACKGROUND_Google"]})
    assert derive(dropped).class_names == ["class000", "class001"]
    refused(
        entry(tmp_path / "nowhere", "folders", images="images"),
        "nowhere/images is missing",
        "put the class folders there",
    )
