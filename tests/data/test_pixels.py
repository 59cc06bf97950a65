"""The image cache: the pixels of direct decoding bit for bit, refused when it does not fit, and used by readers."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from cpt.clip.backbone import load_backbone
from cpt.clip.make_backbone import load_tokenizer
from cpt.data import images
from cpt.data.entry import Entry
from cpt.data.image_cache import open_pixels
from cpt.data.images import ImageStore
from cpt.data.make_image_cache import make_pixels
from cpt.data.make_manifest import make_manifest
from cpt.data.manifest import read_manifest
from cpt.errors import CptError
from cpt.evaluation.predict import predict
from cpt.features.images import SCHEMA as IMAGE_SCHEMA
from cpt.features.images import make_image_features
from cpt.features.text import make_text_features
from cpt.files import paths
from cpt.files.stage_files import read_tensors, sha256_file
from cpt.training.train import train
from tests.helpers.experiment import train_inputs

SIZES = [(40, 60), (75, 33), (16, 16), (15, 16), (16, 15), (9, 90), (90, 9), (1, 1), (17, 16), (225, 224), (30, 30)]


def noise(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photos(root: Path, sizes: Sequence[tuple[int, int]], parts: Sequence[str] = ("train", "val", "test")) -> Path:
    """A manifest of images of these sizes in every part."""
    for number, part in enumerate(parts):
        for i, (height, width) in enumerate(sizes):
            path = root / "photos" / part / "cat" / f"{i:03d}.{'png' if i % 2 else 'jpg'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise(height, width, 100 * number + i)).save(path)
    entry = Entry(name="photos", title="Photos", layout="folders", root=str(root / "photos"))
    return make_manifest(entry, root / "out")


def quiet(line: str) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("pixels"), SIZES)


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_a_cache_holds_the_pixels_of_direct_decoding(made: Path, tmp_path: Path, part: str) -> None:
    said: list[str] = []
    count = make_pixels(made, part, 16, tmp_path / "cache.npy", 1, said.append)
    rows = read_manifest(made).rows(part)
    direct = ImageStore(made, 16).pixels(rows)
    assert count == len(rows) == len(SIZES)
    assert np.array_equal(np.load(tmp_path / "cache.npy"), direct)
    cached = open_pixels(tmp_path / "cache.npy", read_manifest(made).metadata["content_hash"], 16)
    assert cached.holds(rows)
    assert not cached.holds(rows + 1)
    assert np.array_equal(cached.take(rows), direct)
    assert np.array_equal(ImageStore(made, 16, tmp_path / "cache.npy").pixels(rows), direct)
    assert said == [f"{len(SIZES)} of {len(SIZES)} images"]


def test_caches_are_byte_identical_for_any_number_of_threads(made: Path, tmp_path: Path) -> None:
    for workers in (1, 4):
        make_pixels(made, "test", 16, tmp_path / str(workers) / "cache.npy", workers, quiet)
    for suffix in (".npy", ".json"):
        one, other = ((tmp_path / workers / "cache.npy").with_suffix(suffix).read_bytes() for workers in "14")
        assert one == other
    record = json.loads((tmp_path / "1/cache.json").read_text())
    assert record == {
        "schema": "cpt.pixels/2", "dataset": "photos", "part": "test", "size": 16, "first_row": 2 * len(SIZES),
        "count": len(SIZES), "manifest_hash": read_manifest(made).metadata["content_hash"],
        "sha256": sha256_file(tmp_path / "1/cache.npy"),
        "chunk": 256, "crc32": [zlib.crc32(np.load(tmp_path / "1/cache.npy").tobytes())],
    }  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == ["cache.json", "cache.npy"]


def test_more_images_than_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cpt.data.make_image_cache.CHUNK", 4)
    manifest = photos(tmp_path, SIZES[:10], ("train", "test"))
    said: list[str] = []
    make_pixels(manifest, "test", 16, tmp_path / "cache.npy", 3, said.append)
    rows = read_manifest(manifest).rows("test")
    assert np.array_equal(np.load(tmp_path / "cache.npy"), ImageStore(manifest, 16).pixels(rows))
    assert said == ["4 of 10 images", "8 of 10 images", "10 of 10 images"]
    assert json.loads((tmp_path / "cache.json").read_text())["sha256"] == sha256_file(tmp_path / "cache.npy")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=6), st.integers(1, 40))
def test_any_sizes(tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, int]], size: int) -> None:
    folder = tmp_path_factory.mktemp("any")
    manifest = photos(folder, sizes, ("train", "test"))
    make_pixels(manifest, "test", size, folder / "cache.npy", 2, quiet)
    rows = read_manifest(manifest).rows("test")
    direct = ImageStore(manifest, size).pixels(rows)
    assert np.array_equal(ImageStore(manifest, size, folder / "cache.npy").pixels(rows), direct)
    for i, (height, width) in enumerate(sizes):
        if i % 2:  # of a lossless image the transform is known
            assert np.array_equal(direct[i], images.resize_and_crop(noise(height, width, 100 + i), size))


@pytest.fixture
def cache(made: Path, tmp_path: Path) -> Path:
    make_pixels(made, "test", 16, tmp_path / "cache.npy", 1, quiet)
    return tmp_path / "cache.npy"


def test_the_cache_is_read_instead_of_the_files(tmp_path: Path) -> None:
    manifest = photos(tmp_path, SIZES)
    make_pixels(manifest, "test", 16, tmp_path / "cache.npy", 1, quiet)
    held, first = np.load(tmp_path / "cache.npy"), 2 * len(SIZES)
    for path in (tmp_path / "photos").rglob("*.*g"):
        path.write_bytes(b"no image")
    store = ImageStore(manifest, 16, tmp_path / "cache.npy")
    assert np.array_equal(store.pixels([first + 3, first, first + 3]), held[[3, 0, 3]])
    assert store.pixels([]).shape == (0, 16, 16, 3)


def test_a_changed_byte_is_found_in_its_chunk_and_costs_no_other(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cpt.data.make_image_cache.CHUNK", 4)
    path = tmp_path / "cache.npy"
    make_pixels(made, "test", 16, path, 1, quiet)
    first, held = 2 * len(SIZES), np.load(path)
    for image in range(len(SIZES)):
        content = bytearray(path.read_bytes())
        content[len(content) - (len(SIZES) - image) * 768 + 5] ^= 1
        (tmp_path / "other.npy").write_bytes(content)
        (tmp_path / "other.json").write_bytes(path.with_suffix(".json").read_bytes())
        store, start = ImageStore(made, 16, tmp_path / "other.npy"), image - image % 4
        end = min(start + 4, len(SIZES))
        for other in range(len(SIZES)):
            if start <= other < end:
                with pytest.raises(CptError, match=f"other.npy: images {start} to {end - 1} have changed since they"):
                    store.pixels([first + other])
            else:
                assert np.array_equal(store.pixels([first + other])[0], held[other])


def test_images_of_another_part_are_decoded(made: Path, cache: Path) -> None:
    plain, store, first = ImageStore(made, 16), ImageStore(made, 16, cache), 2 * len(SIZES)
    for rows in ([0, 1, 5], [first - 1], [first - 1, first], [first + len(SIZES) - 1, 0]):
        assert np.array_equal(store.pixels(rows), plain.pixels(rows))
    assert np.array_equal(store.image(first + 1), plain.image(first + 1)), "at its own size, for training"


def test_pixels_may_be_written_to(made: Path, cache: Path) -> None:
    """As those that were decoded: torch warns of arrays that may not be."""
    assert ImageStore(made, 16, cache).pixels([2 * len(SIZES)]).flags.writeable


def refused(manifest: Path, size: int, cache: Path, *words: str) -> None:
    with pytest.raises(CptError) as caught:
        ImageStore(manifest, size, cache)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_cache_of_another_size_or_manifest(made: Path, cache: Path, tmp_path: Path) -> None:
    refused(made, 24, cache, "cache.npy: made from another manifest or for another image size; delete it and run")
    other = photos(tmp_path / "other", SIZES[::-1])
    refused(other, 16, cache, "cache.npy: made from another manifest")


@pytest.mark.parametrize("share", [0, 0.005, 0.5, 0.999])
def test_a_truncated_cache(made: Path, cache: Path, share: float) -> None:
    content = cache.read_bytes()
    cache.write_bytes(content[: int(len(content) * share)])
    refused(made, 16, cache, f"{cache}: damaged (", "delete it and run again")


def test_a_cache_without_its_record_or_its_array(made: Path, cache: Path) -> None:
    record = cache.with_suffix(".json").read_text()
    cache.with_suffix(".json").unlink()
    refused(made, 16, cache, "cache.json: not found")
    cache.with_suffix(".json").write_text("{")
    refused(made, 16, cache, "cache.json: damaged")
    cache.with_suffix(".json").write_text(record)
    cache.unlink()
    refused(made, 16, cache, f"{cache}: not found")


@pytest.mark.parametrize(
    "array", [np.zeros((3, 16, 16, 3), np.uint8), np.zeros((len(SIZES), 16, 16, 3), np.float32), np.zeros(5, np.uint8)]
)
def test_an_array_of_something_else(made: Path, cache: Path, array: NDArray) -> None:
    np.save(cache, array)
    refused(made, 16, cache, f"{cache}: damaged; delete it and run")


def test_damaged_images_are_reported_at_once_and_leave_no_cache(tmp_path: Path) -> None:
    manifest = photos(tmp_path, [(20, 20)] * 5, ("train", "test"))
    for name in ("001.png", "004.jpg"):
        (tmp_path / "photos/test/cat" / name).write_bytes(b"text")
    with pytest.raises(CptError) as caught:
        make_pixels(manifest, "test", 16, tmp_path / "cache/cache.npy", 2, quiet)
    assert str(caught.value).startswith(
        f"2 of 5 images cannot be decoded; {tmp_path}/photos/test/cat/001.png: image cannot be decoded ("
    )
    assert not list((tmp_path / "cache").iterdir())


def test_a_part_without_images(made: Path, tmp_path: Path) -> None:
    manifest = photos(tmp_path, [(20, 20)], ("train", "test"))
    with pytest.raises(CptError, match="no images in part 'val'; known: test, train"):
        make_pixels(manifest, "val", 16, tmp_path / "cache.npy", 1, quiet)


# What is computed from the pixels


@pytest.fixture(scope="module")
def experiment(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small experiment with a second dataset of the same classes, whose images are files of many sizes."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("backbone.json", "backbone.safetensors", "data/land", "features/land"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(results / name)
    names = read_manifest(results / paths.manifest("land")).class_names
    generator = np.random.default_rng(0)
    for part, count in (("train", 1), ("test", 2)):
        for name in names:
            where = folder / "photos" / part / name
            where.mkdir(parents=True)
            for i in range(count):
                height, width = generator.integers(20, 70, 2)
                picture = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                Image.fromarray(picture).resize((width, height)).save(where / f"{i}.jpg")
    entry = Entry(name="photos", title="Photos", layout="folders", root=str(folder / "photos"))
    make_manifest(entry, folder / "data/photos")
    clip = load_backbone(folder / "backbone.json")
    text = folder / "features/photos/text-single.safetensors"
    tokenizer = load_tokenizer(folder / "backbone.json")
    make_text_features(clip, tokenizer, names, ["a photo of a {}."], "a photo of a {}.", text)
    return folder


def test_features_are_the_same_with_and_without_a_cache(experiment: Path, tmp_path: Path) -> None:
    clip = load_backbone(experiment / "backbone.json")
    manifest = experiment / paths.manifest("photos")
    make_pixels(manifest, "test", clip.image_size[0], tmp_path / "cache.npy", 2, quiet)
    make_image_features(clip, manifest, "test", tmp_path / "direct.safetensors")
    make_image_features(clip, manifest, "test", tmp_path / "cached.safetensors", tmp_path / "cache.npy")
    assert (tmp_path / "direct.safetensors").read_bytes() == (tmp_path / "cached.safetensors").read_bytes()
    tensors, _ = read_tensors(tmp_path / "cached.safetensors", IMAGE_SCHEMA)
    assert tensors["features"].std(dim=0).min() > 0, "features of different images"


def test_predictions_are_the_same_with_and_without_a_cache(experiment: Path, results: Path, tmp_path: Path) -> None:
    train(train_inputs(results, "ivlp", hyperparameters={"epochs": 1}), tmp_path / "run")
    cache = experiment / paths.pixels("photos", "test")
    found = []
    for cached in (False, True):
        if cached:
            make_pixels(experiment / paths.manifest("photos"), "test", 32, cache, 1, quiet)
            for path in (experiment / "photos/test").rglob("*.jpg"):
                path.write_bytes(b"the cache is read, not the files")
        targets = [("photos", "all"), ("photos", "new")]
        predict(tmp_path / "run", experiment, targets, device="cpu", log=quiet)
        found.append(pq.read_table(tmp_path / "run/predictions.parquet"))
    assert found[0].equals(found[1])
    assert len(found[0]) == 20 + 10
