"""Decoding, transforms and normalization, against torchvision where it has the same."""

import math

import numpy as np
import pytest
import torch
import torchvision.transforms as tv
from hypothesis import given
from hypothesis import strategies as st
from open_clip.transform import image_transform
from PIL import Image
from torchvision.transforms import functional

from benchmarks.images import SIDE, reference_image
from cpt.data import augmentation, images
from cpt.data.entry import Entry, PerClass
from cpt.data.images import ImageStore
from cpt.data.make_manifest import make_manifest
from cpt.errors import CptError
from cpt.seeds import numpy_stream

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    entry = Entry(name="land", title="Land", layout="embedded", per_class=PerClass(train=2, test=1))
    return make_manifest(entry, tmp_path_factory.mktemp("land"))


@pytest.fixture
def photos(tmp_path):
    """One class with a wide, a tall and a square image in two parts."""
    for part in ("train", "test"):
        folder = tmp_path / "photos" / part / "cat"
        folder.mkdir(parents=True)
        for i, (height, width) in enumerate([(40, 60), (75, 33), (32, 32)]):
            Image.fromarray(noise(height, width, i)).save(folder / f"{i}.png")
    entry = Entry(name="photos", title="Photos", layout="folders", root=str(tmp_path / "photos"))
    return make_manifest(entry, tmp_path / "out")


def test_packed_pixels_are_copied_by_row(packed):
    store, pixels = ImageStore(packed), np.load(packed.parent / "images.npy")
    rows = [7, 0, 29, 7]
    assert (len(store), store.size) == (30, 32)
    assert np.array_equal(store.pixels(rows), pixels[rows])
    assert np.array_equal(store.image(7), pixels[7])
    assert store.pixels([]).shape == (0, 32, 32, 3)
    assert store.pixels(rows).flags.writeable


def test_packed_pixels_are_resized_for_another_model(packed):
    assert ImageStore(packed, 48).pixels([0, 1]).shape == (2, 48, 48, 3)


def test_image_files_are_decoded_and_transformed(photos):
    store = ImageStore(photos, 32)
    assert np.array_equal(store.image(1), noise(75, 33, 1))
    batch = store.pixels([0, 1, 2])
    assert batch.shape == (3, 32, 32, 3)
    assert np.array_equal(batch[2], noise(32, 32, 2))
    assert ImageStore(photos, 24).pixels([]).shape == (0, 24, 24, 3)


def test_image_files_need_a_size(photos):
    with pytest.raises(CptError, match="give the size that the model takes"):
        ImageStore(photos)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_every_mode_becomes_rgb(photos, mode):
    path = photos.parent.parent / "photos" / "train" / "cat" / "0.png"
    picture = Image.fromarray(noise(40, 60)).convert(mode)
    picture.save(path, format="TIFF" if mode == "CMYK" else "PNG")  # a wrong suffix does not matter
    assert np.array_equal(ImageStore(photos, 32).image(0), np.asarray(picture.convert("RGB")))


def test_exif_orientation_is_ignored_as_in_the_reference(photos):
    path = photos.parent.parent / "photos" / "train" / "cat" / "0.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(40, 60)).save(path, exif=exif)
    assert ImageStore(photos, 32).image(0).shape == (40, 60, 3)


def test_damaged_and_missing_images_are_named(photos, packed):
    path = photos.parent.parent / "photos" / "train" / "cat" / "1.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CptError, match=r"cat/1.png: image cannot be decoded"):
        ImageStore(photos, 32).pixels([1])
    path.unlink()
    with pytest.raises(CptError, match=r"cat/1.png: image not found"):
        ImageStore(photos, 32).pixels([1])


def test_damaged_packed_images_are_named(packed, tmp_path):
    copy = tmp_path / "manifest.parquet"
    copy.write_bytes(packed.read_bytes())
    (tmp_path / "images.npy").write_bytes(b"not an array")
    with pytest.raises(CptError, match=r"images.npy: damaged \("):
        ImageStore(copy)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (33, 32), (32, 33), (20, 90), (32, 32), (31, 31), (225, 224)])
def test_test_transform_is_that_of_torchvision(shape):
    picture = noise(*shape)
    reference = tv.Compose([tv.Resize(32, tv.InterpolationMode.BICUBIC), tv.CenterCrop(32)])
    expected = np.asarray(reference(Image.fromarray(picture)))
    assert np.array_equal(images.resize_and_crop(picture, 32), expected)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (33, 32), (20, 90), (32, 32), (225, 224)])
@pytest.mark.parametrize("kind", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_other_resizings_are_those_of_open_clip(shape, kind, mode):
    """As its own transform does it; five crops are of the resized whole."""
    picture, resizing = noise(*shape), images.Resizing(mode, kind)
    parts = (32, tv.CenterCrop(32), images.resize_and_crop), (35, tv.FiveCrop(32), images.five_crops)
    for size, cropped, resized in parts:
        theirs = image_transform(size, False, resize_mode=mode, interpolation=kind).transforms[0]
        wanted = cropped(theirs(Image.fromarray(picture)))
        assert np.array_equal(resized(picture, 32, resizing), np.stack(wanted) if size == 35 else np.asarray(wanted))


@pytest.mark.parametrize("shape", [(2, 900), (900, 2), (3, 777), (777, 3), (1, 70), (31, 9000), (9000, 31)])
def test_long_images_are_those_of_torchvision_but_for_rounding(shape):
    """Only their middle is resized."""
    picture = noise(*shape)
    reference = tv.Compose([tv.Resize(32, tv.InterpolationMode.BICUBIC), tv.CenterCrop(32)])
    expected = np.asarray(reference(Image.fromarray(picture))).astype(int)
    assert np.abs(images.resize_and_crop(picture, 32) - expected).max() <= 1


@pytest.mark.parametrize(
    ("shape", "off"), [((40, 60), 0), ((60, 40), 0), ((32, 32), 0), ((35, 35), 0), ((20, 90), 0), ((2, 900), 1)]
)
def test_five_crops_are_those_of_torchvision(shape, off):
    """Of an image whose shorter side has 35 pixels; of a long one only what is seen is resized."""
    picture = noise(*shape)
    reference = tv.Compose([tv.Resize(35, tv.InterpolationMode.BICUBIC), tv.FiveCrop(32)])
    expected = np.stack([np.asarray(crop) for crop in reference(Image.fromarray(picture))]).astype(int)
    assert np.abs(images.five_crops(picture, 32) - expected).max() <= off


def test_five_crops_of_a_store_are_of_whole_images(photos, packed):
    """Neither the packed images that have the size already nor an image cache hold what lies around the center."""
    for manifest in (photos, packed):
        store = ImageStore(manifest, 32)
        found = store.five_crops([2, 0])
        assert found.shape == (2, 5, 32, 32, 3)
        assert np.array_equal(found, np.stack([images.five_crops(store.image(row), 32) for row in (2, 0)]))


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 2**32), st.sampled_from([0.08, 0.5]))
def test_crop_boxes_are_those_of_torchvision(height, width, seed, smallest):
    draws = np.random.default_rng(seed)
    ours = augmentation.crop_box(height, width, np.random.default_rng(seed).random, smallest)

    class Number:
        def __init__(self, value=0.0):
            self.value = value

        def uniform_(self, low, high):
            return Number(float(low) + float(high - low) * draws.random())

        def item(self):
            return self.value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", lambda *_: Number())
        patch.setattr(torch, "exp", lambda number: Number(math.exp(number.item())))
        patch.setattr(torch, "log", lambda _: [math.log(3 / 4), math.log(4 / 3)])  # not in float32
        patch.setattr(torch, "randint", lambda low, high, size: Number(int(draws.random() * high)))
        patch.setattr(functional, "get_dimensions", lambda _: (3, height, width))
        theirs = tv.RandomResizedCrop.get_params(None, [smallest, 1.0], [3 / 4, 4 / 3])
    assert ours == theirs


@pytest.mark.parametrize(("height", "width"), [(1, 1000), (1000, 1), (3, 500)])
def test_crop_of_extreme_shapes_falls_back_to_the_center(height, width):
    top, left, h, w = augmentation.crop_box(height, width, np.random.default_rng(0).random)
    assert 0 < h <= height
    assert 0 < w <= width
    assert abs((height - h) // 2 - top) + abs((width - w) // 2 - left) == 0


def test_the_wide_crop_shows_half_of_the_image_at_least():
    picture, draws = noise(50, 70), [0.0, 0.5, 0.3, 0.6, 0.4]
    top, left, height, width = augmentation.crop_box(50, 70, iter(draws).__next__, 0.5)
    assert height * width == pytest.approx(50 * 70 / 2, rel=0.05)
    box = picture[top : top + height, left : left + width]
    expected = np.asarray(Image.fromarray(box).resize((32, 32), Image.Resampling.BICUBIC))[:, ::-1]
    found = augmentation.AUGMENTATIONS["rrc_half_flip"].apply(picture, 32, iter(draws).__next__)
    assert np.array_equal(found, expected)


def test_crop_statistics():
    uniform = np.random.default_rng(1).random
    boxes = np.array([augmentation.crop_box(1000, 1000, uniform) for _ in range(4000)])
    area, aspect = boxes[:, 2] * boxes[:, 3] / 1e6, boxes[:, 3] / boxes[:, 2]
    assert area.min() >= 0.078
    assert 0.745 <= aspect.min() < 0.76
    assert 1.32 < aspect.max() <= 1.34
    assert np.log(aspect).mean() == pytest.approx(0, abs=0.02)
    assert 0.45 < area.mean() < 0.54  # boxes that do not fit are drawn again, which favors small ones


def test_training_pixels_depend_on_seed_epoch_and_row_alone(packed):
    store = ImageStore(packed)
    batch = store.training_pixels([3, 8, 5], "rrc_flip", seed=1, epoch=2)
    assert batch.shape == (3, 32, 32, 3)
    assert batch.dtype == np.uint8
    assert np.array_equal(batch[[2, 0]], store.training_pixels([5, 3], "rrc_flip", seed=1, epoch=2))
    for seed, epoch in ((2, 2), (1, 3)):
        assert not np.array_equal(batch, store.training_pixels([3, 8, 5], "rrc_flip", seed=seed, epoch=epoch))
    assert store.training_pixels([], "rrc_flip", seed=1, epoch=2).shape == (0, 32, 32, 3)


def test_without_augmentation_training_sees_the_test_transform(packed):
    store = ImageStore(packed)
    assert np.array_equal(store.training_pixels([4, 1], "none", seed=1, epoch=1), store.pixels([4, 1]))
    with pytest.raises(CptError, match="augmentation: unknown 'flip'"):
        store.training_pixels([0], "flip", seed=1, epoch=1)


@pytest.mark.parametrize(("last", "flipped"), [(0.49, True), (0.5, False)])
def test_crop_is_resized_and_flipped(last, flipped):
    picture = noise(50, 70)
    draws = [0.3, 0.6, 0.2, 0.7]
    top, left, height, width = augmentation.crop_box(50, 70, iter(draws).__next__)
    expected = functional.resized_crop(
        Image.fromarray(picture), top, left, height, width, [32, 32], tv.InterpolationMode.BICUBIC
    )
    expected = functional.hflip(expected) if flipped else expected
    assert np.array_equal(augmentation.random_crop_and_flip(picture, 32, iter([*draws, last]).__next__), expected)


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_every_box_is_cropped_as_torchvision_does(height, width, data):
    """To the last row and column, and from an array whose rows do not follow each other."""
    h, w = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    box = data.draw(st.integers(0, height - h)), data.draw(st.integers(0, width - w)), h, w
    whole, flipped = noise(height, 2 * width), data.draw(st.booleans())
    for picture in (whole[:, :width], whole[:, :width].copy()):
        expected = functional.resized_crop(Image.fromarray(picture), *box, [16, 16], tv.InterpolationMode.BICUBIC)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(augmentation, "crop_box", lambda *_: box)
            found = augmentation.random_crop_and_flip(picture, 16, lambda: 0.4 if flipped else 0.6)
        assert np.array_equal(found, functional.hflip(expected) if flipped else expected)


@pytest.mark.parametrize("memory", [0, 2**31], ids=["decoded again", "kept"])
@pytest.mark.parametrize("augmentation", ["rrc_flip", "rand_augment"])
def test_training_images_are_those_of_the_reference(photos, monkeypatch, augmentation, memory):
    """From files, with torchvision's functions and our random numbers."""
    monkeypatch.setattr(images, "room", lambda: memory)
    store = ImageStore(photos, SIDE)
    store.load([0, 1, 2], 2, augmentation)
    for epoch in range(4):
        found = images.normalize(store.training_pixels([2, 0, 1], augmentation, 1, epoch), MEAN, STD)
        for row, image in zip([2, 0, 1], found, strict=True):
            uniform = numpy_stream(1, "augmentation", epoch, row).random
            file = photos.parent.parent / f"photos/train/cat/{row}.png"
            assert torch.equal(image, reference_image(file, augmentation, uniform))


def test_rand_augment_keeps_images_in_the_size_that_it_starts_from(photos, monkeypatch):
    monkeypatch.setattr(images, "room", lambda: 3 * 32 * 32 * 3)
    store = ImageStore(photos, 32)
    before = store.training_pixels([0, 1, 2], "rand_augment", 1, 2)
    store.load([0, 1, 2], 1, "rand_augment")
    for path in (photos.parent.parent / "photos/train/cat").iterdir():
        path.unlink()
    assert np.array_equal(store.training_pixels([0, 1, 2], "rand_augment", 1, 2), before)
    with pytest.raises(CptError, match="not found"):
        store.image(0)


@pytest.mark.parametrize(
    ("glance", "memory", "asked"), [(2**26, 2**31, 1), (2000, 2**31, 6), (2**26, 100, 1), (2**26, 0, 1)]
)
def test_the_memory_is_not_looked_at_for_every_image(photos, monkeypatch, glance, memory, asked):
    """Nor again when there was no more."""
    calls = []
    monkeypatch.setattr(images, "_GLANCE", glance)
    monkeypatch.setattr(images, "room", lambda: calls.append(0) or memory)
    store = ImageStore(photos, 32)
    store.load(range(6), 1)
    assert len(calls) == asked


def test_normalize_is_that_of_torchvision():
    batch = np.stack([noise(8, 6, seed) for seed in range(3)])
    expected = torch.stack([tv.Normalize(MEAN, STD)(functional.to_tensor(image)) for image in batch])
    for pixels in (batch, torch.from_numpy(batch)):
        result = images.normalize(pixels, MEAN, STD)
        assert result.dtype == torch.float32
        assert result.is_contiguous()
        assert torch.equal(result, expected)
