"""`cpt data check`: missing, complete, derived or damaged, with exit codes; and the other verbs of `cpt data`."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from cpt.cli.app import app
from cpt.data.catalog import load_catalog
from cpt.data.check import check_dataset
from cpt.data.entry import Entry
from cpt.data.manifest import read_manifest
from cpt.errors import CptError
from cpt.files.stage_files import write_json
from tests.helpers.miniature import make_zip
from tests.helpers.servers import Mishap, Server

CONFIG = Path(__file__).parents[2] / "config" / "datasets.yaml"
IMAGES = {"train": ["cat/0.png", "dog/0.png"], "val": ["cat/1.png"], "test": ["cat/2.png", "dog/1.png", "dog/2.png"]}


def paint(path: Path) -> None:
    """Write an image that no other path has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code = zlib.crc32(str(path).encode())
    Image.new("RGB", (9, 7), (code & 255, code >> 8 & 255, code >> 16 & 255)).save(path)


@pytest.fixture
def entries(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """A dataset with a split file, one of one's own, a gated one and a drawn one; all are there."""
    names = {"cat": 0, "dog": 1}
    lists = {part: [[path, names[path[:3]], path[:3]] for path in paths] for part, paths in IMAGES.items()}
    for paths in IMAGES.values():
        for path in paths:
            paint(tmp_path / "pets/images" / path)
    (tmp_path / "pets/split.json").write_text(json.dumps(lists))
    for path in ("train/ant/0.png", "test/ant/0.png", "train/bee/0.png", "test/bee/0.png"):
        paint(tmp_path / "own" / path)
    for wnid in ("n01", "n02"):
        paint(tmp_path / "gated/images" / wnid / "0.png")
    source = [{"url": "http://127.0.0.1:9/x"}]
    return {
        "pets": {
            "title": "Pets", "layout": "split_json", "root": str(tmp_path / "pets"), "images": "images",
            "split": "split.json",
            "files": [
                {"provides": {"images": ["images"]}, "sources": source},
                {"provides": {"split.json": []}, "sources": source},
            ],
        },
        "own": {"title": "Own", "layout": "folders", "root": str(tmp_path / "own")},
        "gated": {
            "title": "Gated", "layout": "wnid_folders", "root": str(tmp_path / "gated"), "images": "images",
            "class_names": {"n01": "tench", "n02": "goldfish"}, "gated": "ask for it and put it at {root}/images",
        },
        "flowers": {"title": "Flowers", "layout": "embedded"},
    }  # fmt: skip


def state(entries: dict[str, dict[str, Any]], name: str, **options: Any) -> tuple[str, str]:
    found = check_dataset(Entry(name=name, **entries[name]), workers=1, **options)
    assert found.name == name
    assert "\n" not in found.advice
    return found.state, found.advice


@pytest.mark.parametrize("decode", [False, True])
def test_complete(entries: dict, decode: bool) -> None:
    for name in ("pets", "own", "gated"):
        assert state(entries, name, decode=decode) == ("complete", "")
    assert check_dataset(Entry(name="pets", **entries["pets"])).found == {"train": 2, "val": 1, "test": 3}
    assert check_dataset(Entry(name="own", **entries["own"])).found == {"train": 2, "test": 2}
    assert check_dataset(Entry(name="gated", **entries["gated"])).found == {"test": 2}


def test_missing(entries: dict, tmp_path: Path) -> None:
    for name in ("pets", "own", "gated"):
        shutil.rmtree(tmp_path / name)
    assert state(entries, "pets") == ("missing", "cpt data fetch pets")
    assert state(entries, "own") == ("missing", f"put the images into {tmp_path}/own")
    assert state(entries, "gated") == ("missing", f"ask for it and put it at {tmp_path}/gated/images")


def test_half_of_it_missing(entries: dict, tmp_path: Path) -> None:
    (tmp_path / "pets/split.json").unlink()
    assert state(entries, "pets") == ("missing", "no split.json: cpt data fetch pets")
    shutil.rmtree(tmp_path / "pets/images")
    (tmp_path / "pets/images").mkdir()
    assert state(entries, "pets") == ("missing", "no split.json, images: cpt data fetch pets")


def test_damaged(entries: dict, tmp_path: Path) -> None:
    (tmp_path / "pets/images/dog/1.png").unlink()
    found, advice = state(entries, "pets")
    assert found == "damaged"
    assert advice == (
        f"{tmp_path}/pets/images/dog/1.png (missing); get the dataset again: move {tmp_path}/pets/images away, "
        "or delete it, and run `cpt data fetch pets`"
    )
    shutil.rmtree(tmp_path / "gated/images/n02")
    assert state(entries, "gated") == (
        "damaged", f"{tmp_path}/gated/images has no class folder 'n02' (1 differ); get the published release: "
        f"put its files into {tmp_path}/gated/images yourself"
    )  # fmt: skip
    (tmp_path / "own/test/bee/0.png").unlink()
    (tmp_path / "own/train/bee/0.png").unlink()
    assert state(entries, "own")[1].startswith("class 'bee' has no image under")
    entries["own"]["expected"] = {"classes": 2, "names_sha256": "0"}
    paint(tmp_path / "own/train/bee/0.png")
    assert state(entries, "own") == (
        "damaged",
        f"its 2 class names are not the published 2; get it again: put its files into {tmp_path}/own yourself",
    )
    entries["pets"]["expected"] = {"classes": 2, "names_sha256": "0"}
    paint(tmp_path / "pets/images/dog/1.png")
    assert state(entries, "pets")[1].endswith(
        f"get it again: move {tmp_path}/pets/split.json away, or delete it, and run `cpt data fetch pets`"
    )


def test_the_advice_for_a_half_fixes_it(
    entries: dict, tmp_path: Path, catalog: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there at all is not fetched, so that fetching alone would say that all is well."""
    images = {f"images/{path.relative_to(tmp_path / 'pets/images')}": path.read_bytes()
              for path in (tmp_path / "pets/images").rglob("*.png")}  # fmt: skip
    entries["pets"]["files"][0]["sources"] = [{"url": server.add("/images.zip", make_zip(images))}]
    catalog.write_text(yaml.safe_dump(entries))
    (tmp_path / "pets/images/dog/1.png").unlink()
    assert run("fetch", "pets", "--catalog", str(catalog)).exit_code == 0
    _, advice = state(entries, "pets")
    shutil.rmtree(advice.split(": move ")[1].split(" away")[0])
    command = advice.split("`")[1].split()
    assert run(*command[2:], "--catalog", str(catalog)).exit_code == 0
    assert state(entries, "pets") == ("complete", "")


def test_an_image_that_cannot_be_decoded_is_found_when_asked_for(entries: dict, tmp_path: Path) -> None:
    paths = [tmp_path / "pets/images" / path for path in ("cat/0.png", "dog/2.png")]
    for path in paths:
        path.write_bytes(path.read_bytes()[:40])
    assert state(entries, "pets")[0] == "complete", "without --decode images are not opened"
    found = check_dataset(Entry(name="pets", **entries["pets"]), decode=True, workers=3)
    assert (found.state, found.found) == ("damaged", {"train": 2, "val": 1, "test": 3})
    assert found.advice.startswith(f"2 images cannot be decoded, the first is {paths[0]}: image cannot be decoded (")


def test_an_empty_class_hides_no_image_that_cannot_be_decoded(entries: dict, tmp_path: Path) -> None:
    (tmp_path / "own/train/cow").mkdir()
    (tmp_path / "own/test/bee/0.png").write_bytes(b"text")
    found = check_dataset(Entry(name="own", **entries["own"]), decode=True, workers=1)
    assert found.advice.startswith("class 'cow' has no image under")
    (line,) = found.notices
    assert line.startswith(f"{tmp_path}/own/test/bee/0.png: image cannot be decoded (")
    assert check_dataset(Entry(name="own", **entries["own"]), workers=1).notices == ()


def derive(entries: dict, tmp_path: Path) -> None:
    """Make the split of the pets by a rule, over four images a class."""
    entries["pets"] |= {"derived_split": True, "derive": {"rule": "folders"}}
    for name in ("cat", "dog"):
        paint(tmp_path / "pets/images" / name / "3.png")


def test_a_derived_split(entries: dict, tmp_path: Path) -> None:
    derive(entries, tmp_path)
    (tmp_path / "pets/split.json").unlink()
    assert state(entries, "pets", decode=True) == ("derived split", "not comparable with published numbers")
    (tmp_path / "pets/images/cat/0.png").write_bytes(b"text")
    assert state(entries, "pets", decode=True)[0] == "damaged"


def test_the_check_changes_nothing(entries: dict, tmp_path: Path) -> None:
    def tree() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    before = tree()
    for name in ("pets", "own", "gated"):
        state(entries, name, decode=True)
    shutil.rmtree(tmp_path / "own")
    before = {path: time for path, time in before.items() if not path.startswith(str(tmp_path / "own"))}
    state(entries, "own")
    assert {path: time for path, time in tree().items() if path != str(tmp_path)} == before


# From the command line


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["data", *words])


@pytest.fixture
def catalog(entries: dict, tmp_path: Path) -> Path:
    path = tmp_path / "datasets.yaml"
    path.write_text(yaml.safe_dump(entries, sort_keys=False))
    return path


def rows(output: str) -> dict[str, list[str]]:
    """First word of a line -> the words after it."""
    return {words[0]: words[1:] for words in map(str.split, output.splitlines()) if words}


def test_the_table_of_the_check(catalog: Path, tmp_path: Path) -> None:
    done = run("check", "--catalog", str(catalog))
    assert done.exit_code == 0, done.output
    found = rows(done.output)
    assert found["dataset"][:4] == ["state", "train", "val", "test"]
    assert found["pets"] == ["complete", "2", "1", "3", str(tmp_path / "pets")]
    assert found["own"] == ["complete", "2", "–", "2", str(tmp_path / "own")]
    assert "flowers" not in found
    assert done.output.splitlines()[-1] == "1 more: embedded, drawn by cpt itself; there are no files to check"
    done = run("check", "flowers", "--catalog", str(catalog))
    assert done.output == "flowers: embedded, drawn by cpt itself; there are no files to check\n"
    assert done.exit_code == 0


def test_exit_codes_of_the_check(catalog: Path, tmp_path: Path) -> None:
    (tmp_path / "pets/images/dog/2.png").write_bytes(b"text")
    assert run("check", "--catalog", str(catalog)).exit_code == 0
    done = run("check", "--decode", "--threads", "2", "--catalog", str(catalog))
    assert done.exit_code == 1
    assert rows(done.output)["pets"][:4] == ["damaged", "2", "1", "3"]
    assert run("check", "own", "gated", "--decode", "--catalog", str(catalog)).exit_code == 0
    shutil.rmtree(tmp_path / "own")
    assert run("check", "own", "gated", "--catalog", str(catalog)).exit_code == 1
    assert run("check", "gated", "--catalog", str(catalog)).exit_code == 0


def test_the_table_shows_brackets_as_they_are(catalog: Path, tmp_path: Path) -> None:
    for split, text in (
        ('{"train": [3], "test": []}', "3 is not [path, label, class name]; get"),
        ('{"train": [["[/x]", 0, "cat"]], "test": []}', "images/[/x] (missing)"),
    ):
        (tmp_path / "pets/split.json").write_text(split)
        done = run("check", "pets", "--catalog", str(catalog))
        assert done.exit_code == 1
        assert text.replace(" ", "") in "".join(done.output.split())


def test_a_derived_split_does_not_fail_the_check(entries: dict, tmp_path: Path) -> None:
    derive(entries, tmp_path)
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump(entries))
    done = run("check", "pets", "--catalog", str(tmp_path / "datasets.yaml"))
    assert done.exit_code == 0
    assert "derived split" in done.output
    assert "not comparable with published numbers" in done.output


def test_the_check_of_the_shipped_catalog_names_every_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder without data all are missing; the advice is the command, or what to do about ImageNet."""
    monkeypatch.chdir(tmp_path)
    done = run("check", "--catalog", str(CONFIG))
    assert done.exit_code == 1
    found = rows(done.output)
    real = [name for name, entry in load_catalog(CONFIG).items() if entry.layout != "embedded"]
    assert len(real) == 18
    for name in real:
        assert found[name][:4] == ["missing", "–", "–", "–"]
        if name not in ("imagenet", "imagenet_lt", "places_lt"):
            assert f"cpt data fetch {name}" in done.output
    assert "register at image-net.org" in " ".join(done.output.split())
    assert not list(tmp_path.iterdir())


def test_the_check_in_a_terminal_of_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table fits, and what to do stands below in whole lines that can be copied."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    done = run("check", "--catalog", str(CONFIG))
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line).rstrip() for line in done.output.splitlines()]
    table, advice = lines[: lines.index("")], lines[lines.index("") + 1 : -1]
    assert re.match(r"\d+ more: embedded", lines[-1])
    assert max(map(len, table)) <= 80
    assert len(table) == 19
    assert len(advice) == 18
    assert "imagenet_a: cpt data fetch imagenet_a" in advice
    assert not any("…" in line for line in lines)
    assert [line.split()[-1] for line in table[1:3]] == ["data/imagenet", "data/caltech-101"]


def test_unknown_datasets(catalog: Path) -> None:
    for verb in (["check", "pet"], ["fetch", "pet"], ["manifest", "pet", "--output", "x"]):
        done = run(*verb, "--catalog", str(catalog))
        assert done.exit_code == 1
        assert isinstance(done.exception, CptError)
        assert str(done.exception) == "dataset: unknown 'pet'; did you mean 'pets'?"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def test_fetching_one_file(entries: dict, tmp_path: Path, server: Server) -> None:
    split = (tmp_path / "pets/split.json").read_bytes()
    (tmp_path / "pets/split.json").unlink()
    server.add("/split.json", split)
    entries["pets"]["files"][1]["sources"] = [{"url": f"{server.root}/split.json", "bytes": len(split)}]
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump(entries))
    words = ["fetch", "pets", "--catalog", str(tmp_path / "datasets.yaml")]
    done = run(*words, "--output", str(tmp_path / "fetched.json"))
    assert done.exit_code == 0, done.exception
    assert done.output.splitlines()[-1] == f"pets: 2 of 2 files and folders are in {tmp_path}/pets"
    record = json.loads((tmp_path / "fetched.json").read_text())
    assert (record["schema"], record["dataset"], record["root"]) == ("cpt.fetched/1", "pets", str(tmp_path / "pets"))
    assert record["files"]["split.json"]["url"] == f"{server.root}/split.json"
    assert record["files"]["images"]["url"] == "already there"
    assert run("check", "pets", "--catalog", words[-1]).exit_code == 0


def test_an_entry_without_files(entries: dict, catalog: Path, tmp_path: Path) -> None:
    for name in ("own", "gated"):
        done = run("fetch", name, "--catalog", str(catalog), "--output", str(tmp_path / f"{name}.json"))
        assert done.output == (
            f"{name}: there is nothing to fetch; {tmp_path}/{name} is there, `cpt data check {name}` looks at it\n"
        )
        assert json.loads((tmp_path / f"{name}.json").read_text())["files"] == {}
    shutil.rmtree(tmp_path / "own")
    done = run("fetch", "own", "--catalog", str(catalog))
    assert isinstance(done.exception, CptError)
    assert str(done.exception) == (
        f"own: no files are known to fetch and {tmp_path}/own is not there; put the images into it"
    )


def test_what_cannot_be_fetched(entries: dict, catalog: Path, tmp_path: Path, server: Server) -> None:
    done = run("fetch", "flowers", "--catalog", str(catalog))
    assert str(done.exception) == "flowers: is drawn by cpt itself, there is nothing to fetch"
    shutil.rmtree(tmp_path / "gated")
    done = run("fetch", "gated", "--catalog", str(catalog))
    assert str(done.exception) == f"gated: cannot be fetched by cpt; ask for it and put it at {tmp_path}/gated/images"
    (tmp_path / "pets/split.json").unlink()
    gone = server.add("/gone.json", always=Mishap(status=410))
    entries["pets"]["files"][1]["sources"] = [{"url": gone}]
    catalog.write_text(yaml.safe_dump(entries))
    done = run("fetch", "pets", "--catalog", str(catalog), "--output", str(tmp_path / "fetched.json"))
    assert isinstance(done.exception, CptError)
    assert f"{gone}: HTTP 410 Gone" in str(done.exception)
    assert not (tmp_path / "fetched.json").exists()


def test_manifest_and_pixels(catalog: Path, tmp_path: Path) -> None:
    done = run("manifest", "pets", "--catalog", str(catalog), "--output", str(tmp_path / "out"))
    assert done.output == "pets: 2 classes, 2 train, 1 val, 3 test images\n"
    manifest = tmp_path / "out/manifest.parquet"
    assert read_manifest(manifest).path.tolist() == [path for paths in IMAGES.values() for path in paths]
    write_json(tmp_path / "backbone.json", {"schema": "cpt.backbone/1", "spec": {"vision": {"image_size": [16, 16]}}})
    words = ["--manifest", str(manifest), "--part", "test", "--backbone", str(tmp_path / "backbone.json")]
    done = run("pixels", *words, "--output", str(tmp_path / "out/pixels-test.npy"), "--threads", "2")
    assert done.output.splitlines() == ["3 of 3 images", "3 images, 0 MB"]
    assert (tmp_path / "out/pixels-test.json").is_file()


def test_the_manifest_of_a_derived_split_says_so(entries: dict, tmp_path: Path) -> None:
    derive(entries, tmp_path)
    (tmp_path / "datasets.yaml").write_text(yaml.safe_dump(entries))
    done = run("manifest", "pets", "--catalog", str(tmp_path / "datasets.yaml"), "--output", str(tmp_path / "out"))
    assert done.output == "pets: 2 classes, 4 train, 2 val, 2 test images (derived split, not comparable)\n"
