"""A dataset of one's own as a CSV file: what is taken, what is refused, and with which words."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cpt.data.check import check_dataset
from cpt.data.entry import Entry
from cpt.data.make_manifest import digest, find_images, make_manifest
from cpt.data.manifest import read_manifest
from cpt.errors import CptError

ROWS = [
    "a/0.png,cat,train", "a/1.png,cat,test", "b/0.png,dog,train", "b/1.png,dog,test", "b/2.png,dog,val",
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "zoo"
    for number, path in enumerate(("a/0", "a/1", "b/0", "b/1", "b/2")):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), (number, 40 * number, 7)).save(folder / f"{path}.png")
    return folder


def write(root: Path, rows: list[str], header: str = "path,label,split", end: str = "\n", **how: Any) -> Entry:
    text = end.join([header, *rows, ""])
    (root / "labels.csv").write_bytes(text.encode(how.pop("encoding", "utf-8")))
    return zoo(root, **how)


def zoo(root: Path, **fields: Any) -> Entry:
    known = {"name": "zoo", "title": "Zoo", "layout": "csv", "root": str(root), "split": "labels.csv"}
    return Entry(**(known | fields))


def refusal(entry: Entry) -> str:
    with pytest.raises(CptError) as caught:
        find_images(entry)
    message = str(caught.value)
    assert "\n" not in message
    state = check_dataset(entry, workers=1)
    assert (state.state, state.advice) == ("damaged", message.removeprefix("zoo: "))
    return message


def test_labels_are_the_class_names(root: Path, tmp_path: Path) -> None:
    manifest = read_manifest(make_manifest(write(root, ROWS), tmp_path))
    assert manifest.class_names == ["cat", "dog"]
    assert manifest.path.tolist() == ["a/0.png", "b/0.png", "b/2.png", "a/1.png", "b/1.png"]
    assert manifest.part.tolist() == ["train", "train", "val", "test", "test"]
    assert manifest.label.tolist() == [0, 1, 1, 0, 1]
    assert check_dataset(zoo(root), decode=True).state == "complete"


@pytest.mark.parametrize(
    "changed",
    [
        {"encoding": "utf-8-sig"},
        {"end": "\r\n"},
        {"end": "\r"},
        {"header": " Path , LABEL , split "},
        {"header": "path;label;split", "rows": [row.replace(",", ";") for row in ROWS]},
        {"header": "path\tlabel\tsplit", "rows": [row.replace(",", " \t ") for row in ROWS]},
        {"header": '"path","label","split"', "rows": [row.replace("cat", '"cat"') for row in ROWS]},
        {"header": "who,path,label,split", "rows": [f"me,{row}" for row in ROWS]},
        {"rows": [*ROWS[:2], "", ",,", *ROWS[2:]]},
        {"rows": [row.replace(",val", ",validation") for row in ROWS]},
        {"rows": [row.replace("train", "Train") for row in ROWS]},
    ],
)
def test_ways_to_write_the_same_table(root: Path, changed: dict[str, Any]) -> None:
    wanted = find_images(write(root, ROWS)).images
    assert find_images(write(root, **({"rows": ROWS} | changed))).images == wanted


def test_quoted_commas_accents_and_numbers(root: Path) -> None:
    forms = zip(ROWS, ("NFC", "NFD", "NFC", "NFD", "NFD"), strict=True)
    rows = [row.replace("cat", "café").replace("dog", unicodedata.normalize(form, "élan")) for row, form in forms]
    assert find_images(write(root, rows)).class_names == ["café", "élan"], "however they are composed"
    rows = [row.replace("cat", '"lynx, brown"').replace("dog", "chien-loup é") for row in ROWS]
    assert find_images(write(root, rows)).class_names == ["chien-loup é", "lynx, brown"]
    rows = [row.replace("cat", "10").replace("dog", "9") for row in ROWS]
    assert find_images(write(root, rows)).class_names == ["9", "10"], "numbers by value"
    assert find_images(zoo(root, class_names=["cat", "dog"])).class_names == ["cat", "dog"]
    assert find_images(zoo(root, class_names={"10": "cat", "9": "dog"})).images[0] == ("train", 0, "a/0.png")
    assert "zoo.class_names: 1 names for 2 labels in" in refusal(zoo(root, class_names=["cat"]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a/0.png,cat,train,x"], "labels.csv: row 2: has 4 fields instead of 3; put quotes around"),
        ([ROWS[0], "b/0.png,dog"], "row 3: has 2 fields instead of 3"),
        ([ROWS[0], "", ",dog,test"], "row 4: has no path; write one or delete the row"),
        ([ROWS[0], "b/0.png,,test"], "row 3: has no label"),
        ([ROWS[0], "b/0.png,dog,"], "row 3: split '' is none; write one of train, val, test"),
        ([ROWS[0], "b/0.png,dog,tst"], "row 3: split 'tst' is none; did you mean 'test'?"),
        ([*ROWS, "./b//0.png,dog,test"], "row 7: lists './b//0.png', as row 4 does; delete one of them"),
        ([*ROWS, "../x.png,dog,test"], "row 7: '../x.png' leads out of the table's folder; write it relative to there"),
        ([*ROWS, "/x.png,dog,test"], "row 7: '/x.png' leads out"),
        ([*ROWS, "C:/x.png,dog,test"], "row 7: 'C:/x.png' leads out"),
        ([*ROWS, "b\\x.png,dog,test"], "row 7: 'b\\\\x.png' has a \\; write paths with /"),
        ([*ROWS, "a/2.png,Cat,test"], "row 7: label 'Cat' reads the same as 'cat' of row 2; spell them alike"),
        ([*ROWS, "a/2.png,big  cat,test", "a/3.png,big_cat,test"], "row 8: label 'big_cat' reads the same as 'big "),
        ([ROWS[0], 'b/0.png,"dog,train'], "row 3: unexpected end of data; fix the quotes of the row"),
        ([], "labels.csv: lists no image; write a row `path,label,split` for each"),
        (ROWS[:1], "has no test image"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_meant(root: Path, rows: list[str], message: str) -> None:
    assert message in refusal(write(root, rows))


@pytest.mark.parametrize("header", ["", "image,label", "path,class,split", "a/0.png,cat,train"])
def test_headers_that_will_not_do(root: Path, header: str) -> None:
    assert "labels.csv: row 1 is no header with path and label; write" in refusal(write(root, ROWS, header))


def test_a_column_twice(root: Path) -> None:
    assert "row 1 has the column label twice" in refusal(write(root, ["a,b,c"], "path,label,label"))


def test_encodings(root: Path) -> None:
    assert "is UTF-16; save it as CSV UTF-8" in refusal(write(root, ROWS, encoding="utf-16"))
    rows = [ROWS[0], "b/0.png,Käse,train"]
    assert "row 3: is not UTF-8; save the table as CSV UTF-8" in refusal(write(root, rows, encoding="latin-1"))


def test_all_missing_images_are_told(root: Path) -> None:
    entry = write(root, [*ROWS, "b/7.png,dog,train", "b/8.png,dog,train"])
    assert refusal(entry) == (
        f"zoo: 2 images are missing or empty, the first is {root}/b/7.png (missing) of {root}/labels.csv: row 7; put "
        "it there, or delete the row"
    )
    assert check_dataset(entry).notices == (f"{root}/b/8.png (missing)",)


def test_all_images_that_cannot_be_decoded_are_told(root: Path) -> None:
    entry = write(root, ROWS)
    for path in ("a/1.png", "b/2.png"):
        (root / path).write_bytes(b"nothing")
    state = check_dataset(entry, decode=True, workers=1)
    assert state.state == "damaged"
    assert state.advice.startswith(f"2 images cannot be decoded, the first is {root}/a/1.png: image cannot be decoded")
    assert [line.split(":")[0] for line in state.notices] == [f"{root}/b/2.png"]


def test_classes_that_lack_images_are_told(root: Path) -> None:
    entry = write(root, [*ROWS[:2], "b/1.png,dog,test"])
    assert "classes without a training image: 'dog'" in check_dataset(entry).notices
    entry = write(root, ROWS[:2])
    assert "has one class: base-to-new needs two" in check_dataset(entry).notices


def test_without_splits(root: Path) -> None:
    rows = [row.rpartition(",")[0] for row in ROWS]
    entry = write(root, rows, "path,label")
    assert refusal(entry) == (
        f"{root}/labels.csv: has no column split; add it (train, val or test in every row), or let cpt cut the images "
        "of each class: add `derived_split: true` to zoo"
    )
    listing = find_images(zoo(root, derived_split=True))
    assert listing.derived
    assert sorted(path for _, _, path in listing.images) == [row.split(",")[0] for row in rows]
    assert check_dataset(zoo(root, derived_split=True)).state == "derived split"
    assert "which makes another; delete one of them" in refusal(write(root, ROWS, derived_split=True))


def test_the_root_is_the_folder(root: Path) -> None:
    write(root, ROWS)
    state = check_dataset(zoo(root / "labels.csv"))
    assert state.advice == f"{root}/labels.csv is a file: root is the folder that holds it, split its name"
    assert "labels.csv: not found; put the table there, or correct root or split" in refusal(zoo(root / "a"))


def test_changes_are_noticed(root: Path) -> None:
    entry = write(root, ROWS)
    before = digest(entry)
    assert digest(write(root, [f"{row} " for row in ROWS])) == before, "the same images"
    assert digest(write(root, ROWS[::-1])) != before
