"""RandAugment against formulas and torchvision's tensor operations, and the views of training images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from cpt.data import augmentation
from cpt.data.entry import Entry, PerClass
from cpt.data.images import ImageStore
from cpt.data.make_manifest import make_manifest
from cpt.data.randaugment import rand_augment
from cpt.seeds import numpy_stream

Picture = NDArray[np.uint8]

NAMES = (
    "autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize_add", "color", "contrast",
    "brightness", "sharpness", "shear_x", "shear_y", "cutout", "translate_x", "translate_y",
)  # fmt: skip
"""The order of repo KaiyangZhou/Dassl.pytorch, dassl/data/transforms/randaugment.py, randaugment_list."""


def noise(height: int = 32, width: int = 32, seed: int = 0) -> Picture:
    """Random pixels in which every channel has 0 and 255, so that autocontrast leaves them alone."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[0, 0], pixels[0, 1] = 0, 255
    return pixels


def smooth(side: int = 64) -> Picture:
    """A picture without edges, on which half a pixel changes little."""
    y, x = np.mgrid[0:side, 0:side] / side
    channels = [np.sin(3 * x + y), np.cos(2 * y - x), np.sin(4 * x * y)]
    return np.stack([np.uint8(np.round(127 + 120 * channel)) for channel in channels], axis=2)


def draw(name: str) -> float:
    return (NAMES.index(name) + 0.5) / len(NAMES)


def apply(name: str, picture: Picture, *draws: float) -> Picture:
    """One operation: the first of the two is an autocontrast that changes nothing."""
    return rand_augment(picture, iter([draw("autocontrast"), draw(name), *draws]).__next__)


def tensor(picture: Picture) -> torch.Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)


def array(picture: torch.Tensor) -> Picture:
    return picture.permute(1, 2, 0).numpy()


def test_the_picture_for_single_operations_is_left_alone() -> None:
    assert np.array_equal(apply("autocontrast", noise()), noise())


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("invert", lambda x: 255 - x),
        ("posterize", lambda x: x // 8 * 8),
        ("solarize", lambda x: np.where(x < 256 / 3, x, 255 - x)),
        ("solarize_add", lambda x: np.where(x + 36 < 128, x + 36, np.maximum(255 - (x + 36), 0))),
    ],
)
def test_operations_on_values(name: str, formula: Callable) -> None:
    picture = noise()
    assert np.array_equal(apply(name, picture), formula(picture.astype(int)))


def test_autocontrast_stretches_a_ramp() -> None:
    ramp = np.repeat(np.arange(50, 101, dtype=np.uint8)[None, :, None], 3, axis=2)
    stretched = rand_augment(ramp, iter([draw("autocontrast")] * 2).__next__)
    expected = (np.arange(51) * 255 / 50)[None, :, None]
    assert (stretched.min(), stretched.max()) == (0, 255)
    assert np.abs(stretched - expected).max() <= 1


@pytest.mark.parametrize(
    ("name", "theirs", "tolerance"),
    [
        ("equalize", tv.equalize, 0),
        ("color", lambda x: tv.adjust_saturation(x, 0.7), 2),
        ("contrast", lambda x: tv.adjust_contrast(x, 0.7), 2),
        ("brightness", lambda x: tv.adjust_brightness(x, 0.7), 1),
        ("sharpness", lambda x: tv.adjust_sharpness(x, 0.7), 2),
    ],
)
def test_enhancements_are_those_of_torchvision(name: str, theirs: Callable, tolerance: int) -> None:
    picture = noise(seed=3)
    found, expected = apply(name, picture).astype(int), array(theirs(tensor(picture))).astype(int)
    assert np.abs(found - expected).max() <= tolerance
    assert np.abs(found - picture).max() > 20


@pytest.mark.parametrize(("sign", "drawn"), [(-1, 0.49), (1, 0.5)])
def test_moves_take_the_nearest_pixel(sign: int, drawn: float) -> None:
    """Output (x, y) is input (x + v y, y) and so on, outside is black; PIL counts from the centers of pixels."""
    picture, side = noise(48, 48), 48
    y, x = np.mgrid[0:side, 0:side] + 0.5
    length = sign * 100 / 3 * side / 224
    for name, source_x, source_y in (
        ("shear_x", x + sign * 0.1 * y, y),
        ("shear_y", x, y + sign * 0.1 * x),
        ("translate_x", x + length, y),
        ("translate_y", x, y + length),
    ):
        inside = (source_x >= 0) & (source_x < side) & (source_y >= 0) & (source_y < side)
        column, row = (np.clip(np.floor(s).astype(int), 0, side - 1) for s in (source_x, source_y))
        expected = picture[row, column] * inside[..., None]
        same = (apply(name, picture, drawn) == expected).all(axis=2)
        assert same.mean() > 0.98, name  # rounding at the centers of pixels


@pytest.mark.parametrize(("angle", "drawn"), [(-10, 0.49), (10, 0.5)])
def test_rotation_by_ten_degrees(angle: int, drawn: float) -> None:
    picture = smooth()
    picture[0, 0], picture[0, 1] = 0, 255
    theirs = array(tv.rotate(tensor(picture), angle, InterpolationMode.NEAREST)).astype(int)
    close = np.abs(apply("rotate", picture, drawn).astype(int) - theirs).max(axis=2) <= 12
    assert close.mean() > 0.95


@pytest.mark.parametrize(("x", "y"), [(0.5, 0.5), (0.0, 0.0), (0.99, 0.4)])
def test_cutout_is_a_grey_square_inside_the_picture(x: float, y: float) -> None:
    picture = noise(224, 224)
    found = apply("cutout", picture, x, y)
    changed = (found != picture).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert (found[changed] == (125, 123, 114)).all()
    for drawn, places in ((x, columns), (y, rows)):
        side = 40 / 3
        low = int(max(0, 224 * drawn - side / 2))
        assert places.min() == low
        assert places.max() == min(223, int(low + side))


@pytest.mark.parametrize("shape", [(32, 32), (224, 224), (16, 16)])
def test_shape_and_type_are_kept_and_the_stream_decides(shape: tuple[int, int]) -> None:
    picture = noise(*shape)
    before = picture.copy()
    results = set()
    for seed in range(40):
        augmented = rand_augment(picture, np.random.default_rng(seed).random)
        assert augmented.shape == (*shape, 3)
        assert augmented.dtype == np.uint8
        assert np.array_equal(augmented, rand_augment(picture, np.random.default_rng(seed).random))
        results.add(augmented.tobytes())
    assert len(results) > 30
    assert np.array_equal(picture, before), "the image itself is left alone"


def test_two_operations_in_order() -> None:
    picture = noise(seed=5)
    found = rand_augment(picture, iter([draw("posterize"), draw("invert")]).__next__)
    assert np.array_equal(found, 255 - picture // 8 * 8)


def test_operations_are_drawn_evenly() -> None:
    """Of the sixteenths of the interval each belongs to one operation: the next draw lands in the second choice."""
    for k, name in enumerate(NAMES):
        for at in (k / 16, (k + 1) / 16 - 1e-9):
            rest = [0.7, 0.7, 0.7, 0.7]
            moved = name in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
            used = 2 if name == "cutout" else int(moved)
            stream = iter([draw("autocontrast"), at, *rest[:used]])
            rand_augment(noise(), stream.__next__)
            assert next(stream, None) is None, name


# Views of training images


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    entry = Entry(name="land", title="Land", layout="embedded", per_class=PerClass(train=2, test=1))
    return ImageStore(make_manifest(entry, tmp_path_factory.mktemp("land")))


@pytest.mark.parametrize("augmentation", ["rrc_flip", "rand_augment"])
def test_views_differ_and_depend_on_nothing_else(store: ImageStore, augmentation: str) -> None:
    views = [store.training_pixels([3, 8, 5], augmentation, seed=1, epoch=2, view=view) for view in range(3)]
    for a in range(3):
        assert views[a].shape == (3, 32, 32, 3)
        assert views[a].dtype == np.uint8
        again = store.training_pixels([5, 3], augmentation, seed=1, epoch=2, view=a)
        assert np.array_equal(views[a][[2, 0]], again)
        for b in range(a):
            assert all(not np.array_equal(x, y) for x, y in zip(views[a], views[b], strict=True))
    default = store.training_pixels([3, 8, 5], augmentation, seed=1, epoch=2)
    assert np.array_equal(default, views[0])
    for changed in ({"seed": 2}, {"epoch": 3}):
        other = store.training_pixels([3, 8, 5], augmentation, **({"seed": 1, "epoch": 2} | changed))
        assert not np.array_equal(other, views[0])


def test_the_first_view_has_the_stream_of_methods_with_one_view(store: ImageStore) -> None:
    """Views beyond the first have streams of their own; the first is what a method with one view sees."""
    found = store.training_pixels([7], "rrc_flip", seed=1, epoch=2)[0]
    stream = numpy_stream(1, "augmentation", 2, 7)
    assert np.array_equal(found, augmentation.random_crop_and_flip(store.image(7), 32, stream.random))
    second = store.training_pixels([7], "rrc_flip", seed=1, epoch=2, view=1)[0]
    stream = numpy_stream(1, "augmentation", 2, 7, 1)
    assert np.array_equal(second, augmentation.random_crop_and_flip(store.image(7), 32, stream.random))


def test_rand_augment_sees_the_whole_image_at_the_models_size(tmp_path: Path) -> None:
    """Images of other shapes are resized without keeping the aspect ratio, bicubic, before the operations."""
    from PIL import Image

    for part in ("train", "test"):
        folder = tmp_path / "photos" / part / "cat"
        folder.mkdir(parents=True)
        Image.fromarray(noise(40, 60)).save(folder / "0.png")
    entry = Entry(name="photos", title="Photos", layout="folders", root=str(tmp_path / "photos"))
    found = ImageStore(make_manifest(entry, tmp_path / "out"), 32).training_pixels([0], "rand_augment", 1, 0)[0]
    whole = np.asarray(Image.fromarray(noise(40, 60)).resize((32, 32), Image.Resampling.BICUBIC))
    assert np.array_equal(found, rand_augment(whole, numpy_stream(1, "augmentation", 0, 0).random))
