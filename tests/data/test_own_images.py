"""Folders of images of one's own: what is listed, told and refused, and which changes are noticed."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image, features
from typer.testing import CliRunner

from cpt.cli.app import app
from cpt.clip.make_backbone import load_tokenizer
from cpt.data.catalog import load_catalog
from cpt.data.check import check_dataset
from cpt.data.decoding import FORMATS
from cpt.data.entry import Entry
from cpt.data.make_manifest import digest, find_images, make_manifest
from cpt.data.manifest import read_manifest
from cpt.errors import CptError
from cpt.files.stage_files import sha256_text
from tests.helpers.workflow import copy_project, leave_out, planned, snakemake

PARTS = ("train", "test")


def paint(path: Path, kind: str = "PNG") -> None:
    """Write an image that no other path has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code = zlib.crc32(os.fsencode(path))
    Image.new("RGB", (24, 24), (code & 255, code >> 8 & 255, code >> 16 & 255)).save(path, kind)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two training images and one test image of each of three classes."""
    for folder in ("ant", "bee", "cat"):
        for path in (f"train/{folder}/0.png", f"train/{folder}/1.png", f"test/{folder}/0.png"):
            paint(tmp_path / "zoo" / path)
    return tmp_path / "zoo"


def zoo(root: Path, **fields: Any) -> Entry:
    return Entry(**({"name": "zoo", "title": "Zoo", "layout": "folders", "root": str(root)} | fields))


def write_split(root: Path, split: dict[str, list]) -> None:
    (root / "split.json").write_text(json.dumps(split))


def told(entry: Entry, **options: Any) -> tuple[str, ...]:
    state = check_dataset(entry, workers=1, **options)
    assert (state.state, state.advice) == ("complete", "")
    assert not any("\n" in line for line in state.notices)
    return state.notices


def refusal(entry: Entry) -> str:
    """What the check and the manifest say of a dataset that is refused."""
    with pytest.raises(CptError) as caught:
        find_images(entry)
    state = check_dataset(entry, workers=1)
    assert state.state == "damaged"
    assert f"{entry.name}: {state.advice}".endswith(str(caught.value).removeprefix(f"{entry.name}: "))
    assert "\n" not in state.advice
    return state.advice


def behind_links(root: Path) -> None:
    """Move a part and a class folder elsewhere and link to them."""
    away = root.parent / "away"
    away.mkdir()
    for i, path in enumerate((root / "train", root / "test/cat")):
        path.rename(away / str(i))
        path.symlink_to(away / str(i))


# Links


def test_images_behind_links_are_those_of_plain_folders(root: Path) -> None:
    plain = find_images(zoo(root))
    behind_links(root)
    linked = find_images(zoo(root))
    assert (linked.images, linked.class_names) == (plain.images, plain.class_names)


CHANGES: dict[str, Callable[[Path], Any]] = {
    "an image is added": lambda root: paint(root / "train/ant/2.png"),
    "an image is deleted": lambda root: (root / "train/ant/1.png").unlink(),
    "an image is changed": lambda root: paint(root / "test/cat/0.png", "BMP"),
    "a class is renamed": lambda root: [
        (root / part / "bee").rename(root / part / "bug") for part in ("train", "test")
    ],
    "two classes are swapped": lambda root: [
        (root / "train" / one).rename(root / "train" / other)
        for one, other in (("ant", "x"), ("bee", "ant"), ("x", "bee"))
    ],
}


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_images_is_noticed(root: Path, change: str, linked: bool) -> None:
    if linked:
        behind_links(root)
    before = digest(zoo(root))
    assert digest(zoo(root)) == before
    CHANGES[change](root)
    assert digest(zoo(root)) != before


def test_changes_below_a_linked_folder_of_a_split_file_are_noticed(root: Path) -> None:
    write_split(root, {part: [[f"{part}/{c}/0.png", i, c] for i, c in enumerate(("ant", "bee"))] for part in PARTS})
    behind_links(root)
    entry = zoo(root, split="split.json")
    before = digest(entry)
    paint(root / "train/ant/1.png", "GIF")
    assert digest(entry) == before, "the split does not name it"
    paint(root / "train/ant/0.png", "GIF")
    between = digest(entry)
    assert between != before
    write_split(root, {part: [[f"{part}/{c}/0.png", i, c] for i, c in enumerate(("bee", "ant"))] for part in PARTS})
    assert digest(entry) != between


@pytest.mark.parametrize("place", ["train/dog", "val", "test/dog"])
def test_a_link_to_a_disk_that_is_not_mounted_is_refused(root: Path, place: str) -> None:
    disk = root.parent / "disk"
    (root / place).symlink_to(disk)
    before = digest(zoo(root))
    message = refusal(zoo(root))
    for words in (f"'{root / place}' is a link to '{disk}'", "mounted?", "or delete the link"):
        assert words in message
    paint(disk / ("dog/0.png" if place == "val" else "0.png"))
    assert digest(zoo(root)) != before
    assert len(find_images(zoo(root)).images) == 10


def test_a_link_in_a_circle_is_refused_and_one_deeper_ends(root: Path) -> None:
    (root / "train/ant/again").symlink_to(root / "train")
    assert len(find_images(zoo(root)).images) == 9
    assert told(zoo(root))
    (root / "train/dog").symlink_to(root / "train/dog")
    assert "is a link to" in refusal(zoo(root))


def test_a_linked_image_to_nowhere_is_a_missing_image(root: Path) -> None:
    (root / "train/ant/2.png").symlink_to("nowhere.png")
    assert f"{root}/train/ant/2.png (missing)" in refusal(zoo(root))


# What computers put beside images

JUNK = [
    ".DS_Store", "train/.DS_Store", "train/Thumbs.db", "train/ant/desktop.ini", "train/ant/Thumbs.db",
    "train/ant/.ipynb_checkpoints/0-checkpoint.png", "test/ant/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg",
    "train/@eaDir/ant/x.jpg", "__MACOSX/train/ant/._0.png", "test/__MACOSX/._x.png", "train/ant/._0.png",
]  # fmt: skip


@pytest.mark.parametrize("path", JUNK)
def test_junk_changes_nothing_and_is_not_told(root: Path, path: str) -> None:
    before, images = digest(zoo(root)), find_images(zoo(root)).images
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(b"junk")
    assert digest(zoo(root)) == before
    assert find_images(zoo(root)).images == images
    assert told(zoo(root)) == ()


def test_a_folder_that_is_called_like_an_image(root: Path) -> None:
    (root / "train/ant/2.png").mkdir()
    assert len(find_images(zoo(root)).images) == 9
    write_split(root, {"train": [["train/ant/2.png", 0, "ant"]], "test": [["test/ant/0.png", 0, "ant"]]})
    assert f"{root}/train/ant/2.png (a folder)" in refusal(zoo(root, split="split.json"))


def test_other_files_of_an_own_dataset_start_nothing(root: Path) -> None:
    before = digest(zoo(root))
    for path in ("README.md", "train/list.csv", "train/ant/notes.txt", "raw/ant/0.png", "train/0.png"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"text")
    assert digest(zoo(root)) == before


# Names that make a file an image


def test_suffixes_are_those_that_pillow_gives_the_formats(root: Path) -> None:
    """All but PFM's, whose samples are no bytes."""
    Image.init()
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS} - {".pfm"}
    others = set(Image.registered_extensions()) - known
    for suffix in (*known, *others, ".heic", ""):
        (root / f"train/ant/x{suffix}").write_bytes(b"1")
    names = {Path(path).name for part, label, path in find_images(zoo(root)).images if (part, label) == ("train", 0)}
    assert names - {"0.png", "1.png"} == {f"x{suffix}" for suffix in known}


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".jfif", "JPEG"), (".JPE", "JPEG"), (".avif", "AVIF"), (".jp2", "JPEG2000"), (".Tif", "TIFF")]
)
def test_images_by_their_suffix_are_listed_and_decode(root: Path, suffix: str, kind: str) -> None:
    if not {"AVIF": features.check("avif"), "JPEG2000": features.check("jpg_2000")}.get(kind, True):
        leave_out(f"this Pillow writes no {kind}")
    paint(root / f"train/ant/2{suffix}", kind)
    assert check_dataset(zoo(root), decode=True).found["train"] == 7
    assert check_dataset(zoo(root), decode=True).state == "complete"


def test_what_is_left_out_is_told(root: Path) -> None:
    assert told(zoo(root)) == ()
    for name in ("a.heic", "b.heic", "c", "d.TXT"):
        (root / "train/ant" / name).write_bytes(b"x")
    paint(root / "train/loose.png")
    paint(root / "train/bee/deeper/still/0.jpg", "JPEG")
    assert told(zoo(root)) == (
        "files left out, no images by their names: no suffix 1, .heic 2, .txt 1",
        f"images left out, beside class folders or deeper: 2, the first is {root}/train/bee/deeper/still/0.jpg",
    )
    write_split(root, {part: [[f"{part}/ant/0.png", 0, "ant"], [f"{part}/bee/0.png", 1, "bee"]] for part in PARTS})
    assert told(zoo(root, split="split.json")) == (), "a split file decides what is used"


def test_what_a_derived_split_leaves_out_is_told(root: Path) -> None:
    paint(root / "train/ant/deeper/0.png")
    for i in range(4):
        paint(root / f"train/ant/more{i}.png")
    entry = zoo(root, images="train", derived_split=True, derive={"rule": "folders"})
    state = check_dataset(entry)
    assert state.state == "derived split"
    assert any(f"the first is {root}/train/ant/deeper/0.png" in line for line in state.notices)


# Class names

READ_THE_SAME = [
    ("sea_lion", "sea lion"),
    ("Cat", "cat"),
    (unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")),
    ("sea lion", "sea  Lion"),
]


@pytest.mark.parametrize("names", READ_THE_SAME)
def test_classes_of_one_prompt_are_told(root: Path, names: tuple[str, str], results: Path) -> None:
    """The tokenizer of the backbone is the judge of what is one prompt."""
    tokens = load_tokenizer(results / "backbone.json")([name.replace("_", " ") for name in names])
    assert tokens[0].equal(tokens[1])
    for name in names:
        for part in PARTS:
            paint(root / part / name / "0.png")
    (line,) = told(zoo(root))
    assert line.startswith("classes that CLIP cannot tell apart by name: ")
    assert all(repr(name) in line for name in names)


@pytest.mark.parametrize("names", READ_THE_SAME)
def test_parts_that_spell_a_class_differently_are_refused(root: Path, names: tuple[str, str]) -> None:
    shutil.rmtree(root / "train/cat")
    shutil.rmtree(root / "test/cat")
    paint(root / "train" / names[0] / "0.png")
    paint(root / "test" / names[1] / "0.png")
    message = refusal(zoo(root))
    assert all(repr(name) in message for name in names)
    assert "spell it alike in every part" in message


def test_two_published_classes_of_one_name_are_meant(root: Path) -> None:
    names = {"ant": "missile", "bee": "missile", "cat": "cat"}
    expected = {"classes": 3, "names_sha256": sha256_text("missile\nmissile\ncat")}
    assert len(told(zoo(root, class_names=names))) == 1
    assert told(zoo(root, class_names=names, expected=expected)) == ()


def test_a_class_without_a_name_is_refused(root: Path) -> None:
    for part in PARTS:
        (root / part / "bee").rename(root / part / "_")
    assert "a class is called '_', which is no word" in refusal(zoo(root))
    assert "a class is called ''" in refusal(zoo(root, class_names=["a", "", "c"]))
    write_split(root, {part: [[f"{part}/ant/0.png", 0, " "]] for part in PARTS})
    assert "a class is called ' '" in refusal(zoo(root, split="split.json"))


def test_blank_lines_and_trailing_blanks_of_a_file_of_names(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ant \n\nbee\t\r\n  \ncat\n\n")
    (tmp_path / "folders.txt").write_text("n1  sea lion \n\nn2 bee\n \n")
    (tmp_path / "datasets.yaml").write_text(
        "a: {title: A, layout: folders, root: r, class_names: names.txt}\n"
        "b: {title: B, layout: wnid_folders, root: r, class_names: folders.txt}\n"
    )
    catalog = load_catalog(tmp_path / "datasets.yaml")
    assert catalog["a"].class_names == ["ant", "bee", "cat"]
    assert catalog["b"].class_names == {"n1": "sea lion", "n2": "bee"}


# Classes and parts that lack images


def test_classes_that_a_part_lacks_are_told(root: Path) -> None:
    paint(root / "test/dog/0.png")
    paint(root / "train/eel/0.png")
    assert told(zoo(root)) == ("classes without a training image: 'dog'", "classes without a test image: 'eel'")
    for name in "vwxyz":
        paint(root / "test" / name / "0.png")
    assert told(zoo(root))[0] == "classes without a training image: 'dog', 'v', 'w' and 3 more"


def test_a_dataset_of_one_class_is_told(root: Path) -> None:
    for part in PARTS:
        shutil.rmtree(root / part / "bee")
        shutil.rmtree(root / part / "cat")
    assert told(zoo(root)) == ("has one class: base-to-new needs two",)


def test_a_half_that_cannot_be_tested_is_told(root: Path) -> None:
    (root / "test/cat/0.png").unlink()
    assert told(zoo(root)) == (
        "classes without a test image: 'cat'",
        "a half of the classes has no test image: base-to-new needs some in each",
    )


def test_a_dataset_without_training_images_is_a_target_only(root: Path) -> None:
    for path in (root / "train").rglob("*.png"):
        path.unlink()
    assert told(zoo(root)) == ("has no training image: it can be tested on and not trained on",)
    assert told(zoo(root, shift_of="other")) == ()


def test_class_folders_without_parts_are_told_how_to_be_cut(root: Path) -> None:
    for i in range(2, 6):
        paint(root / f"train/ant/{i}.png")
    message = refusal(zoo(root / "train"))
    assert f"{root}/train has no folder train/; lay images out as {root}/train/train/<class>/<image>" in message
    assert "`derived_split: true`" in message
    followed = zoo(root / "train", derived_split=True)
    assert check_dataset(followed).state == "derived split"
    assert "derived_split" not in refusal(zoo(root / "train/ant"))


def test_a_dataset_without_test_images_is_refused(root: Path) -> None:
    for path in (root / "test").rglob("*.png"):
        path.unlink()
    assert "has no test image, and every run is tested" in refusal(zoo(root))


# The same image in two parts


@pytest.mark.parametrize("spelling", ["train/ant/0.png", "./train/ant/0.png", "train//ant/0.png", "train/./ant/0.png"])
def test_another_spelling_of_a_path_is_the_same_image(root: Path, spelling: str) -> None:
    lists = {part: [[f"{part}/ant/0.png", 0, "ant"], [f"{part}/bee/0.png", 1, "bee"]] for part in PARTS}
    lists["test"].append([spelling, 0, "ant"])
    write_split(root, lists)
    assert f"image {spelling!r} is listed twice" in refusal(zoo(root, split="split.json"))
    lists["test"].pop()
    lists["test"][0][0] = "./test/ant/0.png"
    write_split(root, lists)
    assert len(find_images(zoo(root, split="split.json")).images) == 4, "once is no fault"


def test_test_images_that_are_copies_of_training_images_are_told(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "train/ant/1.png", root / "test/bee/7.png")
    os.link(root / "train/cat/0.png", root / "test/cat/7.png")
    shutil.copy(root / "train/bee/0.png", root / "train/bee/same.png")
    line = "test images that are copies of training images: 2, the first is 'test/bee/7.png' of 'train/ant/1.png'"
    assert told(zoo(root)) == (), "without --decode images are not read"
    assert told(zoo(root), decode=True) == (line,)
    assert told(zoo(root, fingerprint="sizes"), decode=True) == ()
    entry = {"title": "Zoo", "layout": "folders", "root": str(root)}
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump({"zoo": entry}))
    words = ["zoo", "--catalog", str(tmp_path / "datasets.yaml")]
    done = CliRunner().invoke(app, ["data", "check", "--decode", *words])
    assert done.exit_code == 0
    assert f"zoo: {line}" in done.output.splitlines()
    done = CliRunner().invoke(app, ["data", "manifest", *words, "--output", str(tmp_path / "out")])
    assert done.output.splitlines() == [f"zoo: {line}", "zoo: 3 classes, 7 train, 5 test images"]


# Names that are no UTF-8


@pytest.mark.parametrize("name", [b"train/ant/caf\xe9.png", b"train/caf\xe9/0.png"])
def test_names_of_another_encoding_are_one_line(root: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.path.join(os.fsencode(root), name)))
    paint(path)
    paint(root / "test" / path.parent.name / "0.png")
    message = refusal(zoo(root))
    assert "caf\\udce9" in message
    assert "is not UTF-8" in message
    assert f"`convmv -f latin1 -t utf8 -r --notest {root}`" in message
    with pytest.raises(CptError, match="is not UTF-8"):
        make_manifest(zoo(root), root.parent / "out")


def test_odd_names_that_are_text_are_taken(root: Path, tmp_path: Path) -> None:
    names = ["a\nb.png", "x" * 250 + ".png", "a, b;'\" ${x}|.png", "🐜.png", "ä .png"]
    for name in names:
        paint(root / "train/ant" / name)
    manifest = read_manifest(make_manifest(zoo(root), tmp_path / "out"))
    assert {f"train/ant/{name}" for name in names} < set(manifest.path)


# In the workflow


@pytest.mark.slow
def test_what_starts_the_data_job_anew(root: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Junk does not; a further image behind a link, and a class folder whose disk is mounted later, do."""
    behind_links(root)
    folder = tmp_path / "clone"
    copy_project(folder, request.config.rootpath)
    entry = {"title": "Zoo", "layout": "folders", "root": str(root)}
    (folder / "zoo.yaml").write_text(yaml.safe_dump({"zoo": entry}))
    own = {
        "extends": "config/config.yaml", "experiment": "zoo", "catalog": "zoo.yaml", "seeds": [1],
        "tasks": {"base_to_new": {"datasets": ["zoo"]}, "cross_dataset": None, "domain_generalization": None,
                  "few_shot": None},
        "exhibits": {**{f"table{i}": None for i in (1, 3, 4, 5, 6, 7)}, **{f"figure{i}": None for i in range(1, 9)}},
    }  # fmt: skip
    (folder / "own.yaml").write_text(yaml.safe_dump(own))
    words = ["results/zoo/data/zoo/manifest.parquet", "--configfile", "own.yaml"]
    snakemake(folder, *words)
    for path in (".DS_Store", "train/Thumbs.db", "train/ant/desktop.ini"):
        (root / path).write_bytes(b"junk")
    assert planned(folder, *words) == {}
    paint(root / "train/ant/2.png")
    assert planned(folder, *words) == {"data": 1}
    snakemake(folder, *words)
    (root / "train/dog").symlink_to(tmp_path / "disk")
    done = snakemake(folder, *words, check=False)
    assert done.returncode
    assert "is a link to" in done.stderr
    assert "Traceback" not in done.stderr
    paint(tmp_path / "disk/0.png")
    assert planned(folder, *words) == {"data": 1}
