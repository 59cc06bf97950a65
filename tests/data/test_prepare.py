"""Bringing datasets to their folders: mirrors, what archives hold, what is left alone, provenance, two at once."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cpt.data.download import fetch as fetching
from cpt.data.download.prepare import needed, prepare
from cpt.data.entry import Entry
from cpt.data.make_manifest import find_images
from cpt.errors import CptError
from tests.helpers.miniature import make_tar, make_zip, picture
from tests.helpers.servers import Mishap, Server, redirect

PICTURES = {f"cat/{i}.jpg": picture(i) for i in range(3)}
SPLIT = json.dumps({part: [[f"cat/{i}.jpg", 0, "cat"]] for i, part in enumerate(("train", "val", "test"))}).encode()
NOT_FOUND = Mishap(status=404)


def below(folder: str, extra: dict[str, bytes] | None = None) -> bytes:
    return make_zip({f"{folder}/{path}": content for path, content in PICTURES.items()} | (extra or {}))


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


class Pets:
    """A dataset of three images and a split file, and what was said while it was prepared."""

    def __init__(self, root: Path, server: Server) -> None:
        self.root, self.server, self.said = root, server, []
        self.archive = {"provides": {"images": ["images"]}, "sources": []}
        self.split = {"provides": {"split.json": []}, "sources": []}
        self.fields: dict[str, Any] = {"files": [self.archive, self.split], "license": "CC BY-SA 4.0"}

    def serve(self, path: str, content: bytes, *mishaps: Mishap, pinned: bool = True, **options: Any) -> None:
        """Serve a further source of the archive, or of the split file if the path says so."""
        item = self.split if path.endswith(".json") else self.archive
        pins = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} if pinned else {}
        item["sources"].append({"url": self.server.add(path, content, *mishaps, **options), **pins})

    @property
    def entry(self) -> Entry:
        return Entry(
            name="pets", title="P", layout="split_json", root=str(self.root), images="images", split="split.json",
            **self.fields,
        )  # fmt: skip

    def prepare(self) -> dict[str, Any]:
        return prepare(self.entry, self.said.append)

    def refused(self, *words: str) -> None:
        with pytest.raises(CptError) as caught:
            self.prepare()
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert word in message

    @property
    def asked(self) -> list[str]:
        return [request.target for request in self.server.requests]

    @property
    def tree(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file()
        }

    def assert_complete(self) -> None:
        assert len(find_images(self.entry).images) == 3
        for path, content in PICTURES.items():
            assert self.tree[f"images/{path}"] == content
        left = [path for path in self.tree if not path.startswith("images/")]
        assert sorted(left) == [*sorted(self.records), "split.json"], "no archive, part or unpacked folder is left"

    records = (".downloads/images.json", ".downloads/lock", ".downloads/split.json.json")


@pytest.fixture
def pets(tmp_path: Path, server: Server) -> Pets:
    return Pets(tmp_path / "pets", server)


@pytest.fixture
def served(pets: Pets) -> Pets:
    """All is well."""
    pets.serve("/images.zip", below("pets/images"))
    pets.serve("/split.json", SPLIT)
    return pets


def test_a_dataset_is_fetched_unpacked_and_placed(served: Pets) -> None:
    record = served.prepare()
    served.assert_complete()
    assert served.asked == ["/split.json", "/images.zip"], "files first, since archives may need the split"
    archive = below("pets/images")
    assert record == {
        "schema": "cpt.fetched/1", "dataset": "pets", "root": str(served.root), "license": "CC BY-SA 4.0",
        "files": {
            "images": {
                "url": f"{served.server.root}/images.zip", "sha256": hashlib.sha256(archive).hexdigest(),
                "bytes": len(archive),
            },
            "split.json": {
                "url": f"{served.server.root}/split.json", "sha256": hashlib.sha256(SPLIT).hexdigest(),
                "bytes": len(SPLIT),
            },
        },
    }  # fmt: skip


def test_size_and_terms_are_said_before_the_first_request(served: Pets) -> None:
    before: list[tuple[int, str]] = []
    prepare(served.entry, lambda line: before.append((len(served.server.requests), line)))
    asked, line = before[0]
    assert asked == 0
    size = (len(SPLIT) + len(below("pets/images"))) / 1e6
    assert line == f"pets: fetching {size:.2f} MB from {served.server.root[7:]}; terms: CC BY-SA 4.0"


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ((2_500_000_000, 500_000_000), "fetching 3.00 GB from"),
        ((2_500_000_000, None), "fetching at least 2.50 GB from"),
        ((94_280_567, 3_006_492), "fetching 97.29 MB from"),
        ((None, None), "fetching size unknown from"),
    ],
)
def test_the_announcement_says_what_is_known_of_the_size(pets: Pets, sizes: tuple[int | None, ...], text: str) -> None:
    from cpt.data.download.prepare import announcement

    for item, size in zip((pets.archive, pets.split), sizes, strict=True):
        item["sources"] = [{"url": "https://host.org/x", "bytes": size}]
    pets.fields["license"] = None
    entry = pets.entry
    line = announcement(entry, needed(entry))
    assert text in line
    assert line.endswith("from host.org; terms: not stated")


def test_again_nothing_is_asked_and_the_origin_is_remembered(served: Pets) -> None:
    first = served.prepare()
    tree, asked = served.tree, list(served.asked)
    served.said.clear()
    assert served.prepare() == first
    assert (served.asked, served.said, served.tree) == (asked, [], tree)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "9" * 5000, '{"sha256": 3}', None])
def test_a_damaged_memory_of_the_origin_is_no_reason_to_stop(served: Pets, text: str | None) -> None:
    first = served.prepare()
    path = served.root / ".downloads/images.json"
    path.unlink()
    path.mkdir() if text is None else path.write_text(text)
    again = served.prepare()
    assert again["files"]["images"] == {"url": "already there", "sha256": None, "bytes": None}
    assert again["files"]["split.json"] == first["files"]["split.json"]


def test_a_password_in_an_address_stays_in_the_catalog(pets: Pets) -> None:
    """Also where the first mirror's archive will not do."""
    pets.serve("/wrong.zip", b"no archive", pinned=False)
    pets.serve("/images.zip", below("pets/images"))
    pets.serve("/split.json", SPLIT)
    for source in pets.archive["sources"] + pets.split["sources"]:
        source["url"] = source["url"].replace("//", "//me:Xyzzy@")
    record = pets.prepare()
    assert all(request.headers["Authorization"].startswith("Basic ") for request in pets.server.requests)
    assert record["files"]["images"]["url"] == f"{pets.server.root}/images.zip"
    assert pets.prepare() == record
    assert "pets: fetching at least" in pets.said[0]
    assert f"from {pets.server.root[7:]}; terms" in pets.said[0]
    kept = b"".join(content for path, content in pets.tree.items() if not path.endswith(".jpg"))
    assert "Xyzzy" not in repr(pets.said) + repr(record) + kept.decode()
    pets.assert_complete()


def test_where_a_redirect_led_is_recorded(pets: Pets) -> None:
    pets.serve("/split.json", SPLIT)
    pets.serve("/images.zip", below("pets/images"))
    pets.archive["sources"][0]["url"] = pets.server.add("/doi", b"", always=redirect("/images.zip?token=3"))
    record = pets.prepare()
    origin = record["files"]["images"]
    assert (origin["url"], origin["redirected_to"]) == (f"{pets.server.root}/doi", f"{pets.server.root}/images.zip")
    assert "redirected_to" not in record["files"]["split.json"]
    assert pets.prepare() == record


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF, errno.ENOSYS])
def test_a_disk_without_locks_goes_without(served: Pets, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    served.prepare()
    assert served.asked == ["/split.json", "/images.zip"]
    assert len(find_images(served.entry).images) == 3


@pytest.mark.parametrize("headers", [{"Content-Length": "9" * 18}, {"Last-Modified": "x"}])
def test_a_mirror_that_lies_gives_way_to_the_next(pets: Pets, headers: dict[str, str]) -> None:
    pets.serve("/split.json", SPLIT)
    pets.serve("/lie.zip", below("pets/images")[:-9], headers=headers, pinned=False)
    pets.serve("/images.zip", below("pets/images"))
    assert pets.prepare()["files"]["images"]["url"] == f"{pets.server.root}/images.zip"
    pets.assert_complete()


def test_a_users_own_copy_is_left_alone(served: Pets) -> None:
    for path, content in PICTURES.items():
        (served.root / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        (served.root / "images" / path).write_bytes(content)
    (served.root / "split.json").write_bytes(SPLIT)
    tree = served.tree
    record = served.prepare()
    assert (served.asked, served.said, served.tree) == ([], [], tree)
    assert not (served.root / ".downloads").exists()
    there = {"url": "already there", "sha256": None, "bytes": None}
    assert record["files"] == {"images": there, "split.json": there}


def test_what_is_there_of_a_dataset_stays_and_the_rest_is_fetched(served: Pets) -> None:
    mine = served.root / "images/cat/mine.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(picture(9))
    record = served.prepare()
    assert served.asked == ["/split.json"]
    assert [path for path in served.tree if path.startswith("images/")] == ["images/cat/mine.jpg"]
    assert record["files"]["images"]["url"] == "already there"
    assert record["files"]["split.json"]["url"].endswith("/split.json")


def test_an_empty_folder_is_not_there(served: Pets) -> None:
    (served.root / "images").mkdir(parents=True)
    served.prepare()
    served.assert_complete()


def two_folders(pets: Pets) -> None:
    """An item of two folders and a text, as of Cars and Aircraft."""
    pets.archive["provides"] = {"cars_train": ["cars_train"], "cars_test": ["cars_test"], "names.txt": ["names.txt"]}
    pets.fields["files"] = [pets.archive]
    pets.serve("/cars.zip", make_zip({
        "cars_train/1.jpg": picture(1), "cars_test/1.jpg": picture(2), "names.txt": b"new",
    }))  # fmt: skip


def test_a_part_of_an_item_that_is_there_is_not_touched(pets: Pets) -> None:
    """As after a run that was killed between two folders, or a user's own half."""
    two_folders(pets)
    (pets.root / "cars_train").mkdir(parents=True)
    (pets.root / "cars_train/mine.jpg").write_bytes(b"mine")
    (pets.root / "names.txt").write_bytes(b"mine")
    record = pets.prepare()
    kept = {path: content for path, content in pets.tree.items() if not path.startswith(".downloads")}
    assert kept == {"cars_train/mine.jpg": b"mine", "cars_test/1.jpg": picture(2), "names.txt": b"mine"}
    urls = {name: origin["url"].rpartition("/")[2] for name, origin in record["files"].items()}
    assert urls == {"cars_train": "already there", "cars_test": "cars.zip", "names.txt": "already there"}


def test_a_file_below_a_folder(pets: Pets) -> None:
    pets.split["provides"] = {"lists/of/names.json": []}
    pets.fields["files"] = [pets.split]
    pets.serve("/names.json", b"[]")
    pets.prepare()
    assert (pets.root / "lists/of/names.json").read_bytes() == b"[]"


def test_mirrors_are_tried_in_their_order(pets: Pets) -> None:
    pets.serve("/gone.zip", below("pets/images"), always=NOT_FOUND)
    pets.serve("/corrupt.zip", below("pets/images"), always=Mishap(corrupt=True))
    pets.serve("/good.zip", below("pets/images"))
    pets.serve("/never.zip", below("pets/images"))
    pets.serve("/split.json", SPLIT)
    record = pets.prepare()
    assert pets.asked == ["/split.json", "/gone.zip", "/corrupt.zip", "/good.zip"]
    assert record["files"]["images"]["url"] == f"{pets.server.root}/good.zip"
    pets.assert_complete()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (make_zip({"pets/pictures/0.jpg": b"x", "readme": b""}), "the archive of 2 files holds no images"),
        (b"this is no archive at all", "is no zip or tar archive"),
        (below("images")[:300], "is damaged"),
        (make_zip({"../images/0.jpg": b"x"}), "leads out of its folder"),
        (make_zip({"/".join(["x" * 200] * 20): b"x"}), "has too long a name"),
    ],
)  # fmt: skip
def test_an_archive_that_will_not_do_gives_way_to_the_next(pets: Pets, content: bytes, reason: str) -> None:
    pets.serve("/wrong.zip", content, pinned=False)
    pets.serve("/good.zip", below("images"))
    pets.serve("/split.json", SPLIT)
    record = pets.prepare()
    spoken = [line for line in pets.said if line.endswith("; trying the next source")]
    assert len(spoken) == 1
    assert spoken[0].startswith(f"{pets.server.root}/wrong.zip: ")
    assert reason in spoken[0]
    assert record["files"]["images"]["url"] == f"{pets.server.root}/good.zip"
    pets.assert_complete()


def test_all_archives_will_not_do(pets: Pets) -> None:
    pets.serve("/a.zip", make_zip({"other/0.jpg": b"x"}))
    pets.serve("/b.zip", b"no archive", pinned=False)
    pets.serve("/split.json", SPLIT)
    url = pets.server.root
    pets.refused(
        "pets: no source gives images: ", f"{url}/a.zip: the archive of 1 files", f"{url}/b.zip: is no zip",
        f"; put the archive at {pets.root}/.downloads/images.archive yourself",
    )  # fmt: skip
    assert not (pets.root / "images").exists()
    assert set(pets.tree) == {"split.json", ".downloads/lock", ".downloads/split.json.json"}


def test_no_mirror_answers(pets: Pets) -> None:
    pets.serve("/a.json", SPLIT, always=NOT_FOUND)
    pets.serve("/b.json", SPLIT, always=Mishap(status=403))
    pets.serve("/images.zip", below("images"))
    pets.refused(
        "split.json: ", "/a.json: HTTP 404 Not Found", "/b.json: HTTP 403 Forbidden", "check the network or put"
    )


def test_a_bad_mirror_and_then_none(pets: Pets) -> None:
    """Both reasons are in the one line."""
    pets.serve("/a.zip", make_zip({"other/0.jpg": b"x"}))
    pets.serve("/b.zip", b"", always=NOT_FOUND, pinned=False)
    pets.serve("/split.json", SPLIT)
    pets.refused("/a.zip: the archive of 1 files holds no images", "/b.zip: HTTP 404")


def test_a_bundle_that_also_holds_the_split_file(pets: Pets) -> None:
    """The split file's own mirrors are gone."""
    pets.serve("/split.json", b"", always=NOT_FOUND, pinned=False)
    pets.serve("/bundle.zip", below("pets/images", {"pets/split.json": SPLIT, "pets/other.txt": b"unused"}))
    record = pets.prepare()
    pets.assert_complete()
    assert record["files"]["split.json"] == record["files"]["images"]
    assert any("split.json" in line and "404" in line for line in pets.said)


def test_a_bundle_does_not_replace_a_split_file_that_is_there(served: Pets) -> None:
    served.archive["sources"] = []
    served.serve("/bundle.zip", below("pets/images", {"pets/split.json": b"{}"}))
    served.prepare()
    served.assert_complete()
    assert (served.root / "split.json").read_bytes() == SPLIT


def test_a_bundle_that_holds_the_archive_of_another_item(pets: Pets) -> None:
    pets.fields |= {"derive": {"rule": "pets"}, "derived_split": True, "class_names": ["cat"]}
    lists = {"provides": {"annotations": ["annotations"]}, "derived_split_only": True, "sources": []}
    lists["sources"].append({"url": pets.server.add("/annotations.zip", b"", always=NOT_FOUND)})
    pets.fields["files"].append(lists)
    pets.serve("/split.json", SPLIT)
    annotations = {
        f"pets/annotations/{part}.txt": text for part, text in (("trainval", b"cat_0 1"), ("test", b"cat_1 1"))
    }
    pets.serve("/bundle.zip", below("pets/images", annotations))
    record = pets.prepare()
    assert pets.asked == ["/bundle.zip"], "a derived split needs no split file"
    assert record["files"]["annotations"] == record["files"]["images"]
    assert (pets.root / "annotations/test.txt").read_bytes() == b"cat_1 1"


def test_files_for_derived_splits_are_not_fetched_without(served: Pets) -> None:
    lists = {"provides": {"list.txt": []}, "derived_split_only": True, "sources": []}
    lists["sources"].append({"url": served.server.add("/list.txt", b"x")})
    served.fields["files"].append(lists)
    assert set(served.prepare()["files"]) == {"images", "split.json"}
    assert "/list.txt" not in served.asked


@pytest.mark.parametrize("folder", ["images/images", "pets/images/images", "a/b/c/images", "sketch", "EuroSAT_RGB"])
def test_folders_that_are_doubled_deep_or_of_another_name(pets: Pets, folder: str) -> None:
    pets.archive["provides"] = {"images": ["sketch", "images", "EuroSAT_RGB"]}
    pets.serve("/x.tar.gz", make_tar({f"{folder}/{path}": content for path, content in PICTURES.items()}, "w:gz"))
    pets.serve("/split.json", SPLIT)
    pets.prepare()
    pets.assert_complete()


def test_doubled_folders_beside_other_files(pets: Pets) -> None:
    two_folders(pets)
    pets.archive["sources"] = []
    members = {f"cars/{name}/{name}/1.jpg": picture(i) for i, name in enumerate(("cars_train", "cars_test"))}
    pets.serve("/doubled.zip", make_zip(members | {"cars/names.txt": b"n", "cars/devkit/cars_train/readme": b"no"}))
    pets.prepare()
    assert (pets.root / "cars_train/1.jpg").read_bytes() == picture(0)
    assert (pets.root / "cars_test/1.jpg").read_bytes() == picture(1)


def test_a_class_called_as_the_folder_of_the_images(pets: Pets) -> None:
    """Only a folder alone in one of its own name is the doubled one."""
    members = {"images/images/0.jpg": picture(0), "images/cat/0.jpg": picture(1)}
    pets.fields["files"] = [pets.archive]
    pets.serve("/x.zip", make_zip(members))
    pets.prepare()
    assert sorted(path.name for path in (pets.root / "images").iterdir()) == ["cat", "images"]


def test_archives_inside_the_archive(pets: Pets) -> None:
    inner = make_tar({f"images/{path}": content for path, content in PICTURES.items()}, "w:gz")
    pets.archive["nested"] = ["*/images.tar.gz"]
    pets.serve("/outer.zip", make_zip({"pets/images.tar.gz": inner, "pets/other.tar": make_tar({"x": b"x"})}))
    pets.serve("/split.json", SPLIT)
    pets.prepare()
    pets.assert_complete()


def test_only_images_of_the_split_are_unpacked(pets: Pets) -> None:
    pets.archive["only_split_images"] = True
    pets.serve(
        "/big.zip", below("sun/images/images", {"sun/images/images/cat/unused.jpg": picture(8), "sun/x.txt": b"x"})
    )
    pets.serve("/split.json", SPLIT)
    pets.prepare()
    pets.assert_complete()
    assert "pets: 3 files unpacked" in pets.said


def test_with_a_derived_split_all_images_are_unpacked(pets: Pets) -> None:
    pets.archive["only_split_images"] = True
    pets.fields |= {"derive": {"rule": "folders"}, "derived_split": True}
    pets.serve("/big.zip", below("images", {"images/cat/unused.jpg": picture(8)}))
    pets.serve("/split.json", SPLIT)
    pets.prepare()
    assert len(find_images(pets.entry).images) == 4
    assert pets.asked == ["/big.zip"]


def test_a_split_that_makes_no_sense_is_one_line(pets: Pets) -> None:
    pets.archive["only_split_images"] = True
    pets.serve("/big.zip", below("images"))
    pets.serve("/split.json", b'{"train": [[]], "val": [], "test": [3]}')
    pets.refused("split.json: train: [] is not [path, label, class name]")
    assert "/big.zip" not in pets.asked


def test_without_a_split_the_big_archive_is_not_fetched(pets: Pets) -> None:
    pets.archive["only_split_images"] = True
    pets.serve("/big.zip", below("images"))
    pets.serve("/split.json", b"", always=NOT_FOUND, pinned=False)
    pets.refused("split.json: ", "HTTP 404")
    assert "/big.zip" not in pets.asked


def test_what_a_killed_run_unpacked_is_removed(served: Pets) -> None:
    left = served.root / ".downloads/unpacked-abc/content/images"
    left.mkdir(parents=True)
    (left / "half.jpg").write_bytes(b"x")
    served.prepare()
    served.assert_complete()
    assert not left.exists()


def hand_placed(pets: Pets, content: bytes) -> Path:
    path = pets.root / ".downloads/images.archive"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_an_archive_placed_by_hand_is_used(served: Pets) -> None:
    path = hand_placed(served, below("pets/images"))
    record = served.prepare()
    assert served.asked == ["/split.json"]
    digest = hashlib.sha256(below("pets/images")).hexdigest()
    assert record["files"]["images"] == {"url": "already there", "sha256": digest, "bytes": len(below("pets/images"))}
    assert not path.exists()
    served.assert_complete()


def test_a_bad_archive_placed_by_hand_is_kept_and_named(pets: Pets) -> None:
    pets.serve("/split.json", SPLIT)
    pets.serve("/images.zip", below("images"))
    path = hand_placed(pets, b"half a download")
    pets.refused(f"{path}: is damaged or another version; delete it and run again")
    assert path.read_bytes() == b"half a download"


def test_an_archive_of_other_things_placed_by_hand_is_kept_and_named(pets: Pets) -> None:
    pets.serve("/split.json", SPLIT)
    pets.serve("/images.zip", below("images"), pinned=False)
    other = make_zip({"other/0.jpg": b"x"})
    path = hand_placed(pets, other)
    pets.refused(f"{path}: the archive of 1 files holds no images; delete it and run again")
    assert path.read_bytes() == other
    path.write_bytes(b"text")
    pets.refused(f"{path}: is no zip or tar archive; delete it and run again")
    assert "/images.zip" not in pets.asked


def test_an_archive_placed_by_hand_may_be_that_of_a_source_without_checksum(pets: Pets) -> None:
    pets.serve("/split.json", SPLIT)
    pets.serve("/pinned.zip", below("images"))
    pets.serve("/free.zip", below("pets/images"), pinned=False)
    hand_placed(pets, below("pets/images", {"readme": b"of another day"}))
    assert pets.prepare()["files"]["images"]["url"] == "already there"
    assert pets.asked == ["/split.json"]
    pets.assert_complete()


# A good archive is kept


def interrupted(pets: Pets, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Path:
    """Prepare, with an end to it between download and unpacking; return the archive's path."""

    def stop(*_: Any, **__: Any) -> int:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("cpt.data.download.prepare.unpack", stop)
        with pytest.raises(type(error)):
            pets.prepare()
    return pets.root / ".downloads/images.archive"


@pytest.mark.parametrize("pinned", [True, False])
def test_after_a_kill_the_archive_is_not_fetched_again(
    pets: Pets, monkeypatch: pytest.MonkeyPatch, pinned: bool
) -> None:
    """Also where it is of a source without checksum and another source has one."""
    pets.serve("/split.json", SPLIT)
    pets.serve("/other.zip", b"other", always=NOT_FOUND)
    pets.serve("/images.zip", below("pets/images"), pinned=pinned)
    assert interrupted(pets, monkeypatch, KeyboardInterrupt()).read_bytes() == below("pets/images")
    asked = list(pets.asked)
    record = pets.prepare()
    assert pets.asked == asked
    assert record["files"]["images"]["url"] == f"{pets.server.root}/images.zip"
    pets.assert_complete()


def test_after_a_kill_a_bad_archive_gives_way_to_the_next(pets: Pets, monkeypatch: pytest.MonkeyPatch) -> None:
    pets.serve("/split.json", SPLIT)
    pets.serve("/bad.zip", b"no archive", pinned=False)
    pets.serve("/images.zip", below("pets/images"))
    interrupted(pets, monkeypatch, KeyboardInterrupt())
    assert pets.prepare()["files"]["images"]["url"] == f"{pets.server.root}/images.zip"
    assert pets.asked == ["/split.json", "/bad.zip", "/images.zip"]
    pets.assert_complete()


@pytest.mark.parametrize(
    "error", [CptError("x: cannot be written (No space left on device)"), CptError("x: cannot be read")]
)
def test_a_full_disk_does_not_cost_the_archive(served: Pets, monkeypatch: pytest.MonkeyPatch, error: CptError) -> None:
    served.serve("/other.zip", below("pets/images"))
    assert interrupted(served, monkeypatch, error).read_bytes() == below("pets/images")
    assert not any("trying the next source" in line for line in served.said)
    served.prepare()
    assert served.asked == ["/split.json", "/images.zip"]
    served.assert_complete()


def test_a_damaged_split_file_does_not_cost_the_archive(served: Pets, monkeypatch: pytest.MonkeyPatch) -> None:
    served.archive["only_split_images"] = True
    archive = interrupted(served, monkeypatch, KeyboardInterrupt())
    for text, words in (
        ("{", "split.json: damaged"),
        ('{"train": [], "val": [], "test": [["of/another.jpg", 0, "cat"]]}', "names none of the images in"),
    ):
        (served.root / "split.json").write_text(text)
        served.refused(words)
        assert archive.read_bytes() == below("pets/images")
    (served.root / "split.json").unlink()
    served.prepare()
    assert served.asked == ["/split.json", "/images.zip", "/split.json"]
    served.assert_complete()


def test_an_archive_without_any_image_of_the_split_gives_way_to_the_next(pets: Pets) -> None:
    pets.archive["only_split_images"] = True
    pets.serve("/wrong.zip", make_zip({"other/0.jpg": b"x"}))
    pets.serve("/good.zip", below("images"))
    pets.serve("/split.json", SPLIT)
    assert pets.prepare()["files"]["images"]["url"].endswith("/good.zip")


@pytest.mark.parametrize(("only", "derived", "room"), [(False, False, 2.2), (True, False, 1.5), (True, True, 2.2)])
def test_the_room_asked_for(
    served: Pets, monkeypatch: pytest.MonkeyPatch, only: bool, derived: bool, room: float
) -> None:
    """Where only a part of the images is kept, that of a part."""
    served.archive["only_split_images"] = only
    served.fields |= {"derive": {"rule": "folders"}, "derived_split": derived}
    asked: dict[str, float] = {}
    plain = fetching.fetch

    def fetch(sources: Any, file: Path, **options: Any) -> Any:
        asked[file.name] = options["room"]
        return plain(sources, file, **options)

    monkeypatch.setattr(fetching, "fetch", fetch)
    served.prepare()
    assert asked == {"images.archive": room} | ({} if derived else {"split.json": 1.0})


@pytest.mark.parametrize("shape", ["official zip", "inner tar", "unpacked folder"])
def test_mirrors_that_differ_in_what_is_packed_once_more(pets: Pets, shape: str) -> None:
    """As of Caltech101: a zip with a tar in it, that tar alone, and a bundle that holds the folder."""
    pets.archive["nested"] = ["*/images.tar.gz"]
    pets.serve("/official.zip", b"x", always=NOT_FOUND)
    tar = make_tar({f"images/{path}": content for path, content in PICTURES.items()}, "w:gz")
    if shape == "official zip":
        pets.serve("/x.zip", make_zip({"pets/images.tar.gz": tar, "pets/other.tar": make_tar({"x": b"x"})}))
    elif shape == "inner tar":
        pets.serve("/images.tgz", tar, pinned=False)
    else:
        pets.serve("/bundle.zip", below("pets/images", {"pets/split.json": SPLIT}), pinned=False)
    pets.serve("/split.json", SPLIT)
    pets.prepare()
    pets.assert_complete()


# Roots that cannot be written


def test_a_data_folder_that_is_a_link_to_nowhere(served: Pets, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(tmp_path / "unmounted")
    served.root = tmp_path / "data/pets"
    served.refused(
        f"{tmp_path}/data/pets: cannot be written ({tmp_path}/data is a link to what is not there); missing there: "
        "split.json, images; make it writable or put split.json, images there"
    )
    assert served.asked == []


def test_images_that_are_a_link_to_nowhere(served: Pets, tmp_path: Path) -> None:
    served.root.mkdir()
    (served.root / "images").symlink_to(tmp_path / "unmounted")
    served.refused(f"{served.root}: cannot be written ({served.root}/images is a link to what is not there); ")


@pytest.mark.parametrize("place", ["", "pets", "pets/.downloads"])
def test_a_file_where_a_folder_should_be(served: Pets, tmp_path: Path, place: str) -> None:
    served.root = tmp_path / "data/pets"
    path = tmp_path / "data" / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a file")
    served.refused(f"data/pets: cannot be written ({path} is no folder); missing there: split.json, images; ")
    assert path.read_text() == "a file"


def test_a_file_where_the_images_should_be(served: Pets) -> None:
    served.root.mkdir()
    (served.root / "images").write_text("a file")
    served.refused(f"{served.root}/images: is no folder; move it away and run again")


@pytest.mark.parametrize("name", ["mkdir", "replace", "lock"])
def test_a_tree_that_may_only_be_read(served: Pets, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Simulated, since root may write everywhere."""
    for path, content in PICTURES.items():
        (served.root / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        (served.root / "images" / path).write_bytes(content)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        target = {"mkdir": "pathlib.Path.mkdir", "replace": "os.replace", "lock": "filelock.FileLock.acquire"}[name]
        patch.setattr(target, refuse)
        with pytest.raises(CptError) as caught:
            served.prepare()
    assert "cannot be written (Read-only file system); " in str(caught.value)
    if name != "replace":  # which the download notices first
        assert str(caught.value) == (
            f"{served.root}: cannot be written (Read-only file system); missing there: split.json; "
            "make it writable or put split.json there"
        )
    (served.root / "split.json").write_bytes(SPLIT)
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    assert served.prepare()["files"]["split.json"]["url"] == "already there", "what is whole need not be writable"


def test_gated_data_says_what_to_get_where(served: Pets) -> None:
    served.fields["gated"] = "register at image-net.org and put the images at {root}/images/train/<wnid>"
    served.refused(
        "pets: cannot be fetched by cpt; register at", f"put the images at {served.root}/images/train/<wnid>"
    )
    assert not served.root.exists()
    (served.root / "images").mkdir(parents=True)
    (served.root / "images/0.jpg").write_bytes(b"x")
    assert served.prepare()["files"]["images"]["url"] == "already there"


def test_a_root_in_the_home_folder(served: Pets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    served.root = Path("~/mine")
    assert served.prepare()["root"] == str(tmp_path / "mine")
    assert (tmp_path / "mine/images/cat/0.jpg").is_file()


def fetch(catalog: Path, *words: str) -> subprocess.Popen:
    environment = {key: value for key, value in os.environ.items() if key != "CPT_FORK_SERVER"}
    command = [sys.executable, "-m", "cpt", "data", "fetch", "pets", "--catalog", str(catalog), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def write_catalog(pets: Pets, path: Path) -> Path:
    described = pets.entry.model_dump(mode="json", exclude_unset=True)
    del described["name"]
    path.write_text(yaml.safe_dump({"pets": described}))
    return path


def test_two_processes_at_once_download_once(pets: Pets, tmp_path: Path) -> None:
    pets.serve("/images.zip", below("pets/images"), Mishap(silence=2))
    pets.serve("/split.json", SPLIT, Mishap(silence=2))
    catalog = write_catalog(pets, tmp_path / "datasets.yaml")
    first = fetch(catalog, "--output", str(tmp_path / "one.json"))
    for _ in range(600):
        if pets.server.requests:
            break
        time.sleep(0.05)
    second = fetch(catalog, "--output", str(tmp_path / "two.json"))
    results = [process.communicate(timeout=120) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], results
    assert [errors for _, errors in results] == ["", ""]
    assert pets.asked == ["/split.json", "/images.zip"]
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one == two
    assert one["files"]["images"]["url"] == f"{pets.server.root}/images.zip"
    assert results[0][0].splitlines()[0].startswith("pets: fetching ")
    assert results[1][0].splitlines() == [
        "pets: another process is preparing it; waiting", f"pets: 2 of 2 files and folders are in {pets.root}",
    ]  # fmt: skip
    pets.assert_complete()
