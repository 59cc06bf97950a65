"""Decoding: every kind of image file gives its RGB pixels or one line that names it; loading keeps what fits."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from cpt.data import decoding, images
from cpt.data.decoding import undecodable
from cpt.data.entry import Entry
from cpt.data.images import ImageStore
from cpt.data.make_manifest import make_manifest
from cpt.data.threads import map_blocks
from cpt.errors import CptError

Pixels = NDArray[np.uint8]

pytestmark = pytest.mark.filterwarnings("ignore:.*::PIL")  # of what is damaged, beside the error


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


class Photos:
    """Image files of one class under any content, all in the training part but one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "photos/train/cat"
        self.folder.mkdir(parents=True)
        self.write(root / "photos/test/cat/0.png", encode(Image.fromarray(noise(8, 8)), "PNG"))

    def write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def store(self, *contents: bytes, size: int = 8) -> ImageStore:
        """The images 0.jpg, 1.jpg, ... with these contents as rows 0, 1, ..."""
        for i, content in enumerate(contents):
            self.write(self.folder / f"{i}.jpg", content or b"x")
        entry = Entry(name="photos", title="Photos", layout="folders", root=str(self.root / "photos"))
        store = ImageStore(make_manifest(entry, self.root / "out"), size)
        for i, content in enumerate(contents):
            if not content:
                self.write(self.folder / f"{i}.jpg", b"")
        return store

    def decoded(self, content: bytes) -> Pixels:
        return self.store(content).image(0)

    def refused(self, content: bytes) -> str:
        store = self.store(content)
        with pytest.raises(CptError) as caught:
            store.image(0)
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(f"{self.folder}/0.jpg: image cannot be decoded (")
        assert message.endswith("); replace or remove it")
        return message


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    return Photos(tmp_path)


LOSSLESS = {"PNG": {}, "BMP": {}, "TIFF": {}, "PPM": {}, "WEBP": {"lossless": True}, "JPEG2000": {}}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_files_give_their_pixels_whatever_they_are_called(photos: Photos, kind: str) -> None:
    assert np.array_equal(photos.decoded(encode(Image.fromarray(noise(9, 7)), kind, **LOSSLESS[kind])), noise(9, 7))


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "AVIF", "GIF"])
def test_other_files_give_about_their_pixels(photos: Photos, kind: str) -> None:
    decoded = photos.decoded(encode(Image.fromarray(np.full((16, 16, 3), (200, 100, 50), np.uint8)), kind))
    assert np.abs(decoded.astype(int) - (200, 100, 50)).max() <= 4


def test_grey_pixels_are_repeated(photos: Photos) -> None:
    grey = noise(9, 7)[..., 0]
    for kind in ("PNG", "BMP"):
        assert np.array_equal(photos.decoded(encode(Image.fromarray(grey), kind)), np.stack([grey] * 3, -1))


def test_a_grey_jpeg(photos: Photos) -> None:
    decoded = photos.decoded(encode(Image.fromarray(np.full((16, 16), 77, np.uint8)), "JPEG"))
    assert np.array_equal(decoded, np.full((16, 16, 3), 77))


def test_black_and_white(photos: Photos) -> None:
    bits = noise(9, 7)[..., 0] > 127
    decoded = photos.decoded(encode(Image.fromarray(bits), "PNG"))
    assert np.array_equal(decoded, np.stack([bits * 255] * 3, -1))


def test_a_cmyk_jpeg(photos: Photos) -> None:
    """Full magenta and nothing else is red and blue light."""
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 1] = 255
    decoded = photos.decoded(encode(Image.fromarray(ink, "CMYK"), "JPEG", quality=100)).astype(int)
    assert np.abs(decoded - (255, 0, 255)).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palettes_are_looked_up(photos: Photos, kind: str) -> None:
    index = np.arange(63, dtype=np.uint8).reshape(9, 7)
    picture = Image.fromarray(index, "L").convert("P")
    palette = noise(256, 1)[:, 0]
    picture.putpalette(palette.tobytes())
    picture.putdata(index.ravel().tolist())
    assert np.array_equal(photos.decoded(encode(picture, kind)), palette[index])


def test_transparency_is_ignored(photos: Photos) -> None:
    """The color below an invisible pixel counts, as in the reference."""
    alpha = noise(9, 7, 1)[..., :1]
    picture = Image.fromarray(np.concatenate([noise(9, 7), alpha], -1))
    assert np.array_equal(photos.decoded(encode(picture, "PNG")), noise(9, 7))
    grey = Image.fromarray(np.concatenate([noise(9, 7)[..., :1], alpha], -1), "LA")
    assert np.array_equal(photos.decoded(encode(grey, "PNG")), np.repeat(noise(9, 7)[..., :1], 3, -1))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_keep_their_upper_8(photos: Photos, kind: str) -> None:
    samples = np.arange(63, dtype=np.uint16).reshape(9, 7) * 1040
    decoded = photos.decoded(encode(Image.fromarray(samples), kind))
    assert np.array_equal(decoded, np.stack([samples >> 8] * 3, -1))
    assert len(np.unique(decoded)) > 50, "not clipped to white"


def test_a_16_bit_tiff_of_the_other_byte_order(photos: Photos) -> None:
    samples = np.arange(63, dtype=np.uint16).reshape(9, 7) * 1040
    picture = Image.frombytes("I;16B", (7, 9), samples.astype(">u2").tobytes())
    assert np.array_equal(photos.decoded(encode(picture, "TIFF"))[..., 1], samples >> 8)


def test_32_bit_samples_of_16_bits(photos: Photos) -> None:
    samples = np.arange(63, dtype=np.int32).reshape(9, 7) * 1040
    assert np.array_equal(photos.decoded(encode(Image.fromarray(samples), "TIFF"))[..., 0], samples >> 8)


def test_32_bit_samples_of_8_bits(photos: Photos) -> None:
    samples = np.arange(252, dtype=np.int32).reshape(18, 14)
    assert np.array_equal(photos.decoded(encode(Image.fromarray(samples), "TIFF"))[..., 2], samples)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_samples_that_would_all_be_black_are_refused(photos: Photos, kind: str) -> None:
    samples = np.arange(252, dtype=np.uint16).reshape(18, 14)
    assert "16-bit samples of at most 251 would all be black" in photos.refused(encode(Image.fromarray(samples), kind))
    assert not photos.decoded(encode(Image.fromarray(samples * 0), kind)).any()


@pytest.mark.parametrize("samples", [np.full((4, 4), 70000, np.int32), np.full((4, 4), -1, np.int32)])
def test_samples_of_more_than_16_bits_are_refused(photos: Photos, samples: NDArray[np.int32]) -> None:
    assert "samples of more than 16 bits" in photos.refused(encode(Image.fromarray(samples), "TIFF"))


def test_floating_point_samples_are_refused(photos: Photos) -> None:
    content = encode(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF")
    assert "floating-point samples" in photos.refused(content)


def test_the_first_frame_counts(photos: Photos) -> None:
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (10, 200)]
    for kind in ("GIF", "TIFF"):
        content = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        assert set(photos.decoded(content).ravel()) == {10}


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_ignored(photos: Photos, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(noise(9, 7))
    turned = photos.decoded(encode(picture, kind, exif=exif))
    assert turned.shape == (9, 7, 3)
    assert np.array_equal(turned, photos.decoded(encode(picture, kind)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_truncated_files_are_refused(photos: Photos, kind: str, share: float) -> None:
    content = encode(Image.fromarray(noise(40, 30)), kind)
    photos.refused(content[: int(len(content) * share)])


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"<html>\n<body>404</body>\n</html>", b"\xff\xd8\xff\xe0", b"\0" * 999]
)
def test_other_files_are_refused(photos: Photos, content: bytes) -> None:
    photos.refused(content)


def test_damaged_bytes_never_end_in_a_traceback(photos: Photos) -> None:
    generator = np.random.default_rng(0)
    contents = []
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000"):
        whole = np.frombuffer(encode(Image.fromarray(noise(12, 10)), kind), np.uint8)
        for _ in range(60):
            damaged = whole.copy()
            damaged[generator.integers(0, min(len(whole), 200), 4)] = generator.integers(0, 256, 4)
            contents.append(damaged.tobytes())
    photos.store(*contents)
    paths = [photos.folder / f"{i}.jpg" for i in range(len(contents))]
    reasons = undecodable(paths, 1)
    assert 30 < len(reasons) < len(contents) - 30
    for reason in reasons:
        assert "\n" not in reason
        assert reason.startswith(f"{photos.folder}/")
        assert ".jpg: image cannot be decoded (" in reason


@pytest.mark.parametrize(
    "error", [RuntimeError("two\nlines"), TypeError(), MemoryError(), struct.error("x"), NotImplementedError("x")]
)
def test_whatever_a_decoder_raises_is_one_line(
    photos: Photos, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def damaged(*_: object) -> None:
        raise error

    content = encode(Image.fromarray(noise(9, 7)), "PNG")
    monkeypatch.setattr(ImageFile.ImageFile, "load", damaged)
    words = " ".join(str(error).split()) or type(error).__name__
    assert f"cannot be decoded ({words})" in photos.refused(content)


def test_programs_are_not_run(photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow gives PostScript, whatever the file is called, to Ghostscript."""
    tool = tmp_path / "bin/gs"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    assert "none of PNG, JPEG" in photos.refused(program)
    assert not (tmp_path / "ran").exists()


def test_a_pipe_and_a_device_in_an_images_place(photos: Photos, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    reasons = undecodable([tmp_path / "pipe.jpg", tmp_path / "device.jpg"], 1)
    assert len(reasons) == 2
    assert all("image cannot be decoded (not a regular file)" in reason for reason in reasons)


def test_too_many_pixels_are_refused_before_they_are_decoded(photos: Photos) -> None:
    content = encode(Image.new("1", (9460, 9460)), "PNG")
    assert "9,460 x 9,460 pixels, of at most 89,478,485" in photos.refused(content)


def test_a_long_image_takes_no_more_memory_than_others() -> None:
    """1 x 60,000 pixels are 13 million x 224 when they are resized as a whole: 9 GB."""
    code = """
import resource
import numpy as np
from cpt.data.images import resize_and_crop
resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))
line = np.full((60000, 1, 3), 100, np.uint8)
line[:20000] = line[40000:] = 7
for image in (line, line.swapaxes(0, 1)):
    assert (resize_and_crop(image, 224) == 100).all()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_decompression_bomb_is_refused(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    content = encode(Image.fromarray(noise(10, 10)), "PNG")
    assert photos.decoded(content).shape == (10, 10, 3)
    assert "decompression bomb" in photos.refused(encode(Image.fromarray(noise(15, 15)), "PNG"))


def test_a_missing_image_and_a_folder_in_its_place(photos: Photos) -> None:
    store = photos.store(b"x")
    (photos.folder / "0.jpg").unlink()
    with pytest.raises(CptError, match=r"0.jpg: image not found; put it back or make the manifest again"):
        store.image(0)
    (photos.folder / "0.jpg").mkdir()
    with pytest.raises(CptError, match=r"0.jpg: image cannot be decoded"):
        store.image(0)


# Loading before the first epoch


@pytest.fixture
def several(photos: Photos) -> ImageStore:
    """Six images of growing size."""
    return photos.store(*(encode(Image.fromarray(noise(10 + i, 20, i)), "PNG") for i in range(6)), size=12)


@pytest.mark.parametrize("workers", [1, 4])
def test_all_damaged_images_are_reported_at_once(photos: Photos, workers: int) -> None:
    good = encode(Image.fromarray(noise(9, 7)), "PNG")
    store = photos.store(good, b"text", good, b"", good[:50])
    with pytest.raises(CptError) as caught:
        store.load([0, 1, 2, 3, 4, 5], workers)
    message = str(caught.value)
    assert message.startswith(f"3 of 6 images cannot be decoded; {photos.folder}/1.jpg: image cannot be decoded (")
    assert "\n" not in message
    store.load([0, 2], workers)
    with pytest.raises(CptError) as caught:
        store.load([0, 3], workers)
    assert str(caught.value).startswith(f"{photos.folder}/3.jpg: image cannot be decoded")


def test_undecodable_images_are_counted_in_order(photos: Photos) -> None:
    good = encode(Image.fromarray(noise(9, 7)), "PNG")
    photos.store(good, b"text", good, b"other text")
    reasons = undecodable([photos.folder / f"{i}.jpg" for i in range(4)], 3)
    assert [reason.split(":")[0] for reason in reasons] == [f"{photos.folder}/{i}.jpg" for i in (1, 3)]


def kept(store: ImageStore, folder: Path) -> list[int]:
    """Rows that the store still has when the files are gone."""
    for path in folder.iterdir():
        path.write_bytes(b"gone")
    rows = []
    for row in range(6):
        try:
            store.image(row)
            rows.append(row)
        except CptError:
            pass
    return rows


def allow(store: ImageStore, monkeypatch: pytest.MonkeyPatch, memory: int) -> None:
    """Let the machine have so many bytes for what the store keeps."""

    def left() -> int:
        return memory - sum(image.nbytes for kept in (store._decoded, store._resized) for image in kept.values())

    monkeypatch.setattr(images, "room", left)


def test_loaded_images_are_not_read_again(photos: Photos, several: ImageStore) -> None:
    several.load([4, 0, 2], 2)
    assert kept(several, photos.folder) == [0, 2, 4]
    assert np.array_equal(several.image(2), noise(12, 20, 2))


@pytest.mark.parametrize(
    ("rows_of_pixels", "expected"),
    [(0, []), (9, []), (10, [0]), (31, [0, 1]), (33, [0, 1, 2]), (75, [0, 1, 2, 3, 4, 5])],
)
def test_only_what_fits_into_memory_is_kept(
    photos: Photos, several: ImageStore, monkeypatch: pytest.MonkeyPatch, rows_of_pixels: int, expected: list[int]
) -> None:
    """Image i has 10 + i rows of 60 bytes."""
    allow(several, monkeypatch, rows_of_pixels * 60)
    several.load(range(6), 1)
    assert kept(several, photos.folder) == expected


def test_images_beyond_memory_are_not_in_flight_either(
    photos: Photos, several: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many threads, repeated rows and a second call, no more is held than what may be kept."""
    held: list[weakref.ref] = []
    decode = images.decode

    def decoded(path: Path) -> Pixels:
        if not held:
            time.sleep(0.3)  # others finish before the first
        image = decode(path)
        held.append(weakref.ref(image))
        return image

    peaks: list[int] = []

    def counted(*words: Any) -> Iterator[Any]:
        for result in map_blocks(*words):
            peaks.append(sum(image.nbytes for ref in held if (image := ref()) is not None))
            yield result

    monkeypatch.setattr(images, "decode", decoded)
    monkeypatch.setattr(decoding, "_BLOCK", 1)
    monkeypatch.setattr(decoding, "map_blocks", counted)
    allow(several, monkeypatch, 33 * 60)
    several.load([*range(6)] * 5, 4)
    several.load(range(6), 4)
    assert max(peaks) <= 33 * 60 + 4 * 15 * 60, "beside what is kept, one that each thread has just decoded"
    assert peaks[-1] <= 33 * 60
    assert 2 <= len(kept(several, photos.folder)) <= 3


@pytest.mark.parametrize("memory", [0, 33 * 60, 2**31])
@pytest.mark.parametrize("augmentation", images.AUGMENTATIONS)
def test_pixels_do_not_depend_on_what_is_kept(
    several: ImageStore, monkeypatch: pytest.MonkeyPatch, augmentation: str, memory: int
) -> None:
    def batches() -> list[Pixels]:
        rows = [5, 0, 3, 3]
        return [several.pixels(rows), several.training_pixels(rows, augmentation, seed=1, epoch=2, view=1)]

    before = batches()
    allow(several, monkeypatch, memory)
    several.load(range(6), 2, augmentation)
    for _ in range(2):
        for one, other in zip(before, batches(), strict=True):
            assert np.array_equal(one, other)
