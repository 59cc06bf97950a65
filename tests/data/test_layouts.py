"""Layouts: the 15 datasets on miniatures of their archives, a dataset of one's own, and what is refused."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cpt.data.catalog import load_catalog
from cpt.data.check import check_dataset
from cpt.data.download.prepare import prepare
from cpt.data.entry import Entry
from cpt.data.fewshot import sample_shots
from cpt.data.images import ImageStore
from cpt.data.make_manifest import digest, find_images, make_manifest
from cpt.data.manifest import Manifest, read_manifest
from cpt.errors import CptError
from cpt.files.stage_files import sha256_text
from tests.helpers.miniature import TEST, TRAIN, VAL, Miniatures
from tests.helpers.servers import Server

CLASSES = Path(__file__).parents[2] / "config" / "classes"
SPLIT = [
    "caltech101",
    "oxford_pets",
    "stanford_cars",
    "oxford_flowers",
    "food101",
    "sun397",
    "dtd",
    "eurosat",
    "ucf101",
]
WITHOUT_FILE = ["imagenet", "fgvc_aircraft"]
SHIFTS = ["imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"]


@dataclass
class Bench:
    """All miniatures, fetched from a server, with their manifests."""

    made: Miniatures
    catalog: dict[str, Entry]
    manifests: dict[str, Path]

    def manifest(self, name: str) -> Manifest:
        return read_manifest(self.manifests[name])

    def split(self, name: str) -> dict[str, list]:
        """The split file as it was served."""
        file = next(path for path in self.made.served if path.endswith(self.made.catalog[name]["split"]))
        return json.loads(self.made.served[file].decode("utf-8-sig"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("miniatures")
    with Server() as server:
        made = Miniatures(folder / "data", server.root)
        for path, content in made.served.items():
            server.add(path, content)
        catalog = load_catalog(made.write_catalog(folder / "datasets.yaml"))
        for entry in catalog.values():
            prepare(entry, lambda line: None)
    return Bench(made, catalog, {name: make_manifest(entry, folder / name) for name, entry in catalog.items()})


def lines_of(name: str) -> list[str]:
    file = {"imagenetv2": "imagenet", "imagenet_sketch": "imagenet"}.get(name, name)
    return (CLASSES / f"{file}.txt").read_text(encoding="utf-8").splitlines()


def ranked(values: Any, key: Callable[[str], Any] | None = None) -> dict[str, int]:
    return {value: rank for rank, value in enumerate(sorted(set(values), key=key))}


def by_rank(folder: Callable[[str], str], key: Callable[[str], Any] | None = None) -> Callable[[list[str]], list[int]]:
    """Labels as ranks of what ``folder`` makes of a path."""

    def labels(paths: list[str]) -> list[int]:
        rank = ranked(map(folder, paths), key)
        return [rank[folder(path)] for path in paths]

    return labels


def by_number(label: Callable[[str], int]) -> Callable[[list[str]], list[int]]:
    return lambda paths: [label(path) for path in paths]


def car(path: str) -> int:
    return (int(path[-9:-4]) - 1) // (TEST if path.startswith("cars_test/") else TRAIN + VAL)


ORACLES: dict[str, Callable[[list[str]], list[int]]] = {
    "imagenet": by_rank(lambda path: path.split("/")[1]),
    "caltech101": by_rank(lambda path: path.split("/")[0]),
    "oxford_pets": by_rank(lambda path: path.rpartition("_")[0].lower()),
    "stanford_cars": by_number(car),
    "oxford_flowers": by_number(lambda path: (int(path[6:11]) - 1) // (TRAIN + VAL + TEST)),
    "food101": by_rank(lambda path: path.split("/")[0]),
    "fgvc_aircraft": by_number(lambda path: int(path[:7]) // 10),
    "sun397": by_rank(lambda path: path.rpartition("/")[0]),
    "dtd": by_rank(lambda path: path.split("/")[0]),
    "eurosat": by_rank(lambda path: path.split("/")[0]),
    "ucf101": by_rank(lambda path: path.split("/")[0], lambda folder: folder.replace("_", "").lower()),
    "imagenetv2": by_number(lambda path: int(path.split("/")[0])),
    "imagenet_sketch": by_rank(lambda path: path.split("/")[0]),
    "imagenet_a": by_rank(lambda path: path.split("/")[0]),
    "imagenet_r": by_rank(lambda path: path.split("/")[0]),
}
"""The rule of each dataset's publisher for labels, or the numbering of the miniature's files."""


def test_there_is_an_oracle_for_every_dataset(bench: Bench) -> None:
    assert set(bench.catalog) == set(ORACLES) == {*SPLIT, *WITHOUT_FILE, *SHIFTS}


@pytest.mark.parametrize("name", ORACLES)
def test_labels_follow_the_publishers_rule(bench: Bench, name: str) -> None:
    manifest = bench.manifest(name)
    assert manifest.label.tolist() == ORACLES[name](manifest.path.tolist())


@pytest.mark.parametrize("name", ORACLES)
def test_class_names_are_those_of_the_catalog_with_spaces(bench: Bench, name: str) -> None:
    lines = lines_of(name)
    names = [line.split(" ", 1)[1] for line in lines] if name.startswith("imagenet") else lines
    assert bench.manifest(name).class_names == [name.replace("_", " ") for name in names]


@pytest.mark.parametrize("name", ORACLES)
def test_counts_and_parts(bench: Bench, name: str) -> None:
    manifest, classes = bench.manifest(name), len(lines_of(name))
    per_class = {"train": TRAIN, "val": VAL, "test": TEST}
    if name == "imagenet":
        per_class = {"train": TRAIN, "test": TEST}
    elif name in SHIFTS:
        per_class = {"test": TEST}
    assert Counter(manifest.part.tolist()) == {part: count * classes for part, count in per_class.items()}
    for part, count in per_class.items():
        assert set(Counter(manifest.label[manifest.rows(part)].tolist()).values()) == {count}
    assert manifest.metadata["derived"] is False


@pytest.mark.parametrize("name", ORACLES)
def test_every_image_is_there_and_decodes(bench: Bench, name: str) -> None:
    store = ImageStore(bench.manifests[name], 16)
    store.load(range(len(store)), 1)
    assert store.pixels([0, len(store) - 1]).shape == (2, 16, 16, 3)


@pytest.mark.parametrize("name", ORACLES)
def test_hidden_and_other_files_are_not_listed(bench: Bench, name: str) -> None:
    names = [Path(path).name for path in bench.manifest(name).path]
    assert not [file for file in names if file.startswith(".") or file.endswith((".mat", ".txt"))]


@pytest.mark.parametrize("name", SPLIT)
def test_rows_keep_the_order_of_the_split_file(bench: Bench, name: str) -> None:
    manifest, lists = bench.manifest(name), bench.split(name)
    for part, items in lists.items():
        rows = manifest.rows(part)
        assert [[path, int(label)] for path, label in zip(manifest.path[rows], manifest.label[rows], strict=True)] == [
            [path, label] for path, label, _ in items
        ]


@pytest.mark.parametrize("name", SPLIT)
def test_shots_are_those_that_the_published_rule_draws_from_the_file(bench: Bench, name: str) -> None:
    """The walk over the lists of the JSON, written down again without manifests."""
    manifest, lists = bench.manifest(name), bench.split(name)
    generator, expected = random.Random(1), []
    groups: dict[int, list[str]] = {}
    for path, label, _ in lists["train"]:
        groups.setdefault(label, []).append(path)
    expected += [path for items in groups.values() for path in generator.sample(items, 1)]
    train = manifest.rows("train")
    drawn = sample_shots(manifest.label[train], 1, 1)
    assert manifest.path[train[drawn]].tolist() == expected
    if name in ("stanford_cars", "oxford_flowers"):
        labels = manifest.label[train].tolist()
        assert labels != sorted(labels), "the miniature is shuffled as the published file is"


def test_caltech_has_its_capitals_first_and_drops_two_folders(bench: Bench) -> None:
    manifest = bench.manifest("caltech101")
    assert manifest.class_names[:5] == ["face", "leopard", "motorbike", "accordion", "airplane"]
    folders = {path.split("/")[0] for path in manifest.path}
    assert {"Faces", "airplanes"} <= folders
    assert not folders & {"Faces_easy", "BACKGROUND_Google"}
    on_disk = {path.name for path in (bench.catalog["caltech101"].folder / "101_ObjectCategories").iterdir()}
    assert on_disk - folders == {"Faces_easy", "BACKGROUND_Google"}


def test_ucf_is_ordered_without_case_and_keeps_its_odd_class(bench: Bench) -> None:
    manifest = bench.manifest("ucf101")
    names = manifest.class_names
    assert names.index("Hammering") + 1 == names.index("Hammer Throw")
    assert names.index("Jumping Jack") + 1 == names.index("Jump Rope")
    odd = [path for path in manifest.path if path.startswith("Handstand_Pushups/")]
    assert all(Path(path).name.startswith("v_HandStandPushups_") for path in odd)
    assert len(odd) == TRAIN + VAL + TEST


def test_sun397_names_are_reversed_and_only_images_of_the_split_are_kept(bench: Bench) -> None:
    manifest, entry = bench.manifest("sun397"), bench.catalog["sun397"]
    for path, label in zip(manifest.path, manifest.label, strict=True):
        parts = path.split("/")[1:-1]
        assert manifest.class_names[label] == " ".join(reversed(parts)).replace("_", " ")
    assert max(len(path.split("/")) for path in manifest.path) == 4, "classes with a folder below"
    images = entry.folder / "SUN397"
    assert {str(path.relative_to(images)) for path in images.rglob("*") if path.is_file()} == set(manifest.path)


def test_aircraft_ids_keep_their_zeros_and_names_their_slashes(bench: Bench) -> None:
    manifest = bench.manifest("fgvc_aircraft")
    assert {"F-16A/B", "F/A-18"} < set(manifest.class_names)
    assert manifest.path[0] == "0000000.jpg"
    lines = (bench.catalog["fgvc_aircraft"].folder / "images_variant_train.txt").read_text().splitlines()
    assert manifest.path[manifest.rows("train")].tolist() == [f"{line.split(' ')[0]}.jpg" for line in lines]


def test_pets_ids_ignore_the_capitals_of_cats(bench: Bench) -> None:
    manifest = bench.manifest("oxford_pets")
    breeds = {path.rpartition("_")[0] for path in manifest.path}
    assert [breed.lower() for breed in sorted(breeds)] != sorted(map(str.lower, breeds)), "capitals would matter"


def test_v2_folders_are_numbers(bench: Bench) -> None:
    manifest = bench.manifest("imagenetv2")
    where = {path.split("/")[0]: label for path, label in zip(manifest.path, manifest.label, strict=True)}
    assert (where["2"], where["10"], where["100"], where["999"]) == (2, 10, 100, 999)


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_subsets_of_imagenet_take_its_names_by_folder(bench: Bench, name: str) -> None:
    names = dict(line.split(" ", 1) for line in lines_of("imagenet"))
    manifest = bench.manifest(name)
    assert [manifest.class_names[label] for label in manifest.label] == [names[p.split("/")[0]] for p in manifest.path]


def test_two_classes_of_one_name_stay_two(bench: Bench) -> None:
    manifest = bench.manifest("imagenet")
    for name, wnids in (("missile", ("n03773504", "n04008634")), ("sunglasses", ("n04355933", "n04356056"))):
        labels = [i for i, found in enumerate(manifest.class_names) if found == name]
        assert len(labels) == 2
        for label, wnid in zip(labels, wnids, strict=True):
            assert {path.split("/")[1] for path in manifest.path[manifest.label == label]} == {wnid}


def test_imagenet_is_hashed_by_names_and_sizes(bench: Bench) -> None:
    assert [name for name, entry in bench.catalog.items() if entry.fingerprint == "sizes"] == ["imagenet"]


@pytest.mark.parametrize("name", ORACLES)
def test_the_check_finds_every_dataset_complete(bench: Bench, name: str) -> None:
    state = check_dataset(bench.catalog[name], workers=1)
    assert (state.state, state.advice) == ("complete", "")
    assert state.found == dict(Counter(bench.manifest(name).part.tolist()))


# What is refused, on datasets of two to three classes


def paint(*paths: Path) -> None:
    for i, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4), (i, 1, 2)).save(path)


def refused(entry: Entry, *words: str) -> None:
    with pytest.raises(CptError) as caught:
        find_images(entry)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


NAMES = {"n01": "tench", "n02": "goldfish"}
CAT_AND_DOG = {
    "train": [["cat/1.jpg", 0, "cat"], ["dog/1.jpg", 1, "big_dog"]],
    "val": [["dog/2.jpg", 1, "big_dog"]],
    "test": [["cat/2.jpg", 0, "cat"], ["dog/3.jpg", 1, "big_dog"]],
}


@pytest.fixture
def imagenet(tmp_path: Path) -> Entry:
    root = tmp_path / "in"
    for wnid in NAMES:
        paint(root / "images/train" / wnid / "b.JPEG", root / "images/train" / wnid / "a.JPEG")
        paint(root / "images/val" / wnid / "c.JPEG")
    return Entry(name="in", title="I", layout="imagenet", root=str(root), images="images", class_names=NAMES)


@pytest.fixture
def v2(tmp_path: Path) -> Entry:
    paint(*(tmp_path / "v2/images" / str(label) / "x.jpeg" for label in range(11)))
    names = {f"n{i:02d}": f"name {i}" for i in range(11)}
    return Entry(
        name="v2", title="V2", layout="numbered_folders", root=str(tmp_path / "v2"), images="images", class_names=names
    )


@pytest.fixture
def pets(tmp_path: Path) -> Entry:
    """Five images of two classes and their split file."""
    root = tmp_path / "pets"
    paint(*(root / "images" / path for part in CAT_AND_DOG.values() for path, _, _ in part))
    write(root, CAT_AND_DOG)
    return Entry(
        name="pets", title="P", layout="split_json", root=str(root), images="images", split="split.json",
        class_names=["cat", "big_dog"],
    )  # fmt: skip


FETCHED = [{"provides": {"x": []}, "sources": [{"url": "https://host.org/x"}]}]


def write(root: Path, split: object, encoding: str = "utf-8") -> None:
    (root / "split.json").write_text(split if isinstance(split, str) else json.dumps(split), encoding=encoding)


def with_changes(entry: Entry, **fields: Any) -> Entry:
    return Entry(**entry.model_dump(exclude_unset=True) | fields)


def test_small_datasets_are_listed(imagenet: Entry, v2: Entry, pets: Entry) -> None:
    """The good state of what the following tests spoil."""
    assert find_images(imagenet).images == [
        ("train", 0, "train/n01/a.JPEG"), ("train", 0, "train/n01/b.JPEG"), ("train", 1, "train/n02/a.JPEG"),
        ("train", 1, "train/n02/b.JPEG"), ("test", 0, "val/n01/c.JPEG"), ("test", 1, "val/n02/c.JPEG"),
    ]  # fmt: skip
    assert find_images(v2).images == [("test", label, f"{label}/x.jpeg") for label in range(11)]
    listing = find_images(pets)
    assert listing.class_names == ["cat", "big_dog"]
    assert [path for _, _, path in listing.images] == ["cat/1.jpg", "dog/1.jpg", "dog/2.jpg", "cat/2.jpg", "dog/3.jpg"]


def test_hidden_files_and_texts_between_the_images(imagenet: Entry) -> None:
    root, before = imagenet.folder / "images", find_images(imagenet).images
    paint(root / "train/n01/.hidden.jpg", root / "train/.Trash/x.jpg", root / "val/n02/._c.JPEG.jpg")
    (root / "train/n01/.DS_Store").write_bytes(b"junk")
    (root / "train/n01/notes.txt").write_text("junk")
    (root / "val/README.txt").write_text("junk")
    assert find_images(imagenet).images == before


def test_a_missing_class_folder(imagenet: Entry) -> None:
    (imagenet.folder / "images/val/n02/c.JPEG").unlink()
    (imagenet.folder / "images/val/n02").rmdir()
    refused(imagenet, "in: ", "images/val has no class folder 'n02' (1 differ)", "get the published release")


def test_a_class_folder_too_many(imagenet: Entry) -> None:
    paint(imagenet.folder / "images/train/n03/a.JPEG")
    refused(imagenet, "images/train has a class folder too many 'n03'")


def test_validation_images_that_are_not_sorted_into_folders(imagenet: Entry) -> None:
    paint(imagenet.folder / "images/val/ILSVRC2012_val_00000001.JPEG")
    refused(imagenet, "images/val holds images (ILSVRC2012_val_00000001.JPEG)", "sort them into folders")


def test_a_missing_folder_says_how_to_get_it(imagenet: Entry, tmp_path: Path) -> None:
    elsewhere = with_changes(imagenet, root=str(tmp_path / "nowhere"))
    refused(elsewhere, "nowhere/images/train is missing", "; put it there")
    refused(with_changes(elsewhere, files=FETCHED), "images/train is missing; get it with `cpt data fetch in`")
    refused(with_changes(elsewhere, gated="put it at {root}/images"), f"put it at {tmp_path}/nowhere/images")


def test_v2_with_folders_of_wnids(v2: Entry) -> None:
    images = v2.folder / "images"
    (images / "10").rename(images / "n10")
    refused(v2, "no class folder '10' (2 differ)")


def test_v2_with_padded_numbers(v2: Entry) -> None:
    images = v2.folder / "images"
    (images / "3").rename(images / "0003")
    refused(v2, "'0003'")


@pytest.mark.parametrize("names", [None, ["tench", "goldfish"]])
def test_layouts_by_folder_need_names_by_folder(imagenet: Entry, names: list[str] | None) -> None:
    for layout in ("imagenet", "wnid_folders", "numbered_folders"):
        entry = with_changes(imagenet, layout=layout, class_names=names)
        refused(entry, f"in.class_names: layout {layout} needs folder: name")


def test_a_missing_image(pets: Entry) -> None:
    (pets.folder / "images/dog/2.jpg").unlink()
    refused(
        pets,
        "pets: ",
        "images/dog/2.jpg (missing)",
        f"get the dataset again: put its files into {pets.folder}/images yourself",
    )
    sources = [{"url": "https://host.org/x"}]
    files = [{"provides": {"images": ["images"], "names.txt": ["names.txt"]}, "sources": sources}]
    refused(
        with_changes(pets, files=files),
        f"get the dataset again: move {pets.folder}/images away, or delete it, and run `cpt data fetch pets`",
    )
    files[0]["provides"] = {"images/cat": ["cat"], "images/dog": ["dog"]}
    refused(with_changes(pets, files=files), f"again: move {pets.folder}/images/dog away, or delete it, and run")
    refused(with_changes(pets, files=files, gated="ask for it"), "images yourself")


@pytest.mark.parametrize("suffix", [".JPEG", ".jpg"])
def test_imagenet_under_either_naming_is_listed_in_the_same_order(tmp_path: Path, suffix: str) -> None:
    """Copies from Hugging Face add the class to a name; by whole names 10 would come behind 100."""
    numbers = [10, 100, 1000, 1001, 2, 20, 9]
    orders = []
    for place, ending in (("plain", ""), ("copy", "_{}")):
        root = tmp_path / place
        for wnid in NAMES:
            end = ending.format(wnid) + suffix
            paint(*(root / "train" / wnid / f"{wnid}_{number}{end}" for number in numbers))
            paint(*(root / "val" / wnid / f"ILSVRC2012_val_{number:08d}{end}" for number in numbers))
        entry = Entry(name="in", title="I", layout="imagenet", root=str(root), class_names=NAMES)
        images = find_images(entry).images
        assert all(path.endswith(ending.format(path.split("/")[1]) + suffix) for _, _, path in images)
        orders.append([
            (part, label, path.removesuffix(suffix).removesuffix(ending.format(path.split("/")[1])))
            for part, label, path in images
        ])  # fmt: skip
    assert orders[0] == orders[1]
    assert [path for _, _, path in orders[0][:7]] == [f"train/n01/n01_{number}" for number in numbers]


def test_an_empty_image(pets: Entry) -> None:
    (pets.folder / "images/cat/2.jpg").write_bytes(b"")
    refused(pets, "images/cat/2.jpg (empty)")


def test_several_missing_images_are_counted(pets: Entry) -> None:
    (pets.folder / "images/cat/1.jpg").write_bytes(b"")
    (pets.folder / "images/dog/3.jpg").unlink()
    refused(pets, "2 images are missing or empty, the first is ", "images/cat/1.jpg (empty)")


def changed(part: str, place: int, item: Any) -> dict[str, Any]:
    copy = json.loads(json.dumps(CAT_AND_DOG))
    copy[part][place] = item
    return copy


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (changed("test", 0, ["cat/1.jpg", 0, "cat"]), ["image 'cat/1.jpg' is listed twice", "fix the list"]),
        (changed("test", 0, ["../../secret.jpg", 0, "cat"]), ["test: '../../secret.jpg' leads out of"]),
        (changed("train", 0, ["cat/../../../x.jpg", 0, "cat"]), ["train: 'cat/../../../x.jpg' leads out of"]),
        (changed("val", 0, ["/etc/passwd", 1, "big_dog"]), ["val: '/etc/passwd' leads out of"]),
        (changed("test", 0, ["cat/2.jpg", 3, "cow"]), ["labels are not 0..2"]),
        (changed("test", 0, ["cat/2.jpg", -1, "cow"]), ["labels are not 0..2"]),
        (changed("test", 0, ["cat/2.jpg", 1, "cat"]), ["label 1 is 'big_dog' and 'cat'"]),
        (changed("test", 0, ["cat/2.jpg", "0", "cat"]), ["test: ['cat/2.jpg', '0', 'cat'] is not [path, label, class"]),
        (changed("test", 0, ["cat/2.jpg", 0]), ["is not [path, label, class name]"]),
        (changed("test", 0, 7), ["test: 7 is not [path, label, class name]"]),
        (CAT_AND_DOG | {"val": None}, ["split.json: ", "train, val and test must be lists"]),
        (CAT_AND_DOG | {"train": 3}, ["train, val and test must be lists"]),
        ({"train": []}, ["no split file; it must hold the lists"]),
        ([1], ["no split file"]),
        (changed("test", 0, ["cat/2.jpg", True, "big_dog"]), ["['cat/2.jpg', True, 'big_dog'] is not [path, label"]),
        (changed("test", 0, ["cat/2.jpg", 10**400, "cow"]), ["labels are not 0..2 but reach from 0 to 1000"]),
        (changed("test", 0, [[[[[[[[[["x"]]]]]]]]]]), ["is not [path, label, class name]"]),
        (changed("test", 0, ["cat\0.jpg", 0, "cat"]), ["embedded null "]),
        (changed("test", 0, ["cat/\ud800.jpg", 0, "cat"]), ["'cat/\\ud800.jpg' is not UTF-8"]),
        ({part: [[p, n + 1, c] for p, n, c in items] for part, items in CAT_AND_DOG.items()},
         ["labels are not 0..1 but reach from 1 to 2; number the classes from 0"]),
        ({part: [[p.replace("/", "\\"), n, c] for p, n, c in items] for part, items in CAT_AND_DOG.items()},
         ["5 images are missing", "write the paths of the split file with / instead of \\"]),
        (CAT_AND_DOG | {"valid": []}, ["split.json: 'valid' is no part; did you mean 'val'?"]),
        (CAT_AND_DOG | {"test": []}, ["pets: has no test image"]),
        ({"train": [], "test": []}, ["split.json: lists no image"]),
        ("{", ["damaged, or no JSON", "fix it"]),
        ("<html>\n<body>not found</body>\n</html>", ["damaged, or no JSON"]),
        ('{"train": [], "train": [], "test": []}', ["damaged, or no JSON (a key is there twice)"]),
        pytest.param("[" * 100_000, ["damaged, or no JSON"], id="deep"),
        pytest.param(f'{{"train": [["a", {"9" * 5000}, "b"]], "test": []}}', ["damaged, or no JSON"], id="long"),
    ],
)  # fmt: skip
def test_split_files_that_will_not_do(pets: Entry, split: object, words: list[str]) -> None:
    write(pets.folder, split)
    refused(pets, *words)
    digest(pets)  # the workflow looks at it on every call


@pytest.mark.parametrize(
    ("split", "own", "published"),
    [
        ("{", "fix it", "delete it and fetch it again"),
        (changed("test", 0, 7), "fix the file", "get the published file"),
        (changed("test", 0, ["cat/2.jpg", 1, "cat"]), "fix the file", "get the published file"),
        (changed("test", 0, ["/x.jpg", 0, "cat"]), "fix the file", "get the published file"),
        (changed("test", 0, ["cat/2.jpg", 3, "cow"]), "number the classes from 0", "get the published file"),
    ],
)
def test_a_split_file_of_ones_own_is_fixed_and_a_published_one_fetched(
    pets: Entry, split: object, own: str, published: str
) -> None:
    write(pets.folder, split)
    refused(pets, own)
    refused(with_changes(pets, files=FETCHED), published)


def test_a_folder_in_the_place_of_a_split_file(pets: Entry) -> None:
    (pets.folder / "split.json").unlink()
    (pets.folder / "split.json").mkdir()
    refused(pets, "split.json: damaged, or no JSON", "Is a directory")


def test_class_names_of_a_split_that_are_not_those_of_the_catalog(pets: Entry) -> None:
    refused(with_changes(pets, class_names=["big_dog", "cat"]), "split.json: its class names are not those of pets")
    assert find_images(with_changes(pets, class_names=None)).class_names == ["cat", "big_dog"]


def test_a_missing_split_file(pets: Entry) -> None:
    (pets.folder / "split.json").unlink()
    refused(pets, "split.json: not found; put it there")
    refused(with_changes(pets, files=FETCHED), "split.json: not found; get it with `cpt data fetch pets`")
    other = with_changes(pets, derive={"rule": "folders"})
    refused(other, "or set derived_split: true to make one that is not comparable")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8"])
def test_a_byte_order_mark_does_not_matter(pets: Entry, encoding: str) -> None:
    write(pets.folder, json.dumps(CAT_AND_DOG, indent=1).replace("\n", "\r\n"), encoding)
    assert len(find_images(pets).images) == 5


def test_a_split_without_validation_images(pets: Entry) -> None:
    write(pets.folder, {part: items for part, items in CAT_AND_DOG.items() if part != "val"})
    assert {part for part, _, _ in find_images(pets).images} == {"train", "test"}


GOOD = {
    "classes": 2, "names_sha256": sha256_text("cat\nbig_dog"), "images": {"train": 2, "val": 1, "test": 2},
    "base": {"train": 1, "test": 1}, "new": {"train": 1, "val": 1, "test": 1},
    "boundary": ["cat", "cat", "big_dog", "big_dog"],
}  # fmt: skip


def test_a_complete_copy_is_what_is_expected(pets: Entry) -> None:
    assert len(find_images(with_changes(pets, expected=GOOD)).images) == 5


@pytest.mark.parametrize(
    ("differing", "words"),
    [
        ({"images": {"train": 3}}, ["pets: 2 train images instead of 3", "no complete copy of the published release"]),
        ({"images": {"val": 0}}, ["1 val images instead of 0"]),
        ({"base": {"val": 1}}, ["0 val images of base classes instead of 1"]),
        ({"new": {"test": 2}}, ["1 test images of new classes instead of 2"]),
        ({"classes": 3}, ["its 2 class names are not the published 3"]),
        ({"names_sha256": sha256_text("cat\ndog")}, ["class names are not the published"]),
        ({"boundary": ["cat", "dog", "cow", "big_dog"]}, ["meet at ('cat', 'big_dog'), not at ('dog', 'cow')"]),
    ],
)
def test_a_copy_that_is_not_what_is_expected(pets: Entry, differing: dict[str, Any], words: list[str]) -> None:
    refused(with_changes(pets, expected=GOOD | differing), *words)


def test_a_truncated_copy_of_a_real_dataset(bench: Bench) -> None:
    """The expected counts of the shipped catalog refuse the miniatures."""
    shipped = load_catalog(CLASSES.parent / "datasets.yaml")
    for name in ("dtd", "imagenetv2", "fgvc_aircraft"):
        entry = bench.catalog[name].model_copy(update={"expected": shipped[name].expected})
        refused(entry, f"{name}: ", f"instead of {shipped[name].expected.images.get('train', 10000)}")


@pytest.fixture
def planes(tmp_path: Path) -> Entry:
    root = tmp_path / "planes"
    paint(*(root / "images" / f"{i:07d}.jpg" for i in range(5)))
    (root / "variants.txt").write_text("\ufeffF/A-18\r\n707-320\r\n\r\n", encoding="utf-8")
    lists = {"train": "0000000 F/A-18\n0000001 707-320", "val": "0000002 F/A-18\n", "test": "0000004 F/A-18"}
    for part, text in lists.items():
        (root / f"images_variant_{part}.txt").write_text(text)
    return Entry(name="planes", title="P", layout="aircraft", root=str(root), images="images")


def test_aircraft_lists(planes: Entry) -> None:
    listing = find_images(planes)
    assert listing.class_names == ["F/A-18", "707-320"]
    assert listing.images == [
        ("train", 0, "0000000.jpg"),
        ("train", 1, "0000001.jpg"),
        ("val", 0, "0000002.jpg"),
        ("test", 0, "0000004.jpg"),
    ]
    (planes.folder / "images_variant_test.txt").write_text("0000003 Boeing 1")
    refused(planes, "images_variant_test.txt: 'Boeing 1' is not in variants.txt")
    (planes.folder / "images_variant_test.txt").unlink()
    refused(planes, "images_variant_test.txt: not found; put it there")
    refused(with_changes(planes, files=FETCHED), "images_variant_test.txt: not found; get it with `cpt data fetch pl")
    (planes.folder / "variants.txt").write_bytes(b"\xff\xfe\x00")
    refused(planes, "variants.txt: cannot be read")


def files(provides: str, source: str) -> str:
    return f"layout: folders, root: r, files: [{{provides: {provides}, sources: [{source}]}}]"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("layout: wnid_folders, root: r, class_names: n.txt", "n.txt: line 2: write `<folder> <name>`"),
        ("layout: folders, root: r, class_names: absent.txt", "a.class_names: .*absent.txt: cannot .*; fix the path"),
        ("layout: folders, root: r, class_names: latin.txt", "a.class_names: .*latin.txt: cannot be read"),
        ("layout: folders, root: r, derive: {rule: folder}", "a.derive.rule: 'folder': is no rule; .*'folders'"),
        ("layout: folders, root: r, derive: {rule: pets, drp: [x]}", "a.derive.drp: unknown key; .*'drop'"),
        ("layout: aircraft, root: r, derived_split: true", "a: derived_split needs derive"),
        ("layout: csv, root: r", "a: layout csv needs split"),
        ("layout: lists, root: r, lists: {train: a.txt}", "a: layout lists needs lists"),
        ("layout: lists, root: r, lists: {valid: a.txt}", "a.lists.valid: 'valid': must be train, val or test"),
        ("layout: split_json, split: s.json", "a: layout split_json needs root"),
        ("layout: aircraft", "a: layout aircraft needs root"),
        ("layout: split_json, root: r", "a: layout split_json needs split"),
        ("layout: split_json, root: r, split: ../s.json", "a.split: '../s.json': must be a path inside"),
        ("layout: split_json, root: r, split: s.json, images: /x", "a.images: '/x': must be a path inside"),
        ("layout: folders, root: r, fingerprint: names", "a.fingerprint: 'names': "),
        (files("{../x: []}", "{url: 'http://x/y'}"), "must be a path inside the dataset's root"),
        (files("{x: []}", "{url: 'ftp://x/y'}"), "a.files.0.sources.0.url: 'ftp://x/y': "),
        (files("{x: []}", ""), "a.files.0.sources: "),
        (files("{x: []}", "{url: 'http://x', sha256: abc}"), "a.files.0.sources.0.sha256: 'abc': "),
        (files("{x: []}", "{url: 'http://x', size: 3}"), "a.files.0.sources.0.size: unknown key; known: bytes, md5"),
    ],
)
def test_entries_that_will_not_do(tmp_path: Path, fields: str, message: str) -> None:
    (tmp_path / "n.txt").write_text("n01 tench\nn02\n")
    (tmp_path / "latin.txt").write_bytes("Käse".encode("latin-1"))
    (tmp_path / "datasets.yaml").write_text(f"a: {{title: A, {fields}}}")
    with pytest.raises(CptError, match=message) as caught:
        load_catalog(tmp_path / "datasets.yaml")
    assert "\n" not in str(caught.value)


def test_class_names_in_files_beside_the_catalog(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("n02 kite (bird of prey)\r\nn01 baluster / handrail\r\n", encoding="utf-8-sig")
    (tmp_path / "datasets.yaml").write_text(
        """
        folder: {title: A, layout: wnid_folders, root: r, class_names: names.txt}
        list: {title: B, layout: folders, root: r, class_names: names.txt}
        shift: {title: C, layout: wnid_folders, root: r, shift_of: folder}
        """
    )
    catalog = load_catalog(tmp_path / "datasets.yaml")
    names = {"n02": "kite (bird of prey)", "n01": "baluster / handrail"}
    assert catalog["folder"].class_names == catalog["shift"].class_names == names
    assert catalog["list"].class_names == ["n02 kite (bird of prey)", "n01 baluster / handrail"]


# A dataset of one's own: layout folders with a split


def own(pets: Entry, **fields: Any) -> Entry:
    return Entry(name="own", title="Own", layout="folders", root=pets.root, **fields)


def test_own_dataset_with_a_split_file(pets: Entry, tmp_path: Path) -> None:
    lists = {
        part: [[f"images/{path}", label, name] for path, label, name in items] for part, items in CAT_AND_DOG.items()
    }
    write(pets.folder, lists)
    entry = own(pets, split="split.json")
    manifest = read_manifest(make_manifest(entry, tmp_path / "out"))
    assert manifest.class_names == ["cat", "big dog"]
    assert manifest.part.tolist() == ["train"] * 2 + ["val"] + ["test"] * 2
    assert manifest.path.tolist() == [path for items in lists.values() for path, _, _ in items]
    assert manifest.metadata["derived"] is False
    ImageStore(tmp_path / "out/manifest.parquet", 8).load(range(5), 1)
    (pets.folder / "images/cat/2.jpg").unlink()
    refused(entry, "own: ", "images/cat/2.jpg (missing)")


def test_own_dataset_with_a_derived_split(tmp_path: Path) -> None:
    root = tmp_path / "own"
    for folder, count in (("dog", 10), ("Cat", 7)):
        paint(*(root / folder / f"{i}.jpg" for i in range(count)))
    paint(root / "scrap/0.jpg")
    entry = Entry(
        name="own", title="Own", layout="folders", root=str(root), derived_split=True,
        derive={"rule": "folders", "drop": ["scrap"], "rename": {"dog": "big_dog"}},
    )  # fmt: skip
    manifest = read_manifest(make_manifest(entry, tmp_path / "out"))
    assert manifest.class_names == ["Cat", "big dog"]
    assert Counter(zip(manifest.part.tolist(), manifest.label.tolist(), strict=True)) == {
        ("train", 0): 4, ("val", 0): 1, ("test", 0): 2, ("train", 1): 5, ("val", 1): 2, ("test", 1): 3,
    }  # fmt: skip
    assert manifest.metadata["derived"] is True
    assert len(set(manifest.path)) == 17
